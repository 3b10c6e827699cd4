//! The relay's TLS links: the flights of TLS and the upgrade, the proof, then frames.

use std::net::IpAddr;

use bytes::Bytes;
use byway_relay_core::forward::{Decision, Source, decide};
use byway_relay_core::io::{Egress as Outlet, LinkId};
use byway_relay_core::proof::{Own, judge};
use byway_wire::ChannelId;
use byway_wire::relay::control::{Challenge, Control};
use byway_wire::relay::frame::Frame;

use super::{Carrier, Pipe, RELAY_PORT, RelayShell};
use crate::net::Network;
use crate::net::pipe::{PipeId, Side};
use crate::quic::cut;
use crate::shell::egress::Egress;
use crate::shell::heartbeat::{Beat, Heartbeat};
use crate::shell::link::{SERVER_HELLO, SWITCHING, exporter};

impl RelayShell {
    pub(super) fn pipe_data(&mut self, net: &mut Network, pipe: PipeId, data: Bytes) {
        let now = net.instant();
        let Some(state) = self.pipes.get_mut(&pipe) else {
            return;
        };
        match state {
            Pipe::Hello(from) => {
                *state = Pipe::Upgrade(*from);
                net.pipe_send(pipe, Side::Acceptor, Bytes::from(vec![0; SERVER_HELLO]));
            }
            Pipe::Upgrade(from) => {
                let challenge = Challenge {
                    relay: "relay".to_owned(),
                    region: "sim".to_owned(),
                    nonce: self.rng.seed(),
                };
                *state = Pipe::Prove(*from, challenge.clone());
                net.pipe_send(pipe, Side::Acceptor, Bytes::from(vec![0; SWITCHING]));
                let frame = Frame::Control(Control::Challenge(challenge)).encode();
                net.pipe_send(pipe, Side::Acceptor, frame);
            }
            Pipe::Prove(from, challenge) => {
                let (from, challenge) = (*from, challenge.clone());
                let hosts: Vec<String> =
                    net.addrs(self.host).iter().map(IpAddr::to_string).collect();
                let own = Own {
                    certificate: self.pin(),
                    exporter: Some(exporter(pipe)),
                    hosts: &hosts,
                    require_channel_binding: false,
                };
                let proved = match Frame::decode(data) {
                    Ok(Frame::Control(Control::Prove(prove))) => {
                        judge(&challenge, &prove, &own).ok()
                    }
                    _ => None,
                };
                match proved {
                    Some(proved) => {
                        let role = Some(proved.role);
                        let carrier = Carrier::Tls {
                            pipe,
                            egress: Egress::default(),
                            heartbeat: Heartbeat::new(now),
                        };
                        let link = self.link_up(net, carrier, proved.node, role, from);
                        self.pipes.insert(pipe, Pipe::Up(link));
                    }
                    None => {
                        self.count("proof refused");
                        self.pipes.remove(&pipe);
                        net.pipe_close(pipe, Side::Acceptor);
                    }
                }
            }
            Pipe::Up(link) => {
                let link = *link;
                let unix = self.unix_time(net);
                if let Some(Carrier::Tls { heartbeat, .. }) = self.links.get_mut(&link) {
                    match heartbeat.hear(now, &data) {
                        Beat::Ping(pong) => return net.pipe_send(pipe, Side::Acceptor, pong),
                        Beat::Pong => return,
                        Beat::Other => {}
                    }
                }
                match Frame::decode(data) {
                    Ok(Frame::Control(message)) => {
                        self.relay.handle_control(now, unix, link, message);
                    }
                    Ok(Frame::Data {
                        channel,
                        segment,
                        payload,
                    }) => self.tls_data(net, link, channel, segment, payload),
                    Ok(Frame::Unknown) => {}
                    Err(error) => self.relay.handle_malformed(now, link, &error.to_string()),
                }
            }
        }
    }

    pub(super) fn pipe_room(&mut self, net: &mut Network, pipe: PipeId) {
        if let Some(Pipe::Up(link)) = self.pipes.get(&pipe)
            && let Some(Carrier::Tls { egress, .. }) = self.links.get_mut(link)
        {
            egress.progress(net, pipe, Side::Acceptor);
        }
    }

    /// Pings the TLS links whose time it is, and ends those that are silent or take nothing.
    pub(super) fn beat(&mut self, net: &mut Network) {
        let now = net.instant();
        let mut dead = Vec::new();
        for (id, carrier) in &mut self.links {
            let Carrier::Tls {
                pipe,
                egress,
                heartbeat,
            } = carrier
            else {
                continue;
            };
            if heartbeat.is_silent(now) || egress.stalls_at().is_some_and(|at| at <= now) {
                dead.push((*id, *pipe));
            } else if let Some(ping) = heartbeat.ping(now) {
                net.pipe_send(*pipe, Side::Acceptor, ping);
            }
        }
        for (link, pipe) in dead {
            self.count("tls link dead");
            self.pipes.remove(&pipe);
            net.pipe_close(pipe, Side::Acceptor);
            self.link_down(now, link);
        }
    }

    pub(super) fn tls_data(
        &mut self,
        net: &mut Network,
        link: LinkId,
        channel: ChannelId,
        segment: u16,
        payload: Bytes,
    ) {
        if channel == ChannelId::ECHO {
            return self.send_data(net, link, channel, segment, payload);
        }
        let decision = self
            .table
            .get(&channel)
            .map(|(opener, target)| decide(*opener, *target, Source::Tls(link)));
        match decision {
            Some(Decision::Forward(Outlet::Tls(to))) => {
                self.send_data(net, to, channel, segment, payload);
            }
            Some(Decision::Forward(Outlet::Udp(to))) => {
                for datagram in cut(&payload, usize::from(segment)) {
                    self.count("forwarded");
                    let whole = [&channel.header()[..], &datagram].concat();
                    self.outbox.push_back((RELAY_PORT, to, Bytes::from(whole)));
                }
            }
            Some(Decision::Unbound) | None => self.count("unbound"),
        }
    }
}
