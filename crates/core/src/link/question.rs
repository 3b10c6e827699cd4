//! When the host's network is another one, or the host slept: is a link still there?
//!
//! A link may live through such a change: QUIC goes on from another address, and a sleep may have been short. Or it is dead
//! without a sign: TCP waits for minutes for an address that is gone. So each link is asked by a control `Ping`, and one that
//! does not answer in its time is given up at once and the relay raced for anew, without the back-off that an unwell relay
//! would deserve. Channels are attached to the new link, as after any loss.
//!
//! After a sleep of more than some seconds that is not waited for: `wake` has links dialled beside the one that is asked.

use std::time::{Duration, Instant};

use byway_wire::relay::control::Control;

use super::relay::Phase;
use super::{DIAL_LIMIT, LinkState, Links, Output, WELCOME_LIMIT, is_lasting};
use crate::cx::Cx;
use crate::io::{LinkError, LinkId, LocalSocket, RelayId};

/// An answer takes a round trip; another network's may be longer. Where a packet was lost a link is made anew for nothing, which
/// costs three round trips beside a path that works...
const ROUND_TRIPS: u32 = 2;
/// ...and this much is for everything else.
const MARGIN: Duration = Duration::from_millis(50);
/// What else waits in front of it (data that a relay holds for a slow link, a driver that is busy) needs its time as well.
const LEAST: Duration = Duration::from_millis(250);
/// A dial of this age or less belongs to the network as it is now.
const YOUNG: Duration = Duration::from_millis(500);
/// Where no round trip is known.
const UNKNOWN_RTT: Duration = Duration::from_millis(100);

/// A question under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    token: u64,
    pub(super) until: Instant,
}

impl Links {
    /// The host's network is another one, or the host slept for so long. `sockets` are those it has now.
    pub(crate) fn handle_network_change(
        &mut self,
        cx: &mut Cx<'_>,
        sockets: &[LocalSocket],
        slept: Option<Duration>,
    ) {
        let relays: Vec<RelayId> = self.relays.keys().copied().collect();
        let long = slept.filter(|time| *time >= super::wake::DOUBTFUL);
        for id in relays {
            // So is what stood in a carrier's way: a proxy, a login page.
            if let Some(r) = self.relays.get_mut(&id) {
                r.left_out.forgive(cx.now);
                // Whatever was lost before, is asked for now.
                r.silent = false;
            }
            match self.relays.get(&id).map(|r| &r.phase) {
                Some(&Phase::Up { link, .. }) => {
                    if self.has_lost_its_family(link, sockets) {
                        self.race_anew(cx, id, slept.is_some());
                    } else {
                        self.ask(cx, link);
                        if let Some(slept) = long {
                            self.race_beside(cx, id, slept);
                        }
                    }
                }
                // What was being tried, or rested from, was on the old network. Addresses come one by one, so that what
                // was begun a moment ago goes on. Not after a sleep: our clock may have stood still, and a dial from before
                // it looks young, though its address may be gone.
                Some(Phase::Racing(_))
                    if long.is_none() && self.has_young_dial(id, cx.now, sockets) => {}
                // A relay that does not want us does so from every network.
                Some(Phase::Resting { .. }) if self.is_refused(id) => {}
                Some(Phase::Racing(_) | Phase::Resting { .. }) => {
                    self.race_anew(cx, id, slept.is_some());
                }
                Some(Phase::Idle) | None => {}
            }
        }
    }

    fn is_refused(&self, relay: RelayId) -> bool {
        self.last_error(relay).is_some_and(|error| {
            let refused = matches!(error, LinkError::Refused(..));
            // Whose TLS is ended on the way is refused for the network it is in.
            refused && is_lasting(error) && !error.is_in_the_way()
        })
    }

    fn has_young_dial(&self, relay: RelayId, now: Instant, sockets: &[LocalSocket]) -> bool {
        let mut of_relay = self.links.iter().filter(|(_, link)| link.relay == relay);
        of_relay.any(|(&id, link)| match link.state {
            LinkState::Dialing { until } => until + YOUNG > now + DIAL_LIMIT,
            // It has carried a handshake a moment ago, and an `Open` is on its way behind `Hello`.
            LinkState::Greeting { until, .. } => {
                until + YOUNG > now + WELCOME_LIMIT && !self.has_lost_its_family(id, sockets)
            }
            LinkState::Ready { .. } => false,
        })
    }

    /// True if the host has no address left of the family that the link goes by.
    fn has_lost_its_family(&self, link: LinkId, sockets: &[LocalSocket]) -> bool {
        let udp = self.links.get(&link).and_then(super::Link::udp);
        udp.is_some_and(|(socket, relay)| {
            let own = sockets.iter().filter(|s| s.id == socket);
            let mut addrs = own.flat_map(|s| &s.addrs);
            !addrs.any(|ip| ip.is_loopback() == relay.ip().is_loopback())
        })
    }

    fn ask(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(LinkState::Ready { up, question, .. }) =
            self.links.get_mut(&id).map(|l| &mut l.state)
        else {
            return;
        };
        // Changes that come all the time must not put the verdict off for ever.
        let token = match question {
            Some(asked) => asked.token,
            None => {
                let token = cx.rng.u64();
                let patience = up.rtt.unwrap_or(UNKNOWN_RTT) * ROUND_TRIPS + MARGIN;
                let until = cx.now + patience.max(LEAST);
                *question = Some(Question { token, until });
                token
            }
        };
        self.out.push_back(Output::Send {
            link: id,
            message: Control::Ping { token },
        });
    }

    /// An answer came on a link.
    pub(crate) fn handle_pong(&mut self, cx: &mut Cx<'_>, id: LinkId, token: u64) {
        if let Some(link) = self.links.get_mut(&id)
            && let LinkState::Ready { question, .. } = &mut link.state
            && question.is_some_and(|asked| asked.token == token)
        {
            *question = None;
            let relay = link.relay;
            self.end_race_beside(cx, relay);
        }
    }

    /// The link's time to answer may be over.
    pub(super) fn run_question(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let relay = link.relay;
        if let LinkState::Ready {
            question: Some(asked),
            ..
        } = link.state
            && asked.until <= cx.now
        {
            self.give_up(cx, relay, id, LinkError::TimedOut);
        }
    }

    /// A link that was asked is dead: its successor is under way, or is dialled now.
    pub(super) fn give_up(
        &mut self,
        cx: &mut Cx<'_>,
        relay: RelayId,
        id: LinkId,
        error: LinkError,
    ) {
        self.drop_link(id, error);
        self.note_silence(relay);
        if !self.race_on(cx, relay) {
            self.race_anew(cx, relay, false);
        }
    }

    /// A link ended. One that was asked whether it is still there has answered by that, and its relay is well.
    pub(super) fn is_answer(&self, id: LinkId) -> bool {
        let state = self.links.get(&id).map(|l| &l.state);
        matches!(
            state,
            Some(LinkState::Ready {
                question: Some(_),
                ..
            })
        )
    }

    /// Gives up all links to a relay and begins from the beginning; after a sleep with what worked last.
    pub(super) fn race_anew(&mut self, cx: &mut Cx<'_>, relay: RelayId, slept: bool) {
        let links = self.links.iter().filter(|(_, l)| l.relay == relay);
        for id in links.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.drop_link(id, LinkError::TimedOut);
        }
        if let Some(r) = self.relays.get_mut(&relay) {
            r.failures = 0;
        }
        let race = if slept {
            self.plan_waking(cx, relay)
        } else {
            self.plan(cx.now, super::race::TLS_AFTER)
        };
        self.race(cx, relay, race);
    }
}
