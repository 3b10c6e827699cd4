//! The kinds of NAT a site's router can be, as nftables rules.
//!
//! In the terms of RFC 4787:
//!
//! | kind | mapping | filtering | how |
//! |---|---|---|---|
//! | open | none | none | no router: the host has a public address |
//! | port-restricted | endpoint-independent | address and port-dependent | `masquerade`, which keeps the source port while no other flow holds it, and conntrack |
//! | symmetric | address and port-dependent, random ports | address and port-dependent | `masquerade random,fully-random` |
//! | UDP blocked | - | all UDP dropped | TCP as port-restricted |
//!
//! A trap that makes hole punching fail by the laboratory's own fault: should a stray packet from outside
//! reach the router's own input chain and be accepted there, conntrack confirms an entry for it, and the
//! inside host's later packet towards that address is mapped to *another* port because the tuple is taken.
//! So new flows from outside are dropped in `input` and in `forward`: an unconfirmed entry is forgotten.

use std::fmt;

/// What stands between a site's host and the public segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// Nothing: the host has a public address.
    Open,
    /// Endpoint-independent mapping, address and port-dependent filtering.
    PortRestricted,
    /// A fresh random port for every destination, address and port-dependent filtering.
    Symmetric,
    /// No UDP at all; TCP is translated.
    UdpBlocked,
}

impl NatKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Open,
        Self::PortRestricted,
        Self::Symmetric,
        Self::UdpBlocked,
    ];

    /// The router's rules, or none where there is no router. `lan0` is inside, `wan0` outside.
    pub fn rules(self) -> Option<String> {
        let (masquerade, udp) = match self {
            Self::Open => return None,
            Self::PortRestricted => ("masquerade", ""),
            Self::Symmetric => ("masquerade random,fully-random", ""),
            Self::UdpBlocked => ("masquerade", "meta l4proto udp drop"),
        };
        Some(format!(
            r#"
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan0" {masquerade}
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
        iifname "wan0" ct state new drop
        {udp}
    }}
    chain cut {{
        type filter hook forward priority filter - 1; policy accept;
    }}
}}
"#
        ))
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::PortRestricted => "restricted",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp_blocked",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_router_refuses_new_flows_from_outside_twice() {
        for kind in NatKind::ALL {
            if let Some(rules) = kind.rules() {
                assert_eq!(
                    rules.matches(r#"iifname "wan0" ct state new drop"#).count(),
                    2,
                    "{kind}"
                );
            }
        }
    }
}
