//! The link emulator checked first: does it do to packets what it was told, and nothing else? Numbered datagrams judge.
//!
//! Two hosts, each on a link of its own; a stream of datagrams goes from one to the other. A machine that is busy makes packets
//! late and never early, so a bound from below holds for each datagram and one from above for the median. That no more will
//! come is known by a datagram from a third host whose link is longer than all else.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::Open;

use super::{NAMESPACES, SHORT};
use crate::figures::Figures;
use crate::harness::{Scenario, say};
use crate::process::{Running, poll};
use crate::programs;
use crate::tool::Arrival;
use crate::world::{Internet, Place, Plan, Site};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "emulator::a_packet_takes_the_delay_and_at_the_most_the_jitter_more",
        needs: NAMESPACES,
        run: delay_and_jitter,
    },
    Scenario {
        name: "emulator::the_share_that_was_asked_is_lost_and_the_same_packets_for_a_seed",
        needs: NAMESPACES,
        run: loss,
    },
    Scenario {
        name: "emulator::order_is_kept_unless_disorder_was_asked",
        needs: NAMESPACES,
        run: disorder,
    },
    Scenario {
        name: "emulator::the_share_that_was_asked_comes_twice",
        needs: NAMESPACES,
        run: copies,
    },
    Scenario {
        name: "emulator::a_burst_leaves_at_the_rate_and_what_the_queue_has_no_room_for_is_dropped",
        needs: NAMESPACES,
        run: rate_and_queue,
    },
    Scenario {
        name: "emulator::what_is_larger_than_the_mtu_vanishes",
        needs: NAMESPACES,
        run: mtu,
    },
    Scenario {
        name: "emulator::a_hole_is_in_one_direction_until_it_is_mended",
        needs: NAMESPACES,
        run: hole,
    },
    Scenario {
        name: "emulator::each_direction_of_a_link_is_changed_alone_and_under_traffic",
        needs: NAMESPACES,
        run: directions,
    },
];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One way of each of the two links, where nothing else is said.
const LINK: Duration = ms(2);
/// How late half of the packets may be on a machine that does other things besides.
const LATE: Duration = ms(10);
/// Of packets whose size is beside the point.
const SMALL: usize = 100;
/// A millisecond apart: no queue, and over in a moment.
const GAP: Duration = ms(1);
/// For many: still more than their receiver needs for each.
const QUICK: Duration = Duration::from_micros(500);
/// Longer than any way through the settings of these scenarios.
const LAST: Duration = ms(80);
/// The size of the datagram after which no more will come. No stream has it.
const LAST_SIZE: usize = 60;

fn delay_and_jitter() -> Result<()> {
    let two = Two::connect(1)?;
    let plain = two.send(100, GAP, SMALL)?;
    judge(&plain, 2 * LINK, 2 * LINK)?;
    two.net.emulator().up("a", "delay=10ms jitter=20ms")?;
    let shaken = two.send(200, GAP, SMALL)?;
    // The order is kept, so that each comes at least as late as the latest before it: the median is near the jitter's end.
    judge(&shaken, ms(10) + LINK, ms(30) + LINK)?;
    let spread = shaken.iter().map(|a| a.took).max() > Some(ms(20) + LINK);
    ensure!(spread, "there is no jitter");
    Ok(())
}

/// None may be earlier than this, and half of them little later than that.
fn judge(arrivals: &[Arrival], least: Duration, median: Duration) -> Result<()> {
    let took = Figures::of(arrivals.iter().map(|a| a.took).collect());
    let (first, middle) = (took.percentile(0), took.percentile(50));
    say(format!("the fastest {first:?}, the median {middle:?}"));
    ensure!(first >= least, "one took {first:?} of {least:?}");
    ensure!(
        middle <= median + LATE,
        "half of them took more than {middle:?}"
    );
    Ok(())
}

fn loss() -> Result<()> {
    let lost = |seed| -> Result<BTreeSet<u64>> {
        let two = Two::connect(seed)?;
        two.net.emulator().up("a", "delay=2ms loss=10")?;
        let came = two.send(1_000, QUICK, SMALL)?;
        let came: BTreeSet<u64> = came.iter().map(|a| a.number).collect();
        Ok((0..1_000).filter(|n| !came.contains(n)).collect())
    };
    let (one, again, other) = (lost(1)?, lost(1)?, lost(2)?);
    say(format!("{} and {} of 1,000 lost", one.len(), other.len()));
    // 100 with a standard deviation of 9.5: five of those to each side.
    for lost in [&one, &other] {
        ensure!((53..=147).contains(&lost.len()), "{} lost", lost.len());
    }
    ensure!(one == again, "a seed does not repeat: {one:?}, {again:?}");
    ensure!(one != other, "two seeds lose the same");
    Ok(())
}

fn disorder() -> Result<()> {
    let two = Two::connect(1)?;
    let ordered = |arrivals: &[Arrival]| arrivals.is_sorted_by_key(|a| a.number);
    two.net.emulator().up("a", "delay=2ms jitter=10ms")?;
    ensure!(
        ordered(&two.send(500, GAP, SMALL)?),
        "jitter alone has changed the order"
    );
    two.net.emulator().up("a", "delay=2ms reorder=10")?;
    let mixed = two.send(500, GAP, SMALL)?;
    ensure!(mixed.len() == 500, "{} came", mixed.len());
    let overtaken = mixed.windows(2).filter(|w| w[1].number < w[0].number);
    let overtaken = overtaken.count();
    say(format!("{overtaken} of 500 overtaken"));
    // 50 are held back by up to 8 ms, all but an eighth of them for longer than it takes to the next.
    ensure!((15..=85).contains(&overtaken), "{overtaken} overtaken");
    Ok(())
}

fn copies() -> Result<()> {
    let two = Two::connect(1)?;
    two.net.emulator().up("a", "delay=2ms duplicate=10")?;
    let came = two.send(1_000, QUICK, SMALL)?;
    let single: BTreeSet<u64> = came.iter().map(|a| a.number).collect();
    ensure!(single.len() == 1_000, "{} of 1,000 came", single.len());
    let copies = came.len() - 1_000;
    say(format!("{copies} of 1,000 came twice"));
    // As for losses.
    ensure!((53..=147).contains(&copies), "{copies} copies");
    Ok(())
}

/// The first and the last of a burst are each sent within a millisecond of what their times say.
const ROUNDED: u64 = 2;
/// Bursts, of which one will find the machine free.
const BURSTS: usize = 5;

fn rate_and_queue() -> Result<()> {
    let two = Two::connect(1)?;
    // A thousand bytes take a millisecond, and thirty of them fit into the queue.
    let settings = "delay=2ms rate=8mbit queue=30ms";
    two.net.emulator().up("a", settings)?;
    let mut least = u64::MAX;
    for _ in 0..BURSTS {
        least = least.min(burst(&two)?);
        if least <= ROUNDED {
            break;
        }
    }
    ensure!(
        least <= ROUNDED,
        "the queue has room for {least} too many each time"
    );
    Ok(())
}

/// More than there is room for. How many came beside one on the wire, thirty behind it, and one for each millisecond in which
/// they were sent: as many as the machine took milliseconds more to bring them to the queue.
fn burst(two: &Two) -> Result<u64> {
    const SIZE: usize = 1_000;
    let came = two.send(200, ms(0), SIZE)?;
    let (first, last) = (came[0], came[came.len() - 1]);
    let burst = (last.sent + last.took).saturating_sub(first.sent + first.took);
    say(format!("{} of 200 came, within {burst:?}", came.len()));
    ensure!(came[0].number == 0, "the first was dropped: {first:?}");
    let room = 31 + last.sent.saturating_sub(first.sent).as_millis() as u64;
    ensure!(came.len() >= 31, "{} came", came.len());
    let numbers: Vec<u64> = came.iter().take(31).map(|a| a.number).collect();
    ensure!(
        numbers == (0..31).collect::<Vec<_>>(),
        "what came first was dropped: {numbers:?}"
    );
    // From the first to the last each a millisecond after the one before; a busy machine may deliver two together.
    let least = ms(came.len() as u64 - 1).saturating_sub(LATE);
    ensure!(burst >= least, "they came within {burst:?}");
    Ok((came.len() as u64).saturating_sub(room))
}

fn mtu() -> Result<()> {
    let two = Two::connect(1)?;
    two.net.emulator().up("a", "delay=2ms mtu=1280")?;
    let (over, fits) = (two.send(20, GAP, 1281)?, two.send(20, GAP, 1280)?);
    ensure!(over.is_empty(), "{} came that are too large", over.len());
    ensure!(fits.len() == 20, "{} came that fit", fits.len());
    ensure!(fits.iter().all(|a| a.size == 1280), "{fits:?}");
    Ok(())
}

fn hole() -> Result<()> {
    let two = Two::connect(1)?;
    two.net.emulator().hole("a", "b")?;
    let (there, back) = (two.send(20, GAP, SMALL)?, two.send_back(20, GAP, SMALL)?);
    ensure!(there.is_empty(), "{} fell out of the hole", there.len());
    ensure!(back.len() == 20, "{} came the other way", back.len());
    two.net.emulator().mend("a", "b")?;
    let there = two.send(20, GAP, SMALL)?;
    ensure!(there.len() == 20, "{} came through the mend", there.len());
    Ok(())
}

fn directions() -> Result<()> {
    let two = Two::connect(1)?;
    let emulator = two.net.emulator();
    emulator.up("a", "delay=20ms")?;
    judge(&two.send(20, GAP, SMALL)?, ms(20) + LINK, ms(20) + LINK)?;
    judge(&two.send_back(20, GAP, SMALL)?, 2 * LINK, 2 * LINK)?;
    emulator.down("a", "delay=30ms")?;
    judge(
        &two.send_back(20, GAP, SMALL)?,
        ms(30) + LINK,
        ms(30) + LINK,
    )?;
    emulator.link("a", "delay=2ms")?;

    // In the middle of a stream the link is cut for a while: what came before and after is whole.
    let came = two.measure(two.a()?, two.b()?, (500, GAP, SMALL), |sink| {
        poll("a fifth of the stream", SHORT, || {
            Ok((sink.lines().len() > 100).then_some(()))
        })?;
        emulator.up("a", "delay=2ms loss=100")?;
        std::thread::sleep(ms(50));
        emulator.up("a", "delay=2ms")
    })?;
    let lost: BTreeSet<u64> = (0..500)
        .filter(|n| !came.iter().any(|a| a.number == *n))
        .collect();
    let (first, last) = lost.first().zip(lost.last()).context("nothing was lost")?;
    say(format!("lost from {first} to {last}"));
    let together = last - first + 1 == lost.len() as u64;
    ensure!(together, "not one gap: {lost:?}");
    Ok(())
}

/// Two hosts on a link each.
struct Two {
    net: Internet,
}

impl Two {
    fn connect(seed: u64) -> Result<Self> {
        let on_link = |delay| Site::behind(Open).access(delay);
        let net = Plan::new()
            .seed(seed)
            .site("a", on_link(LINK))
            .site("b", on_link(LINK))
            .site("last", on_link(LAST))
            .build()?;
        let two = Self { net };
        // So that the switch knows who is where, and floods nothing.
        two.send(1, GAP, SMALL)?;
        two.send_back(1, GAP, SMALL)?;
        Ok(two)
    }

    fn a(&self) -> Result<&Place> {
        self.net.host("a")
    }

    fn b(&self) -> Result<&Place> {
        self.net.host("b")
    }

    /// So many datagrams, so far apart, of this size, from one to the other: those that came, in the order in which they did.
    fn send(&self, count: u64, gap: Duration, size: usize) -> Result<Vec<Arrival>> {
        self.measure(self.a()?, self.b()?, (count, gap, size), |_| Ok(()))
    }

    /// The other way.
    fn send_back(&self, count: u64, gap: Duration, size: usize) -> Result<Vec<Arrival>> {
        self.measure(self.b()?, self.a()?, (count, gap, size), |_| Ok(()))
    }

    fn measure(
        &self,
        from: &Place,
        to: &Place,
        (count, gap, size): (u64, Duration, usize),
        meanwhile: impl FnOnce(&Running) -> Result<()>,
    ) -> Result<Vec<Arrival>> {
        let addr = to.at(7001).to_string();
        let sink = programs::tool(&to.namespace, "sink", std::slice::from_ref(&addr))?;
        sink.first_line("readiness", SHORT)?;
        let stream = |from: &Place, count: u64, gap: Duration, size: usize| {
            let args = [
                addr.clone(),
                count.to_string(),
                gap.as_micros().to_string(),
                size.to_string(),
            ];
            programs::tool(&from.namespace, "stream", &args)
        };
        let sending = stream(from, count, gap, size)?;
        meanwhile(&sink)?;
        sending.finish(SHORT)?.success()?;
        stream(self.net.host("last")?, 1, gap, LAST_SIZE)?
            .finish(SHORT)?
            .success()?;
        let mut came = Vec::new();
        let mut wrong = None;
        sink.wait_for("the last datagram", SHORT, |line| {
            if line.text == "ready" {
                return None;
            }
            match Arrival::parse(&line.text) {
                Ok(last) if last.size == LAST_SIZE => return Some(()),
                Ok(arrival) => came.push(arrival),
                Err(error) => wrong = Some(error),
            }
            None
        })?;
        wrong.map_or(Ok(came), Err)
    }
}
