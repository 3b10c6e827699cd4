//! The rules as a table, then as properties.

use proptest::prelude::*;

use super::*;
use Mapping::{
    AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown as NoMapping,
};
use PortPattern::{Preserving, Random, Sequential, Unknown as NoPattern};

const LOCAL_PORT: u16 = 40_000;

/// Answers as "server -> mapped" in the order of asking; a server's voter is the last digit of its IP address.
fn observe(answers: &[(&str, &str)]) -> Vec<Observation> {
    (0..)
        .zip(answers)
        .map(|(order, (server, mapped))| {
            let server: SocketAddr = server.parse().unwrap();
            Observation {
                server,
                voter: match server.ip() {
                    IpAddr::V4(ip) => u32::from(ip.octets()[3]),
                    IpAddr::V6(ip) => u32::from(ip.octets()[15]),
                },
                order,
                mapped: mapped.parse().unwrap(),
            }
        })
        .collect()
}

fn find(answers: &[(&str, &str)]) -> Finding {
    find_from(answers, &["192.168.1.5"])
}

fn find_from(answers: &[(&str, &str)], own: &[&str]) -> Finding {
    let addrs: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
    infer(
        &observe(answers),
        Local {
            port: LOCAL_PORT,
            addrs: &addrs,
        },
    )
}

const A: &str = "198.51.100.1:3478";
const A2: &str = "198.51.100.1:3479";
const B: &str = "198.51.100.2:3478";
const B2: &str = "198.51.100.2:3479";
const C: &str = "198.51.100.3:3478";
const C2: &str = "198.51.100.3:3479";
const D: &str = "198.51.100.4:3478";
const E: &str = "198.51.100.5:3478";

#[test]
fn the_table_of_rules() {
    type Row<'a> = (
        &'a str,
        &'a [(&'a str, &'a str)],
        Mapping,
        Option<&'a str>,
        PortPattern,
    );
    let rows: &[Row<'_>] = &[
        ("nobody answered", &[], NoMapping, None, NoPattern),
        (
            "one server alone leaves the mapping unknown",
            &[(A, "203.0.113.9:1111")],
            NoMapping,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "one server that sees the local port shows a preserved one",
            &[(A, "203.0.113.9:40000")],
            NoMapping,
            Some("203.0.113.9:40000"),
            Preserving,
        ),
        (
            "two ports of one server that agree prove nothing of other addresses",
            &[(A, "203.0.113.9:1111"), (A2, "203.0.113.9:1111")],
            NoMapping,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "two ports of one server that differ prove port dependence",
            &[(A, "203.0.113.9:1111"), (A2, "203.0.113.9:1112")],
            AddressAndPortDependent,
            Some("203.0.113.9:1112"),
            Sequential { delta: 1 },
        ),
        (
            "two servers that agree",
            &[(A, "203.0.113.9:1111"), (B, "203.0.113.9:1111")],
            EndpointIndependent,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "two servers that agree on the local port",
            &[(A, "203.0.113.9:40000"), (B, "203.0.113.9:40000")],
            EndpointIndependent,
            Some("203.0.113.9:40000"),
            Preserving,
        ),
        (
            "two servers that see two ports of one address",
            &[(A, "203.0.113.9:1111"), (B, "203.0.113.9:1113")],
            AddressDependent,
            Some("203.0.113.9:1113"),
            Sequential { delta: 2 },
        ),
        (
            "two servers that see two addresses: one may lie, or a NAT has a pool",
            &[(A, "203.0.113.9:1111"), (B, "203.0.113.77:1111")],
            NoMapping,
            None,
            NoPattern,
        ),
        (
            "three servers, one names another address",
            &[
                (A, "203.0.113.9:1111"),
                (B, "8.8.8.8:53"),
                (C, "203.0.113.9:1111"),
            ],
            EndpointIndependent,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "three servers, one names another port",
            &[
                (A, "203.0.113.9:1111"),
                (B, "203.0.113.9:1111"),
                (C, "203.0.113.9:2222"),
            ],
            EndpointIndependent,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "three servers that see three ports",
            &[
                (A, "203.0.113.9:1111"),
                (B, "203.0.113.9:52222"),
                (C, "203.0.113.9:23333"),
            ],
            AddressDependent,
            Some("203.0.113.9:23333"),
            Random,
        ),
        (
            "three servers that see three ports, and a fourth that names another address",
            &[
                (A, "203.0.113.9:1111"),
                (B, "9.9.9.9:9"),
                (C, "203.0.113.9:52222"),
                (D, "203.0.113.9:23333"),
            ],
            AddressDependent,
            Some("203.0.113.9:23333"),
            Random,
        ),
        (
            "two of four that agree are no majority: at most one lies, so the mapping is not independent",
            &[
                (A, "203.0.113.9:1111"),
                (B, "203.0.113.9:1111"),
                (C, "203.0.113.9:52222"),
                (D, "203.0.113.9:23333"),
            ],
            AddressDependent,
            Some("203.0.113.9:23333"),
            Random,
        ),
        (
            "address dependence without port dependence",
            &[
                (A, "203.0.113.9:1111"),
                (A2, "203.0.113.9:1111"),
                (B, "203.0.113.9:52222"),
                (B2, "203.0.113.9:52222"),
            ],
            AddressDependent,
            Some("203.0.113.9:52222"),
            Random,
        ),
        (
            "address and port dependence",
            &[
                (A, "203.0.113.9:1111"),
                (A2, "203.0.113.9:11119"),
                (B, "203.0.113.9:52222"),
                (C, "203.0.113.9:23333"),
            ],
            AddressAndPortDependent,
            Some("203.0.113.9:23333"),
            Random,
        ),
        (
            "one of three servers lies about its second port",
            &[
                (A, "203.0.113.9:1111"),
                (A2, "203.0.113.9:1112"),
                (B, "203.0.113.9:1111"),
                (C, "203.0.113.9:1111"),
            ],
            EndpointIndependent,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "one server shows port dependence and another denies it: at least address-dependent",
            &[
                (A, "203.0.113.9:1111"),
                (A2, "203.0.113.9:11119"),
                (B, "203.0.113.9:52222"),
                (B2, "203.0.113.9:52222"),
            ],
            AddressDependent,
            Some("203.0.113.9:52222"),
            Random,
        ),
        (
            "the same port for two addresses and another for each port is no behaviour we know",
            &[
                (A, "203.0.113.9:1111"),
                (B, "203.0.113.9:1111"),
                (A2, "203.0.113.9:2222"),
                (B2, "203.0.113.9:2222"),
            ],
            NoMapping,
            None,
            NoPattern,
        ),
        (
            "a pool of addresses that most servers see one of",
            &[
                (A, "203.0.113.9:1111"),
                (B, "203.0.113.10:52222"),
                (C, "203.0.113.9:23333"),
            ],
            AddressDependent,
            Some("203.0.113.9:23333"),
            Random,
        ),
        (
            "a server inside our network sees what is behind the NAT and is not weighed",
            &[
                ("192.168.1.1:3478", "192.168.1.5:40000"),
                (A, "203.0.113.9:1111"),
            ],
            NoMapping,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "two servers inside our network do not outvote one outside",
            &[
                ("192.168.1.1:3478", "192.168.1.5:40000"),
                ("192.168.1.2:3478", "192.168.1.5:40000"),
                (A, "203.0.113.9:1111"),
            ],
            NoMapping,
            Some("203.0.113.9:1111"),
            NoPattern,
        ),
        (
            "servers inside our network are all there is",
            &[
                ("10.0.0.1:3478", "10.9.9.9:1111"),
                ("10.0.0.2:3478", "10.9.9.9:1111"),
            ],
            EndpointIndependent,
            Some("10.9.9.9:1111"),
            NoPattern,
        ),
        (
            "IPv6 without translation",
            &[
                ("[2001:db8::1]:3478", "[2001:db8:9::5]:40000"),
                ("[2001:db8::2]:3478", "[2001:db8:9::5]:40000"),
            ],
            EndpointIndependent,
            Some("[2001:db8:9::5]:40000"),
            Preserving,
        ),
    ];
    for (what, answers, mapping, reflexive, ports) in rows {
        let finding = find(answers);
        assert_eq!(finding.mapping, *mapping, "{what}");
        if !what.starts_with("the same port for two") {
            let reflexive = reflexive.map(|addr| addr.parse().unwrap());
            assert_eq!(finding.reflexive, reflexive, "{what}");
        }
        assert_eq!(finding.ports, *ports, "{what}");
    }
}

#[test]
fn a_public_host_breaks_a_tie_by_knowing_its_own_address() {
    let own = ["203.0.113.9"];
    let finding = find_from(&[(A, "203.0.113.9:40000"), (B, "8.8.8.8:40000")], &own);
    assert_eq!(
        finding.reflexive,
        Some("203.0.113.9:40000".parse().unwrap())
    );
    assert_eq!(finding.mapping, NoMapping, "one voter alone");
    let finding = find_from(&[(A, "203.0.113.9:40000"), (B, "203.0.113.9:1")], &own);
    assert_eq!(finding.mapping, EndpointIndependent);
    assert_eq!(
        finding.reflexive,
        Some("203.0.113.9:40000".parse().unwrap())
    );
}

#[test]
fn ports_follow_the_order_of_asking_not_of_answering() {
    let mut observations = observe(&[
        (A, "203.0.113.9:1000"),
        (B, "203.0.113.9:1003"),
        (C, "203.0.113.9:1004"),
    ]);
    observations.rotate_left(1);
    let local = Local {
        port: LOCAL_PORT,
        addrs: &[],
    };
    let finding = infer(&observations, local);
    assert_eq!(finding.ports, Sequential { delta: 1 });
    assert_eq!(finding.reflexive, Some("203.0.113.9:1004".parse().unwrap()));
}

#[test]
fn port_patterns() {
    let cases: &[(&str, &[u16], PortPattern)] = &[
        ("downwards", &[5010, 5008, 5006], Sequential { delta: -2 }),
        (
            "with other hosts' mappings in between",
            &[5000, 5002, 5003, 5010],
            Sequential { delta: 1 },
        ),
        (
            "one breaks the sequence, four remain",
            &[5000, 5001, 999, 5003, 5004],
            Sequential { delta: 1 },
        ),
        (
            "one breaks the sequence, two remain",
            &[5000, 999, 5002],
            NoPattern,
        ),
        ("steps too large", &[5000, 5100, 5200], Random),
        ("two far apart", &[5000, 43_210], Random),
        ("up and down", &[5000, 5004, 5001, 5008, 5002], Random),
    ];
    for (what, ports, expected) in cases {
        let answers: Vec<(String, String)> = (1..)
            .zip(*ports)
            .map(|(i, port)| {
                (
                    format!("198.51.100.{i}:3478"),
                    format!("203.0.113.9:{port}"),
                )
            })
            .collect();
        let answers: Vec<(&str, &str)> = answers
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(find(&answers).ports, *expected, "{what}");
    }
}

#[test]
fn evidence_tells_when_more_answers_cannot_change_the_finding() {
    let x = "203.0.113.9:1111";
    assert_eq!(find(&[(A, x)]).evidence, Evidence::Weak);
    assert_eq!(find(&[(A, x), (B, x)]).evidence, Evidence::Conclusive);
    assert_eq!(
        find(&[(A, x), (B, "203.0.113.9:2")]).evidence,
        Evidence::Weak
    );
    assert_eq!(find(&[(A, x), (B, "8.8.8.8:2")]).evidence, Evidence::Weak);
    let three = [(A, x), (B, "203.0.113.9:2"), (C, "203.0.113.9:3000")];
    assert_eq!(find(&three).evidence, Evidence::AllButPorts);
}

#[test]
fn believed_names_whom_the_finding_rests_on() {
    let x = "203.0.113.9:1111";
    let finding = find(&[(A, x), (B, "8.8.8.8:1"), (C, x), (D, "203.0.113.9:5")]);
    assert_eq!(finding.believed, BTreeSet::from([0, 2]));
    let finding = find(&[(A, x), ("10.0.0.1:3478", "10.0.0.2:1")]);
    assert_eq!(finding.believed, BTreeSet::from([0]));
    assert_eq!(finding.set_aside, BTreeSet::from([1]));
}

#[test]
fn several_ports_of_one_server_are_one_voice() {
    let lie = "203.0.113.9:666";
    let x = "203.0.113.9:1111";
    let finding = find(&[(A, lie), (A2, lie), (B, x), (C, x)]);
    assert_eq!(finding.reflexive, Some(x.parse().unwrap()));
    let finding = find(&[
        (A, "8.8.8.8:1"),
        (A2, "8.8.8.8:1"),
        (B, x),
        (B2, x),
        (C, x),
        (C2, x),
        (E, x),
    ]);
    assert_eq!(finding.mapping, EndpointIndependent);
}

/// What a NAT shows to servers 1 to n.
fn honest(ports: &[u16]) -> Vec<Observation> {
    (0..)
        .zip(ports)
        .map(|(i, port)| Observation {
            server: SocketAddr::from(([198, 51, 100, i as u8 + 1], 3478)),
            voter: i,
            order: i,
            mapped: SocketAddr::from(([203, 0, 113, 9], *port)),
        })
        .collect()
}

const BEHIND: Local<'_> = Local {
    port: LOCAL_PORT,
    addrs: &[],
};

fn any_mapped() -> impl Strategy<Value = SocketAddr> {
    // Half of the lies name our true IP address.
    (any::<[u8; 4]>(), any::<bool>(), 1u16..).prop_map(|(ip, same, port)| {
        SocketAddr::from((if same { [203, 0, 113, 9] } else { ip }, port))
    })
}

proptest! {
    #[test]
    fn one_liar_among_three_or_more_changes_nothing_for_an_independent_mapping(
        n in 3usize..12, liar in 0usize..12, lie in any_mapped(), port in 1u16..,
    ) {
        let mut observations = honest(&vec![port; n]);
        let truth = infer(&observations, BEHIND);
        observations[liar % n].mapped = lie;
        let finding = infer(&observations, BEHIND);
        prop_assert_eq!(finding.mapping, EndpointIndependent);
        prop_assert_eq!(finding.reflexive, truth.reflexive);
        prop_assert_eq!(finding.ports, truth.ports);
        prop_assert_eq!(finding.evidence, Evidence::Conclusive);
    }

    #[test]
    fn one_liar_among_four_or_more_does_not_hide_a_dependent_mapping(
        n in 4usize..12, liar in 0usize..12, lie in any_mapped(), ports in proptest::collection::btree_set(1u16.., 12),
    ) {
        let ports: Vec<u16> = ports.into_iter().take(n).collect();
        let mut observations = honest(&ports);
        observations[liar % n].mapped = lie;
        let finding = infer(&observations, BEHIND);
        prop_assert_eq!(finding.mapping, AddressDependent);
        let reflexive = finding.reflexive.unwrap();
        prop_assert_eq!(reflexive.ip(), IpAddr::from([203, 0, 113, 9]));
    }

    #[test]
    fn the_order_of_answers_does_not_matter(
        answers in proptest::collection::vec((1u8..6, 1u16..4, any_mapped()), 0..16),
    ) {
        let mut observations: Vec<Observation> = (0..)
            .zip(&answers)
            .map(|(order, (ip, port, mapped))| Observation {
                server: SocketAddr::from(([198, 51, 100, *ip], *port)),
                voter: u32::from(*ip),
                order,
                mapped: *mapped,
            })
            .collect();
        // One answer for each address asked.
        let mut asked = BTreeSet::new();
        observations.retain(|o| asked.insert(o.server));
        let forwards = infer(&observations, BEHIND);
        observations.reverse();
        let backwards = infer(&observations, BEHIND);
        prop_assert_eq!(forwards.mapping, backwards.mapping);
        prop_assert_eq!(forwards.reflexive, backwards.reflexive);
        prop_assert_eq!(forwards.ports, backwards.ports);
        prop_assert_eq!(forwards.port_dependent, backwards.port_dependent);
        prop_assert_eq!(forwards.evidence, backwards.evidence);
        prop_assert_eq!(forwards.believed.len(), backwards.believed.len());
    }
}
