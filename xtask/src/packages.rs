//! Debian packages the tests need, and their installation.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// The laboratory's table, shared as a file: as a dependency, a laboratory that does not compile would take `xtask`
/// with it.
#[path = "../../crates/lab/src/debian.rs"]
#[allow(dead_code, unreachable_pub, reason = "written for the laboratory")]
mod debian;

pub(crate) use debian::find;

/// What the build needs beside the laboratory's programs.
const FOR_THE_BUILD: (&str, &str) = ("cc", "gcc");

/// Packages whose programs are not here, and the command that installs them.
pub(crate) fn missing() -> (Vec<&'static str>, String) {
    let packages: BTreeSet<&str> = std::iter::once(&FOR_THE_BUILD)
        .chain(debian::TOOLS)
        .filter(|(tool, _)| find(tool).is_none())
        .map(|(_, package)| *package)
        .collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let command = debian::install(&packages);
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
