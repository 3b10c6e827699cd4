//! Network namespaces by way of the `ip` command.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::leftovers::remove_namespace;

/// Where `ip netns exec` looks for files that stand for those in `/etc`, by namespace.
pub(crate) const SETTINGS: &str = "/etc/netns";

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

    /// A command that will run inside. It dies with the thread that starts it, however that ends, and of a hang-up where it
    /// does not say otherwise: whoever plays under `nohup` would have programs ignore it.
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
                "env",
                "--default-signal=HUP",
            ])
            .arg(program);
        command
    }

    /// Gives hosts names inside: programs there see them in `/etc/hosts` (ip-netns(8)).
    pub fn name_hosts(&self, hosts: &[(&str, &[IpAddr])]) -> Result<()> {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (name, addrs) in hosts {
            for addr in *addrs {
                text.push_str(&format!("{addr} {name}\n"));
            }
        }
        self.set("hosts", &text)
    }

    /// Has programs inside ask this server for names.
    pub fn ask_names_of(&self, server: IpAddr) -> Result<()> {
        self.set("resolv.conf", &format!("nameserver {server}\n"))
    }

    /// A file that stands for the one in `/etc` inside.
    fn set(&self, file: &str, text: &str) -> Result<()> {
        let dir = Path::new(SETTINGS).join(&self.name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::write(dir.join(file), text).with_context(|| format!("writing {file}"))
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

    /// From now on a router's conntrack forgets a flow of UDP after so long without a packet, in whole seconds.
    pub fn forget_udp_after(&self, after: Duration) -> Result<()> {
        let seconds = after.as_secs().max(1).to_string();
        for key in ["udp_timeout", "udp_timeout_stream"] {
            self.sysctl(&format!("net.netfilter.nf_conntrack_{key}"), &seconds)?;
        }
        Ok(())
    }

    /// The flows that a router knows, a line each, without those whose time is over.
    pub fn flows(&self) -> Result<String> {
        let out = Command::new("ip")
            .args(["netns", "exec", &self.name, "cat", "/proc/net/nf_conntrack"])
            .output()?;
        if !out.status.success() {
            bail!(
                "this kernel does not tell its flows: {}",
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// What the kernel inside sends TCP by from now on, over IPv4: set on each route, for a namespace may not choose among all
    /// algorithms by parameter (ip-route(8), `congctl`).
    pub fn send_tcp_by(&self, algorithm: &str) -> Result<()> {
        let out = Command::new("ip")
            .args(["-n", &self.name, "-o", "-4", "route", "show"])
            .output()?;
        let routes = String::from_utf8_lossy(&out.stdout);
        let replace = routes.lines().map(|route| {
            let plain = route.split(" congctl ").next().unwrap_or(route).trim_end();
            format!("route replace {plain} congctl {algorithm}\n")
        });
        self.ip(&replace.collect::<String>())
    }

    /// What a connection of a port inside to another host sends by, if there is one.
    pub fn tcp_sends_by(&self, port: u16) -> Result<Option<String>> {
        let out = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.name,
                "ss",
                "-tniHO",
                "state",
                "established",
            ])
            .arg(format!("( sport = :{port} and ! src 127.0.0.0/8 )"))
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let kinds = ["bbr", "cubic", "reno"];
        let named = text.split_whitespace().find(|word| kinds.contains(word));
        Ok(named.map(str::to_owned))
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
        remove_namespace(&self.name);
    }
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
