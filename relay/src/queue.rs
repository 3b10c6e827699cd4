//! What waits to be written to one node: a control lane, and a data lane per channel.
//!
//! Control goes first and is never dropped here; when it grows beyond its bound its node does not read, and the link
//! ends. Data is bounded in bytes and in age: a datagram that waited 50 ms is worth less than the one behind it, because
//! the tunnel inside has its own retransmission. How many bytes go by how fast the link is
//! ([`byway_wire::relay::egress`]); beyond them the longest lane loses its oldest frame. Between channels the turn is by
//! deficit round robin (Shreedhar and Varghese): each lane may send a quantum a round, so a bulk transfer cannot starve a
//! terminal beside it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::ChannelId;
use byway_wire::relay::egress::Room;

use crate::limits::EgressLimits;

/// Most control that waits, in bytes: an agent's thousand channels all ending at once take 20 KiB, a thousand openers'
/// records 1 MiB.
pub(crate) const MAX_CONTROL: usize = 2 * 1024 * 1024;
/// Bytes a lane may send in its turn: one batch of ten segments, so a full batch leaves in one turn.
const QUANTUM: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    limits: EgressLimits,
    room: Room,
    control: VecDeque<Bytes>,
    control_bytes: usize,
    lanes: HashMap<ChannelId, Lane>,
    /// Whose turn it is, first in front. Holds each lane once.
    round: VecDeque<ChannelId>,
    data_bytes: usize,
}

#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    deficit: usize,
}

/// Control waits beyond its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ControlOverflow;

/// Frames dropped, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Dropped {
    pub(crate) full: u64,
    pub(crate) old: u64,
}

impl Lane {
    /// Drops what has waited for longer than this, and says how many bytes that were. It may be empty then.
    fn expire(&mut self, now: Instant, age: Duration, dropped: &mut Dropped) -> usize {
        let before = self.bytes;
        while let Some((since, frame)) = self.frames.front() {
            if now.saturating_duration_since(*since) <= age {
                break;
            }
            self.bytes -= frame.len();
            self.frames.pop_front();
            dropped.old += 1;
        }
        before - self.bytes
    }
}

impl Queue {
    /// For a link that carries data.
    pub(crate) fn new(limits: EgressLimits) -> Self {
        Self {
            limits,
            room: Room::new(limits.bytes as usize),
            ..Self::default()
        }
    }
    pub(crate) fn push_control(&mut self, frame: Bytes) -> Result<(), ControlOverflow> {
        if self.control_bytes + frame.len() > MAX_CONTROL {
            return Err(ControlOverflow);
        }
        self.control_bytes += frame.len();
        self.control.push_back(frame);
        Ok(())
    }

    pub(crate) fn push_data(&mut self, now: Instant, channel: ChannelId, frame: Bytes) -> Dropped {
        let mut dropped = Dropped::default();
        // A writer that is stuck looks once in this time only: a node that does not read would hold twice as much.
        if let Some(lane) = self.lanes.get_mut(&channel) {
            self.data_bytes -= lane.expire(now, self.limits.age, &mut dropped);
        }
        let beside = self.room.bytes_beside(now, self.data_bytes, frame.len());
        while self.data_bytes > beside {
            self.drop_from_longest();
            dropped.full += 1;
        }
        self.data_bytes += frame.len();
        let lane = self.lanes.entry(channel).or_insert_with(|| {
            self.round.push_back(channel);
            Lane::default()
        });
        lane.bytes += frame.len();
        lane.frames.push_back((now, frame));
        dropped
    }

    /// Moves up to `max_bytes` (and at least one frame, if there is one) into `out`, in the order to be written. `waited` is told
    /// how long each frame of data did.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        max_bytes: usize,
        out: &mut Vec<Bytes>,
        mut waited: impl FnMut(Duration),
    ) -> Dropped {
        let mut dropped = Dropped::default();
        let mut taken = 0;
        while taken < max_bytes
            && let Some(frame) = self.next(now, &mut dropped, &mut waited)
        {
            taken += frame.len();
            out.push(frame);
        }
        dropped
    }

    fn next(
        &mut self,
        now: Instant,
        dropped: &mut Dropped,
        waited: &mut impl FnMut(Duration),
    ) -> Option<Bytes> {
        if let Some(frame) = self.control.pop_front() {
            self.control_bytes -= frame.len();
            return Some(frame);
        }
        loop {
            let channel = *self.round.front()?;
            let Some(lane) = self.lanes.get_mut(&channel) else {
                self.round.pop_front();
                continue;
            };
            self.data_bytes -= lane.expire(now, self.limits.age, dropped);
            match lane.frames.front() {
                None => {
                    // An empty lane keeps no deficit: having been silent buys nothing.
                    self.lanes.remove(&channel);
                    self.round.pop_front();
                }
                Some((_, frame)) if frame.len() > lane.deficit => {
                    lane.deficit += QUANTUM;
                    self.round.rotate_left(1);
                }
                Some(_) => {
                    let (since, frame) = lane.frames.pop_front()?;
                    waited(now.saturating_duration_since(since));
                    lane.deficit -= frame.len();
                    lane.bytes -= frame.len();
                    self.data_bytes -= frame.len();
                    self.room.took(now, frame.len());
                    if lane.frames.is_empty() {
                        self.lanes.remove(&channel);
                        self.round.pop_front();
                    }
                    return Some(frame);
                }
            }
        }
    }

    /// Drops what has waited for too long in all lanes: for a writer that is stuck and takes nothing, or a node that does not read would cost
    /// all that it may for as long as somebody sends to it.
    pub(crate) fn expire(&mut self, now: Instant) -> Dropped {
        let mut dropped = Dropped::default();
        for lane in self.lanes.values_mut() {
            self.data_bytes -= lane.expire(now, self.limits.age, &mut dropped);
        }
        self.forget_empty();
        dropped
    }

    fn drop_from_longest(&mut self) {
        let Some(lane) = self.lanes.values_mut().max_by_key(|lane| lane.bytes) else {
            return;
        };
        if let Some((_, frame)) = lane.frames.pop_front() {
            lane.bytes -= frame.len();
            self.data_bytes -= frame.len();
        }
        if lane.frames.is_empty() {
            self.forget_empty();
        }
    }

    fn forget_empty(&mut self) {
        self.lanes.retain(|_, lane| !lane.frames.is_empty());
        let lanes = &self.lanes;
        self.round.retain(|channel| lanes.contains_key(channel));
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 256 * 1024;

    fn channel(n: u64) -> ChannelId {
        ChannelId::from_u64(n)
    }
    fn frame(tag: u8, len: usize) -> Bytes {
        Bytes::from(vec![tag; len])
    }
    fn drain(queue: &mut Queue, now: Instant) -> (Vec<u8>, Dropped) {
        let mut out = Vec::new();
        let dropped = queue.take(now, usize::MAX, &mut out, |_| {});
        assert_eq!((queue.data_bytes, queue.control_bytes), (0, 0));
        assert!(queue.lanes.is_empty() && queue.round.is_empty());
        (out.iter().map(|f| f[0]).collect(), dropped)
    }

    #[test]
    fn control_overtakes_data() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push_data(now, channel(1), frame(1, 10));
        queue.push_control(frame(9, 10)).unwrap();
        assert_eq!(drain(&mut queue, now).0, [9, 1]);
    }

    #[test]
    fn control_beyond_its_bound_is_refused() {
        let mut queue = Queue::default();
        assert_eq!(queue.push_control(frame(9, MAX_CONTROL)), Ok(()));
        assert_eq!(queue.push_control(frame(9, 1)), Err(ControlOverflow));
    }

    #[test]
    fn data_that_waited_too_long_is_dropped_and_counted() {
        let mut queue = Queue::default();
        let start = Instant::now();
        queue.push_data(start, channel(1), frame(1, 10));
        queue.push_data(start + Duration::from_millis(1), channel(1), frame(2, 10));
        let (out, dropped) = drain(&mut queue, start + Duration::from_millis(51));
        assert_eq!(out, [2]);
        assert_eq!(dropped, Dropped { full: 0, old: 1 });
    }

    /// Its writer is stuck and asks for nothing.
    #[test]
    fn what_nobody_takes_is_dropped_all_the_same() {
        let mut queue = Queue::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut dropped = Dropped::default();
        for n in 0..100 {
            let now = queue.push_data(at(n * 10), channel(1), frame(1, 10_000));
            dropped.old += now.old;
            dropped.full += now.full;
            assert!(queue.data_bytes <= 60_000);
        }
        assert_eq!(dropped, Dropped { full: 0, old: 94 });
        queue.push_data(at(1_000), channel(2), frame(2, 10));
        // Nothing more comes on the first channel.
        assert_eq!(queue.expire(at(1_040)), Dropped { full: 0, old: 5 });
        assert_eq!(queue.data_bytes, 10_010);
        assert_eq!(queue.expire(at(1_051)), Dropped { full: 0, old: 2 });
        assert_eq!((queue.data_bytes, queue.lanes.len()), (0, 0));
        queue.push_data(at(1_100), channel(1), frame(3, 10));
        assert_eq!(drain(&mut queue, at(1_100)).0, [3], "it has its turn again");
    }

    #[test]
    fn limits_may_be_others() {
        let limits = EgressLimits {
            bytes: 1_000,
            age: Duration::from_millis(5),
            ..EgressLimits::default()
        };
        let mut queue = Queue::new(limits);
        let now = Instant::now();
        queue.push_data(now, channel(1), frame(1, 600));
        let dropped = queue.push_data(now, channel(1), frame(2, 600));
        assert_eq!(dropped, Dropped { full: 1, old: 0 });
        let (out, dropped) = drain(&mut queue, now + Duration::from_millis(6));
        assert!(out.is_empty() && dropped == Dropped { full: 0, old: 1 });
    }

    #[test]
    fn how_long_data_waited_is_told_frame_by_frame() {
        let mut queue = Queue::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        queue.push_data(start, channel(1), frame(1, 10));
        queue.push_data(start + ms(20), channel(1), frame(2, 10));
        queue.push_data(start + ms(30), channel(1), frame(3, 10));
        queue.push_control(frame(9, 10)).unwrap();
        let (mut out, mut waits) = (Vec::new(), Vec::new());
        queue.take(start + ms(60), usize::MAX, &mut out, |wait| {
            waits.push(wait);
        });
        assert_eq!(out.len(), 3, "the oldest was dropped");
        assert_eq!(waits, [ms(40), ms(30)]);
    }

    #[test]
    fn beyond_the_bytes_the_longest_lane_loses_its_oldest() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push_data(now, channel(1), frame(100, 50));
        let mut dropped = 0;
        for n in 0..20 {
            dropped += queue.push_data(now, channel(2), frame(n, MAX / 8)).full;
        }
        assert!(queue.data_bytes <= MAX);
        let (out, _) = drain(&mut queue, now);
        assert_eq!(dropped as usize + out.len(), 21);
        assert!(out.contains(&100), "the quiet channel lost nothing");
        assert!(out.contains(&19) && !out.contains(&0));
    }

    #[test]
    fn a_link_that_takes_much_has_room_for_more_until_it_stops() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        let fill = |queue: &mut Queue, now| {
            let push = |n| queue.push_data(now, channel(1), frame(n, 16 * 1024)).full;
            (0..100).map(push).sum::<u64>()
        };
        assert_eq!(fill(&mut queue, now), 84, "256 KiB");
        for _ in 0..20 {
            drain(&mut queue, now);
            now += Duration::from_millis(1);
            for n in 0..16 {
                queue.push_data(now, channel(1), frame(n, 16 * 1024));
            }
        }
        drain(&mut queue, now);
        assert_eq!(fill(&mut queue, now), 36, "1 MiB");
        // Nothing is taken any more: each frame that is added costs two.
        now += Duration::from_millis(40);
        for n in 1..=10 {
            queue.push_data(now, channel(2), frame(2, 16 * 1024));
            assert_eq!(queue.data_bytes, (64 - n) * 16 * 1024);
        }
        // However long it goes on.
        let fills = fill(&mut queue, now);
        assert_eq!((queue.data_bytes, fills), (MAX, 138));
    }

    #[test]
    fn channels_take_turns_by_bytes() {
        let mut queue = Queue::default();
        let now = Instant::now();
        for _ in 0..10 {
            queue.push_data(now, channel(1), frame(1, QUANTUM));
        }
        for _ in 0..10 {
            queue.push_data(now, channel(2), frame(2, 100));
        }
        let (out, _) = drain(&mut queue, now);
        let last_small = out.iter().rposition(|tag| *tag == 2).unwrap();
        assert!(
            last_small < 12,
            "the terminal waits one turn at most: {out:?}"
        );
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut queue = Queue::default();
        let now = Instant::now();
        for n in 0..4 {
            queue.push_data(now, channel(1), frame(n, 40_000));
        }
        let mut out = Vec::new();
        queue.take(now, 1, &mut out, |_| {});
        assert_eq!(out.len(), 1);
        queue.take(now, 64 * 1024, &mut out, |_| {});
        assert_eq!(out.len(), 3);
    }
}
