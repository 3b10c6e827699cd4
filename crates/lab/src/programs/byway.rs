//! Byway's own programs, driven by their command-line contract alone.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{READY, binary, with_clean_home};
use crate::process::{Finished, Running, poll};
use crate::world::ipv6::{RELAY_NAME, RELAY_V6};
use crate::world::{Internet, Place, RELAY, World};

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// Its URL with its pin, as it printed it.
    pub url: String,
    /// The process.
    pub process: Running,
}

impl Relay {
    /// Starts an open relay on the relay's host: 443 and 3478, TCP and UDP.
    pub fn start(world: &World) -> Result<Self> {
        Self::start_on(world, &world.relay)
    }

    /// Starts an open relay at both of the relay's addresses, in a world with IPv6. Its URL has the name that leads to both.
    pub fn start_dual(world: &World) -> Result<Self> {
        let listen = [IpAddr::V4(RELAY), IpAddr::V6(RELAY_V6)];
        let listen = listen.map(|ip| SocketAddr::new(ip, 443).to_string());
        let mut relay = Self::start_at(world, &listen)?;
        let (_, pin) = relay.url.split_once('#').context("a URL with a pin")?;
        relay.url = format!("https://{RELAY_NAME}:443#{pin}");
        Ok(relay)
    }

    /// Starts an open relay on the relay's host, at these addresses.
    pub fn start_at(world: &World, listen: &[String]) -> Result<Self> {
        Self::serve(world, &world.relay, listen)
    }

    /// Starts an open relay on a host: 443 and 3478, TCP and UDP.
    pub fn start_on(internet: &Internet, place: &Place) -> Result<Self> {
        let listen = [443, 3478].map(|port| place.at(port).to_string());
        Self::serve(internet, place, &listen)
    }

    fn serve(internet: &Internet, place: &Place, listen: &[String]) -> Result<Self> {
        let listen = listen.iter().flat_map(|addr| ["--listen", addr]);
        // The laboratory's relays are public, and what it measures is not their limit.
        let unlimited = ["--open", "--max-node-mbit", "0", "--max-node-kpps", "0"];
        let arguments = unlimited.into_iter().chain(listen);
        let relay = Self::start_with(internet, place, arguments)?;
        let url = &relay.url;
        ensure!(url.contains('#'), "the relay's URL has no pin: {url}");
        Ok(relay)
    }

    /// Starts the program on the relay's host with this configuration.
    pub fn start_configured(world: &World, config: &str) -> Result<Self> {
        let place = &world.relay;
        let file = home(world, &place.name)?.join("relay.toml");
        fs::write(&file, config)?;
        Self::start_with(world, place, [OsStr::new("--config"), file.as_os_str()])
    }

    /// Starts the program on a host, as these arguments say.
    fn start_with(
        internet: &Internet,
        place: &Place,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self> {
        let home = home(internet, &place.name)?;
        let mut command = with_clean_home(place.namespace.command(binary("byway-relay")), &home);
        command.current_dir(&home).arg("serve").args(arguments);
        let process = Running::start("byway-relay", &mut command)?;
        let url = process.first_line("readiness", READY)?;
        ensure!(
            url.starts_with("https://"),
            "the relay's first line is no URL: {url}"
        );
        Ok(Self { url, process })
    }
}

/// Options of a command that makes a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `--no-direct`.
    pub no_direct: bool,
    /// `--link`.
    pub link: Option<&'static str>,
    /// `--congestion`.
    pub congestion: Option<&'static str>,
    /// The gateway may be asked for a port, which elsewhere in the laboratory nobody answers.
    pub port_mapping: bool,
}

impl Options {
    /// As arguments.
    pub fn args(self) -> Vec<&'static str> {
        let mut args = Vec::new();
        if self.no_direct {
            args.push("--no-direct");
        }
        if let Some(link) = self.link {
            args.extend(["--link", link]);
        }
        if let Some(congestion) = self.congestion {
            args.extend(["--congestion", congestion]);
        }
        args
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Where its ticket is.
    pub ticket: PathBuf,
    /// The process.
    pub process: Running,
}

impl Agent {
    /// Starts an agent and waits for its ticket, which it writes once it is linked.
    pub fn start(world: &World, relay_url: &str, options: Options, args: &[&str]) -> Result<Self> {
        Self::start_on(world, &world.agent, relay_url, options, args)
    }

    /// The same on a host.
    pub fn start_on(
        internet: &Internet,
        place: &Place,
        relay_url: &str,
        options: Options,
        args: &[&str],
    ) -> Result<Self> {
        let mut agent = Self::start_unlinked_on(internet, place, relay_url, options, args)?;
        agent.linked()?;
        Ok(agent)
    }

    /// Starts an agent and does not wait.
    pub fn start_unlinked(
        world: &World,
        relay_url: &str,
        options: Options,
        args: &[&str],
    ) -> Result<Self> {
        Self::start_unlinked_on(world, &world.agent, relay_url, options, args)
    }

    fn start_unlinked_on(
        internet: &Internet,
        place: &Place,
        relay_url: &str,
        options: Options,
        args: &[&str],
    ) -> Result<Self> {
        let ticket = internet.dir().join(format!("ticket-{}", place.name));
        let _ = fs::remove_file(&ticket);
        let mut command = byway(internet, place, "agent")?;
        command
            .arg("agent")
            .args(["--relay", relay_url])
            .args(["--key", "agent.key", "--json"]);
        command
            .arg("--ticket-file")
            .arg(&ticket)
            .args(options.args())
            .args(args);
        if options.port_mapping {
            command.env_remove("BYWAY_NO_PORT_MAPPING");
        }
        let process = Running::start("byway agent", &mut command)?;
        Ok(Self { ticket, process })
    }

    /// Waits for its ticket.
    pub fn linked(&mut self) -> Result<()> {
        let (ticket, process) = (&self.ticket, &mut self.process);
        poll("ticket of the agent", READY, || {
            if let Ok(text) = fs::read_to_string(ticket)
                && !text.trim().is_empty()
            {
                return Ok(Some(()));
            }
            if !process.is_running() {
                bail!("the agent ended before it wrote a ticket");
            }
            Ok(None)
        })
    }

    /// `@ticket-file`, as a PEER argument.
    pub fn peer(&self) -> String {
        format!("@{}", self.ticket.display())
    }
}

/// A running `byway forward`.
#[derive(Debug)]
pub struct Forward {
    /// The local end.
    pub url: String,
    /// The process.
    pub process: Running,
}

impl Forward {
    /// Forwards a port of the client's to the same port of the agent's loopback.
    pub fn start(world: &World, peer: &str, port: u16, options: Options) -> Result<Self> {
        Self::start_with(world, peer, port, options, &[])
    }

    /// The same with more arguments.
    pub fn start_with(
        world: &World,
        peer: &str,
        port: u16,
        options: Options,
        args: &[&str],
    ) -> Result<Self> {
        Self::start_on(world, &world.client, peer, (port, port), options, args)
    }

    /// Forwards the first port of a host to the second of the agent's loopback.
    pub fn start_on(
        internet: &Internet,
        place: &Place,
        peer: &str,
        (port, to): (u16, u16),
        options: Options,
        args: &[&str],
    ) -> Result<Self> {
        let mut command = byway(internet, place, "client")?;
        command
            .args(["forward", peer, &format!("127.0.0.1:{port}:127.0.0.1:{to}")])
            .args(options.args())
            .args(args);
        let process = Running::start("byway forward", &mut command)?;
        process.first_line("listening", READY)?;
        Ok(Self {
            url: format!("http://127.0.0.1:{port}"),
            process,
        })
    }
}

/// One line of `byway ping --json`.
#[derive(Clone, Debug)]
pub struct Pong {
    /// When it was printed, from the program's start.
    pub at: Duration,
    /// Its number.
    pub seq: u64,
    /// From the first attempt to reach the peer, in milliseconds, as the program says.
    pub at_ms: f64,
    /// Likewise until a link to a relay was up.
    pub link: Duration,
    /// Likewise until the tunnel was up.
    pub up: Duration,
    /// Likewise until data came to this path.
    pub path_since: Duration,
    /// The round trip.
    pub rtt_ms: f64,
    /// `direct`, `relay_udp` or `relay_tls`.
    pub kind: String,
    /// The other end of the path.
    pub remote: Option<String>,
    /// The URL of the relay that it leads through, if it does.
    pub relay: Option<String>,
}

/// Pings until the given number of answers, or until direct. Fails unless the program ends 0.
pub fn ping(world: &World, peer: &str, options: Options, args: &[&str]) -> Result<Vec<Pong>> {
    pongs(
        &start_ping(world, peer, options, args)?
            .finish(Duration::from_secs(60))?
            .success()?,
    )
}

/// The same from a host.
pub fn ping_from(
    internet: &Internet,
    place: &Place,
    peer: &str,
    args: &[&str],
) -> Result<Vec<Pong>> {
    let ping = start_ping_from(internet, place, peer, Options::default(), args)?;
    pongs(&ping.finish(Duration::from_secs(60))?.success()?)
}

/// Pings until direct, and fails if it does not come to that.
pub fn until_direct(world: &World, peer: &str) -> Result<Vec<Pong>> {
    let pongs = ping(world, peer, Options::default(), &["--until-direct"])?;
    let last = pongs.last().context("no answer at all")?;
    ensure!(last.kind == "direct", "the last answer came by {last:?}");
    Ok(pongs)
}

/// Starts pinging.
pub fn start_ping(world: &World, peer: &str, options: Options, args: &[&str]) -> Result<Running> {
    start_ping_from(world, &world.client, peer, options, args)
}

fn start_ping_from(
    internet: &Internet,
    place: &Place,
    peer: &str,
    options: Options,
    args: &[&str],
) -> Result<Running> {
    let mut command = byway(internet, place, "client")?;
    command
        .args(["ping", peer, "--json"])
        .args(options.args())
        .args(args);
    Running::start("byway ping", &mut command)
}

/// The answers among a ping's lines; an unanswered one has no `rtt_ms` and is left out.
pub fn pongs(done: &Finished) -> Result<Vec<Pong>> {
    let mut pongs = Vec::new();
    for line in done
        .lines
        .iter()
        .filter(|l| l.from == crate::process::Stream::Out)
    {
        let json: Value =
            serde_json::from_str(&line.text).with_context(|| format!("not JSON: {}", line.text))?;
        let Some(rtt_ms) = json["rtt_ms"].as_f64() else {
            continue;
        };
        let time = |ms: &Value| ms.as_f64().map(|ms| Duration::from_secs_f64(ms / 1e3));
        pongs.push(Pong {
            at: line.at,
            link: time(&json["link_ms"]).context("a ping without link_ms")?,
            up: time(&json["up_ms"]).context("a ping without up_ms")?,
            path_since: time(&json["path"]["at_ms"]).context("a ping without path.at_ms")?,
            seq: json["seq"].as_u64().context("a ping without seq")?,
            at_ms: json["at_ms"].as_f64().context("a ping without at_ms")?,
            rtt_ms,
            kind: json["path"]["kind"]
                .as_str()
                .context("a ping without path.kind")?
                .to_owned(),
            remote: json["path"]["remote"].as_str().map(str::to_owned),
            relay: json["path"]["relay"].as_str().map(str::to_owned),
        });
    }
    Ok(pongs)
}

/// `byway netcheck --json`.
pub fn netcheck(internet: &Internet, place: &Place, args: &[&str]) -> Result<Value> {
    netcheck_by(byway(internet, place, "netcheck")?, args)
}

/// The same, which asks the gateway for a port.
pub fn netcheck_asking(internet: &Internet, place: &Place, args: &[&str]) -> Result<Value> {
    let mut command = byway(internet, place, "netcheck")?;
    command.env_remove("BYWAY_NO_PORT_MAPPING");
    netcheck_by(command, args)
}

fn netcheck_by(mut command: Command, args: &[&str]) -> Result<Value> {
    command.args(["netcheck", "--json"]).args(args);
    let done = Running::run("byway netcheck", &mut command, Duration::from_secs(30))?.success()?;
    serde_json::from_str(&done.stdout())
        .with_context(|| format!("not one JSON object: {}", done.stdout()))
}

/// The `byway` command on a place, with a home of its own for each role there.
pub fn byway(internet: &Internet, place: &Place, role: &str) -> Result<Command> {
    let home = if place.name == role {
        home(internet, role)?
    } else {
        home(internet, &format!("{role}-{}", place.name))?
    };
    let mut command = with_clean_home(place.namespace.command(binary("byway")), &home);
    // Port mapping has a scenario of its own; elsewhere there is no gateway that answers it.
    command
        .current_dir(&home)
        .env("BYWAY_NO_PORT_MAPPING", "true");
    if let Some(proxy) = &place.proxy {
        command.env("HTTPS_PROXY", &proxy.url);
    }
    if let Some(roots) = &place.trusts {
        command.env("SSL_CERT_FILE", roots);
    }
    if let Ok(filter) = std::env::var("BYWAY_LAB_VERBOSE") {
        let filter = if filter == "1" { "debug" } else { &filter };
        command.env("RUST_LOG", filter);
    }
    Ok(command)
}

pub(super) fn home(internet: &Internet, role: &str) -> Result<PathBuf> {
    let dir: &Path = internet.dir();
    let home = dir.join(format!("home-{role}"));
    fs::create_dir_all(&home)?;
    Ok(home)
}
