//! The way from anywhere in the relay to one link's writer: a [`Queue`] behind a lock, and a bell.
//!
//! A UDP link uses the control lane only; its data leaves beside QUIC.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use byway_wire::ChannelId;
use tokio::sync::Notify;

use crate::delays::Delays;
use crate::limits::EgressLimits;
use crate::queue::{Dropped, Queue};

/// Most bytes between two flushes. Few enough that control, and the age of data, are looked at again soon.
const BATCH: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    bell: Notify,
    /// Rung once, when nothing more will be queued.
    end: Notify,
    /// Where it is measured how long data waits.
    delays: Option<Arc<Delays>>,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Open,
    /// What is queued is still written, then the link ends.
    Finishing,
    /// Nobody writes any more.
    Closed,
}

/// What came of queueing data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queued {
    /// It waits; others may have been dropped for it.
    Yes(Dropped),
    /// The link is gone.
    Gone,
}

impl Outbox {
    /// For a link that carries data.
    pub(crate) fn measured(limits: EgressLimits, delays: &Arc<Delays>) -> Self {
        let state = State {
            queue: Queue::new(limits),
            phase: Phase::default(),
        };
        Self {
            state: Mutex::new(state),
            delays: Some(Arc::clone(delays)),
            ..Self::default()
        }
    }
    /// Queues a control frame. False if the link is cut for it: its node does not read.
    pub(crate) fn control(&self, frame: Bytes) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return true;
        }
        let fits = state.queue.push_control(frame).is_ok();
        if !fits {
            state.queue.clear();
            state.phase = Phase::Finishing;
            self.end.notify_one();
        }
        drop(state);
        self.bell.notify_one();
        fits
    }
    /// Queues a data frame.
    pub(crate) fn data(&self, channel: ChannelId, frame: Bytes) -> Queued {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Queued::Gone;
        }
        let dropped = state.queue.push_data(Instant::now(), channel, frame);
        drop(state);
        self.bell.notify_one();
        Queued::Yes(dropped)
    }
    /// Drops what has waited for too long: for a writer that cannot take it.
    pub(crate) fn expire(&self) -> Dropped {
        self.lock().queue.expire(Instant::now())
    }
    /// Nothing more will be queued; the writer ends when it has written what is.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Finishing;
        }
        drop(state);
        self.bell.notify_one();
        self.end.notify_one();
    }
    /// The writer is gone.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        state.queue.clear();
    }
    /// Waits until [`Outbox::finish`] was called, or the outbox overflowed. For one waiter.
    pub(crate) async fn finished(&self) {
        self.end.notified().await;
    }
    /// The next frames to write, and what was dropped instead; none when finished.
    pub(crate) async fn next(&self) -> Option<(Vec<Bytes>, Dropped)> {
        loop {
            {
                let mut state = self.lock();
                let mut frames = Vec::new();
                let waited = |wait| {
                    if let Some(delays) = &self.delays {
                        delays.queued.observe(wait);
                    }
                };
                let dropped = state.queue.take(Instant::now(), BATCH, &mut frames, waited);
                if !frames.is_empty() || dropped != Dropped::default() {
                    return Some((frames, dropped));
                }
                if state.phase != Phase::Open {
                    return None;
                }
            }
            self.bell.notified().await;
        }
    }
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a queue that is at worst short of a frame.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the outbox when its link's task ends, however it ends.
#[derive(Debug)]
pub(crate) struct CloseOnDrop(pub(crate) Arc<Outbox>);
impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
