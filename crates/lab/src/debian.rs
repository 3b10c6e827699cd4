//! The programs of other people's that the laboratory runs, and the Debian packages they come in. One table: what a
//! scenario says it needs, what is named where it lacks, and what `cargo xtask test` installs are looked up here. (It takes
//! this file as a module of its own, so nothing of the laboratory's is used in it.)

use std::env;
use std::path::PathBuf;

/// Programs and their packages.
pub const TOOLS: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("curl", "curl"),
    ("dnsmasq", "dnsmasq-base"),
    ("git", "git"),
    ("ip", "iproute2"),
    ("kill", "procps"),
    ("microsocks", "microsocks"),
    ("miniupnpd", "miniupnpd-nftables"),
    ("nft", "nftables"),
    ("pebble", "pebble"),
    ("promtool", "prometheus"),
    ("scp", "openssh-client"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("stun", "stun-client"),
    ("sysctl", "procps"),
    ("systemd-analyze", "systemd"),
    ("tayga", "tayga"),
    ("tinyproxy", "tinyproxy-bin"),
    ("turnserver", "coturn"),
    ("turnutils_stunclient", "coturn"),
];

/// Where a program is, if it is: on the path or where daemons live, which a user's path leaves out.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|file| file.is_file())
}

/// The package of a program; one that is in no package here is named as itself.
pub fn package(tool: &'static str) -> &'static str {
    TOOLS
        .iter()
        .find_map(|&(name, package)| (name == tool).then_some(package))
        .unwrap_or(tool)
}

/// The command that installs packages.
pub fn install(packages: &[&str]) -> String {
    format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}
