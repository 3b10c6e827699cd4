//! What follows from a token while its node is here.
//!
//! A session stands by the token that its node showed last, on any of its links. A fresh one takes its place in band, so that nobody
//! loses a tunnel because a token ran out; one that does not admit changes nothing. When it runs out, or the relay's rules change so that it would not admit any
//! more, the session's links are ended and its channels with them: an end that lingered would go on to carry data.
//!
//! The wall clock may be set while the relay runs. So the token that runs out next is looked at by the wall clock every
//! [`LOOK`], and not waited for by a clock that knows nothing of it.

use std::time::{Duration, Instant};

use byway_wire::relay::control::{AdmissionToken, CloseReason, Control, RefuseReason};
use byway_wire::{ChannelId, NodeInstance};

use crate::admission::{Admission, AdmissionError, Grant};
use crate::channels::Target;
use crate::io::{EndReason, Event, LinkId, Side};
use crate::relay::Relay;
use crate::timers::Timer;

/// A wall clock that was set costs so much.
const LOOK: Duration = Duration::from_secs(2);

impl Relay {
    /// Other rules from now on: whom they do not admit any more is sent away.
    pub fn set_admission(&mut self, now: Instant, admission: Admission) {
        self.now = now;
        self.config.admission = admission;
        let admission = &self.config.admission;
        let judged = self
            .sessions
            .iter()
            .map(|(id, session)| (*id, admission.still_admits(id.node, session.grant.as_ref())));
        let out: Vec<(NodeInstance, AdmissionError)> = judged
            .filter_map(|(id, verdict)| Some((id, verdict.err()?)))
            .collect();
        for (id, error) in out {
            self.counters.no_longer_admitted += 1;
            self.send_away(now, id, &error);
        }
        if !matches!(self.config.admission, Admission::Tokens(_)) {
            self.sessions.values_mut().for_each(|s| s.grant = None);
            self.expiries.clear();
            self.timers.disarm(Timer::Tokens);
        }
    }

    /// A node that is here shows another token.
    pub(crate) fn fresh_token(
        &mut self,
        now: Instant,
        unix_time: u64,
        link: LinkId,
        me: NodeInstance,
        token: &AdmissionToken,
    ) {
        let Some(role) = self.sessions.get(&me).map(|s| s.role) else {
            return;
        };
        match self
            .config
            .admission
            .judge(unix_time, me.node, role, Some(token))
        {
            Ok(grant) => {
                self.counters.tokens_taken += 1;
                let admitted_for = grant.as_ref().map(|g| g.holds_for(unix_time));
                self.grant(now, unix_time, me, grant);
                self.send(link, Control::TokenTaken { admitted_for });
            }
            Err(error) => {
                self.counters.tokens_refused += 1;
                self.tell_if_unknown_key(error);
                let detail = error.to_string();
                self.send(link, Control::TokenRefused { detail });
            }
        }
    }

    /// Whoever fetches keys wants to know.
    pub(crate) fn tell_if_unknown_key(&mut self, error: AdmissionError) {
        if error == AdmissionError::UnknownKey {
            self.events.push_back(Event::UnknownKey);
        }
    }

    /// The session stands by this from now on.
    pub(crate) fn grant(
        &mut self,
        now: Instant,
        unix_time: u64,
        me: NodeInstance,
        grant: Option<Grant>,
    ) {
        let Some(session) = self.sessions.get_mut(&me) else {
            return;
        };
        let until = grant.as_ref().map(|g| g.until);
        let channels: Vec<ChannelId> = session.channels.iter().copied().collect();
        if let Some(before) = std::mem::replace(&mut session.grant, grant) {
            self.forget_expiry(before.until, me);
        }
        if let Some(until) = until {
            self.expiries.insert((until, me));
        }
        for id in channels {
            self.end_if_forbidden(id);
        }
        self.plan_expiry(now, unix_time);
    }

    /// True if the tokens of both let an opener and its target have a channel.
    pub(crate) fn may_have_channel(&self, id: ChannelId, target: NodeInstance) -> bool {
        let Some(opener) = self.channels.get(&id).map(|c| c.opener.owner) else {
            return false;
        };
        let reaches = |who: NodeInstance, whom: NodeInstance| {
            let grant = self.sessions.get(&who).and_then(|s| s.grant.as_ref());
            grant.is_none_or(|grant| grant.reaches(whom.node))
        };
        reaches(opener, target) && reaches(target, opener)
    }

    /// A token may name fewer peers than the one before.
    fn end_if_forbidden(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get(&id) else {
            return;
        };
        let allowed = match &channel.target {
            Target::Here { end, .. } => self.may_have_channel(id, end.owner),
            Target::Awaited(waiting) => {
                let opener = self.sessions.get(&channel.opener.owner);
                let grant = opener.and_then(|s| s.grant.as_ref());
                grant.is_none_or(|grant| grant.reaches(waiting.node))
            }
        };
        if allowed {
            return;
        }
        self.counters.open_forbidden += 1;
        let reason = CloseReason::NotAllowed;
        let ends = [Side::Opener, Side::Target].map(|side| self.bound_link(id, side));
        self.end_channel(id, EndReason::Forbidden);
        for link in ends.into_iter().flatten() {
            self.send(
                link,
                Control::Closed {
                    channel: id,
                    reason,
                },
            );
        }
    }

    pub(crate) fn expire_tokens(&mut self, now: Instant, unix_time: u64) {
        while let Some(&(until, me)) = self.expiries.first()
            && until <= unix_time
        {
            self.expiries.pop_first();
            self.counters.tokens_expired += 1;
            self.send_away(now, me, &AdmissionError::Expired);
        }
        self.plan_expiry(now, unix_time);
    }

    pub(crate) fn forget_expiry(&mut self, until: u64, me: NodeInstance) {
        self.expiries.remove(&(until, me));
        if self.expiries.is_empty() {
            self.timers.disarm(Timer::Tokens);
        }
    }

    fn plan_expiry(&mut self, now: Instant, unix_time: u64) {
        if let Some(&(until, _)) = self.expiries.first() {
            let left = Duration::from_secs(until.saturating_sub(unix_time));
            self.timers.arm(Timer::Tokens, now + left.min(LOOK));
        }
    }

    /// Ends everything of a session: its channels first, for an end that lingers goes on to carry data.
    fn send_away(&mut self, now: Instant, me: NodeInstance, why: &AdmissionError) {
        let Some(session) = self.sessions.get(&me) else {
            return;
        };
        let channels: Vec<ChannelId> = session.channels.iter().copied().collect();
        let links: Vec<LinkId> = session.links.iter().copied().collect();
        for channel in channels {
            let why = EndReason::NotAdmitted;
            self.end_channel_for(channel, me, CloseReason::PeerGone, why);
        }
        for link in links {
            self.refuse(now, link, RefuseReason::NotAdmitted, &why.to_string());
        }
        self.reap(me);
    }
}
