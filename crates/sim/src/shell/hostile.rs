//! Those that mean harm: a flooder of datagrams, and a node with a real key that abuses its link to the relay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use byway_wire::key::Purpose;
use byway_wire::relay::Pin;
use byway_wire::relay::control::{
    CloseReason, Control, Hello, LinkClaim, Open, Prove, Rebind, Role, VERSION,
};
use byway_wire::relay::cookie::Cookie;
use byway_wire::relay::frame::Frame;
use byway_wire::{
    ChannelId, Instance, NodeId, NodeInstance, ProbeSecret, Record, SecretKey, SignedRecord,
};

use super::link::{CLIENT_HELLO, UPGRADE, exporter};
use crate::net::pipe::{PipeId, Side};
use crate::net::{Happening, HostId, Network};
use crate::rng::Rng;

/// The port it sends from.
pub const HOSTILE_PORT: u16 = 6666;

/// Sends garbage of every kind to addresses it knows, for ever.
#[derive(Debug)]
pub struct Flooder {
    host: HostId,
    victims: Vec<SocketAddr>,
    every: Duration,
    rng: Rng,
    /// Datagrams it overheard: replayed as they are and damaged.
    overheard: Vec<Bytes>,
    /// How many it sent.
    pub sent: u64,
}

impl Flooder {
    /// A flooder that sends one datagram to each victim every so often.
    pub fn new(net: &mut Network, host: HostId, victims: Vec<SocketAddr>, every: Duration) -> Self {
        net.wake_at(host, Some(net.now() + every));
        Self {
            host,
            victims,
            every,
            rng: net.rng("flooder"),
            overheard: Vec::new(),
            sent: 0,
        }
    }
    /// Gives it a datagram of the tunnel it attacks.
    pub fn overhear(&mut self, datagram: Bytes) {
        self.overheard.push(datagram);
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        if let Happening::Datagram { data, .. } = &what
            && self.overheard.len() < 64
        {
            self.overheard.push(data.clone());
        }
        if what != Happening::Wake {
            return;
        }
        for victim in self.victims.clone() {
            let datagram = self.garbage();
            net.send(self.host, HOSTILE_PORT, victim, datagram);
            self.sent += 1;
        }
        net.wake_at(self.host, Some(net.now() + self.every));
    }

    fn garbage(&mut self) -> Bytes {
        let len = self.rng.between(1, 1452) as usize;
        let mut bytes = vec![0; len];
        self.rng.fill(&mut bytes);
        // One of every kind of first byte, and now and then anything at all.
        bytes[0] = match self.rng.below(10) {
            0 => 0x00,
            1 => 0x01,
            2 => 0x40 | (bytes[0] & 0x3f),
            3 => 0xc0 | (bytes[0] & 0x3f),
            4 | 5 => 0x80,
            6 => 0x81,
            7 => 0x82,
            8 => 0x83,
            _ => bytes[0],
        };
        if bytes[0] <= 1 && len >= 20 {
            // A STUN header that is right as far as it goes.
            bytes[1] = 1;
            bytes[2..4].copy_from_slice(&((len - 20) as u16 & !3).to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        }
        if bytes[0] == 0x80 && self.rng.chance(0.3) && len >= 8 {
            bytes[1..8].fill(0);
        }
        if !self.overheard.is_empty() && self.rng.chance(0.3) {
            let n = self.rng.below(self.overheard.len() as u64) as usize;
            let mut copy = self.overheard[n].to_vec();
            if self.rng.chance(0.5) && !copy.is_empty() {
                let at = self.rng.below(copy.len() as u64) as usize;
                copy[at] ^= 1 << self.rng.below(8);
            }
            return Bytes::from(copy);
        }
        Bytes::from(bytes)
    }
}

/// A node with a valid key and a valid record, which says everything it must not say on its link.
pub struct Abuser {
    host: HostId,
    relay: SocketAddr,
    key: Arc<SecretKey>,
    record: SignedRecord,
    target: NodeId,
    rng: Rng,
    pipe: Option<PipeId>,
    stage: u8,
    /// Control messages and raw frames it got out.
    pub sent: u64,
    /// How often the relay threw it out.
    pub thrown_out: u64,
}

/// Between two of its messages.
const ABUSE_EVERY: Duration = Duration::from_millis(10);

impl Abuser {
    /// An abuser that wants to disturb `target`.
    pub fn new(net: &mut Network, host: HostId, relay: SocketAddr, target: NodeId) -> Self {
        let mut rng = net.rng("abuser");
        let key = Arc::new(SecretKey::from_bytes(&rng.seed()));
        let record = Record {
            id: NodeInstance {
                node: key.node_id(),
                instance: Instance(rng.u64()),
            },
            probe_key: ProbeSecret::from_bytes(rng.seed()).public(),
            epoch: 1,
            seq: 0,
            relays: Vec::new(),
        };
        net.wake_at(host, Some(net.now() + ABUSE_EVERY));
        Self {
            host,
            relay,
            record: SignedRecord::sign(&key, record),
            key,
            target,
            rng,
            pipe: None,
            stage: 0,
            sent: 0,
            thrown_out: 0,
        }
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        match what {
            Happening::Wake => {
                match self.pipe {
                    None => {
                        self.stage = 0;
                        self.pipe = Some(net.pipe_connect(self.host, self.relay));
                    }
                    Some(pipe) if self.stage == 4 => self.abuse(net, pipe),
                    Some(_) => {}
                }
                net.wake_at(self.host, Some(net.now() + ABUSE_EVERY));
            }
            Happening::PipeConnected { pipe } => {
                self.stage = 1;
                net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; CLIENT_HELLO]));
            }
            Happening::PipeData { pipe, data } => self.advance(net, pipe, data),
            Happening::PipeBroken { .. } => {
                self.pipe = None;
                self.thrown_out += 1;
            }
            _ => {}
        }
    }

    fn advance(&mut self, net: &mut Network, pipe: PipeId, data: Bytes) {
        match self.stage {
            1 => net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; UPGRADE])),
            2 => {}
            3 => {
                let Ok(Frame::Control(Control::Challenge(challenge))) = Frame::decode(data) else {
                    return;
                };
                // It says what it likes of the certificate; the relay's address is what lets it in.
                let claim = LinkClaim {
                    nonce: self.rng.seed(),
                    exporter: exporter(pipe),
                    dialled: self.relay.to_string(),
                    certificate: Pin(self.rng.seed()),
                    role: Role::Client,
                };
                let signed = Prove::signed_bytes(&challenge, &claim);
                let prove = Control::Prove(Prove {
                    node: self.key.node_id(),
                    claim,
                    signature: self.key.sign(Purpose::LinkProof, &signed),
                });
                let hello = Control::Hello(Hello {
                    versions: vec![VERSION],
                    role: Role::Client,
                    record: self.record.clone(),
                    token: None,
                });
                for message in [prove, hello] {
                    net.pipe_send(pipe, Side::Dialler, Frame::Control(message).encode());
                }
            }
            _ => return,
        }
        self.stage += 1;
    }

    fn abuse(&mut self, net: &mut Network, pipe: PipeId) {
        let channel = ChannelId::from_u64(self.rng.u64());
        let mut noise = vec![0; self.rng.between(1, 2000) as usize];
        self.rng.fill(&mut noise);
        let noise = Bytes::from(noise);
        let message = match self.rng.below(9) {
            0 => Control::Open(Open {
                channel,
                peer: self.target,
                proof: self.rng.chance(0.5).then(|| self.rng.seed()),
                first: vec![noise.slice(..noise.len().min(1200))],
            }),
            1 => Control::Attach { channel },
            2 => Control::Signal {
                channel,
                sealed: noise,
            },
            3 => Control::Closed {
                channel,
                reason: CloseReason::Done,
            },
            4 => Control::Accept { channel },
            5 => Control::Rebind(Rebind {
                cookie: Cookie {
                    channel,
                    addr: self.relay,
                    mac: [7; 16],
                },
            }),
            6 => {
                let frame = Frame::Data {
                    channel,
                    segment: noise.len() as u16,
                    payload: noise,
                };
                net.pipe_send(pipe, Side::Dialler, frame.encode());
                self.sent += 1;
                return;
            }
            7 => Control::Ping { token: 1 },
            _ => {
                // Not even a frame. The relay throws it out for this, and it comes back; seldom, or it would never
                // get to the rest.
                if self.rng.chance(0.1) {
                    let mut frame = noise.to_vec();
                    frame[0] = 0;
                    net.pipe_send(pipe, Side::Dialler, Bytes::from(frame));
                    self.sent += 1;
                }
                return;
            }
        };
        net.pipe_send(pipe, Side::Dialler, Frame::Control(message).encode());
        self.sent += 1;
    }
}
