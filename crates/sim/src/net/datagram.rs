//! Datagrams on their way: out of a site, through the core, into another site.

use std::net::SocketAddr;

use bytes::Bytes;

use super::link::LinkDrop;
use super::nat::Refused;
use super::{Event, Happening, HostId, LAN_DELAY, Network, SiteId, Step, Traffic};
use crate::trace::addr_bytes;

/// How many datagrams a tap remembers.
const TAPPED: usize = 128;

impl Network {
    /// A host sends a datagram from one of its ports.
    pub fn send(&mut self, host: HostId, port: u16, to: SocketAddr, data: Bytes) {
        let Some(from) = self.source(host, port, to) else {
            return self.fate("no address of that family", None, to, &data);
        };
        let site_id = self.hosts[host.0 as usize].site;
        let site = &mut self.sites[site_id.0 as usize];
        if let Some(other) = site.lan.get(&to.ip()).copied() {
            let at = self.now + LAN_DELAY;
            self.note_send("lan", from, to, &data);
            let host = other;
            self.queue.push(
                at,
                Event::Deliver {
                    from_site: site_id,
                    host,
                    from,
                    to,
                    data,
                },
            );
            return;
        }
        // What the translator takes crosses the access link as the host sent it.
        let size = packet_size(to.is_ipv6(), data.len());
        let to = site.behind_prefix(to);
        if !site.config.exit.udp_to(to.port()) {
            return self.fate("blocked", Some(from), to, &data);
        }
        let external = site.outbound(self.now, from, to);
        if let Some(at) = site.nats.iter().position(|nat| nat.external() == to.ip()) {
            // A router between two others turns nothing around here.
            let turns = at + 1 == site.nats.len() && site.nats[at].config().hairpin;
            if !turns {
                return self.fate("no hairpin", Some(from), to, &data);
            }
            self.queue.push(
                self.now + LAN_DELAY,
                Event::Arrive {
                    from_site: site_id,
                    site: site_id,
                    from: external,
                    to,
                    data,
                },
            );
            return;
        }
        self.uplink(site_id, size, external, to, data);
    }
    /// A host sends a datagram with any source address. Only a site without a NAT can: one would rewrite it.
    pub fn send_spoofed(&mut self, host: HostId, from: SocketAddr, to: SocketAddr, data: Bytes) {
        let site = self.site_of(host);
        let size = packet_size(to.is_ipv6(), data.len());
        self.uplink(site, size, from, to, data);
    }

    fn uplink(
        &mut self,
        from_site: SiteId,
        size: usize,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    ) {
        match self.sites[from_site.0 as usize].up.pass(self.now, size) {
            Ok((at, copy)) => {
                self.note_send("send", from, to, &data);
                for at in [Some(at), copy].into_iter().flatten() {
                    let data = data.clone();
                    let event = Event::Cross {
                        from_site,
                        from,
                        to,
                        data,
                    };
                    self.queue.push(at, event);
                }
            }
            Err(why) => self.fate(drop_name(why), Some(from), to, &data),
        }
    }

    fn source(&self, host: HostId, port: u16, to: SocketAddr) -> Option<SocketAddr> {
        self.addrs(host)
            .iter()
            .find(|a| a.is_ipv4() == to.is_ipv4())
            .map(|a| SocketAddr::new(*a, port))
    }

    pub(super) fn cross(
        &mut self,
        from_site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    ) {
        let Some(site_id) = self.public.get(&to.ip()).copied() else {
            return self.fate("unroutable", Some(from), to, &data);
        };
        if self.swallowed(from_site, site_id, Some((to, &data))) {
            return self.fate("hole", Some(from), to, &data);
        }
        if let Some((own, tapped)) = &mut self.tapped
            && *own != from_site
        {
            if tapped.len() == TAPPED {
                tapped.pop_front();
            }
            tapped.push_back((from, to, data.clone()));
        }
        let site = &mut self.sites[site_id.0 as usize];
        let size = packet_size(site.takes_as_v6(self.now, from, to), data.len());
        match site.down.pass(self.now, size) {
            Ok((at, copy)) => {
                for at in [Some(at), copy].into_iter().flatten() {
                    self.queue.push(
                        at,
                        Event::Arrive {
                            from_site,
                            site: site_id,
                            from,
                            to,
                            data: data.clone(),
                        },
                    );
                }
            }
            Err(why) => self.fate(drop_name(why), Some(from), to, &data),
        }
    }

    pub(super) fn arrive(
        &mut self,
        from_site: SiteId,
        site_id: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    ) -> Step {
        let site = &mut self.sites[site_id.0 as usize];
        if !site.config.exit.some_udp() {
            self.fate("blocked", Some(from), to, &data);
            return Step::Inside;
        }
        let (from, to) = match site.inbound(self.now, from, to) {
            Ok(inside) => inside,
            Err(Refused::NoMapping) => {
                self.fate("no mapping", Some(from), to, &data);
                return Step::Inside;
            }
            Err(Refused::Filtered) => {
                self.fate("filtered", Some(from), to, &data);
                return Step::Inside;
            }
        };
        match site.lan.get(&to.ip()).copied() {
            Some(host) => self.deliver(from_site, host, from, to, data),
            None => Step::Inside,
        }
    }

    pub(super) fn deliver(
        &mut self,
        from_site: SiteId,
        id: HostId,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    ) -> Step {
        let host = &self.hosts[id.0 as usize];
        if !host.alive || !host.ports.contains(&to.port()) {
            self.fate("no listener", Some(from), to, &data);
            return Step::Inside;
        }
        *self.fates.entry("delivered").or_default() += 1;
        *self.delivered.entry((from_site, id)).or_default() += 1;
        let parts: [&[u8]; 3] = [&id.0.to_le_bytes(), &addr_bytes(from), &addr_bytes(to)];
        self.trace.note(self.now, "deliver", &parts, || {
            format!("{from} -> {to} {}", describe(&data))
        });
        Step::Host(id, Happening::Datagram { from, to, data })
    }

    pub(super) fn swallowed(
        &self,
        from: SiteId,
        to: SiteId,
        datagram: Option<(SocketAddr, &[u8])>,
    ) -> bool {
        self.holes.iter().any(|hole| {
            hole.from.is_none_or(|s| s == from)
                && hole.to.is_none_or(|s| s == to)
                && match (hole.what, datagram) {
                    (Traffic::All, _) | (Traffic::Udp, Some(_)) => true,
                    (Traffic::V6, Some((to, _))) => to.is_ipv6(),
                    (Traffic::FirstByte(b), Some((_, d))) => d.first() == Some(&b),
                    (Traffic::LongerThan(n), Some((_, d))) => d.len() > n,
                    (_, None) => false,
                }
        })
    }

    fn note_send(&mut self, how: &'static str, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let parts: [&[u8]; 3] = [&addr_bytes(from), &addr_bytes(to), data];
        self.trace.note(self.now, how, &parts, || {
            format!("{from} -> {to} {}", describe(data))
        });
    }

    fn fate(&mut self, fate: &'static str, from: Option<SocketAddr>, to: SocketAddr, data: &[u8]) {
        *self.fates.entry(fate).or_default() += 1;
        let source = from.map_or([0; 18], addr_bytes);
        let parts: [&[u8]; 4] = [fate.as_bytes(), &source, &addr_bytes(to), data];
        self.trace.note(self.now, "drop", &parts, || {
            let from = from.map_or_else(|| "?".to_owned(), |f| f.to_string());
            format!("{from} -> {to} {}: {fate}", describe(data))
        });
    }
}

/// The IP packet around a UDP payload: IP header, UDP header (8), payload.
fn packet_size(v6: bool, payload: usize) -> usize {
    payload + 8 + if v6 { 40 } else { 20 }
}

fn drop_name(why: LinkDrop) -> &'static str {
    match why {
        LinkDrop::Mtu => "mtu",
        LinkDrop::Queue => "queue full",
        LinkDrop::Loss => "lost",
    }
}

fn describe(data: &[u8]) -> String {
    let kind = match data.first() {
        Some(0..=3) => "stun",
        Some(0x80) => "relayed",
        Some(0x81) => "probe",
        Some(0x82) => "cookie",
        Some(0x83) => "fragment",
        Some(0x40..=0x7f) => "quic",
        Some(0xc0..=0xff) => "quic-long",
        _ => "?",
    };
    format!("{kind} {}", data.len())
}
