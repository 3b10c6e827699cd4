//! The network on its own: datagrams and pipes between hosts that only listen.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "a run needs one instant to start from; nothing depends on which"
)]

mod sites;

use super::nat::NatConfig;
use super::*;

const PORT: u16 = 7000;
const RELAY: &str = "198.51.100.1:7000";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct Lab {
    net: Network,
    open: HostId,
    home: HostId,
}

/// A public host, and one behind the given NAT.
fn lab(nat: NatConfig) -> Lab {
    let mut net = Network::new(Instant::now(), 1, Trace::new(200));
    let place = |name: &str, nats| SiteConfig {
        name: name.to_owned(),
        nats,
        ..SiteConfig::default()
    };
    let cloud = net.add_site(place("cloud", Vec::new()));
    let flat = net.add_site(place("flat", vec![(nat, ip("203.0.113.1"))]));
    let open = net.add_host(cloud, vec![ip("198.51.100.1")], &[PORT]);
    let home = net.add_host(flat, vec![ip("10.0.0.2")], &[PORT]);
    Lab { net, open, home }
}

fn run(net: &mut Network, until: Duration) -> Vec<(HostId, Happening)> {
    let mut out = Vec::new();
    loop {
        match net.step(until) {
            Step::Host(host, what) => out.push((host, what)),
            Step::Limit => return out,
            Step::Script(_) | Step::Inside => {}
        }
    }
}

fn datagrams(happened: &[(HostId, Happening)]) -> Vec<(HostId, SocketAddr)> {
    happened
        .iter()
        .filter_map(|(host, what)| match what {
            Happening::Datagram { from, .. } => Some((*host, *from)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_datagram_crosses_with_the_nats_address_and_its_answer_comes_back() {
    let mut lab = lab(NatConfig::port_restricted());
    let net = &mut lab.net;
    net.send(lab.home, PORT, addr(RELAY), Bytes::from_static(b"hello"));
    let got = run(net, Duration::from_secs(1));
    let external = addr("203.0.113.1:7000");
    assert_eq!(datagrams(&got), [(lab.open, external)]);
    net.send(lab.open, PORT, external, Bytes::from_static(b"answer"));
    let got = run(net, Duration::from_secs(2));
    assert_eq!(datagrams(&got), [(lab.home, addr(RELAY))]);
}

#[test]
fn an_unasked_datagram_does_not_pass_the_nat() {
    let mut lab = lab(NatConfig::port_restricted());
    let to = addr("203.0.113.1:7000");
    lab.net.send(lab.open, PORT, to, Bytes::from_static(b"x"));
    assert!(run(&mut lab.net, Duration::from_secs(1)).is_empty());
    assert_eq!(lab.net.fates().get("no mapping"), Some(&1));
}

#[test]
fn a_hole_swallows_one_direction_and_one_kind_only_and_ends() {
    let mut lab = lab(NatConfig::full_cone());
    let hole = Hole {
        from: Some(SiteId(1)),
        to: Some(SiteId(0)),
        what: Traffic::FirstByte(0x80),
    };
    lab.net.open_hole(hole);
    let send = |lab: &mut Lab, byte: u8| {
        lab.net
            .send(lab.home, PORT, addr(RELAY), Bytes::from(vec![byte]));
        let until = lab.net.now() + Duration::from_secs(1);
        datagrams(&run(&mut lab.net, until)).len()
    };
    assert_eq!(send(&mut lab, 0x80), 0);
    assert_eq!(send(&mut lab, 0x40), 1);
    lab.net.close_hole(hole);
    assert_eq!(send(&mut lab, 0x80), 1);
}

#[test]
fn a_blocked_site_passes_no_udp_but_connects_pipes() {
    let mut lab = lab(NatConfig::full_cone());
    lab.net.sites[1].config.exit = Exit::Tcp;
    lab.net
        .send(lab.home, PORT, addr(RELAY), Bytes::from_static(b"x"));
    let pipe = lab.net.pipe_connect(lab.home, addr(RELAY));
    let got = run(&mut lab.net, Duration::from_secs(1));
    assert!(datagrams(&got).is_empty());
    assert!(got.contains(&(lab.home, Happening::PipeConnected { pipe })));
}

#[test]
fn a_pipe_takes_a_round_trip_to_connect_and_keeps_the_order_under_loss() {
    let mut lab = lab(NatConfig::full_cone());
    let net = &mut lab.net;
    net.links_mut(SiteId(0)).1.loss = 0.3;
    let pipe = net.pipe_connect(lab.home, addr(RELAY));
    let happened = run(net, Duration::from_secs(1));
    assert!(happened.contains(&(lab.home, Happening::PipeConnected { pipe })));
    for i in 0..100u8 {
        net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![i]));
    }
    let got: Vec<u8> = run(net, Duration::from_secs(30))
        .iter()
        .filter_map(|(_, what)| match what {
            Happening::PipeData { data, .. } => Some(data[0]),
            _ => None,
        })
        .collect();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_pipe_to_a_dead_process_is_refused_and_a_death_breaks_it() {
    let mut lab = lab(NatConfig::full_cone());
    let net = &mut lab.net;
    let pipe = net.pipe_connect(lab.home, addr(RELAY));
    run(net, Duration::from_secs(1));
    net.set_alive(lab.open, false);
    let broken = |pipe| (lab.home, Happening::PipeBroken { pipe });
    assert!(run(net, Duration::from_secs(2)).contains(&broken(pipe)));
    let pipe = net.pipe_connect(lab.home, addr(RELAY));
    assert!(run(net, Duration::from_secs(3)).contains(&broken(pipe)));
}

#[test]
fn a_pipe_survives_a_short_hole_and_breaks_in_a_long_one() {
    for (length, survives) in [(5, true), (60, false)] {
        let mut lab = lab(NatConfig::full_cone());
        let net = &mut lab.net;
        let pipe = net.pipe_connect(lab.home, addr(RELAY));
        run(net, Duration::from_secs(1));
        let hole = Hole {
            from: None,
            to: None,
            what: Traffic::All,
        };
        net.open_hole(hole);
        net.pipe_send(pipe, Side::Dialler, Bytes::from_static(b"late"));
        let mut got = run(net, Duration::from_secs(1 + length));
        net.close_hole(hole);
        got.extend(run(net, Duration::from_secs(100)));
        let arrived = got
            .iter()
            .any(|(_, w)| matches!(w, Happening::PipeData { .. }));
        assert_eq!(arrived, survives, "hole of {length} s");
    }
}

/// Two hosts behind one NAT, of which the first calls the second at its external address.
fn call_from_behind_the_same_nat(hairpin: bool) -> (Lab, HostId, Vec<(HostId, Happening)>) {
    let mut nat = NatConfig::full_cone();
    nat.hairpin = hairpin;
    let mut lab = lab(nat);
    let net = &mut lab.net;
    let other = net.add_host(SiteId(1), vec![ip("10.0.0.3")], &[8000]);
    // Its mapping, drawn by a datagram to anyone.
    net.send(other, 8000, addr(RELAY), Bytes::from_static(b"hello"));
    run(net, Duration::from_secs(1));
    let external = addr("203.0.113.1:8000");
    net.send(lab.home, PORT, external, Bytes::from_static(b"neighbour"));
    let got = run(&mut lab.net, Duration::from_secs(2));
    (lab, other, got)
}

#[test]
fn a_nat_that_hairpins_connects_its_own_hosts_by_their_external_addresses() {
    let (_, other, got) = call_from_behind_the_same_nat(true);
    assert_eq!(datagrams(&got), [(other, addr("203.0.113.1:7000"))]);
}

#[test]
fn a_nat_that_does_not_hairpin_drops_what_comes_back_to_itself() {
    let (lab, _, got) = call_from_behind_the_same_nat(false);
    assert!(datagrams(&got).is_empty());
    assert_eq!(lab.net.fates().get("no hairpin"), Some(&1));
}

#[test]
fn a_datagram_with_a_false_source_arrives_with_it_and_is_counted_for_its_real_one() {
    let mut lab = lab(NatConfig::full_cone());
    let net = &mut lab.net;
    let cafe = net.add_site(SiteConfig {
        name: "cafe".to_owned(),
        ..SiteConfig::default()
    });
    let attacker = net.add_host(cafe, vec![ip("192.0.2.66")], &[PORT]);
    net.tap(cafe);
    let forged = addr("203.0.113.1:7000");
    net.send_spoofed(attacker, forged, addr(RELAY), Bytes::from_static(b"x"));
    assert_eq!(
        datagrams(&run(net, Duration::from_secs(1))),
        [(lab.open, forged)]
    );
    assert_eq!(net.delivered(cafe, lab.open), 1);
    assert!(net.tapped().is_empty(), "one's own is no news");
    net.send(lab.home, PORT, addr(RELAY), Bytes::from_static(b"y"));
    run(net, Duration::from_secs(2));
    assert_eq!(net.delivered(cafe, lab.open), 1);
    let heard = (forged, addr(RELAY), Bytes::from_static(b"y"));
    assert_eq!(net.tapped(), [&heard]);
}

#[test]
fn a_nat_that_restarts_breaks_a_pipe_on_each_side_when_that_side_speaks() {
    let mut lab = lab(NatConfig::full_cone());
    let net = &mut lab.net;
    let pipe = net.pipe_connect(lab.home, addr(RELAY));
    run(net, Duration::from_secs(1));
    net.rebind_nat(SiteId(1));
    assert!(run(net, Duration::from_secs(60)).is_empty(), "nobody spoke");
    net.pipe_send(pipe, Side::Dialler, Bytes::from_static(b"hello?"));
    let broken = |host| (host, Happening::PipeBroken { pipe });
    assert_eq!(run(net, Duration::from_secs(61)), [broken(lab.home)]);
    net.pipe_send(pipe, Side::Acceptor, Bytes::from_static(b"anyone?"));
    assert!(
        run(net, Duration::from_secs(80)).is_empty(),
        "it is still being tried"
    );
    assert_eq!(run(net, Duration::from_secs(90)), [broken(lab.open)]);
}

#[test]
fn what_waits_in_front_of_a_slow_downlink_is_bounded_by_the_window() {
    let mut lab = lab(NatConfig::full_cone());
    let net = &mut lab.net;
    net.links_mut(SiteId(0)).1.rate = Some(1_000_000);
    let pipe = net.pipe_connect(lab.home, addr(RELAY));
    run(net, Duration::from_secs(1));
    let mut sent = Vec::new();
    let mut longest = Duration::ZERO;
    let mut arrived = 0;
    while arrived < 500 {
        while sent.len() < 500 && net.pipe_room(pipe, Side::Dialler) {
            sent.push(net.now());
            net.pipe_send(pipe, Side::Dialler, Bytes::from(vec![0; 10_000]));
        }
        match net.step(Duration::from_secs(60)) {
            Step::Host(_, Happening::PipeData { .. }) => {
                longest = longest.max(net.now() - sent[arrived]);
                arrived += 1;
            }
            Step::Limit => panic!("{arrived} of 500 arrived"),
            _ => {}
        }
    }
    let most = (pipe::WINDOW + pipe::NOT_SENT + 2 * 10_000) as u32;
    assert!(
        longest <= Duration::from_micros(1) * most + Duration::from_millis(30),
        "{longest:?}"
    );
    assert!(
        longest > Duration::from_millis(100),
        "it is used: {longest:?}"
    );
    assert!(net.now() < Duration::from_secs(7), "at the full rate");
}

#[test]
fn only_the_last_wake_up_asked_for_comes() {
    let mut lab = lab(NatConfig::full_cone());
    let ms = Duration::from_millis;
    lab.net.wake_at(lab.open, Some(ms(10)));
    lab.net.wake_at(lab.open, Some(ms(5)));
    lab.net.wake_at(lab.open, Some(ms(20)));
    assert_eq!(
        lab.net.step(ms(50)),
        Step::Inside,
        "the one at 5 ms was replaced"
    );
    let got = run(&mut lab.net, ms(50));
    assert_eq!(got, [(lab.open, Happening::Wake)]);
}

#[test]
fn the_trace_tells_apart_who_sent_what_to_whom_and_who_woke() {
    let trace = |act: &dyn Fn(&mut Lab)| {
        let mut lab = lab(NatConfig::full_cone());
        act(&mut lab);
        run(&mut lab.net, Duration::from_secs(1));
        lab.net.trace.hash()
    };
    let send = |port: u16, to: &'static str| {
        trace(&move |lab| {
            lab.net
                .send(lab.home, port, addr(to), Bytes::from_static(b"x"));
        })
    };
    assert_eq!(send(PORT, RELAY), send(PORT, RELAY));
    assert_ne!(send(PORT, RELAY), send(7001, RELAY), "another source");
    let elsewhere = "198.51.100.1:7001";
    assert_ne!(send(PORT, RELAY), send(PORT, elsewhere), "another port");
    let at = Some(Duration::from_millis(5));
    let home = trace(&|lab| lab.net.wake_at(lab.home, at));
    let open = trace(&|lab| lab.net.wake_at(lab.open, at));
    assert_ne!(home, open, "another host woke");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let trace = |seed| {
        let mut net = Network::new(Instant::now(), seed, Trace::new(0));
        let lossy = LinkConfig {
            loss: 0.2,
            jitter: Duration::from_millis(3),
            reorder: 0.1,
            duplicate: 0.1,
            ..LinkConfig::default()
        };
        let mut hosts = Vec::new();
        for i in 1..3u8 {
            let site = net.add_site(SiteConfig {
                up: lossy,
                down: lossy,
                ..SiteConfig::default()
            });
            hosts.push(net.add_host(site, vec![IpAddr::from([192, 0, 2, i])], &[PORT]));
        }
        for i in 0..100u8 {
            net.send(hosts[0], PORT, addr("192.0.2.2:7000"), Bytes::from(vec![i]));
        }
        run(&mut net, Duration::from_secs(1));
        net.trace.hash()
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}
