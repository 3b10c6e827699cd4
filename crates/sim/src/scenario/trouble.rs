//! What a trouble is in a scene: faults, each at its time.

use std::net::IpAddr;
use std::time::Duration;

use super::Trouble;
use crate::model::Families;
use crate::net::{Hole, HostId, SiteId, Traffic};
use crate::rng::Rng;
use crate::scene::{Scene, Setup, v6};
use crate::world::{Clock, Fault, Sockets};

/// Two holes, there and back.
type Cut = [(Option<SiteId>, Option<SiteId>); 2];

/// Between the restarts of a NAT that restarts each minute.
const MINUTE: Duration = Duration::from_secs(60);
/// What a loss burst loses, in each direction.
const BURST: f64 = 0.33;
/// What a slow spell adds, in each direction.
const SLOWER: Duration = Duration::from_millis(150);
/// Where client and agent move to.
const MOVED: [([u8; 4], IpAddr); 2] = [
    ([203, 0, 113, 110], v6(0xcc, 2)),
    ([203, 0, 113, 120], v6(0xaa, 2)),
];

/// The faults that make a trouble.
pub(super) fn concrete(
    scene: &Scene,
    setup: &Setup,
    trouble: Trouble,
    at: Duration,
    lasts: Duration,
) -> Vec<(Duration, Fault)> {
    let end = at + lasts;
    let (client, agent, relay) = (scene.client_site, scene.agent_site, scene.relay_site);
    let holes = |cuts: &[Cut], what| {
        let holes = cuts.iter().flatten();
        let holes = holes.map(|(from, to)| Hole {
            from: *from,
            to: *to,
            what,
        });
        holes
            .flat_map(|hole| [(at, Fault::Open(hole)), (end, Fault::Close(hole))])
            .collect()
    };
    let between = |a, b| [(Some(a), Some(b)), (Some(b), Some(a))];
    let around = |site| [(Some(site), None), (None, Some(site))];
    let killed = |relay: HostId| {
        [
            (at, Fault::KillRelay(relay)),
            (end, Fault::StartRelay(relay)),
        ]
    };
    let second = scene.second_relay.map(|(host, _)| host);
    let asleep = |host, clock| {
        let sockets = Rng::new(setup.seed, "sockets of a sleeper").pick(&Sockets::ALL);
        let wake = Fault::Wake(host, clock, sockets);
        vec![(at, Fault::Sleep(host)), (end, wake)]
    };
    match trouble {
        Trouble::DirectDead => holes(&[between(client, agent)], Traffic::Udp),
        Trouble::DirectDeadOneWay => {
            let hole = Hole {
                from: Some(client),
                to: Some(agent),
                what: Traffic::Udp,
            };
            vec![(at, Fault::Open(hole)), (end, Fault::Close(hole))]
        }
        Trouble::RelayUdpDead => holes(&[between(client, relay)], Traffic::Udp),
        Trouble::Offline => holes(&[around(client)], Traffic::All),
        Trouble::Partition => holes(&[around(client), around(agent)], Traffic::All),
        Trouble::RelayKilled => killed(scene.relay).to_vec(),
        Trouble::SecondRelayKilled => second.map(killed).into_iter().flatten().collect(),
        Trouble::BothRelaysKilled => {
            let both = [Some(scene.relay), second];
            both.into_iter().flatten().flat_map(killed).collect()
        }
        Trouble::RelayLost => vec![(at, Fault::KillRelay(scene.relay))],
        Trouble::ClientRebinds => vec![(at, Fault::Rebind(client))],
        Trouble::AgentRebinds => vec![(at, Fault::Rebind(agent))],
        Trouble::ClientRebindsEachMinute => {
            let times = lasts.as_secs() / MINUTE.as_secs();
            (0..=times)
                .map(|n| (at + MINUTE * n as u32, Fault::Rebind(client)))
                .collect()
        }
        Trouble::ClientMoves => moves(client, setup.client_ip, at, MOVED[0]),
        Trouble::AgentMoves => moves(agent, setup.agent_ip, at, MOVED[1]),
        Trouble::ClientSleeps => asleep(scene.client, Clock::StandsStill),
        Trouble::ClientSleepsCounted => asleep(scene.client, Clock::Counts),
        Trouble::AgentSleeps => asleep(scene.agent, Clock::StandsStill),
        Trouble::AgentSleepsCounted => asleep(scene.agent, Clock::Counts),
        Trouble::ClientClockForwards => vec![(at, Fault::ClockForwards(scene.client, lasts))],
        Trouble::ClientClockBackwards => vec![(at, Fault::ClockBackwards(scene.client, lasts))],
        Trouble::AgentClockForwards => vec![(at, Fault::ClockForwards(scene.agent, lasts))],
        Trouble::AgentClockBackwards => vec![(at, Fault::ClockBackwards(scene.agent, lasts))],
        Trouble::RelayClockForwards => vec![(at, Fault::ClockForwards(scene.relay, lasts))],
        Trouble::RelayClockBackwards => vec![(at, Fault::ClockBackwards(scene.relay, lasts))],
        Trouble::LossBurst => vec![
            (at, Fault::Loss(client, BURST)),
            (end, Fault::Loss(client, setup.client_link.loss)),
        ],
        Trouble::SlowSpell => {
            let usual = setup.client_link.delay;
            vec![
                (at, Fault::Delay(client, usual + SLOWER)),
                (end, Fault::Delay(client, usual)),
            ]
        }
    }
}

/// Another address of each family that leads out.
fn moves(
    site: SiteId,
    families: Families,
    at: Duration,
    (v4, v6): ([u8; 4], IpAddr),
) -> Vec<(Duration, Fault)> {
    let v4 = families.reaches_v4().then_some(IpAddr::from(v4));
    let v6 = families.v6_works().then_some(v6);
    let addrs = v4.into_iter().chain(v6);
    addrs
        .map(|addr| (at, Fault::Readdress(site, addr)))
        .collect()
}
