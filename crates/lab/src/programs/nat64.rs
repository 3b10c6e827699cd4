//! A translator for a site without IPv4: tayga (NAT64, RFC 6146 together with the router's NAT), and dnsmasq, which tells
//! the prefix (RFC 7050).

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::debian::find;
use crate::netns::Namespace;
use crate::process::Running;
use crate::world::Internet;

use super::READY;

/// The network's own prefix. The well-known one must not stand for addresses of documentation networks (RFC 6052 section
/// 3.1), and tayga keeps to that.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0);
/// What tayga calls the site's hosts before the router's NAT gives them its own address.
const POOL: &str = "192.168.255.0/24";
/// tayga's own address there.
const TAYGA: &str = "192.168.255.1";

/// The address of `ipv4only.arpa` (RFC 7050).
const KNOWN: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 170);

/// How a site without IPv4 reaches an address of it.
pub(crate) fn in_ipv6(ip: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(PREFIX.to_bits() | u128::from(ip.to_bits()))
}

/// Starts both on a site's router, whose address inside is `inside`.
pub(crate) fn translator(
    internet: &Internet,
    router: &Namespace,
    inside: Ipv6Addr,
) -> Result<[Running; 2]> {
    let dir = internet.dir().join(router.name());
    fs::create_dir_all(&dir)?;
    let config = dir.join("tayga.conf");
    fs::write(
        &config,
        format!(
            "tun-device nat64\nipv4-addr {TAYGA}\nprefix {PREFIX}/96\ndynamic-pool {POOL}\ndata-dir {}\n",
            dir.display()
        ),
    )?;
    // The device first: on its own tayga tells of what is wrong with it in the system's log alone.
    let mut command = router.command(find("tayga").unwrap_or_default());
    command.arg("--mktun").arg("--config").arg(&config);
    Running::start("tayga --mktun", &mut command)?
        .finish(READY)?
        .success()?;
    let mut command = router.command(find("tayga").unwrap_or_default());
    command.arg("--nodetach").arg("--config").arg(&config);
    let tayga = Running::start("tayga", &mut command)?;
    router.ip(&format!(
        "link set nat64 up\nroute add {POOL} dev nat64\nroute add {PREFIX}/96 dev nat64\n"
    ))?;
    let mut command = router.command(find("dnsmasq").unwrap_or_default());
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
        "--user=root",
        "--bind-interfaces",
        "--log-facility=-",
        &format!("--listen-address={inside}"),
        &format!("--address=/ipv4only.arpa/{KNOWN}"),
        &format!("--address=/ipv4only.arpa/{}", in_ipv6(KNOWN)),
    ]);
    let dns = Running::start("dnsmasq", &mut command)?;
    dns.wait_for("dnsmasq's start", READY, |line| {
        line.text.contains("started").then_some(())
    })
    .context("dnsmasq")?;
    Ok([tayga, dns])
}
