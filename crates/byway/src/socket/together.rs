//! Two of quinn's sends as one.
//!
//! quinn hands over ten datagrams at a time, twice for each time that it drives a connection which has much to send. Each such batch costs a walk through the
//! kernel, its firewalls, and all that is on the way, a relay included; most of it is the same for twenty datagrams. So a full batch is held until
//! the next one of its peer comes, and leaves with it. When none comes it leaves by a task of the socket's own, as soon as the runtime gives that a turn. No
//! clock is waited for; on a runtime of one thread that is busy with other work the last batch waits for that, as everything of the connection's does.
//!
//! Only full batches are held: where there is less to say it is said at once, behind what was held. Order is kept, so is what the kernel has no
//! room for: quinn hears of that with its next batch. TLS links have a queue already, which does the same.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use byway_core::io::{PeerId, SocketId};
use quinn::AsyncUdpSocket;
use quinn::udp::EcnCodepoint;
use tokio::sync::Notify;

use super::list::AllWritable;
use super::route::{Leg, PeerRoute, Snapshot, Via};
use super::send::Batch;
use super::udp::MAX_PAYLOAD;
use super::{Socket, header};
use byway_wire::relay::data::HEADER_LEN;

/// Datagrams of a full batch of quinn's (`MAX_TRANSMIT_SEGMENTS` of quinn 0.11).
const FULL: usize = 10;

/// What of a peer's waits for more.
#[derive(Debug, Default)]
pub(super) struct Held {
    batch: Mutex<Option<Ready>>,
    /// Whether there is one; read without the lock.
    some: AtomicBool,
}

/// As it will leave, headers included.
#[derive(Debug)]
struct Ready {
    leg: Leg,
    socket: SocketId,
    remote: SocketAddr,
    ecn: Option<EcnCodepoint>,
    /// Of QUIC, without a header.
    segment: usize,
    bytes: Vec<u8>,
}

/// Those of whom something is held, for the task that sends it.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    peers: Mutex<Vec<PeerId>>,
    bell: Notify,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Option<Ready>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ready {
    /// A batch as it would leave by UDP. None: it does not.
    fn of(leg: &Leg, segment: usize, batch: Batch<'_>) -> Option<Self> {
        let (socket, remote) = match &leg.via {
            Via::Direct { socket, remote } => (*socket, *remote),
            Via::Udp { socket, relay, .. } => (*socket, *relay),
            Via::Tls { .. } => return None,
        };
        let mut ready = Self {
            leg: leg.clone(),
            socket,
            remote,
            ecn: batch.ecn,
            segment,
            bytes: Vec::with_capacity(2 * FULL * (segment + HEADER_LEN)),
        };
        ready.append(batch.contents);
        Some(ready)
    }

    /// Whether a batch may follow in the same send.
    fn goes_with(&self, leg: &Leg, batch: Batch<'_>) -> bool {
        let alike = match batch.segment {
            Some(segment) => segment == self.segment,
            None => batch.contents.len() <= self.segment,
        };
        alike
            && self.leg.way == leg.way
            && self.ecn == batch.ecn
            && batch.contents.len() <= FULL * self.segment
    }

    fn append(&mut self, contents: &[u8]) {
        match &self.leg.via {
            Via::Udp { header, .. } => {
                header::append(&mut self.bytes, header, contents, self.segment);
            }
            Via::Direct { .. } | Via::Tls { .. } => self.bytes.extend_from_slice(contents),
        }
    }

    fn wire_segment(&self) -> usize {
        match self.leg.via {
            Via::Udp { .. } => self.segment + HEADER_LEN,
            Via::Direct { .. } | Via::Tls { .. } => self.segment,
        }
    }
}

impl Socket {
    /// Sends a batch by the primary, now or with the next one.
    pub(super) fn send_primary(
        &self,
        route: &PeerRoute,
        leg: &Leg,
        snapshot: &Snapshot,
        batch: Batch<'_>,
    ) -> io::Result<()> {
        let fits = batch.segment.unwrap_or(batch.contents.len()) <= snapshot.primary_max;
        // Full, and no more than one send together with another. A copy by the standby is to leave at the same time.
        let may_wait = batch.segment.filter(|segment| {
            batch.contents.len() == FULL * segment
                && 2 * FULL * (segment + HEADER_LEN) <= MAX_PAYLOAD
                && fits
                && !snapshot.duplicate
                && !leg.one_by_one.load(Ordering::Relaxed)
                && !matches!(leg.via, Via::Tls { .. })
        });
        let held = &route.held;
        if may_wait.is_none() && !held.some.load(Ordering::Acquire) {
            return self.send_fitting(route, leg, snapshot.primary_max, batch);
        }
        let mut slot = held.lock();
        if let Some(ready) = &mut *slot {
            let before = ready.bytes.len();
            let together = fits && !snapshot.duplicate && ready.goes_with(leg, batch);
            if together {
                ready.append(batch.contents);
            }
            if let Err(blocked) = self.send_ready(ready) {
                // quinn comes again with this one.
                ready.bytes.truncate(before);
                return Err(blocked);
            }
            *slot = None;
            held.some.store(false, Ordering::Release);
            if together {
                return Ok(());
            }
        }
        if let Some(segment) = may_wait
            && self.max_transmit_segments() >= 2 * FULL
            && let Some(ready) = Ready::of(leg, segment, batch)
        {
            *slot = Some(ready);
            held.some.store(true, Ordering::Release);
            drop(slot);
            self.waiting.ring(route.peer());
            return Ok(());
        }
        drop(slot);
        self.send_fitting(route, leg, snapshot.primary_max, batch)
    }

    fn send_ready(&self, ready: &Ready) -> io::Result<()> {
        #[cfg(test)]
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        } else if self.is_blocked(&ready.leg) {
            return Ok(());
        }
        let batch = Batch {
            contents: &ready.bytes,
            segment: Some(ready.wire_segment()),
            ecn: ready.ecn,
        };
        self.send_udp(ready.socket, ready.remote, batch, Some(&ready.leg))
    }

    /// Sends what is held of a peer.
    fn send_held(&self, route: &PeerRoute) -> io::Result<()> {
        let mut slot = route.held.lock();
        if let Some(ready) = &*slot {
            self.send_ready(ready)?;
            *slot = None;
            route.held.some.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Sends what nothing came for, for ever.
    pub(crate) async fn send_waiting(&self) {
        loop {
            self.waiting.bell.notified().await;
            let mut blocked = self.waiting.take();
            loop {
                blocked.retain(|peer| self.try_held(*peer).is_err());
                if blocked.is_empty() {
                    break;
                }
                self.writable().await;
                // A socket that is about to be renewed counts as writable, and is not.
                tokio::task::yield_now().await;
                blocked.extend(self.waiting.take());
            }
        }
    }

    fn try_held(&self, peer: PeerId) -> io::Result<()> {
        match self.tables.peers.pin().get(&peer) {
            Some(route) => self.send_held(route),
            // It is gone, and nobody waits for what it would have been sent.
            None => Ok(()),
        }
    }

    async fn writable(&self) {
        let (mut own, mut extra) = (AllWritable::default(), AllWritable::default());
        poll_fn(|cx| own.poll(&self.own.list, cx)).await;
        poll_fn(|cx| extra.poll(&self.extra.list, cx)).await;
    }
}

impl Waiting {
    fn ring(&self, peer: PeerId) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if !peers.contains(&peer) {
            peers.push(peer);
        }
        drop(peers);
        self.bell.notify_one();
    }

    fn take(&self) -> Vec<PeerId> {
        std::mem::take(&mut self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::time::Duration;

    use byway_core::io::{Health, Route, Way};
    use quinn::udp::Transmit;

    use super::super::{ToDriver, Virtual};
    use super::*;

    const PEER: PeerId = PeerId(1);
    const SEGMENT: usize = 100;

    /// A socket with a route to somebody who listens.
    struct Pair {
        socket: Arc<Socket>,
        route: Arc<PeerRoute>,
        there: UdpSocket,
        _driver: tokio::sync::mpsc::Receiver<ToDriver>,
    }

    fn route_to(there: &UdpSocket, duplicate: bool) -> Route {
        let to = |remote| Way::Direct {
            socket: SocketId(0),
            remote,
        };
        let remote = there.local_addr().unwrap();
        Route {
            epoch: 1,
            primary: Some(to(remote)),
            standby: duplicate.then(|| to(remote)),
            duplicate,
            max_datagram: 1_444,
            primary_max: 1_444,
            standby_max: 1_444,
            health: Health::Good,
        }
    }

    impl Pair {
        fn new() -> Self {
            let (socket, _driver) = Socket::bind(&["127.0.0.1:0".parse().unwrap()], 1_444).unwrap();
            let there = UdpSocket::bind("127.0.0.1:0").unwrap();
            there.set_nonblocking(true).unwrap();
            let route = Arc::new(PeerRoute::new(PEER));
            socket.tables.insert_peer(Arc::clone(&route));
            let pair = Self {
                socket,
                route,
                there,
                _driver,
            };
            pair.follow(&route_to(&pair.there, false));
            pair
        }
        fn follow(&self, route: &Route) {
            for way in [route.primary, route.standby].into_iter().flatten() {
                self.socket.tables.learn(PEER, way);
            }
            self.route.update(route, &self.socket.tables);
        }
        /// quinn sends so many full datagrams, numbered from `first` on, and one of `last` bytes behind them.
        fn send(&self, first: u8, full: u8, last: usize) -> io::Result<()> {
            let mut contents = Vec::new();
            for n in first..first + full {
                contents.extend_from_slice(&[n; SEGMENT]);
            }
            contents.resize(contents.len() + last, first + full);
            let transmit = Transmit {
                destination: Virtual::Peer(PEER).to_addr(),
                ecn: None,
                contents: &contents,
                segment_size: (full > 0).then_some(SEGMENT),
                src_ip: None,
            };
            self.socket.send_batch(&transmit)
        }
        /// The numbers of all that came: on loopback that is all that was sent.
        fn received(&self) -> Vec<u8> {
            let mut buffer = [0; 2_048];
            std::iter::from_fn(|| self.there.recv(&mut buffer).ok().map(|_| buffer[0])).collect()
        }
    }

    fn numbers(from: u8, to: u8) -> Vec<u8> {
        (from..to).collect()
    }

    #[tokio::test]
    async fn a_full_batch_leaves_with_the_next_one() {
        let pair = Pair::new();
        pair.send(0, 10, 0).unwrap();
        assert!(pair.received().is_empty());
        pair.send(10, 10, 0).unwrap();
        assert_eq!(pair.received(), numbers(0, 20));
        // Nothing is left of it.
        pair.send(20, 1, 0).unwrap();
        assert_eq!(pair.received(), [20]);
    }

    #[tokio::test]
    async fn what_is_less_than_full_leaves_at_once_and_takes_along_what_is_held() {
        let pair = Pair::new();
        pair.send(0, 9, 30).unwrap();
        assert_eq!(pair.received(), numbers(0, 10));
        // A short batch, one datagram, and one of another size: behind it, each of them.
        for (full, last) in [(3, 30), (0, 30), (0, SEGMENT + 1)] {
            pair.send(0, 10, 0).unwrap();
            assert!(pair.received().is_empty());
            pair.send(10, full, last).unwrap();
            assert_eq!(pair.received(), numbers(0, 11 + full));
        }
    }

    #[tokio::test]
    async fn what_nothing_comes_for_leaves_by_itself() {
        let pair = Pair::new();
        let socket = Arc::clone(&pair.socket);
        let sends = tokio::spawn(async move { socket.send_waiting().await });
        pair.there.set_nonblocking(false).unwrap();
        pair.there
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        pair.send(0, 10, 0).unwrap();
        let there = pair.there.try_clone().unwrap();
        let first = tokio::task::spawn_blocking(move || {
            let mut buffer = [0; 2_048];
            there.recv(&mut buffer).map(|_| buffer[0])
        });
        assert_eq!(first.await.unwrap().unwrap(), 0);
        sends.abort();
    }

    #[tokio::test]
    async fn what_the_kernel_has_no_room_for_is_neither_lost_nor_sent_twice() {
        let pair = Pair::new();
        pair.send(0, 10, 0).unwrap();
        pair.socket.full.store(true, Ordering::Relaxed);
        for (full, last) in [(10, 0), (1, 30), (0, SEGMENT + 1)] {
            let refused = pair.send(10, full, last).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        }
        pair.socket.full.store(false, Ordering::Relaxed);
        pair.send(10, 10, 0).unwrap();
        assert_eq!(pair.received(), numbers(0, 20));
    }

    #[tokio::test]
    async fn what_is_held_goes_the_way_it_was_meant_for() {
        let pair = Pair::new();
        pair.send(0, 10, 0).unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        other.set_nonblocking(true).unwrap();
        pair.follow(&route_to(&other, false));
        pair.send(10, 10, 0).unwrap();
        assert_eq!(pair.received(), numbers(0, 10));
        pair.send(20, 1, 0).unwrap();
        let mut buffer = [0; 2_048];
        let there = std::iter::from_fn(|| other.recv(&mut buffer).ok().map(|_| buffer[0]));
        assert_eq!(there.collect::<Vec<_>>(), numbers(10, 21));
    }

    #[tokio::test]
    async fn what_the_path_does_not_carry_any_more_is_cut_in_two_and_goes_behind() {
        let pair = Pair::new();
        pair.send(0, 10, 0).unwrap();
        let narrow = SEGMENT as u16 - 10;
        pair.follow(&Route {
            primary_max: narrow,
            max_datagram: narrow,
            ..route_to(&pair.there, false)
        });
        pair.send(10, 10, 0).unwrap();
        let parts = vec![0x83; 20];
        assert_eq!(pair.received(), [numbers(0, 10), parts].concat());
    }

    #[tokio::test]
    async fn what_has_no_room_is_tried_again_and_holds_up_nobody() {
        let pair = Pair::new();
        pair.socket.full.store(true, Ordering::Relaxed);
        pair.send(0, 10, 0).unwrap();
        let socket = Arc::clone(&pair.socket);
        let sends = tokio::spawn(async move { socket.send_waiting().await });
        // It is refused, and goes on trying, without holding up this runtime of one thread.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(pair.received().is_empty());
        pair.socket.full.store(false, Ordering::Relaxed);
        let mut all = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), async {
            while all.len() < 10 {
                all.extend(pair.received());
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(all, numbers(0, 10));
        sends.abort();
    }

    #[tokio::test]
    async fn nothing_is_held_while_a_copy_goes_elsewhere() {
        let pair = Pair::new();
        pair.follow(&route_to(&pair.there, true));
        pair.send(0, 10, 0).unwrap();
        assert_eq!(pair.received(), [numbers(0, 10), numbers(0, 10)].concat());
    }
}
