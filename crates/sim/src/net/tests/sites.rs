//! What stands in front of a site: rows of NATs, given ports, translators, firewalls, proxies.

use std::net::Ipv6Addr;

use super::*;

/// Behind which the translators have IPv4.
const PREFIX: Prefix = Prefix {
    addr: Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0),
    len: 96,
};

/// A public host, and one in a site of this kind.
fn beside(config: SiteConfig, addrs: Vec<IpAddr>) -> Lab {
    let mut net = Network::new(Instant::now(), 1, Trace::new(200));
    let cloud = net.add_site(SiteConfig::default());
    let site = net.add_site(config);
    let open = net.add_host(cloud, vec![ip("198.51.100.1")], &[PORT, 443]);
    let home = net.add_host(site, addrs, &[PORT]);
    Lab { net, open, home }
}

fn two_nats() -> SiteConfig {
    let nat = NatConfig::port_restricted();
    SiteConfig {
        nats: vec![(nat, ip("100.64.1.2")), (nat, ip("203.0.113.1"))],
        ..SiteConfig::default()
    }
}

#[test]
fn two_nats_in_a_row_translate_twice_and_filter_twice() {
    let Lab {
        mut net,
        open,
        home,
    } = beside(two_nats(), vec![ip("10.0.0.2")]);
    net.send(home, PORT, addr(RELAY), Bytes::from_static(b"hello"));
    let external = addr("203.0.113.1:7000");
    let got = run(&mut net, Duration::from_secs(1));
    assert_eq!(datagrams(&got), [(open, external)]);
    assert!(net.lets_in(SiteId(1), PORT, addr(RELAY)));
    assert!(!net.lets_in(SiteId(1), PORT, addr("198.51.100.1:443")));
    net.send(open, PORT, external, Bytes::from_static(b"answer"));
    net.send(open, 443, external, Bytes::from_static(b"stranger"));
    // What is between the two is nobody's address outside.
    net.send(
        open,
        PORT,
        addr("100.64.1.2:7000"),
        Bytes::from_static(b"x"),
    );
    let got = run(&mut net, Duration::from_secs(2));
    assert_eq!(datagrams(&got), [(home, addr(RELAY))]);
    assert_eq!(net.fates().get("filtered"), Some(&1));
    assert_eq!(net.fates().get("unroutable"), Some(&1));
}

#[test]
fn a_port_is_given_by_the_gateway_next_to_the_host_and_behind_a_carriers_nat_leads_from_between() {
    let alone = SiteConfig {
        nats: vec![(NatConfig::symmetric(), ip("203.0.113.1"))],
        gives_ports: true,
        ..SiteConfig::default()
    };
    let mut lab = beside(alone.clone(), vec![ip("10.0.0.2")]);
    let given = lab.net.map_port(lab.home, PORT).unwrap();
    assert_eq!(given, addr("203.0.113.1:7000"));
    lab.net
        .send(lab.open, PORT, given, Bytes::from_static(b"hello"));
    let got = run(&mut lab.net, Duration::from_secs(1));
    assert_eq!(datagrams(&got), [(lab.home, addr(RELAY))]);
    lab.net
        .send(lab.home, PORT, addr(RELAY), Bytes::from_static(b"answer"));
    let got = run(&mut lab.net, Duration::from_secs(2));
    assert_eq!(datagrams(&got), [(lab.open, given)]);
    let silent = SiteConfig {
        gives_ports: false,
        ..alone
    };
    let mut lab = beside(silent, vec![ip("10.0.0.2")]);
    assert_eq!(lab.net.map_port(lab.home, PORT), None);
    let carriers = SiteConfig {
        gives_ports: true,
        ..two_nats()
    };
    let mut lab = beside(carriers, vec![ip("10.0.0.2")]);
    let given = lab.net.map_port(lab.home, PORT);
    assert_eq!(given, Some(addr("100.64.1.2:7000")));
}

#[test]
fn a_translator_takes_ipv6_to_ipv4_and_back_for_datagrams_and_pipes() {
    let prefix = PREFIX;
    let config = SiteConfig {
        nats: vec![(NatConfig::port_restricted(), ip("203.0.113.1"))],
        nat64: Some(prefix),
        v6: V6::Firewall(Duration::from_secs(120)),
        ..SiteConfig::default()
    };
    let mut lab = beside(config, vec![ip("2001:db8::2")]);
    assert_eq!(lab.net.nat64(lab.home), Some(prefix));
    assert_eq!(lab.net.nat64(lab.open), None);
    let behind = addr("[2001:db8:64::198.51.100.1]:7000");
    lab.net
        .send(lab.home, PORT, behind, Bytes::from_static(b"hello"));
    let pipe = lab.net.pipe_connect(lab.home, behind);
    let got = run(&mut lab.net, Duration::from_secs(1));
    let external = addr("203.0.113.1:7000");
    assert_eq!(datagrams(&got), [(lab.open, external)]);
    assert!(got.contains(&(lab.home, Happening::PipeConnected { pipe })));
    let accepted = got.iter().find_map(|(_, what)| match what {
        Happening::PipeAccepted { from, .. } => Some(from.ip()),
        _ => None,
    });
    assert_eq!(accepted, Some(external.ip()));
    lab.net
        .send(lab.open, PORT, external, Bytes::from_static(b"answer"));
    let got = run(&mut lab.net, Duration::from_secs(2));
    assert_eq!(datagrams(&got), [(lab.home, behind)]);
    lab.net
        .send(lab.open, 443, external, Bytes::from_static(b"stranger"));
    assert!(run(&mut lab.net, Duration::from_secs(3)).is_empty());
}

/// A network of IPv6 alone carries 48 bytes beside a payload that IPv4 carries with 28 beyond the translator (RFC 7915).
#[test]
fn what_a_translator_takes_is_a_packet_of_ipv6_on_the_access_link_in_both_directions() {
    let narrow = LinkConfig {
        mtu: 1_420,
        ..LinkConfig::default()
    };
    let config = |nat64| SiteConfig {
        nats: vec![(NatConfig::port_restricted(), ip("203.0.113.1"))],
        nat64,
        up: narrow,
        down: narrow,
        ..SiteConfig::default()
    };
    let external = addr("203.0.113.1:7000");
    for (nat64, own, to, most) in [
        (
            Some(PREFIX),
            "2001:db8::2",
            "[2001:db8:64::198.51.100.1]:7000",
            1_372,
        ),
        (None, "10.0.0.2", RELAY, 1_392),
    ] {
        let mut lab = beside(config(nat64), vec![ip(own)]);
        for (size, fits) in [(most, true), (most + 1, false)] {
            let until = lab.net.now() + Duration::from_secs(1);
            let data = || Bytes::from(vec![0; size]);
            lab.net.send(lab.home, PORT, addr(to), data());
            let came = run(&mut lab.net, until);
            assert_eq!(!datagrams(&came).is_empty(), fits, "out {own} {size}");
            lab.net.send(lab.open, PORT, external, data());
            let came = run(&mut lab.net, until + Duration::from_secs(1));
            assert_eq!(!datagrams(&came).is_empty(), fits, "in {own} {size}");
        }
        assert_eq!(lab.net.fates().get("mtu"), Some(&2));
    }
}

#[test]
fn what_a_firewall_lets_out_is_what_its_kind_says_and_nothing_else() {
    for (exit, udp, tcp) in [
        (Exit::Everything, [true, true], [true, true]),
        (Exit::Port443, [false, true], [false, true]),
        (Exit::Tcp, [false, false], [true, true]),
        (Exit::Tcp443, [false, false], [false, true]),
        (Exit::Proxy, [false, false], [false, false]),
    ] {
        let config = SiteConfig {
            exit,
            ..SiteConfig::default()
        };
        let Lab { mut net, home, .. } = beside(config, vec![ip("203.0.113.1")]);
        let mut out = ([false; 2], [false; 2]);
        for (n, port) in [PORT, 443].into_iter().enumerate() {
            let to = SocketAddr::new(ip("198.51.100.1"), port);
            net.send(home, PORT, to, Bytes::from_static(b"x"));
            let until = net.now() + Duration::from_secs(1);
            out.0[n] = !datagrams(&run(&mut net, until)).is_empty();
            let pipe = net.pipe_connect(home, to);
            let got = run(&mut net, until + Duration::from_secs(1));
            out.1[n] = got.contains(&(home, Happening::PipeConnected { pipe }));
        }
        assert_eq!(out, (udp, tcp), "{exit:?}");
    }
}

#[test]
fn through_a_proxy_a_pipe_takes_a_round_trip_to_it_and_one_for_the_question_more() {
    let connected = |exit| {
        let config = SiteConfig {
            exit,
            ..SiteConfig::default()
        };
        let Lab { mut net, home, .. } = beside(config, vec![ip("203.0.113.1")]);
        let pipe = net.pipe_connect_by_proxy(home, addr(RELAY));
        let done = Step::Host(home, Happening::PipeConnected { pipe });
        loop {
            match net.step(Duration::from_secs(10)) {
                Step::Limit => return None,
                step if step == done => return Some(net.now()),
                _ => {}
            }
        }
    };
    let straight = Duration::from_millis(20);
    let took = connected(Exit::Proxy).unwrap();
    let more = took.checked_sub(straight + 4 * LAN_DELAY);
    // What the two packets take on the wire.
    assert!(more.is_some_and(|more| more < LAN_DELAY / 10), "{took:?}");
    assert_eq!(connected(Exit::Everything), None, "where there is no proxy");
}
