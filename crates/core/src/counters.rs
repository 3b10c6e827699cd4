//! Everything the node drops or refuses is counted here: hostile input leaves a number, never a state. So are datagrams sent
//! to addresses where perhaps nobody is.

/// Drops, refusals, quarantines and sprays since the node began. Read by [`crate::node::Node::counters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Datagrams that are no STUN, probe, echo or rebind cookie.
    pub datagram_unknown: u64,
    /// STUN messages that answer no request of ours.
    pub stun_unexpected: u64,
    /// Echoes that match no test.
    pub echo_unexpected: u64,
    /// Rebind cookies for channels we do not have at that relay.
    pub cookie_unknown: u64,
    /// Rebind cookies beyond what the node echoes in a second.
    pub cookie_limited: u64,
    /// Probes whose index is nobody's.
    pub probe_unknown_index: u64,
    /// Probes that do not authenticate.
    pub probe_forged: u64,
    /// Probes that authenticate and make no sense.
    pub probe_malformed: u64,
    /// Probes seen before.
    pub probe_replayed: u64,
    /// Probes on a way that cannot be the peer's.
    pub probe_unknown_way: u64,
    /// Pings beyond what one peer is answered in a second.
    pub ping_limited: u64,
    /// Pongs that answer no ping of that way, or are shorter than it.
    pub pong_unexpected: u64,
    /// Signals on channels we do not know.
    pub signal_unknown: u64,
    /// Signals that do not authenticate.
    pub signal_forged: u64,
    /// Signals seen before, or overtaken by a later one.
    pub signal_replayed: u64,
    /// Candidates of an address class that was not offered, or that cannot be a peer's.
    pub candidate_refused: u64,
    /// Candidates beyond the most a side may offer.
    pub candidate_cut: u64,
    /// Times that a candidate which no relay attests was left alone: enough such were asked in the last minute for this peer, or this
    /// one for another.
    pub candidate_waits: u64,
    /// Moves of a peer that a relay told of beyond what is followed in a second.
    pub moves_limited: u64,
    /// Paths shut out for a while, because they fell silent beside one that answered, or carried nothing of the least size.
    pub quarantines: u64,
    /// Sprays begun to cross a hard NAT.
    pub sprays: u64,
    /// Pings sent in sprays.
    pub spray_pings: u64,
    /// Control messages that make no sense where they came.
    pub control_unexpected: u64,
    /// Peers whose own record names another instance or probe key than the relay's copy did.
    pub record_mismatch: u64,
    /// Openers who are not admitted.
    pub open_refused: u64,
    /// Openers turned away because a limit is reached.
    pub open_limited: u64,
    /// Datagrams of a first flight that had no room, or came after it left; and those that waited for a way in vain.
    pub first_dropped: u64,
    /// Peers without any path that made room for new ones.
    pub peer_evicted: u64,
    /// Calls that name a link, peer or relay that is gone.
    pub stale_input: u64,
}
