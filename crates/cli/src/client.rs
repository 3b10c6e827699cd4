//! What `forward`, `stdio`, `ssh` and `ping` share: an endpoint with this person's key, and a tunnel to the peer.

use std::time::Duration;

use byway::endpoint::Builder;
use byway::keyfile::{self, KeyFileError};
use byway::tunnel::Tunnel;
use byway::{Carrier, Endpoint, Health, PathInfo, PathKind, Proxy, RelayToken};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{self, ProxyText};
use crate::failure::{Code, Failure};
use crate::note;
use crate::output;
use crate::peer::Peer;
use crate::state;

/// The name of the clients' key in the state folder.
pub(crate) const CLIENT_KEY: &str = "client.key";

/// Refuses what cannot be, before anything is started.
pub(crate) fn check(options: &args::Tunnel) -> Result<(), Failure> {
    builder(options).map(drop)
}

/// What `--proxy` means; without it the environment decides.
pub(crate) fn proxy(option: Option<&ProxyText>) -> Result<Proxy, Failure> {
    option.map_or(Ok(Proxy::Environment), ProxyText::parse)
}

/// An endpoint's settings by the options every tunnel has.
pub(crate) fn builder(options: &args::Tunnel) -> Result<Builder, Failure> {
    let builder = match options.port_mapping_lifetime {
        Some(seconds) => Endpoint::builder().port_mapping_lifetime(Duration::from_secs(seconds)),
        None => Endpoint::builder(),
    };
    Ok(with_token(builder, &options.token)?
        .links(options.link.mode())
        .proxy(proxy(options.proxy.as_ref())?)
        .direct(!options.no_direct)
        .port_mapping(!options.no_port_mapping)
        .spray(!options.no_spray)
        .congestion(options.congestion.kind()))
}

/// With the admission token, if one is named.
pub(crate) fn with_token(builder: Builder, options: &args::Token) -> Result<Builder, Failure> {
    let source = match options {
        args::Token {
            token: Some(token), ..
        } => {
            let fixed = RelayToken::fixed(token.as_written());
            fixed.map_err(|error| Failure::new(Code::Usage, "cannot use --token").why(error))?
        }
        args::Token {
            token_file: Some(path),
            ..
        } => RelayToken::file(path),
        args::Token {
            token_command: Some(command),
            ..
        } => RelayToken::command(command),
        _ => return Ok(builder),
    };
    Ok(builder.relay_token(source))
}

/// A client's endpoint.
pub(crate) async fn bind(options: &args::Tunnel) -> Result<Endpoint, Failure> {
    let mut builder = builder(options)?;
    // A folder that cannot be written is no reason not to connect with a ticket, only not to be recognised again.
    match state::file(CLIENT_KEY) {
        Ok(path) => match keyfile::load_or_create(&path) {
            Ok(key) => {
                builder = builder
                    .secret_key(key)
                    .epoch_file(state::beside(&path, "epoch"));
            }
            Err(KeyFileError::Io { source, .. }) => {
                tracing::warn!(
                    "{}: {source}; this client is a new node each time",
                    path.display()
                );
            }
            Err(error) => return Err(Failure::key_file(&error)),
        },
        Err(failure) => {
            tracing::warn!("{}; this client is a new node each time", failure.summary());
        }
    }
    builder.bind().await.map_err(|error| Failure::bind(&error))
}

/// A tunnel to the peer.
pub(crate) async fn connect(endpoint: &Endpoint, peer: &Peer) -> Result<Tunnel, Failure> {
    let tunnel = endpoint
        .connect(&peer.ticket)
        .await
        .map_err(|error| Failure::connect(&peer.label, &error))?;
    tracing::info!(path = %describe_path(&tunnel), "connected to {}", peer.label);
    Ok(tunnel)
}

/// The path in use, for people.
pub(crate) fn describe_path(tunnel: &Tunnel) -> String {
    describe(&tunnel.path().borrow())
}

/// A path, for people.
pub(crate) fn describe(path: &PathInfo) -> String {
    // Through a proxy the relay has no address here, but it always has a name.
    let remote = match (path.remote, &path.relay) {
        (Some(remote), _) => format!(" {remote}"),
        (None, Some(relay)) => format!(" {}", relay.authority()),
        (None, None) => String::new(),
    };
    match path.kind {
        PathKind::Direct => format!("direct{remote}"),
        PathKind::RelayUdp => format!("relay{remote} over UDP"),
        PathKind::RelayTls => format!("relay{remote} over TLS"),
    }
}

/// The other side fell silent, or is heard again, for people.
pub(crate) fn silence(begins: bool) -> &'static str {
    if begins {
        "nothing is heard any more; waiting"
    } else {
        "heard again"
    }
}

/// What a failover cost, for people.
pub(crate) fn after_stall(stall: Option<Duration>) -> String {
    stall.map_or_else(String::new, |stall| {
        format!(", after {} ms without an answer", stall.as_millis())
    })
}

/// A carrier by the name scripts know.
pub(crate) fn carrier_name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Udp => "udp",
        Carrier::Tls => "tls",
    }
}

/// A kind of path by the name scripts know.
pub(crate) fn kind_name(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Direct => "direct",
        PathKind::RelayUdp => "relay_udp",
        PathKind::RelayTls => "relay_tls",
    }
}

/// Tells on standard error how the path changes and when the other side falls silent, until the tunnel ends.
pub(crate) fn log_path_changes(tunnel: &Tunnel, label: &str) {
    let (tunnel, label) = (tunnel.clone(), label.to_owned());
    tokio::spawn(async move {
        let mut path = tunnel.path();
        let mut shown = String::new();
        let mut silent = false;
        loop {
            let health = path.borrow_and_update().health;
            let now = describe_path(&tunnel);
            if (health == Health::Lost) != silent {
                silent = !silent;
                note!("byway: {label}: {}", silence(silent));
            }
            let stall = path.borrow().stall;
            if now != shown {
                let after = after_stall(stall);
                let why = path.borrow().reason;
                note!("byway: {label}: path is {now}{after} ({why})");
                shown = now;
            }
            tokio::select! {
                changed = path.changed() => if changed.is_err() { return },
                _ = tunnel.closed() => return,
            }
        }
    });
}

/// Waits until the command is to end: Ctrl-C, SIGTERM, a terminal or an ssh that hung up, or nobody left who reads what
/// is printed. The caller then closes its tunnels and links, which others would keep for minutes. For a command that had
/// something to finish, what this returns is its failure.
pub(crate) async fn interrupted() -> Failure {
    let signal = tokio::select! {
        () = received(SignalKind::interrupt()) => Code::Interrupted,
        () = received(SignalKind::terminate()) => Code::Terminated,
        // Whoever runs us under nohup has it ignored, and means it.
        () = received(SignalKind::hangup()), if !is_hangup_ignored() => Code::HungUp,
        () = output::reader_gone() => Code::Failed,
    };
    Failure::new(signal, "interrupted")
}

/// A process that cannot be told to stop nicely can still be killed: an error waits for ever.
async fn received(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// By `SigIgn` of proc(5); where there is no such file, not.
fn is_hangup_ignored() -> bool {
    /// Signal 1 is the lowest bit.
    const HANGUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & HANGUP != 0)
}
