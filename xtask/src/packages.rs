//! Debian packages the tests need, and their installation.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program and the package it comes in.
const TOOLS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("curl", "curl"),
    ("git", "git"),
    ("ip", "iproute2"),
    ("miniupnpd", "miniupnpd-nftables"),
    ("nft", "nftables"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("stun", "stun-client"),
    ("sysctl", "procps"),
    ("turnserver", "coturn"),
    ("turnutils_stunclient", "coturn"),
];

/// Packages whose programs are not here, and the command that installs them.
pub(crate) fn missing() -> (Vec<&'static str>, String) {
    let mut packages: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| find(tool).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    let command = format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    (packages, command)
}

/// Installs them. What is still missing afterwards is for the caller to see.
pub(crate) fn install(packages: &[&str]) {
    let _no_services = KeepServicesDown::new();
    // The package lists of a fresh machine are empty or old: update once when the first try fails.
    if !apt(
        &["install", "-y", "-qq", "--no-install-recommends"],
        packages,
    ) {
        let _ = apt(&["update", "-qq"], &[]);
        let _ = apt(
            &["install", "-y", "-qq", "--no-install-recommends"],
            packages,
        );
    }
}

/// Whether this process may install packages and make namespaces.
pub(crate) fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|s| {
        s.lines()
            .any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0"))
    })
}

/// Where a program is, if it is.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|file| file.is_file())
}

fn apt(args: &[&str], packages: &[&str]) -> bool {
    Command::new("apt-get")
        // Another one may be at it: a machine's own upgrades.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// While this lives, installing sshd or coturn does not start them as services of the machine: Debian asks
/// `policy-rc.d`. An existing one is left alone.
struct KeepServicesDown {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// By its second line our own is known, should a run that was killed have left it behind.
const OURS: &str = "#!/bin/sh\n# of cargo xtask test, for the time of an installation\nexit 101\n";

impl KeepServicesDown {
    fn new() -> Self {
        let foreign = fs::read_to_string(POLICY).is_ok_and(|text| text != OURS);
        // From here on it is removed again, whether it could be made executable or not.
        let ours = !foreign && fs::write(POLICY, OURS).is_ok();
        let _ = ours && fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).is_ok();
        Self { ours }
    }
}

impl Drop for KeepServicesDown {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
