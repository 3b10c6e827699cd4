//! What `forward`, `stdio`, `ssh` and `ping` share: an endpoint with this person's key, and a tunnel to the peer.

use byway::endpoint::Builder;
use byway::keyfile::{self, KeyFileError};
use byway::tunnel::Tunnel;
use byway::{Endpoint, Health, PathKind};

use crate::args;
use crate::failure::{Code, Failure};
use crate::peer::Peer;
use crate::state;

/// The name of the clients' key in the state folder.
pub(crate) const CLIENT_KEY: &str = "client.key";

/// Refuses what this version cannot do, before anything is started.
pub(crate) fn check(options: &args::Tunnel) -> Result<(), Failure> {
    if options.no_port_mapping {
        tracing::info!("there is no port mapping in this version that could be switched off");
    }
    if options.proxy.is_some() {
        return Err(Failure::new(Code::Usage, "--proxy is not supported yet")
            .why("this version reaches relays without a proxy only")
            .hint("leave --proxy (and BYWAY_PROXY) away"));
    }
    Ok(())
}

/// An endpoint's settings by the options every tunnel has.
pub(crate) fn builder(options: &args::Tunnel) -> Builder {
    Endpoint::builder()
        .links(options.link.mode())
        .direct(!options.no_direct)
}

/// A client's endpoint.
pub(crate) async fn bind(options: &args::Tunnel) -> Result<Endpoint, Failure> {
    check(options)?;
    let mut builder = builder(options);
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
    let path = tunnel.path();
    let path = path.borrow();
    let remote = path
        .remote
        .map_or_else(String::new, |remote| format!(" {remote}"));
    match path.kind {
        PathKind::Direct => format!("direct{remote}"),
        PathKind::RelayUdp => format!("relay{remote} over UDP"),
        PathKind::RelayTls => format!("relay{remote} over TLS"),
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
                let what = if silent {
                    "nothing is heard any more; waiting"
                } else {
                    "heard again"
                };
                eprintln!("byway: {label}: {what}");
            }
            if now != shown {
                eprintln!("byway: {label}: path is {now}");
                shown = now;
            }
            tokio::select! {
                changed = path.changed() => if changed.is_err() { return },
                _ = tunnel.closed() => return,
            }
        }
    });
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    // A process that cannot be told to stop nicely can still be killed.
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
