//! A NAT, servers of every kind and the time between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::stun::{self, Message, TransactionId};

use super::super::*;
use crate::io::{LocalSocket, SocketId};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SOCKET: SocketId = SocketId(0);
pub(super) const LOCAL_PORT: u16 = 40_000;

/// A NAT in the words of RFC 4787, of one external address.
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) mapping: Mapping,
    pub(super) ports: Ports,
    /// Turns around what is sent to an address of its own.
    pub(super) hairpins: bool,
    pub(super) table: BTreeMap<Option<(IpAddr, Option<u16>)>, SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ports {
    Sequential { next: u16, step: u16 },
    Random { state: u32 },
}

impl Nat {
    pub(super) fn new(mapping: Mapping, ports: Ports) -> Self {
        Self {
            mapping,
            ports,
            hairpins: false,
            table: BTreeMap::new(),
        }
    }

    pub(super) fn map(&mut self, to: SocketAddr) -> SocketAddr {
        let key = match self.mapping {
            Mapping::AddressDependent => Some((to.ip(), None)),
            Mapping::AddressAndPortDependent => Some((to.ip(), Some(to.port()))),
            _ => None,
        };
        let ports = &mut self.ports;
        *self.table.entry(key).or_insert_with(|| {
            let port = match ports {
                Ports::Sequential { next, step } => {
                    *next += *step;
                    *next
                }
                Ports::Random { state } => {
                    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    1024 + (*state >> 16) as u16 % 60_000
                }
            };
            SocketAddr::from(([203, 0, 113, 9], port))
        })
    }
}

/// How a server behaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    /// Answers truly after this time.
    Honest(u32),
    /// As honest, and names this other port of its own, at which it answers too.
    WithOtherPort(u32, u16),
    Dead,
    /// Says we are there, at once.
    Lies(&'static str),
    /// Names a true IP address and a wrong port.
    LiesAboutPort(u16),
    WrongTransaction,
    /// Answers from there.
    WrongSource(&'static str),
    /// Answers that often.
    Repeats(u32),
    Oversized,
    CutOff,
    Error(u16),
    /// Sends the request back.
    Echo,
    /// Answers truly, but only the request with this number.
    AnswersOnly(u32),
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) discovery: Discovery,
    pub(super) nat: Option<Nat>,
    pub(super) servers: BTreeMap<SocketAddr, (Server, u32)>,
    /// Answers on their way, by arrival and number: from, datagram.
    pub(super) wire: BTreeMap<(Instant, u32), (SocketAddr, Bytes)>,
    pub(super) sent: u32,
    pub(super) requests: Vec<(Duration, SocketAddr)>,
    pub(super) reports: Vec<Arc<NatReport>>,
}

impl World {
    pub(super) fn new(nat: Option<Nat>, servers: &[(&str, Server)]) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do to begin with"
        )]
        let start = Instant::now();
        let mut world = Self {
            now: start,
            start,
            discovery: Discovery::new([7; 32]),
            nat,
            servers: BTreeMap::new(),
            wire: BTreeMap::new(),
            sent: 0,
            requests: Vec::new(),
            reports: Vec::new(),
        };
        world.discovery.set_sockets(start, &[world.socket()]);
        for (i, (addr, server)) in servers.iter().enumerate() {
            let addr: SocketAddr = addr.parse().unwrap();
            assert!(
                world
                    .discovery
                    .add_server(start, format!("server {i}"), addr)
            );
            world.serve(addr, *server);
        }
        world
    }

    pub(super) fn serve(&mut self, addr: SocketAddr, server: Server) {
        self.servers.insert(addr, (server, 0));
        if let Server::WithOtherPort(delay, port) = server {
            let other = SocketAddr::new(addr.ip(), port);
            self.servers.insert(other, (Server::Honest(delay), 0));
        }
    }

    pub(super) fn socket(&self) -> LocalSocket {
        let own: &[&str] = match self.nat {
            Some(_) => &["192.168.1.5", "2001:db8:9::5"],
            None => &["203.0.113.9", "2001:db8:9::5"],
        };
        LocalSocket {
            id: SOCKET,
            port: LOCAL_PORT,
            v4: true,
            v6: true,
            addrs: own.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    pub(super) fn full(&mut self) -> Duration {
        self.discovery.start(self.now, Kind::Full);
        self.settle()
    }

    pub(super) fn whole(&mut self) -> Duration {
        self.discovery.start(self.now, Kind::Whole);
        self.settle()
    }

    /// Runs until it is settled; how long that took.
    pub(super) fn settle(&mut self) -> Duration {
        let began = self.now;
        self.drain();
        while !self.discovery.is_settled() {
            assert!(self.step(), "nothing more happens, and it is not settled");
            assert!(self.now <= began + 10_000 * MS);
        }
        self.now - began
    }

    /// Runs until nothing is left to do.
    pub(super) fn finish(&mut self) {
        self.drain();
        while self.step() {}
        assert_eq!(self.discovery.poll_timeout(), None);
    }

    /// The next thing that happens.
    pub(super) fn step(&mut self) -> bool {
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let wake = self.discovery.poll_timeout().map(|(at, _)| at);
        let Some(next) = arrival.into_iter().chain(wake).min() else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let (_, (from, datagram)) = self.wire.pop_first().unwrap();
            self.discovery
                .handle_stun(self.now, SOCKET, from, None, &datagram);
        } else {
            self.discovery.handle_timeout(self.now);
            self.drain();
            let wake = self.discovery.poll_timeout();
            assert!(
                wake.is_none_or(|(at, _)| at > self.now),
                "would spin: {wake:?}"
            );
        }
        self.drain();
        true
    }

    pub(super) fn drain(&mut self) {
        while let Some((socket, to, datagram)) = self.discovery.poll_transmit() {
            assert_eq!(socket, SOCKET);
            self.requests.push((self.now - self.start, to));
            self.request(to, &datagram);
        }
        while let Some(report) = self.discovery.poll_report() {
            self.reports.push(report);
        }
    }

    pub(super) fn request(&mut self, to: SocketAddr, datagram: &[u8]) {
        let Ok(Message::Request { txid, .. }) = stun::decode(datagram) else {
            panic!("not a request");
        };
        let mapped = match (&mut self.nat, to.is_ipv4()) {
            (Some(nat), true) => nat.map(to),
            (None, true) => SocketAddr::from(([203, 0, 113, 9], LOCAL_PORT)),
            (_, false) => "[2001:db8:9::5]:40000".parse().unwrap(),
        };
        let turned = self.nat.as_ref().is_some_and(|nat| {
            let own = nat.table.values().any(|mapped| *mapped == to);
            nat.hairpins && own
        });
        if turned {
            return self.answer(2, mapped, datagram.to_vec());
        }
        let Some((server, asked)) = self.servers.get_mut(&to) else {
            return;
        };
        *asked += 1;
        let (server, asked) = (*server, *asked);
        let truth = stun::encode_success(txid, mapped, 1000);
        match server {
            Server::Dead => {}
            Server::Honest(delay) => self.answer(delay, to, truth),
            Server::WithOtherPort(delay, port) => {
                self.answer(delay, to, with_other_address(&truth, port));
            }
            Server::Lies(lie) => {
                let lie = stun::encode_success(txid, lie.parse().unwrap(), 1000);
                self.answer(1, to, lie);
            }
            Server::LiesAboutPort(port) => {
                let lie = SocketAddr::new(mapped.ip(), port);
                self.answer(1, to, stun::encode_success(txid, lie, 1000));
            }
            Server::WrongTransaction => {
                let mut other = txid;
                other.0[0] ^= 1;
                self.answer(10, to, stun::encode_success(other, mapped, 1000));
            }
            Server::WrongSource(from) => self.answer(10, from.parse().unwrap(), truth),
            Server::Repeats(times) => {
                for _ in 0..times {
                    self.answer(10, to, truth.clone());
                }
            }
            Server::Oversized => {
                let mut long = truth;
                long.resize(stun::MAX_LEN + 1, 0);
                self.answer(10, to, long);
            }
            Server::CutOff => self.answer(10, to, truth[..24].to_vec()),
            Server::Error(code) => self.answer(10, to, error(txid, code)),
            Server::Echo => self.answer(10, to, datagram.to_vec()),
            Server::AnswersOnly(number) if number == asked => self.answer(10, to, truth),
            Server::AnswersOnly(_) => {}
        }
    }

    pub(super) fn answer(&mut self, delay: u32, from: SocketAddr, datagram: Vec<u8>) {
        self.sent += 1;
        let arrival = (self.now + delay * MS, self.sent);
        self.wire.insert(arrival, (from, datagram.into()));
    }

    pub(super) fn report(&self) -> &NatReport {
        self.discovery.report()
    }

    pub(super) fn row(&self, server: usize) -> &ServerRow {
        let label = format!("server {server}");
        self.report()
            .servers
            .iter()
            .find(|row| row.label == label)
            .unwrap()
    }

    pub(super) fn fault(&self, server: usize) -> &str {
        self.row(server).fault.as_deref().unwrap_or("none")
    }

    pub(super) fn ignored(&self, reason: Ignored) -> u64 {
        self.discovery.ignored().get(reason)
    }

    /// How often a server was asked.
    pub(super) fn asked(&self, addr: &str) -> usize {
        let addr: SocketAddr = addr.parse().unwrap();
        self.requests.iter().filter(|(_, to)| *to == addr).count()
    }
}

/// A binding error with nothing but its code (RFC 8489 section 14.8).
pub(super) fn error(txid: TransactionId, code: u16) -> Vec<u8> {
    let mut message = vec![0x01, 0x11, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    message.extend(txid.0);
    message.extend([0, 9, 0, 4, 0, 0, (code / 100) as u8, (code % 100) as u8]);
    message
}

/// Puts OTHER-ADDRESS (RFC 5780 section 7.4) of 192.0.2.99 in front of a success, without FINGERPRINT.
pub(super) fn with_other_address(success: &[u8], port: u16) -> Vec<u8> {
    let mut message = success[..20].to_vec();
    message.extend([0x80, 0x2c, 0, 8, 0, 1]);
    message.extend(port.to_be_bytes());
    message.extend([192, 0, 2, 99]);
    message.extend(&success[20..success.len() - 8]);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    message
}

pub(super) fn independent() -> Option<Nat> {
    let next = Ports::Sequential {
        next: 7000,
        step: 1,
    };
    Some(Nat::new(Mapping::EndpointIndependent, next))
}

pub(super) fn dependent() -> Option<Nat> {
    let random = Ports::Random { state: 1 };
    Some(Nat::new(Mapping::AddressAndPortDependent, random))
}

pub(super) const A: &str = "198.51.100.1:3478";
pub(super) const B: &str = "198.51.100.2:3478";
pub(super) const C: &str = "198.51.100.3:3478";
pub(super) const D: &str = "198.51.100.4:3478";
pub(super) const V6A: &str = "[2001:db8::1]:3478";
pub(super) const V6B: &str = "[2001:db8::2]:3478";
pub(super) const HONEST: Server = Server::Honest(20);

pub(super) fn reflexive(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([203, 0, 113, 9], port)))
}
