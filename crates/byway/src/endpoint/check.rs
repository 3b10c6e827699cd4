//! Everything about the network, in one report: discovery by the node, and beside it what takes sockets of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::discovery::{
    GatewayPort, NatReport, RelayRow, SecondNat, ServerRow, prefer, quic_filtered,
};
use byway_core::io::Carrier;
use byway_core::node::Node;
use byway_wire::relay::STUN_PORT;
use tokio::task::JoinSet;

use super::{Endpoint, LinkStatus};
use crate::netcheck::{self, RelayLook};

/// How long a relay may take to be linked, over UDP or, 300 ms later, over TLS.
const LINK: Duration = Duration::from_secs(5);
/// How long the other carrier of a relay is waited for when one has failed: TLS begins at once then.
const OTHER_CARRIER: Duration = Duration::from_secs(1);
/// The search for the largest datagram takes a second where not all come back, and begins with the first UDP link.
const MTU: Duration = Duration::from_millis(1_200);
/// From the beginning, to hear of the gateway's port. One that gives ports does so within a second, by UPnP too. That it gives
/// none is known when the last protocol's time is over: UPnP's, 3.25 s after the first question.
const GATEWAY: Duration = Duration::from_secs(4);
/// Most relays that are looked at: those that are linked to for this.
const MAX_RELAYS: usize = Node::MAX_ASKED;

impl Endpoint {
    /// Finds out everything a [`NatReport`] can say: what [`Endpoint::discover`] does, and how relays are reached by each
    /// carrier, whom the NAT lets in, NAT64, a captive portal. Waits for the endpoint's links as well (one that accepts
    /// nothing links to its relays for as long as this takes). Takes one to four seconds, seven at most.
    ///
    /// Over TLS a relay is looked at through the proxy that applies to it, as a link is: its latency is then that of the way
    /// through the proxy.
    pub async fn netcheck(&self) -> Arc<NatReport> {
        let gateway_until = Instant::now() + GATEWAY;
        self.inner.map_now.notify_one();
        let relays = self.inner.shared.own_relays.load_full();
        let relays = relays.iter().take(MAX_RELAYS).cloned();
        let proxies = &self.inner.proxies;
        let mut looks: JoinSet<(usize, RelayLook)> = relays
            .enumerate()
            .map(|(n, url)| {
                let proxies = Arc::clone(proxies);
                let nat64 = Arc::clone(&self.inner.socket.nat64);
                async move {
                    nat64.asked().await;
                    (n, netcheck::relay(url, &proxies, &nat64).await)
                }
            })
            .collect();
        let look = async {
            let mut done = Vec::new();
            while let Some(joined) = looks.join_next().await {
                done.extend(joined);
            }
            done.sort_by_key(|(n, _)| *n);
            done.into_iter().map(|(_, look)| look).collect::<Vec<_>>()
        };
        let discover = async {
            let report = self.discover().await;
            let filtering = netcheck::filtering(trusted(&report)).await;
            (report, filtering)
        };
        let (found, looks, nat64, ()) =
            tokio::join!(discover, look, netcheck::nat64(), self.settled_links());
        let (discovered, filtering) = found;
        let (mtu, port_mapping) = self.late_findings(gateway_until).await;
        let mut report = NatReport::clone(&discovered);
        report.filtering = filtering;
        report.nat64 = nat64;
        report.mtu = mtu;
        report.port_mapping = port_mapping;
        report.double_nat = SecondNat::of(&report).map(SecondNat::is_suspected);
        add_relays(&mut report, looks, &self.links().borrow());
        Arc::new(report)
    }

    /// Waits until every relay that is looked at is linked or has said why not, or until it is too late.
    async fn settled_links(&self) {
        let relays = self.inner.shared.own_relays.load_full();
        let relays = relays.get(..MAX_RELAYS).unwrap_or(&relays);
        if relays.is_empty() {
            return;
        }
        let mut links = self.links();
        let is_asked = |link: &LinkStatus| relays.contains(&link.relay);
        let known =
            |link: &LinkStatus| !is_asked(link) || link.carrier.is_some() || link.error.is_some();
        let all = links.wait_for(|links| links.iter().all(known));
        // Whichever are up by then are reported as up.
        let _ = tokio::time::timeout(LINK, all).await;
        // Where one carrier has failed the other may still be on its way.
        let is_up = |link: &LinkStatus| !is_asked(link) || link.carrier.is_some();
        let up = links.wait_for(|links| links.iter().all(is_up));
        let _ = tokio::time::timeout(OTHER_CARRIER, up).await;
    }

    /// What the node hears of after its round has settled: the largest datagram, and the gateway's port.
    async fn late_findings(&self, gateway_until: Instant) -> (Option<u16>, GatewayPort) {
        let mut reports = self.nat_report();
        let over_udp = |link: &LinkStatus| {
            let outside = link.address.is_some_and(|addr| !addr.ip().is_loopback());
            link.carrier == Some(Carrier::Udp) && outside
        };
        let tried = self.links().borrow().iter().any(over_udp);
        if tried {
            let known = reports.wait_for(|report| report.mtu.is_some());
            // Nothing came back whole: it stays unknown.
            let _ = tokio::time::timeout(MTU, known).await;
        }
        let known = reports.wait_for(|report| report.port_mapping != GatewayPort::Unknown);
        let _ = tokio::time::timeout_at(gateway_until.into(), known).await;
        let latest = reports.borrow();
        (latest.mtu.filter(|_| tried), latest.port_mapping)
    }
}

/// Servers outside this host that the report rests on, and those that were not waited for because others had told enough: one
/// of these may be the only one that can answer from elsewhere. Of IPv4: where translators are.
fn trusted(report: &NatReport) -> Vec<SocketAddr> {
    let not_heard = |row: &ServerRow| row.mapped.is_none() && row.fault.is_none();
    let rows = report.servers.iter();
    let rows = rows.filter(|row| row.addr.is_ipv4() && !row.addr.ip().is_loopback());
    // Dead ones must not take the place of those that are believed.
    let (believed, others): (Vec<_>, Vec<_>) = rows
        .filter(|row| row.believed || not_heard(row))
        .partition(|row| row.believed);
    let rows = believed.into_iter().chain(others);
    // One port of each host.
    let mut hosts = BTreeSet::new();
    rows.map(|row| row.addr)
        .filter(|addr| hosts.insert(addr.ip()))
        .collect()
}

/// Puts what was seen of relays in, and what follows from it.
fn add_relays(report: &mut NatReport, mut looks: Vec<RelayLook>, links: &[LinkStatus]) {
    for look in &mut looks {
        look.row.stun_ms = stun_ms(report, &look.row);
        // What both ends of a link have proved before what certificates suggest.
        let mut links = links.iter().filter(|link| link.relay == look.row.url);
        if let Some(link) = links.find(|link| link.carrier == Some(Carrier::Tls)) {
            look.row.tls_intercepted = Some(link.intercepted);
        }
    }
    let outside: Vec<RelayRow> = looks
        .iter()
        .filter(|look| !look.here)
        .map(|look| look.row.clone())
        .collect();
    report.quic_filtered = quic_filtered(&outside);
    let portals = looks.iter().filter(|look| !look.here);
    let portals: Vec<&Option<String>> = portals.filter_map(|l| l.portal.as_ref()).collect();
    report.captive_portal_evidence = portals.iter().find_map(|portal| (*portal).clone());
    report.captive_portal = match (&report.captive_portal_evidence, portals.len()) {
        (Some(_), _) => Some(true),
        (None, 0) => None,
        (None, _) => Some(false),
    };
    report.relays = looks.into_iter().map(|look| look.row).collect();
    report.preferred_relay = prefer(&report.relays);
}

/// The quickest STUN answer of a relay, at its own port or at STUN's.
fn stun_ms(report: &NatReport, relay: &RelayRow) -> Option<f64> {
    let host = relay.url.host();
    let labels = [relay.url.port(), STUN_PORT].map(|port| format!("{host}:{port}"));
    let rows = report
        .servers
        .iter()
        .filter(|row| labels.contains(&row.label));
    let answered = rows.filter(|row| row.mapped.is_some());
    answered.filter_map(|row| row.rtt_ms).min_by(f64::total_cmp)
}
