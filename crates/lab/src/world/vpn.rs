//! A VPN on a host: an interface of its own with a small MTU, by which everything goes, beside the one that carries it.
//!
//! It is a VXLAN tunnel to the site's router, because that is what every kernel here has; what matters of WireGuard and the like is
//! the same. The kernel refuses what is too large on its way out at once, and what is too large on its way in disappears at the
//! far end, whose ICMP is filtered as it is on most such paths.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::Place;

/// The network of the interface: the router's end, and the host's.
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 200, 0, 1), Ipv4Addr::new(10, 200, 0, 2)];

impl Place {
    /// From now on the host's way out is a VPN whose packets may have so many bytes.
    pub fn enter_vpn(&self, mtu: u16) -> Result<()> {
        let (host, router) = (&self.namespace, self.gate()?);
        let [far, near] = ENDS;
        // The router's rules know what is inside by this name.
        for (end, name, inside, local, remote) in [
            (router, "lan9", far, self.gateway()?, self.addr),
            (host, "vpn0", near, self.addr, self.gateway()?),
        ] {
            end.ip(&format!(
                "link add {name} mtu {mtu} type vxlan id 9 local {local} remote {remote} dstport 4789\n\
                 addr add {inside}/24 dev {name}\nlink set {name} up\n"
            ))?;
        }
        router.nft(
            "table inet silent {\nchain output { type filter hook output priority filter; policy accept;\n\
             icmp type destination-unreachable drop\nicmpv6 type packet-too-big drop\n}\n}\n",
        )?;
        host.ip(&format!("route replace default via {far} dev vpn0\n"))
    }
}
