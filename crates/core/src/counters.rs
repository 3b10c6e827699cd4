//! Everything the node drops or refuses is counted here: hostile input leaves a number, never a state. So are datagrams sent
//! to addresses where perhaps nobody is.

macro_rules! counters {
    ($($(#[doc = $means:literal])+ $name:ident,)+) => {
        /// Drops, refusals, quarantines and sprays since the node began. Read by [`crate::node::Node::counters`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $means])+ pub $name: u64,)+
        }

        impl Counters {
            /// All that are not zero, for people: name, meaning and count.
            pub fn nonzero(&self) -> Vec<(&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($means),+).trim_ascii(), self.$name)),+]
                    .into_iter()
                    .filter(|(_, _, count)| *count > 0)
                    .collect()
            }
        }
    };
}

counters! {
    /// Datagrams that are no STUN, probe, echo or rebind cookie.
    datagram_unknown,
    /// STUN messages that answer no request of ours.
    stun_unexpected,
    /// Echoes that match no test.
    echo_unexpected,
    /// Rebind cookies for channels we do not have at that relay.
    cookie_unknown,
    /// Rebind cookies beyond what the node echoes in a second.
    cookie_limited,
    /// Probes whose index is nobody's.
    probe_unknown_index,
    /// Probes that do not authenticate.
    probe_forged,
    /// Probes that authenticate and make no sense.
    probe_malformed,
    /// Probes seen before.
    probe_replayed,
    /// Probes on a way that cannot be the peer's.
    probe_unknown_way,
    /// Pings beyond what one peer is answered in a second.
    ping_limited,
    /// Pongs that answer no ping of that way, or are shorter than it.
    pong_unexpected,
    /// Signals on channels we do not know.
    signal_unknown,
    /// Signals that do not authenticate.
    signal_forged,
    /// Signals seen before, or overtaken by a later one.
    signal_replayed,
    /// Candidates of an address class that was not offered, or that cannot be a peer's.
    candidate_refused,
    /// Candidates beyond the most a side may offer.
    candidate_cut,
    /// Times that a candidate which no relay attests was left alone: enough such were asked in the last minute for this peer, or this
    /// one for enough others.
    candidate_waits,
    /// Moves of a peer that a relay told of beyond what is followed in a second.
    moves_limited,
    /// Paths shut out for a while, because they fell silent beside one that answered, or carried nothing of the least size.
    quarantines,
    /// Sprays begun to cross a hard NAT.
    sprays,
    /// Pings sent in sprays.
    spray_pings,
    /// Control messages that make no sense where they came.
    control_unexpected,
    /// Words of relays that we send more than we may there.
    throttled,
    /// Peers whose own record names another instance or probe key than the relay's copy did.
    record_mismatch,
    /// Openers who are not admitted.
    open_refused,
    /// Openers turned away because a limit is reached.
    open_limited,
    /// Datagrams of a first flight that had no room, or came after it left; and those that waited for a way in vain.
    first_dropped,
    /// Peers without any path that made room for new ones.
    peer_evicted,
    /// Calls that name a link, peer or relay that is gone.
    stale_input,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told_with_its_meaning() {
        let mut counters = Counters::default();
        assert_eq!(counters.nonzero(), []);
        counters.probe_replayed = 7;
        assert_eq!(
            counters.nonzero(),
            [("probe_replayed", "Probes seen before.", 7)]
        );
    }
}
