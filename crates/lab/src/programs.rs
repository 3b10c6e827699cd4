//! The programs of a world: where they are, how each is started, and when it is ready.

mod byway;
mod certified;
mod coturn;
pub mod miniupnpd;
mod nat64;
mod pebble;
mod peers;
mod proxy;
mod sshd;
mod typist;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use byway::{
    Agent, Forward, Options, Pong, Relay, byway, netcheck, netcheck_asking, ping, ping_from, pongs,
    start_ping, until_direct,
};
pub use certified::{Authority, Certificate};
pub use coturn::{PORT as COTURN_PORT, coturn};
pub(crate) use nat64::{in_ipv6, translator};
pub use pebble::Pebble;
pub use peers::{Peer, bare_forwarder, field, iroh_relay, peer_binary};
pub use proxy::{Proxy, http_on, microsocks, socks_on, tinyproxy};
pub use sshd::{Sshd, on_client, ssh_tools};
pub use typist::Typist;

use crate::netns::Namespace;
use crate::process::{Finished, Running};
use crate::tool::{body_sha256, sha256_of};
use crate::world::{Internet, Place};

/// Programs are ready in milliseconds; this is for a machine that is busy building.
pub const READY: Duration = Duration::from_secs(15);

/// Where one of Byway's own programs is (whether or not it is there): `BYWAY_BIN_DIR`, or the release
/// directory beside the build that this program is of.
pub fn binary(name: &str) -> PathBuf {
    match env::var_os("BYWAY_BIN_DIR") {
        Some(dir) => PathBuf::from(dir).join(name),
        None => target().join("release").join(name),
    }
}

/// The target directory of the build that this program is of.
fn target() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    // Every target directory of cargo's carries this tag.
    let target = exe
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(Path::new("target")).to_owned()
}

/// The size of bulk transfers: 32 MiB, or `BYWAY_LAB_SIZE` (`1GiB`, `100MiB`, or bytes).
pub fn bulk_size() -> Result<u64> {
    size_or(32 << 20)
}

/// The same where it is another one unless it is given.
pub(crate) fn size_or(usual: u64) -> Result<u64> {
    match env::var("BYWAY_LAB_SIZE") {
        Ok(text) => parse_size(&text),
        Err(_) => Ok(usual),
    }
}

fn parse_size(text: &str) -> Result<u64> {
    let (digits, shift) = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)]
        .into_iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, shift)))
        .unwrap_or((text, 0));
    let number: u64 = digits
        .trim()
        .parse()
        .with_context(|| format!("{text:?} is not a size such as 1GiB"))?;
    number
        .checked_shl(shift)
        .filter(|n| n >> shift == number)
        .with_context(|| format!("{text:?} is too much"))
}

/// Starts one of the laboratory's own tools: this very program, called differently.
pub fn tool(namespace: &Namespace, name: &str, args: &[String]) -> Result<Running> {
    let mut command = namespace.command(env::current_exe()?);
    command.arg("tool").arg(name).args(args);
    Running::start(name, &mut command)
}

/// Starts a web server on a place's loopback and public addresses. Returns its URL.
pub fn web(place: &Place, port: u16) -> Result<(Running, String)> {
    let server = tool(&place.namespace, "web", &[format!("0.0.0.0:{port}")])?;
    server.first_line("readiness", READY)?;
    Ok((server, format!("http://{}:{port}", place.addr)))
}

/// Starts a download into a file of the world's.
pub fn start_curl(
    internet: &Internet,
    place: &Place,
    url: &str,
    file: &str,
    args: &[&str],
) -> Result<Running> {
    let mut command = place.namespace.command("curl");
    command.args(["-q", "-sS", "--fail", "--noproxy", "*", "--max-time", "600"]);
    command
        .args(args)
        .arg("-o")
        .arg(internet.dir().join(file))
        .arg(url);
    Running::start("curl", &mut command)
}

/// Downloads `url`, whose last part is the size, and compares the checksum.
pub fn curl(
    internet: &Internet,
    place: &Place,
    url: &str,
    file: &str,
    args: &[&str],
    deadline: Duration,
) -> Result<Finished> {
    let done = start_curl(internet, place, url, file, args)?
        .finish(deadline)?
        .success()?;
    check_body(internet, url, file)?;
    Ok(done)
}

/// Compares what was downloaded from `url` with what the web server sends.
pub fn check_body(internet: &Internet, url: &str, file: &str) -> Result<()> {
    let size: u64 = url
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .parse()
        .context("the URL must end in a size")?;
    let got = sha256_of(&internet.dir().join(file))?;
    ensure!(
        got == body_sha256(size),
        "{size} bytes of {url} arrived changed"
    );
    Ok(())
}

/// A command with nothing of the caller's own settings for these programs, and a home inside the world.
fn with_clean_home(mut command: Command, home: &Path) -> Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("BYWAY_")
            || text.starts_with("XDG_")
            || text.to_ascii_lowercase().ends_with("_proxy")
        {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", home)
        .env("NO_COLOR", "1")
        .env_remove("SSH_AUTH_SOCK");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units_and_nonsense_is_refused() {
        assert_eq!(parse_size("1GiB").unwrap(), 1 << 30);
        assert_eq!(parse_size("100 MiB").unwrap(), 100 << 20);
        assert_eq!(parse_size("4096").unwrap(), 4096);
        for bad in ["", "GiB", "much", "-1", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
