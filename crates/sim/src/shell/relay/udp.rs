//! The relay's UDP links: a QUIC connection with one control stream each.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use byway_relay_core::io::LinkId;
use byway_wire::relay::control::Control;
use byway_wire::relay::frame::{StreamDecoder, encode_stream};
use byway_wire::{ChannelId, NodeId};
use quinn_proto::{Dir, StreamEvent, StreamId};

use super::{Carrier, RELAY_PORT, RelayShell};
use crate::net::Network;
use crate::quic::{ConnId, Output};

/// How often a link is looked at for having moved (`LOOK` in `quic.rs`).
const LOOK: Duration = Duration::from_secs(5);

impl RelayShell {
    pub(super) fn quic_output(&mut self, net: &mut Network, output: Output) {
        match output {
            Output::Batch(batch) => {
                for datagram in batch.datagrams() {
                    self.outbox.push_back((RELAY_PORT, batch.to, datagram));
                }
            }
            Output::Accepted(..) => {}
            Output::Event(conn, event) => self.conn_event(net, conn, &event),
            Output::Drained(conn) => {
                if let Some(link) = self.conns.remove(&conn) {
                    self.link_down(net.instant(), link);
                }
            }
        }
    }

    fn conn_event(&mut self, net: &mut Network, conn: ConnId, event: &quinn_proto::Event) {
        match event {
            quinn_proto::Event::Connected => {
                let Some(c) = self.quic.conn(conn) else {
                    return;
                };
                let from = c.remote_address();
                let identity = c.crypto_session().peer_identity();
                let Some(node) = identity.and_then(|id| id.downcast::<NodeId>().ok()) else {
                    return;
                };
                let carrier = Carrier::Udp {
                    conn,
                    stream: None,
                    decoder: StreamDecoder::default(),
                    unsent: BytesMut::new(),
                    look_at: net.instant(),
                };
                self.link_up(net, carrier, *node, None, from);
            }
            quinn_proto::Event::ConnectionLost { .. } => {
                if let Some(link) = self.conns.remove(&conn) {
                    self.link_down(net.instant(), link);
                }
            }
            quinn_proto::Event::Stream(event) => self.stream_event(net, conn, event),
            _ => {}
        }
    }

    fn stream_event(&mut self, net: &mut Network, conn: ConnId, event: &StreamEvent) {
        let Some(link) = self.conns.get(&conn).copied() else {
            return;
        };
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                let Some(c) = self.quic.conn(conn) else {
                    return;
                };
                // The first stream is the control stream; others are nobody's.
                let opened = c.streams().accept(Dir::Bi);
                if let Some(Carrier::Udp {
                    stream: stream @ None,
                    ..
                }) = self.links.get_mut(&link)
                {
                    *stream = opened;
                }
                if let Some(stream) = opened {
                    self.read(net, link, stream);
                }
                self.flush(link);
            }
            StreamEvent::Readable { id } => self.read(net, link, *id),
            StreamEvent::Writable { .. } => self.flush(link),
            _ => {}
        }
    }

    fn read(&mut self, net: &mut Network, id: LinkId, from: StreamId) {
        let now = net.instant();
        let unix = self.unix_time(net);
        let Some(Carrier::Udp {
            conn,
            stream,
            decoder,
            ..
        }) = self.links.get_mut(&id)
        else {
            return;
        };
        if *stream != Some(from) {
            return;
        }
        let Some(c) = self.quic.conn(*conn) else {
            return;
        };
        let mut over = false;
        if let Ok(mut chunks) = c.recv_stream(from).read(true) {
            loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => decoder.push(&chunk.bytes),
                    Ok(None) => break over = true,
                    Err(_) => break,
                }
            }
            let _ = chunks.finalize();
        }
        loop {
            match decoder.next() {
                Ok(Some(message)) => self.relay.handle_control(now, unix, id, message),
                Ok(None) if over => return self.hung_up(now, id),
                Ok(None) => return,
                Err(error) => {
                    return self.relay.handle_malformed(now, id, &error.to_string());
                }
            }
        }
    }

    /// The node ended its side: nothing more will be said.
    fn hung_up(&mut self, now: Instant, id: LinkId) {
        if let Some(Carrier::Udp { conn, .. }) = self.links.get(&id) {
            let conn = *conn;
            self.conns.remove(&conn);
            if let Some(c) = self.quic.conn(conn) {
                c.close(now, 0u32.into(), Bytes::new());
            }
            self.link_down(now, id);
        }
    }

    pub(super) fn say_udp(&mut self, link: LinkId, message: &Control) {
        if let Some(Carrier::Udp { unsent, .. }) = self.links.get_mut(&link) {
            encode_stream(message, unsent);
            self.flush(link);
        }
    }

    /// A node whose NAT restarted and that only listens sends no data, so no cookie would be drawn, and what is sent to
    /// it would be lost for good. QUIC notices at the node's next keep-alive. Its idea of the address is a hint only: a
    /// cookie goes there, and the node's answer on the control stream is the proof.
    pub(super) fn look_for_moves(&mut self, now: Instant) {
        let mut moved = Vec::new();
        for carrier in self.links.values_mut() {
            let Carrier::Udp { conn, look_at, .. } = carrier else {
                continue;
            };
            if *look_at > now {
                continue;
            }
            *look_at = now + LOOK;
            if let Some(seen) = self.quic.remote(*conn)
                && !self.sources.values().any(|bound| *bound == seen)
            {
                moved.push(seen);
            }
        }
        for addr in moved {
            self.cookie(now, ChannelId::ECHO, addr, usize::MAX);
        }
    }

    fn flush(&mut self, id: LinkId) {
        let Some(Carrier::Udp {
            conn,
            stream: Some(stream),
            unsent,
            ..
        }) = self.links.get_mut(&id)
        else {
            return;
        };
        let Some(c) = self.quic.conn(*conn) else {
            return;
        };
        while !unsent.is_empty() {
            match c.send_stream(*stream).write(unsent) {
                Ok(n) => drop(unsent.split_to(n)),
                Err(_) => return,
            }
        }
    }
}
