//! coturn as a STUN server.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::READY;
use crate::debian::find;
use crate::process::{Running, poll};
use crate::world::{Place, World};

/// The port it listens on; the RFC 5780 alternate is the next one.
pub const PORT: u16 = 3478;

/// Starts coturn on these addresses of a host. With two it is an RFC 5780 server.
pub fn coturn(world: &World, place: &Place, addrs: &[Ipv4Addr]) -> Result<Running> {
    let mut command = place
        .namespace
        .command(find("turnserver").unwrap_or_default());
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
    for addr in addrs {
        // The kernel's own table says when a socket is there, in hexadecimal and the machine's byte order.
        let bound = format!("{:08X}:{PORT:04X}", u32::from_ne_bytes(addr.octets()));
        poll("listening coturn", READY, || {
            let table = fs::read_to_string(format!("/proc/{}/net/udp", process.pid()))?;
            Ok(table.contains(&bound).then_some(()))
        })?;
    }
    Ok(process)
}
