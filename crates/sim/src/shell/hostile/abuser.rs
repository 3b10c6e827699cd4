//! A node with a valid key and a valid record, which says everything it must not say on its TLS link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use byway_wire::key::Purpose;
use byway_wire::relay::Pin;
use byway_wire::relay::control::{
    Challenge, CloseReason, Control, Hello, LinkClaim, Open, Prove, Rebind, Role, VERSION,
};
use byway_wire::relay::cookie::Cookie;
use byway_wire::relay::frame::Frame;
use byway_wire::{
    ChannelId, Instance, NodeId, NodeInstance, ProbeSecret, Record, SecretKey, SignedRecord,
};

use crate::net::pipe::{PipeId, Side};
use crate::net::{Happening, HostId, Network};
use crate::rng::Rng;
use crate::shell::link::{CLIENT_HELLO, UPGRADE, exporter};

/// See the module's documentation.
pub struct Abuser {
    host: HostId,
    relay: SocketAddr,
    key: Arc<SecretKey>,
    record: SignedRecord,
    target: NodeId,
    rng: Rng,
    stage: Stage,
    /// Control messages and raw frames it got out, admitted.
    pub sent: u64,
    /// How often the relay welcomed it.
    pub admitted: u64,
    /// How often the relay threw it out again.
    pub thrown_out: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Away,
    Connecting,
    Hello,
    Upgrade,
    Challenge,
    /// It has proved its key, and waits to be welcomed.
    Proved,
    Admitted(PipeId),
}

/// Between two of its messages.
const EVERY: Duration = Duration::from_millis(10);

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
        net.wake_at(host, Some(net.now() + EVERY));
        Self {
            host,
            relay,
            record: SignedRecord::sign(&key, record),
            key,
            target,
            rng,
            stage: Stage::Away,
            sent: 0,
            admitted: 0,
            thrown_out: 0,
        }
    }

    /// Something happened on the host.
    pub fn handle(&mut self, net: &mut Network, what: Happening) {
        match what {
            Happening::Wake => {
                match self.stage {
                    Stage::Away => {
                        self.stage = Stage::Connecting;
                        net.pipe_connect(self.host, self.relay);
                    }
                    Stage::Admitted(pipe) => self.abuse(net, pipe),
                    _ => {}
                }
                net.wake_at(self.host, Some(net.now() + EVERY));
            }
            Happening::PipeConnected { pipe } => {
                self.stage = Stage::Hello;
                net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; CLIENT_HELLO]));
            }
            Happening::PipeData { pipe, data } => self.advance(net, pipe, data),
            Happening::PipeBroken { .. } => {
                if matches!(self.stage, Stage::Admitted(_)) {
                    self.thrown_out += 1;
                }
                self.stage = Stage::Away;
            }
            _ => {}
        }
    }

    fn advance(&mut self, net: &mut Network, pipe: PipeId, data: Bytes) {
        match self.stage {
            Stage::Away | Stage::Connecting | Stage::Admitted(_) => {}
            Stage::Hello => {
                self.stage = Stage::Upgrade;
                net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; UPGRADE]));
            }
            Stage::Upgrade => self.stage = Stage::Challenge,
            Stage::Challenge => {
                if let Ok(Frame::Control(Control::Challenge(challenge))) = Frame::decode(data) {
                    self.stage = Stage::Proved;
                    self.prove(net, pipe, &challenge);
                }
            }
            Stage::Proved => {
                if let Ok(Frame::Control(Control::Welcome(_))) = Frame::decode(data) {
                    self.stage = Stage::Admitted(pipe);
                    self.admitted += 1;
                }
            }
        }
    }

    fn prove(&mut self, net: &mut Network, pipe: PipeId, challenge: &Challenge) {
        // It says what it likes of the certificate; the relay's address is what lets it in.
        let claim = LinkClaim {
            nonce: self.rng.seed(),
            exporter: exporter(pipe),
            dialled: self.relay.to_string(),
            certificate: Pin(self.rng.seed()),
            role: Role::Client,
        };
        let signed = Prove::signed_bytes(challenge, &claim);
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
                wait_ms: self.rng.between(0, 120_000) as u32,
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
