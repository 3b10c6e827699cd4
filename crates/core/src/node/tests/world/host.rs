//! One machine.

use super::*;

/// One machine: a node, and a tunnel that numbers its datagrams and acknowledges what it gets.
pub(in crate::node::tests) struct Host {
    pub(in crate::node::tests) node: Node,
    pub(in crate::node::tests) addr: SocketAddr,
    /// Where relays say that it is.
    pub(in crate::node::tests) seen_at: Option<SocketAddr>,
    pub(in crate::node::tests) peer: Option<PeerId>,
    pub(in crate::node::tests) route: Option<Route>,
    pub(in crate::node::tests) routes: Vec<(Duration, RouteReason, Option<PathKind>)>,
    pub(in crate::node::tests) failed: Option<PeerError>,
    pub(in crate::node::tests) peers_seen: usize,
    pub(in crate::node::tests) replays: usize,
    pub(in crate::node::tests) delivered: Vec<Bytes>,
    pub(in crate::node::tests) probes_sent: Vec<(Duration, Way, usize)>,
    pub(in crate::node::tests) controls_sent: Vec<Control>,
    pub(in crate::node::tests) ready: Vec<Carrier>,
    pub(in crate::node::tests) dials: Vec<(Duration, Carrier)>,
    pub(in crate::node::tests) lost: usize,
    /// Relays that the map names no more, and which were left.
    pub(in crate::node::tests) dropped: Vec<RelayId>,
    /// Why there is no link, each time that is told.
    pub(in crate::node::tests) link_errors: Vec<LinkError>,
    pub(in crate::node::tests) wakeups: BTreeMap<&'static str, usize>,
    pub(in crate::node::tests) replaced: bool,
    pub(in crate::node::tests) tokens_wanted: usize,
    pub(in crate::node::tests) tokens_refused: usize,
    pub(in crate::node::tests) report: Option<Arc<crate::discovery::NatReport>>,
    pub(in crate::node::tests) candidates: Vec<byway_wire::signal::Candidate>,
    pub(super) known: BTreeSet<(PeerId, Way)>,
    pub(in crate::node::tests) unknown_source: usize,
    // The toy tunnel.
    pub(in crate::node::tests) payload: usize,
    pub(super) next_seq: u64,
    pub(super) recent: VecDeque<(u64, Way)>,
    pub(super) unacked: BTreeMap<u64, Instant>,
    pub(super) flow: FlowSample,
    pub(super) flow_armed: bool,
    pub(in crate::node::tests) received: Vec<(Duration, u64)>,
    pub(super) seen: BTreeSet<u64>,
}

impl Host {
    pub(super) fn new(now: Instant, config: Config, key: u8, ip: [u8; 4]) -> Self {
        Self::new_epoch(now, config, key, ip, 1)
    }
    pub(super) fn new_epoch(
        now: Instant,
        config: Config,
        key: u8,
        ip: [u8; 4],
        epoch: u64,
    ) -> Self {
        let identity = Identity {
            key: Arc::new(SecretKey::from_bytes(&[key; 32])),
            epoch,
        };
        let mut seed = [key; 32];
        seed[0] = epoch as u8;
        Self {
            node: Node::new(now, config, identity, seed),
            addr: SocketAddr::new(IpAddr::from(ip), 5_000),
            seen_at: None,
            peer: None,
            route: None,
            routes: Vec::new(),
            failed: None,
            peers_seen: 0,
            replays: 0,
            delivered: Vec::new(),
            probes_sent: Vec::new(),
            controls_sent: Vec::new(),
            ready: Vec::new(),
            dials: Vec::new(),
            lost: 0,
            dropped: Vec::new(),
            link_errors: Vec::new(),
            wakeups: BTreeMap::new(),
            replaced: false,
            tokens_wanted: 0,
            tokens_refused: 0,
            report: None,
            candidates: Vec::new(),
            known: BTreeSet::new(),
            unknown_source: 0,
            payload: 10,
            next_seq: 0,
            recent: VecDeque::new(),
            unacked: BTreeMap::new(),
            flow: FlowSample::default(),
            flow_armed: false,
            received: Vec::new(),
            seen: BTreeSet::new(),
        }
    }
    /// How much was sent longer ago than that and is not acknowledged.
    pub(in crate::node::tests) fn unacknowledged_for(&self, now: Instant, time: Duration) -> usize {
        self.unacked
            .values()
            .filter(|at| **at + time <= now)
            .count()
    }
    /// The longest time in which nothing arrived, between `from` and the last arrival.
    pub(in crate::node::tests) fn longest_gap(&self, from: Duration) -> Duration {
        let mut times: Vec<Duration> = self.received.iter().map(|r| r.0).collect();
        times.sort();
        times
            .windows(2)
            .filter(|w| w[1] >= from)
            .map(|w| w[1] - w[0])
            .max()
            .unwrap_or(Duration::MAX)
    }
}
