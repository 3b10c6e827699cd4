//! The UDP link: a QUIC connection of the node's own endpoint, under a virtual address of its own, with one bidirectional
//! control stream. The relay is known by the key in the URL's pin: the simulation's pin *is* the relay's public key.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_core::io::{LinkError, LinkId, LinkUp, SocketId};
use byway_wire::relay::control::Control;
use byway_wire::relay::frame::encode_stream;
use quinn_proto::{Connection, ConnectionError, Dir, Event, StreamEvent, StreamId};

use super::{Leaving, Links, Over, Said, State, UdpLink};
use crate::net::Network;
use crate::quic::{ConnId, QuicHost};

/// After a hang-up the relay may acknowledge what was said for so long (`write` in `links/udp.rs`).
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long the socket remembers a link that ended (`LAST_PACKETS` in `links/mod.rs`).
const LAST_PACKETS: Duration = Duration::from_millis(200);

impl UdpLink {
    pub(super) fn send(&mut self, quic: &mut QuicHost, message: &Control) {
        encode_stream(message, &mut self.unsent);
        self.flush(quic);
    }
    /// Hangs up: the connection is closed when the relay has acknowledged everything, or soon.
    pub(super) fn leave(&mut self, now: Instant, quic: &mut QuicHost) {
        self.flush(quic);
        if let Some(stream) = self.stream
            && let Some(c) = self.conn(quic)
        {
            let _ = c.send_stream(stream).finish();
        }
        self.leaving = Some(Leaving::Said(now + LAST_WORDS));
    }
    pub(super) fn close(&mut self, now: Instant, quic: &mut QuicHost) {
        for attempt in self.race.attempts() {
            if let Some(c) = quic.conn(attempt.is) {
                c.close(now, 0u32.into(), Bytes::new());
            }
        }
        self.leaving = Some(Leaving::Closed(now + LAST_PACKETS));
    }
    pub(super) fn handle_timeout(&mut self, now: Instant, quic: &mut QuicHost) -> Option<Over> {
        match self.leaving {
            Some(Leaving::Said(at)) if at <= now => {
                self.close(now, quic);
                None
            }
            Some(Leaving::Closed(at)) if at <= now => Some(Over::Left),
            _ => None,
        }
    }
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.leaving
            .map(|(Leaving::Said(at) | Leaving::Closed(at))| at)
    }
    /// The connection that won.
    fn conn<'a>(&self, quic: &'a mut QuicHost) -> Option<&'a mut Connection> {
        quic.conn(self.race.first()?.is)
    }
    fn flush(&mut self, quic: &mut QuicHost) {
        let Some(stream) = self.stream else { return };
        let Some(first) = self.race.first() else {
            return;
        };
        let Some(c) = quic.conn(first.is) else {
            return;
        };
        while !self.unsent.is_empty() {
            match c.send_stream(stream).write(&self.unsent) {
                Ok(n) => drop(self.unsent.split_to(n)),
                Err(_) => return,
            }
        }
    }
}

impl Links {
    /// The links whose relay has this UDP address, the newest last.
    pub(crate) fn by_relay(&self, addr: SocketAddr) -> Vec<LinkId> {
        let all = self.all.iter();
        all.filter(|(_, link)| {
            matches!(&link.state, State::Udp(udp) if udp.race.first().is_some_and(|a| a.addr == addr))
        })
        .map(|(id, _)| *id)
        .collect()
    }
    /// The attempts, those that won among them, that lead to this UDP address.
    pub(crate) fn attempts_at(&self, addr: SocketAddr) -> Vec<(LinkId, u16)> {
        let mut out = Vec::new();
        for (id, link) in &self.all {
            if let State::Udp(udp) = &link.state {
                let there = udp.race.attempts().iter().filter(|a| a.addr == addr);
                out.extend(there.map(|a| (*id, a.number)));
            }
        }
        out
    }
    /// Where an attempt leads; none if it is over.
    pub(crate) fn attempt(&self, link: LinkId, number: u16) -> Option<SocketAddr> {
        match self.all.get(&link).map(|l| &l.state) {
            Some(State::Udp(udp)) => {
                let attempt = udp.race.attempts().iter().find(|a| a.number == number);
                attempt.map(|a| a.addr)
            }
            _ => None,
        }
    }
    /// The UDP address of a link's relay.
    pub(crate) fn relay_of(&self, link: LinkId) -> Option<SocketAddr> {
        match self.all.get(&link).map(|l| &l.state) {
            Some(State::Udp(udp)) => udp.race.first().map(|a| a.addr),
            _ => None,
        }
    }

    pub(crate) fn quic_event(
        &mut self,
        net: &mut Network,
        quic: &mut QuicHost,
        conn: ConnId,
        event: &Event,
    ) {
        let Some(id) = self.by_conn(conn) else { return };
        match event {
            Event::Connected => self.connected(net, quic, id, conn),
            Event::ConnectionLost { reason } => {
                let error = match reason {
                    ConnectionError::TimedOut => LinkError::TimedOut,
                    other => LinkError::Broken(other.to_string()),
                };
                self.broke(net.instant(), id, conn, error);
            }
            Event::Stream(StreamEvent::Readable { id: stream }) => self.read(quic, id, *stream),
            Event::Stream(StreamEvent::Writable { .. }) => {
                if let Some(udp) = self.udp(id) {
                    udp.flush(quic);
                }
            }
            // All that was said before a hang-up is acknowledged.
            Event::Stream(StreamEvent::Finished { .. }) => {
                if let Some(udp) = self.udp(id) {
                    udp.close(net.instant(), quic);
                }
            }
            _ => {}
        }
    }
    pub(crate) fn drained(&mut self, now: Instant, conn: ConnId) {
        if let Some(id) = self.by_conn(conn) {
            self.broke(now, id, conn, LinkError::Broken("drained".to_owned()));
        }
    }
    /// An attempt failed, and with the last one the dial; or the link ended.
    fn broke(&mut self, now: Instant, id: LinkId, conn: ConnId, error: LinkError) {
        if let Some(udp) = self.udp(id) {
            udp.race.failed(now, conn);
            if udp.race.is_lost() {
                self.ended(id, error);
            }
        }
    }

    fn by_conn(&self, id: ConnId) -> Option<LinkId> {
        self.all.iter().find_map(|(link, l)| match &l.state {
            State::Udp(udp) if udp.race.has(id) => Some(*link),
            _ => None,
        })
    }
    fn udp(&mut self, id: LinkId) -> Option<&mut UdpLink> {
        match &mut self.all.get_mut(&id)?.state {
            State::Udp(udp) => Some(udp),
            State::Tls(_) => None,
        }
    }

    fn connected(&mut self, net: &Network, quic: &mut QuicHost, id: LinkId, conn: ConnId) {
        let Some(link) = self.all.get_mut(&id) else {
            return;
        };
        let State::Udp(udp) = &mut link.state else {
            return;
        };
        let now = net.instant();
        // Nobody hears what the others still have to say.
        for lost in udp.race.won(conn) {
            if let Some(c) = quic.conn(lost) {
                c.close(now, 0u32.into(), Bytes::new());
            }
        }
        let (Some(won), Some(c)) = (udp.race.first(), quic.conn(conn)) else {
            return;
        };
        udp.stream = c.streams().open(Dir::Bi);
        let up = LinkUp {
            rtt: Some(now - won.began),
            udp: Some((SocketId(0), won.addr)),
        };
        link.dialing_until = None;
        self.said.push_back(Said::Dialed(id, Ok(up)));
    }

    fn read(&mut self, quic: &mut QuicHost, id: LinkId, stream: StreamId) {
        let Some(udp) = self.udp(id) else { return };
        let Some(c) = udp.conn(quic) else { return };
        let mut over = false;
        if let Ok(mut chunks) = c.recv_stream(stream).read(true) {
            loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => udp.decoder.push(&chunk.bytes),
                    Ok(None) => {
                        over = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
            let _ = chunks.finalize();
        }
        loop {
            let Some(udp) = self.udp(id) else { return };
            match udp.decoder.next() {
                Ok(Some(message)) => self.said.push_back(Said::Control(id, message)),
                Ok(None) => break,
                Err(error) => {
                    return self.ended(id, LinkError::Protocol(error.to_string()));
                }
            }
        }
        if over {
            self.ended(id, LinkError::Broken("the relay ended the link".to_owned()));
        }
    }
}
