//! `byway demo`: one tunnel from beginning to end, with everything it needs in this process.
//!
//! A relay, an agent with a web server behind it, and clients, each on sockets of its own, all on loopback. The first
//! client tells the story: tunnel over the relay, first byte, direct path. Then the same bytes are downloaded over each
//! kind of path, by real HTTP through a real local port, and their checksum is compared with the known one. That a
//! download really used its kind of path is checked at both ends: by the client's path before, during and after, by
//! what it sent itself on each kind, and by what the agent counted as sent straight or by its own link to the relay.

mod content;
mod http;
mod story;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use byway::forward::{Forward, TargetPolicy};
use byway::tunnel::{Tunnel, TunnelStats};
use byway::{
    Admission, Endpoint, LinkMode, NodeId, PathKind, RelayUrl, SecretKey, Target, Ticket,
    TicketSecret,
};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::output;
use crate::size;
use story::{Story, ms};

/// What each path downloads, unless that takes it too long or `--size` says otherwise.
const DEFAULT_SIZE: u64 = 256 << 20;
/// What is downloaded before, to open the congestion window and to see how fast the path is.
const TRIAL_SIZE: u64 = 8 << 20;
/// How long one download may take by that estimate: three of them and all else stay under 15 s.
const BUDGET: Duration = Duration::from_secs(3);
/// Less would measure the start more than the path.
const LEAST_SIZE: u64 = 16 << 20;
/// A first page: what the application waits for when it is opened.
const PAGE: u64 = 1024;
/// On loopback a direct path takes some milliseconds; after this it is not coming.
const DIRECT_DEADLINE: Duration = Duration::from_secs(5);
/// Every socket of the demo is bound here: nothing of it can be reached from outside, and no firewall is in its way.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// To link to a relay in the same process.
const LINK_DEADLINE: Duration = Duration::from_secs(5);

/// The last line of `--json`.
#[derive(Serialize)]
struct Summary {
    ok: bool,
    first_byte_ms: f64,
    direct_ms: f64,
    paths: Paths,
}

#[derive(Serialize)]
struct Paths {
    relay_udp: Measured,
    relay_tls: Measured,
    direct: Measured,
}

#[derive(Serialize)]
struct Measured {
    mib_s: f64,
    sha256_ok: bool,
    #[serde(skip)]
    size: u64,
    #[serde(skip)]
    rtt_ms: f64,
}

pub(crate) async fn run(args: args::Demo) -> Result<(), Failure> {
    let story = Story::new(args.json);
    tokio::select! {
        result = tell(&args, &story) => result,
        _ = client::interrupted() => Err(Failure::new(Code::Failed, "interrupted")),
    }
}

async fn tell(args: &args::Demo, story: &Story) -> Result<(), Failure> {
    let config = byway_relay::ServerConfig::dev();
    let relay = byway_relay::Server::start(config).await.map_err(|error| {
        Failure::new(Code::Failed, "the relay does not start").why(format!("{error:#}"))
    })?;
    story.step(&format!("relay      at {}", short(&relay.url())));
    let web = http::serve()
        .await
        .map_err(|error| Failure::new(Code::Failed, "the web server does not start").why(error))?;
    story.step(&format!("web server at http://{web}, behind the agent"));
    let agent = Agent::start(&relay.url()).await?;
    story.step(&format!(
        "agent      {} is linked to the relay",
        agent.ticket.node.short()
    ));

    let (first, direct) = opening(&agent, web, story).await?;
    let scene = Scene {
        agent: &agent,
        web,
        story,
        size: args.size,
    };
    let paths = Paths {
        relay_udp: scene.measure(PathKind::RelayUdp, LinkMode::Udp).await?,
        relay_tls: scene.measure(PathKind::RelayTls, LinkMode::Tls).await?,
        direct: scene.measure(PathKind::Direct, LinkMode::Auto).await?,
    };
    agent.endpoint.close().await;
    relay.stop().await;

    let all = [&paths.relay_udp, &paths.relay_tls, &paths.direct];
    let summary = Summary {
        ok: all.iter().all(|path| path.sha256_ok),
        first_byte_ms: ms(first),
        direct_ms: ms(direct),
        paths,
    };
    conclude(story, &summary);
    if args.json {
        output::json_line(&summary);
    }
    if summary.ok {
        Ok(())
    } else {
        Err(Failure::new(Code::Failed, "bytes arrived changed")
            .why("a checksum differs from the known one"))
    }
}

/// The first tunnel: how long until the first byte, how long until the direct path.
async fn opening(
    agent: &Agent,
    web: SocketAddr,
    story: &Story,
) -> Result<(Duration, Duration), Failure> {
    let endpoint = client_endpoint(LinkMode::Auto, true).await?;
    let began = Instant::now();
    let tunnel = open(&endpoint, &agent.ticket).await?;
    story.step(&format!(
        "tunnel     is up {:.1} ms after the client began, by {}",
        ms(began.elapsed()),
        client::describe_path(&tunnel)
    ));
    // Side by side, each told when it happens: on loopback the direct path may be there before the first page.
    let direct = async {
        let direct = tokio::time::timeout(DIRECT_DEADLINE, tunnel.wait_for(PathKind::Direct));
        if !matches!(direct.await, Ok(Ok(()))) {
            return Err(Failure::new(Code::NoPath, "no direct path came up")
                .why(format!(
                    "after {DIRECT_DEADLINE:?} the path is {}",
                    client::describe_path(&tunnel)
                ))
                .hint("does a firewall forbid UDP on loopback?"));
        }
        let took = began.elapsed();
        // Loopback is offered only where a relay attests that both are on one host, and is no address of the host's.
        let candidates = endpoint.addresses().borrow().len();
        let others = match candidates {
            0 => String::new(),
            n => format!(", beside {n} others"),
        };
        story.step(&format!(
            "candidates loopback addresses were offered both ways{others}: the relay sees both on this host"
        ));
        story.step(&format!(
            "direct     {:.1} ms after the client began, by {}; the same connection all along",
            ms(took),
            client::describe_path(&tunnel)
        ));
        Ok(took)
    };
    let first = async {
        let forward = forward(&tunnel, web, story).await?;
        let page = http::get(forward.local_addr(), PAGE, |_| {})
            .await
            .map_err(|error| {
                Failure::new(Code::Failed, "the first page did not come").why(error)
            })?;
        let took = began.elapsed();
        story.step(&format!(
            "first byte {:.1} ms after the client began ({:.1} ms for the page itself)",
            ms(took),
            ms(page.first_byte)
        ));
        Ok(took)
    };
    let (first, direct) = tokio::try_join!(first, direct)?;
    tunnel.close();
    endpoint.close().await;
    Ok((first, direct))
}

/// What the measurements share.
struct Scene<'a> {
    agent: &'a Agent,
    web: SocketAddr,
    story: &'a Story,
    size: Option<u64>,
}

impl Scene<'_> {
    /// Downloads over one kind of path, by a client that has no other.
    async fn measure(&self, kind: PathKind, links: LinkMode) -> Result<Measured, Failure> {
        let name = client::kind_name(kind);
        let endpoint = client_endpoint(links, kind == PathKind::Direct).await?;
        let tunnel = open(&endpoint, &self.agent.ticket).await?;
        if !matches!(
            tokio::time::timeout(DIRECT_DEADLINE, tunnel.wait_for(kind)).await,
            Ok(Ok(()))
        ) {
            return Err(
                Failure::new(Code::NoPath, format!("no {name} path came up"))
                    .why(format!("the path is {}", client::describe_path(&tunnel))),
            );
        }
        let forward = listen(&tunnel, self.web).await?;
        let local = forward.local_addr();
        let failed = |error| {
            Failure::new(Code::Failed, format!("the download over {name} failed")).why(error)
        };

        let trial = http::get(local, TRIAL_SIZE, |_| {}).await.map_err(failed)?;
        let size = self.size.unwrap_or_else(|| affordable(trial.took));
        let expected = tokio::task::spawn_blocking(move || content::sha256(size))
            .await
            .map_err(|error| Failure::new(Code::Failed, "cannot make the checksum").why(error))?;

        let used = Used::watch(kind, &tunnel, endpoint.node_id(), self.agent);
        let bar = self.story.bar(name, size);
        let download = http::get(local, size, |bytes| bar.inc(bytes)).await;
        bar.finish_and_clear();
        let download = download.map_err(failed)?;
        used.alone(size).map_err(|why| {
            Failure::new(Code::NoPath, format!("the download did not stay on {name}")).why(why)
        })?;
        let sha256_ok = download.sha256 == expected;
        let mib_s = size as f64 / f64::from(1 << 20) / download.took.as_secs_f64();
        tracing::info!(stats = ?self.agent.stats(endpoint.node_id()), "the agent's end of {name}");
        let rtt_ms = ms(tunnel.ping().await.unwrap_or_default());
        self.story.step(&format!(
            "{name:<10} {} in {:.2} s: {mib_s:.0} MiB/s, SHA-256 {}",
            size::show(size),
            download.took.as_secs_f64(),
            if sha256_ok { "equal" } else { "DIFFERENT" },
        ));
        if self.size.is_none() && size < DEFAULT_SIZE {
            self.story.line(&format!(
                "             ({} rather than {}, to keep the demo short)",
                size::show(size),
                size::show(DEFAULT_SIZE)
            ));
        }
        drop(forward);
        tunnel.close();
        endpoint.close().await;
        Ok(Measured {
            mib_s: (mib_s * 10.0).round() / 10.0,
            sha256_ok,
            size,
            rtt_ms,
        })
    }
}

/// What a path that took this long for the trial moves within the budget, in whole MiB.
fn affordable(trial: Duration) -> u64 {
    let rate = TRIAL_SIZE as f64 / trial.as_secs_f64().max(1e-6);
    let size = (rate * BUDGET.as_secs_f64()) as u64;
    (size & !((1 << 20) - 1)).clamp(LEAST_SIZE, DEFAULT_SIZE)
}

/// Watches what a download uses.
struct Used<'a> {
    kind: PathKind,
    tunnel: Tunnel,
    /// The client, as the agent knows it.
    node: NodeId,
    agent: &'a Agent,
    client_before: [u64; 3],
    agent_before: [u64; 3],
    seen: Arc<Mutex<Vec<PathKind>>>,
    task: tokio::task::AbortHandle,
}

impl<'a> Used<'a> {
    fn watch(kind: PathKind, tunnel: &Tunnel, node: NodeId, agent: &'a Agent) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut path, log) = (tunnel.path(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let kind = path.borrow_and_update().kind;
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(kind);
                if path.changed().await.is_err() {
                    return;
                }
            }
        })
        .abort_handle();
        Self {
            kind,
            tunnel: tunnel.clone(),
            node,
            agent,
            client_before: tunnel.stats().sent_by_kind,
            agent_before: agent.sent(node),
            seen,
            task,
        }
    }

    /// Whether all of a download of this size came by the one kind of path; if not, why not.
    fn alone(self, size: u64) -> Result<(), String> {
        self.task.abort();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(self.tunnel.path().borrow().kind);
        if let Some(other) = seen.iter().find(|kind| **kind != self.kind) {
            return Err(format!(
                "the path was {} for a while",
                client::kind_name(*other)
            ));
        }
        let mine = since(self.client_before, self.tunnel.stats().sent_by_kind);
        let at = match self.kind {
            PathKind::Direct => 0,
            PathKind::RelayUdp => 1,
            PathKind::RelayTls => 2,
        };
        // A moment of suspicion may have sent a few packets on the standby as well.
        if mine[at] * 10 <= mine.iter().sum::<u64>() * 9 {
            return Err(format!(
                "the client sent {} bytes directly, {} by the UDP link, {} by the TLS link",
                mine[0], mine[1], mine[2]
            ));
        }
        // The agent has a link of its own, over UDP, whatever the client's is.
        let [direct, udp, tls] = since(self.agent_before, self.agent.sent(self.node));
        let sent = if self.kind == PathKind::Direct {
            direct
        } else {
            udp + tls
        };
        if sent < size {
            return Err(format!(
                "the agent sent {} of {} that way",
                size::show(sent),
                size::show(size)
            ));
        }
        Ok(())
    }
}

fn since(before: [u64; 3], after: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|kind: usize| after[kind] - before[kind])
}

/// The agent, and the tunnels clients opened to it.
struct Agent {
    endpoint: Endpoint,
    ticket: Ticket,
    tunnels: Arc<Mutex<HashMap<NodeId, Tunnel>>>,
}

impl Agent {
    async fn start(relay: &RelayUrl) -> Result<Self, Failure> {
        let admission = Admission {
            secrets: vec![TicketSecret::from_bytes(random()?)],
            ..Admission::default()
        };
        let endpoint = Endpoint::builder()
            .bind_addr(LOOPBACK)
            .secret_key(SecretKey::from_bytes(&random()?))
            .relay(relay.clone())
            .accept(admission)
            .bind()
            .await
            .map_err(|error| Failure::bind(&error))?;
        endpoint
            .online(LINK_DEADLINE)
            .await
            .map_err(|error| Failure::connect("the relay", &error))?;
        let tunnels = Arc::new(Mutex::new(HashMap::new()));
        let (accepting, known) = (endpoint.clone(), Arc::clone(&tunnels));
        tokio::spawn(async move {
            while let Some(tunnel) = accepting.accept().await {
                tunnel.serve(TargetPolicy::loopback());
                known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(tunnel.remote(), tunnel);
            }
        });
        Ok(Self {
            ticket: endpoint.ticket(Some("demo")),
            endpoint,
            tunnels,
        })
    }

    /// The agent's counters of a client's tunnel.
    fn stats(&self, client: NodeId) -> Option<TunnelStats> {
        let tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.get(&client).map(Tunnel::stats)
    }

    /// Bytes the agent has sent to the client of this tunnel: directly, by its UDP link, by a TLS link.
    fn sent(&self, client: NodeId) -> [u64; 3] {
        self.stats(client)
            .map_or([0; 3], |stats| stats.sent_by_kind)
    }
}

async fn client_endpoint(links: LinkMode, direct: bool) -> Result<Endpoint, Failure> {
    Endpoint::builder()
        .bind_addr(LOOPBACK)
        .links(links)
        .direct(direct)
        .bind()
        .await
        .map_err(|error| Failure::bind(&error))
}

async fn open(endpoint: &Endpoint, ticket: &Ticket) -> Result<Tunnel, Failure> {
    endpoint
        .connect(ticket)
        .await
        .map_err(|error| Failure::connect("the demo's agent", &error))
}

async fn forward(tunnel: &Tunnel, web: SocketAddr, story: &Story) -> Result<Forward, Failure> {
    let forward = listen(tunnel, web).await?;
    story.step(&format!(
        "forward    http://{} leads to the web server",
        forward.local_addr()
    ));
    Ok(forward)
}

async fn listen(tunnel: &Tunnel, web: SocketAddr) -> Result<Forward, Failure> {
    let target = Target::Tcp {
        host: web.ip().to_string(),
        port: web.port(),
    };
    Forward::listen(tunnel.clone(), LOOPBACK, target, |_, refused| {
        tracing::error!(%refused, "the demo's own target was refused");
    })
    .await
    .map_err(|error| Failure::new(Code::Failed, "cannot listen on a loopback port").why(error))
}

fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Code::Failed, "the system gives no randomness").why(error))?;
    Ok(bytes)
}

/// The table at the end.
fn conclude(story: &Story, summary: &Summary) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "path",
        "size",
        "MiB/s",
        "round trip",
        "SHA-256",
    ]);
    for (name, path) in [
        ("relay, UDP link", &summary.paths.relay_udp),
        ("relay, TLS link", &summary.paths.relay_tls),
        ("direct", &summary.paths.direct),
    ] {
        table.add_row([
            name.to_owned(),
            size::show(path.size),
            format!("{:.0}", path.mib_s),
            format!("{:.1} ms", path.rtt_ms),
            if path.sha256_ok { "equal" } else { "DIFFERENT" }.to_owned(),
        ]);
    }
    for column in [1, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    story.line(&table.to_string());
    let verdict = if summary.ok {
        story
            .style()
            .green("All bytes arrived unchanged over all three kinds of path.")
    } else {
        story.style().red("Some bytes arrived changed.")
    };
    story.line(&verdict);
}

/// The relay's URL without its pin.
fn short(url: &RelayUrl) -> String {
    format!("https://{}:{}", url.host(), url.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_path_downloads_less_but_never_next_to_nothing() {
        assert_eq!(affordable(Duration::from_millis(1)), DEFAULT_SIZE);
        assert_eq!(affordable(Duration::from_secs(8)), LEAST_SIZE);
        let second = affordable(Duration::from_secs(1));
        assert_eq!(second, 24 << 20);
    }
}
