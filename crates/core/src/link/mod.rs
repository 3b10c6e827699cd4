//! Links: how a node reaches its relays (design section 7).
//!
//! # One relay
//!
//! A relay is *kept* (an agent's relays: always linked) or *needed* (a client's, while a peer is reached through it, and
//! half a minute longer, because the next tunnel often goes the same way). Otherwise it is idle and costs nothing.
//!
//! Getting a link is a **race**: UDP starts at once; TLS 300 ms later if UDP is not up by then, or as soon as UDP failed.
//! A carrier that connected is *usable*: `Hello` goes out and the opens that wait go with it in the same flight. The first
//! carrier that is *welcomed* wins. If the winner is TLS, UDP goes on trying beside it, for UDP is better.
//!
//! A UDP link is up for control before it is known to carry data: QUIC and plain datagrams are different traffic to a
//! firewall. So the node sends a full-size datagram on channel 0, which the relay echoes. The token inside makes the echo
//! unforgeable off the path. When nothing came back within a second, the link has failed for data and TLS is made
//! **beside** it. The same test runs again when a path over the link is suspected.
//!
//! A better link replaces the one in use **make before break**: it is connected and welcomed (and, for UDP, proven)
//! first; then the node is told to `Attach` every channel to it; the old link is hung up three seconds later, when what
//! was on its way has arrived. While on TLS, UDP is tried again every 30 to 60 seconds.
//!
//! When the host's network changes, or it wakes from sleep, each link is *questioned*, and given up at once if it does not
//! answer (see `question`). After a longer sleep others are dialled beside it meanwhile (see `wake`).
//!
//! A link that breaks is dialled again after a jittered back-off of 100 ms doubling to 10 s, which begins anew once a
//! link has lasted ten seconds; one that lasted and then fell silent is dialled at once. A refusal of the relay's that will not go
//! away by itself (not admitted) waits a minute; an agent that was *replaced* by a newer instance waits five. What stands in
//! the way of one carrier alone (a proxy that refuses, somebody with another certificate) has that carrier left out for half a
//! minute to a minute, or until the network is another one; the other carrier is tried meanwhile as if it were the only one.
//!
//! A relay that is about to stop is left make before break, too (see `leaving`), and one that the relay map names no more
//! (see `in_map`).
//!
//! This module knows relays and links; it knows neither peers nor channels. The node reads what happened from
//! `Links::poll` and moves its channels.

mod admission;
mod backoff;
mod echo;
mod in_map;
mod known;
mod leaving;
mod question;
mod race;
mod relay;
mod state;
pub(crate) mod wake;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use byway_wire::relay::control::{Control, Hello, RefuseReason, Role, Welcome};
use byway_wire::{RelayUrl, SignedRecord, canonical};

use crate::cx::{Cx, Wake, earliest};
use crate::io::{Carrier, LinkError, LinkId, LinkMode, LinkUp, RelayId};
use admission::Admittance;
pub(crate) use backoff::is_lasting;
use echo::EchoTest;
use relay::{Phase, Relay};
pub(crate) use state::Link;
use state::{LinkState, Proof};

/// A connect attempt the shell never answered is given up: longer than any handshake limit (design section 12).
const DIAL_LIMIT: Duration = Duration::from_secs(15);
/// From a connected carrier to `Welcome` (design section 12).
const WELCOME_LIMIT: Duration = Duration::from_secs(10);
/// What happened, for the node to carry on.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a handful live in a queue; a box each would cost more than it saves"
)]
pub(crate) enum Output {
    /// Ask the shell to connect.
    Dial {
        link: LinkId,
        relay: RelayId,
        carrier: Carrier,
    },
    /// Ask the shell to end it.
    HangUp { link: LinkId },
    /// Send a control message.
    Send { link: LinkId, message: Control },
    /// Send this payload on channel 0 of a UDP link.
    Echo { link: LinkId, payload: Bytes },
    /// Connected, `Hello` is out: opens may follow in the same flight.
    Usable { link: LinkId },
    /// Welcomed.
    Ready {
        link: LinkId,
        relay: RelayId,
        carrier: Carrier,
        observed: SocketAddr,
        intercepted: bool,
    },
    /// A relay that fell silent is heard again: it, or the network, was away.
    HeardAgain { relay: RelayId },
    /// Every channel of `old` is to be attached to `new`.
    Replace { old: LinkId, new: LinkId },
    /// A link that was usable is gone.
    Lost {
        link: LinkId,
        relay: RelayId,
        error: LinkError,
        welcomed: bool,
    },
    /// A dial failed, or a link ended before it was welcomed, and no other one is.
    Failed { relay: RelayId, error: LinkError },
    /// Every carrier allowed failed in this round.
    RoundFailed { relay: RelayId, error: LinkError },
    /// A newer instance of this agent took our place.
    Replaced,
    /// The relay stops soon: nothing new goes there.
    WillStop { relay: RelayId },
    /// It is time to leave it: whoever can goes elsewhere, to these for one.
    Leave {
        relay: RelayId,
        alternates: Vec<RelayUrl>,
        /// Its link was one that lasted.
        lasted: bool,
    },
    /// A relay that was left may be dialled again.
    MayReturn { relay: RelayId },
    /// The map names it no more and another one has us: whoever can goes elsewhere.
    Parting { relay: RelayId },
    /// Nobody else has us any more: it is kept for the time being.
    KeptAfterAll { relay: RelayId },
    /// It was left, or never used: nobody here keeps it any more.
    Dropped { relay: RelayId },
    /// The admission token will not hold for much longer, or does not admit.
    TokenWanted,
}

/// All relays and links of a node.
#[derive(Debug)]
pub(crate) struct Links {
    mode: LinkMode,
    role: Role,
    record: SignedRecord,
    admittance: Admittance,
    relays: BTreeMap<RelayId, Relay>,
    links: BTreeMap<LinkId, Link>,
    next_relay: u32,
    next_link: u64,
    out: VecDeque<Output>,
}

impl Links {
    pub(crate) fn new(mode: LinkMode, role: Role, record: SignedRecord) -> Self {
        Self {
            mode,
            role,
            record,
            admittance: Admittance::default(),
            relays: BTreeMap::new(),
            links: BTreeMap::new(),
            next_relay: 0,
            next_link: 1,
            out: VecDeque::new(),
        }
    }

    /// The record changed: later `Hello`s say so, live links are told.
    pub(crate) fn set_record(&mut self, record: SignedRecord) {
        for (&link, l) in &self.links {
            if l.is_usable() {
                self.out.push_back(Output::Send {
                    link,
                    message: Control::Record(record.clone()),
                });
            }
        }
        self.record = record;
    }

    pub(crate) fn handle_dialed(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        result: Result<LinkUp, LinkError>,
    ) {
        let Some(link) = self.links.get_mut(&id) else {
            cx.counters.stale_input += 1;
            return;
        };
        if !matches!(link.state, LinkState::Dialing { .. }) {
            cx.counters.stale_input += 1;
            return;
        }
        match result {
            Ok(up) => {
                link.state = LinkState::Greeting {
                    up,
                    until: cx.now + WELCOME_LIMIT,
                };
                let relay = link.relay;
                // It stands in for the name when the next dial meets a DNS outage.
                if let (Some((_, addr)), Some(r)) = (up.udp, self.relays.get_mut(&relay)) {
                    r.learn(vec![SocketAddr::new(addr.ip(), r.url.port())]);
                }
                let (token, shown) = self.admittance.shown(cx.now);
                link.shown = shown;
                let hello = Hello {
                    versions: vec![byway_wire::relay::control::VERSION],
                    role: self.role,
                    record: self.record.clone(),
                    token,
                };
                self.out.push_back(Output::Send {
                    link: id,
                    message: Control::Hello(hello),
                });
                self.on_connected(cx, relay, id);
                self.out.push_back(Output::Usable { link: id });
            }
            Err(error) => self.on_gone(cx, id, error),
        }
    }

    pub(crate) fn handle_welcome(&mut self, cx: &mut Cx<'_>, id: LinkId, welcome: &Welcome) {
        let Some(link) = self.links.get_mut(&id) else {
            cx.counters.stale_input += 1;
            return;
        };
        let LinkState::Greeting { up, .. } = link.state else {
            cx.counters.control_unexpected += 1;
            return;
        };
        if welcome.version != byway_wire::relay::control::VERSION {
            self.hang_up(id);
            self.on_gone(
                cx,
                id,
                LinkError::Protocol(format!("it chose version {}", welcome.version)),
            );
            return;
        }
        let proof = match link.carrier {
            Carrier::Udp => Proof::Testing(EchoTest::new(cx)),
            Carrier::Tls => Proof::Proven,
        };
        let observed = canonical(welcome.observed);
        link.state = LinkState::Ready {
            up,
            observed,
            proof,
            rebinds: 0,
            question: None,
        };
        let (relay, carrier) = (link.relay, link.carrier);
        self.out.push_back(Output::Ready {
            link: id,
            relay,
            carrier,
            observed,
            intercepted: welcome.intercepted,
        });
        if let Some(r) = self.relays.get_mut(&relay)
            && std::mem::take(&mut r.silent)
        {
            self.out.push_back(Output::HeardAgain { relay });
        }
        self.admitted_for(cx, id, welcome.admitted_for);
        self.give_back(relay);
        self.on_welcomed(cx, relay, id);
        self.run_echo(cx, id);
    }

    /// The relay refuses; it hangs up behind this.
    pub(crate) fn handle_refused(
        &mut self,
        cx: &mut Cx<'_>,
        id: LinkId,
        reason: RefuseReason,
        detail: String,
    ) {
        if !self.links.contains_key(&id) {
            cx.counters.stale_input += 1;
            return;
        }
        let error = LinkError::Refused(reason, detail);
        match reason {
            RefuseReason::Replaced => self.out.push_back(Output::Replaced),
            RefuseReason::NotAdmitted if self.not_admitted(cx, id, &error) => return,
            _ => {}
        }
        self.hang_up(id);
        self.on_gone(cx, id, error);
    }

    pub(crate) fn handle_lost(&mut self, cx: &mut Cx<'_>, id: LinkId, error: LinkError) {
        if let Some(link) = self.links.get(&id) {
            let relay = link.relay;
            if self.is_answer(id) {
                self.give_up(cx, relay, id, error);
            } else {
                self.on_gone(cx, id, error);
            }
        } else {
            // What we hung up is often reported once more.
            cx.counters.stale_input += 1;
        }
    }

    /// The relay did not keep to the protocol on this link.
    pub(crate) fn fail(&mut self, cx: &mut Cx<'_>, id: LinkId, error: LinkError) {
        self.hang_up(id);
        self.on_gone(cx, id, error);
    }

    /// The relay's address for us changed (`Rebound`).
    pub(crate) fn handle_rebound(&mut self, id: LinkId, addr: SocketAddr) -> bool {
        match self.links.get_mut(&id).map(|l| &mut l.state) {
            Some(LinkState::Ready {
                observed, rebinds, ..
            }) if *rebinds > 0 => {
                *rebinds -= 1;
                *observed = canonical(addr);
                true
            }
            _ => false,
        }
    }
    /// A cookie goes out on this link: `Rebound` may follow.
    pub(crate) fn expect_rebound(&mut self, id: LinkId) {
        if let Some(LinkState::Ready { rebinds, .. }) =
            self.links.get_mut(&id).map(|l| &mut l.state)
        {
            *rebinds = rebinds.saturating_add(1);
        }
    }

    /// A datagram on channel 0 came back.
    pub(crate) fn handle_echo(&mut self, cx: &mut Cx<'_>, id: LinkId, payload: &[u8]) {
        let Some(Link {
            state: LinkState::Ready { proof, .. },
            relay,
            ..
        }) = self.links.get_mut(&id)
        else {
            cx.counters.echo_unexpected += 1;
            return;
        };
        match proof {
            Proof::Testing(test) if test.matches(payload) => {
                *proof = Proof::Proven;
                let relay = *relay;
                self.on_proven(cx, relay, id);
            }
            // The second of two echoes of one test.
            Proof::Proven => {}
            _ => cx.counters.echo_unexpected += 1,
        }
    }

    /// A path over this link is suspected: prove again that it carries data.
    pub(crate) fn suspect(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.carrier != Carrier::Udp {
            return;
        }
        if let LinkState::Ready {
            proof: proof @ (Proof::Proven | Proof::Failed),
            ..
        } = &mut link.state
        {
            *proof = Proof::Testing(EchoTest::new(cx));
            self.run_echo(cx, id);
        }
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let due: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, l)| l.deadline().is_some_and(|t| t.0 <= cx.now))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            match self.links.get(&id).map(|l| &l.state) {
                Some(LinkState::Dialing { .. } | LinkState::Greeting { .. }) => {
                    self.hang_up(id);
                    self.on_gone(cx, id, LinkError::TimedOut);
                }
                Some(LinkState::Ready { .. }) => {
                    self.run_echo(cx, id);
                    self.run_question(cx, id);
                }
                None => {}
            }
        }
        let due: Vec<RelayId> = self
            .relays
            .iter()
            .filter(|(_, r)| r.deadline().is_some_and(|t| t.0 <= cx.now))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            self.on_relay_due(cx, id);
        }
        self.run_admittance(cx);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Wake> {
        let links = self.links.values().map(Link::deadline);
        let relays = self.relays.values().map(Relay::deadline);
        let others = [self.admittance.deadline(), self.parts_at()];
        links.chain(relays).chain(others).fold(None, earliest)
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }
    #[cfg(test)]
    pub(crate) fn relays(&self) -> impl Iterator<Item = RelayId> {
        self.relays.keys().copied()
    }
    pub(crate) fn url(&self, relay: RelayId) -> Option<&RelayUrl> {
        self.relays.get(&relay).map(|r| &r.url)
    }
    pub(crate) fn addrs(&self, relay: RelayId) -> &[SocketAddr] {
        self.relays.get(&relay).map_or(&[], |r| &r.addrs)
    }
    /// The link on which opens to this relay go now.
    pub(crate) fn usable(&self, relay: RelayId) -> Option<LinkId> {
        let usable = |id: LinkId| {
            self.links
                .get(&id)
                .is_some_and(Link::is_usable)
                .then_some(id)
        };
        match &self.relays.get(&relay)?.phase {
            Phase::Idle | Phase::Resting { .. } => None,
            Phase::Racing(race) => race.lanes().find_map(usable),
            Phase::Up { link, .. } => usable(*link),
        }
    }
    /// True if the relay is linked for as long as the node lives.
    pub(crate) fn is_kept(&self, relay: RelayId) -> bool {
        self.relays.get(&relay).is_some_and(Relay::is_kept)
    }
    /// True if the link's relay runs on this host, by the address we reach it at (what a relay says of itself, or sees of
    /// us through a proxy beside it, is no evidence).
    pub(crate) fn is_local(&self, id: LinkId) -> bool {
        let Some(link) = self.links.get(&id) else {
            return false;
        };
        if let Some((_, addr)) = link.udp() {
            return canonical(addr).ip().is_loopback();
        }
        let host = self.url(link.relay).map_or("", RelayUrl::host);
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
    /// Why the relay has no link, as far as is known.
    pub(crate) fn last_error(&self, relay: RelayId) -> Option<&LinkError> {
        let (_, error) = self.relays.get(&relay)?.last_error.as_ref()?;
        Some(error)
    }
    /// True if this is a UDP link to a relay at that address.
    pub(crate) fn leads_to(&self, id: LinkId, relay: SocketAddr) -> bool {
        self.links
            .get(&id)
            .and_then(Link::udp)
            .is_some_and(|(_, addr)| canonical(addr) == canonical(relay))
    }
    /// The newest link to a relay at that address that was welcomed.
    pub(crate) fn newest_to(&self, relay: SocketAddr) -> Option<LinkId> {
        let mut ids = self.links.iter().rev().filter(|(_, l)| l.is_ready());
        ids.find_map(|(&id, _)| self.leads_to(id, relay).then_some(id))
    }
    /// The oldest UDP link that was welcomed.
    pub(crate) fn ready_udp(&self) -> Option<LinkId> {
        let mut ready = self.links.iter().filter(|(_, l)| l.is_ready());
        ready.find_map(|(&id, l)| (l.carrier == Carrier::Udp).then_some(id))
    }
    /// Where relays see us over UDP: reflexive addresses of the data sockets.
    pub(crate) fn observed_udp(&self) -> impl Iterator<Item = SocketAddr> {
        self.links
            .values()
            .filter(|l| l.carrier == Carrier::Udp)
            .filter_map(Link::observed)
    }

    /// Sends what the echo test of a link wants to send, and draws the verdict when it is over.
    fn run_echo(&mut self, cx: &mut Cx<'_>, id: LinkId) {
        let Some(Link {
            state: LinkState::Ready { proof, .. },
            relay,
            ..
        }) = self.links.get_mut(&id)
        else {
            return;
        };
        let Proof::Testing(test) = proof else { return };
        let relay = *relay;
        if test.is_over(cx.now) {
            *proof = Proof::Failed;
            self.note_silence(relay);
            self.on_data_failed(cx, relay, id);
            return;
        }
        for payload in test.due(cx.now) {
            self.out.push_back(Output::Echo { link: id, payload });
        }
    }

    fn note_silence(&mut self, relay: RelayId) {
        if let Some(r) = self.relays.get_mut(&relay) {
            r.silent = true;
        }
    }

    /// Removes a link we end ourselves; nothing is reported for it but the hang-up.
    fn hang_up(&mut self, id: LinkId) {
        self.out.push_back(Output::HangUp { link: id });
    }
}
