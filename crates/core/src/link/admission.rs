//! The token by which relays admit this node (design section 8).
//!
//! The shell gives it and gets another when it is asked to: in the last quarter of the time for which a relay says that the one before holds,
//! and when a relay refused it. A fresh one goes to every relay that is linked, in band, so that no link is lost for it; one that
//! had refused us is dialled again at once. The token is bound to the node's key and of no use to a relay that sees it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use byway_wire::relay::control::{AdmissionToken, Control, RefuseReason};

use super::relay::Phase;
use super::{Links, Output};
use crate::cx::{Cx, Wake};
use crate::io::{LinkError, LinkId, RelayId};

/// A token that could not be had, or was refused, is asked for again after this long; the shell may have to run a program for it.
const AGAIN: Duration = Duration::from_secs(15);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Admittance {
    token: Option<AdmissionToken>,
    /// When to ask for another, for each relay that says how long this one holds.
    renew: BTreeMap<RelayId, Instant>,
    /// Not before that: a program may give a new token each time, and a relay refuse them all.
    not_before: Option<Instant>,
}

impl Admittance {
    pub(super) fn token(&self) -> Option<AdmissionToken> {
        self.token.clone()
    }
    pub(super) fn deadline(&self) -> Option<Wake> {
        let first = self.renew.values().min()?;
        let at = self.not_before.map_or(*first, |at| at.max(*first));
        Some((at, "admission token"))
    }
}

impl Links {
    /// Admission by this from now on. What relays have been shown already is not shown again.
    pub(crate) fn set_token(&mut self, cx: &mut Cx<'_>, token: Option<AdmissionToken>) {
        if self.admittance.token == token {
            return;
        }
        self.admittance.token.clone_from(&token);
        self.admittance.renew.clear();
        if let Some(token) = token {
            for (&link, l) in &mut self.links {
                if l.is_usable() {
                    l.tokens_out += 1;
                    let message = Control::Token(token.clone());
                    self.out.push_back(Output::Send { link, message });
                }
            }
        }
        let refused =
            |error: &LinkError| matches!(error, LinkError::Refused(RefuseReason::NotAdmitted, _));
        let resting = self.relays.iter().filter(|(_, r)| {
            let error = r.last_error.as_ref();
            matches!(r.phase, Phase::Resting { .. }) && error.is_some_and(|(_, e)| refused(e))
        });
        for relay in resting.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.race_anew(cx, relay, false);
        }
    }

    /// A relay says for how long it admits us.
    pub(super) fn admitted_for(&mut self, cx: &Cx<'_>, relay: RelayId, seconds: Option<u32>) {
        match seconds {
            Some(seconds) => {
                let at = cx.now + Duration::from_secs(seconds.into()) * 3 / 4;
                self.admittance.renew.insert(relay, at);
            }
            None => _ = self.admittance.renew.remove(&relay),
        }
    }

    /// A relay took the fresh token.
    pub(crate) fn handle_token_taken(&mut self, cx: &mut Cx<'_>, id: LinkId, seconds: Option<u32>) {
        if let Some(relay) = self.token_answered(cx, id) {
            self.admitted_for(cx, relay, seconds);
        }
    }

    /// A relay did not take the fresh token. None if it was shown none.
    pub(crate) fn handle_token_refused(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Option<RelayId> {
        let relay = self.token_answered(cx, id)?;
        self.not_admitted(cx, relay);
        Some(relay)
    }

    /// Each token that went out on a link has one answer; what a relay says beyond that must not cost us anything.
    fn token_answered(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Option<RelayId> {
        let link = self.links.get_mut(&id)?;
        match link.tokens_out.checked_sub(1) {
            Some(left) => {
                link.tokens_out = left;
                Some(link.relay)
            }
            None => {
                cx.counters.control_unexpected += 1;
                None
            }
        }
    }

    /// A relay did not take the token, in band or at the door: another may do better.
    pub(super) fn not_admitted(&mut self, cx: &mut Cx<'_>, relay: RelayId) {
        // Whoever has none was given none to show.
        if self.admittance.token.is_some() {
            self.admittance.renew.insert(relay, cx.now);
        }
    }

    /// Asks the shell for another when it is time.
    pub(super) fn run_admittance(&mut self, cx: &mut Cx<'_>) {
        if self
            .admittance
            .deadline()
            .is_some_and(|(at, _)| at <= cx.now)
        {
            self.admittance.not_before = Some(cx.now + AGAIN);
            self.out.push_back(Output::TokenWanted);
        }
    }
}
