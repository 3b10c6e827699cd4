//! The state machine against servers of every kind, behind a small NAT, in virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::stun::{self, Message, TransactionId};
use proptest::prelude::*;

use super::*;
use crate::io::{LocalSocket, SocketId};

const MS: Duration = Duration::from_millis(1);
const SOCKET: SocketId = SocketId(0);
const LOCAL_PORT: u16 = 40_000;

/// A NAT in the words of RFC 4787, of one external address.
#[derive(Debug)]
struct Nat {
    mapping: Mapping,
    ports: Ports,
    /// Turns around what is sent to an address of its own.
    hairpins: bool,
    table: BTreeMap<Option<(IpAddr, Option<u16>)>, SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
enum Ports {
    Sequential { next: u16, step: u16 },
    Random { state: u32 },
}

impl Nat {
    fn new(mapping: Mapping, ports: Ports) -> Self {
        Self {
            mapping,
            ports,
            hairpins: false,
            table: BTreeMap::new(),
        }
    }

    fn map(&mut self, to: SocketAddr) -> SocketAddr {
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
enum Server {
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

struct World {
    now: Instant,
    start: Instant,
    discovery: Discovery,
    nat: Option<Nat>,
    servers: BTreeMap<SocketAddr, (Server, u32)>,
    /// Answers on their way, by arrival and number: from, datagram.
    wire: BTreeMap<(Instant, u32), (SocketAddr, Bytes)>,
    sent: u32,
    requests: Vec<(Duration, SocketAddr)>,
    reports: Vec<Arc<NatReport>>,
}

impl World {
    fn new(nat: Option<Nat>, servers: &[(&str, Server)]) -> Self {
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

    fn serve(&mut self, addr: SocketAddr, server: Server) {
        self.servers.insert(addr, (server, 0));
        if let Server::WithOtherPort(delay, port) = server {
            let other = SocketAddr::new(addr.ip(), port);
            self.servers.insert(other, (Server::Honest(delay), 0));
        }
    }

    fn socket(&self) -> LocalSocket {
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

    fn full(&mut self) -> Duration {
        self.discovery.start(self.now, Kind::Full);
        self.settle()
    }

    fn whole(&mut self) -> Duration {
        self.discovery.start(self.now, Kind::Whole);
        self.settle()
    }

    /// Runs until it is settled; how long that took.
    fn settle(&mut self) -> Duration {
        let began = self.now;
        self.drain();
        while !self.discovery.is_settled() {
            assert!(self.step(), "nothing more happens, and it is not settled");
            assert!(self.now <= began + 10_000 * MS);
        }
        self.now - began
    }

    /// Runs until nothing is left to do.
    fn finish(&mut self) {
        self.drain();
        while self.step() {}
        assert_eq!(self.discovery.poll_timeout(), None);
    }

    /// The next thing that happens.
    fn step(&mut self) -> bool {
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

    fn drain(&mut self) {
        while let Some((socket, to, datagram)) = self.discovery.poll_transmit() {
            assert_eq!(socket, SOCKET);
            self.requests.push((self.now - self.start, to));
            self.request(to, &datagram);
        }
        while let Some(report) = self.discovery.poll_report() {
            self.reports.push(report);
        }
    }

    fn request(&mut self, to: SocketAddr, datagram: &[u8]) {
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

    fn answer(&mut self, delay: u32, from: SocketAddr, datagram: Vec<u8>) {
        self.sent += 1;
        let arrival = (self.now + delay * MS, self.sent);
        self.wire.insert(arrival, (from, datagram.into()));
    }

    fn report(&self) -> &NatReport {
        self.discovery.report()
    }

    fn row(&self, server: usize) -> &ServerRow {
        let label = format!("server {server}");
        self.report()
            .servers
            .iter()
            .find(|row| row.label == label)
            .unwrap()
    }

    fn fault(&self, server: usize) -> &str {
        self.row(server).fault.as_deref().unwrap_or("none")
    }

    fn ignored(&self, reason: Ignored) -> u64 {
        self.discovery.ignored().get(reason)
    }

    /// How often a server was asked.
    fn asked(&self, addr: &str) -> usize {
        let addr: SocketAddr = addr.parse().unwrap();
        self.requests.iter().filter(|(_, to)| *to == addr).count()
    }
}

/// A binding error with nothing but its code (RFC 8489 section 14.8).
fn error(txid: TransactionId, code: u16) -> Vec<u8> {
    let mut message = vec![0x01, 0x11, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    message.extend(txid.0);
    message.extend([0, 9, 0, 4, 0, 0, (code / 100) as u8, (code % 100) as u8]);
    message
}

/// Puts OTHER-ADDRESS (RFC 5780 section 7.4) of 192.0.2.99 in front of a success, without FINGERPRINT.
fn with_other_address(success: &[u8], port: u16) -> Vec<u8> {
    let mut message = success[..20].to_vec();
    message.extend([0x80, 0x2c, 0, 8, 0, 1]);
    message.extend(port.to_be_bytes());
    message.extend([192, 0, 2, 99]);
    message.extend(&success[20..success.len() - 8]);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    message
}

fn independent() -> Option<Nat> {
    let next = Ports::Sequential {
        next: 7000,
        step: 1,
    };
    Some(Nat::new(Mapping::EndpointIndependent, next))
}

fn dependent() -> Option<Nat> {
    let random = Ports::Random { state: 1 };
    Some(Nat::new(Mapping::AddressAndPortDependent, random))
}

const A: &str = "198.51.100.1:3478";
const B: &str = "198.51.100.2:3478";
const C: &str = "198.51.100.3:3478";
const D: &str = "198.51.100.4:3478";
const V6A: &str = "[2001:db8::1]:3478";
const V6B: &str = "[2001:db8::2]:3478";
const HONEST: Server = Server::Honest(20);

fn reflexive(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([203, 0, 113, 9], port)))
}

#[test]
fn two_servers_that_agree_settle_it_in_one_round_trip() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    assert!(world.discovery.is_settled(), "nothing was asked yet");
    assert_eq!(world.full(), 20 * MS);
    let report = world.report();
    assert_eq!(report.udp_v4, Some(true));
    assert_eq!(report.udp_v6, None, "nobody was asked");
    assert_eq!(report.reflexive_v4, reflexive(7001));
    assert_eq!(report.mapping, Mapping::EndpointIndependent);
    assert_eq!(report.public, Some(false));
    assert_eq!(report.ports, PortPattern::Unknown);
    assert!(
        report
            .servers
            .iter()
            .all(|row| row.believed && row.rtt_ms == Some(20.0))
    );
    world.finish();
    assert_eq!(world.requests.len(), 2);
}

#[test]
fn all_servers_are_asked_at_once_over_both_families() {
    let mut world = World::new(
        None,
        &[(A, HONEST), (B, HONEST), (V6A, HONEST), (V6B, HONEST)],
    );
    assert_eq!(world.full(), 20 * MS);
    assert!(world.requests.iter().all(|(at, _)| at.is_zero()));
    let report = world.report();
    assert_eq!((report.udp_v4, report.udp_v6), (Some(true), Some(true)));
    assert_eq!(
        report.reflexive_v6,
        Some("[2001:db8:9::5]:40000".parse().unwrap())
    );
    assert_eq!(report.mapping_v6, Mapping::EndpointIndependent);
    assert_eq!(report.ports, PortPattern::Preserving);
    assert_eq!(report.public, Some(true));
}

#[test]
fn one_server_alone_settles_at_once_and_leaves_the_mapping_unknown() {
    let mut world = World::new(independent(), &[(A, HONEST)]);
    assert_eq!(world.full(), 20 * MS);
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::Unknown);
}

#[test]
fn a_dependent_mapping_is_recognised() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, HONEST), (C, HONEST)]);
    assert_eq!(world.full(), 20 * MS);
    let report = world.report();
    assert_eq!(report.mapping, Mapping::AddressDependent, "at least");
    assert_eq!(report.port_dependent, None);
    assert_eq!(report.ports, PortPattern::Random);
}

#[test]
fn sequential_ports_show_their_delta_in_the_order_of_sending() {
    let ports = Ports::Sequential {
        next: 5000,
        step: 2,
    };
    let nat = Nat::new(Mapping::AddressDependent, ports);
    let servers = [
        (A, Server::Honest(50)),
        (B, Server::Honest(10)),
        (C, Server::Honest(30)),
    ];
    let mut world = World::new(Some(nat), &servers);
    world.full();
    assert_eq!(world.report().ports, PortPattern::Sequential { delta: 2 });
}

#[test]
fn a_server_with_another_port_shows_port_dependence() {
    let server = Server::WithOtherPort(20, 3479);
    let mut world = World::new(dependent(), &[(A, server), (B, HONEST), (C, HONEST)]);
    world.full();
    assert_eq!(world.report().mapping, Mapping::AddressAndPortDependent);
    assert_eq!(world.report().port_dependent, Some(true));

    let nat = Nat::new(Mapping::AddressDependent, Ports::Random { state: 1 });
    let mut world = World::new(Some(nat), &[(A, server), (B, HONEST), (C, HONEST)]);
    world.full();
    assert_eq!(world.report().mapping, Mapping::AddressDependent);
    assert_eq!(world.report().port_dependent, Some(false));
}

#[test]
fn another_address_that_a_server_names_is_never_asked() {
    let mut world = World::new(dependent(), &[(A, Server::WithOtherPort(20, 3479))]);
    world.full();
    world.finish();
    let known: IpAddr = "198.51.100.1".parse().unwrap();
    assert!(world.requests.iter().all(|(_, to)| to.ip() == known));
    assert_eq!(world.requests.len(), 2);
}

#[test]
fn a_dead_server_changes_nothing_and_delays_nothing() {
    let mut world = World::new(
        independent(),
        &[(A, HONEST), (B, Server::Dead), (C, HONEST)],
    );
    assert_eq!(world.full(), 20 * MS);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(world.fault(1), "none", "it may still answer");
    world.finish();
    assert_eq!(world.now - world.start, 3000 * MS);
    assert_eq!(world.fault(1), "no answer");
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(
        world.asked(B),
        3,
        "no more than three times once it is settled"
    );
}

#[test]
fn a_dead_server_beside_a_dependent_mapping_is_waited_for_no_longer_than_a_second() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, Server::Dead), (C, HONEST)]);
    assert_eq!(world.full(), 1000 * MS);
    assert_eq!(world.report().mapping, Mapping::AddressDependent);
}

#[test]
fn patience_grows_with_the_round_trip() {
    let servers = [
        (A, Server::Honest(600)),
        (B, Server::Dead),
        (C, Server::Honest(600)),
    ];
    let mut world = World::new(dependent(), &servers);
    assert_eq!(world.full(), 2400 * MS);
}

#[test]
fn a_silent_server_is_asked_again_at_100_300_700_and_1500_ms_and_given_up_at_3_s() {
    let mut world = World::new(independent(), &[(A, Server::Dead)]);
    assert_eq!(world.full(), 3000 * MS);
    let times: Vec<Duration> = world.requests.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 100, 300, 700, 1500].map(|ms| ms * MS));
    assert_eq!(
        world.report().udp_v4,
        None,
        "one silent server is only a silent server"
    );
    assert_eq!(world.report().reflexive_v4, None);
}

#[test]
fn udp_is_blocked_when_several_servers_are_silent() {
    let servers = [(A, Server::Dead), (B, Server::Dead), (V6A, HONEST)];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    assert_eq!(world.report().udp_v4, Some(false));
    assert_eq!(world.report().udp_v6, Some(true));
}

#[test]
fn a_lost_request_is_made_up_for_and_the_round_trip_is_that_of_the_one_answered() {
    let servers = [(A, Server::AnswersOnly(2)), (B, Server::AnswersOnly(3))];
    let mut world = World::new(independent(), &servers);
    assert_eq!(world.full(), 310 * MS);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(world.row(0).rtt_ms, Some(10.0));
    assert_eq!(world.row(1).rtt_ms, Some(10.0));
}

#[test]
fn a_slow_server_still_gets_its_row() {
    let servers = [(A, HONEST), (B, HONEST), (C, Server::Honest(2500))];
    let mut world = World::new(independent(), &servers);
    assert_eq!(world.full(), 20 * MS);
    world.finish();
    assert_eq!(world.row(2).rtt_ms, Some(2500.0));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

/// One server that does wrong, between two honest ones, changes nothing but its own row.
fn only_its_own_row_suffers(bad: Server) -> World {
    let run = |middle: Server, nat: Option<Nat>| {
        let mut world = World::new(nat, &[(A, HONEST), (B, middle), (C, HONEST), (D, HONEST)]);
        world.full();
        world.finish();
        world
    };
    for nat in [independent, dependent] {
        let (clean, spoilt) = (run(Server::Dead, nat()), run(bad, nat()));
        let (clean, report) = (clean.report(), spoilt.report());
        assert_eq!(report.mapping, clean.mapping, "{bad:?}");
        assert_eq!(report.reflexive_v4, clean.reflexive_v4, "{bad:?}");
        assert_eq!(report.port_dependent, clean.port_dependent, "{bad:?}");
        assert_eq!(report.ports, clean.ports, "{bad:?}");
        assert_eq!(report.udp_v4, clean.udp_v4, "{bad:?}");
        for server in [0, 2, 3] {
            assert_eq!(report.servers[server], clean.servers[server], "{bad:?}");
        }
    }
    run(bad, independent())
}

#[test]
fn a_lie_about_our_address_is_outvoted() {
    let world = only_its_own_row_suffers(Server::Lies("8.8.8.8:53"));
    assert!(world.fault(1).contains("elsewhere"));
    assert!(!world.row(1).believed);
}

#[test]
fn a_lie_about_our_port_is_outvoted() {
    let servers = [(A, HONEST), (B, Server::LiesAboutPort(666)), (C, HONEST)];
    let mut world = World::new(independent(), &servers);
    world.full();
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert!(
        world
            .reports
            .iter()
            .all(|report| report.reflexive_v4 != reflexive(666))
    );
}

#[test]
fn absurd_addresses_are_refused() {
    for lie in [
        "0.0.0.0:1",
        "127.0.0.1:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "203.0.113.9:0",
    ] {
        let world = only_its_own_row_suffers(Server::Lies(lie));
        assert!(world.fault(1).contains("cannot be"), "{}", world.fault(1));
        assert_eq!(world.row(1).mapped, None);
        assert_eq!(world.ignored(Ignored::AbsurdAddress), 1);
    }
}

#[test]
fn an_address_of_another_family_is_refused() {
    let world = only_its_own_row_suffers(Server::Lies("[2001:db8::9]:1"));
    assert!(world.fault(1).contains("another address family"));
    assert_eq!(world.ignored(Ignored::WrongFamily), 1);
}

#[test]
fn an_unknown_transaction_is_ignored() {
    let world = only_its_own_row_suffers(Server::WrongTransaction);
    assert_eq!(world.fault(1), "no answer");
    assert_eq!(world.ignored(Ignored::UnknownTransaction), 3);
}

#[test]
fn an_answer_from_another_address_is_ignored() {
    for from in ["198.51.100.2:3479", "198.51.100.99:3478"] {
        let world = only_its_own_row_suffers(Server::WrongSource(from));
        assert!(world.fault(1).contains(from));
        assert_eq!(world.ignored(Ignored::WrongSource), 3);
    }
}

#[test]
fn repeated_answers_count_once() {
    let mut world = World::new(independent(), &[(A, Server::Repeats(10_000)), (B, HONEST)]);
    world.full();
    world.finish();
    assert_eq!(world.ignored(Ignored::Duplicate), 9_999);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert!(world.row(0).believed);
}

#[test]
fn malformed_answers_are_ignored() {
    let world = only_its_own_row_suffers(Server::CutOff);
    assert_eq!(world.fault(1), "answers are malformed");
    assert_eq!(world.ignored(Ignored::Malformed), 3);
    let world = only_its_own_row_suffers(Server::Oversized);
    assert!(world.fault(1).contains("too long"));
    assert_eq!(world.ignored(Ignored::Oversized), 3);
    let world = only_its_own_row_suffers(Server::Echo);
    assert_eq!(world.ignored(Ignored::Request), 3);
}

#[test]
fn an_error_is_final_for_its_server() {
    let world = only_its_own_row_suffers(Server::Error(420));
    assert!(world.fault(1).contains("420"));
    assert_eq!(world.asked(B), 1);
    assert_eq!(world.ignored(Ignored::Refused), 1);
}

#[test]
fn an_answer_on_another_socket_is_ignored() {
    let mut world = World::new(independent(), &[(A, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    let (_, to, datagram) = world.discovery.poll_transmit().unwrap();
    let Ok(Message::Request { txid, .. }) = stun::decode(&datagram) else {
        panic!("not a request");
    };
    let answer = stun::encode_success(txid, "203.0.113.9:1".parse().unwrap(), 1000);
    assert!(
        world
            .discovery
            .handle_stun(world.now, SocketId(9), to, None, &answer)
    );
    assert_eq!(world.ignored(Ignored::WrongSocket), 1);
    assert_eq!(world.report().reflexive_v4, None);
    let local = Some("192.168.1.5".parse().unwrap());
    assert!(
        world
            .discovery
            .handle_stun(world.now, SOCKET, to, local, &answer)
    );
    assert_eq!(world.report().reflexive_v4, reflexive(1));
    assert_eq!(world.row(0).local, local);
}

#[test]
fn an_answer_from_a_v4_mapped_address_is_one_from_the_address() {
    let mut world = World::new(independent(), &[(A, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    let (_, _, datagram) = world.discovery.poll_transmit().unwrap();
    let Ok(Message::Request { txid, .. }) = stun::decode(&datagram) else {
        panic!("not a request");
    };
    let answer = stun::encode_success(txid, "203.0.113.9:1".parse().unwrap(), 1000);
    let from = "[::ffff:198.51.100.1]:3478".parse().unwrap();
    assert!(
        world
            .discovery
            .handle_stun(world.now, SOCKET, from, None, &answer)
    );
    assert_eq!(world.report().reflexive_v4, reflexive(1));
}

#[test]
fn a_late_answer_corrects_the_report() {
    // Two liars in league answer first; three honest servers outvote them.
    let lie = Server::Lies("8.8.8.8:53");
    let servers = [
        (A, lie),
        (B, lie),
        (C, HONEST),
        (D, HONEST),
        ("198.51.100.5:3478", HONEST),
    ];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

#[test]
fn servers_of_one_label_have_one_voice() {
    let mut world = World::new(independent(), &[(C, HONEST), (D, HONEST)]);
    for i in 10..20 {
        let addr = SocketAddr::from(([192, 0, 2, i], 3478));
        world.discovery.add_server(world.now, "crowd", addr);
        world.serve(addr, Server::Lies("8.8.8.8:53"));
    }
    world.full();
    world.finish();
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

#[test]
fn a_refresh_asks_one_server_and_says_nothing_when_nothing_changed() {
    let servers = [
        (A, Server::Honest(30)),
        (B, Server::Honest(10)),
        (C, Server::Dead),
    ];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    let reports = world.reports.len();
    let requests = world.requests.len();
    world.discovery.start(world.now, Kind::Refresh);
    assert_eq!(world.settle(), 10 * MS);
    world.finish();
    assert_eq!(world.requests.len(), requests + 1);
    assert_eq!(
        world.requests.last().unwrap().1,
        B.parse().unwrap(),
        "the nearest"
    );
    assert_eq!(world.reports.len(), reports);
}

#[test]
fn a_refresh_that_sees_another_mapping_asks_everyone() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    let generation = world.report().generation;
    world.nat = Some(Nat::new(
        Mapping::EndpointIndependent,
        Ports::Sequential {
            next: 9000,
            step: 1,
        },
    ));
    world.discovery.start(world.now, Kind::Refresh);
    assert_eq!(world.settle(), 40 * MS);
    assert_eq!(world.report().reflexive_v4, reflexive(9001));
    assert!(world.report().generation > generation);
}

#[test]
fn a_refresh_without_an_answer_asks_everyone_and_keeps_the_report_meanwhile() {
    let mut world = World::new(
        independent(),
        &[
            (A, HONEST),
            (B, Server::Honest(30)),
            (C, Server::Honest(30)),
        ],
    );
    world.full();
    world.finish();
    world.serve(A.parse().unwrap(), Server::Dead);
    world.discovery.start(world.now, Kind::Refresh);
    assert_eq!(world.settle(), 1030 * MS);
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
    assert!(
        world
            .reports
            .iter()
            .skip(3)
            .all(|r| r.reflexive_v4 == reflexive(7001))
    );
}

#[test]
fn a_refresh_with_nothing_to_refresh_is_a_full_round() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.discovery.start(world.now, Kind::Refresh);
    world.settle();
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

#[test]
fn a_refresh_behind_a_dependent_nat_keeps_the_finding() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, HONEST), (C, HONEST)]);
    world.full();
    world.finish();
    let before = world.report().clone();
    for _ in 0..5 {
        world.discovery.start(world.now, Kind::Refresh);
        world.settle();
    }
    assert_eq!(world.report(), &before);
}

#[test]
fn the_same_round_again_changes_nothing() {
    let servers = [
        (A, Server::WithOtherPort(20, 3479)),
        (B, HONEST),
        (C, Server::Dead),
    ];
    let mut world = World::new(independent(), &servers);
    world.full();
    world.finish();
    let before = world.report().clone();
    world.full();
    assert_eq!(world.report(), &before);
    world.finish();
    assert_eq!(world.report(), &before);
}

#[test]
fn the_network_going_away_shows_in_the_next_round() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    for addr in [A, B] {
        world.serve(addr.parse().unwrap(), Server::Dead);
    }
    world.full();
    let report = world.report();
    assert_eq!(report.udp_v4, Some(false));
    assert_eq!(report.reflexive_v4, None);
    assert_eq!(report.mapping, Mapping::Unknown);
    assert_eq!(report.public, None);
}

#[test]
fn new_sockets_make_everything_unknown_again() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    let generation = world.report().generation;
    let same = world.socket();
    world
        .discovery
        .set_sockets(world.now, std::slice::from_ref(&same));
    assert_eq!(
        world.report().generation,
        generation,
        "the same sockets change nothing"
    );
    let mut moved = same;
    moved.addrs = vec!["10.1.1.1".parse().unwrap()];
    world.discovery.set_sockets(world.now, &[moved]);
    assert_eq!(world.report().reflexive_v4, None);
    assert_eq!(world.report().mapping, Mapping::Unknown);
    assert!(world.report().generation > generation);
}

#[test]
fn new_sockets_during_a_round_begin_it_again() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    let mut moved = world.socket();
    moved.addrs.clear();
    world.discovery.set_sockets(world.now, &[moved]);
    world.settle();
    assert_eq!(world.requests.len(), 4);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    assert_eq!(
        world.report().public,
        None,
        "the host's addresses are not known"
    );
}

#[test]
fn a_family_without_a_socket_is_not_asked() {
    let mut world = World::new(independent(), &[(A, HONEST), (V6A, HONEST)]);
    let mut only_v4 = world.socket();
    only_v4.v6 = false;
    world.discovery.set_sockets(world.now, &[only_v4]);
    assert_eq!(world.full(), 20 * MS);
    assert_eq!(world.asked(V6A), 0);
    assert_eq!(world.report().udp_v6, None);
    assert!(world.fault(1).contains("not asked"));
}

#[test]
fn a_server_added_during_a_round_is_asked_at_once() {
    let mut world = World::new(independent(), &[(A, HONEST)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    let addr = B.parse().unwrap();
    world.serve(addr, HONEST);
    assert!(world.discovery.add_server(world.now, "late", addr));
    assert!(world.discovery.add_server(world.now, "late", addr), "again");
    world.settle();
    assert_eq!(world.requests.len(), 2);
    assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
}

#[test]
fn a_removed_server_takes_its_word_with_it() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    let addr = B.parse().unwrap();
    assert!(world.discovery.remove_server(world.now, "server 1", addr));
    assert!(!world.discovery.remove_server(world.now, "server 1", addr));
    assert_eq!(world.report().servers.len(), 1);
    assert_eq!(world.report().mapping, Mapping::Unknown);
    assert_eq!(world.report().reflexive_v4, reflexive(7001));
}

#[test]
fn removing_the_server_that_is_waited_for_settles_the_round() {
    let mut world = World::new(dependent(), &[(A, HONEST), (B, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    world.step();
    assert!(!world.discovery.is_settled());
    world
        .discovery
        .remove_server(world.now, "server 1", B.parse().unwrap());
    assert!(world.discovery.is_settled());
}

#[test]
fn servers_that_cannot_be_asked_are_refused_and_their_number_is_bounded() {
    let mut world = World::new(None, &[]);
    for addr in [
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "198.51.100.1:0",
        "[ff02::1]:1",
    ] {
        let addr = addr.parse().unwrap();
        assert!(
            !world.discovery.add_server(world.now, "bad", addr),
            "{addr}"
        );
    }
    for i in 0..MAX_SERVERS {
        let addr = SocketAddr::from(([198, 51, 100, 1], 1000 + i as u16));
        assert!(world.discovery.add_server(world.now, format!("{i}"), addr));
    }
    let addr = A.parse().unwrap();
    assert!(!world.discovery.add_server(world.now, "one too many", addr));
}

#[test]
fn no_servers_is_settled_with_everything_unknown() {
    let mut world = World::new(None, &[]);
    assert!(world.full().is_zero());
    assert_eq!(
        world.reports.len(),
        1,
        "said once, so that nobody waits for ever"
    );
    assert_eq!(world.report(), &NatReport::default());
}

#[test]
fn a_machine_that_slept_through_the_round_asks_each_server_once_more_at_most() {
    let mut world = World::new(None, &[(A, Server::Dead), (B, Server::Dead)]);
    world.discovery.start(world.now, Kind::Full);
    world.drain();
    world.now += 800 * MS;
    world.discovery.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.requests.len(), 4);
    world.now += 3_600_000 * MS;
    world.discovery.handle_timeout(world.now);
    world.drain();
    assert_eq!(world.requests.len(), 4);
    assert!(world.discovery.is_settled());
}

const OURS: &str = "203.0.113.9:7001";

fn hairpinning() -> Option<Nat> {
    let next = Ports::Sequential {
        next: 7000,
        step: 1,
    };
    let mut nat = Nat::new(Mapping::EndpointIndependent, next);
    nat.hairpins = true;
    Some(nat)
}

#[test]
fn a_nat_that_turns_datagrams_around_is_found_by_one() {
    let mut world = World::new(hairpinning(), &[(A, HONEST), (B, HONEST)]);
    let took = world.whole();
    assert_eq!(world.report().hairpin, Some(true));
    assert_eq!(world.asked(OURS), 1);
    assert!(took <= 50 * MS, "{took:?}");
    assert_eq!(world.reports.last().unwrap().hairpin, Some(true));
    world.finish();
}

#[test]
fn a_nat_that_does_not_costs_three_datagrams() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.whole();
    assert_eq!(world.report().hairpin, Some(false));
    assert_eq!(world.asked(OURS), 3);
    world.finish();
}

#[test]
fn nobody_sends_to_its_own_address_unasked_or_without_a_nat_that_shows_one() {
    let mut world = World::new(hairpinning(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    assert_eq!((world.report().hairpin, world.asked(OURS)), (None, 0));
    for nat in [None, dependent()] {
        let mut world = World::new(nat, &[(A, HONEST), (B, HONEST)]);
        world.whole();
        assert_eq!(world.report().hairpin, None);
        let own = world.report().reflexive_v4.unwrap().to_string();
        assert_eq!(world.asked(&own), 0);
    }
}

#[test]
fn what_is_known_of_turning_around_stays_until_the_address_is_another() {
    let mut world = World::new(hairpinning(), &[(A, HONEST), (B, HONEST)]);
    world.whole();
    world.full();
    assert_eq!(world.report().hairpin, Some(true));
    world.finish();
    world.servers.clear();
    world.full();
    world.finish();
    assert_eq!(world.report().hairpin, None);
}

#[test]
fn a_stranger_at_the_address_a_liar_names_gets_three_datagrams_and_proves_nothing() {
    let lie = "198.51.100.66:7000";
    // The one server there is: its word is taken, and it sits at the address it names.
    for stranger in [Server::Echo, HONEST] {
        let servers = [(A, Server::Lies(lie))];
        let mut world = World::new(independent(), &servers);
        world.serve(lie.parse().unwrap(), stranger);
        world.whole();
        let echoes = matches!(stranger, Server::Echo);
        assert!(world.asked(lie) <= 3);
        // Who owns the address we believe to have may as well be our NAT.
        assert_eq!(world.report().hairpin, Some(echoes));
    }
    // Several believed ones: a liar is not among them.
    let servers = [(A, HONEST), (B, HONEST), (C, Server::Lies(lie))];
    let mut world = World::new(independent(), &servers);
    world.whole();
    assert_eq!(world.asked(lie), 0);
}

#[test]
fn a_port_that_the_gateway_gives_tells_of_a_second_nat() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    assert_eq!(world.report().double_nat, None);
    for (external, suspected) in [
        ("203.0.113.9:41000", Some(false)),
        ("100.64.7.7:41000", Some(true)),
        ("192.0.2.4:41000", Some(true)),
    ] {
        let held = GatewayPort::Held(PortMapping {
            protocol: MappingProtocol::Pcp,
            external: external.parse().unwrap(),
        });
        world.discovery.set_port_mapping(held);
        assert_eq!(world.report().double_nat, suspected, "{external}");
    }
    let mut world = World::new(None, &[(A, HONEST), (B, HONEST)]);
    world.full();
    assert_eq!(world.report().double_nat, Some(false));
}

#[test]
fn a_spurious_wake_up_does_nothing() {
    let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
    world.full();
    world.finish();
    let (requests, reports) = (world.requests.len(), world.reports.len());
    for _ in 0..10 {
        world.now += 700 * MS;
        world.discovery.handle_timeout(world.now);
        world.drain();
    }
    assert_eq!(
        (world.requests.len(), world.reports.len()),
        (requests, reports)
    );
}

proptest! {
    #[test]
    fn arbitrary_datagrams_change_no_report(
        datagrams in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..100)), 1..20),
    ) {
        let mut world = World::new(independent(), &[(A, HONEST), (B, HONEST)]);
        world.discovery.start(world.now, Kind::Full);
        world.drain();
        let before = world.report().clone();
        for (from_server, mut datagram) in datagrams {
            if from_server && datagram.len() >= 8 {
                // At least the header of a success.
                datagram[..2].copy_from_slice(&[1, 1]);
                datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            }
            let ours = world.discovery.handle_stun(world.now, SOCKET, A.parse().unwrap(), None, &datagram);
            prop_assert!(!ours);
        }
        prop_assert_eq!(world.report(), &before);
        prop_assert!(world.discovery.ignored().total() > 0);
        world.settle();
        prop_assert_eq!(world.report().mapping, Mapping::EndpointIndependent);
    }
}
