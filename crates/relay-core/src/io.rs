//! What passes between the relay's state machine and its shell.

use std::net::SocketAddr;
use std::time::Instant;

use byway_wire::relay::control::{Control, RefuseReason, Role};
use byway_wire::{ChannelId, NodeId};

/// One authenticated connection of a node, numbered by the shell, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// A link whose node proved its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// The key that was proved (by TLS on a UDP link, by `Prove` on a TLS link).
    pub node: NodeId,
    /// The role that was proved with it (on a TLS link); `Hello` must say the same.
    pub role: Option<Role>,
    /// When its connection began: the time to `Welcome` counts from there ([`crate::Config::welcome_within`]).
    pub began: Instant,
    /// Where data for it goes.
    pub egress: Egress,
    /// Where the node comes from, as we see it.
    pub observed: SocketAddr,
    /// TLS is ended between the node and us; the node is told.
    pub intercepted: bool,
}

/// Where data for one side of a channel goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Egress {
    /// As a plain datagram to this address; data is accepted from this address only.
    Udp(SocketAddr),
    /// In a frame of this TLS link; data is accepted from this link only.
    Tls(LinkId),
}

/// One of a channel's two sides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// Who opened it.
    Opener,
    /// Who was called.
    Target,
}

impl Side {
    /// The one at the far end.
    pub fn other(self) -> Self {
        match self {
            Side::Opener => Side::Target,
            Side::Target => Side::Opener,
        }
    }
}

/// What a node may send through the relay in a second; none where it is not limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeRate {
    /// Bytes, without the relay's headers.
    pub bytes: Option<u64>,
    /// Datagrams.
    pub datagrams: Option<u64>,
}

/// What the forwarding table of the shell must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableUpdate {
    /// A new channel with both sides bound.
    Insert {
        /// Which.
        channel: ChannelId,
        /// The opener's side.
        opener: Egress,
        /// The target's side.
        target: Egress,
    },
    /// One side moved.
    Bind {
        /// Which.
        channel: ChannelId,
        /// Which side.
        side: Side,
        /// Where it is now.
        egress: Egress,
    },
    /// The channel ended.
    Remove {
        /// Which.
        channel: ChannelId,
    },
}

/// What the shell must carry out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Send a control message.
    Send {
        /// On which link.
        link: LinkId,
        /// What.
        message: Control,
    },
    /// Send `Control::Refused`, then close the link.
    Disconnect {
        /// Which.
        link: LinkId,
        /// Why.
        reason: RefuseReason,
        /// For a person.
        detail: String,
    },
    /// Keep the forwarding table. Which link an end is bound to: [`crate::Relay::bound_link`].
    Table(TableUpdate),
    /// The address at which a UDP link's node is known to receive; none once the link is gone. Echoes on channel 0 go
    /// to such addresses only.
    Source {
        /// Which link.
        link: LinkId,
        /// Where its node is.
        addr: Option<SocketAddr>,
    },
    /// For the log: one line about something that happened (a node came or left, a channel opened or ended).
    Audit(Audit),
    /// A token names a key that the relay has none of. Who fetches keys may look whether there is a newer one; anybody can cause
    /// this as often as they like.
    UnknownKey,
}

/// What an operator wants to know afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Audit {
    /// A node said hello and was welcomed.
    Linked {
        /// Its link.
        link: LinkId,
        /// Its key.
        node: NodeId,
        /// As what it came.
        role: Role,
        /// Where it comes from.
        observed: SocketAddr,
        /// What carries its data.
        egress: Egress,
        /// The workspace and its owner, as its token says.
        workspace: Option<String>,
        /// As above.
        owner: Option<String>,
    },
    /// A link ended.
    Unlinked {
        /// Its link.
        link: LinkId,
        /// Its key.
        node: NodeId,
        /// Why the relay ended it, as [`Audit::Refused`] said just before; none if the node left, or its connection broke.
        why: Option<RefuseReason>,
    },
    /// A link was refused, or ended for the node's fault.
    Refused {
        /// Its link.
        link: LinkId,
        /// Its key.
        node: NodeId,
        /// Where it comes from.
        observed: SocketAddr,
        /// Why.
        reason: RefuseReason,
        /// For a person.
        detail: String,
    },
    /// A channel was opened.
    Opened {
        /// Which.
        channel: ChannelId,
        /// By whom.
        opener: NodeId,
        /// To whom.
        target: NodeId,
    },
    /// A channel ended.
    Ended {
        /// Which.
        channel: ChannelId,
        /// By whom it was opened.
        opener: NodeId,
        /// To whom.
        target: NodeId,
        /// Why.
        why: EndReason,
    },
}

/// Why a channel ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndReason {
    /// Its opener is done with it.
    ClosedByOpener,
    /// Its target is done with it.
    ClosedByTarget,
    /// Its target did not let the opener in.
    RefusedByTarget,
    /// Its target said nothing.
    NotAnswered,
    /// Its opener was without a link for too long.
    OpenerGone,
    /// Its target was without a link for too long.
    TargetGone,
    /// A newer instance of the agent took over.
    Replaced,
    /// The token of one of the two does not let it have a channel with the other.
    Forbidden,
    /// One of the two is not admitted any more: its token ran out, or the rules changed.
    NotAdmitted,
    /// The relay stops.
    Shutdown,
}

impl EndReason {
    /// The name that logs have.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClosedByOpener => "closed_by_opener",
            Self::ClosedByTarget => "closed_by_target",
            Self::RefusedByTarget => "refused_by_target",
            Self::NotAnswered => "not_answered",
            Self::OpenerGone => "opener_gone",
            Self::TargetGone => "target_gone",
            Self::Replaced => "replaced",
            Self::Forbidden => "forbidden",
            Self::NotAdmitted => "not_admitted",
            Self::Shutdown => "shutdown",
        }
    }
}
