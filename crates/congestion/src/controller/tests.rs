//! With a fake inner controller. What needs a round-trip time of quinn's (its estimator cannot be built outside) is
//! in `tests/quinn.rs`.

use std::net::SocketAddr;
use std::sync::Mutex;

use byway_core::io::SocketId;

use super::*;

mod slept;

const MS: Duration = Duration::from_millis(1);
const INITIAL: u64 = 14_000;

/// What a fake controller was told.
#[derive(Default)]
struct Told {
    losses: Vec<(bool, u64)>,
    in_flight: Vec<u64>,
    mtu: u16,
}

struct Fake {
    window: u64,
    told: Arc<Mutex<Told>>,
}

impl Controller for Fake {
    fn on_end_acks(&mut self, _: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.told.lock().unwrap().in_flight.push(in_flight);
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, persistent: bool, lost: u64) {
        self.told.lock().unwrap().losses.push((persistent, lost));
        self.window /= 2;
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.told.lock().unwrap().mtu = new_mtu;
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            window: self.window,
            told: Arc::clone(&self.told),
        })
    }

    fn initial_window(&self) -> u64 {
        INITIAL
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[derive(Default)]
struct FakeFactory {
    built: Mutex<Vec<Arc<Mutex<Told>>>>,
}

impl ControllerFactory for FakeFactory {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        let told = Arc::default();
        self.built.lock().unwrap().push(Arc::clone(&told));
        Box::new(Fake {
            window: INITIAL,
            told,
        })
    }
}

struct Rig {
    start: Instant,
    monitor: Arc<FlowMonitor>,
    factory: Arc<FakeFactory>,
    controller: PathAware,
}

impl Rig {
    fn new() -> Self {
        let start = Instant::now();
        let monitor = Arc::new(FlowMonitor::new(start));
        let factory = Arc::new(FakeFactory::default());
        let inner: Arc<dyn ControllerFactory + Send + Sync> = factory.clone();
        let controller = PathAware::new(Arc::clone(&monitor), inner, start, 1200);
        monitor.switch(start, &way(1));
        Self {
            start,
            monitor,
            factory,
            controller,
        }
    }

    fn at(&self, ms: u32) -> Instant {
        self.start + ms * MS
    }

    fn switch(&self, ms: u32, path: u16) {
        self.monitor.switch(self.at(ms), &way(path));
    }

    /// As quinn does it for a datagram that elicits an acknowledgement.
    fn send(&mut self, ms: u32, bytes: u64) {
        self.controller.window();
        self.controller.window();
        let now = self.at(ms);
        self.controller.on_sent(now, bytes, 0);
    }

    /// As quinn does it for a bare ACK.
    fn send_bare_ack(&mut self, ms: u32) {
        let now = self.at(ms);
        self.controller.on_sent(now, 40, 0);
    }

    /// One ACK frame for one packet. True if the inner controller is told.
    fn ack(&mut self, ms: u32, sent_ms: u32, bytes: u64, in_flight: u64) -> bool {
        let (now, sent) = (self.at(ms), self.at(sent_ms));
        let told = self.controller.acked(now, sent, bytes);
        self.controller.on_end_acks(now, in_flight, false, Some(0));
        told
    }

    fn lose(&mut self, ms: u32, sent_ms: u32, bytes: u64) {
        let (now, sent) = (self.at(ms), self.at(sent_ms));
        self.controller.on_congestion_event(now, sent, true, bytes);
    }

    fn sample(&self, ms: u32) -> byway_core::io::FlowSample {
        self.monitor.sample(self.at(ms))
    }

    fn told(&self, built: usize) -> Arc<Mutex<Told>> {
        Arc::clone(&self.factory.built.lock().unwrap()[built])
    }

    fn built(&self) -> usize {
        self.factory.built.lock().unwrap().len()
    }
}

fn way(path: u16) -> Way {
    Way::Direct {
        socket: SocketId(0),
        remote: SocketAddr::from(([192, 0, 2, 1], path)),
    }
}

#[test]
fn first_path_takes_over_the_controller_the_connection_started_with() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    assert_eq!(rig.controller.window(), INITIAL);
    assert_eq!(rig.built(), 1);
    assert!(rig.ack(20, 0, 1200, 0));
}

#[test]
fn bytes_in_flight_before_a_switch_do_not_block_after_it() {
    let mut rig = Rig::new();
    rig.send(0, 13_000);
    rig.switch(5, 2);
    assert_eq!(
        rig.controller.window(),
        INITIAL + 13_000,
        "before any other call"
    );
    rig.send(6, 1200);
    assert_eq!(rig.controller.window(), INITIAL + 13_000);
    assert_eq!(rig.built(), 2);
    assert!(rig.ack(26, 6, 1200, 13_000));
    assert_eq!(rig.controller.window(), INITIAL, "the new path answered");
    assert_eq!(
        rig.told(1).lock().unwrap().in_flight,
        [0],
        "the old path's bytes are not its own"
    );
}

#[test]
fn what_a_machine_slept_over_does_not_block_after_it_woke() {
    let mut rig = Rig::new();
    rig.send(0, 13_000);
    let soon = 10_000;
    rig.monitor.renew_if_stale(rig.at(soon));
    assert_eq!(rig.controller.window(), INITIAL, "it may be under way yet");
    let woke = 3_600_000;
    rig.monitor.renew_if_stale(rig.at(woke));
    assert_eq!(rig.controller.window(), INITIAL + 13_000);
    rig.send(woke, 1200);
    assert_eq!(rig.controller.window(), INITIAL + 13_000);
    assert_eq!(rig.sample(woke).waiting_since, Some(rig.at(woke)));
    // Once is enough: now something answers, or the path is dead.
    rig.monitor.renew_if_stale(rig.at(woke + 20));
    assert_eq!(rig.built(), 2);
    assert!(rig.ack(woke + 20, woke, 1200, 13_000));
    assert_eq!(rig.controller.window(), INITIAL);
    // The path has one state, not two.
    assert!(rig.controller.kept.is_empty());
}

#[test]
fn nothing_is_taken_for_new_where_nothing_waits() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    rig.ack(20, 0, 1200, 0);
    rig.monitor.renew_if_stale(rig.at(3_600_000));
    rig.send(3_600_000, 1200);
    assert_eq!(rig.built(), 1);
}

#[test]
fn what_leaves_flight_of_the_old_path_leaves_the_window_too() {
    let mut rig = Rig::new();
    rig.send(0, 12_000);
    rig.switch(5, 2);
    rig.send(6, 1200);
    assert!(!rig.ack(20, 0, 2_000, 11_200));
    assert_eq!(rig.controller.window(), INITIAL + 10_000);
    rig.lose(21, 0, 10_000);
    assert_eq!(rig.controller.window(), INITIAL);
}

#[test]
fn losses_and_acknowledgements_from_before_the_switch_are_kept_from_the_inner_controller() {
    let mut rig = Rig::new();
    rig.send(0, 12_000);
    rig.switch(5, 2);
    rig.send(6, 1200);
    assert!(!rig.ack(7, 0, 1200, 12_000));
    rig.lose(8, 0, 9_000);
    // An ECN mark of the old path.
    rig.lose(9, 0, 0);
    let told = rig.told(1);
    assert!(told.lock().unwrap().losses.is_empty());
    assert!(told.lock().unwrap().in_flight.is_empty());
    assert!(
        rig.told(0).lock().unwrap().losses.is_empty(),
        "nor the one set aside"
    );
    let sample = rig.sample(10);
    assert_eq!(
        (sample.acked, sample.lost),
        (1200, 9_000),
        "they are still counted"
    );
}

#[test]
fn losses_after_the_switch_shrink_the_window() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    rig.ack(4, 0, 1200, 0);
    rig.switch(5, 2);
    rig.send(6, 4800);
    rig.send(7, 1200);
    assert!(rig.ack(27, 7, 1200, 4800));
    rig.lose(27, 6, 4800);
    assert_eq!(rig.told(1).lock().unwrap().losses, [(true, 4800)]);
    assert_eq!(rig.controller.window(), INITIAL / 2);
}

#[test]
fn a_batch_of_losses_across_the_switch_counts_only_what_the_new_path_lost() {
    let mut rig = Rig::new();
    rig.send(0, 10_000);
    rig.switch(5, 2);
    rig.send(6, 2400);
    rig.send(7, 1200);
    assert!(rig.ack(27, 7, 1200, 12_400));
    rig.lose(27, 6, 12_400);
    assert_eq!(rig.told(1).lock().unwrap().losses, [(false, 2400)]);
}

#[test]
fn returning_to_an_earlier_path_resumes_its_controller() {
    let mut rig = Rig::new();
    rig.send(0, 4800);
    rig.lose(1, 0, 1200);
    assert_eq!(rig.controller.window(), INITIAL / 2);
    rig.ack(20, 0, 3600, 0);
    rig.switch(30, 2);
    rig.send(31, 1200);
    rig.controller.on_mtu_update(1444);
    assert!(rig.ack(51, 31, 1200, 0));
    assert_eq!(rig.controller.window(), INITIAL);
    rig.switch(60, 1);
    assert_eq!(
        rig.controller.window(),
        INITIAL / 2,
        "already before the first send"
    );
    rig.send(61, 1200);
    assert_eq!(rig.built(), 2);
    assert_eq!(rig.controller.window(), INITIAL / 2);
    assert_eq!(rig.told(0).lock().unwrap().mtu, 1444);
    assert_eq!(rig.sample(61).srtt, 20 * MS, "with its round-trip time");
}

#[test]
fn a_batch_that_the_old_path_lost_all_but_one_datagram_of_is_no_mark() {
    let mut rig = Rig::new();
    rig.send(0, 2_400);
    // quinn counts an MTU probe in flight, of which it says nothing here; and never says that it was lost.
    rig.ack(20, 0, 1_200, 2_600);
    rig.switch(25, 2);
    rig.send(30, 1_200);
    rig.send(31, 1_200);
    assert!(rig.ack(51, 31, 1_200, 3_800));
    rig.lose(51, 30, 2_400);
    let told = rig.told(1);
    assert_eq!(told.lock().unwrap().losses, [(false, 1)]);
}

#[test]
fn the_monitor_tells_the_mtu_that_quinn_goes_by() {
    let mut rig = Rig::new();
    assert_eq!(rig.monitor.mtu(), 0, "nothing found yet");
    rig.controller.on_mtu_update(1_383);
    assert_eq!(rig.monitor.mtu(), 1_383);
    rig.controller.on_mtu_update(1_200);
    assert_eq!(rig.monitor.mtu(), 1_200, "a black hole");
}

#[test]
fn a_path_left_long_ago_starts_afresh() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    rig.switch(10, 2);
    rig.send(11, 1200);
    let later = 11 + 1000 * 601;
    rig.switch(later, 1);
    rig.send(later, 1200);
    assert_eq!(rig.built(), 3);
    assert_eq!(rig.controller.kept.len(), 1, "the expired state is gone");
}

#[test]
fn no_more_than_the_last_paths_are_kept() {
    let mut rig = Rig::new();
    for path in 1..20 {
        rig.switch(10 * u32::from(path), path);
        rig.send(10 * u32::from(path), 1200);
    }
    assert_eq!(rig.controller.kept.len(), KEPT_PATHS - 1);
    assert_eq!(rig.built(), 19);
    rig.switch(300, 18);
    rig.send(300, 1200);
    assert_eq!(rig.built(), 19, "the last but one is still there");
    rig.switch(310, 1);
    rig.send(310, 1200);
    assert_eq!(rig.built(), 20, "the first is not");
}

#[test]
fn there_and_back_between_two_sends_changes_nothing() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    rig.switch(5, 2);
    rig.switch(6, 1);
    rig.switch(6, 1);
    assert_eq!(rig.controller.window(), INITIAL);
    assert!(rig.ack(20, 0, 1200, 0));
    assert_eq!(rig.built(), 1);
}

#[test]
fn evidence_starts_with_the_first_send_and_ends_with_its_acknowledgement() {
    let mut rig = Rig::new();
    rig.send(10, 1000);
    rig.send(15, 500);
    let sample = rig.sample(30);
    assert_eq!(sample.in_flight, 1500);
    assert_eq!(sample.sent, 1500);
    assert_eq!(sample.waiting_since, Some(rig.at(10)));
    assert_eq!(sample.last_ack, None);
    assert_eq!(sample.quiet_since, Some(rig.at(10)));
    assert_eq!(sample.srtt, Duration::ZERO);

    rig.ack(30, 10, 1000, 500);
    let sample = rig.sample(30);
    assert_eq!(sample.in_flight, 500);
    assert_eq!(sample.acked, 1000);
    assert_eq!(
        sample.waiting_since,
        Some(rig.at(15)),
        "the second is still due"
    );
    assert_eq!(sample.last_ack, Some(rig.at(30)));
    assert_eq!(sample.quiet_since, Some(rig.at(30)));
    assert_eq!((sample.srtt, sample.rttvar), (20 * MS, 10 * MS));

    rig.ack(35, 15, 500, 0);
    let sample = rig.sample(40);
    assert_eq!(sample.in_flight, 0);
    assert_eq!(sample.waiting_since, None);
    assert_eq!(sample.quiet_since, None);
    assert_eq!(sample.last_ack, Some(rig.at(35)));
}

#[test]
fn bare_acks_are_no_evidence() {
    let mut rig = Rig::new();
    for ms in 0..100 {
        rig.send_bare_ack(ms);
    }
    let sample = rig.sample(500);
    assert_eq!(sample.waiting_since, None);
    assert_eq!((sample.in_flight, sample.sent), (0, 0));
}

#[test]
fn a_question_that_found_the_window_full_does_not_make_a_bare_ack_evidence() {
    let mut rig = Rig::new();
    rig.controller.window();
    rig.send_bare_ack(1);
    rig.controller.window();
    rig.send_bare_ack(2);
    assert_eq!(rig.sample(3).waiting_since, None);
}

#[test]
fn a_loss_probe_with_data_is_evidence_though_quinn_does_not_ask_for_the_window() {
    let mut rig = Rig::new();
    let now = rig.at(5);
    rig.controller.on_sent(now, 1200, 0);
    assert_eq!(rig.sample(6).waiting_since, Some(now));
}

#[test]
fn lost_bytes_leave_flight() {
    let mut rig = Rig::new();
    rig.send(0, 3000);
    rig.send(5, 1000);
    rig.ack(25, 5, 1000, 3000);
    rig.lose(25, 0, 3000);
    let sample = rig.sample(26);
    assert_eq!((sample.in_flight, sample.lost), (0, 3000));
    assert_eq!(sample.waiting_since, None);
}

#[test]
fn quinns_count_of_bytes_in_flight_corrects_ours() {
    let mut rig = Rig::new();
    rig.send(0, 3000);
    rig.send(1, 1200);
    // Handshake packets were discarded on the way.
    rig.ack(20, 1, 1200, 0);
    assert_eq!(rig.sample(20).in_flight, 0);
}

#[test]
fn evidence_of_the_old_path_is_not_shown_after_a_switch() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    rig.ack(20, 0, 1200, 0);
    rig.send(30, 1200);
    rig.switch(200, 2);
    let sample = rig.sample(201);
    assert_eq!(sample.waiting_since, None, "before the controller notices");
    assert_eq!(sample.srtt, Duration::ZERO);
    let quiet = |rig: &Rig, ms| rig.sample(ms).quiet_since;
    assert_eq!(quiet(&rig, 201), Some(rig.at(30)), "of whatever path");
    rig.send(210, 1200);
    assert_eq!(quiet(&rig, 211), Some(rig.at(210)), "given its time");
    assert_eq!(rig.sample(211).waiting_since, Some(rig.at(210)));
    assert_eq!(rig.sample(211).last_ack, None);
    // The old path delivers after all: that says nothing about the new one.
    rig.ack(220, 30, 1200, 1200);
    assert_eq!(quiet(&rig, 230), Some(rig.at(220)));
    let sample = rig.sample(220);
    assert_eq!(sample.waiting_since, Some(rig.at(210)));
    assert_eq!(sample.last_ack, None);
    assert_eq!(sample.srtt, Duration::ZERO);
}

#[test]
fn a_clone_goes_on_where_the_original_stopped() {
    let mut rig = Rig::new();
    rig.send(0, 10_000);
    rig.switch(5, 2);
    rig.send(6, 1200);
    let clone = rig.controller.clone_box();
    assert_eq!(clone.window(), rig.controller.window());
    let clone = clone.into_any().downcast::<PathAware>().unwrap();
    assert_eq!(clone.kept.len(), 1);
    assert_eq!(clone.totals, rig.controller.totals);
}

#[test]
fn a_controller_built_anew_keeps_the_totals() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    rig.ack(20, 0, 1200, 0);
    let inner: Arc<dyn ControllerFactory + Send + Sync> = rig.factory.clone();
    let factory = Arc::new(PathAwareFactory::with_inner(
        Arc::clone(&rig.monitor),
        inner,
    ));
    let mut second = factory.build(rig.at(30), 1200);
    second.on_sent(rig.at(31), 1000, 0);
    assert_eq!(rig.sample(32).sent, 2200);
    assert_eq!(rig.sample(32).acked, 1200);
}
