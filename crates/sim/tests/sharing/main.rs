//! Tunnels at a narrow place, alone or two of them: what a transfer gets of it, what it costs others, and how long somebody
//! waits who types beside it. The narrow place passes 32 Mbit/s.

#[path = "../common/mod.rs"]
mod common;
mod narrow;

use std::time::Duration;

use byway_congestion::Congestion::{self, Bbr, Cubic, Tolerant};
use byway_sim::net::link::LinkConfig;

use crate::common::{ms, percentile, secs};
use crate::narrow::Narrow;

/// Bytes a second.
const RATE: u64 = 4_000_000;

/// A round trip of 20 ms.
fn link(queue: u64, loss: f64) -> LinkConfig {
    LinkConfig {
        delay: ms(10),
        rate: Some(RATE),
        queue: ms(queue),
        loss,
        ..LinkConfig::default()
    }
}

/// What a transfer was like that had the narrow place for itself.
struct Alone {
    /// Of the rate: in the first two seconds, and in the ten after them.
    first: f64,
    then: f64,
    /// Of what was sent in those ten, what found the queue full.
    overflowed: f64,
    /// How long a keystroke beside it took.
    typing: Duration,
}

fn alone(congestion: Congestion, link: LinkConfig) -> Alone {
    let mut net = Narrow::new(7, link);
    let tunnel = net.add(congestion);
    net.type_in(tunnel);
    net.run(secs(1));
    net.transfer(tunnel);
    let first = net.goodputs(secs(2))[tunnel] / RATE as f64;
    net.waits(tunnel);
    let (goodputs, overflowed) = net.costs(secs(10));
    let alone = Alone {
        first,
        then: goodputs[tunnel] / RATE as f64,
        overflowed: overflowed[tunnel],
        typing: percentile(&net.waits(tunnel), 50),
    };
    println!(
        "{congestion:?}, round trip {:?}, queue {:?}, loss {}: {:.0} % at first, {:.0} % then, {:.2} % overflowed, typing {:?}",
        2 * link.delay,
        link.queue,
        link.loss,
        alone.first * 100.0,
        alone.then * 100.0,
        alone.overflowed * 100.0,
        alone.typing
    );
    alone
}

/// One transfer has the narrow place, another joins it: the first one's share, and what of its datagrams overflowed.
fn beside(first: Congestion, second: Congestion, link: LinkConfig) -> (f64, f64) {
    let seeds = 1..=3_u32;
    let runs = f64::from(*seeds.end());
    let (mut share, mut overflowed) = (0.0, 0.0);
    for seed in seeds {
        let mut net = Narrow::new(seed.into(), link);
        for (congestion, before) in [(first, secs(3)), (second, secs(10))] {
            let tunnel = net.add(congestion);
            net.transfer(tunnel);
            net.run(before);
        }
        let (goodputs, overflows) = net.costs(secs(40));
        share += goodputs[0] / (goodputs[0] + goodputs[1]) / runs;
        overflowed += overflows[0] / runs;
    }
    println!(
        "{first:?} beside {second:?}, round trip {:?}, queue {:?}: {:.0} %, {:.2} % of it overflowed",
        2 * link.delay,
        link.queue,
        share * 100.0,
        overflowed * 100.0
    );
    (share, overflowed)
}

#[test]
fn loss_that_sending_less_does_not_help_leaves_a_transfer_most_of_the_link() {
    for queue in [10, 200] {
        for (loss, at_first, then) in [(0.001, 0.8, 0.85), (0.01, 0.7, 0.8)] {
            let got = alone(Tolerant, link(queue, loss));
            assert!(got.first > at_first, "loss {loss}: {}", got.first);
            assert!(got.then > then, "loss {loss}: {}", got.then);
        }
        // One in five is taken for overload at the start, and is nearly as slow as Cubic.
        for loss in [0.05, 0.1] {
            let (_, median) = of_five(Tolerant, link(queue, loss));
            assert!(median > 0.6, "loss {loss}: {median}");
        }
        // What it is for.
        assert!(alone(Cubic, link(queue, 0.01)).then < 0.3);
    }
}

#[test]
fn whoever_types_beside_a_transfer_on_a_lossy_network_meets_no_queue() {
    let got = alone(Tolerant, link(200, 0.01));
    assert!(got.typing < ms(15), "{:?}", got.typing);
}

#[test]
fn without_loss_it_is_cubic() {
    for queue in [10, 200] {
        let [got, cubic] = [Tolerant, Cubic].map(|kind| alone(kind, link(queue, 0.0)));
        assert!(
            got.then >= cubic.then * 0.99,
            "{} of {}",
            got.then,
            cubic.then
        );
        assert!(got.overflowed <= cubic.overflowed * 1.5);
        assert!(got.typing <= cubic.typing + ms(5));
    }
}

#[test]
fn a_queue_too_short_to_be_seen_is_backed_off_from() {
    for queue in [2, 3] {
        let got = alone(Tolerant, link(queue, 0.0));
        assert!(got.overflowed < 0.02, "{}", got.overflowed);
        // With loss of the network's own beside it, the two are told apart.
        let got = alone(Tolerant, link(queue, 0.01));
        assert!(got.overflowed < 0.03, "{}", got.overflowed);
    }
    // What bounds nothing loses a third of all it sends there.
    assert!(alone(Bbr, link(3, 0.0)).overflowed > 0.3);
}

#[test]
fn a_link_that_narrows_under_a_transfer_is_not_flooded() {
    for queue in [10, 100] {
        let [got, cubic] = [Tolerant, Cubic].map(|kind| {
            let mut net = Narrow::new(1, link(queue, 0.01));
            let tunnel = net.add(kind);
            net.transfer(tunnel);
            net.run(secs(5));
            net.link().rate = Some(RATE / 4);
            net.run(secs(1));
            let (goodputs, overflowed) = net.costs(secs(5));
            (goodputs[tunnel] / RATE as f64 * 4.0, overflowed[tunnel])
        });
        println!("queue {queue} ms, a quarter of the rate: {got:?}, Cubic {cubic:?}");
        assert!(got.1 < 0.03, "{got:?}");
        assert!(got.0 > 0.7, "{got:?}");
    }
}

#[test]
fn beside_cubic_and_beside_its_like_it_takes_its_share() {
    for (queue, delay) in [(10, 10), (50, 10), (200, 10), (50, 50)] {
        let link = LinkConfig {
            delay: ms(delay),
            ..link(queue, 0.0)
        };
        for (first, second) in [(Tolerant, Cubic), (Cubic, Tolerant), (Tolerant, Tolerant)] {
            let (share, _) = beside(first, second, link);
            assert!((0.35..0.65).contains(&share), "{share}");
        }
    }
}

/// There Cubic alone is uneven too; what never reacts below 2 % takes nine tenths.
#[test]
fn beside_cubic_where_no_queue_shows_it_takes_little_more() {
    for (queue, delay) in [(3, 10), (3, 50), (10, 50)] {
        let link = LinkConfig {
            delay: ms(delay),
            ..link(queue, 0.0)
        };
        assert!(beside(Tolerant, Cubic, link).0 < 0.75);
        assert!(beside(Cubic, Tolerant, link).0 > 0.25);
        beside(Cubic, Cubic, link);
    }
}

/// Four of this kind and four that are Cubic, in turn: the share of the four, the least share of one, and the largest part
/// of what one sent that overflowed.
fn eight(kind: Congestion, queue: u64) -> (f64, f64, f64) {
    let mut net = Narrow::new(1, link(queue, 0.0));
    for kind in [kind, Cubic].repeat(4) {
        let tunnel = net.add(kind);
        net.transfer(tunnel);
    }
    net.run(secs(10));
    let (goodputs, overflowed) = net.costs(secs(100));
    let sum: f64 = goodputs.iter().sum();
    let four: f64 = goodputs.iter().step_by(2).sum();
    let least = goodputs.iter().copied().fold(sum, f64::min);
    let lost = overflowed.iter().copied().fold(0.0, f64::max);
    println!(
        "four {kind:?} and four Cubic, queue {queue} ms: {:.0} % to the four, {:.0} % to the least, {:.2} % overflowed",
        four / sum * 100.0,
        least / sum * 100.0,
        lost * 100.0
    );
    (four / sum, least / sum, lost)
}

#[test]
fn of_many_nobody_is_pushed_out() {
    for queue in [3, 20] {
        let (four, least, lost) = eight(Tolerant, queue);
        assert!(four < 0.75, "{four}");
        assert!(least > 0.04, "{least}");
        let (.., cubic) = eight(Cubic, queue);
        assert!(lost < 3.0 * cubic, "{lost} instead of {cubic}");
    }
}

/// QUIC's estimate of the round trip holds the sleep then, and nothing paces: what leaves must be bounded otherwise. It is what a
/// new transfer would send, and a burst.
#[test]
fn a_machine_that_wakes_up_in_a_transfer_sends_little_more_at_once_than_who_begins_one() {
    let at_first = |net: &mut Narrow, tunnel: usize, begin: &dyn Fn(&mut Narrow)| {
        let count = |net: &Narrow| (net.tunnels[tunnel].sent, net.tunnels[tunnel].overflowed);
        let before = count(net);
        begin(net);
        net.run(ms(200));
        let after = count(net);
        (after.0 - before.0, after.1 - before.1)
    };
    for kind in [Cubic, Tolerant] {
        for (queue, sleep) in [(10, 30), (10, 28_800), (50, 28_800), (200, 28_800)] {
            let mut net = Narrow::new(3, link(queue, 0.0));
            let tunnel = net.add(kind);
            net.run(secs(1));
            let new = at_first(&mut net, tunnel, &|net| net.transfer(tunnel));
            for known in [true, false] {
                let mut net = Narrow::new(3, link(queue, 0.0));
                let tunnel = net.add(kind);
                net.transfer(tunnel);
                net.run(secs(5));
                net.sleep(tunnel);
                net.run(secs(sleep));
                let woken = at_first(&mut net, tunnel, &|net| net.wake(tunnel, known));
                let then = net.goodputs(secs(2))[tunnel] / RATE as f64;
                println!(
                    "{kind:?}, queue {queue} ms, {sleep} s of sleep, known {known}: sent, overflowed {woken:?}, a new one {new:?}; \
                     {:.0} % then",
                    then * 100.0
                );
                assert!(woken.0 <= new.0 + new.0 / 5, "sent {woken:?}, {new:?}");
                assert!(woken.1 <= new.1 + new.0 / 20, "lost {woken:?}, {new:?}");
                assert!(then > 0.85, "{then}");
            }
        }
    }
}

/// What a transfer has of the narrow place, from its second second to its tenth: the least and the median of five seeds.
fn of_five(congestion: Congestion, link: LinkConfig) -> (f64, f64) {
    let mut shares: Vec<f64> = (1..=5)
        .map(|seed| {
            let mut net = Narrow::new(seed, link);
            let tunnel = net.add(congestion);
            net.transfer(tunnel);
            net.run(secs(2));
            net.goodputs(secs(8))[tunnel] / RATE as f64
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    println!(
        "{congestion:?}, round trip {:?}, jitter {:?}, queue {:?}, loss {}: least {:.0} %, median {:.0} %",
        2 * link.delay,
        link.jitter,
        link.queue,
        link.loss,
        shares[0] * 100.0,
        shares[2] * 100.0
    );
    (shares[0], shares[2])
}

/// Jitter that delays whole round trips looks like a queue, and on a long way a trial takes long.
#[test]
fn with_jitter_and_over_long_ways_it_mostly_has_most_of_the_link() {
    for (delay, jitter, loss) in [
        (10, 0, 0.01),
        (10, 0, 0.05),
        (10, 2, 0.01),
        (10, 2, 0.05),
        (50, 0, 0.01),
        (50, 0, 0.05),
        (50, 2, 0.01),
        (50, 2, 0.05),
    ] {
        let link = LinkConfig {
            delay: ms(delay),
            jitter: ms(jitter),
            ..link(200, loss)
        };
        let (least, median) = of_five(Tolerant, link);
        let (_, cubic) = of_five(Cubic, link);
        assert!(median > 0.6 && median > 3.0 * cubic, "{median}, {cubic}");
        assert!(least > 0.7 || loss > 0.01, "{least}");
    }
}
