//! By which names nodes know a relay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use byway_wire::RelayUrl;

use crate::ServerConfig;
use crate::identity::Identity;

/// A certificate that others signed is known by the public host's name; every other by its pin.
pub(super) fn url(
    config: &ServerConfig,
    identity: &Identity,
    host: &str,
    port: u16,
) -> anyhow::Result<RelayUrl> {
    let signed = config.cert.is_some() || config.acme.is_some();
    let named = config.public_host.is_some() || config.acme.is_some();
    let by_name = signed && named && host.parse::<IpAddr>().is_err();
    let pin = (!by_name).then(|| identity.status().pin);
    RelayUrl::new(host, port, pin).with_context(|| format!("'{host}' is not a host name"))
}

/// The hosts that a node may have dialled to come here, for links whose TLS ends before the relay. Every name that is not
/// ours is one that another relay may have; so if the operator gave the name, only that one.
pub(super) fn own_hosts(
    config: &ServerConfig,
    url: &RelayUrl,
    addrs: &[SocketAddr],
) -> Vec<String> {
    let mut hosts = vec![url.host().to_owned()];
    if config.public_host.is_none() {
        let ips = addrs.iter().map(|addr| addr.ip().to_canonical());
        hosts.extend(
            ips.filter(|ip| !ip.is_unspecified())
                .map(|ip| ip.to_string()),
        );
    }
    hosts
}

pub(super) fn public_host(config: &ServerConfig, first: SocketAddr) -> String {
    let by_certificate = config.acme.as_ref().and_then(|acme| acme.domains.first());
    if let Some(host) = config.public_host.as_ref().or(by_certificate) {
        return host.clone();
    }
    let ip = first.ip();
    if !ip.is_unspecified() {
        return ip.to_string();
    }
    outgoing(ip).unwrap_or(ip).to_string()
}

/// The address this machine would send from to the internet. Connecting a UDP socket sends nothing.
fn outgoing(any: IpAddr) -> Option<IpAddr> {
    // Addresses for documentation: routed like any other, reachable nowhere (RFC 5737, RFC 3849).
    let (far, loopback): (IpAddr, IpAddr) = match any {
        IpAddr::V4(_) => (
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv4Addr::LOCALHOST.into(),
        ),
        IpAddr::V6(_) => (
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::LOCALHOST.into(),
        ),
    };
    let probe = UdpSocket::bind((any, 0)).ok()?;
    match probe.connect((far, 9)) {
        Ok(()) => probe.local_addr().ok().map(|a| a.ip()),
        Err(_) => Some(loopback),
    }
}
