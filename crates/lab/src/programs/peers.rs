//! The programs of a comparison with a peer: the two ends of the same transfer, over Byway or over iroh, and iroh's relay.
//!
//! What the ends print and wait for is in `benches/transfer`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::byway::home;
use super::{Authority, READY, binary, target, with_clean_home};
use crate::process::{Line, Running, Stream};
use crate::world::{Internet, Place};

/// Where a program of a peer's is (whether or not it is there): `BYWAY_PEERS_DIR`, or where `cargo xtask bench iroh` builds it.
pub fn peer_binary(name: &str) -> PathBuf {
    match env::var_os("BYWAY_PEERS_DIR") {
        Some(dir) => PathBuf::from(dir).join(name),
        None => target().join("peers/release").join(name),
    }
}

/// A program of which both ends of a transfer are.
#[derive(Clone, Debug)]
pub struct Peer {
    program: PathBuf,
    /// Of both ends.
    arguments: Vec<String>,
    /// Of the one who listens, besides: over Byway the other one has the rest from the ticket.
    listening: Option<String>,
}

impl Peer {
    /// Over a tunnel, by this kind of link to the relay.
    pub fn byway(relay_url: &str, link: &str) -> Self {
        Self {
            program: binary("byway-peer"),
            arguments: vec![format!("--link={link}")],
            listening: Some(format!("--relay={relay_url}")),
        }
    }

    /// Over a connection of iroh's. `trusts`: who answers for the relay's certificate, where it has one.
    pub fn iroh(relay_url: &str, trusts: Option<&Path>) -> Self {
        let relay = format!("--relay={relay_url}");
        let trusts = trusts.map(|file| format!("--roots={}", file.display()));
        Self {
            program: peer_binary("iroh-peer"),
            arguments: [relay].into_iter().chain(trusts).collect(),
            listening: None,
        }
    }

    /// Over raw quinn, through the forwarder at this address.
    fn bare(forwarder: Ipv4Addr) -> Self {
        Self {
            program: binary("bare-peer"),
            arguments: vec![format!("--forwarder={forwarder}")],
            listening: None,
        }
    }

    /// Starts the end that listens and sends. Gives it, and its address.
    pub fn listen(&self, internet: &Internet, place: &Place) -> Result<(Running, String)> {
        let mut listen = self.command(internet, place, "listen")?;
        listen.args(&self.listening);
        let listener = Running::start("listen", &mut listen)?;
        let told = listener.wait_for("address", READY, |line| field(line, "address"))?;
        let address = told.as_str().context("an address is a text")?.to_owned();
        Ok((listener, address))
    }

    /// Starts the end that fetches, which is told when to begin with the `mib` that count.
    pub fn fetch(
        &self,
        internet: &Internet,
        place: &Place,
        mib: u64,
        address: &str,
    ) -> Result<Running> {
        let mut fetch = self.command(internet, place, "fetch")?;
        fetch.args(["--mib", &mib.to_string(), address]);
        Running::start_told("fetch", &mut fetch)
    }

    fn command(&self, internet: &Internet, place: &Place, part: &str) -> Result<Command> {
        let home = home(internet, &place.name)?;
        let mut command = with_clean_home(place.namespace.command(&self.program), &home);
        command.current_dir(&home).arg(part).args(&self.arguments);
        Ok(command)
    }
}

/// Starts iroh's relay on a host, as it is by default: with this authority's certificate at 443, or at 80 without TLS. Gives
/// its URL.
pub fn iroh_relay(
    internet: &Internet,
    place: &Place,
    authority: Option<&Authority>,
) -> Result<(Running, String)> {
    let home = home(internet, &place.name)?;
    let mut config = format!("http_bind_addr = \"{}\"\n", place.at(80));
    let mut url = format!("http://{}", place.addr);
    let mut port = 80;
    if let Some(authority) = authority {
        let certificate = authority.certify(internet, place.addr)?;
        config.push_str(&format!(
            "[tls]\nhttps_bind_addr = \"{}\"\ncert_mode = \"Manual\"\nmanual_cert_path = \"{}\"\nmanual_key_path = \"{}\"\n",
            place.at(443),
            certificate.cert.display(),
            certificate.key.display()
        ));
        url = format!("https://{}", place.addr);
        port = 443;
    }
    let file = home.join("iroh-relay.toml");
    fs::write(&file, config)?;
    let mut command = with_clean_home(place.namespace.command(peer_binary("iroh-relay")), &home);
    command
        .current_dir(&home)
        .args([OsStr::new("--config-path"), file.as_os_str()]);
    let relay = Running::start("iroh-relay", &mut command)?;
    // It tells nobody that it is ready.
    place.until_served_at(port)?;
    Ok((relay, url))
}

/// Starts a forwarder that looks at nothing on a host. Gives the ends that use it, too.
pub fn bare_forwarder(place: &Place) -> Result<(Running, Peer)> {
    let mut command = place.namespace.command(binary("bare-peer"));
    command.arg("forward").arg(place.addr.to_string());
    let forwarder = Running::start("forwarder", &mut command)?;
    forwarder.first_line("readiness", READY)?;
    Ok((forwarder, Peer::bare(place.addr)))
}

/// A field of a line in which an end tells something.
pub fn field(line: &Line, name: &str) -> Option<Value> {
    let told: Value = match line.from {
        Stream::Out => serde_json::from_str(&line.text).ok()?,
        Stream::Err => return None,
    };
    told.get(name).cloned()
}
