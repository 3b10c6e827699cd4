//! What waits to be written to a TLS link: bounded in bytes and in age (design section 7).
//!
//! QUIC above measures and retransmits by itself; a deep queue below it would only add delay that it takes for distance.
//! So data never blocks: when the queue is full its oldest goes, and what waited longer than 50 ms goes when its turn
//! comes. How much may wait goes by how fast the link is ([`byway_wire::relay::egress`]). Control messages have a lane of their own, in front and never dropped.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use byway_wire::ChannelId;
use byway_wire::relay::egress::{MAX_AGE, Room};
use byway_wire::relay::frame::{DATA_HEADER_LEN, data_header};
use tokio::sync::Notify;

/// The queue of one TLS link.
#[derive(Debug)]
pub(crate) struct Egress {
    relay: Option<SocketAddr>,
    queue: Mutex<Queue>,
    filled: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(Instant, BytesMut)>,
    bytes: usize,
    room: Room,
}

impl Egress {
    /// An empty queue of the link to a relay at this address; none if only a proxy knows it.
    pub(crate) fn new(relay: Option<SocketAddr>) -> Self {
        Self {
            relay,
            queue: Mutex::default(),
            filled: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// The relay's address, if the link goes straight there.
    pub(crate) fn relay(&self) -> Option<SocketAddr> {
        self.relay
    }

    /// Queues a batch of datagrams as one data frame.
    pub(crate) fn push_data(&self, channel: ChannelId, segment: Option<usize>, contents: &[u8]) {
        let segment = segment.unwrap_or(contents.len());
        let Ok(segment) = u16::try_from(segment) else {
            return;
        };
        let mut frame = BytesMut::with_capacity(DATA_HEADER_LEN + contents.len());
        frame.put_slice(&data_header(channel, segment));
        frame.put_slice(contents);
        self.push(Instant::now(), frame);
    }

    fn push(&self, now: Instant, frame: BytesMut) {
        let Ok(mut queue) = self.queue.lock() else {
            return;
        };
        self.expire(&mut queue, now);
        let waiting = queue.bytes;
        let beside = queue.room.bytes_beside(now, waiting, frame.len());
        while queue.bytes > beside
            && let Some((_, oldest)) = queue.frames.pop_front()
        {
            queue.bytes -= oldest.len();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        queue.bytes += frame.len();
        queue.frames.push_back((now, frame));
        drop(queue);
        self.filled.notify_one();
    }

    /// The next frame that is not too old, if there is one.
    pub(crate) fn pop(&self, now: Instant) -> Option<BytesMut> {
        let mut queue = self.queue.lock().ok()?;
        self.expire(&mut queue, now);
        let (_, frame) = queue.frames.pop_front()?;
        queue.bytes -= frame.len();
        queue.room.took(now, frame.len());
        Some(frame)
    }

    /// Drops what is too old. A writer that is stuck asks for nothing: so whoever adds something does this, too.
    fn expire(&self, queue: &mut Queue, now: Instant) {
        let old = |at: Instant| now.saturating_duration_since(at) > MAX_AGE;
        while let Some((_, frame)) = queue.frames.pop_front_if(|(at, _)| old(*at)) {
            queue.bytes -= frame.len();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until something was queued.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Frames dropped for size or age.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn egress() -> Egress {
        Egress::new(Some("192.0.2.1:443".parse().unwrap()))
    }
    const MS: Duration = Duration::from_millis(1);
    fn frame(n: u8, len: usize) -> BytesMut {
        BytesMut::from(&vec![n; len][..])
    }

    #[test]
    fn frames_leave_in_order_while_they_are_fresh() {
        let egress = egress();
        let now = Instant::now();
        egress.push(now, frame(1, 10));
        egress.push(now + 40 * MS, frame(2, 10));
        assert_eq!(egress.pop(now + MAX_AGE).unwrap()[0], 1);
        let later = now + MAX_AGE + MS;
        assert_eq!(egress.pop(later).unwrap()[0], 2);
        assert_eq!(egress.pop(later), None);
    }

    #[test]
    fn what_waited_too_long_is_dropped() {
        let egress = egress();
        let now = Instant::now();
        egress.push(now, frame(1, 10));
        assert_eq!(egress.pop(now + MAX_AGE + MS), None);
        assert_eq!(egress.dropped(), 1);
    }

    #[test]
    fn a_full_queue_drops_its_oldest() {
        let egress = egress();
        let now = Instant::now();
        for n in 0..5 {
            egress.push(now, frame(n, 60 * 1024));
        }
        let left: Vec<u8> = std::iter::from_fn(|| egress.pop(now))
            .map(|f| f[0])
            .collect();
        assert_eq!(left, [1, 2, 3, 4]);
        assert_eq!(egress.queue.lock().unwrap().bytes, 0);
    }

    #[test]
    fn a_fast_link_has_room_for_more_and_loses_it_little_by_little() {
        let egress = egress();
        let mut now = Instant::now();
        for _ in 0..20 {
            for n in 0..4 {
                egress.push(now, frame(n, 60 * 1024));
            }
            while egress.pop(now).is_some() {}
            now += MS;
        }
        let fill = |now| (0..30).for_each(|n| egress.push(now, frame(n, 60 * 1024)));
        let left = || egress.queue.lock().unwrap().frames.len();
        fill(now);
        assert_eq!((left(), egress.dropped()), (17, 13), "1 MiB");
        // It takes nothing for a moment: what is added costs twice as much of what waits.
        now += 30 * MS;
        egress.push(now, frame(98, 60 * 1024));
        egress.push(now, frame(99, 60 * 1024));
        assert_eq!((left(), egress.dropped()), (15, 17));
        // All but these are old later.
        now += MAX_AGE;
        egress.push(now, frame(100, 60 * 1024));
        assert_eq!(left(), 3);
        // However much is added, until nothing is left of that room.
        fill(now);
        assert_eq!(left(), 4);
    }
}
