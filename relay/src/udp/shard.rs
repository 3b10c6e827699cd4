//! A shard: one thread with one socket of its listener's SO_REUSEPORT group.
//!
//! It receives batches, cuts each buffer into runs, and forwards relay data itself. STUN is answered on the spot. QUIC
//! goes to the control endpoint's queue, whichever shard it came to: a node whose NAT moved may land on another one.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_wire::canonical;
use byway_wire::demux::Kind;
use quinn_udp::{BATCH_SIZE, RecvMeta};
use tokio::sync::{mpsc, oneshot, watch};

use crate::plane::{Origin, Plane};
use crate::stats::{Counters, add, bump};
use crate::udp::control::{MAX_DATAGRAM, QuicDatagram};
use crate::udp::portion::{Portion, Work};
use crate::udp::runs::{Run, What, runs};
use crate::udp::shares::Shares;
use crate::udp::socket::Socket;
use crate::udp::stun::{self, Verdict};
use crate::udp::trains::Trains;
use crate::vital::Sentinel;

/// A GRO buffer never holds more than an IP packet can say of itself.
const BUFFER: usize = 65_535;

/// Whoever is not linked, where a shard that is behind deals out shares.
const STRANGERS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Of so many batches one is timed, a shard's first to begin with: often enough to see a busy relay, and too seldom for two looks at
/// the clock to cost anything.
const TIMED: u64 = 1_024;

/// A thread with its socket, not yet receiving.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) socket: Arc<Socket>,
    start: oneshot::Sender<Shard>,
    thread: std::thread::JoinHandle<()>,
}

/// What a shard needs to work.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) plane: Arc<Plane>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) quic: mpsc::Sender<QuicDatagram>,
    pub(crate) listener: usize,
    pub(crate) index: usize,
    /// Held while it works.
    #[allow(dead_code, reason = "it looks around when it is dropped")]
    pub(crate) sentinel: Sentinel,
    /// True when the shard must stop.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Prepared {
    /// Starts the thread. It owns its reactor, so that no other work of the program delays a packet.
    pub(crate) async fn new(socket: std::net::UdpSocket, name: String) -> anyhow::Result<Self> {
        let (ready, socket_ready) = oneshot::channel();
        let (start, started) = oneshot::channel::<Shard>();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(e) => return drop(ready.send(Err(e))),
            };
            runtime.block_on(async move {
                let socket = match Socket::new(socket) {
                    Ok(socket) => Arc::new(socket),
                    Err(e) => return drop(ready.send(Err(e))),
                };
                if ready.send(Ok(Arc::clone(&socket))).is_err() {
                    return;
                }
                // An error means that the start of the relay failed elsewhere.
                if let Ok(shard) = started.await {
                    shard.run(&socket).await;
                }
            });
        })?;
        let socket = socket_ready.await??;
        Ok(Self {
            socket,
            start,
            thread,
        })
    }
    /// Begins to receive.
    pub(crate) fn start(self, shard: Shard) -> std::thread::JoinHandle<()> {
        // The thread waits for exactly this.
        let _ = self.start.send(shard);
        self.thread
    }
}

impl Shard {
    async fn run(mut self, socket: &Socket) {
        let mut memory = vec![0; BUFFER * BATCH_SIZE];
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let mut errors = 0u32;
        let mut batches = 0u64;
        let mut shares = Shares::new();
        let mut portion = Portion::new();
        loop {
            let asked = portion.buffers();
            let received = {
                let mut chunks = memory.chunks_mut(BUFFER);
                let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
                tokio::select! {
                    biased;
                    _ = self.stop.wait_for(|stop| *stop) => return,
                    received = socket.recv(&mut buffers[..asked], &mut meta) => received,
                }
            };
            match received {
                Ok((n, waited)) => {
                    errors = 0;
                    let began = batches.is_multiple_of(TIMED).then(Instant::now);
                    batches += 1;
                    // Whoever had to wait had nothing left.
                    shares.received(n == asked && !waited, Instant::now);
                    let mut trains = Trains::new(socket.max_segments());
                    let mut work = Work::default();
                    for (buffer, meta) in memory.chunks(BUFFER).zip(&meta[..n]) {
                        let buffer = &buffer[..meta.len.min(BUFFER)];
                        self.handle(buffer, meta, &mut shares, &mut trains, &mut work);
                    }
                    for train in trains.rest() {
                        work.done(self.plane.forward_udp(&train, &self.counters));
                    }
                    portion.took(n, work);
                    if let Some(began) = began {
                        self.plane.delays.forwarded.observe(began.elapsed());
                    }
                }
                Err(e) => {
                    // Errors of single datagrams come one at a time; an error for ever must not spin.
                    errors += 1;
                    if errors > 100 {
                        tracing::warn!(%e, "UDP receive fails");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    fn handle<'a>(
        &self,
        buffer: &'a [u8],
        meta: &RecvMeta,
        shares: &mut Shares,
        trains: &mut Trains<'a>,
        work: &mut Work,
    ) {
        let from = Origin {
            addr: canonical(meta.addr),
            local_ip: meta.dst_ip,
            listener: self.listener,
            shard: self.index,
            ecn: meta.ecn,
        };
        for run in runs(buffer, meta.stride) {
            add(&self.counters.udp_in, run.count());
            add(&self.counters.udp_in_bytes, run.bytes.len() as u64);
            shares.see(run.count());
            match run.what {
                What::Relay(channel) => {
                    let Some(run) = self.share(&run, &from, shares) else {
                        // The next receive's may be within their shares.
                        work.done(true);
                        continue;
                    };
                    let Some(run) = self.plane.sized(run, &self.counters) else {
                        work.done(false);
                        continue;
                    };
                    if let Some(train) = trains.push(channel, &from, &run) {
                        work.done(self.plane.forward_udp(&train, &self.counters));
                    }
                }
                What::Other(Kind::Quic) => {
                    if let Some(run) = self.share(&run, &from, shares) {
                        self.quic(&run, &from);
                    }
                }
                What::Other(Kind::Stun) => {
                    if let Some(run) = self.share(&run, &from, shares) {
                        for datagram in run.datagrams() {
                            work.done(self.stun(datagram, &from));
                        }
                    }
                }
                // Probes, cookies and fragments are between nodes, or from us: nothing a relay answers.
                What::Other(_) => add(&self.counters.dropped_unknown, run.count()),
            }
        }
    }

    /// What of a run is within its source's share. Whoever is not linked is one source together with all others of whom that is true:
    /// addresses cost them nothing.
    fn share<'a>(&self, run: &Run<'a>, from: &Origin, shares: &mut Shares) -> Option<Run<'a>> {
        if !shares.is_shedding() {
            return Some(*run);
        }
        let linked = self.plane.table.is_source(from.addr);
        let source = if linked { from.addr } else { STRANGERS };
        let granted = shares.take(source, run.count());
        add(&self.counters.dropped_share, run.count() - granted);
        run.first(granted)
    }

    fn quic(&self, run: &Run<'_>, from: &Origin) {
        for datagram in run.datagrams() {
            bump(&self.counters.quic_in);
            // Before it is copied: a queue of datagrams of 64 KiB would be a quarter of a GiB.
            if datagram.len() > MAX_DATAGRAM {
                bump(&self.counters.quic_dropped);
                continue;
            }
            let datagram = QuicDatagram {
                addr: from.addr,
                local_ip: from.local_ip,
                ecn: from.ecn,
                bytes: datagram.into(),
            };
            if self.quic.try_send(datagram).is_err() {
                bump(&self.counters.quic_dropped);
            }
        }
    }

    /// False if it was not answered.
    fn stun(&self, datagram: &[u8], from: &Origin) -> bool {
        let (bytes, amplifies, counter) = match stun::answer(datagram, from.addr) {
            Verdict::Ignore => {
                bump(&self.counters.stun_ignored);
                return false;
            }
            Verdict::Answer { bytes, amplifies } => {
                (bytes, amplifies, &self.counters.stun_answered)
            }
            Verdict::Error { bytes, amplifies } => {
                (bytes, amplifies, &self.counters.stun_unknown_attributes)
            }
        };
        if amplifies && !self.plane.budgets.stun.take(Instant::now(), from.addr.ip()) {
            bump(&self.counters.stun_limited);
            return false;
        }
        bump(counter);
        self.plane.reply(from, &bytes, &self.counters);
        true
    }
}
