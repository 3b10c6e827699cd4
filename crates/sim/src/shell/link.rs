//! A node's links to relays, in both carriers.
//!
//! **UDP**: a QUIC connection of the node's own endpoint, under a virtual address of its own, with one bidirectional
//! control stream. The relay is known by the key in the URL's pin: the simulation's pin *is* the relay's public key.
//!
//! **TLS**: a pipe with the flights of TLS and the WebSocket upgrade in front (sizes as in reality, contents none), then
//! `Challenge`, `Prove`, and frames. Data waits for its turn no longer than 50 ms; what would is dropped (design
//! section 7).

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use byway_core::io::{Carrier, LinkError, LinkId, LinkUp, SocketId};
use byway_wire::key::Purpose;
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Control, LinkClaim, Prove, Role};
use byway_wire::relay::frame::{Frame, StreamDecoder, encode_stream};
use byway_wire::{ChannelId, NodeId, RelayUrl};
use quinn_proto::{Dir, Event, StreamEvent, StreamId};

use super::virt::Virtual;
use crate::net::pipe::{PipeId, Side};
use crate::net::{HostId, Network};
use crate::quic::crypto::{Client, Credentials};
use crate::quic::{ConnId, QuicHost, link_transport};

/// What a link tells the node.
#[derive(Debug)]
pub(crate) enum Said {
    Dialed(LinkId, Result<LinkUp, LinkError>),
    Control(LinkId, Control),
    Lost(LinkId, LinkError),
}

/// A dial that takes longer failed (design section 12: 10 s to Welcome).
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Data older than this is dropped rather than sent (design section 7).
const MAX_SOJOURN: Duration = Duration::from_millis(50);
/// What TLS's and the upgrade's flights come to, in bytes.
pub(crate) const CLIENT_HELLO: usize = 1_560;
pub(crate) const SERVER_HELLO: usize = 2_300;
pub(crate) const UPGRADE: usize = 400;
pub(crate) const SWITCHING: usize = 200;

#[derive(Debug)]
enum State {
    Udp {
        conn: ConnId,
        relay: SocketAddr,
        stream: Option<StreamId>,
        decoder: StreamDecoder,
        unsent: BytesMut,
    },
    Tls {
        pipe: PipeId,
        stage: Stage,
        url: RelayUrl,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    Hello,
    Upgrade,
    Challenge,
    Up,
}

#[derive(Debug)]
struct Link {
    state: State,
    /// Until when the dial must have succeeded; none once it has.
    dialing_until: Option<Instant>,
    began: Instant,
}

/// All dials and links of a node.
pub(crate) struct Links {
    credentials: Arc<Credentials>,
    role: Role,
    all: BTreeMap<LinkId, Link>,
    said: VecDeque<Said>,
}

impl Links {
    pub(crate) fn new(credentials: Arc<Credentials>, role: Role) -> Self {
        Self {
            credentials,
            role,
            all: BTreeMap::new(),
            said: VecDeque::new(),
        }
    }
    pub(crate) fn poll(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one event, and the two things it acts on"
    )]
    pub(crate) fn dial(
        &mut self,
        net: &mut Network,
        quic: &mut QuicHost,
        host: HostId,
        link: LinkId,
        url: &RelayUrl,
        addrs: &[SocketAddr],
        carrier: Carrier,
    ) {
        let now = net.instant();
        let addr = match url.host().parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, url.port())),
            Err(_) => addrs.first().copied(),
        };
        let Some(relay) = addr else {
            let error = LinkError::Resolve(url.host().to_owned());
            return self.said.push_back(Said::Dialed(link, Err(error)));
        };
        let pinned = url.pin().and_then(|pin| NodeId::from_bytes(&pin.0).ok());
        let Some(pinned) = pinned else {
            let error = LinkError::Certificate("no pin".to_owned());
            return self.said.push_back(Said::Dialed(link, Err(error)));
        };
        let state = match carrier {
            Carrier::Udp => {
                let crypto = Client {
                    credentials: self.credentials.clone(),
                    alpn: b"byway-relay/1",
                };
                let conn = quic.connect(
                    now,
                    Arc::new(crypto),
                    Arc::new(link_transport()),
                    Virtual::Link(link).to_addr(),
                    &pinned.server_name(),
                );
                let Some(conn) = conn else {
                    let error = LinkError::Broken("cannot connect".to_owned());
                    return self.said.push_back(Said::Dialed(link, Err(error)));
                };
                State::Udp {
                    conn,
                    relay,
                    stream: None,
                    decoder: StreamDecoder::default(),
                    unsent: BytesMut::new(),
                }
            }
            Carrier::Tls => State::Tls {
                pipe: net.pipe_connect(host, relay),
                stage: Stage::Connecting,
                url: url.clone(),
            },
        };
        let entry = Link {
            state,
            dialing_until: Some(now + DIAL_LIMIT),
            began: now,
        };
        self.all.insert(link, entry);
    }

    pub(crate) fn hang_up(&mut self, net: &mut Network, quic: &mut QuicHost, link: LinkId) {
        match self.all.remove(&link).map(|l| l.state) {
            Some(State::Udp { conn, .. }) => {
                if let Some(c) = quic.conn(conn) {
                    c.close(net.instant(), 0u32.into(), Bytes::new());
                }
            }
            Some(State::Tls { pipe, .. }) => net.pipe_close(pipe, Side::Dialler),
            None => {}
        }
    }

    pub(crate) fn send(
        &mut self,
        net: &mut Network,
        quic: &mut QuicHost,
        link: LinkId,
        message: &Control,
    ) {
        match self.all.get_mut(&link).map(|l| &mut l.state) {
            Some(State::Udp { unsent, .. }) => {
                encode_stream(message, unsent);
                self.flush(quic, link);
            }
            Some(State::Tls {
                pipe,
                stage: Stage::Up,
                ..
            }) => net.pipe_send(
                *pipe,
                Side::Dialler,
                Frame::Control(message.clone()).encode(),
            ),
            _ => {}
        }
    }

    /// Sends data in a frame; false if it was dropped for its age.
    pub(crate) fn send_data(
        &mut self,
        net: &mut Network,
        link: LinkId,
        channel: ChannelId,
        payload: Bytes,
    ) -> bool {
        let Some(State::Tls {
            pipe,
            stage: Stage::Up,
            ..
        }) = self.all.get(&link).map(|l| &l.state)
        else {
            return false;
        };
        if net.pipe_backlog(*pipe, Side::Dialler) > MAX_SOJOURN {
            return false;
        }
        let frame = Frame::Data {
            channel,
            segment: payload.len() as u16,
            payload,
        };
        net.pipe_send(*pipe, Side::Dialler, frame.encode());
        true
    }

    /// The link whose relay has this UDP address.
    pub(crate) fn by_relay(&self, addr: SocketAddr) -> Option<LinkId> {
        // The newest: an older one to the same relay is on its way out.
        self.all
            .iter()
            .rev()
            .find_map(|(id, link)| match &link.state {
                State::Udp { relay, .. } if *relay == addr => Some(*id),
                _ => None,
            })
    }
    /// The UDP address of a link's relay.
    pub(crate) fn relay_of(&self, link: LinkId) -> Option<SocketAddr> {
        match self.all.get(&link).map(|l| &l.state) {
            Some(State::Udp { relay, .. }) => Some(*relay),
            _ => None,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for (id, link) in &mut self.all {
            if link.dialing_until.is_some_and(|at| at <= now) {
                link.dialing_until = None;
                self.said
                    .push_back(Said::Dialed(*id, Err(LinkError::TimedOut)));
            }
        }
    }
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.all.values().filter_map(|l| l.dialing_until).min()
    }

    // ---- QUIC ----

    pub(crate) fn quic_event(
        &mut self,
        net: &mut Network,
        quic: &mut QuicHost,
        id: ConnId,
        event: &Event,
    ) {
        let found = self.all.iter().find_map(|(link, l)| match &l.state {
            State::Udp { conn, .. } if *conn == id => Some(*link),
            _ => None,
        });
        let Some(link) = found else { return };
        match event {
            Event::Connected => self.connected(net, quic, link),
            Event::ConnectionLost { reason } => {
                let error = LinkError::Broken(reason.to_string());
                self.ended(link, error);
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(quic, link, *id),
            Event::Stream(StreamEvent::Writable { .. }) => self.flush(quic, link),
            _ => {}
        }
    }
    pub(crate) fn drained(&mut self, id: ConnId) {
        let found = self.all.iter().find_map(|(link, l)| match &l.state {
            State::Udp { conn, .. } if *conn == id => Some(*link),
            _ => None,
        });
        if let Some(link) = found {
            self.ended(link, LinkError::Broken("drained".to_owned()));
        }
    }

    fn connected(&mut self, net: &Network, quic: &mut QuicHost, id: LinkId) {
        let Some(link) = self.all.get_mut(&id) else {
            return;
        };
        let State::Udp {
            conn,
            relay,
            stream,
            ..
        } = &mut link.state
        else {
            return;
        };
        let Some(c) = quic.conn(*conn) else { return };
        *stream = c.streams().open(Dir::Bi);
        let up = LinkUp {
            rtt: Some(net.instant() - link.began),
            udp: Some((SocketId(0), *relay)),
        };
        link.dialing_until = None;
        self.said.push_back(Said::Dialed(id, Ok(up)));
    }

    fn ended(&mut self, id: LinkId, error: LinkError) {
        if let Some(link) = self.all.remove(&id) {
            self.said.push_back(match link.dialing_until {
                Some(_) => Said::Dialed(id, Err(error)),
                None => Said::Lost(id, error),
            });
        }
    }

    fn flush(&mut self, quic: &mut QuicHost, id: LinkId) {
        let Some(State::Udp {
            conn,
            stream: Some(stream),
            unsent,
            ..
        }) = self.all.get_mut(&id).map(|l| &mut l.state)
        else {
            return;
        };
        let Some(c) = quic.conn(*conn) else { return };
        while !unsent.is_empty() {
            match c.send_stream(*stream).write(unsent) {
                Ok(n) => drop(unsent.split_to(n)),
                Err(_) => return,
            }
        }
    }

    fn read(&mut self, quic: &mut QuicHost, id: LinkId, stream: StreamId) {
        let Some(State::Udp { conn, decoder, .. }) = self.all.get_mut(&id).map(|l| &mut l.state)
        else {
            return;
        };
        let Some(c) = quic.conn(*conn) else { return };
        if let Ok(mut chunks) = c.recv_stream(stream).read(true) {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                decoder.push(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
        loop {
            match decoder.next() {
                Ok(Some(message)) => self.said.push_back(Said::Control(id, message)),
                Ok(None) => return,
                Err(error) => {
                    return self.ended(id, LinkError::Protocol(error.to_string()));
                }
            }
        }
    }

    // ---- TLS ----

    fn by_pipe(&mut self, id: PipeId) -> Option<LinkId> {
        self.all.iter().find_map(|(link, l)| match &l.state {
            State::Tls { pipe, .. } if *pipe == id => Some(*link),
            _ => None,
        })
    }

    pub(crate) fn pipe_connected(&mut self, net: &mut Network, pipe: PipeId) {
        if let Some(link) = self.by_pipe(pipe)
            && let Some(State::Tls { stage, .. }) = self.all.get_mut(&link).map(|l| &mut l.state)
        {
            *stage = Stage::Hello;
            net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; CLIENT_HELLO]));
        }
    }
    pub(crate) fn pipe_broken(&mut self, pipe: PipeId) {
        if let Some(link) = self.by_pipe(pipe) {
            self.ended(link, LinkError::Broken("connection reset".to_owned()));
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
        let link = self.all.get_mut(&id)?;
        let State::Tls { stage, url, .. } = &mut link.state else {
            return None;
        };
        match *stage {
            Stage::Connecting => {}
            Stage::Hello => {
                *stage = Stage::Upgrade;
                net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; UPGRADE]));
            }
            Stage::Upgrade => *stage = Stage::Challenge,
            Stage::Challenge => {
                let Ok(Frame::Control(Control::Challenge(challenge))) = Frame::decode(data) else {
                    self.ended(id, LinkError::Protocol("no challenge".to_owned()));
                    return None;
                };
                *stage = Stage::Up;
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
                link.dialing_until = None;
                let up = LinkUp {
                    rtt: Some((net.instant() - link.began) / 3),
                    udp: None,
                };
                self.said.push_back(Said::Dialed(id, Ok(up)));
            }
            Stage::Up => match Frame::decode(data) {
                Ok(Frame::Control(message)) => self.said.push_back(Said::Control(id, message)),
                Ok(Frame::Data {
                    channel,
                    segment,
                    payload,
                }) => return Some((id, channel, cut(&payload, segment))),
                Ok(Frame::Unknown) => {}
                Err(error) => self.ended(id, LinkError::Protocol(error.to_string())),
            },
        }
        None
    }
}

/// The datagrams of a data frame.
pub(crate) fn cut(payload: &Bytes, segment: u16) -> Vec<Bytes> {
    let size = usize::from(segment).max(1);
    (0..payload.len())
        .step_by(size)
        .map(|start| payload.slice(start..payload.len().min(start + size)))
        .collect()
}

/// What both ends of an uninterrupted TLS connection export: something of the connection that both know.
pub(crate) fn exporter(pipe: PipeId) -> [u8; 32] {
    let mut out = [0; 32];
    out[..8].copy_from_slice(&pipe.0.to_be_bytes());
    out
}
