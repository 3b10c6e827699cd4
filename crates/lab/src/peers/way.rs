//! The ways that are compared, and one transfer by each.

use std::env;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::Symmetric;
use serde_json::Value;

use super::cpu::{self, Threads};
use crate::process::Running;
use crate::programs::{Authority, Peer, READY, Relay, bare_forwarder, field, iroh_relay};
use crate::world::{Place, Traffic, World};

/// A GiB at a MiB a second, and more.
const DEADLINE: Duration = Duration::from_secs(1_200);
/// What may pass between the sites beside a transfer: probes, by the thousandth of it.
const STRAY: u64 = 1_000;

/// Over which library, and by what its ends reach their relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Way {
    /// Nobody's: raw quinn through a forwarder that looks at nothing.
    Bare,
    Iroh,
    IrohPlain,
    BywayUdp,
    BywayTls,
}

/// What one transfer took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// Time on processors, each.
    pub(super) sender: Duration,
    pub(super) receiver: Duration,
    pub(super) relay: Duration,
    /// Of the whole machine: who else was at work on it.
    pub(super) machine: Duration,
}

impl Sample {
    /// MiB a second.
    pub(super) fn goodput(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.took.as_secs_f64()
    }

    /// Seconds for each GiB.
    pub(super) fn per_gib(&self, time: Duration) -> f64 {
        time.as_secs_f64() / (self.bytes as f64 / f64::from(1 << 30))
    }

    /// Of all roles.
    pub(super) fn roles(&self) -> Duration {
        self.sender + self.receiver + self.relay
    }

    /// What the machine did that was no role's.
    pub(super) fn others(&self) -> Duration {
        self.machine.saturating_sub(self.roles())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_gib = |time| self.per_gib(time);
        write!(
            f,
            "{:.0} MiB/s; CPU-s per GiB: sender {:.2}, receiver {:.2}, relay {:.2}, others {:.2}",
            self.goodput(),
            per_gib(self.sender),
            per_gib(self.receiver),
            per_gib(self.relay),
            per_gib(self.others()),
        )
    }
}

/// All ways, or those that `BYWAY_LAB_WAYS` names, such as `iroh,byway_tls`: whoever works on one of them.
pub(super) fn chosen() -> Result<Vec<Way>> {
    match env::var("BYWAY_LAB_WAYS") {
        Ok(names) => named(&names),
        Err(env::VarError::NotPresent) => Ok(Way::ALL.to_vec()),
        Err(error) => Err(error).context("BYWAY_LAB_WAYS"),
    }
}

fn named(names: &str) -> Result<Vec<Way>> {
    let one = |name: &str| {
        let way = Way::ALL.into_iter().find(|way| way.name() == name);
        way.with_context(|| {
            let known = Way::ALL.map(Way::name).join(", ");
            format!("BYWAY_LAB_WAYS: no way is named {name:?}; there are {known}")
        })
    };
    let mut ways = names
        .split(',')
        .map(str::trim)
        .map(one)
        .collect::<Result<Vec<_>>>()?;
    // Twice in a round would be more rounds than are told.
    ways.sort_unstable();
    ways.dedup();
    Ok(ways)
}

impl Way {
    pub(super) const ALL: [Self; 5] = [
        Self::Bare,
        Self::Iroh,
        Self::IrohPlain,
        Self::BywayUdp,
        Self::BywayTls,
    ];

    /// In JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Iroh => "iroh",
            Self::IrohPlain => "iroh_plain",
            Self::BywayUdp => "byway_udp",
            Self::BywayTls => "byway_tls",
        }
    }

    /// In tables.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Bare => "raw quinn, bare forwarder",
            Self::Iroh => "iroh",
            Self::IrohPlain => "iroh, no TLS",
            Self::BywayUdp => "Byway, UDP link",
            Self::BywayTls => "Byway, TLS link",
        }
    }

    /// Carries so many MiB from the agent's host to the client's, in a world of its own.
    pub(super) fn play(self, mib: u64) -> Result<Sample> {
        let world = World::new(Symmetric, Symmetric)?;
        let (relay, peer) = self.relay(&world)?;
        let (listener, address) = peer.listen(&world, &world.agent)?;
        let mut fetcher = peer.fetch(&world, &world.client, mib, &address)?;
        fetcher.wait_for("end of the warm-up", DEADLINE, |l| field(l, "ready"))?;

        let programs = [&listener, &fetcher, &relay].map(Running::pid);
        let hosts = [&world.agent, &world.client];
        // Reading counters is work itself: the clocks are read within that.
        let traffic = read(hosts.map(Place::traffic))?;
        let clocks = Clocks::read(programs)?;
        fetcher.tell("go")?;
        let took = fetcher.wait_for("end of the transfer", DEADLINE, |l| field(l, "seconds"))?;
        let ([sender, receiver, relay], machine) = Clocks::read(programs)?.since(&clocks);
        let now = read(hosts.map(Place::traffic))?;

        // The warm-up's is told first, and the sender's when the last byte is written: before the other end has it.
        let mut told = 0;
        listener.wait_for("word of the second transfer", READY, |line| {
            told += usize::from(field(line, "sent").is_some());
            (told == 2).then_some(())
        })?;
        for end in [&listener, &fetcher] {
            let lines = end.lines();
            let paths = lines.iter().filter_map(|line| field(line, "path"));
            paths
                .into_iter()
                .try_for_each(|path| self.check_path(&path))?;
        }
        let bytes = mib << 20;
        for (n, host) in hosts.into_iter().enumerate() {
            self.check_traffic(&host.name, now[n].since(traffic[n]), bytes)?;
        }
        Ok(Sample {
            bytes,
            took: Duration::from_secs_f64(took.as_f64().context("a time is a number")?),
            sender,
            receiver,
            relay,
            machine,
        })
    }

    /// Starts the relay, and knows the ends that use it.
    fn relay(self, world: &World) -> Result<(Running, Peer)> {
        match self {
            Self::Bare => bare_forwarder(&world.relay),
            Self::Iroh => {
                let authority = Authority::new("iroh-authority")?;
                let (relay, url) = iroh_relay(world, &world.relay, Some(&authority))?;
                let trusts = Authority::trusted(world, "both", &[&authority])?;
                Ok((relay, Peer::iroh(&url, Some(&trusts))))
            }
            Self::IrohPlain => {
                let (relay, url) = iroh_relay(world, &world.relay, None)?;
                Ok((relay, Peer::iroh(&url, None)))
            }
            Self::BywayUdp | Self::BywayTls => {
                let link = if self == Self::BywayUdp { "udp" } else { "tls" };
                let Relay { url, process } = Relay::start(world)?;
                Ok((process, Peer::byway(&url, link)))
            }
        }
    }

    /// What its library calls the path, at either end, whenever it says so.
    fn check_path(self, path: &Value) -> Result<()> {
        let wanted = match self {
            Self::Bare => "forwarder",
            Self::Iroh | Self::IrohPlain => "relay",
            Self::BywayUdp => "relay_udp",
            Self::BywayTls => "relay_tls",
        };
        ensure!(
            path == wanted,
            "{}: the path was {path}, not {wanted}",
            self.title()
        );
        Ok(())
    }

    /// What a host's own counters saw.
    fn check_traffic(self, host: &str, seen: Traffic, bytes: u64) -> Result<()> {
        let carried = match self {
            Self::Bare | Self::BywayUdp => seen.relay_udp,
            Self::Iroh | Self::IrohPlain | Self::BywayTls => seen.relay_tcp,
        };
        ensure!(
            carried >= bytes && seen.direct <= bytes / STRAY,
            "{}: {bytes} bytes did not go through the relay as they should, {host} saw {seen:?}",
            self.title(),
        );
        Ok(())
    }
}

/// What programs and the machine have worked until one moment.
struct Clocks {
    programs: [Threads; 3],
    machine: Duration,
}

impl Clocks {
    fn read(programs: [u32; 3]) -> Result<Self> {
        Ok(Self {
            programs: read(programs.map(Threads::of))?,
            machine: cpu::machine()?,
        })
    }

    /// What was added since an earlier reading: by each program, and by the machine.
    fn since(&self, earlier: &Self) -> ([Duration; 3], Duration) {
        let programs = [0, 1, 2].map(|n| self.programs[n].since(&earlier.programs[n]));
        (programs, self.machine.saturating_sub(earlier.machine))
    }
}

/// All of them, if none failed.
fn read<T, const N: usize>(readings: [Result<T>; N]) -> Result<[T; N]> {
    let all: Vec<T> = readings.into_iter().collect::<Result<_>>()?;
    all.try_into().ok().context("as many as there were")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_chosen_by_name() {
        assert_eq!(
            named("byway_tls, iroh,byway_tls").unwrap(),
            [Way::Iroh, Way::BywayTls]
        );
        let error = named("iroh,tls").unwrap_err().to_string();
        assert!(
            error.contains("\"tls\"") && error.contains("byway_tls"),
            "{error}"
        );
    }

    #[test]
    fn a_path_of_another_kind_is_no_figure() {
        for (way, path) in [
            (Way::Bare, "forwarder"),
            (Way::Iroh, "relay"),
            (Way::IrohPlain, "relay"),
            (Way::BywayUdp, "relay_udp"),
            (Way::BywayTls, "relay_tls"),
        ] {
            assert!(way.check_path(&path.into()).is_ok());
            for other in ["direct", "none"] {
                let error = way.check_path(&other.into()).unwrap_err().to_string();
                assert!(error.contains(other), "{error}");
            }
        }
        assert!(Way::BywayUdp.check_path(&"relay_tls".into()).is_err());
    }

    #[test]
    fn bytes_that_went_elsewhere_are_no_figure() {
        let bytes = 1 << 30;
        let tcp = Traffic {
            relay_tcp: bytes + 1,
            direct: 1_000,
            ..Default::default()
        };
        let udp = Traffic {
            relay_udp: bytes + 1,
            ..Default::default()
        };
        for way in [Way::Iroh, Way::IrohPlain, Way::BywayTls] {
            assert!(way.check_traffic("client", tcp, bytes).is_ok());
            assert!(way.check_traffic("client", udp, bytes).is_err());
        }
        for way in [Way::Bare, Way::BywayUdp] {
            assert!(way.check_traffic("client", udp, bytes).is_ok());
            assert!(way.check_traffic("client", tcp, bytes).is_err());
        }
        let direct = Traffic {
            direct: bytes,
            ..udp
        };
        let error = Way::BywayUdp.check_traffic("client", direct, bytes);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("did not go through the relay"), "{error}");
    }
}
