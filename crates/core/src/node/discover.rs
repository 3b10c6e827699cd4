//! The node and its network: our own candidates, and who is told of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use byway_wire::relay::control::Role;
use byway_wire::relay::{HTTPS_PORT, STUN_PORT};
use byway_wire::signal::{Candidate, CandidateKind, Mapping};
use byway_wire::{ChannelId, RelayUrl};

use super::Node;
use super::peer::{Peer, Stage};
use crate::cx::{Wake, cx, earliest};
use crate::discovery::{
    Discovery, GatewayPort, Kind, MtuSearch, NatReport, PortMapping, PortPattern,
};
use crate::io::{Event, LinkId, LocalSocket, PeerId, SocketId, Transmit};
use crate::path::candidate::Source;

/// While a tunnel is in use behind a NAT, one server is asked this often: a mapping that moved is noticed before its
/// usual lifetime of 30 s is over (design section 5).
const REFRESH: Duration = Duration::from_secs(25);
/// And all of them this often: the network may have become another one without a sign.
const FULL: Duration = Duration::from_secs(300);

/// Who asked for a round is still waiting for so long: a server whose name resolves meanwhile is asked as well, and
/// relays are linked to, for how they are reached is part of the answer. A round's own time.
const WANTED: Duration = Duration::from_secs(3);

/// Decides when [`Discovery`] runs.
#[derive(Debug)]
pub(super) struct Discoverer {
    discovery: Discovery,
    servers: BTreeSet<(String, SocketAddr)>,
    /// Something was learnt since the last full round that asks for another.
    stale: bool,
    /// Somebody who asked for a round waits until then.
    wanted_until: Option<Instant>,
    /// They have yet to learn how large a datagram may be: the first UDP link will tell.
    wants_mtu: bool,
    mtu: Option<(LinkId, MtuSearch)>,
    last_full: Option<Instant>,
    last_any: Option<Instant>,
    public: bool,
    mapping: Mapping,
}

impl Discoverer {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            discovery: Discovery::new(seed),
            servers: BTreeSet::new(),
            stale: false,
            wanted_until: None,
            wants_mtu: false,
            mtu: None,
            last_full: None,
            last_any: None,
            public: false,
            mapping: Mapping::Unknown,
        }
    }
    pub(super) fn set_sockets(&mut self, now: Instant, sockets: &[LocalSocket]) {
        self.discovery.set_sockets(now, sockets);
        self.stale = true;
    }
    pub(super) fn add_server(&mut self, now: Instant, label: String, addr: SocketAddr) {
        let known = self.servers.contains(&(label.clone(), addr));
        if !known && self.discovery.add_server(now, label.clone(), addr) {
            self.servers.insert((label, addr));
            self.stale = true;
        }
    }
    /// Asks at these names no more.
    fn remove_servers(&mut self, now: Instant, labels: &[String]) {
        let gone = |(label, _): &(String, SocketAddr)| labels.contains(label);
        for (label, addr) in self.servers.iter().filter(|server| gone(server)) {
            self.discovery.remove_server(now, label, *addr);
        }
        self.servers.retain(|server| !gone(server));
    }
    /// What was found out may not hold any more.
    pub(super) fn expect_news(&mut self) {
        self.stale = true;
    }
    /// Runs a full round now.
    pub(super) fn run(&mut self, now: Instant) {
        self.run_as(now, Kind::Full);
    }
    /// Somebody asks for all there is to know.
    pub(super) fn run_wanted(&mut self, now: Instant) {
        self.wanted_until = Some(now + WANTED);
        // What a path carried before is not what it carries now.
        self.wants_mtu = true;
        self.mtu = None;
        self.discovery.set_mtu(None);
        self.run_as(now, Kind::Whole);
    }
    fn run_as(&mut self, now: Instant, kind: Kind) {
        self.stale = false;
        self.last_full = Some(now);
        self.last_any = Some(now);
        self.discovery.start(now, kind);
    }
    pub(super) fn handle_stun(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        to: Option<IpAddr>,
        data: &[u8],
    ) -> bool {
        self.discovery.handle_stun(now, socket, from, to, data)
    }
    /// Whether who asked for a round may still be waiting.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        self.wanted_until.is_some_and(|until| now < until)
    }
    /// `active`: a tunnel that may go direct is in use.
    pub(super) fn handle_timeout(&mut self, now: Instant, active: bool) {
        self.discovery.handle_timeout(now);
        if !self.is_wanted(now) {
            self.wanted_until = None;
            self.wants_mtu = false;
        }
        if let Some((_, search)) = &mut self.mtu {
            search.handle_timeout(now);
            self.conclude_mtu();
        }
        if self.refresh_at(active).is_some_and(|at| at <= now) {
            if self.last_full.is_none_or(|at| at + FULL <= now) {
                self.run(now);
            } else {
                self.last_any = Some(now);
                self.discovery.start(now, Kind::Refresh);
            }
        }
    }
    pub(super) fn poll_timeout(&self, active: bool) -> Option<Wake> {
        let refresh = self.refresh_at(active).map(|at| (at, "discovery refresh"));
        let wanted = self.wanted_until.map(|at| (at, "discovery was asked for"));
        let mtu = self.mtu.as_ref().and_then(|(_, search)| search.next());
        let asked = earliest(wanted, mtu);
        earliest(earliest(refresh, asked), self.discovery.poll_timeout())
    }
    /// Takes an echo on a link's channel 0; false if it is none of ours.
    pub(super) fn handle_echo(&mut self, link: LinkId, payload: &[u8]) -> bool {
        let Some((_, search)) = self.mtu.as_mut().filter(|(on, _)| *on == link) else {
            return false;
        };
        let ours = search.handle(payload);
        self.conclude_mtu();
        ours
    }
    fn conclude_mtu(&mut self) {
        if let Some(mtu) = self.mtu.as_ref().and_then(|(_, search)| search.result()) {
            self.mtu = None;
            self.discovery.set_mtu(mtu);
        }
    }
    pub(super) fn mapping(&self) -> Mapping {
        self.mapping
    }
    pub(super) fn is_settled(&self) -> bool {
        self.discovery.is_settled()
    }

    /// When an active tunnel's mapping is to be looked at again.
    fn refresh_at(&self, active: bool) -> Option<Instant> {
        let at = self.last_any? + REFRESH;
        (active && !self.public).then_some(at)
    }
}

/// The mapping behaviour as peers are told it. Where there is one server only, two of its ports that see one mapping prove
/// that ports do not matter, and leave open whether addresses do. If that mapping has the socket's own port, the NAT keeps
/// ports where it can, and other addresses see the same one whether it looks at them or not. Otherwise it stays unknown, and
/// that is worth one try to a peer (decision 0015).
fn mapping_for_peers(report: &NatReport) -> Mapping {
    match (report.mapping, report.port_dependent, report.ports) {
        (Mapping::Unknown, Some(false), PortPattern::Preserving) => Mapping::EndpointIndependent,
        (known, ..) => known,
    }
}

/// At which ports a relay on this one answers STUN.
fn stun_ports(port: u16) -> impl Iterator<Item = u16> {
    let second = (port == HTTPS_PORT).then_some(STUN_PORT);
    std::iter::once(port).chain(second)
}

/// The name of a relay among STUN servers.
fn stun_label(url: &RelayUrl, port: u16) -> String {
    format!("{}:{port}", url.host())
}

impl Node {
    /// A relay answers STUN on its own port: addresses known for it are asked. One on 443 listens on STUN's port as well
    /// (design section 7), and two ports of one host already tell a NAT that looks at ports, and whether it counts.
    pub(super) fn add_relay_servers(&mut self, now: Instant, url: &RelayUrl, addrs: &[SocketAddr]) {
        for &addr in addrs {
            for port in stun_ports(addr.port()) {
                self.discovery.add_server(
                    now,
                    stun_label(url, port),
                    SocketAddr::new(addr.ip(), port),
                );
            }
        }
    }

    /// A relay is not to be asked any more.
    pub(super) fn forget_relay_servers(&mut self, now: Instant, url: &RelayUrl) {
        let labels: Vec<String> = stun_ports(url.port())
            .map(|port| stun_label(url, port))
            .collect();
        self.discovery.remove_servers(now, &labels);
    }

    /// The address of a link's relay is known now.
    pub(super) fn learn_relay_server(&mut self, now: Instant, link: LinkId) {
        let link = self.links.get(link);
        let known = link.and_then(|l| Some((self.links.url(l.relay)?.clone(), l.udp()?.1)));
        if let Some((url, addr)) = known {
            self.add_relay_servers(now, &url, &[addr]);
            self.discover_if_useful(now);
        }
    }

    /// Runs discovery when something new asks for it and somebody has a use for what it finds: an agent always, a client
    /// while it has a peer, anyone who asked for it a moment ago.
    pub(super) fn discover_if_useful(&mut self, now: Instant) {
        let candidates =
            self.config.direct && (self.config.role == Role::Agent || !self.peers.is_empty());
        let useful = !self.sockets.is_empty() && (candidates || self.discovery.is_wanted(now));
        if useful && self.discovery.stale && !self.discovery.servers.is_empty() {
            self.discovery.run(now);
        }
    }

    /// True while a tunnel that may go direct is in use.
    pub(super) fn needs_mapping(&self) -> bool {
        self.config.direct && self.wakeups.is_any_watching()
    }

    /// Sends what the search for the largest datagram has to send, over the first UDP link there is.
    fn search_mtu(&mut self, now: Instant) {
        if self.discovery.wants_mtu
            && let Some(link) = self.links.ready_udp()
        {
            self.discovery.wants_mtu = false;
            self.discovery.mtu = Some((link, MtuSearch::new(now, self.rng.bytes())));
        }
        let Some((link, search)) = &mut self.discovery.mtu else {
            return;
        };
        let (link, due) = (*link, search.due(now));
        for data in due {
            if let Some(way) = self.channel_way(link, ChannelId::ECHO) {
                self.transmits.push_back(Transmit { way, data });
            }
        }
    }

    /// Passes on what discovery has to send and to say; true if there was a report.
    pub(super) fn drain_discovery(&mut self, now: Instant) -> bool {
        self.search_mtu(now);
        while let Some((socket, remote, data)) = self.discovery.discovery.poll_transmit() {
            let way = crate::io::Way::Direct { socket, remote };
            self.transmits.push_back(Transmit { way, data });
        }
        let Some(report) = self.discovery.discovery.poll_report() else {
            return false;
        };
        self.take_report(now, &report);
        self.events.push_back(Event::Report(report));
        true
    }

    fn take_report(&mut self, now: Instant, report: &NatReport) {
        self.discovery.public = report.public == Some(true);
        let mapping = mapping_for_peers(report);
        let other_nat = std::mem::replace(&mut self.discovery.mapping, mapping) != mapping;
        let reflexive = [report.reflexive_v4, report.reflexive_v6];
        let list = reflexive.into_iter().flatten();
        let list = list
            .map(|addr| Candidate {
                kind: CandidateKind::Reflexive,
                addr,
            })
            .collect();
        let predicted = self
            .local
            .set(Source::Predicted, super::predict::predict(report));
        if self.local.set(Source::Discovery, list) || predicted || other_nat {
            self.candidates_changed(now);
        }
    }

    /// Relays see our UDP links at addresses that are candidates: links and paths share sockets.
    pub(super) fn observed_changed(&mut self, now: Instant) {
        let seen = self
            .links
            .observed_udp()
            .map(|addr| Candidate {
                kind: CandidateKind::Reflexive,
                addr,
            })
            .collect();
        if self.local.set(Source::Links, seen) {
            self.candidates_changed(now);
        }
    }

    /// The gateway holds a port for us, or no longer. Behind a second NAT the port leads nowhere; that is for people to know
    /// and not for peers to try.
    pub(super) fn take_mapping(&mut self, now: Instant, mapping: GatewayPort) {
        self.discovery.discovery.set_port_mapping(mapping);
        let outside = mapping.held().filter(PortMapping::leads_outside);
        let list = outside
            .map(|m| Candidate {
                kind: CandidateKind::Mapped,
                addr: m.external,
            })
            .into_iter()
            .collect();
        if self.local.set(Source::Mapped, list) {
            self.candidates_changed(now);
        }
    }

    /// Tells the shell and every peer.
    pub(super) fn candidates_changed(&mut self, now: Instant) {
        self.generation += 1;
        self.events
            .push_back(Event::Candidates(self.local.offered().to_vec()));
        let live: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, p)| matches!(p.stage, Stage::Live(_)))
            .map(|(&id, _)| id)
            .collect();
        for id in live {
            self.offer(now, id);
        }
    }

    /// Sends our candidates to one peer. A list it has is ignored there, so repeating does no harm.
    pub(super) fn offer(&mut self, now: Instant, id: PeerId) {
        let mapping = self.discovery.mapping();
        if let Some(Peer {
            stage: Stage::Live(live),
            channels,
            ..
        }) = self.peers.get_mut(&id)
            && channels.iter().any(|c| c.carried_by().is_some())
        {
            let list = self.local.for_peer(live.same_host);
            let mut cx = cx!(self, now);
            live.paths.offer(&mut cx, list, mapping, self.generation);
            self.touched.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_shows_an_easy_nat_only_where_ports_are_kept() {
        let one_server = |port_dependent, ports| {
            mapping_for_peers(&NatReport {
                port_dependent,
                ports,
                ..NatReport::default()
            })
        };
        let kept = one_server(Some(false), PortPattern::Preserving);
        assert_eq!(kept, Mapping::EndpointIndependent);
        let drawn = one_server(Some(false), PortPattern::Unknown);
        assert_eq!(drawn, Mapping::Unknown, "addresses may matter to it");
        let one_port = one_server(None, PortPattern::Preserving);
        assert_eq!(one_port, Mapping::Unknown);
    }
}
