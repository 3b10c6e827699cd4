//! The relay's data plane and STUN: what arrives on the UDP port, by its first byte.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use byway_relay_core::forward::{Decision, Source, decide};
use byway_relay_core::io::{Egress, LinkId};
use byway_wire::demux::{Kind, classify};
use byway_wire::relay::data;
use byway_wire::relay::frame::Frame;
use byway_wire::{ChannelId, stun};

use super::{COOKIE_GAP, COOKIE_MEMORY, Carrier, MAX_SOJOURN, RelayShell};
use crate::net::Network;
use crate::net::pipe::Side;

impl RelayShell {
    pub(super) fn datagram(&mut self, net: &mut Network, from: SocketAddr, data: &Bytes) {
        match classify(data) {
            Kind::Quic => {
                let server = self.server.clone();
                self.quic
                    .handle(net.instant(), from, data, |_| Some(server));
                self.notice_moves(net.instant());
            }
            Kind::Stun => {
                if let Ok(stun::Message::Request { txid, len, .. }) = stun::decode(data) {
                    let answer = stun::encode_success(txid, from, len);
                    self.outbox.push_back((from, Bytes::from(answer)));
                }
            }
            Kind::RelayData => self.relay_data(net, from, data),
            _ => self.count("unknown datagram"),
        }
    }

    pub(super) fn relay_data(&mut self, net: &mut Network, from: SocketAddr, datagram: &Bytes) {
        let Some((channel, payload)) = data::decode(datagram) else {
            return self.count("short relay data");
        };
        if channel == ChannelId::ECHO && self.sources.values().any(|known| *known == from) {
            return self.outbox.push_back((from, datagram.clone()));
        }
        let decision = self
            .table
            .get(&channel)
            .map(|(opener, target)| decide(*opener, *target, Source::Udp(from)));
        match decision {
            Some(Decision::Forward(Egress::Udp(to))) => {
                self.count("forwarded");
                self.outbox.push_back((to, datagram.clone()));
            }
            Some(Decision::Forward(Egress::Tls(link))) => {
                let payload = datagram.slice_ref(payload);
                self.send_data(net, link, channel, payload.len() as u16, payload);
            }
            Some(Decision::Unbound) | None => {
                self.count("unbound");
                self.cookie(net.instant(), channel, from, datagram.len());
            }
        }
    }

    /// A node whose NAT restarted and that only listens sends no data, so no cookie would be drawn, and what is sent to
    /// it would be lost for good. QUIC notices at the node's next keep-alive. Its idea of the address is a hint only: a
    /// cookie goes there, and the node's answer on the control stream is the proof.
    pub(super) fn notice_moves(&mut self, now: Instant) {
        let mut moved = Vec::new();
        for (link, carrier) in &self.links {
            if let Carrier::Udp { conn, .. } = carrier
                && let Some(bound) = self.sources.get(link)
                && let Some(seen) = self.quic.remote(*conn)
                && seen != *bound
            {
                moved.push(seen);
            }
        }
        for addr in moved {
            self.cookie(now, ChannelId::ECHO, addr, usize::MAX);
        }
    }

    pub(super) fn cookie(
        &mut self,
        now: Instant,
        channel: ChannelId,
        from: SocketAddr,
        trigger: usize,
    ) {
        if self
            .cookies
            .get(&from)
            .is_some_and(|last| now - *last < COOKIE_GAP)
        {
            return;
        }
        let cookie = self
            .relay
            .cookie_key()
            .make(channel, from, self.relay.minute(now))
            .encode();
        if cookie.len() > trigger {
            return;
        }
        if self.cookies.len() >= COOKIE_MEMORY {
            self.cookies.clear();
        }
        self.cookies.insert(from, now);
        self.outbox.push_back((from, Bytes::from(cookie)));
    }

    pub(super) fn send_data(
        &mut self,
        net: &mut Network,
        link: LinkId,
        channel: ChannelId,
        segment: u16,
        payload: Bytes,
    ) {
        let Some(Carrier::Tls(pipe)) = self.links.get(&link) else {
            return self.count("link gone");
        };
        let pipe = *pipe;
        if net.pipe_backlog(pipe, Side::Acceptor) > MAX_SOJOURN {
            return self.count("tls egress dropped");
        }
        let frame = Frame::Data {
            channel,
            segment,
            payload,
        };
        net.pipe_send(pipe, Side::Acceptor, frame.encode());
        self.count("forwarded");
    }
}
