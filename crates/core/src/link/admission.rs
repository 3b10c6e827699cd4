//! The token by which relays admit this node (design section 8).
//!
//! The shell gives it and gets another when it is asked to: in the last quarter of the time for which a relay says that the one before holds,
//! and when a relay refused it. A fresh one goes to every relay that is linked, in band, so that no link is lost for it; one that
//! had refused us is dialled again at once. The token is bound to the node's key and of no use to a relay that sees it.
//!
//! Whoever gives tokens may be wrong once: a page of a login where a token was meant, a key that relays do not know yet. So the last one
//! by which a relay admitted us is kept until another has done so. If a relay refuses the latest, that one is shown from then on, for
//! as long as it holds by the word of the relay that took it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use byway_wire::relay::control::{AdmissionToken, Control, RefuseReason};

use super::relay::{Phase, Relay};
use super::{Link, Links, Output};
use crate::cx::{Cx, Wake};
use crate::io::{LinkError, LinkId, RelayId};

/// A token that could not be had, or was refused, is asked for again after this long; the shell may have to run a program for it.
const AGAIN: Duration = Duration::from_secs(15);
/// While nothing comes of it that pause doubles, up to this long: what is wrong for hours is a person's to mend.
const SELDOM: Duration = Duration::from_secs(3_600);
/// A token that a relay admits by for less than this cannot be kept fresh at intervals of [`AGAIN`]: nothing came of having asked.
const SENSIBLE: Duration = Duration::from_secs(30);
/// What a relay says of less than this counts as this much: the shell is not asked at the relay's word at once.
const LEAST: Duration = Duration::from_secs(5);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Admittance {
    latest: Option<Given>,
    /// The latest one of which we know that it admits us.
    good: Option<Good>,
    /// The latest one was refused, and `good` is shown instead.
    back: bool,
    /// How many we were given: the number of the latest.
    given: u64,
    /// Which relays need another, for each that says how long this one holds, or refused it.
    renew: BTreeMap<RelayId, Renewal>,
    /// Not before that, whichever relay it is for: one program serves them all.
    not_before: Option<Instant>,
}

/// A token that we were given.
#[derive(Clone, Debug)]
struct Given {
    number: u64,
    token: AdmissionToken,
}

/// One that a relay took.
#[derive(Debug)]
struct Good {
    given: Given,
    /// Who took it. That others refuse it says nothing of this one.
    relay: RelayId,
    until: Instant,
}

/// When one relay needs another token.
#[derive(Debug)]
struct Renewal {
    /// None while it has not answered to the latest.
    at: Option<Instant>,
    /// Not before that: a program may give a new token each time, and a relay refuse them all.
    not_before: Option<Instant>,
    /// The pause after the next time that it is asked for.
    pause: Duration,
}

impl Renewal {
    fn new() -> Self {
        Self {
            at: None,
            not_before: None,
            pause: AGAIN,
        }
    }
    fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
    /// It is needed then, or when it may be asked for again.
    fn plan(&mut self, at: Instant) {
        self.at = Some(self.not_before.map_or(at, |not| not.max(at)));
    }
    /// It is being asked for.
    fn asked(&mut self, now: Instant) {
        let again = now + self.pause;
        (self.at, self.not_before) = (Some(again), Some(again));
        self.pause = (self.pause * 2).min(SELDOM);
    }
}

impl Admittance {
    /// What `Hello` shows, and its number.
    pub(super) fn shown(&self, now: Instant) -> (Option<AdmissionToken>, Option<u64>) {
        let shown = self.current(now);
        (shown.map(|t| t.token.clone()), shown.map(|t| t.number))
    }
    fn current(&self, now: Instant) -> Option<&Given> {
        let good = self.good.as_ref().filter(|g| self.back && g.until > now);
        good.map_or(self.latest.as_ref(), |g| Some(&g.given))
    }

    /// A relay took the token of this number.
    fn taken(&mut self, number: u64, relay: RelayId, until: Instant) {
        let of = |given: &&Given| given.number == number;
        let latest = self.latest.as_ref().filter(of);
        let good = self.good.as_ref().map(|g| &g.given).filter(of);
        if latest.is_some() {
            self.back = false;
        }
        // One that is neither was overtaken meanwhile.
        if let Some(given) = latest.or(good).cloned() {
            self.good = Some(Good {
                given,
                relay,
                until,
            });
        }
    }

    /// A relay did not take the token of this number.
    fn refused(&mut self, now: Instant, number: u64, relay: RelayId) {
        if let Some(good) = &self.good
            && good.given.number == number
        {
            self.back = false;
            if good.relay == relay {
                self.good = None;
            }
        } else if self.latest.as_ref().is_some_and(|t| t.number == number) {
            self.back = self.good.as_ref().is_some_and(|good| good.until > now);
        }
    }
    pub(super) fn deadline(&self) -> Option<Wake> {
        let first = self.renew.values().filter_map(|r| r.at).min()?;
        let at = self.not_before.map_or(first, |at| at.max(first));
        Some((at, "admission token"))
    }
}

impl Links {
    /// Admission by this from now on. What relays have been shown already is not shown again.
    pub(crate) fn set_token(&mut self, cx: &mut Cx<'_>, token: Option<AdmissionToken>) {
        let admittance = &mut self.admittance;
        if admittance.current(cx.now).map(|t| &t.token) == token.as_ref() {
            return;
        }
        if token.is_none() {
            admittance.renew.clear();
            admittance.good = None;
        }
        admittance.back = false;
        // Each relay has yet to say what it makes of this one.
        for renewal in admittance.renew.values_mut() {
            renewal.at = None;
        }
        admittance.given += 1;
        let number = admittance.given;
        admittance.latest = token.clone().map(|token| Given { number, token });
        if let Some(token) = token {
            for (&link, l) in &mut self.links {
                if l.is_usable() {
                    l.tokens_out.push_back(number);
                    let message = Control::Token(token.clone());
                    self.out.push_back(Output::Send { link, message });
                }
            }
        }
        let resting = self.relays.iter().filter(|(_, r)| rests_unadmitted(r));
        for relay in resting.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.race_anew(cx, relay, false);
        }
    }

    /// True if a token is known to admit us, whatever becomes of others.
    pub(crate) fn token_holds(&self, now: Instant) -> bool {
        let good = self.admittance.good.as_ref();
        good.is_some_and(|good| good.until > now)
    }

    /// A relay says for how long it admits us by what it was shown on this link.
    pub(super) fn admitted_for(&mut self, cx: &Cx<'_>, id: LinkId, seconds: Option<u32>) {
        let Some(&Link { relay, shown, .. }) = self.links.get(&id) else {
            return;
        };
        match seconds {
            Some(seconds) => {
                let time = Duration::from_secs(seconds.into());
                if let Some(number) = shown {
                    self.admittance.taken(number, relay, cx.now + time);
                }
                let new = Renewal::new();
                let renewal = self.admittance.renew.entry(relay).or_insert(new);
                if time >= SENSIBLE {
                    *renewal = Renewal::new();
                }
                renewal.plan(cx.now + time.max(LEAST) * 3 / 4);
            }
            None => _ = self.admittance.renew.remove(&relay),
        }
    }

    /// A relay took the fresh token.
    pub(crate) fn handle_token_taken(&mut self, cx: &mut Cx<'_>, id: LinkId, seconds: Option<u32>) {
        let Some(number) = self.token_answered(cx, id) else {
            return;
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.shown = Some(number);
            self.admitted_for(cx, id, seconds);
        }
    }

    /// A relay did not take the fresh token. None if it was shown none.
    pub(crate) fn handle_token_refused(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Option<RelayId> {
        let number = self.token_answered(cx, id)?;
        let relay = self.links.get(&id)?.relay;
        self.not_taken(cx, relay, Some(number));
        Some(relay)
    }

    /// Each token that went out on a link has one answer; what a relay says beyond that must not cost us anything. Gives its number.
    fn token_answered(&mut self, cx: &mut Cx<'_>, id: LinkId) -> Option<u64> {
        let number = self.links.get_mut(&id)?.tokens_out.pop_front();
        cx.counters.control_unexpected += u64::from(number.is_none());
        number
    }

    /// A relay ends a link because the token that it was shown there does not admit us. True if it was shown another one than we show
    /// now, and is dialled anew with that at once: the link is given up then. Once for each token that we are given, whatever relays say.
    pub(super) fn not_admitted(&mut self, cx: &mut Cx<'_>, id: LinkId, error: &LinkError) -> bool {
        let Some(&Link { relay, shown, .. }) = self.links.get(&id) else {
            return false;
        };
        self.not_taken(cx, relay, shown);
        let (_, now_shown) = self.admittance.shown(cx.now);
        let given = self.admittance.given;
        let mut links = self.links.iter();
        let alone = links.all(|(&other, l)| other == id || l.relay != relay);
        let Some(r) = self.relays.get_mut(&relay) else {
            return false;
        };
        if now_shown.is_none()
            || now_shown == shown
            || !alone
            || r.anew_for == given
            || !matches!(r.phase, Phase::Racing(_) | Phase::Up { .. })
        {
            return false;
        }
        r.anew_for = given;
        self.drop_link(id, error.clone());
        self.race_anew(cx, relay, false);
        true
    }

    /// A relay did not take the token of this number, in band or at the door: another may do better, if that was not it.
    fn not_taken(&mut self, cx: &mut Cx<'_>, relay: RelayId, number: Option<u64>) {
        // Whoever has none was given none to show.
        let Some(number) = number else { return };
        let admittance = &mut self.admittance;
        let latest = admittance.latest.as_ref().map(|t| t.number);
        let shown = admittance.current(cx.now).map(|t| t.number);
        admittance.refused(cx.now, number, relay);
        if [latest, shown].contains(&Some(number)) {
            let new = Renewal::new();
            let renewal = self.admittance.renew.entry(relay).or_insert(new);
            renewal.plan(cx.now);
        }
    }

    /// Asks the shell for another when it is time.
    pub(super) fn run_admittance(&mut self, cx: &mut Cx<'_>) {
        // A relay without a link says what it makes of the token when it is dialled, if ever.
        let needs = |r: &Relay| match r.phase {
            Phase::Racing(_) | Phase::Up { .. } => true,
            Phase::Idle | Phase::Resting { .. } => rests_unadmitted(r),
        };
        let relays = &self.relays;
        let admittance = &mut self.admittance;
        let renew = &mut admittance.renew;
        renew.retain(|id, _| relays.get(id).is_some_and(needs));
        if admittance.deadline().is_none_or(|(at, _)| at > cx.now) {
            return;
        }
        admittance.not_before = Some(cx.now + AGAIN);
        let due = admittance.renew.values_mut().filter(|r| r.is_due(cx.now));
        due.for_each(|renewal| renewal.asked(cx.now));
        self.out.push_back(Output::TokenWanted);
    }
}

/// True if the relay is not dialled for the moment because it did not admit us.
fn rests_unadmitted(relay: &Relay) -> bool {
    let error = relay.last_error.as_ref().map(|(_, error)| error);
    let refused = matches!(
        error,
        Some(LinkError::Refused(RefuseReason::NotAdmitted, _))
    );
    refused && matches!(relay.phase, Phase::Resting { .. })
}
