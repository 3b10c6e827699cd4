//! Starting and stopping a relay.

mod names;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use byway_relay_core::relay::Load;
use byway_relay_core::{Admission, Config, Counters as ControlStats};
use byway_wire::RelayUrl;
use quinn::{Endpoint, TokioRuntime, VarInt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::ServerConfig;
use crate::audit::AuditLog;
use crate::certificate::source;
use crate::context::Context;
use crate::control::{self, ControlSocket};
use crate::hub::Hub;
use crate::identity::{CertificateStatus, Identity};
use crate::inherited::Inherited;
use crate::listen::{self, Bound};
use crate::observe::{self, Observed};
use crate::plane::{Budgets, Plane};
use crate::pressure::Pressure;
use crate::proxies::Proxies;
use crate::stats::{Counters, DataStats};
use crate::strangers::Strangers;
use crate::tls::accept::Door;
use crate::udp::control::{ControlSocket as QuicSocket, QUEUE};
use crate::udp::shard::{Prepared, Shard};
use crate::udp::socket::{BUFFER, Socket};
use crate::{admission, quic, tls};
use names::{own_hosts, public_host, url};

/// UDP buffers below this lose datagrams whenever a shard is kept from its core for 2 ms at 1 GiB/s, in bytes: worth a warning.
const ENOUGH: usize = 2 * 1024 * 1024;
/// How long links may take to hear that the relay stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// A running relay. Dropping it without [`Server::stop`] stops it at once.
#[derive(Debug)]
pub struct Server {
    url: RelayUrl,
    addrs: Vec<SocketAddr>,
    plain: Vec<SocketAddr>,
    hub: Arc<Hub>,
    identity: Arc<Identity>,
    counters: Vec<Arc<Counters>>,
    endpoints: Vec<Endpoint>,
    observe: Option<SocketAddr>,
    alternates: Vec<RelayUrl>,
    told: Arc<control::Told>,
    /// Accept loops and timers; dropping it ends them and all links.
    tasks: JoinSet<()>,
    shards: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    dead: Arc<AtomicBool>,
}

/// What a relay did, and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Links, sessions and channels at the moment.
    pub load: Load,
    /// What happened on links and channels.
    pub control: ControlStats,
    /// What happened to data.
    pub data: DataStats,
}

impl Server {
    /// Binds all listeners and starts. Must be called inside a tokio runtime.
    pub async fn start(config: ServerConfig) -> anyhow::Result<Self> {
        Self::start_on(config, Inherited::default()).await
    }
    /// The same, on sockets that are bound already, for those addresses of `config.listen` for which there are any.
    pub async fn start_on(config: ServerConfig, inherited: Inherited) -> anyhow::Result<Self> {
        config.limits.check()?;
        let now = Instant::now();
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shards = if config.shards == 0 {
            cores
        } else {
            config.shards
        };
        let mut bound = listen::bind_all(&config.listen, shards, inherited)?;
        let addrs: Vec<SocketAddr> = bound.iter().map(|b| b.addr).collect();
        let host = public_host(&config, addrs[0]);
        let counters = Arc::new(Counters::default());
        let audit = config.audit.as_deref();
        let audit = audit
            .map(|path| AuditLog::open(path, &counters))
            .transpose()?;
        let plain = plain_http(&config)?;
        let observing = config.observe.map(observe::bind).transpose()?;
        let controlled = config.control.as_deref().map(ControlSocket::bind);
        let controlled = controlled.transpose()?;
        let (identity, caretaker) = source::identity(&config, &host)?;
        let url = url(&config, &identity, &host, addrs[0].port())?;

        let mut prepared = Vec::new();
        for (listener, bound) in bound.iter_mut().enumerate() {
            let mut group = Vec::new();
            for (index, socket) in bound.udp.drain(..).enumerate() {
                group.push(Prepared::new(socket, format!("udp-{listener}-{index}")).await?);
            }
            prepared.push(group);
        }

        if let Some(first) = prepared.iter().flatten().next() {
            tell_buffers(&first.socket);
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("no randomness")?;
        // What can be wrong with the machine is, before others are asked.
        let admission = admission::Keeper::start(config.admission.clone(), &counters).await;
        let admission = admission.context("admission")?;
        let hub = Hub::new(
            now,
            core_config(&config, admission.started().clone()),
            seed,
            Arc::clone(&counters),
            audit,
        );
        let plane = Arc::new(Plane {
            table: Arc::clone(&hub.table),
            sockets: prepared
                .iter()
                .map(|group| group.iter().map(|p| Arc::clone(&p.socket)).collect())
                .collect(),
            max_datagram: config.max_datagram as usize,
            cookie_key: hub.cookie_key(),
            started: now,
            budgets: Budgets::new(now, config.limits.stun, config.limits.stun_in_all),
            delays: Arc::default(),
        });
        let context = Arc::new(Context {
            hub: Arc::clone(&hub),
            plane,
            counters: Arc::clone(&counters),
            pressure: Pressure::new(config.limits.shed_above),
            strangers: Strangers::new(
                now,
                &config.limits,
                Proxies::new(config.trusted_proxies.clone()),
            ),
            name: config.name.clone(),
            region: config.region.clone(),
            identity: Arc::clone(&identity),
            limits: config.limits,
            hosts: own_hosts(&config, &url, &addrs),
            require_channel_binding: config.require_channel_binding,
        });
        let (stop, _) = watch::channel(false);
        let mut server = Self {
            url,
            addrs,
            plain: Vec::new(),
            observe: None,
            alternates: config.alternates.clone(),
            told: Arc::default(),
            hub,
            identity,
            counters: vec![counters],
            endpoints: Vec::new(),
            tasks: JoinSet::new(),
            shards: Vec::new(),
            stop,
            dead: Arc::default(),
        };
        for (listener, (bound, group)) in bound.into_iter().zip(prepared).enumerate() {
            server.listen(listener, bound, group, &context)?;
        }
        for (addr, tcp) in plain {
            let tcp = tokio::net::TcpListener::from_std(tcp)?;
            let context = Arc::clone(&context);
            let plain = tls::accept::accept(tcp, Door::Plain, context);
            server.run("plain HTTP", plain);
            server.plain.push(addr);
        }
        if let Some(caretaker) = caretaker {
            server.run("certificate", caretaker);
        }
        let hub = Arc::clone(&server.hub);
        server.run("timers", async move { hub.run_timers().await });
        let hub = Arc::clone(&server.hub);
        server.run("chores", async move { hub.run_chores().await });
        if let Some((addr, listener)) = observing {
            server.observe = Some(addr);
            let observed = Arc::new(Observed {
                hub: Arc::clone(&server.hub),
                counters: server.counters.clone(),
                identity: Arc::clone(&context.identity),
                delays: Arc::clone(&context.plane.delays),
                admission: admission.age(),
                name: config.name.clone(),
                region: config.region.clone(),
                began: (now, SystemTime::now()),
            });
            let listener = tokio::net::TcpListener::from_std(listener)?;
            server.run("metrics", observe::serve(listener, observed));
        }
        if let Some(socket) = controlled {
            let (hub, told) = (Arc::clone(&server.hub), Arc::clone(&server.told));
            server.run("control", socket.serve(hub, told, config.drain_for));
        }
        server.hub.set_ready();
        let hub = Arc::clone(&server.hub);
        server.run("admission", admission.run(hub));
        Ok(server)
    }

    fn listen(
        &mut self,
        listener: usize,
        bound: Bound,
        group: Vec<Prepared>,
        context: &Arc<Context>,
    ) -> anyhow::Result<()> {
        let (to_endpoint, queue) = mpsc::channel(QUEUE);
        let identity = Arc::clone(&context.identity);
        let certificate = identity.shown();
        let secret = certificate
            .certificate()
            .derive(&format!("quic {} {}", self.url, bound.addr));
        let socket = &group[0].socket;
        let endpoint = Endpoint::new_with_abstract_socket(
            quic::endpoint_config(&secret),
            Some(quic::server_config(
                identity.quic()?,
                &context.limits.handshakes,
            )?),
            QuicSocket::new(queue, socket, Arc::clone(&self.dead)),
            Arc::new(TokioRuntime),
        )?;
        for (index, prepared) in group.into_iter().enumerate() {
            let counters = Arc::new(Counters::default());
            self.counters.push(Arc::clone(&counters));
            self.shards.push(
                prepared.start(Shard {
                    plane: Arc::clone(&context.plane),
                    counters,
                    quic: to_endpoint.clone(),
                    sentinel: self
                        .hub
                        .vitals
                        .sentinel(format!("shard {listener}-{index}")),
                    listener,
                    index,
                    stop: self.stop.subscribe(),
                }),
            );
        }
        let tcp = tokio::net::TcpListener::from_std(bound.tcp)?;
        let quic = quic::accept(endpoint.clone(), listener, Arc::clone(context));
        self.run("QUIC links", quic);
        let tls = tls::accept::accept(tcp, Door::Tls, Arc::clone(context));
        self.run("TLS links", tls);
        self.endpoints.push(endpoint);
        Ok(())
    }

    /// Runs a part without which the relay is none, for as long as the relay runs.
    fn run(&mut self, part: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.hub.vitals.guard(part, future));
    }

    /// Waits until a part has failed without which this is no relay, and says which. It goes on as far as it can; whoever runs it
    /// should stop it, and start another. Never, if all is well.
    pub async fn failed(&self) -> Arc<str> {
        self.hub.vitals.failure().await
    }
    /// The relay's URL; with the pin of the certificate it shows now if nodes cannot know it otherwise.
    pub fn url(&self) -> RelayUrl {
        let pin = self.url.pin().map(|_| self.identity.status().pin);
        RelayUrl::new(self.url.host(), self.url.port(), pin).unwrap_or_else(|_| self.url.clone())
    }
    /// The certificate it shows now, and what became of others.
    pub fn certificate(&self) -> CertificateStatus {
        self.identity.status()
    }
    /// The addresses it listens on, UDP and TCP, in the order of the configuration.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
    /// Where it listens for plain HTTP, in the order of the configuration.
    pub fn plain_http_addrs(&self) -> &[SocketAddr] {
        &self.plain
    }
    /// Where metrics, status and health are answered, if anywhere.
    pub fn observe_addr(&self) -> Option<SocketAddr> {
        self.observe
    }
    /// What it did so far.
    pub fn stats(&self) -> Stats {
        let (control, load) = self.hub.snapshot();
        let mut data = DataStats::default();
        for counters in &self.counters {
            data.add(counters);
        }
        Stats {
            load,
            control,
            data,
        }
    }

    /// Tells every node to go elsewhere, refuses newcomers, and waits until all have left or `within` has passed. What is
    /// established goes on meanwhile. False if some nodes are still here: they have nowhere to go.
    pub async fn drain(&self, within: Duration) -> bool {
        self.hub.going_away(within, self.alternates.clone());
        let left = self.hub.left_by_all();
        tokio::time::timeout(within, left).await.is_ok()
    }
    /// How many links there are of nodes that were welcomed.
    pub fn links(&self) -> usize {
        self.hub.welcomed()
    }
    /// Waits until somebody says by the control socket that the relay is to stop, and says within what time. Never, if there is
    /// no such socket.
    pub async fn told_to_drain(&self) -> Duration {
        self.told.asked().await
    }

    /// Stops: tells every node, then closes.
    pub async fn stop(mut self) {
        self.hub.going_away(Duration::ZERO, self.alternates.clone());
        self.hub.shutdown();
        // Whoever does not listen is not waited for.
        let _ = tokio::time::timeout(FAREWELL, self.hub.empty()).await;
        for endpoint in &self.endpoints {
            endpoint.close(VarInt::from_u32(0), b"relay stopped");
        }
        let idle = futures_util::future::join_all(self.endpoints.iter().map(Endpoint::wait_idle));
        let _ = tokio::time::timeout(FAREWELL, idle).await;
        // A task that hangs in a call that blocks is not waited for either: the process ends without it.
        let _ = tokio::time::timeout(FAREWELL, self.tasks.shutdown()).await;
        self.stop.send_replace(true);
        let shards = std::mem::take(&mut self.shards);
        let joined = tokio::task::spawn_blocking(move || {
            for shard in shards {
                // It panicked, and said so then.
                let _ = shard.join();
            }
        });
        let _ = tokio::time::timeout(FAREWELL, joined).await;
    }

    /// Ends at once and tells nobody, as a crash would. For tests of what nodes do then.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // From here on QUIC's farewells go nowhere; the shards stop and their sockets close.
        self.dead.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
        self.tasks.abort_all();
    }
}

/// Says what the kernel granted: a queue that is too short loses datagrams at every pause of a shard, and nothing else tells why.
fn tell_buffers(socket: &Socket) {
    match socket.granted() {
        // The kernel counts twice what it grants (socket(7)).
        Ok((receive, send)) if receive.min(send) / 2 < ENOUGH => tracing::warn!(
            asked = BUFFER,
            receive = receive / 2,
            send = send / 2,
            "the kernel grants small UDP buffers; \
             sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER} lets it grant larger ones"
        ),
        Ok((receive, send)) => {
            let (receive, send) = (receive / 2, send / 2);
            tracing::info!(asked = BUFFER, receive, send, "UDP buffers");
        }
        Err(error) => tracing::debug!(%error, "what UDP buffers there are is unknown"),
    }
}

fn core_config(config: &ServerConfig, admission: Admission) -> Config {
    let mut core = Config::default();
    core.name = config.name.clone();
    core.region = config.region.clone();
    core.admission = admission;
    core.max_datagram = config.max_datagram;
    core.max_channels = config.limits.channels;
    core.max_links_per_node = config.limits.links_per_node;
    core.max_links_per_instance = config.limits.links_per_process;
    core.max_unanswered = config.limits.unanswered_opens;
    core.node_rate = config.limits.node_rate;
    core.welcome_within = config.limits.handshakes.welcome_within;
    core
}

fn plain_http(config: &ServerConfig) -> anyhow::Result<Vec<(SocketAddr, TcpListener)>> {
    anyhow::ensure!(
        config.plain_http.is_empty() || config.public_host.is_some(),
        "plain HTTP is for an ingress, and needs the host by which nodes know it: set public_host"
    );
    config
        .plain_http
        .iter()
        .map(|addr| listen::bind_tcp(*addr, "plain HTTP"))
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn status(addr: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_part_that_panics_makes_the_relay_fail_and_say_so() {
        let mut config = ServerConfig::dev();
        config.observe = Some(([127, 0, 0, 1], 0).into());
        let mut server = Server::start(config).await.unwrap();
        let addr = server.observe_addr().unwrap();
        for path in ["/healthz", "/readyz"] {
            assert_eq!(status(addr, path).await, "200");
        }
        assert!(futures_util::FutureExt::now_or_never(server.failed()).is_none());
        server.run("test", async { panic!("as it should") });
        assert_eq!(&*server.failed().await, "test");
        for path in ["/healthz", "/readyz"] {
            assert_eq!(status(addr, path).await, "503");
        }
        server.stop().await;
    }

    /// What is vital is watched: shards are threads, and end when nobody serves QUIC any more.
    #[tokio::test]
    async fn every_part_is_watched() {
        let mut config = ServerConfig::dev();
        config.shards = 2;
        let server = Server::start(config).await.unwrap();
        // Two shards, QUIC, TLS, timers, quotas; admission is fixed and has ended. And the hub's own.
        let watched = || Arc::strong_count(&server.hub.vitals);
        let deadline = Instant::now() + Duration::from_secs(10);
        while watched() != 7 {
            assert!(Instant::now() < deadline, "{}", watched());
            tokio::task::yield_now().await;
        }
    }
}
