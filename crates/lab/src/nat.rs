//! The kinds of NAT a site's router can be, as nftables rules.
//!
//! In the terms of RFC 4787:
//!
//! | kind | mapping | filtering | how |
//! |---|---|---|---|
//! | open | none | none | no router: the host has a public address |
//! | full cone | endpoint-independent | endpoint-independent | port-restricted, and every new UDP flow from outside is sent on to the host |
//! | address-restricted | endpoint-independent | address-dependent | the same from addresses that the host called in the last two minutes |
//! | port-restricted | endpoint-independent | address and port-dependent | `masquerade`, which keeps the source port while no other flow holds it, and conntrack |
//! | carrier-grade | as port-restricted | as port-restricted | a second such router between the first one and the internet |
//! | sequential | address and port-dependent, the next port each time | address and port-dependent | `snat` to ports that count up |
//! | symmetric | address and port-dependent, random ports | address and port-dependent | `masquerade random,fully-random` |
//! | UDP blocked | - | all UDP dropped | TCP as port-restricted |
//! | proxy only | - | all dropped | nothing is forwarded; a proxy on the router is the way out |
//!
//! There is one host behind a router, so "every flow from outside" has one place to go.
//!
//! A trap that makes hole punching fail by the laboratory's own fault: should a stray packet from outside
//! reach the router's own input chain and be accepted there, conntrack confirms an entry for it, and the
//! inside host's later packet towards that address is mapped to *another* port because the tuple is taken.
//! So new flows from outside are dropped in `input` and in `forward`: an unconfirmed entry is forgotten.

use std::fmt;
use std::net::Ipv4Addr;

/// What stands between a site's host and the public segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// Nothing: the host has a public address.
    Open,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address and port-dependent filtering.
    PortRestricted,
    /// A port-restricted router behind another one.
    CarrierGrade,
    /// The next port for every destination, address and port-dependent filtering.
    Sequential,
    /// A fresh random port for every destination, address and port-dependent filtering.
    Symmetric,
    /// No UDP at all; TCP is translated.
    UdpBlocked,
    /// Nothing at all but through a proxy on the router.
    ProxyOnly,
    /// No IPv4 on the host: the router translates (NAT64), and is as port-restricted as ever.
    Ipv6Only,
}

/// Ports of a counting router, far from those that programs choose (RFC 6335: 49152 on).
const FIRST_COUNTED: u16 = 20_000;
/// More than the flows of a scenario.
const COUNTED: u16 = 1_000;

impl NatKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::CarrierGrade,
        Self::Sequential,
        Self::Symmetric,
        Self::UdpBlocked,
        Self::ProxyOnly,
        Self::Ipv6Only,
    ];

    /// How many routers stand in a row.
    pub fn routers(self) -> usize {
        match self {
            Self::Open => 0,
            Self::CarrierGrade => 2,
            _ => 1,
        }
    }

    /// True if the host is found where STUN says it is, whoever looks.
    pub fn is_where_it_says(self) -> bool {
        !matches!(self, Self::Sequential | Self::Symmetric) && !self.is_tls_only()
    }

    /// True if no UDP gets out.
    pub fn is_tls_only(self) -> bool {
        matches!(self, Self::UdpBlocked | Self::ProxyOnly)
    }

    /// True if whoever was called is heard from every port of its address.
    pub fn hears_any_port(self) -> bool {
        matches!(self, Self::Open | Self::FullCone | Self::AddressRestricted)
    }

    /// The rules of each of its routers. `lan0` is inside, `wan0` outside; `public` is the address of the one, `host` what
    /// is behind the other.
    pub fn rules(self, public: Ipv4Addr, host: Ipv4Addr) -> String {
        let translate = match self {
            Self::Sequential => counted(public),
            Self::Symmetric => "oifname \"wan0\" masquerade random,fully-random".to_owned(),
            _ => String::new(),
        };
        let let_in = match self {
            Self::FullCone => format!("iifname \"wan0\" meta l4proto udp dnat to {host}"),
            Self::AddressRestricted => {
                format!("iifname \"wan0\" meta l4proto udp ip saddr @called dnat to {host}")
            }
            _ => String::new(),
        };
        let forward = match self {
            Self::UdpBlocked => "meta l4proto udp drop",
            Self::ProxyOnly => "drop",
            _ => "",
        };
        format!(
            r#"
table ip nat {{
    set called {{ type ipv4_addr; flags dynamic, timeout; timeout 2m; }}
    chain call {{
        type filter hook forward priority filter - 2; policy accept;
        oifname "wan0" meta l4proto udp update @called {{ ip daddr }}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {let_in}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {translate}
        oifname "wan0" masquerade
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

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::FullCone => "full_cone",
            Self::AddressRestricted => "address_restricted",
            Self::PortRestricted => "restricted",
            Self::CarrierGrade => "carrier_grade",
            Self::Sequential => "sequential",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp_blocked",
            Self::ProxyOnly => "proxy_only",
            Self::Ipv6Only => "ipv6_only",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_router_refuses_new_flows_from_outside_twice() {
        for kind in NatKind::ALL {
            let rules = kind.rules(Ipv4Addr::new(203, 0, 113, 65), Ipv4Addr::new(10, 1, 0, 2));
            assert_eq!(
                rules.matches(r#"iifname "wan0" ct state new drop"#).count(),
                2,
                "{kind}"
            );
        }
    }
}
