//! The command line (design section 13: scripts are written against it).
//!
//! Every long option reads its default from `BYWAY_<NAME>`; that is added to all of them in one place ([`command`])
//! rather than at each.

use std::convert::Infallible;
use std::path::PathBuf;

use byway::{Congestion, LinkMode, NodeId, Proxy, RelayUrl, Target};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::commands::forward::Spec;
use crate::failure::{Code, Failure};

/// Share a workspace's ports, and reach them from anywhere: directly where two networks let it, through a relay where
/// they do not.
#[derive(Debug, Parser)]
#[command(name = "byway", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more on standard error; twice for details, three times for everything.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show one tunnel from beginning to end: relay, agent, client and a web server in this process.
    Demo(Demo),
    /// Let clients reach ports of this machine; prints a ticket for them.
    Agent(Agent),
    /// Listen on local ports that lead to ports behind an agent.
    Forward(Forward),
    /// Connect standard input and output to one target behind an agent (an ssh ProxyCommand).
    Stdio(Stdio),
    /// Run the system's ssh to an agent's machine.
    Ssh(Ssh),
    /// Measure the round trip to an agent, and see by which path it goes.
    Ping(Ping),
    /// Look at the network from here: NAT, UDP, relays. Ends 5 if no relay, or nobody at all, could be reached.
    Netcheck(Netcheck),
    /// Keep tickets under short names.
    #[command(subcommand)]
    Alias(Alias),
    /// Show the id of this client, or of this machine's agent: what --allow-node and admission tokens name.
    Id(Id),
}

/// Where the admission token comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Token {
    /// The admission token for relays that ask for one. Others on this machine can read it on a command line: better BYWAY_TOKEN, or one of
    /// the next two.
    #[arg(long, value_name = "TOKEN", value_parser = TokenText::read, conflicts_with_all = ["token_file", "token_command"])]
    pub(crate) token: Option<TokenText>,
    /// A file that holds the admission token; read again when it is to be renewed.
    #[arg(long, value_name = "FILE", conflicts_with = "token_command")]
    pub(crate) token_file: Option<PathBuf>,
    /// A command that prints the admission token; run again when it is to be renewed.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) token_command: Option<String>,
}

/// What every command that makes a tunnel takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Tunnel options")]
pub(crate) struct Tunnel {
    /// Stay on the relay: never look for a direct path.
    #[arg(long)]
    pub(crate) no_direct: bool,
    /// How to reach relays.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) link: Link,
    /// Do not ask the gateway for a port (PCP, NAT-PMP, UPnP).
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
    /// For how long the gateway's port is asked at a time, in seconds; an hour otherwise. It is renewed while this runs, and
    /// given back at the end.
    #[arg(long, value_name = "SECONDS", hide_short_help = true, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub(crate) port_mapping_lifetime: Option<u64>,
    /// Do not try many ports where a NAT gives every destination another one; such pairs stay on the relay.
    #[arg(long)]
    pub(crate) no_spray: bool,
    /// What makes this side send less: any loss (cubic), loss that comes of sending too much (tolerant: mostly much faster where packets
    /// are lost all the time, but a transfer slept over for hours may go on late), or what the path seems to deliver (bbr: experimental, and takes nearly everything from others
    /// where queues are short).
    #[arg(long, value_enum, default_value = "cubic")]
    pub(crate) congestion: CongestionName,
    /// Reach relays over TLS through this proxy, SCHEME://HOST:PORT with http or socks5 and, where it asks, USER:PASSWORD@ before
    /// the host; or none. Without it: the one of HTTPS_PROXY or ALL_PROXY, but for hosts in NO_PROXY.
    #[arg(long, value_name = "URL", value_parser = ProxyText::read)]
    pub(crate) proxy: Option<ProxyText>,
    #[command(flatten)]
    pub(crate) token: Token,
}

/// The value of `--congestion`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CongestionName {
    #[default]
    Cubic,
    Tolerant,
    Bbr,
}

impl CongestionName {
    pub(crate) fn kind(self) -> Congestion {
        match self {
            Self::Cubic => Congestion::Cubic,
            Self::Tolerant => Congestion::Tolerant,
            Self::Bbr => Congestion::Bbr,
        }
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Tolerant => "tolerant",
            Self::Bbr => "bbr",
        }
    }
}

/// The value of `--token` as it was written: a secret, that nothing shows.
#[derive(Clone)]
pub(crate) struct TokenText(String);

impl TokenText {
    fn read(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
    /// For an environment, which others cannot read.
    pub(crate) fn as_written(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// The value of `--proxy` as it was written. It may hold a password: nothing shows it, and it is judged later than by clap,
/// which repeats what it refuses.
#[derive(Clone)]
pub(crate) struct ProxyText(String);

impl ProxyText {
    fn read(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
    /// For an environment, which others cannot read.
    pub(crate) fn as_written(&self) -> &str {
        &self.0
    }
    /// What it means.
    pub(crate) fn parse(&self) -> Result<Proxy, Failure> {
        self.0.parse().map_err(|error| {
            Failure::new(Code::Usage, "cannot use --proxy")
                .why(error)
                .hint(
                    "--proxy http://HOST:PORT, socks5://HOST:PORT or none; the same in BYWAY_PROXY",
                )
        })
    }
}

impl std::fmt::Debug for ProxyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxyText(..)")
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// UDP; TLS where UDP does not work.
    #[default]
    Auto,
    /// UDP only.
    Udp,
    /// TLS only.
    Tls,
}

impl Link {
    pub(crate) fn mode(self) -> LinkMode {
        match self {
            Self::Auto => LinkMode::Auto,
            Self::Udp => LinkMode::Udp,
            Self::Tls => LinkMode::Tls,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How much to download over each kind of path. By default 256MiB, or less where a path would need longer than a
    /// few seconds for it.
    #[arg(long, value_parser = demo_size)]
    pub(crate) size: Option<u64>,
    /// End with one JSON object on standard output; the story goes to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// What clients see this agent called.
    #[arg(long, value_parser = agent_name)]
    pub(crate) name: Option<String>,
    /// A relay to stay linked to, as it printed its URL; may be repeated.
    #[arg(long = "relay", value_name = "URL[#PIN]", value_delimiter = ',')]
    pub(crate) relays: Vec<RelayUrl>,
    /// A relay map: stay linked to the relays that this file names, as well. It is followed: relays that are new in it are linked, those
    /// that are gone are left, and no tunnel ends.
    #[arg(long, value_name = "FILE")]
    pub(crate) relay_map: Option<PathBuf>,
    /// The agent's key; made if missing. Two agents need two keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Let clients reach PORT (loopback), HOST:PORT, HOST:*, CIDR:PORT or CIDR:*; may be repeated. Without it: all
    /// loopback ports.
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Let in only these nodes, whether they have a ticket or not; may be repeated. Without it: whoever has a ticket.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) allow_node: Vec<NodeId>,
    /// Write the ticket to this file (mode 0600) once linked, and when the relays that it names are others.
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// One JSON object an event on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) tunnel: Tunnel,
}

#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// A ticket, @FILE with a ticket in it, or an alias.
    pub(crate) peer: String,
    /// PORT, or `[BIND:]PORT:HOST:PORT`; BIND is 127.0.0.1 unless given, HOST is resolved at the agent.
    #[arg(required = true, value_name = "FORWARD")]
    pub(crate) forwards: Vec<Spec>,
    #[command(flatten)]
    pub(crate) tunnel: Tunnel,
}

#[derive(Debug, Args)]
pub(crate) struct Stdio {
    /// A ticket, @FILE with a ticket in it, or an alias.
    pub(crate) peer: String,
    /// PORT or HOST:PORT at the agent.
    #[arg(value_parser = target)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) tunnel: Tunnel,
}

#[derive(Debug, Args)]
pub(crate) struct Ssh {
    /// PEER: a ticket, @FILE with a ticket in it, or an alias. ARGS: options for ssh, USER@ to log in as another user, a
    /// command to run.
    // One argument rather than two: whatever stands behind the peer is ssh's, `-v` as well.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_names = ["PEER", "ARGS"],
        num_args = 1..
    )]
    words: Vec<String>,
    #[command(flatten)]
    pub(crate) tunnel: Tunnel,
}

impl Ssh {
    /// The peer and what is meant for ssh; fails if an unknown option stands where the peer should.
    pub(crate) fn split(&self) -> Result<(&str, &[String]), Failure> {
        match self.words.split_first() {
            Some((peer, args)) if !peer.starts_with('-') => Ok((peer, args)),
            _ => Err(
                Failure::new(Code::Usage, "byway ssh needs a peer before options for ssh")
                    .hint("byway ssh [OPTIONS] PEER [ARGS...]"),
            ),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// A ticket, @FILE with a ticket in it, or an alias.
    pub(crate) peer: String,
    /// Stop after this many.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Stop as soon as the path is direct; fail if it is not after N pings (40 unless -c says otherwise).
    #[arg(long)]
    pub(crate) until_direct: bool,
    /// A new tunnel for each ping, three seconds apart: how long connecting takes once there is a link to the relay.
    #[arg(long, conflicts_with = "until_direct")]
    pub(crate) fresh: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) tunnel: Tunnel,
}

#[derive(Debug, Args)]
pub(crate) struct Netcheck {
    /// A relay to ask, as it printed its URL; may be repeated.
    #[arg(long = "relay", value_name = "URL[#PIN]", value_delimiter = ',')]
    pub(crate) relays: Vec<RelayUrl>,
    /// A relay map: ask the relays that this file names, as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) relay_map: Option<PathBuf>,
    /// A STUN server to ask; may be repeated.
    #[arg(long = "stun", value_name = "HOST:PORT", value_delimiter = ',', value_parser = host_port)]
    pub(crate) stun: Vec<String>,
    /// Do not ask the gateway for a port (PCP, NAT-PMP, UPnP).
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
    /// Reach relays over TLS through this proxy, SCHEME://HOST:PORT with http or socks5 and, where it asks, USER:PASSWORD@ before
    /// the host; or none. Without it: the one of HTTPS_PROXY or ALL_PROXY, but for hosts in NO_PROXY.
    #[arg(long, value_name = "URL", value_parser = ProxyText::read)]
    pub(crate) proxy: Option<ProxyText>,
    #[command(flatten)]
    pub(crate) token: Token,
    /// One JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The agent's rather than the client's.
    #[arg(long)]
    pub(crate) agent: bool,
    /// That of another key.
    #[arg(long, value_name = "FILE", conflicts_with = "agent")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Alias {
    /// Keep a ticket under a name; replaces what the name meant before.
    Add {
        /// Letters, digits, '-', '_' and '.'.
        name: String,
        /// A ticket, @FILE with a ticket in it, or another alias.
        ticket: String,
    },
    /// Show the names, and this client's own id.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Forget a name.
    Remove {
        /// The name.
        name: String,
    },
}

/// Reads the command line and the environment; ends the process on `--help` and on bad usage (exit code 2).
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command with an environment variable behind every long option.
fn command() -> clap::Command {
    with_environment(Cli::command())
}

fn with_environment(mut command: clap::Command) -> clap::Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        command = command.mut_subcommand(name, with_environment);
    }
    command.mut_args(|arg| {
        let Some(long) = arg.get_long() else {
            return arg;
        };
        if matches!(
            arg.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        ) {
            return arg;
        }
        // Leaked, once for each option: clap keeps `'static` names.
        let name: &'static str = format!("BYWAY_{}", long.to_uppercase().replace('-', "_")).leak();
        let flag = matches!(arg.get_action(), ArgAction::SetTrue);
        // An empty variable says nothing: a script that passes on what it does not have means no value.
        if !flag && std::env::var_os(name).is_some_and(|value| value.is_empty()) {
            return arg;
        }
        let arg = arg.env(name).hide_env_values(true);
        if flag {
            // BYWAY_JSON=1 and BYWAY_JSON=true switch it on, 0, false, no and nothing leave it off.
            arg.value_parser(clap::builder::FalseyValueParser::new())
        } else {
            arg
        }
    })
}

/// `PORT` means localhost, in either family: servers of many tools listen on one of them only.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let target: Target = format!("localhost:{text}")
            .parse()
            .map_err(|error: byway::TargetError| error.to_string())?;
        return Ok(target);
    }
    text.parse()
        .map_err(|error: byway::TargetError| error.to_string())
}

/// More than this is no demonstration: the known checksum of it alone takes a minute.
const LARGEST_DEMO: u64 = 16 << 30;

fn demo_size(text: &str) -> Result<u64, String> {
    let size = crate::size::parse(text)?;
    if size > LARGEST_DEMO {
        return Err("the demo moves at most 16GiB over each path".to_owned());
    }
    Ok(size)
}

/// Tickets and other people's terminals carry it.
fn agent_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
        return Err("a name has 1 to 64 bytes and no control characters".to_owned());
    }
    Ok(text.to_owned())
}

fn host_port(text: &str) -> Result<String, String> {
    let bad = || format!("'{text}' is not a STUN server: write HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    if port == 0 || host.is_empty() || !host.bytes().all(plain) {
        return Err(bad());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_long_option_has_its_environment_variable() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let name = format!("BYWAY_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(arg.get_env().unwrap(), name.as_str(), "--{long}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }

    fn parsed(args: &[&str]) -> Result<Cli, clap::Error> {
        let matches = command().try_get_matches_from(args)?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn everything_behind_the_peer_belongs_to_ssh() {
        let cli = parsed(&[
            "byway", "ssh", "--link", "tls", "work", "-v", "-L", "1:b:2", "ls",
        ])
        .unwrap();
        let Command::Ssh(ssh) = cli.command else {
            panic!("not ssh");
        };
        let (peer, args) = ssh.split().unwrap();
        assert_eq!(peer, "work");
        assert_eq!(ssh.tunnel.link, Link::Tls);
        assert_eq!(args, ["-v", "-L", "1:b:2", "ls"]);
        assert_eq!(cli.verbose, 0);

        let cli = parsed(&["byway", "ssh", "--bogus", "work"]).unwrap();
        let Command::Ssh(ssh) = cli.command else {
            panic!("not ssh");
        };
        assert_eq!(ssh.split().unwrap_err().code, Code::Usage);
        assert!(parsed(&["byway", "ssh"]).is_err());
    }

    #[test]
    fn a_proxys_password_is_in_no_message() {
        let words = ["byway", "ping", "work", "--proxy", "ftp://me:hunter2@proxy"];
        let cli = parsed(&words).unwrap();
        let shown = format!("{cli:?}");
        let Command::Ping(ping) = cli.command else {
            panic!("not ping");
        };
        let failure = ping.tunnel.proxy.unwrap().parse().unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(!format!("{shown} {failure:?}").contains("hunter2"));
    }

    #[test]
    fn bad_usage_has_exit_code_2() {
        for bad in [
            &["byway"][..],
            &["byway", "frobnicate"],
            &["byway", "forward", "work"],
            &["byway", "ping", "work", "-c", "many"],
            &["byway", "ping", "work", "-c", "0"],
            &["byway", "stdio", "work", "no port"],
            &["byway", "netcheck", "--stun", "not an address"],
            &["byway", "netcheck", "--stun", "host:0"],
            &["byway", "agent", "--relay", "http://plain"],
            &["byway", "agent", "--allow-node", "me"],
            &["byway", "demo", "--size", "much"],
            &["byway", "demo", "--size", "17GiB"],
            &["byway", "ping", "work", "--link", "pigeon"],
        ] {
            let error = parsed(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}: {error}");
        }
    }
}
