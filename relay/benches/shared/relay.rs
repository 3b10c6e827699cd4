//! A relay process of its own, and what it takes.

use std::net::SocketAddr;

use byway_wire::RelayUrl;

use crate::common::process::Running;

pub(crate) struct Relay {
    process: Running,
    pub(crate) url: RelayUrl,
}

impl Relay {
    /// On loopback, with one shard.
    pub(crate) fn start(more: &[&str]) -> Self {
        let process = Running::start(&[&["--dev", "--shards", "1"], more].concat());
        let url = process.url();
        Self { process, url }
    }
    pub(crate) fn addr(&self) -> SocketAddr {
        let ip: std::net::IpAddr = self.url.host().parse().unwrap();
        (ip, self.url.port()).into()
    }
    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.process.pid())).unwrap()
    }
    /// Bytes of memory.
    pub(crate) fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
    pub(crate) fn cpu(&self) -> f64 {
        super::cpu_seconds(&self.proc("stat"))
    }
}

/// Both ends of every TLS link are descriptors; relays inherit the limit.
pub(crate) fn raise_descriptors() {
    let most = rustix::process::Rlimit {
        current: Some(65_536),
        maximum: Some(65_536),
    };
    if rustix::process::setrlimit(rustix::process::Resource::Nofile, most).is_err() {
        println!("descriptors stay as limited as they are; root may raise the limit");
    }
}
