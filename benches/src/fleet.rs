//! Many relayed tunnels with traffic, and what becomes of it while something happens to their relays.
//!
//! Each tunnel has one stream on which the client writes a record every 20 ms and the agent sends back what it gets, so that
//! either direction's loss or pause shows at the client. Every byte depends on its place in the stream: a byte that is lost,
//! doubled or changed is noticed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway::{Admission, Endpoint, RelayUrl, Tunnel};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Between two records of a tunnel.
pub const EVERY: Duration = Duration::from_millis(20);
/// Bytes of a record: one datagram's worth.
const RECORD: usize = 1_000;
/// What does not come up in this time will not.
const DEADLINE: Duration = Duration::from_secs(30);

/// See the module's documentation.
#[derive(Debug)]
pub struct Fleet {
    endpoints: Vec<Endpoint>,
    tunnels: Vec<Tunnel>,
    watched: Vec<Arc<Watched>>,
    traffic: JoinSet<Result<()>>,
    echoes: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

/// What one tunnel's client saw.
#[derive(Debug)]
struct Watched {
    began: Instant,
    /// The latest arrival, and the longest pause since that was last asked, in microseconds.
    last: AtomicU64,
    longest: AtomicU64,
    received: AtomicU64,
}

impl Watched {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
    fn arrived(&self, bytes: usize) {
        let now = self.now();
        let pause = now.saturating_sub(self.last.swap(now, Ordering::Relaxed));
        self.longest.fetch_max(pause, Ordering::Relaxed);
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// The longest pause since the last call, one that still lasts among them.
    fn take_longest(&self) -> Duration {
        let lasts = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
        let longest = self.longest.swap(0, Ordering::Relaxed).max(lasts);
        Duration::from_micros(longest)
    }
}

/// The byte at a place of a tunnel's stream.
fn byte_at(tunnel: usize, place: u64) -> u8 {
    // Differs between neighbours, between records and between tunnels.
    (place.wrapping_mul(31) ^ (place >> 8) ^ tunnel as u64) as u8
}

impl Fleet {
    /// So many tunnels, all of them through these relays and never directly, with traffic.
    pub async fn start(relays: &[RelayUrl], tunnels: usize) -> Result<Self> {
        // As many agents as clients, and no client with two tunnels to one agent.
        let ends = (1..).find(|ends| ends * ends >= tunnels).unwrap_or(1);
        let (mut agents, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..ends {
            let builder = || Endpoint::builder().port_mapping(false).direct(false);
            let admission = Admission {
                anyone: true,
                ..Default::default()
            };
            let agent = relays
                .iter()
                .cloned()
                .fold(builder(), |b, url| b.relay(url));
            let agent = agent.accept(admission).bind().await?;
            agent.online(DEADLINE).await?;
            agents.push(agent);
            clients.push(builder().bind().await?);
        }
        let mut fleet = Self {
            endpoints: Vec::new(),
            tunnels: Vec::new(),
            watched: Vec::new(),
            traffic: JoinSet::new(),
            echoes: JoinSet::new(),
            stop: Arc::default(),
        };
        for agent in &agents {
            let agent = agent.clone();
            fleet.echoes.spawn(async move {
                while let Some(tunnel) = agent.accept().await {
                    tokio::spawn(echo(tunnel));
                }
            });
        }
        for n in 0..tunnels {
            let (client, agent) = (&clients[n % ends], &agents[n / ends]);
            let tunnel = tokio::time::timeout(DEADLINE, client.connect(&agent.ticket(None)))
                .await
                .with_context(|| format!("tunnel {n} does not come up"))??;
            let watched = Arc::new(Watched {
                began: Instant::now(),
                last: AtomicU64::new(0),
                longest: AtomicU64::new(0),
                received: AtomicU64::new(0),
            });
            let stop = Arc::clone(&fleet.stop);
            fleet
                .traffic
                .spawn(talk(n, tunnel.clone(), Arc::clone(&watched), stop));
            fleet.watched.push(watched);
            fleet.tunnels.push(tunnel);
        }
        fleet.endpoints = agents.into_iter().chain(clients).collect();
        Ok(fleet)
    }

    /// The longest pause of each tunnel since the last call.
    pub fn take_pauses(&self) -> Vec<Duration> {
        self.watched.iter().map(|w| w.take_longest()).collect()
    }
    /// Bytes that came back, of all tunnels.
    pub fn received(&self) -> u64 {
        let each = self
            .watched
            .iter()
            .map(|w| w.received.load(Ordering::Relaxed));
        each.sum()
    }
    /// How many tunnels lead through each relay, and how many through none.
    pub fn spread(&self, relays: &[RelayUrl]) -> (Vec<usize>, usize) {
        let mut through = vec![0; relays.len()];
        let mut none = 0;
        for tunnel in &self.tunnels {
            let path = tunnel.path();
            let relay = path.borrow().relay.clone();
            match relays.iter().position(|url| Some(url) == relay.as_ref()) {
                Some(n) => through[n] += 1,
                None => none += 1,
            }
        }
        (through, none)
    }

    /// Ends the traffic; an error for the first stream that was lost, or gave back something else than was sent.
    pub async fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut lost = Vec::new();
        while let Some(done) = tokio::time::timeout(DEADLINE, self.traffic.join_next())
            .await
            .context("a stream does not end")?
        {
            if let Err(error) = done? {
                lost.push(error);
            }
        }
        for endpoint in &self.endpoints {
            endpoint.close().await;
        }
        let count = lost.len();
        match lost.into_iter().next() {
            Some(first) => Err(first.context(format!("{count} streams were lost"))),
            None => Ok(()),
        }
    }
}

async fn echo(tunnel: Tunnel) {
    while let Some((mut send, mut recv)) = tunnel.accept().await {
        tokio::spawn(async move {
            // What goes wrong shows at the client.
            let _ = tokio::io::copy(&mut recv, &mut send).await;
            let _ = send.finish();
        });
    }
}

async fn talk(
    n: usize,
    tunnel: Tunnel,
    watched: Arc<Watched>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let (mut send, mut recv) = tunnel.open().await?;
    let write = async {
        let mut place = 0;
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let record: Vec<u8> = (place..place + RECORD as u64)
                .map(|p| byte_at(n, p))
                .collect();
            send.write_all(&record).await?;
            place += RECORD as u64;
        }
        send.finish()?;
        Ok::<u64, anyhow::Error>(place)
    };
    let read = async {
        let mut place = 0;
        while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
            watched.arrived(chunk.bytes.len());
            for (p, byte) in (place..).zip(chunk.bytes.iter()) {
                ensure!(*byte == byte_at(n, p), "tunnel {n}: byte {p} is wrong");
            }
            place += chunk.bytes.len() as u64;
        }
        Ok(place)
    };
    let (sent, received) = tokio::try_join!(write, read).with_context(|| format!("tunnel {n}"))?;
    ensure!(
        sent == received,
        "tunnel {n}: {received} of {sent} bytes came back"
    );
    Ok(())
}
