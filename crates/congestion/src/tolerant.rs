//! Cubic that backs off only for congestion. How a loss is judged is in [`crate::loss`].

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{
    Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig,
};

use crate::loss::{Judge, Outcome, Verdict};

/// Builds [`Tolerant`] controllers.
#[derive(Debug, Default)]
pub(crate) struct TolerantFactory {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for TolerantFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Tolerant {
            cubic: Cubic::new(Arc::clone(&self.cubic), now, current_mtu),
            judge: Judge::default(),
            aside: None,
            mtu: current_mtu,
        })
    }
}

/// RFC 9438, told of the losses that a [`Judge`] takes for congestion.
#[derive(Clone, Debug)]
struct Tolerant {
    cubic: Cubic,
    judge: Judge,
    /// As it was before the back-off that is on trial.
    aside: Option<Cubic>,
    mtu: u16,
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
        if let Some(outcome) = self.judge.on_ack(now, sent) {
            let aside = self.aside.take();
            if let (Outcome::Useless, Some(before)) = (outcome, aside) {
                self.cubic = before;
                self.cubic.on_mtu_update(self.mtu);
            }
        }
        if !self.judge.on_trial() {
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
            let packets = lost_bytes.div_ceil(u64::from(self.mtu));
            match self
                .judge
                .on_lost(now, sent, u32::try_from(packets).unwrap_or(u32::MAX))
            {
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
