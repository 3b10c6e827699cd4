//! miniupnpd: a home router's PCP, NAT-PMP and UPnP server.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::READY;
use crate::debian::find;
use crate::process::{Running, poll};
use crate::world::{Place, World};

/// The outside address it tells of. It refuses to map ports of reserved ones, as all others in the laboratory are; this
/// one is somebody's, and exists in the scenario's namespaces only.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(193, 0, 2, 66);

/// The chains it works in, and the way in for what it lets in.
const RULES: &str = r#"
table inet filter {
    chain miniupnpd { }
}
table inet upnp {
    chain in { }
    chain out { }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        jump in
    }
    chain postrouting {
        type nat hook postrouting priority srcnat - 1; policy accept;
        jump out
    }
}
insert rule inet filter forward ct status dnat accept
"#;

/// Starts one on the router of a site, whose hosts may map ports, and lets another site's router find [`OUTSIDE`].
/// `upnp_only`: it does not hear PCP and NAT-PMP.
pub fn miniupnpd(world: &World, site: &Place, other: &Place, upnp_only: bool) -> Result<Running> {
    let router = site.router.as_ref().context("a site with a router")?;
    router.nft(RULES)?;
    if upnp_only {
        router.nft("insert rule inet filter input udp dport 5351 drop\n")?;
    }
    router.ip(&format!("addr add {OUTSIDE}/32 dev wan0\n"))?;
    let there = other.router.as_ref().context("a site with a router")?;
    there.ip(&format!("route add {OUTSIDE}/32 dev wan0\n"))?;
    let config = world.dir().join("miniupnpd.conf");
    let net = site.addr.octets()[1];
    fs::write(
        &config,
        format!(
            "ext_ifname=wan0\next_ip={OUTSIDE}\nlistening_ip=lan0\nenable_natpmp=yes\nenable_upnp=yes\nsecure_mode=yes\n\
             uuid=11111111-2222-3333-4444-555555555555\n\
             upnp_table_name=filter\nupnp_forward_chain=miniupnpd\n\
             upnp_nat_table_name=upnp\nupnp_nat_chain=in\nupnp_nat_postrouting_chain=out\n\
             allow 1024-65535 10.{net}.0.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        ),
    )?;
    let mut command = router.command(find("miniupnpd").unwrap_or_default());
    command.arg("-d").arg("-f").arg(&config);
    command.arg("-P").arg(world.dir().join("miniupnpd.pid"));
    let process = Running::start("miniupnpd", &mut command)?;
    // PCP's port, as the kernel's table writes it.
    poll("listening miniupnpd", READY, || {
        let table = fs::read_to_string(format!("/proc/{}/net/udp", process.pid()))?;
        Ok(table.contains(":14E7").then_some(()))
    })?;
    Ok(process)
}

/// The ports mapped at present, as the router's rules say it.
pub fn mapped(site: &Place) -> Result<usize> {
    let router = site.router.as_ref().context("a site with a router")?;
    let mut command = router.command("nft");
    command.args(["list", "chain", "inet", "upnp", "in"]);
    let done = Running::run("nft", &mut command, READY)?.success()?;
    Ok(done.stdout().matches("dnat").count())
}
