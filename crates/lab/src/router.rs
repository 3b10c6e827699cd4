//! A router's nftables rules, for each kind of access network of the model ([`Access`]).
//!
//! The kernel's own `masquerade` keeps the source port while no other flow holds that port towards the same destination, and
//! conntrack lets in nothing but answers: a port-restricted cone. The other kinds are that and a rule or two:
//!
//! | kind | how |
//! |---|---|
//! | full cone | a new flow from outside to a mapped port is sent on to who holds that port |
//! | address-restricted | the same, from addresses that were called through that port |
//! | random cone | `masquerade random`, and a map remembers the port for the source; later flows are given it by `snat` |
//! | address-dependent | the same, and the map remembers it for source and destination address |
//! | preserving | `masquerade`, and a set remembers ports in use; a flow from one of those is given a random port |
//! | sequential, up or down | `snat` to ports that count |
//! | symmetric | `masquerade random,fully-random` |
//!
//! A chain behind the translation sees each packet of UDP on its way out as the internet will, and writes down what the
//! others look up: so who holds a port is known whatever the kind. What it wrote is refreshed by what goes out, an answer to who
//! was let in too, and by nothing else (RFC 4787, REQ-6): that is how long a full cone keeps a port open to strangers, a filter
//! by address its addresses, and an address-dependent NAT and a random cone their ports. A flow itself, and with it all that the
//! other kinds remember, lasts as long as conntrack's entry for it, which what comes in refreshes as well, as on most routers.
//!
//! With hairpinning (RFC 4787, section 6) what a host inside sends to a mapped port of the router's own address goes to who
//! holds that port, and seems to come from the sender's own mapped port (REQ-9). No filter is applied to it. Without, the
//! router takes it for itself, and has nothing that listens.
//!
//! A trap that makes hole punching fail by the laboratory's own fault: should a stray packet from outside
//! reach the router's own input chain and be accepted there, conntrack confirms an entry for it, and the
//! inside host's later packet towards that address is mapped to *another* port because the tuple is taken.
//! So new flows from outside are dropped in `input` and in `forward`: an unconfirmed entry is forgotten.

use std::net::Ipv4Addr;
use std::time::Duration;

use byway_sim::model::Access;
use byway_sim::net::Exit;
use byway_sim::net::nat::{Dependence, Ports};

/// Ports of a counting router, far from those that programs choose (RFC 6335: 49152 on).
const FIRST_COUNTED: i16 = 20_000;
/// More than the flows of a scenario.
const COUNTED: i16 = 1_000;

/// How one router treats what passes it.
#[derive(Clone, Copy, Debug)]
pub struct Router {
    /// The kind of network it makes.
    pub access: Access,
    /// Its address outside.
    pub public: Ipv4Addr,
    /// Whether hosts inside reach each other by what they are outside.
    pub hairpins: bool,
    /// How long a mapping outlives the last packet through it.
    pub forgets: Duration,
}

impl Router {
    /// What conntrack grants a flow that was answered, and RFC 4787 (REQ-5) as the least.
    pub const FORGETS: Duration = Duration::from_secs(120);

    /// The rules. `wan0` is outside, `lan0` and `lan1` are inside, and nothing is forwarded between those two.
    pub fn rules(self) -> String {
        let Self { public, .. } = self;
        let forgets = self.forgets.as_secs().max(1);
        let nat = self.access.nat();
        let mapping = nat.map(|nat| (nat.mapping, nat.ports));
        let translate = match mapping {
            None | Some((Dependence::Endpoint, Ports::Preserving)) => String::new(),
            Some((Dependence::Endpoint, _)) => remembered(public, "ip saddr . udp sport", "kept"),
            Some((Dependence::Address, _)) => {
                remembered(public, "ip saddr . udp sport . ip daddr", "chosen")
            }
            Some((Dependence::AddressAndPort, Ports::Sequential(delta))) => counted(public, delta),
            Some((Dependence::AddressAndPort, Ports::Random)) => {
                "oifname \"wan0\" masquerade random,fully-random".to_owned()
            }
            Some((Dependence::AddressAndPort, Ports::PreservingOnce | Ports::Preserving)) => {
                "oifname \"wan0\" udp sport @held masquerade random,fully-random".to_owned()
            }
        };
        let let_in = match nat.map(|nat| nat.filtering) {
            Some(Dependence::Endpoint) => {
                "iifname \"wan0\" meta l4proto udp dnat ip to udp dport map @mappings"
            }
            Some(Dependence::Address) => {
                "iifname \"wan0\" meta l4proto udp ip saddr . udp dport @called dnat ip to udp dport map @mappings"
            }
            Some(Dependence::AddressAndPort) | None => "",
        };
        let (back_in, as_from_outside) = if self.hairpins {
            let port = match mapping {
                None | Some((Dependence::Endpoint, _)) => "",
                Some(_) => "fully-random",
            };
            (
                format!(
                    "iifname \"lan*\" ip daddr {public} meta l4proto udp dnat ip to udp dport map @mappings"
                ),
                format!("iifname \"lan*\" oifname \"lan*\" ct status dnat snat to {public} {port}"),
            )
        } else {
            (String::new(), String::new())
        };
        let forward = match self.access.exit() {
            Exit::Everything => "",
            Exit::Tcp => "meta l4proto udp drop",
            Exit::Proxy => "drop",
            Exit::Tcp443 => {
                "iifname \"lan*\" meta l4proto != tcp drop\niifname \"lan*\" tcp dport != 443 drop"
            }
            Exit::Port443 => {
                "iifname \"lan*\" meta l4proto != { tcp, udp } drop\niifname \"lan*\" th dport != 443 drop"
            }
        };
        format!(
            r#"
table ip nat {{
    map mappings {{ type inet_service : ipv4_addr . inet_service; flags dynamic, timeout; timeout {forgets}s; }}
    map chosen {{ type ipv4_addr . inet_service . ipv4_addr : inet_service; flags dynamic, timeout; timeout {forgets}s; }}
    map kept {{ type ipv4_addr . inet_service : inet_service; flags dynamic, timeout; timeout {forgets}s; }}
    set called {{ type ipv4_addr . inet_service; flags dynamic, timeout; timeout {forgets}s; }}
    set held {{ type inet_service; flags dynamic, timeout; timeout {forgets}s; }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {let_in}
        {back_in}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {as_from_outside}
        {translate}
        oifname "wan0" masquerade
    }}
    chain translated {{
        type filter hook postrouting priority srcnat + 1; policy accept;
        oifname != "wan0" accept
        meta l4proto udp update @called {{ ip daddr . udp sport }}
        ct direction reply meta l4proto udp update @mappings {{ udp sport : ct reply ip saddr . ct reply proto-src }}
        ct direction reply accept
        meta l4proto udp update @mappings {{ udp sport : ct original ip saddr . ct original proto-src }}
        meta l4proto udp update @chosen {{ ct original ip saddr . ct original proto-src . ip daddr : udp sport }}
        meta l4proto udp update @kept {{ ct original ip saddr . ct original proto-src : udp sport }}
        meta l4proto udp update @held {{ udp sport }}
    }}
}}
table inet filter {{
    chain input {{
        type filter hook input priority filter; policy accept;
        ct state invalid drop
        iifname "wan0" ct state new drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
        ct status dnat accept
        iifname "wan0" ct state new drop
        iifname "lan*" oifname "lan*" drop
        {forward}
    }}
    chain cut {{
        type filter hook forward priority filter - 1; policy accept;
    }}
}}
"#
        )
    }
}

/// Translates a flow of UDP to the port that this map remembers for it, or to a random one.
fn remembered(public: Ipv4Addr, what: &str, map: &str) -> String {
    format!(
        "oifname \"wan0\" meta l4proto udp snat to {public} : {what} map @{map}\n\
         oifname \"wan0\" meta l4proto udp masquerade random,fully-random"
    )
}

/// Translates each new flow of UDP to the next port, by steps of `delta`. A number is in the host's byte order and a port is
/// not: only a map turns one into the other.
fn counted(public: Ipv4Addr, delta: i16) -> String {
    let ports: Vec<String> = (0..COUNTED)
        .map(|n| format!("{n} : {}", FIRST_COUNTED + n * delta))
        .collect();
    format!(
        "oifname \"wan0\" meta l4proto udp snat to {public} : numgen inc mod {COUNTED} map {{ {} }}",
        ports.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(access: Access) -> String {
        let router = Router {
            access,
            public: Ipv4Addr::new(203, 0, 113, 65),
            hairpins: true,
            forgets: Router::FORGETS,
        };
        router.rules()
    }

    #[test]
    fn every_router_refuses_new_flows_from_outside_twice() {
        for access in Access::ALL {
            let rules = rules(access);
            let refused = rules.matches(r#"iifname "wan0" ct state new drop"#);
            assert_eq!(refused.count(), 2, "{access:?}");
        }
    }

    #[test]
    fn ports_are_counted_up_and_down_by_the_steps_of_the_kind() {
        assert!(rules(Access::Sequential).contains("{ 0 : 20000, 1 : 20001, 2 : 20002,"));
        assert!(rules(Access::SequentialDown).contains("{ 0 : 20000, 1 : 19998, 2 : 19996,"));
        assert!(!rules(Access::Symmetric).contains("numgen"));
    }
}
