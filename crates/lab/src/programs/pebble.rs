//! Pebble, the authority that Let's Encrypt's makers test ACME clients with: it orders, proves and signs as theirs does, and
//! trusts nobody.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::{Authority, READY};
use crate::process::{Running, poll};
use crate::world::{Internet, Place};

/// Where it answers for ACME.
const PORT: u16 = 14_000;
/// Where it tells what no public authority would: the root that it made for this run.
const MANAGEMENT: u16 = 15_000;

/// A running Pebble, which comes to port 443 of those whose names it certifies.
#[derive(Debug)]
pub struct Pebble {
    /// Its directory (RFC 8555 section 7.1.1).
    pub directory: String,
    /// Who answers for the certificate of its own HTTPS.
    pub trusted: PathBuf,
    /// Who answers for what it signs.
    pub root: PathBuf,
    process: Running,
}

impl Pebble {
    /// Starts it on a host, at this address of it.
    pub fn start(internet: &Internet, place: &Place, ip: Ipv4Addr) -> Result<Self> {
        let authority = Authority::new("pebble")?;
        let certificate = authority.certify(internet, ip)?;
        let trusted = Authority::trusted(internet, "pebbles-clients", &[&authority])?;
        let config = internet.dir().join("pebble.json");
        let settings = json!({"pebble": {
            "listenAddress": format!("{ip}:{PORT}"),
            "managementListenAddress": format!("{ip}:{MANAGEMENT}"),
            "certificate": certificate.cert,
            "privateKey": certificate.key,
            "tlsPort": 443,
        }});
        fs::write(&config, settings.to_string())?;
        let mut command = place.namespace.command("pebble");
        command.args(["-strict", "-config"]).arg(&config);
        // It would wait up to 15 seconds before each proof, to show that clients wait.
        command.env("PEBBLE_VA_NOSLEEP", "1");
        let process = Running::start("pebble", &mut command)?;
        process.wait_for("Pebble's start", READY, |line| {
            line.text.contains("ACME directory available").then_some(())
        })?;
        let root = internet.dir().join("pebble-root.pem");
        poll("Pebble's root", READY, || {
            let mut curl = place.namespace.command("curl");
            curl.args(["-q", "-sS", "--fail", "--noproxy", "*", "--cacert"]);
            curl.arg(&trusted)
                .arg(format!("https://{ip}:{MANAGEMENT}/roots/0"));
            let told = Running::run("curl", &mut curl, READY)?;
            let Ok(told) = told.success() else {
                return Ok(None);
            };
            fs::write(&root, told.stdout())?;
            Ok(Some(()))
        })?;
        Ok(Self {
            directory: format!("https://{ip}:{PORT}/dir"),
            trusted,
            root,
            process,
        })
    }

    /// How many certificates it has signed.
    pub fn signed(&self) -> usize {
        let lines = self.process.lines();
        lines
            .iter()
            .filter(|line| line.text.contains("Issued certificate serial"))
            .count()
    }
}
