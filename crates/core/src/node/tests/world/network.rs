//! What is between hosts and relays: delays, carriers that work or do not, and what a node asks its shell for.

use super::*;

impl World {
    pub(super) fn later(&mut self, delay: Duration, happening: Happening) {
        self.queue.insert((self.now + delay, self.next), happening);
        self.next += 1;
    }
    pub(super) fn transmit(&mut self, host: usize, way: Way, data: Bytes) {
        match way {
            Way::Direct { remote, .. } => {
                if let Some(relay) = (0..self.relays.len()).find(|&n| relay_addr(n) == remote) {
                    self.stun(host, relay, way, &data);
                    return;
                }
                let Some(to) = self.hosts.iter().position(|h| h.addr == remote) else {
                    return;
                };
                let lost = self.lose_probes && data[0] == 0x81;
                if self.direct_open
                    && !lost
                    && self.deaf != Some(to)
                    && data.len() <= self.direct_mtu
                {
                    let way = Way::Direct {
                        socket: SocketId(0),
                        remote: self.hosts[host].addr,
                    };
                    self.later(
                        self.direct_delay,
                        Happening::Datagram {
                            host: to,
                            way,
                            data,
                        },
                    );
                }
            }
            Way::Channel {
                link,
                channel,
                carrier,
            } => {
                let Some(&(relay, _)) = self.links.get(&(host, link)) else {
                    return;
                };
                if !self.carries(host, carrier) || !self.relays[relay].alive {
                    return;
                }
                if channel == ChannelId::ECHO {
                    if self.relays[relay].echo {
                        self.later(
                            self.relay_delay * 2,
                            Happening::Datagram { host, way, data },
                        );
                    }
                    return;
                }
                let Some(sides) = self.relays[relay].channels.get(&channel) else {
                    return;
                };
                let Some(side) = sides.iter().position(|s| *s == Some((host, link))) else {
                    return;
                };
                let Some((to, to_link)) = sides[1 - side] else {
                    return;
                };
                let carrier = self.links[&(to, to_link)].1;
                if self.carries(to, carrier) {
                    let way = Way::Channel {
                        link: to_link,
                        carrier,
                        channel,
                    };
                    self.later(
                        self.relay_delay * 2,
                        Happening::Datagram {
                            host: to,
                            way,
                            data,
                        },
                    );
                }
            }
        }
    }
    /// A relay answers STUN on its own port.
    pub(super) fn stun(&mut self, host: usize, relay: usize, way: Way, request: &[u8]) {
        use byway_wire::stun::{Message, decode, encode_success};
        if !self.udp_open[host] || !self.relays[relay].alive {
            return;
        }
        // What a liar had somebody send here is nothing to it.
        if request.first() == Some(&0x81) {
            return;
        }
        let Ok(Message::Request { txid, len, .. }) = decode(request) else {
            panic!("a relay got {request:?}")
        };
        let data = encode_success(txid, self.hosts[host].addr, len).into();
        self.later(
            self.relay_delay * 2,
            Happening::Datagram { host, way, data },
        );
    }
    pub(super) fn carries(&self, host: usize, carrier: Carrier) -> bool {
        match carrier {
            Carrier::Udp => self.udp_open[host],
            Carrier::Tls => self.tls_open,
        }
    }
    pub(super) fn drain(&mut self, host: usize) {
        while let Some(transmit) = self.hosts[host].node.poll_transmit() {
            let at = self.elapsed();
            let echo = matches!(
                transmit.way,
                Way::Channel {
                    channel: ChannelId::ECHO,
                    ..
                }
            );
            let stun = transmit.data[0] < 4;
            if !echo && !stun {
                self.hosts[host]
                    .probes_sent
                    .push((at, transmit.way, transmit.data.len()));
            }
            self.transmit(host, transmit.way, transmit.data);
        }
        while let Some(event) = self.hosts[host].node.poll_event() {
            self.on_event(host, event);
        }
    }
    pub(super) fn on_event(&mut self, host: usize, event: Event) {
        let at = self.elapsed();
        let h = &mut self.hosts[host];
        match event {
            Event::Dial {
                link, url, carrier, ..
            } => {
                let same = |n: &usize| relay_url(*n).authority() == url.authority();
                let relay = (0..self.relays.len()).find(same);
                let Some(relay) = relay else { return };
                self.links.insert((host, link), (relay, carrier));
                let round_trips = if carrier == Carrier::Udp { 2 } else { 6 };
                h.dials.push((at, carrier));
                let silent =
                    carrier == Carrier::Udp && self.tls_error.is_some() && self.udp_error.is_none();
                let after = if silent && !self.carries(host, carrier) {
                    SILENCE
                } else {
                    self.relay_delay * round_trips
                };
                self.later(after, Happening::Dialed { host, link });
            }
            Event::HangUp { link } => self.unlink(host, link),
            Event::Control { link, message } => {
                h.controls_sent.push(message.clone());
                // Everything that is sent must survive its own format.
                let message = Control::decode(message.encode()).unwrap();
                self.later(
                    self.relay_delay,
                    Happening::ToRelay {
                        host,
                        link,
                        message,
                    },
                );
            }
            Event::LinkReady { carrier, .. } => h.ready.push(carrier),
            Event::LinkLost { error, .. } => {
                h.lost += 1;
                h.link_errors.push(error);
            }
            Event::LinkFailed { error, .. } => h.link_errors.push(error),
            Event::PeerIncoming { peer, .. } => {
                h.peer = Some(peer);
                h.peers_seen += 1;
            }
            Event::PeerKnown { .. } => h.peers_seen += 1,
            Event::PeerFailed { peer, error } if h.peer == Some(peer) => h.failed = Some(error),
            Event::Route {
                peer,
                route,
                reason,
            } if h.peer == Some(peer) => {
                h.routes.push((at, reason, route.primary.map(|w| w.kind())));
                h.route = Some(route);
            }
            Event::WayKnown { peer, way } => assert!(h.known.insert((peer, way)), "told twice"),
            Event::WayForgotten { peer, way } => {
                assert!(h.known.remove(&(peer, way)), "was not known");
            }
            Event::Deliver { data, .. } => {
                assert!(
                    h.route.as_ref().is_some_and(|r| r.primary.is_some()),
                    "delivered before there is a route back"
                );
                h.delivered.push(data);
            }
            Event::Replay { .. } => {
                h.replays += 1;
                for (seq, _) in h.recent.clone() {
                    self.send_data(host, 0, seq);
                }
            }
            Event::WatchFlow { .. } => h.flow_armed = true,
            Event::RelayDropped { relay } => h.dropped.push(relay),
            Event::Replaced => h.replaced = true,
            Event::TokenWanted => h.tokens_wanted += 1,
            Event::TokenRefused { .. } => h.tokens_refused += 1,
            Event::Report(report) => h.report = Some(report),
            Event::Candidates(list) => h.candidates = list,
            _ => {}
        }
    }
    /// A link ends at the relay; the node is told by the caller if it did not hang up itself.
    pub(super) fn unlink(&mut self, host: usize, link: LinkId) {
        let Some((relay, _)) = self.links.remove(&(host, link)) else {
            return;
        };
        let relay = &mut self.relays[relay];
        relay.links.remove(&(host, link));
        relay.agents.retain(|_, at| *at != (host, link));
        for sides in relay.channels.values_mut() {
            for side in sides {
                if *side == Some((host, link)) {
                    *side = None;
                }
            }
        }
    }
    /// Breaks every link of a host.
    pub(in crate::node::tests) fn break_links(&mut self, host: usize) {
        for relay in 0..self.relays.len() {
            self.break_links_to(host, relay);
        }
    }
    pub(in crate::node::tests) fn break_links_to(&mut self, host: usize, relay: usize) {
        self.lose_links(host, relay, &LinkError::TimedOut);
    }
    pub(super) fn lose_links(&mut self, host: usize, relay: usize, error: &LinkError) {
        let links = self.links.iter();
        let links = links.filter(|((h, _), (r, _))| *h == host && *r == relay);
        for link in links.map(|((_, l), _)| *l).collect::<Vec<_>>() {
            self.unlink(host, link);
            let node = &mut self.hosts[host].node;
            node.handle_link_lost(self.now, link, error.clone());
        }
    }
    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dialed { host, link } => {
                let Some(&(relay, carrier)) = self.links.get(&(host, link)) else {
                    return;
                };
                let fine = self.relays[relay].alive && self.carries(host, carrier);
                let result = if fine {
                    self.relays[relay]
                        .links
                        .insert((host, link), (carrier, None));
                    let udp = (carrier == Carrier::Udp).then_some((SocketId(0), relay_addr(relay)));
                    Ok(LinkUp { rtt: None, udp })
                } else {
                    self.links.remove(&(host, link));
                    let told = match carrier {
                        Carrier::Udp => self.udp_error.clone(),
                        Carrier::Tls => self.tls_error.clone(),
                    };
                    Err(told.unwrap_or(LinkError::TimedOut))
                };
                self.hosts[host].node.handle_dialed(self.now, link, result);
            }
            Happening::ToRelay {
                host,
                link,
                message,
            } => self.at_relay(host, link, message),
            Happening::ToNode {
                host,
                link,
                message,
            } => {
                if self.links.contains_key(&(host, link)) {
                    self.hosts[host]
                        .node
                        .handle_control(self.now, link, message);
                }
            }
            Happening::Broken { host, link } => {
                self.unlink(host, link);
                let error = LinkError::Broken("fickle".into());
                self.hosts[host]
                    .node
                    .handle_link_lost(self.now, link, error);
            }
            Happening::Datagram { host, way, data } => {
                if data[0] == 0x40 {
                    self.on_data(host, way, &data);
                } else {
                    self.hosts[host]
                        .node
                        .handle_datagram(self.now, way, None, &data);
                }
            }
        }
    }
}
