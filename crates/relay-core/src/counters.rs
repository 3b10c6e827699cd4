//! What happened and what was refused, each with a counter of its own (design section 12: every limit is counted).

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start. They only rise.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }
        impl Counters {
            /// Names and values, for metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Links whose node proved its key.
    links,
    /// Links welcomed.
    welcomed,
    /// Channels with both ends here.
    opened,
    /// Opens that waited for an absent peer.
    awaited,
    /// Ends moved to another link.
    attached,
    /// Links moved to another address.
    rebound,
    /// Signals passed on.
    signals,
    /// Records passed on.
    records,
    /// Links refused or ended: no version in common.
    refused_version,
    /// Links refused: a record of another key.
    refused_identity,
    /// Links refused: not admitted.
    refused_admission,
    /// Fresh tokens taken from nodes that are here.
    tokens_taken,
    /// Fresh tokens refused.
    tokens_refused,
    /// Links ended: their node's token expired.
    tokens_expired,
    /// Links ended: by other rules than those that admitted their node.
    no_longer_admitted,
    /// Nodes told that they send more than they may.
    throttled,
    /// Links refused or ended: too many of the node or of the process.
    refused_links,
    /// Links ended: the node did not keep to the protocol.
    refused_protocol,
    /// Links ended: a newer instance of the same agent is here.
    refused_replaced,
    /// Links refused: the relay is going away.
    refused_shutdown,
    /// Links ended: no `Hello` in time.
    refused_silent,
    /// Opens refused: the id is in use, or reserved.
    open_in_use,
    /// Opens refused: to oneself.
    open_self,
    /// Opens refused: too many channels of the opener or of the target.
    open_channels,
    /// Opens refused: too many unanswered ones.
    open_unanswered,
    /// Opens refused: too many, or too large, first datagrams.
    open_first,
    /// Opens refused or ended: the peer did not come.
    open_offline,
    /// Opens ended: the peer is here and did not answer.
    open_expired,
    /// Opens refused, or channels ended: the token of one of the two does not let it have a channel with the other.
    open_forbidden,
    /// Channels refused by the target.
    open_not_allowed,
    /// Messages about a channel that is not the sender's.
    not_yours,
    /// Channels ended: an end was without a link for too long.
    lingered,
    /// Rebind cookies that are forged, too old, or of another node's channel.
    bad_cookies,
    /// Signals dropped: too long, too many, or the other end has no link.
    signals_dropped,
    /// Records ignored: of another node, or not newer.
    records_ignored,
    /// Messages of a newer version, ignored.
    unknown_messages,
}
