use super::*;

const MS: Duration = Duration::from_millis(1);
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// A sender with a window of so many packets: a round trip after a packet was sent, its answer comes.
struct Sender {
    now: Instant,
    judge: LossJudge,
    /// Packets so far.
    count: u32,
}

/// What a stretch of sending brought.
#[derive(Debug, Default)]
struct Seen {
    congestion: u32,
    trials: u32,
    outcomes: Vec<Outcome>,
}

impl Sender {
    fn new() -> Self {
        Self {
            now: Instant::now() + 1000 * MS,
            judge: LossJudge::default(),
            count: 0,
        }
    }

    /// So many round trips of so many packets, all of which take `rtt`; one in `lost_of` is lost (none if zero).
    fn rounds(&mut self, rounds: u32, packets: u32, rtt: Duration, lost_of: u32) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..rounds {
            for n in 0..packets {
                let now = self.now + rtt * n / packets;
                let sent = now - rtt;
                self.count += 1;
                if lost_of > 0 && self.count.is_multiple_of(lost_of) {
                    match self.judge.on_lost(now, sent, 1) {
                        Verdict::Chance => {}
                        Verdict::Congestion => seen.congestion += 1,
                        Verdict::Trial => seen.trials += 1,
                    }
                } else {
                    seen.outcomes.extend(self.judge.on_ack(now, sent));
                }
            }
            self.now += rtt;
        }
        seen
    }
}

#[test]
fn a_little_loss_without_a_queue_is_chance() {
    let mut sender = Sender::new();
    let seen = sender.rounds(500, 50, ROUND_TRIP, 100);
    assert_eq!((seen.congestion, seen.trials), (0, 0));
}

#[test]
fn the_same_loss_under_a_queue_is_congestion_once_a_round_trip() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    let seen = sender.rounds(20, 50, ROUND_TRIP + 3 * MS, 100);
    assert_eq!(seen.congestion, 0, "too little to be a queue");
    let seen = sender.rounds(20, 50, ROUND_TRIP + 5 * MS, 10);
    assert!((15..=20).contains(&seen.congestion), "{seen:?}");
    assert_eq!(seen.trials, 0);
}

#[test]
fn one_late_packet_is_no_queue() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    let late = sender.now - 200 * MS;
    sender.judge.on_ack(sender.now, late);
    let verdict = sender.judge.on_lost(sender.now, sender.now - ROUND_TRIP, 1);
    assert_eq!(verdict, Verdict::Chance);
}

/// Windows of four packets, as on lines that lose much.
#[test]
fn one_late_round_of_a_small_window_is_no_queue_and_several_are() {
    let mut sender = Sender::new();
    sender.rounds(20, 4, ROUND_TRIP, 0);
    let start = sender.now;
    let mut ack = |now: u32, sent: u32| sender.judge.on_ack(start + now * MS, start + sent * MS);
    ack(20, 0);
    for n in 0..4 {
        ack(45 + n, 20 + n);
    }
    // This one ends that round.
    ack(65, 45);
    sender.now = start + 66 * MS;
    let lost = |sender: &Sender| {
        let mut judge = sender.judge.clone();
        judge.on_lost(sender.now, sender.now - ROUND_TRIP, 1)
    };
    assert_eq!(lost(&sender), Verdict::Chance);
    sender.rounds(8, 4, ROUND_TRIP + 5 * MS, 0);
    assert_eq!(lost(&sender), Verdict::Congestion);
}

#[test]
fn what_a_machine_slept_over_is_no_queue() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    let slept_over = sender.now - ROUND_TRIP;
    let woke = sender.now + 3_600_000 * MS;
    for n in 0..20 {
        // A TLS link kept them.
        sender.judge.on_ack(woke, slept_over + n * MS / 100);
    }
    let now = woke + ROUND_TRIP;
    sender.judge.on_ack(now, woke);
    let verdict = sender.judge.on_lost(now, woke, 1);
    assert_eq!(verdict, Verdict::Chance);
}

#[test]
fn overload_that_ends_with_sending_less_was_congestion() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    let seen = sender.rounds(4, 50, ROUND_TRIP, 10);
    assert_eq!((seen.congestion, seen.trials), (0, 1));
    assert!(sender.judge.trial.is_some());
    let seen = sender.rounds(8, 35, ROUND_TRIP, 0);
    assert_eq!(seen.outcomes, [Outcome::Helped]);
    assert!(sender.judge.trial.is_none());
}

#[test]
fn loss_that_stays_when_less_is_sent_is_the_networks_and_is_tolerated_from_then_on() {
    let mut sender = Sender::new();
    let seen = sender.rounds(60, 50, ROUND_TRIP, 10);
    assert_eq!((seen.congestion, seen.trials), (0, 1));
    assert_eq!(seen.outcomes, [Outcome::Useless]);
    // More than that is a question again.
    let seen = sender.rounds(8, 50, ROUND_TRIP, 5);
    assert_eq!(seen.trials, 1);
}

#[test]
fn what_is_known_to_be_lost_is_forgotten_as_soon_as_less_is() {
    let mut sender = Sender::new();
    sender.rounds(60, 50, ROUND_TRIP, 10);
    let seen = sender.rounds(10, 50, ROUND_TRIP, 0);
    assert_eq!((seen.congestion, seen.trials), (0, 0));
    let seen = sender.rounds(8, 50, ROUND_TRIP, 10);
    assert_eq!(seen.trials, 1);
}

#[test]
fn nothing_excuses_a_loss_beyond_the_most() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    let seen = sender.rounds(30, 50, ROUND_TRIP, 2);
    assert!(seen.congestion >= 5, "{seen:?}");
    assert!(seen.congestion + seen.trials >= 20, "{seen:?}");
    assert!(!seen.outcomes.contains(&Outcome::Useless), "{seen:?}");
}

/// A queue that was once seen to overflow unseen is met with care: any loss counts there, for a while.
#[test]
fn where_a_queue_overflowed_unseen_the_next_loss_is_a_question_and_later_it_is_not() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    sender.rounds(4, 50, ROUND_TRIP, 10);
    let seen = sender.rounds(8, 35, ROUND_TRIP, 0);
    assert_eq!(seen.outcomes, [Outcome::Helped]);
    let (now, sent) = (sender.now, sender.now - ROUND_TRIP);
    let mut soon = sender.judge.clone();
    assert_eq!(soon.on_lost(now, sent, 1), Verdict::Trial);
    sender.rounds(2000, 35, ROUND_TRIP, 0);
    let (now, sent) = (sender.now, sender.now - ROUND_TRIP);
    assert_eq!(sender.judge.on_lost(now, sent, 1), Verdict::Chance);
}

#[test]
fn soon_after_an_overload_no_loss_is_excused_and_later_it_is() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    sender.rounds(4, 50, ROUND_TRIP, 10);
    let seen = sender.rounds(8, 35, ROUND_TRIP, 0);
    assert_eq!(seen.outcomes, [Outcome::Helped]);
    let seen = sender.rounds(200, 50, ROUND_TRIP, 10);
    assert!(seen.trials > 5, "{seen:?}");
    assert!(!seen.outcomes.contains(&Outcome::Useless), "{seen:?}");
    let seen = sender.rounds(1500, 50, ROUND_TRIP, 10);
    assert!(seen.outcomes.contains(&Outcome::Useless), "{seen:?}");
}

#[test]
fn a_longer_route_is_no_queue_for_ever() {
    let mut sender = Sender::new();
    sender.rounds(20, 50, ROUND_TRIP, 0);
    let longer = 3 * ROUND_TRIP;
    let seen = sender.rounds(10, 50, longer, 100);
    assert!(seen.congestion > 0);
    sender.rounds(2000, 50, longer, 0);
    let seen = sender.rounds(10, 50, longer, 100);
    assert_eq!((seen.congestion, seen.trials), (0, 0));
}
