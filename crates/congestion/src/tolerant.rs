//! Cubic that backs off only for congestion. How a loss is judged is in [`crate::loss`].

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{
    Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig,
};

use crate::loss::{LossJudge, Outcome, Verdict};

/// Over how many packets their mean size is taken: losses come in bursts, which are compared with what was sent about then.
const SIZES: f64 = 8.0;

/// Builds [`Tolerant`] controllers.
#[derive(Debug, Default)]
pub(crate) struct TolerantFactory {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for TolerantFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Tolerant {
            cubic: Cubic::new(Arc::clone(&self.cubic), now, current_mtu),
            judge: LossJudge::default(),
            aside: None,
            mtu: current_mtu,
            size: f64::from(current_mtu),
        })
    }
}

/// RFC 9438, told of the losses that a [`LossJudge`] takes for congestion.
#[derive(Clone, Debug)]
struct Tolerant {
    cubic: Cubic,
    judge: LossJudge,
    /// As it was before the back-off that is on trial.
    aside: Option<Cubic>,
    mtu: u16,
    /// The mean size of the packets acknowledged of late, in bytes.
    size: f64,
}

impl Tolerant {
    fn came_through(&mut self, bytes: u64) {
        self.size += (bytes as f64 - self.size) / SIZES;
    }

    /// How many packets so many lost bytes were, which quinn does not say: they were as large as those that came through. An
    /// acknowledgement is one packet, of whatever size.
    fn packets(&self, lost: u64) -> u32 {
        let packets = lost as f64 / self.size.max(1.0);
        // A float is cut to what the integer can be.
        packets.round().max(1.0) as u32
    }
}

impl Controller for Tolerant {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.came_through(bytes);
        if let Some(outcome) = self.judge.on_ack(now, sent) {
            let aside = self.aside.take();
            if let (Outcome::Useless, Some(before)) = (outcome, aside) {
                self.cubic = before;
                self.cubic.on_mtu_update(self.mtu);
            }
        }
        if self.aside.is_none() {
            self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        let marked = lost_bytes == 0;
        if is_persistent_congestion || marked {
            // Nothing came through for long, or a router says it: no question.
            self.judge.react(now);
            self.aside = None;
        } else {
            let packets = self.packets(lost_bytes);
            match self.judge.on_lost(now, sent, packets) {
                Verdict::Chance => return,
                Verdict::Congestion => self.aside = None,
                Verdict::Trial => self.aside = Some(self.cubic.clone()),
            }
        }
        self.cubic
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_packets_are_as_large_as_those_that_came_through() {
        let built = Arc::new(TolerantFactory::default()).build(Instant::now(), 1_444);
        let mut tolerant = *built.into_any().downcast::<Tolerant>().unwrap();
        assert_eq!(tolerant.packets(1_444), 1);
        assert_eq!(tolerant.packets(14_440), 10);
        assert_eq!(tolerant.packets(1), 1, "something was lost");
        for _ in 0..100 {
            tolerant.came_through(144);
        }
        assert_eq!(tolerant.packets(1_440), 10);
        for _ in 0..100 {
            tolerant.came_through(1_444);
        }
        assert_eq!(tolerant.packets(2_888), 2);
    }
}
