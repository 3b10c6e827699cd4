//! How much leaves after a sleep, while quinn's estimate holds it.

use super::*;

const DATAGRAM: u64 = 1_200;
/// quinn builds so many datagrams at once.
const BATCH: u64 = 10;
/// Hours later, in milliseconds.
const WOKE: u32 = 8 * 3_600_000;

impl Rig {
    /// A round trip was measured, and another one slept over.
    fn woken() -> Self {
        let mut rig = Self::new();
        rig.send(0, DATAGRAM);
        rig.ack(20, 0, DATAGRAM, 0);
        rig.send(30, DATAGRAM);
        rig.ack(WOKE, 30, DATAGRAM, 0);
        rig
    }

    /// Sends as quinn does, with so much in flight by its own count, for as long as the window allows. Returns how much left, and
    /// whether it would have paced by the window it was told.
    fn pour(&mut self, ms: u32, in_flight: u64) -> (u64, bool) {
        let (mut left, mut paced) = (0, false);
        loop {
            let mut batch = 0;
            while batch < BATCH * DATAGRAM
                && in_flight + left + batch + DATAGRAM < self.controller.window()
            {
                paced |= self.controller.window() <= u64::from(u32::MAX);
                batch += DATAGRAM;
            }
            if batch == 0 {
                return (left, paced);
            }
            let now = self.at(ms);
            self.controller.on_sent(now, batch, 0);
            left += batch;
            assert!(left < 100_000_000, "nothing bounds it");
        }
    }
}

#[test]
fn quinn_does_not_pace_by_a_round_trip_that_contains_a_sleep() {
    let mut rig = Rig::new();
    rig.send(0, 1200);
    rig.ack(20, 0, 1200, 0);
    assert_eq!(rig.controller.window(), INITIAL);
    rig.send(30, 1200);
    let woke = 400_000;
    assert!(!rig.sample(30).slept);
    rig.ack(woke, 30, 1200, 0);
    assert!(rig.sample(woke).slept, "the path layer is told");
    // However often quinn asks: it may have found the window full in between.
    for _ in 0..3 {
        assert_eq!(rig.controller.window(), u64::MAX);
    }
    rig.send(woke, INITIAL);
    for _ in 0..3 {
        assert_eq!(rig.controller.window(), 1, "full: no pacer is asked");
    }
    // Eight samples halve and halve again what is too much.
    let mut now = woke;
    for _ in 0..100 {
        rig.ack(now + 20, now, 1_000, 0);
        now += 30;
        rig.send(now, 1_000);
    }
    rig.ack(now + 20, now, 1_000, 0);
    assert_eq!(rig.controller.window(), INITIAL, "nothing is left of it");
    assert!(!rig.sample(now + 20).slept);
}

#[test]
fn what_was_in_flight_before_a_sleep_does_not_widen_the_window_after_it() {
    let mut rig = Rig::new();
    rig.send(0, 4_000_000);
    // Awake, and nothing knows of it yet.
    let soon = WOKE - 100;
    rig.send(soon, 50_000);
    rig.monitor.renew_if_stale(rig.at(WOKE));
    rig.send(WOKE, DATAGRAM);
    let mut in_flight = 4_050_000 + DATAGRAM;
    let mut left = DATAGRAM;
    for n in 0..20 {
        // What a TLS link kept; and an answer, which allows another burst but proves nothing of the path that is taken for new.
        for sent in [0, soon] {
            in_flight -= 2 * DATAGRAM;
            assert!(!rig.ack(WOKE + n, sent, 2 * DATAGRAM, in_flight));
            let (more, paced) = rig.pour(WOKE + n, in_flight);
            assert!(!paced);
            left += more;
            in_flight += more;
        }
    }
    // A fresh path's window, a burst, and the batch that crosses that.
    assert!(left >= INITIAL, "{left}");
    assert!(left <= INITIAL + 2 * BATCH * DATAGRAM, "{left}");
}

#[test]
fn a_window_that_is_free_after_a_sleep_is_not_sent_in_one_burst() {
    let mut rig = Rig::new();
    rig.send(0, DATAGRAM);
    rig.ack(20, 0, DATAGRAM, 0);
    rig.send(30, 50 * DATAGRAM);
    // By the dozen, and nobody knew of the sleep yet.
    let (mut sent, mut paced) = (0, false);
    for n in 1..=10 {
        let in_flight = sent + (50 - 5 * n) * DATAGRAM;
        rig.ack(WOKE, 30, 5 * DATAGRAM, in_flight);
        let poured = rig.pour(WOKE, in_flight);
        sent += poured.0;
        paced |= poured.1;
    }
    let burst = BATCH * DATAGRAM;
    assert!(!paced);
    assert!((burst..=2 * burst).contains(&sent), "{sent}");
    assert_eq!(rig.built(), 2, "the window of before is of no use");
    // Whatever there is room for.
    rig.controller.current.controller = Box::new(Fake {
        window: 1_000_000,
        told: Arc::default(),
    });
    // Each answer allows twice what it acknowledged, and the batch that crosses that.
    let mut in_flight = sent;
    for n in 1..=5 {
        in_flight -= 2 * DATAGRAM;
        rig.ack(WOKE + 20 + n, WOKE + n - 1, 2 * DATAGRAM, in_flight);
        let (more, _) = rig.pour(WOKE + 20 + n, in_flight);
        in_flight += more;
        assert!((4 * DATAGRAM..=burst).contains(&more), "{more} at once");
    }
    in_flight -= 20 * DATAGRAM;
    rig.ack(WOKE + 50, WOKE + 25, 20 * DATAGRAM, in_flight);
    let (more, _) = rig.pour(WOKE + 50, in_flight);
    assert!((40 * DATAGRAM..=50 * DATAGRAM).contains(&more), "{more}");
}

#[test]
fn a_probe_is_held_up_by_no_window() {
    let mut rig = Rig::woken();
    let (sent, _) = rig.pour(WOKE, 0);
    for n in 1..3 {
        assert_eq!(rig.controller.window(), 1);
        // The path layer asks: it is not stale, so nothing is renewed.
        rig.monitor.renew_if_stale(rig.at(WOKE + 100 * n));
        let (more, paced) = rig.pour(WOKE + 100 * n, sent);
        assert!(!paced);
        assert_eq!(more, BATCH * DATAGRAM, "one batch");
    }
}

#[test]
fn a_burst_that_was_lost_is_sent_again_without_an_answer() {
    let mut rig = Rig::woken();
    let (sent, _) = rig.pour(WOKE, 0);
    assert!(sent >= BATCH * DATAGRAM, "{sent}");
    assert_eq!(rig.controller.window(), 1);
    rig.lose(WOKE + 100, WOKE, sent);
    assert_eq!(rig.controller.window(), u64::MAX);
    // What the sleep itself lost is no reason.
    let (sent, _) = rig.pour(WOKE + 100, 0);
    rig.lose(WOKE + 100, 30, sent);
    assert_eq!(rig.controller.window(), 1);
    rig.lose(WOKE + 100, WOKE, 10 * sent);
    // And on another path, before the controller knows of it.
    let (sent, _) = rig.pour(WOKE + 100, 0);
    assert!(sent > 0);
    assert_eq!(rig.controller.window(), 1);
    rig.switch(WOKE + 200, 2);
    assert_eq!(rig.controller.window(), u64::MAX);
}

#[test]
fn a_path_that_is_much_shorter_than_the_last_one_is_no_sleep() {
    let mut rig = Rig::new();
    let mut now = 0;
    for _ in 0..50 {
        rig.send(now, DATAGRAM);
        rig.ack(now + 3_000, now, DATAGRAM, 0);
        now += 3_000;
    }
    rig.switch(now, 2);
    for _ in 0..50 {
        rig.send(now, DATAGRAM);
        rig.ack(now + 20, now, DATAGRAM, 0);
        assert_eq!(rig.controller.window(), INITIAL);
        now += 20;
    }
    // Nor does it hide one for longer than quinn's estimate is that of the old path.
    rig.send(now, DATAGRAM);
    rig.ack(now + 60_000, now, DATAGRAM, 0);
    assert_eq!(rig.controller.window(), u64::MAX);
}

#[test]
fn what_may_be_a_bare_ack_is_no_reason_to_wait() {
    let mut rig = Rig::woken();
    // A program that reads statistics makes bare ACKs look like more.
    for n in 0..1_000 {
        rig.send(WOKE + n, 40);
    }
    assert_eq!(rig.controller.window(), u64::MAX);
}
