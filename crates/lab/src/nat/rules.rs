//! A router's nftables rules.
//!
//! The kernel's own `masquerade` keeps the source port while no other flow holds that port towards the same destination, and
//! conntrack lets in nothing but answers: a port-restricted cone. The other kinds are that and a rule or two:
//!
//! | kind | how |
//! |---|---|
//! | full cone | a new flow from outside to a mapped port is sent on to who holds that port |
//! | address-restricted | the same, from addresses that were called through that port |
//! | address-dependent | `masquerade random`, and a map remembers the port for source and destination address; later flows are given it by `snat` |
//! | preserving | `masquerade`, and a set remembers ports in use; a flow from one of those is given a random port |
//! | sequential | `snat` to ports that count up |
//! | symmetric | `masquerade random,fully-random` |
//!
//! A chain behind the translation sees each packet of UDP on its way out as the internet will, and writes down what the
//! others look up: so who holds a port is known whatever the kind. What it wrote is refreshed by what goes out, an answer to who
//! was let in too, and by nothing else (RFC 4787, REQ-6): that is how long a full cone keeps a port open to strangers, a filter
//! by address its addresses and an address-dependent one its ports. A flow itself, and with it all that the other kinds remember,
//! lasts as long as conntrack's entry for it, which what comes in refreshes as well, as on most routers.
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

use super::NatKind;

/// Ports of a counting router, far from those that programs choose (RFC 6335: 49152 on).
const FIRST_COUNTED: u16 = 20_000;
/// More than the flows of a scenario.
const COUNTED: u16 = 1_000;

/// How one router treats what passes it.
#[derive(Clone, Copy, Debug)]
pub struct Router {
    /// What it is.
    pub kind: NatKind,
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
        let translate = match self.kind {
            NatKind::AddressDependent => format!(
                "oifname \"wan0\" meta l4proto udp snat to {public} : ip saddr . udp sport . ip daddr map @chosen\n\
                 oifname \"wan0\" meta l4proto udp masquerade random,fully-random"
            ),
            NatKind::Preserving => {
                "oifname \"wan0\" udp sport @held masquerade random,fully-random".to_owned()
            }
            NatKind::Sequential => counted(public),
            NatKind::Symmetric => "oifname \"wan0\" masquerade random,fully-random".to_owned(),
            _ => String::new(),
        };
        let let_in = match self.kind {
            NatKind::FullCone => {
                "iifname \"wan0\" meta l4proto udp dnat ip to udp dport map @mappings"
            }
            NatKind::AddressRestricted => {
                "iifname \"wan0\" meta l4proto udp ip saddr . udp dport @called dnat ip to udp dport map @mappings"
            }
            _ => "",
        };
        let (back_in, as_from_outside) = if self.hairpins {
            let port = if self.kind.is_where_it_says() {
                ""
            } else {
                "fully-random"
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
        let forward = match self.kind {
            NatKind::UdpBlocked => "meta l4proto udp drop",
            NatKind::ProxyOnly => "drop",
            NatKind::Only443 => {
                "iifname \"lan*\" meta l4proto != tcp drop\niifname \"lan*\" tcp dport != 443 drop"
            }
            NatKind::Only443WithQuic => {
                "iifname \"lan*\" meta l4proto != { tcp, udp } drop\niifname \"lan*\" th dport != 443 drop"
            }
            _ => "",
        };
        format!(
            r#"
table ip nat {{
    map mappings {{ type inet_service : ipv4_addr . inet_service; flags dynamic, timeout; timeout {forgets}s; }}
    map chosen {{ type ipv4_addr . inet_service . ipv4_addr : inet_service; flags dynamic, timeout; timeout {forgets}s; }}
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

/// Translates each new flow of UDP to the next port. A number is in the host's byte order and a port is not: only a map turns
/// one into the other.
fn counted(public: Ipv4Addr) -> String {
    let ports: Vec<String> = (0..COUNTED)
        .map(|n| format!("{n} : {}", FIRST_COUNTED + n))
        .collect();
    format!(
        "oifname \"wan0\" meta l4proto udp snat to {public} : numgen inc mod {COUNTED} map {{ {} }}",
        ports.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_router_refuses_new_flows_from_outside_twice() {
        for kind in NatKind::ALL {
            let router = Router {
                kind,
                public: Ipv4Addr::new(203, 0, 113, 65),
                hairpins: true,
                forgets: Router::FORGETS,
            };
            assert_eq!(
                router
                    .rules()
                    .matches(r#"iifname "wan0" ct state new drop"#)
                    .count(),
                2,
                "{kind}"
            );
        }
    }
}
