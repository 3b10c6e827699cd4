//! One server of every kind behind every filter, in virtual time.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SERVER: &str = "198.51.100.1:3478";
const OTHER: &str = "198.51.100.2:3479";
const MS: Duration = Duration::from_millis(1);
const RTT: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq)]
enum Server {
    /// As RFC 5780 asks.
    Able,
    /// Names another address and never answers from elsewhere.
    SilentWhenAsked,
    /// Names another address and answers from where it was asked.
    Deaf,
    /// Names another address and answers the question with 420.
    Refuses,
    /// Names none.
    Plain,
    /// Names itself.
    NamesItself,
    Dead,
}

fn start() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant will do to begin with"
    )]
    Instant::now()
}

/// An answer with OTHER-ADDRESS in front of the mapped address, as coturn sends it.
fn success(txid: TransactionId, other: Option<SocketAddr>) -> Vec<u8> {
    let truth = stun::encode_success(txid, "203.0.113.9:7000".parse().unwrap(), 1000);
    let Some(SocketAddr::V4(other)) = other else {
        return truth;
    };
    let mut message = truth[..20].to_vec();
    message.extend([0x80, 0x2c, 0, 8, 0, 1]);
    message.extend(other.port().to_be_bytes());
    message.extend(other.ip().octets());
    message.extend(&truth[20..truth.len() - 8]);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    message
}

fn refusal(txid: TransactionId) -> Vec<u8> {
    stun::encode_unknown_attributes(txid, &[3])
}

/// Runs it to its end: the verdict, how long it took, and whom it called how often.
fn run(server: Server, filter: Filtering) -> (Filtering, Duration, Vec<SocketAddr>) {
    let (addr, other): (SocketAddr, SocketAddr) = (SERVER.parse().unwrap(), OTHER.parse().unwrap());
    let start = start();
    let mut now = start;
    let mut test = FilterTest::new(now, [3; 32], addr);
    let mut called = Vec::new();
    let mut wire: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
    loop {
        while let Some((to, datagram)) = test.poll_transmit(now) {
            called.push(to);
            let Ok(Message::Request { txid, change, .. }) = stun::decode(&datagram) else {
                panic!("not a request");
            };
            let named = match server {
                Server::Plain => None,
                Server::NamesItself => Some(addr),
                _ => Some(other),
            };
            let asked = change.unwrap_or(ChangeRequest {
                ip: false,
                port: false,
            });
            let from = match (server, asked.ip || asked.port) {
                (Server::Dead, _) | (Server::SilentWhenAsked, true) => continue,
                (Server::Able, true) => SocketAddr::new(
                    if asked.ip { other.ip() } else { to.ip() },
                    if asked.port { other.port() } else { to.port() },
                ),
                _ => to,
            };
            let answer = if server == Server::Refuses && change.is_some() {
                refusal(txid)
            } else {
                success(txid, named)
            };
            let let_in = match filter {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => called.iter().any(|c| c.ip() == from.ip()),
                _ => called.contains(&from),
            };
            if let_in {
                wire.push((now + RTT, from, answer));
            }
        }
        let Some(timer) = test.poll_timeout() else {
            return (test.verdict().unwrap(), now - start, called);
        };
        wire.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        match wire.last() {
            Some((at, ..)) if *at <= timer => {
                let (at, from, datagram) = wire.pop().unwrap();
                now = at;
                test.handle(now, from, &datagram);
            }
            _ => {
                assert!(timer >= now, "would spin");
                now = timer;
                test.handle_timeout(now);
            }
        }
    }
}

#[test]
fn every_filter_is_told_from_the_others() {
    for filter in [
        Filtering::EndpointIndependent,
        Filtering::AddressDependent,
        Filtering::AddressAndPortDependent,
    ] {
        let (verdict, took, _) = run(Server::Able, filter);
        assert_eq!(verdict, filter);
        assert!(took <= 1_500 * MS, "{filter:?} took {took:?}");
    }
}

#[test]
fn a_server_that_does_not_do_as_it_is_asked_leaves_it_unknown() {
    for server in [
        Server::SilentWhenAsked,
        Server::Deaf,
        Server::Refuses,
        Server::Plain,
        Server::NamesItself,
        Server::Dead,
    ] {
        for filter in [
            Filtering::EndpointIndependent,
            Filtering::AddressAndPortDependent,
        ] {
            let (verdict, took, _) = run(server, filter);
            assert_eq!(verdict, Filtering::Unknown);
            assert!(took <= 3_000 * MS, "took {took:?}");
        }
    }
}

#[test]
fn the_other_address_is_never_called_and_the_server_not_often() {
    for server in [Server::Able, Server::SilentWhenAsked, Server::Dead] {
        let (_, _, called) = run(server, Filtering::AddressAndPortDependent);
        let hosts: BTreeSet<_> = called.iter().map(SocketAddr::ip).collect();
        assert_eq!(hosts.len(), 1);
        assert!(called.len() <= 15, "{called:?}");
    }
}

#[test]
fn a_victim_named_as_the_other_port_s_host_is_not_believed() {
    let now = start();
    let mut test = FilterTest::new(now, [3; 32], SERVER.parse().unwrap());
    let (to, datagram) = test.poll_transmit(now).unwrap();
    let Ok(Message::Request { txid, .. }) = stun::decode(&datagram) else {
        panic!("not a request");
    };
    let other = Some("224.0.0.1:9".parse().unwrap());
    test.handle(now, to, &success(txid, other));
    assert_eq!(test.verdict(), Some(Filtering::Unknown));
}

proptest! {
    #[test]
    fn arbitrary_datagrams_decide_nothing(
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20),
    ) {
        let now = start();
        let mut test = FilterTest::new(now, [3; 32], SERVER.parse().unwrap());
        let _ = test.poll_transmit(now);
        for datagram in datagrams {
            test.handle(now, SERVER.parse().unwrap(), &datagram);
        }
        prop_assert_eq!(test.verdict(), None);
    }
}
