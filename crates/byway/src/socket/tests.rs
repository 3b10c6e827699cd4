//! The socket under real quinn connections, with routes set by hand: no node, no relay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_congestion::{FlowMonitor, PathAwareFactory};
use byway_core::io::{Carrier, Health, LinkId, PeerId, Route, SocketId, Way};
use byway_wire::relay::data;
use byway_wire::{ChannelId, SecretKey};
use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use tokio::sync::mpsc;

use super::*;
use crate::tls;

const DEADLINE: Duration = Duration::from_secs(20);
const PEER: PeerId = PeerId(1);
const LINK: LinkId = LinkId(5);
const BYTES: usize = 4 * 1024 * 1024;

struct Side {
    socket: Arc<Socket>,
    quinn: quinn::Endpoint,
    route: Arc<PeerRoute>,
    driver: mpsc::Receiver<ToDriver>,
    addr: SocketAddr,
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

impl Side {
    /// The controller of one more tunnel, whose search has come so far.
    fn tunnel_with_mtu(&self, mtu: u16) -> Box<dyn Controller> {
        let monitor = FlowMonitor::new(Instant::now()).keeping_mtu_in(Arc::clone(&self.route.mtu));
        let factory = Arc::new(PathAwareFactory::new(Arc::new(monitor)));
        let mut controller = factory.build(Instant::now(), 1_200);
        controller.on_mtu_update(mtu);
        controller
    }
}

/// As a tunnel's: the route learns from congestion control what QUIC takes for its MTU.
fn transport(route: &PeerRoute) -> Arc<quinn::TransportConfig> {
    let monitor = FlowMonitor::new(Instant::now()).keeping_mtu_in(Arc::clone(&route.mtu));
    let mut transport = quinn::TransportConfig::default();
    transport.congestion_controller_factory(Arc::new(PathAwareFactory::new(Arc::new(monitor))));
    Arc::new(transport)
}

fn side(mut server: Option<quinn::ServerConfig>) -> Side {
    let route = Arc::new(PeerRoute::new(PEER));
    if let Some(server) = &mut server {
        server.transport_config(transport(&route));
    }
    let (socket, driver) = Socket::bind(&["127.0.0.1:0".parse().unwrap()], 1444).unwrap();
    let mut config = quinn::EndpointConfig::default();
    config.grease_quic_bit(false);
    let quinn = quinn::Endpoint::new_with_abstract_socket(
        config,
        server,
        Arc::clone(&socket) as _,
        Arc::new(quinn::TokioRuntime),
    )
    .unwrap();
    socket.tables.insert_peer(Arc::clone(&route));
    let held = Arc::clone(&socket);
    tokio::spawn(async move { held.send_waiting().await });
    let (_, addr) = socket.bound().next().unwrap();
    Side {
        socket,
        quinn,
        route,
        driver,
        addr,
    }
}

/// A client's side and a server's.
fn pair() -> [Side; 2] {
    let server = QuicServerConfig::try_from(tls::tunnel_server(&key(2)).unwrap()).unwrap();
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server.migration(false);
    [side(None), side(Some(server))]
}

impl Side {
    fn set_route(&self, primary: Option<Way>, standby: Option<Way>, duplicate: bool, max: u16) {
        self.follow(&Route {
            epoch: 1,
            primary,
            standby,
            duplicate,
            max_datagram: max,
            primary_max: max,
            standby_max: max,
            health: Health::Good,
        });
    }

    fn follow(&self, route: &Route) {
        for way in [route.primary, route.standby].into_iter().flatten() {
            self.socket.tables.learn(PEER, way);
        }
        self.route.update(route, &self.socket.tables);
    }

    fn go_direct(&self, remote: SocketAddr, max: u16) {
        self.set_route(Some(direct(remote)), None, false, max);
    }
}

fn direct(remote: SocketAddr) -> Way {
    Way::Direct {
        socket: SocketId(0),
        remote,
    }
}

fn channel() -> Way {
    Way::Channel {
        link: LINK,
        carrier: Carrier::Udp,
        channel: ChannelId::from_u64(77),
    }
}

async fn connect(client: &Side, server: &Side) -> (quinn::Connection, quinn::Connection) {
    let tls = QuicClientConfig::try_from(tls::tunnel_client(&key(1)).unwrap()).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(&client.route));
    let connecting = client
        .quinn
        .connect_with(
            config,
            Virtual::Peer(PEER).to_addr(),
            &key(2).node_id().server_name(),
        )
        .unwrap();
    let accepting = async { server.quinn.accept().await.unwrap().accept().unwrap().await };
    let (client, server) =
        tokio::time::timeout(DEADLINE, async { tokio::join!(connecting, accepting) })
            .await
            .unwrap();
    (client.unwrap(), server.unwrap())
}

/// Sends bytes from one side to the other and compares them.
async fn transfer(from: &quinn::Connection, to: &quinn::Connection) {
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let sending = async {
        let mut stream = from.open_uni().await.unwrap();
        stream.write_all(&sent).await.unwrap();
        stream.finish().unwrap();
    };
    let receiving = async {
        let mut stream = to.accept_uni().await.unwrap();
        stream.read_to_end(BYTES).await.unwrap()
    };
    let ((), received) = tokio::time::timeout(DEADLINE, async { tokio::join!(sending, receiving) })
        .await
        .unwrap();
    assert!(received == sent, "what arrived is not what was sent");
}

/// Forwards relay data between two nodes, as a relay does, but for what has more than `most` bytes of content.
async fn forward(socket: tokio::net::UdpSocket, nodes: [SocketAddr; 2], most: usize) {
    let mut buf = vec![0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buf).await.unwrap();
        let to = if from == nodes[0] { nodes[1] } else { nodes[0] };
        if data::decode(&buf[..len]).is_some() && len <= most + data::HEADER_LEN {
            let _ = socket.send_to(&buf[..len], to).await;
        }
    }
}

/// The same with a relay, to which a network leads that carries no more than `most` bytes of content.
async fn pair_with_relay(most: usize) -> [Side; 2] {
    let sides = pair();
    let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = relay.local_addr().unwrap();
    for side in &sides {
        side.socket.tables.insert_dial(LINK, 0, SocketId(0), addr);
    }
    tokio::spawn(forward(relay, [sides[0].addr, sides[1].addr], most));
    sides
}

#[tokio::test]
async fn quic_runs_straight_between_two_sockets() {
    let [client, server] = pair();
    client.go_direct(server.addr, 1444);
    server.go_direct(client.addr, 1444);
    let (near, far) = connect(&client, &server).await;
    transfer(&near, &far).await;
    transfer(&far, &near).await;
    assert_eq!(near.remote_address(), Virtual::Peer(PEER).to_addr());
    assert_eq!(client.socket.counters.unknown_source.get(), 0);
    let sent = client.route.counters.sent_by_kind();
    assert!(sent[0] > BYTES as u64 && sent[1] == 0, "{sent:?}");
}

#[tokio::test]
async fn quic_runs_through_a_channel_and_moves_to_the_direct_path() {
    let [client, server] = pair_with_relay(1444).await;
    for side in [&client, &server] {
        side.set_route(Some(channel()), None, false, 1444);
    }
    let (near, far) = connect(&client, &server).await;
    transfer(&near, &far).await;
    assert!(client.route.counters.sent_by_kind()[1] > BYTES as u64);

    client.set_route(Some(direct(server.addr)), Some(channel()), false, 1444);
    server.set_route(Some(direct(client.addr)), Some(channel()), false, 1444);
    transfer(&near, &far).await;
    transfer(&far, &near).await;
    assert!(client.route.counters.sent_by_kind()[0] > BYTES as u64);
}

#[tokio::test]
async fn duplicated_datagrams_change_nothing_for_the_application() {
    let [client, server] = pair_with_relay(1444).await;
    for (side, other) in [(&client, &server), (&server, &client)] {
        side.set_route(Some(direct(other.addr)), Some(channel()), true, 1444);
    }
    let (near, far) = connect(&client, &server).await;
    transfer(&near, &far).await;
    client.socket.replay(&client.route);
    transfer(&far, &near).await;
    assert!(client.route.counters.sent_by_kind()[1] > BYTES as u64);
}

#[tokio::test]
async fn copies_for_a_narrow_standby_go_in_two_parts() {
    let [client, server] = pair_with_relay(1232).await;
    for (side, other) in [(&client, &server), (&server, &client)] {
        side.go_direct(other.addr, 1444);
    }
    let (near, far) = connect(&client, &server).await;
    transfer(&near, &far).await;
    for (side, other) in [(&client, &server), (&server, &client)] {
        side.follow(&Route {
            epoch: 1,
            primary: Some(direct(other.addr)),
            standby: Some(channel()),
            duplicate: true,
            max_datagram: 1232,
            primary_max: 1444,
            standby_max: 1232,
            health: Health::Degraded,
        });
        side.socket
            .direct_blocked
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }
    transfer(&near, &far).await;
    assert!(client.socket.counters.fragmented.get() > 0);
    assert_eq!(
        near.stats().path.black_holes_detected,
        0,
        "the copies did not arrive"
    );
}

#[tokio::test]
async fn without_a_route_the_first_flight_goes_to_the_driver() {
    let [mut client, _server] = pair();
    let tls = QuicClientConfig::try_from(tls::tunnel_client(&key(1)).unwrap()).unwrap();
    let _connecting = client
        .quinn
        .connect_with(
            quinn::ClientConfig::new(Arc::new(tls)),
            Virtual::Peer(PEER).to_addr(),
            &key(2).node_id().server_name(),
        )
        .unwrap();
    let first = tokio::time::timeout(DEADLINE, client.driver.recv())
        .await
        .unwrap();
    let Some(ToDriver::First { peer, data }) = first else {
        panic!("{first:?} instead of a first datagram");
    };
    assert_eq!(peer, PEER);
    assert_eq!(data.len(), 1200);
}

#[tokio::test]
async fn a_shrunk_path_carries_datagrams_in_two_parts() {
    let [client, server] = pair();
    client.go_direct(server.addr, 1444);
    server.go_direct(client.addr, 1444);
    let (near, far) = connect(&client, &server).await;
    transfer(&near, &far).await;
    let mtu = near.stats().path.current_mtu;
    assert!(mtu > 1400, "the search went up to {mtu} only");
    client.go_direct(server.addr, 1300);
    transfer(&near, &far).await;
    assert!(client.socket.counters.fragmented.get() > 0);
    assert_eq!(near.stats().path.black_holes_detected, 0);
}

#[tokio::test]
async fn probes_of_a_size_that_the_route_does_not_carry_stay_home() {
    let [client, server] = pair();
    client.go_direct(server.addr, 1300);
    server.go_direct(client.addr, 1300);
    let (near, far) = connect(&client, &server).await;
    transfer(&near, &far).await;
    assert!(client.socket.counters.probe_too_large.get() > 0);
    assert_eq!(client.socket.counters.fragmented.get(), 0);
    let mtu = near.stats().path.current_mtu;
    assert!((1200..=1300).contains(&mtu), "{mtu}");
    assert_eq!(near.stats().path.lost_packets, 0);
}

/// While sizes are being tried a route promises more than it keeps. A probe that was sent then and lost is sent again: in two parts
/// it would arrive, and every datagram after it would have to go so.
#[tokio::test]
async fn a_probe_that_was_promised_more_is_not_cut_in_two_when_it_comes_again() {
    let [client, server] = pair();
    client.go_direct(server.addr, 1444);
    server.go_direct(client.addr, 1444);
    let probe = |size: usize| {
        let contents = vec![0x40; size];
        let sent = client.socket.send_batch(&Transmit {
            destination: Virtual::Peer(PEER).to_addr(),
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        });
        assert!(sent.is_ok());
        let counters = &client.socket.counters;
        (counters.probe_too_large.get(), counters.fragmented.get())
    };
    assert_eq!(probe(1_322), (0, 0));
    client.go_direct(server.addr, 1_232);
    assert_eq!(probe(1_322), (1, 0));
    // A tunnel has found it to pass elsewhere: data.
    let one = client.tunnel_with_mtu(1_322);
    assert_eq!(probe(1_322), (1, 1));
    assert_eq!(probe(1_323), (2, 1));
    // One more is not to search as far, or its probes would be taken for the other's data.
    assert_eq!(client.route.search_bound(), Some(1_232));
    drop(one);
    assert_eq!(client.route.search_bound(), None);
    assert_eq!(probe(1_322), (3, 1), "no tunnel has this for its MTU");
}

#[tokio::test]
async fn datagrams_to_nowhere_are_counted_and_harm_nothing() {
    let [client, server] = pair();
    client.go_direct(server.addr, 1444);
    server.go_direct(client.addr, 1444);
    let (near, far) = connect(&client, &server).await;
    // Nothing listens there: the kernel answers later sends with an error.
    let gone = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let other = Arc::new(PeerRoute::new(PeerId(2)));
    client.socket.tables.insert_peer(Arc::clone(&other));
    for _ in 0..10 {
        client.socket.send_control(direct(gone), &[0x81; 100]);
    }
    transfer(&near, &far).await;
    transfer(&far, &near).await;
}

#[tokio::test]
async fn stun_and_probes_go_to_the_driver() {
    let [mut client, _server] = pair();
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = other.local_addr().unwrap();
    let txid = byway_wire::stun::TransactionId([3; 12]);
    let stun = byway_wire::stun::encode_request(txid, false, None);
    other.send_to(&stun, client.addr).unwrap();
    other.send_to(&[0x81; 99], client.addr).unwrap();
    for expected in [stun, vec![0x81; 99]] {
        let message = tokio::time::timeout(DEADLINE, client.driver.recv())
            .await
            .unwrap();
        let Some(ToDriver::Datagram { way, to, data }) = message else {
            panic!("{message:?} instead of a datagram");
        };
        assert_eq!(way, direct(from));
        assert_eq!(to, Some(client.addr.ip()));
        assert_eq!(data, expected);
    }
}

#[tokio::test]
async fn a_socket_opened_beside_the_own_carries_a_connection_and_is_closed_when_it_is_let_go() {
    let [client, server] = pair();
    let extra = client.socket.open_extra(3);
    assert_eq!((extra.len(), client.socket.extra_sockets()), (3, 3));
    let port = client.socket.extra.get(extra[1]).unwrap().addr.port();
    let way = Way::Direct {
        socket: extra[1],
        remote: server.addr,
    };
    client.set_route(Some(way), None, false, 1444);
    server.go_direct(([127, 0, 0, 1], port).into(), 1444);
    let (one, two) = connect(&client, &server).await;
    transfer(&one, &two).await;
    transfer(&two, &one).await;
    // Whoever can send does not keep what is closed.
    client.socket.close_extra(&extra);
    assert_eq!(client.socket.extra_sockets(), 0);
    tokio::time::timeout(DEADLINE, async {
        while std::net::UdpSocket::bind(("0.0.0.0", port)).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let dropped = client.socket.counters.no_route.get();
    client.socket.send_control(way, &[0x81; 60]);
    assert_eq!(client.socket.counters.no_route.get(), dropped + 1);
}

#[tokio::test]
async fn what_is_sent_from_a_socket_as_soon_as_it_is_open_leaves() {
    let [client, mut server] = pair();
    let probe = [0x81; 120];
    // The runtime gets no turn between: it has not seen them writable yet.
    for id in client.socket.open_extra(8) {
        let way = Way::Direct {
            socket: id,
            remote: server.addr,
        };
        client.socket.send_control(way, &probe);
    }
    for _ in 0..8 {
        let came = tokio::time::timeout(DEADLINE, server.driver.recv()).await;
        let Ok(Some(ToDriver::Datagram { data, .. })) = came else {
            panic!("{came:?}");
        };
        assert_eq!(data[..], probe);
    }
    assert_eq!(client.socket.counters.send_blocked.get(), 0);
}

#[tokio::test]
async fn one_that_the_system_ends_is_closed_and_told_of_once() {
    let [client, server] = pair();
    let extra = client.socket.open_extra(3);
    let ended = async || tokio::time::timeout(DEADLINE, client.socket.extra_ended()).await;
    let reset = io::Error::from(io::ErrorKind::ConnectionAborted);
    assert!(client.socket.extra.get(extra[0]).unwrap().ends_by(&reset));
    // Whoever sends and whoever receives may both meet it.
    client.socket.take_out(extra[0]);
    client.socket.take_out(extra[0]);
    assert_eq!(ended().await.unwrap(), [extra[0]]);
    assert_eq!(client.socket.extra_sockets(), 2);
    let way = Way::Direct {
        socket: extra[0],
        remote: server.addr,
    };
    client.socket.send_control(way, &[0x81; 60]);
    assert_eq!(client.socket.counters.no_route.get(), 1);
    // What the node lets go is no news to it.
    client.socket.close_extra(&extra[1..2]);
    client.socket.take_out(extra[1]);
    client.socket.take_out(extra[2]);
    assert_eq!(ended().await.unwrap(), [extra[2]]);
}

#[tokio::test]
async fn numbers_of_such_sockets_meet_neither_the_own_ones_nor_earlier_ones() {
    let [client, _server] = pair();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let ids = client.socket.open_extra(2);
        for id in &ids {
            assert!(id.0 >= 256);
            assert!(seen.insert(*id));
        }
        client.socket.close_extra(&ids);
    }
}
