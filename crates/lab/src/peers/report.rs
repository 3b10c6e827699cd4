//! What the rounds came to: medians, their ratios to iroh's, and the targets for those.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::way::{Sample, Way};

/// What is measured of a way in each round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Goodput,
    Sender,
    Receiver,
    Relay,
    Roles,
    Others,
}

impl What {
    /// MiB a second, or seconds for each GiB.
    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Goodput => sample.goodput(),
            Self::Sender => sample.per_gib(sample.sender),
            Self::Receiver => sample.per_gib(sample.receiver),
            Self::Relay => sample.per_gib(sample.relay),
            Self::Roles => sample.per_gib(sample.roles()),
            Self::Others => sample.per_gib(sample.others()),
        }
    }
}

/// The least, the middle one and the most of all rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    /// None of no round.
    fn of(mut all: Vec<f64>) -> Option<Self> {
        all.sort_by(f64::total_cmp);
        Some(Self {
            least: *all.first()?,
            median: all[all.len() / 2],
            most: *all.last()?,
        })
    }
}

/// Where a ratio should be.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
        }
    }
}

/// A ratio to iroh's of the same, and where it should be.
struct Target {
    name: &'static str,
    title: &'static str,
    way: Way,
    what: What,
    wanted: Wanted,
}

const TARGETS: [Target; 4] = [
    Target {
        name: "udp_goodput",
        title: "UDP link: goodput",
        way: Way::BywayUdp,
        what: What::Goodput,
        wanted: Wanted::AtLeast(2.0),
    },
    Target {
        name: "udp_relay_cpu",
        title: "UDP link: the relay's CPU per GiB",
        way: Way::BywayUdp,
        what: What::Relay,
        wanted: Wanted::AtMost(0.25),
    },
    Target {
        name: "tls_goodput",
        title: "TLS link: goodput",
        way: Way::BywayTls,
        what: What::Goodput,
        wanted: Wanted::AtLeast(1.3),
    },
    Target {
        name: "tls_relay_cpu",
        title: "TLS link: the relay's CPU per GiB",
        way: Way::BywayTls,
        what: What::Relay,
        wanted: Wanted::AtMost(0.6),
    },
];

/// Where others had so much of the roles' time, a way's figures are theirs as well.
const DISTURBED: f64 = 0.1;

/// What a run came to.
pub(super) struct Report<'a> {
    mib: u64,
    samples: &'a BTreeMap<Way, Vec<Sample>>,
}

impl<'a> Report<'a> {
    pub(super) fn of(mib: u64, samples: &'a BTreeMap<Way, Vec<Sample>>) -> Self {
        Self { mib, samples }
    }

    pub(super) fn json(&self) -> Value {
        let ways: serde_json::Map<_, _> = Way::ALL
            .into_iter()
            .filter_map(|way| Some((way.name().to_owned(), self.json_of(way)?)))
            .collect();
        let ratios: serde_json::Map<_, _> = TARGETS
            .iter()
            .map(|target| {
                let [ratio, plain] = self.ratios(target);
                let met = ratio.map(|ratio| target.wanted.is_met(ratio));
                let told = json!({ "to_iroh": ratio, "to_iroh_plain": plain, "wanted": target.wanted.to_string(), "met": met });
                (target.name.to_owned(), told)
            })
            .collect();
        json!({
            "mib": self.mib,
            "rounds": self.rounds(),
            "processors": processors(),
            "ways": ways,
            "ratios": ratios,
            "disturbed": self.disturbed().into_iter().map(Way::name).collect::<Vec<_>>(),
        })
    }

    fn json_of(&self, way: Way) -> Option<Value> {
        let median = |what| Some(self.spread(way, what)?.median);
        let goodput = self.spread(way, What::Goodput)?;
        Some(json!({
            "mib_s": goodput.median,
            "mib_s_least": goodput.least,
            "mib_s_most": goodput.most,
            "cpu_s_per_gib": {
                "sender": median(What::Sender)?,
                "receiver": median(What::Receiver)?,
                "relay": median(What::Relay)?,
                "roles": median(What::Roles)?,
                "others": median(What::Others)?,
            },
        }))
    }

    fn rounds(&self) -> usize {
        self.samples.values().map(Vec::len).min().unwrap_or(0)
    }

    fn spread(&self, way: Way, what: What) -> Option<Spread> {
        let samples = self.samples.get(&way)?;
        Spread::of(samples.iter().map(|sample| what.of(sample)).collect())
    }

    /// Those during which others were at work on this machine.
    fn disturbed(&self) -> Vec<Way> {
        let is_disturbed = |way: &Way| {
            let [others, roles] = [What::Others, What::Roles].map(|what| self.spread(*way, what));
            others
                .zip(roles)
                .is_some_and(|(others, roles)| others.median > DISTURBED * roles.median)
        };
        Way::ALL.into_iter().filter(is_disturbed).collect()
    }

    /// Of medians: to iroh's, and to iroh's without TLS.
    fn ratios(&self, target: &Target) -> [Option<f64>; 2] {
        [Way::Iroh, Way::IrohPlain].map(|other| {
            let [ours, theirs] = [target.way, other].map(|way| self.spread(way, target.what));
            Some(ours?.median / theirs?.median)
        })
    }

    fn figures(&self) -> Table {
        let mut table = table([
            "",
            "MiB/s",
            "CPU-s per GiB: sender",
            "receiver",
            "relay",
            "all three",
            "others",
        ]);
        for way in Way::ALL {
            let Some(goodput) = self.spread(way, What::Goodput) else {
                continue;
            };
            let Spread {
                least,
                median,
                most,
            } = goodput;
            let cpu = [
                What::Sender,
                What::Receiver,
                What::Relay,
                What::Roles,
                What::Others,
            ];
            let cpu = cpu.map(|what| match self.spread(way, what) {
                Some(spread) => format!("{:.2}", spread.median),
                None => String::new(),
            });
            let mut row = vec![
                way.title().to_owned(),
                format!("{median:.0} ({least:.0}-{most:.0})"),
            ];
            row.extend(cpu);
            table.add_row(row);
        }
        table
    }

    fn verdicts(&self) -> Table {
        let mut table = table(["", "of iroh's", "wanted", "", "of iroh's without TLS"]);
        for target in &TARGETS {
            let [Some(ratio), Some(plain)] = self.ratios(target) else {
                continue;
            };
            let met = target.wanted.is_met(ratio);
            table.add_row([
                target.title.to_owned(),
                format!("{ratio:.2}"),
                target.wanted.to_string(),
                if met { "met" } else { "missed" }.to_owned(),
                format!("{plain:.2}"),
            ]);
        }
        table
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MiB a transfer on one stream, through a relay, both ends behind symmetric NATs; all roles share {} processors; median of {} rounds (least-most)\n{}\n{}",
            self.mib,
            processors(),
            self.rounds(),
            self.figures(),
            self.verdicts(),
        )?;
        match self.disturbed().as_slice() {
            [] => Ok(()),
            ways => {
                let ways: Vec<_> = ways.iter().map(|way| way.title()).collect();
                let ways = ways.join("; ");
                write!(f, "\nOthers were at work on this machine: {ways}")
            }
        }
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A GiB, in so many seconds, with so much work of the relay's and half a second of either end's.
    fn sample(seconds: f64, relay: f64) -> Sample {
        let [half, relay, took] = [0.5, relay, seconds].map(Duration::from_secs_f64);
        Sample {
            bytes: 1 << 30,
            took,
            sender: half,
            receiver: half,
            relay,
            machine: half * 2 + relay + half / 10,
        }
    }

    fn run() -> BTreeMap<Way, Vec<Sample>> {
        let rounds = |seconds: [f64; 3], relay: f64| seconds.map(|s| sample(s, relay)).to_vec();
        BTreeMap::from([
            (Way::Bare, rounds([1.0, 1.0, 1.0], 0.5)),
            (Way::Iroh, rounds([8.0, 4.0, 16.0], 4.0)),
            (Way::IrohPlain, rounds([4.0, 4.0, 4.0], 2.0)),
            (Way::BywayUdp, rounds([4.0, 1.0, 2.0], 1.0)),
            (Way::BywayTls, rounds([8.0, 8.0, 8.0], 3.0)),
        ])
    }

    #[test]
    fn ratios_are_of_medians_and_a_target_is_met_or_missed() {
        let samples = run();
        let told = Report::of(1024, &samples).json();
        assert_eq!(told["ways"]["iroh"]["mib_s"], 128.0);
        assert_eq!(told["ways"]["iroh"]["mib_s_least"], 64.0);
        assert_eq!(told["ways"]["iroh"]["cpu_s_per_gib"]["roles"], 5.0);
        assert_eq!(told["ways"]["iroh"]["cpu_s_per_gib"]["others"], 0.05);
        let ratios = &told["ratios"];
        assert_eq!(ratios["udp_goodput"]["to_iroh"], 4.0);
        assert_eq!(ratios["udp_goodput"]["to_iroh_plain"], 2.0);
        assert_eq!(ratios["udp_relay_cpu"]["to_iroh"], 0.25);
        for (name, met) in [
            ("udp_goodput", true),
            ("udp_relay_cpu", true),
            ("tls_goodput", false),
            ("tls_relay_cpu", false),
        ] {
            assert_eq!(ratios[name]["met"], met, "{name}");
        }
    }

    #[test]
    fn a_table_has_every_way_and_every_target() {
        let samples = run();
        let table = Report::of(1024, &samples).to_string();
        assert!(table.contains("median of 3 rounds"), "{table}");
        for way in Way::ALL {
            assert!(table.contains(way.title()), "{table}");
        }
        for target in &TARGETS {
            assert!(table.contains(target.title), "{table}");
        }
        assert_eq!(table.matches("missed").count(), 2, "{table}");
    }

    #[test]
    fn a_run_during_which_others_worked_says_so() {
        let mut samples = run();
        assert!(!Report::of(1024, &samples).to_string().contains("Others"));
        for sample in samples.get_mut(&Way::BywayUdp).into_iter().flatten() {
            sample.machine = sample.roles() * 2;
        }
        let report = Report::of(1024, &samples);
        assert_eq!(report.json()["disturbed"], json!(["byway_udp"]));
        assert!(report.to_string().ends_with("machine: Byway, UDP link"));
    }
}
