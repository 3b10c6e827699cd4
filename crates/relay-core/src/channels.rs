//! Channels and their two ends.
//!
//! An end belongs to a session, not to a link: it is bound to one link at a time and moves by `Attach`, the new link
//! first and the old one dropped later, so nothing is lost in between. When its link ends it *lingers*: the table keeps
//! its last binding, so data goes on to flow both ways over a UDP address that still works while the node dials a new
//! control connection. Ten seconds later the channel ends and the other side hears `PeerGone`.

use std::time::{Duration, Instant};

use byway_wire::relay::control::{CloseReason, Control};
use byway_wire::{ChannelId, NodeId, NodeInstance};

use crate::awaited::Waiting;
use crate::io::*;
use crate::relay::Relay;
use crate::relayed::Allowance;
use crate::timers::Timer;

/// How long an end waits for its owner to come back: a few dials of a node that backs off from 100 ms.
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// A pair of nodes.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) opener: End,
    pub(crate) target: Target,
}

/// One side of a channel.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) owner: NodeInstance,
    /// None while it lingers.
    pub(crate) link: Option<LinkId>,
    /// Where its data goes; kept while it lingers.
    pub(crate) egress: Egress,
    /// What is left of its right to send signals.
    pub(crate) signals: Allowance,
}

/// The side that was called.
#[derive(Debug)]
pub(crate) enum Target {
    /// It is not here yet; the open is kept for it.
    Awaited(Waiting),
    /// It was told, and may have answered.
    Here { end: End, answered: bool },
}

impl Channel {
    pub(crate) fn end(&self, side: Side) -> Option<&End> {
        match (side, &self.target) {
            (Side::Opener, _) => Some(&self.opener),
            (Side::Target, Target::Here { end, .. }) => Some(end),
            (Side::Target, Target::Awaited(_)) => None,
        }
    }
    pub(crate) fn end_mut(&mut self, side: Side) -> Option<&mut End> {
        match (side, &mut self.target) {
            (Side::Opener, _) => Some(&mut self.opener),
            (Side::Target, Target::Here { end, .. }) => Some(end),
            (Side::Target, Target::Awaited(_)) => None,
        }
    }
    /// Which side is `who`'s. Opening to oneself is refused, so there is at most one.
    pub(crate) fn side_of(&self, who: NodeInstance) -> Option<Side> {
        [Side::Opener, Side::Target]
            .into_iter()
            .find(|side| self.end(*side).is_some_and(|end| end.owner == who))
    }
    /// The node that was called.
    pub(crate) fn target_node(&self) -> NodeId {
        match &self.target {
            Target::Awaited(waiting) => waiting.node,
            Target::Here { end, .. } => end.owner.node,
        }
    }
}

/// For the log.
pub(crate) fn ended(id: ChannelId, channel: &Channel, why: EndReason) -> Audit {
    Audit::Ended {
        channel: id,
        opener: channel.opener.owner.node,
        target: channel.target_node(),
        why,
    }
}

impl Relay {
    /// The side of `channel` that belongs to `who`; none, and counted, if there is no such channel or it is not theirs.
    pub(crate) fn owned(&mut self, channel: ChannelId, who: NodeInstance) -> Option<Side> {
        let side = self.channels.get(&channel).and_then(|c| c.side_of(who));
        if side.is_none() {
            self.counters.not_yours += 1;
        }
        side
    }

    pub(crate) fn attach(&mut self, link: LinkId, me: NodeInstance, id: ChannelId) {
        let egress = self.links.get(&link).map(|l| l.info.egress);
        let (Some(side), Some(egress)) = (self.owned(id, me), egress) else {
            let reason = CloseReason::NoSuchChannel;
            return self.send(
                link,
                Control::Closed {
                    channel: id,
                    reason,
                },
            );
        };
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let in_table = matches!(channel.target, Target::Here { .. });
        let Some(end) = channel.end_mut(side) else {
            return;
        };
        let before = end.link.replace(link);
        let moved = end.egress != egress || before != Some(link);
        end.egress = egress;
        if let Some(before) = before.and_then(|b| self.links.get_mut(&b)) {
            before.ends.remove(&(id, side));
        }
        if let Some(now) = self.links.get_mut(&link) {
            now.ends.insert((id, side));
        }
        self.timers.disarm(Timer::Linger(id, side));
        if moved {
            self.counters.attached += 1;
            if in_table {
                self.table(TableUpdate::Bind {
                    channel: id,
                    side,
                    egress,
                });
            }
        }
        self.send(link, Control::Attached { channel: id });
        if moved {
            self.tell_moved(id, side);
            // Whoever was away missed what was told meanwhile.
            self.tell_moved(id, side.other());
        }
    }

    /// Tells one side of a channel at which address the other is seen now: hole punching aims there. Not before the target
    /// answered: until then the two may not know each other's addresses.
    pub(crate) fn tell_moved(&mut self, id: ChannelId, moved: Side) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        if !matches!(channel.target, Target::Here { answered: true, .. }) {
            return;
        }
        let link_of = |side| channel.end(side).and_then(|end| end.link);
        let from = link_of(moved).and_then(|link| self.links.get(&link));
        if let (Some(from), Some(to)) = (from, link_of(moved.other())) {
            let observed = from.info.observed;
            self.send(
                to,
                Control::PeerMoved {
                    channel: id,
                    observed,
                },
            );
        }
    }

    /// A node is done with a channel, or refuses it.
    pub(crate) fn closed_by_node(&mut self, me: NodeInstance, id: ChannelId, reason: CloseReason) {
        let Some(side) = self.owned(id, me) else {
            return;
        };
        // The other side hears what only the peer can know; everything else is the relay's to say.
        let (told, why) = match (side, reason) {
            (Side::Target, CloseReason::NotAllowed) => {
                self.counters.open_not_allowed += 1;
                (CloseReason::NotAllowed, EndReason::RefusedByTarget)
            }
            (Side::Target, CloseReason::Limit) => (CloseReason::Limit, EndReason::RefusedByTarget),
            (Side::Target, _) => (CloseReason::Done, EndReason::ClosedByTarget),
            (Side::Opener, _) => (CloseReason::Done, EndReason::ClosedByOpener),
        };
        self.end_channel_for(id, me, told, why);
    }

    pub(crate) fn linger_expired(&mut self, id: ChannelId, side: Side) {
        let Some(owner) = self
            .channels
            .get(&id)
            .and_then(|c| c.end(side))
            .map(|end| end.owner)
        else {
            return;
        };
        self.counters.lingered += 1;
        let why = match side {
            Side::Opener => EndReason::OpenerGone,
            Side::Target => EndReason::TargetGone,
        };
        self.end_channel_for(id, owner, CloseReason::PeerGone, why);
    }

    /// Ends a channel because of `whose` side; the other side, if it is here, is told `reason`.
    pub(crate) fn end_channel_for(
        &mut self,
        id: ChannelId,
        whose: NodeInstance,
        reason: CloseReason,
        why: EndReason,
    ) {
        let other = self
            .channels
            .get(&id)
            .and_then(|c| c.end(c.side_of(whose)?.other()))
            .and_then(|end| end.link);
        self.end_channel(id, why);
        if let Some(link) = other {
            self.send(
                link,
                Control::Closed {
                    channel: id,
                    reason,
                },
            );
        }
    }

    /// Forgets a channel and everything that points to it. Tells nobody; `why` is for the log, which knows of joined channels only.
    pub(crate) fn end_channel(&mut self, id: ChannelId, why: EndReason) {
        self.settle_open(id);
        let Some(channel) = self.channels.remove(&id) else {
            return;
        };
        for side in [Side::Opener, Side::Target] {
            self.timers.disarm(Timer::Linger(id, side));
            let Some(end) = channel.end(side) else {
                continue;
            };
            if let Some(link) = end.link.and_then(|l| self.links.get_mut(&l)) {
                link.ends.remove(&(id, side));
            }
            if let Some(session) = self.sessions.get_mut(&end.owner) {
                session.channels.remove(&id);
            }
            self.reap(end.owner);
        }
        if matches!(channel.target, Target::Here { .. }) {
            self.table(TableUpdate::Remove { channel: id });
            self.audit(ended(id, &channel, why));
        }
    }

    /// A new end on `link`, known to the link and to the session.
    pub(crate) fn make_end(
        &mut self,
        now: Instant,
        id: ChannelId,
        side: Side,
        owner: NodeInstance,
        link: LinkId,
    ) -> Option<End> {
        let on = self.links.get_mut(&link)?;
        let session = self.sessions.get_mut(&owner)?;
        on.ends.insert((id, side));
        session.channels.insert(id);
        Some(End {
            owner,
            link: Some(link),
            egress: on.info.egress,
            signals: Allowance::full(now),
        })
    }
}
