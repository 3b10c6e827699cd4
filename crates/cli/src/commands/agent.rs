//! `byway agent`: stays linked to its relays, lets clients in, serves targets to them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use byway::endpoint::LinkStatus;
use byway::forward::TargetPolicy;
use byway::keyfile;
use byway::tunnel::Tunnel;
use byway::{Admission, Carrier, Endpoint, Health, NodeId};
use serde::Serialize;

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::note;
use crate::output::{self, json_line, print_line};
use crate::state;

/// To the first link. A machine that boots has its network by then; later losses are waited out without end.
const FIRST_LINK: Duration = Duration::from_secs(15);
/// When to tell a person that the first link takes longer than it should.
const IMPATIENCE: Duration = Duration::from_secs(3);

/// One line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Ticket {
        node: String,
        ticket: &'a str,
    },
    Linked {
        relay: String,
        carrier: &'static str,
        observed: Option<std::net::SocketAddr>,
    },
    LinkLost {
        relay: String,
        error: Option<&'a str>,
    },
    Opened {
        peer: String,
        path: &'static str,
    },
    Path {
        peer: String,
        path: &'static str,
        remote: Option<std::net::SocketAddr>,
        /// Milliseconds without an answer, if the path before it died.
        stall_ms: Option<u128>,
    },
    Silent {
        peer: String,
    },
    Heard {
        peer: String,
    },
    Closed {
        peer: String,
        reason: String,
        sent_bytes: u64,
        received_bytes: u64,
    },
}

/// The name of the agent's key in the state folder.
pub(crate) const KEY: &str = "agent.key";

pub(crate) async fn run(args: args::Agent) -> Result<(), Failure> {
    client::check(&args.tunnel)?;
    let policy = policy(&args.allow)?;
    if args.relays.is_empty() && args.relay_map.is_none() {
        return Err(
            Failure::new(Code::Usage, "an agent needs a relay, and none is named")
                .hint("byway agent --relay URL (or BYWAY_RELAY), or --relay-map FILE; byway-relay serve --dev prints the URL of one on this machine"),
        );
    }
    let endpoint = bind(&args).await?;
    let up = Cell::new(false);
    let result = tokio::select! {
        result = serve(&args, &endpoint, &policy, &up) => result,
        // It runs until it is told to end: that is no failure, unless it was never linked.
        interrupted = client::interrupted() => if up.get() { Ok(()) } else { Err(interrupted) },
    };
    endpoint.close().await;
    result
}

fn policy(rules: &[String]) -> Result<TargetPolicy, Failure> {
    rules
        .iter()
        .try_fold(TargetPolicy::loopback(), |policy, rule| {
            policy
                .allow(rule)
                .map_err(|error| Failure::new(Code::Usage, "cannot use --allow").why(error))
        })
}

async fn bind(args: &args::Agent) -> Result<Endpoint, Failure> {
    let path = match &args.key {
        Some(path) => path.clone(),
        None => state::file(KEY)?,
    };
    state::check_key_name(&path)?;
    let key = keyfile::load_or_create(&path).map_err(|error| Failure::key_file(&error))?;
    warn_of_another_agent(&path);
    let admission = if args.allow_node.is_empty() {
        let secret = keyfile::load_or_create_ticket_secret(&state::beside(&path, "ticket-secret"))
            .map_err(|error| Failure::key_file(&error))?;
        Admission {
            secrets: vec![secret],
            ..Admission::default()
        }
    } else {
        Admission {
            nodes: args.allow_node.iter().copied().collect(),
            ..Admission::default()
        }
    };
    let builder = client::builder(&args.tunnel)?
        .secret_key(key)
        .epoch_file(state::beside(&path, "epoch"))
        .accept(admission);
    let builder = args
        .relays
        .iter()
        .fold(builder, |builder, relay| builder.relay(relay.clone()));
    let builder = match &args.relay_map {
        Some(path) => builder.relay_map_file(path),
        None => builder,
    };
    builder.bind().await.map_err(|error| Failure::bind(&error))
}

/// Two agents with one key take the clients from each other; the newest wins. That is right for a restart, and hardly
/// what a person wanted who started a second agent. The lock is held as long as the process lives.
fn warn_of_another_agent(key: &Path) {
    let lock: PathBuf = state::beside(key, "lock");
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock);
    let Ok(file) = opened else { return };
    match file.try_lock() {
        Ok(()) => std::mem::forget(file),
        Err(std::fs::TryLockError::WouldBlock) => tracing::warn!(
            "another agent on this machine uses {}: clients will reach this one only; give each agent a --key of its own",
            key.display()
        ),
        // A file system without locks.
        Err(std::fs::TryLockError::Error(_)) => {}
    }
}

async fn serve(
    args: &args::Agent,
    endpoint: &Endpoint,
    policy: &TargetPolicy,
    up: &Cell<bool>,
) -> Result<(), Failure> {
    watch_links(args.json, endpoint);
    first_link(endpoint).await?;
    let mut found_at = endpoint.found_at();
    found_at.mark_unchanged();
    announce(args, endpoint)?;
    up.set(true);
    loop {
        tokio::select! {
            tunnel = endpoint.accept() => match tunnel {
                Some(tunnel) => {
                    tunnel.serve(policy.clone());
                    watch_tunnel(args.json, tunnel);
                }
                None => break,
            },
            Ok(()) = found_at.changed() => announce_anew(args, endpoint),
        }
    }
    Err(Failure::new(Code::Failed, "the agent ended")
        .why("another agent with the same key may have taken over")
        .hint("give each agent a --key of its own"))
}

async fn first_link(endpoint: &Endpoint) -> Result<(), Failure> {
    if endpoint.online(IMPATIENCE).await.is_ok() {
        return Ok(());
    }
    for link in endpoint.links().borrow().iter() {
        // Those with an error were told of.
        if link.error.is_none() {
            note!("byway: no link to {} yet: no answer; trying on", link.relay);
        }
    }
    endpoint
        .online(FIRST_LINK - IMPATIENCE)
        .await
        .map_err(|error| Failure::connect("a relay", &error))
}

/// Says who we are and how to come in, and writes the ticket.
fn announce(args: &args::Agent, endpoint: &Endpoint) -> Result<(), Failure> {
    let ticket = endpoint.ticket(args.name.as_deref()).to_string();
    write_ticket(args, &ticket)?;
    let style = output::stderr();
    show_ticket(args, endpoint, &ticket, || {
        note!(
            "{} is online. Whoever has this ticket can reach it, for example with: {}",
            style.bold(args.name.as_deref().unwrap_or(&endpoint.node_id().short())),
            style.dim("byway forward TICKET 8080"),
        );
    });
    Ok(())
}

/// The relays that tickets name are others. Old ones serve as long as one of theirs does.
fn announce_anew(args: &args::Agent, endpoint: &Endpoint) {
    let ticket = endpoint.ticket(args.name.as_deref()).to_string();
    // A disk that is full now is no reason to end tunnels.
    if let Err(failure) = write_ticket(args, &ticket) {
        tracing::error!("{}", failure.summary());
    }
    show_ticket(args, endpoint, &ticket, || {
        note!("byway: the relays are others than those of the ticket before; this one names them");
    });
}

fn write_ticket(args: &args::Agent, ticket: &str) -> Result<(), Failure> {
    let Some(path) = &args.ticket_file else {
        return Ok(());
    };
    state::replace(path, format!("{ticket}\n").as_bytes()).map_err(|error| {
        Failure::new(Code::Failed, "cannot write the ticket")
            .why(format!("{}: {error}", path.display()))
    })
}

fn show_ticket(args: &args::Agent, endpoint: &Endpoint, ticket: &str, say: impl FnOnce()) {
    if args.json {
        let node = endpoint.node_id().to_string();
        json_line(&Event::Ticket { node, ticket });
    } else {
        say();
        print_line(ticket);
    }
}

/// Reports links as they come and go.
fn watch_links(json: bool, endpoint: &Endpoint) {
    let mut links = endpoint.links();
    tokio::spawn(async move {
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        loop {
            let now = links.borrow_and_update().clone();
            for link in &now {
                report_link(json, &mut told, link);
            }
            let known = |relay: &String| now.iter().any(|link| link.relay.to_string() == *relay);
            for (relay, _) in told.extract_if(.., |relay, _| !known(relay)) {
                report_left(json, relay);
            }
            if links.changed().await.is_err() {
                return;
            }
        }
    });
}

/// What was last told of a relay.
#[derive(PartialEq)]
enum Told {
    Up(Carrier),
    Down(String),
}

/// Says what is new of a relay: each coming and going, and why one cannot be linked to, once for each reason.
fn report_link(json: bool, told: &mut BTreeMap<String, Told>, link: &LinkStatus) {
    let relay = link.relay.to_string();
    let now = match (link.carrier, &link.error) {
        (Some(carrier), _) => Told::Up(carrier),
        (None, Some(error)) => Told::Down(error.clone()),
        // Being dialled for the first time, or going down: the reason follows.
        (None, None) => return,
    };
    let before = told.get(&relay);
    if before == Some(&now) {
        return;
    }
    match &now {
        Told::Up(carrier) => {
            let carrier = client::carrier_name(*carrier);
            if json {
                json_line(&Event::Linked {
                    relay: relay.clone(),
                    carrier,
                    observed: link.observed,
                });
            } else {
                note!("byway: linked to {relay} over {carrier}");
            }
        }
        Told::Down(error) => {
            let lost = matches!(before, Some(Told::Up(_)));
            if json {
                json_line(&Event::LinkLost {
                    relay: relay.clone(),
                    error: Some(error),
                });
            } else if lost {
                note!("byway: lost the link to {relay}: {error}; trying again");
            } else {
                note!("byway: no link to {relay}: {error}; trying on");
            }
        }
    }
    told.insert(relay, now);
}

/// Says of a relay that it was left for good.
fn report_left(json: bool, relay: String) {
    if json {
        json_line(&Event::LinkLost { relay, error: None });
    } else {
        note!("byway: left {relay}: the relay map names it no more");
    }
}

/// Reports what a client's tunnel does, from its first moment to its end.
fn watch_tunnel(json: bool, tunnel: Tunnel) {
    tokio::spawn(async move {
        let peer = tunnel.remote();
        let mut path = tunnel.path();
        let mut kind = path.borrow_and_update().kind;
        let mut silent = false;
        if json {
            json_line(&Event::Opened {
                peer: peer.to_string(),
                path: client::kind_name(kind),
            });
        } else {
            let path = client::describe_path(&tunnel);
            note!("byway: {} came in by {path}", peer.short());
        }
        let reason = loop {
            tokio::select! {
                biased;
                reason = tunnel.closed() => break reason,
                Ok(()) = path.changed() => {}
            }
            let now = path.borrow_and_update().clone();
            if (now.health == Health::Lost) != silent {
                silent = !silent;
                report_silence(json, peer, silent);
            }
            if now.kind == kind {
                continue;
            }
            kind = now.kind;
            if json {
                json_line(&Event::Path {
                    peer: peer.to_string(),
                    path: client::kind_name(kind),
                    remote: now.remote,
                    stall_ms: now.stall.map(|stall| stall.as_millis()),
                });
            } else {
                let path = client::describe_path(&tunnel);
                let after = client::after_stall(now.stall);
                note!("byway: {}: path is {path}{after}", peer.short());
            }
        };
        let stats = tunnel.stats();
        if json {
            json_line(&Event::Closed {
                peer: peer.to_string(),
                reason: reason.to_string(),
                sent_bytes: stats.sent_bytes,
                received_bytes: stats.received_bytes,
            });
        } else {
            note!("byway: {} left: {reason}", peer.short());
        }
    });
}

fn report_silence(json: bool, peer: NodeId, silent: bool) {
    match (json, silent) {
        (true, true) => json_line(&Event::Silent {
            peer: peer.to_string(),
        }),
        (true, false) => json_line(&Event::Heard {
            peer: peer.to_string(),
        }),
        (false, _) => note!("byway: {}: {}", peer.short(), client::silence(silent)),
    }
}
