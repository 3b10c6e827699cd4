//! Network namespaces by way of the `ip` command, and their removal.
//!
//! Names are `bwlab-<pid>-<n>-<role>`: the pid is the owner's, so that [`sweep`] can tell what a killed run
//! left behind from what a run beside this one is using.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

const PREFIX: &str = "bwlab-";

/// A network namespace, deleted when dropped together with the processes still in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    pub fn create(world: &str, role: &str) -> Result<Self> {
        let name = format!("{world}-{role}");
        run_ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        // IPv6 would be a second, un-NATed way between hosts of one segment; these worlds are about IPv4 NATs.
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. It dies with the thread that starts it, however that ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args([
                "netns",
                "exec",
                &self.name,
                "setpriv",
                "--pdeathsig",
                "KILL",
                "--",
            ])
            .arg(program);
        command
    }

    /// Runs `ip` commands inside, one a line.
    pub fn ip(&self, batch: &str) -> Result<()> {
        feed(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            batch,
        )
    }

    /// Loads nftables rules inside.
    pub fn nft(&self, rules: &str) -> Result<()> {
        feed(
            Command::new("ip").args(["netns", "exec", &self.name, "nft", "-f", "-"]),
            rules,
        )
    }

    /// The bytes a named counter of table `inet watch` has seen.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let out = Command::new("ip")
            .args([
                "netns", "exec", &self.name, "nft", "-j", "list", "counter", "inet", "watch", name,
            ])
            .output()?;
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).with_context(|| {
            format!(
                "reading counter {name}: {}",
                String::from_utf8_lossy(&out.stderr)
            )
        })?;
        json["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|item| item["counter"]["bytes"].as_u64())
            .with_context(|| format!("no counter {name}"))
    }

    /// Sets a kernel parameter inside.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let setting = format!("{key}={value}");
        feed(
            Command::new("ip").args(["netns", "exec", &self.name, "sysctl", "-q", "-w", &setting]),
            "",
        )
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// A name for a world, unique on this machine: `bwlab-<pid>-<n>`.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{PREFIX}{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Joins two namespaces with a cable.
pub(crate) fn cable(a: &Namespace, a_if: &str, b: &Namespace, b_if: &str) -> Result<()> {
    run_ip(&[
        "link",
        "add",
        a_if,
        "netns",
        a.name(),
        "type",
        "veth",
        "peer",
        "name",
        b_if,
        "netns",
        b.name(),
    ])
}

/// Removes namespaces and directories of runs that no longer exist. Returns how many there were.
pub fn sweep() -> usize {
    let mut swept = 0;
    for (dir, namespaces) in [
        (Path::new("/run/netns").to_owned(), true),
        (std::env::temp_dir(), false),
    ] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = owner(&name) else { continue };
            if Path::new(&format!("/proc/{pid}")).exists() {
                continue;
            }
            swept += 1;
            if namespaces {
                remove(&name);
            } else {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    swept
}

/// A directory for a world's files, removed when dropped (kept with `BYWAY_LAB_KEEP=1`).
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn create(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("BYWAY_LAB_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The pid in a name of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Deletes a namespace of ours. What still runs in it was started there by a scenario (an sshd session whose
/// daemon is gone, say), since nobody else enters these; it is ended by its id first.
fn remove(name: &str) {
    if let Ok(out) = Command::new("ip")
        .args(["netns", "pids", name])
        .stderr(Stdio::null())
        .output()
    {
        for pid in String::from_utf8_lossy(&out.stdout).split_whitespace() {
            let _ = Command::new("kill")
                .args(["-KILL", pid])
                .stderr(Stdio::null())
                .status();
        }
    }
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

fn run_ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip")
        .args(args)
        .output()
        .context("running `ip`")?;
    if !out.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

/// Runs a command with text on its standard input.
fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!(
            "{command:?}: {}\ninput was:\n{input}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_owner_and_foreign_names_have_none() {
        assert_eq!(
            owner(&format!("{}-relay", unique())),
            Some(std::process::id())
        );
        for foreign in ["bwlab", "bwlab-", "bwlab-x-1", "docker-12-3", "xbwlab-12-3"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }
}
