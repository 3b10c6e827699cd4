//! The TLS link: a pipe with the flights of TLS and the WebSocket upgrade in front (sizes as in reality, contents none),
//! then `Challenge`, `Prove`, and frames. Control goes in front; data waits in an [`Egress`](crate::shell::egress).

use std::time::Instant;

use bytes::Bytes;
use byway_core::io::{LinkError, LinkId, LinkUp, ProxyFault};
use byway_wire::ChannelId;
use byway_wire::key::Purpose;
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Control, LinkClaim, Prove};
use byway_wire::relay::frame::Frame;

use super::{Links, Over, Said, Stage, State, TlsLink, proxys};
use crate::net::Network;
use crate::net::pipe::{PipeId, Side};
use crate::quic::cut;
use crate::shell::heartbeat::{Beat, Heartbeat};

/// What TLS's and the upgrade's flights come to, in bytes.
pub(crate) const CLIENT_HELLO: usize = 1_560;
pub(crate) const SERVER_HELLO: usize = 2_300;
pub(crate) const UPGRADE: usize = 400;
pub(crate) const SWITCHING: usize = 200;

impl TlsLink {
    pub(super) fn send(&mut self, net: &mut Network, message: &Control) {
        if self.stage == Stage::Up
            && let Some(won) = self.race.first()
        {
            let frame = Frame::Control(message.clone()).encode();
            net.pipe_send(won.is, Side::Dialler, frame);
        }
    }
    pub(super) fn close(&mut self, net: &mut Network) {
        for attempt in self.race.attempts() {
            net.pipe_close(attempt.is, Side::Dialler);
        }
    }
    pub(super) fn handle_timeout(&mut self, net: &mut Network) -> Option<Over> {
        if self.stage != Stage::Up {
            return None;
        }
        let now = net.instant();
        let stalled = self.egress.stalls_at().is_some_and(|at| at <= now);
        if stalled || self.heartbeat.is_silent(now) {
            self.close(net);
            return Some(Over::Lost(if stalled {
                LinkError::Broken("the relay takes nothing".to_owned())
            } else {
                LinkError::TimedOut
            }));
        }
        if let Some(ping) = self.heartbeat.ping(now)
            && let Some(won) = self.race.first()
        {
            net.pipe_send(won.is, Side::Dialler, ping);
        }
        None
    }
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let up = self.stage == Stage::Up;
        let own = up.then(|| self.heartbeat.poll_timeout());
        [own, self.egress.stalls_at()].into_iter().flatten().min()
    }
}

impl Links {
    /// Sends a batch of datagrams in one frame. False if the link is gone.
    pub(crate) fn send_data(
        &mut self,
        net: &mut Network,
        link: LinkId,
        channel: ChannelId,
        segment: usize,
        payload: Bytes,
    ) -> bool {
        let Some(tls) = self.tls(link).filter(|tls| tls.stage == Stage::Up) else {
            return false;
        };
        let frame = Frame::Data {
            channel,
            segment: segment as u16,
            payload,
        };
        let Some(won) = tls.race.first() else {
            return false;
        };
        tls.egress.push(net, won.is, Side::Dialler, frame.encode());
        true
    }

    fn tls(&mut self, id: LinkId) -> Option<&mut TlsLink> {
        match &mut self.all.get_mut(&id)?.state {
            State::Tls(tls) => Some(tls),
            State::Udp(_) => None,
        }
    }
    fn by_pipe(&self, id: PipeId) -> Option<LinkId> {
        self.all.iter().find_map(|(link, l)| match &l.state {
            State::Tls(tls) if tls.race.has(id) => Some(*link),
            _ => None,
        })
    }

    pub(crate) fn pipe_connected(&mut self, net: &mut Network, pipe: PipeId) {
        let proxied = self.proxy;
        let id = self.by_pipe(pipe);
        let Some(link) = id.and_then(|id| self.all.get_mut(&id)) else {
            return;
        };
        if let State::Tls(tls) = &mut link.state {
            tls.stage = Stage::Hello;
            for lost in tls.race.won(pipe) {
                net.pipe_close(lost, Side::Dialler);
            }
            let now = net.instant();
            let handshake = tls.race.first().map(|won| now - won.began);
            tls.rtt = handshake.filter(|_| !proxied);
            link.dialing_until = Some(tls.deadline);
            net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; CLIENT_HELLO]));
        }
    }
    pub(crate) fn pipe_broken(&mut self, now: Instant, pipe: PipeId) {
        let proxied = self.proxy;
        if let Some(link) = self.by_pipe(pipe)
            && let Some(tls) = self.tls(link)
        {
            tls.race.failed(now, pipe);
            if tls.race.is_lost() {
                let error = if proxied && tls.stage == Stage::Connecting {
                    proxys(ProxyFault::RelayUnreachable("502 Bad Gateway".to_owned()))
                } else {
                    LinkError::Broken("connection reset".to_owned())
                };
                self.ended(link, error);
            }
        }
    }
    pub(crate) fn pipe_room(&mut self, net: &mut Network, pipe: PipeId) {
        if let Some(tls) = self.by_pipe(pipe).and_then(|id| self.tls(id)) {
            tls.egress.progress(net, pipe, Side::Dialler);
        }
    }

    /// A message of a TLS link: data is returned, the rest is dealt with.
    pub(crate) fn pipe_data(
        &mut self,
        net: &mut Network,
        pipe: PipeId,
        data: Bytes,
    ) -> Option<(LinkId, ChannelId, Vec<Bytes>)> {
        let id = self.by_pipe(pipe)?;
        let now = net.instant();
        let tls = self.tls(id)?;
        match tls.stage {
            Stage::Connecting => {}
            Stage::Hello => {
                tls.stage = Stage::Upgrade;
                tls.asked = now;
                net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; UPGRADE]));
            }
            Stage::Upgrade => {
                tls.stage = Stage::Challenge;
                tls.rtt.get_or_insert(now - tls.asked);
            }
            Stage::Challenge => {
                let Ok(Frame::Control(Control::Challenge(challenge))) = Frame::decode(data) else {
                    self.ended(id, LinkError::Protocol("no challenge".to_owned()));
                    return None;
                };
                tls.stage = Stage::Up;
                tls.heartbeat = Heartbeat::new(now);
                let (url, rtt) = (tls.url.clone(), tls.rtt);
                let claim = LinkClaim {
                    nonce: self.credentials.random(),
                    exporter: exporter(pipe),
                    dialled: url.authority(),
                    // The simulated handshake has no certificates: whoever is there is whom the pin names.
                    certificate: url.pin().unwrap_or(Pin([0; 32])),
                    role: self.role,
                };
                let signed = Prove::signed_bytes(&challenge, &claim);
                let prove = Prove {
                    node: self.credentials.node_id(),
                    claim,
                    signature: self.credentials.sign(Purpose::LinkProof, &signed),
                };
                let frame = Frame::Control(Control::Prove(prove)).encode();
                net.pipe_send(pipe, Side::Dialler, frame);
                let link = self.all.get_mut(&id)?;
                link.dialing_until = None;
                let up = LinkUp { rtt, udp: None };
                self.said.push_back(Said::Dialed(id, Ok(up)));
            }
            Stage::Up => {
                match tls.heartbeat.hear(now, &data) {
                    Beat::Ping(pong) => {
                        net.pipe_send(pipe, Side::Dialler, pong);
                        return None;
                    }
                    Beat::Pong => return None,
                    Beat::Other => {}
                }
                match Frame::decode(data) {
                    Ok(Frame::Control(message)) => {
                        self.said.push_back(Said::Control(id, message));
                    }
                    Ok(Frame::Data {
                        channel,
                        segment,
                        payload,
                    }) => return Some((id, channel, cut(&payload, usize::from(segment)))),
                    Ok(Frame::Unknown) => {}
                    Err(error) => self.ended(id, LinkError::Protocol(error.to_string())),
                }
            }
        }
        None
    }
}

/// What both ends of an uninterrupted TLS connection export: something of the connection that both know.
pub(crate) fn exporter(pipe: PipeId) -> [u8; 32] {
    let mut out = [0; 32];
    out[..8].copy_from_slice(&pipe.0.to_be_bytes());
    out
}
