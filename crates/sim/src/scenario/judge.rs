//! The judge: what must hold, and what did not.

use std::time::Duration;

use byway_core::io::{LinkMode, PathKind, PeerId};

use super::{Failure, Outcome, Rule};
use crate::model::{Access, Direct, Families, Place, direct, direct_within, expected_path};
use crate::net::link::LinkConfig;
use crate::scene::{Scene, Setup};
use crate::shell::app::Task;
use crate::shell::node::Note;
use crate::shell::stun::Manner;
use crate::world::Fault;

/// Paths have this long to become what the model says: longer than the longest back-off of a quarantined path.
const SETTLE: Duration = Duration::from_secs(180);
/// Seconds for which the right paths are watched to stay.
const STAYS: u32 = 5;

/// TLS is tried beside UDP after this long (design section 6, "Relay first").
const TLS_BESIDE: Duration = Duration::from_millis(300);
/// TCP tries the next address after this long (RFC 8305 section 5): IPv6 that leads nowhere is the first.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// What some ten flights take on a link of 1 MB/s and through a proxy at the border.
const FLIGHTS: Duration = Duration::from_millis(50);
/// With both families, servers are asked and paths tried by both at once, and a relay is dialled so over UDP: four full-size
/// datagrams more in the narrowest access link on the way out and four on the way back, where all that follows waits behind them.
const BOTH_FAMILIES: Duration = Duration::from_millis(10);
/// A new tunnel's first answer is there after this long at the latest where packets come late or twice and none is lost.
const ANSWERED_POOR: Duration = Duration::from_secs(10);
/// The same where packets are lost: QUIC's first timer is a second and doubles, and a handshake has some ten packets.
const ANSWERED_LOSSY: Duration = Duration::from_secs(20);
/// What an access link may go on to lose while paths are judged. More would make it a question of chance which path is
/// measured to lose less (docs/decisions/0014).
const JUDGED_LOSS: f64 = 0.005;
/// After the last trouble both must be on the direct path for this long at the latest. What decides is no round trip but how
/// long a path that lost a failover stays out, doubling, and how many samples it must be better for before data returns; and
/// on a network that loses packets how long it takes to measure that.
const DIRECT_AGAIN: Duration = Duration::from_secs(180);
/// The relays' access links, each way and twice, as far as no trouble has changed them.
const RELAY_ROUND_TRIP: Duration = Duration::from_millis(20);
/// Two flights of a round trip and a half each tell what a narrow path carries, instead of one round trip.
const NARROW: u32 = 2;

#[derive(Default)]
pub(super) struct Judge {
    failures: Vec<Failure>,
    opened: Vec<Duration>,
    opened_narrow: Vec<Duration>,
    direct_after: Option<Duration>,
    barred: bool,
}

impl Judge {
    /// A tunnel came up in time, as it must: no scenario has a network that leads nowhere. `after`: when the first answer was there, if it came.
    pub(super) fn comes_up(&mut self, setup: &Setup, after: Option<Duration>) {
        let within = answered_within(setup);
        if after.is_none_or(|after| after > within) {
            let failure = format!("the first answer after {after:?}, not within {within:?}");
            self.fail(Rule::ComesUp, failure);
        }
    }
    pub(super) fn require(&mut self, held: bool, rule: Rule, what: &str) {
        if !held {
            self.fail(rule, what.to_owned());
        }
    }
    fn fail(&mut self, rule: Rule, detail: String) {
        self.failures.push(Failure { rule, detail });
    }

    /// Both sides come to send on the paths the model says, and stay there while they are used; neither was ever on one
    /// that cannot exist. Returns how many touches were begun for it.
    pub(super) fn paths(&mut self, setup: &Setup, scene: &mut Scene, peer: PeerId) -> usize {
        let accepted = accepted_paths(setup);
        // The measured loss of a path decides over it too, and a few pings measure a few per cent badly.
        let links = [&setup.client_link, &setup.agent_link];
        for (site, link) in [scene.client_site, scene.agent_site].into_iter().zip(links) {
            let loss = link.loss.min(JUDGED_LOSS);
            scene.world.inflict(Fault::Loss(site, loss));
        }
        // Something must flow, or a path that could be better would not be looked at. Right once is not enough: a path
        // must stay so while it is used.
        let end = scene.world.net.now() + SETTLE;
        let (mut stayed, mut touches) = (0, 0);
        while stayed < STAYS && scene.world.net.now() < end {
            scene.begin(peer, Task::Touch);
            touches += 1;
            let mut right = true;
            let second = scene.world.net.now() + Duration::from_secs(1);
            while scene.world.net.now() < second {
                scene.world.run_for(Duration::from_millis(100));
                right &= accepted.contains(&scene.paths(peer));
            }
            stayed = if right { stayed + 1 } else { 0 };
        }
        if stayed < STAYS {
            let got = scene.paths(peer);
            let failure = format!("at the end {got:?} instead of one of {accepted:?}");
            self.fail(Rule::Paths, failure);
        }
        self.barred = accepted
            .iter()
            .all(|(client, _)| *client != Some(PathKind::Direct));
        if self.barred {
            for host in [scene.client, scene.agent] {
                let direct = scene.first_on(host, PathKind::Direct).is_some();
                self.require(!direct, Rule::NoSuchPath, "a direct path that cannot exist");
            }
        }
        touches
    }

    /// A new tunnel goes direct as fast as the model says, as long as nothing else happens, nothing is lost, and every STUN
    /// server answers (beside a NAT that depends on the destination a silent one is waited for, for a second). Where full-size
    /// datagrams do not pass, that takes [`NARROW`] round trips more.
    pub(super) fn opening(&mut self, setup: &Setup, scene: &mut Scene, quiet_until: Duration) {
        let links = [&setup.client_link, &setup.agent_link];
        let round_trip = links.map(|link| link.delay).iter().sum::<Duration>() * 2;
        let narrow = links
            .iter()
            .any(|link| link.mtu < LinkConfig::default().mtu);
        // A flight of all sizes and its echo take 16 ms of a link of 1 MB/s, for each address that is tried.
        let sizes = if narrow {
            round_trip * NARROW + FLIGHTS
        } else {
            Duration::ZERO
        };
        let places = (setup.client_place(), setup.agent_place());
        let relayed = round_trip + RELAY_ROUND_TRIP;
        let within = direct_within(places.0, places.1, round_trip, relayed);
        let answers = |manner: &Manner| matches!(manner, Manner::Honest | Manner::Repeating);
        let clean = links.into_iter().all(is_clean) && setup.stun.iter().all(answers);
        let Some(within) = within.filter(|_| setup.direct && clean) else {
            return;
        };
        let within = within + sizes;
        for (host, name) in [(scene.client, "client"), (scene.agent, "agent")] {
            let Some(up) = scene.connected_at(host) else {
                return;
            };
            let direct = scene.first_on(host, PathKind::Direct);
            if let Some(took) = direct.map(|at| at.saturating_sub(up))
                && up + within < quiet_until
            {
                let of = took.as_secs_f64() / round_trip.as_secs_f64();
                let opened = if narrow {
                    &mut self.opened_narrow
                } else {
                    &mut self.opened
                };
                opened.push(Duration::from_secs_f64(of));
            }
            if up + within < quiet_until && direct.is_none_or(|at| at > up + within) {
                let failure =
                    format!("{name}: up at {up:?}, direct at {direct:?}, not within {within:?}");
                self.fail(Rule::DirectInTime, failure);
            }
        }
    }

    /// After the troubles, both come back to a direct path that there surely is. `calm`: when the last one ended.
    pub(super) fn in_time(&mut self, setup: &Setup, scene: &mut Scene, calm: Duration) {
        if !setup.direct || direct(setup.client_place(), setup.agent_place()) != Direct::Surely {
            return;
        }
        // That they stay is another rule's; a network that loses packets is measured for longer than this.
        let since = [scene.client, scene.agent].map(|host| {
            let routes = scene.routes_since(host, Duration::ZERO);
            let before = routes.partition_point(|(at, _)| *at <= calm);
            let from = before.saturating_sub(1);
            let direct =
                |(_, path): &&(Duration, Option<PathKind>)| *path == Some(PathKind::Direct);
            let found = routes[from..].iter().find(direct);
            found.map(|(at, _)| calm.max(*at))
        });
        let [Some(client), Some(agent)] = since else {
            // That they are not on it at all, another rule has said.
            return;
        };
        let after = client.max(agent).saturating_sub(calm);
        self.direct_after = Some(after);
        if after > DIRECT_AGAIN {
            let failure =
                format!("client since {client:?}, agent since {agent:?}, calm since {calm:?}");
            self.fail(Rule::DirectInTime, failure);
        }
    }

    /// Everything that was begun is there, and is over, and was right.
    pub(super) fn tasks(&mut self, scene: &mut Scene, begun: usize) {
        let reports = scene.reports();
        if reports.len() != begun {
            let failure = format!("{} reports of {begun} tasks", reports.len());
            self.fail(Rule::Tasks, failure);
        }
        let mut bad = reports.into_iter().filter(|r| r.done.is_none());
        // One says what there is to know; where nothing passes, all of them say it.
        if let Some(first) = bad.next() {
            let more = bad.count();
            let failure = format!("one did not end well, nor {more} more: {first:?}");
            self.fail(Rule::Tasks, failure);
        }
    }

    /// One connection from beginning to end.
    pub(super) fn tunnel(&mut self, scene: &mut Scene) {
        for (host, name) in [(scene.client, "client"), (scene.agent, "agent")] {
            let notes = &scene.world.node(host).0.notes;
            let connected = notes
                .iter()
                .filter(|(_, n)| matches!(n, Note::Connected(_)));
            if connected.count() != 1 {
                let failure = format!("{name}: not one connection from beginning to end");
                self.fail(Rule::OneConnection, failure);
            }
            for (at, note) in notes {
                if matches!(note, Note::TunnelLost(..) | Note::Failed(..)) {
                    let failure = format!("{name} at {:.3}: {note:?}", at.as_secs_f64());
                    self.fail(Rule::OneConnection, failure);
                }
            }
        }
    }

    pub(super) fn outcome(self, mut scene: Scene, met: (usize, usize)) -> Outcome {
        let story = if self.failures.is_empty() {
            String::new()
        } else {
            let story = scene.story();
            format!("{}\n{story}", scene.world.net.trace)
        };
        let trace = &scene.world.net.trace;
        Outcome {
            hash: trace.hash(),
            events: trace.events(),
            met,
            opened: self.opened,
            opened_narrow: self.opened_narrow,
            direct_after: self.direct_after,
            barred: self.barred,
            failures: self.failures,
            story,
        }
    }
}

/// True if all packets arrive, once, in order and on time.
fn is_clean(link: &LinkConfig) -> bool {
    let chances = [link.loss, link.reorder, link.duplicate];
    chances == [0.0; 3] && link.jitter.is_zero()
}

/// How long after it was dialled a tunnel's first answer is there at the latest: on clean networks the round trips that it takes
/// (design section 6, "Relay first"), one to the relay over UDP or three over TLS, and two through it.
fn answered_within(setup: &Setup) -> Duration {
    let links = [&setup.client_link, &setup.agent_link];
    if links.iter().any(|link| link.loss > 0.0) {
        return ANSWERED_LOSSY;
    }
    if !links.into_iter().all(is_clean) {
        return ANSWERED_POOR;
    }
    let relay = RELAY_ROUND_TRIP / 2;
    let to_relay = setup.client_link.delay * 2 + relay;
    let to_agent = to_relay + relay + setup.agent_link.delay * 2;
    let over_tls = setup.client.is_tls_only() || setup.links == LinkMode::Tls;
    let two = |families| matches!(families, Families::Both | Families::Nat64);
    let both = two(setup.client_ip) || two(setup.agent_ip);
    let mut within = to_agent * 2 + FLIGHTS + if both { BOTH_FAMILIES } else { Duration::ZERO };
    if over_tls {
        within += to_relay * 3;
        let beside = setup.links == LinkMode::Auto;
        within += if beside { TLS_BESIDE } else { Duration::ZERO };
        let broken = setup.client_ip == Families::BrokenV6;
        within += if broken { NEXT_ADDRESS } else { Duration::ZERO };
    } else {
        within += to_relay;
    }
    within
}

/// What client and agent send on.
type Paths = (Option<PathKind>, Option<PathKind>);

/// The kinds of path on which client and agent may end: two pairs of them where a direct path is a matter of chance.
fn accepted_paths(setup: &Setup) -> Vec<Paths> {
    let chance = if setup.direct {
        direct(setup.client_place(), setup.agent_place())
    } else {
        Direct::Never
    };
    let relayed = |own: Place, mode| {
        if mode == LinkMode::Tls {
            PathKind::RelayTls
        } else {
            // Nobody goes direct to a side whose UDP is blocked.
            expected_path(own, Access::UdpBlocked)
        }
    };
    let mut accepted = Vec::new();
    if chance > Direct::Never {
        accepted.push((Some(PathKind::Direct), Some(PathKind::Direct)));
    }
    if chance < Direct::Surely {
        let agents = relayed(setup.agent_place(), LinkMode::Auto);
        accepted.push((
            Some(relayed(setup.client_place(), setup.links)),
            Some(agents),
        ));
    }
    accepted
}
