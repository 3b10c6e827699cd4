//! The relay's data plane and STUN: what arrives on the UDP port, by its first byte.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use byway_relay_core::forward::{Decision, Source, decide};
use byway_relay_core::io::{Egress as Outlet, LinkId};
use byway_wire::demux::{Kind, classify};
use byway_wire::relay::data;
use byway_wire::relay::frame::Frame;
use byway_wire::{ChannelId, stun};

use super::{Carrier, RELAY_PORT, RelayShell};
use crate::net::Network;
use crate::net::pipe::Side;

impl RelayShell {
    pub(super) fn datagram(
        &mut self,
        net: &mut Network,
        from: SocketAddr,
        port: u16,
        data: &Bytes,
    ) {
        match classify(data) {
            kind if kind != Kind::Stun && port != RELAY_PORT => self.count("other port"),
            Kind::Quic => {
                let server = self.server.clone();
                self.quic
                    .handle(net.instant(), from, data, |_| Some(server));
            }
            Kind::Stun => {
                if let Ok(stun::Message::Request { txid, len, .. }) = stun::decode(data) {
                    let answer = stun::encode_success(txid, from, len);
                    self.outbox.push_back((port, from, Bytes::from(answer)));
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
            return self.outbox.push_back((RELAY_PORT, from, datagram.clone()));
        }
        let decision = self
            .table
            .get(&channel)
            .map(|(opener, target)| decide(*opener, *target, Source::Udp(from)));
        match decision {
            Some(Decision::Forward(Outlet::Udp(to))) => {
                self.count("forwarded");
                self.outbox.push_back((RELAY_PORT, to, datagram.clone()));
            }
            Some(Decision::Forward(Outlet::Tls(link))) => {
                let payload = datagram.slice_ref(payload);
                self.send_data(net, link, channel, payload.len() as u16, payload);
            }
            Some(Decision::Unbound) | None => {
                self.count("unbound");
                self.cookie(net.instant(), channel, from, datagram.len());
            }
        }
    }

    pub(super) fn cookie(
        &mut self,
        now: Instant,
        channel: ChannelId,
        from: SocketAddr,
        trigger: usize,
    ) {
        let cookie = self
            .relay
            .cookie_key()
            .make(channel, from, self.relay.minute(now))
            .encode();
        if cookie.len() > trigger || !self.cookies.take(now, from.ip()) {
            return self.count("cookie withheld");
        }
        self.outbox
            .push_back((RELAY_PORT, from, Bytes::from(cookie)));
    }

    pub(super) fn send_data(
        &mut self,
        net: &mut Network,
        link: LinkId,
        channel: ChannelId,
        segment: u16,
        payload: Bytes,
    ) {
        let Some(Carrier::Tls { pipe, egress, .. }) = self.links.get_mut(&link) else {
            return self.count("link gone");
        };
        let frame = Frame::Data {
            channel,
            segment,
            payload,
        };
        egress.push(net, *pipe, Side::Acceptor, frame.encode());
        self.count("forwarded");
    }
}
