//! coturn as a STUN server.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{READY, find_tool};
use crate::process::Running;
use crate::world::{Place, World};

/// The port it listens on; the RFC 5780 alternate is the next one.
pub const PORT: u16 = 3478;

/// Starts coturn on these addresses of a host. With two it is an RFC 5780 server.
pub fn coturn(world: &World, place: &Place, addrs: &[Ipv4Addr]) -> Result<Running> {
    let mut command = place
        .namespace
        .command(find_tool("turnserver").unwrap_or_default());
    command.args([
        "-n",
        "--stun-only",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--log-file",
        "stdout",
    ]);
    command.args([
        "--listening-port",
        &PORT.to_string(),
        "--alt-listening-port",
        &(PORT + 1).to_string(),
    ]);
    for addr in addrs {
        command.args(["--listening-ip", &addr.to_string()]);
    }
    command
        .arg("--pidfile")
        .arg(world.dir().join(format!("turnserver-{}.pid", addrs[0])));
    command
        .arg("--userdb")
        .arg(world.dir().join(format!("turndb-{}", addrs[0])));
    let process = Running::start("coturn", &mut command)?;
    let last = format!("{}:{PORT}", addrs[addrs.len() - 1]);
    process.wait_for("UDP listener", READY, |l| {
        (l.text.contains("UDP listener opened on") && l.text.contains(&last)).then_some(())
    })?;
    Ok(process)
}
