//! What becomes of a frame between two ports: pure, with the time given from outside.
//!
//! A frame passes the link of the port that it came by, is kept for as long as the two ports are apart, and passes the link of
//! the port that it leaves by: each at its own time, so that a frame meets the second link as that is when it gets there.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use byway_sim::net::link::{Link, LinkConfig};
use byway_sim::rng::Rng;

use super::attacker::Attacker;
use crate::emulator;

/// What a router's buffer would hold: 20 ms at 10 Gbit/s. Frames beyond are dropped, as there.
const MAX_HELD_BYTES: usize = 25 << 20;
/// What Ethernet puts around a packet.
const ETHERNET: usize = 14;

/// A frame on its way. The heap is a max-heap: the earliest must compare greatest.
#[derive(PartialEq, Eq)]
struct Held {
    due: Duration,
    number: u64,
    to: usize,
    /// It has yet to pass the link out of the switch.
    inside: bool,
    frame: Vec<u8>,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The two directions of a port's cable.
struct Cable {
    up: Link,
    down: Link,
}

/// All cables of a switch and what is on them.
pub(super) struct Wires {
    seed: u64,
    names: Vec<String>,
    cables: Vec<Cable>,
    holes: BTreeSet<(usize, usize)>,
    apart: BTreeMap<(usize, usize), Duration>,
    held: BinaryHeap<Held>,
    held_bytes: usize,
    number: u64,
    /// Which port each hardware address was last seen on.
    hosts: BTreeMap<[u8; 6], usize>,
    attacker: Option<Attacker>,
}

impl Wires {
    /// Of a switch without ports.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            names: Vec::new(),
            cables: Vec::new(),
            holes: BTreeSet::new(),
            apart: BTreeMap::new(),
            held: BinaryHeap::new(),
            held_bytes: 0,
            number: 0,
            hosts: BTreeMap::new(),
            attacker: None,
        }
    }

    /// Adds a port, whose number is that of ports before it.
    pub(super) fn plug(&mut self, name: &str, config: LinkConfig) {
        let link = |way: &str| Link::new(config, Rng::new(self.seed, &format!("{name} {way}")));
        self.cables.push(Cable {
            up: link("up"),
            down: link("down"),
        });
        self.names.push(name.to_owned());
    }

    /// When to call [`Wires::leave`] next.
    pub(super) fn due(&self) -> Option<Duration> {
        let attack = self.attacker.as_ref().and_then(Attacker::due);
        self.first_held().into_iter().chain(attack).min()
    }

    fn first_held(&self) -> Option<Duration> {
        self.held.peek().map(|first| first.due)
    }

    /// A frame comes in by a port's cable.
    pub(super) fn enter(&mut self, now: Duration, from: usize, frame: &[u8]) {
        let (Some(to_mac), Some(from_mac)) = (mac(frame, 0), mac(frame, 6)) else {
            return;
        };
        self.hosts.insert(from_mac, from);
        let arrivals = pass(&mut self.cables[from].up, now, frame);
        // The lowest bit of the first byte marks broadcast and multicast.
        let known = (to_mac[0] & 1 == 0)
            .then(|| self.hosts.get(&to_mac).copied())
            .flatten();
        for to in (0..self.cables.len()).filter(|to| *to != from && known.is_none_or(|k| k == *to))
        {
            if is_ip(frame) && self.holes.contains(&(from, to)) {
                continue;
            }
            if let Some(attacker) = &mut self.attacker {
                attacker.hear(now, from, to, frame);
            }
            let apart = self.apart.get(&(from, to)).copied().unwrap_or_default();
            for at in arrivals.into_iter().flatten() {
                self.hold(at + apart, to, true, frame.to_vec());
            }
        }
    }

    fn hold(&mut self, due: Duration, to: usize, inside: bool, frame: Vec<u8>) {
        if self.held_bytes + frame.len() > MAX_HELD_BYTES {
            return;
        }
        self.number += 1;
        self.held_bytes += frame.len();
        self.held.push(Held {
            due,
            number: self.number,
            to,
            inside,
            frame,
        });
    }

    /// Takes the first frame that is due: on to the second cable, or out.
    pub(super) fn leave(&mut self) -> Option<(usize, Vec<u8>)> {
        if let Some(attacker) = &mut self.attacker
            && let Some(due) = attacker.due()
            && self.held.peek().is_none_or(|first| due <= first.due)
        {
            return attacker.send();
        }
        let first = self.held.pop()?;
        self.held_bytes -= first.frame.len();
        if !first.inside {
            return Some((first.to, first.frame));
        }
        let [at, copy] = pass(&mut self.cables[first.to].down, first.due, &first.frame);
        if let Some(copy) = copy {
            self.hold(copy, first.to, false, first.frame.clone());
        }
        if let Some(at) = at {
            self.hold(at, first.to, false, first.frame);
        }
        None
    }

    /// Does as it is told, and says what it was asked for.
    pub(super) fn obey(&mut self, now: Duration, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["link", name, way, settings @ ..] => {
                let config = emulator::parse(&settings.join(" "))?;
                let port = self.port(name)?;
                let Cable { up, down } = &mut self.cables[port];
                match *way {
                    "up" => up.config = config,
                    "down" => down.config = config,
                    "both" => (up.config, down.config) = (config, config),
                    other => bail!("{other} is neither up, down nor both"),
                }
            }
            ["hole", from, to] => {
                self.holes.insert((self.port(from)?, self.port(to)?));
            }
            ["mend", from, to] => {
                self.holes.remove(&(self.port(from)?, self.port(to)?));
            }
            ["apart", from, to, delay] => {
                let ports = (self.port(from)?, self.port(to)?);
                let delay = emulator::time(delay)
                    .with_context(|| format!("{delay}: what time is that?"))?;
                self.apart.insert(ports, delay);
            }
            ["listen", one, other] => {
                let rng = Rng::new(self.seed, "attacker");
                let (one, other) = (self.port(one)?, self.port(other)?);
                self.attacker = Some(Attacker::new(one, other, rng));
            }
            ["deaf"] => self.attacker()?.stop_listening(),
            ["forge", every, stranger] => {
                let every = emulator::time(every)
                    .with_context(|| format!("{every}: what time is that?"))?;
                let stranger = stranger
                    .parse()
                    .with_context(|| format!("{stranger}: what address is that?"))?;
                self.attacker()?.forge(now, every, stranger);
            }
            ["forged"] => return Ok(self.attacker()?.made.to_string()),
            _ => bail!(
                "link NAME up|down|both SETTINGS, hole FROM TO, mend FROM TO, apart FROM TO TIME, listen ONE OTHER, \
                 deaf, forge TIME STRANGER, or forged"
            ),
        }
        Ok(String::new())
    }

    fn attacker(&mut self) -> Result<&mut Attacker> {
        self.attacker.as_mut().context("nobody listens")
    }

    fn port(&self, name: &str) -> Result<usize> {
        let at = self.names.iter().position(|known| known == name);
        at.with_context(|| format!("there is no port {name}, but {}", self.names.join(", ")))
    }
}

/// When a frame leaves the other end of a link, and when its copy does.
fn pass(link: &mut Link, now: Duration, frame: &[u8]) -> [Option<Duration>; 2] {
    if !is_ip(frame) {
        let LinkConfig { delay, .. } = link.config;
        return [Some(now + delay), None];
    }
    match link.pass(now, frame.len() - ETHERNET) {
        Ok((at, copy)) => [Some(at), copy],
        Err(_) => [None, None],
    }
}

/// IPv4 or IPv6, by the frame's type.
fn is_ip(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]))
}

fn mac(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..at + 6)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const ALL: [u8; 6] = [0xff; 6];

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Three ports, `a` and `b` with links of 5 ms each way, `c` without any delay.
    fn wires() -> Wires {
        let mut wires = Wires::new(1);
        for (name, settings) in [("a", "delay=5ms"), ("b", "delay=5ms"), ("c", "")] {
            wires.plug(name, emulator::parse(settings).unwrap());
        }
        wires
    }

    fn frame(to: [u8; 6], from: [u8; 6], kind: [u8; 2], packet: usize) -> Vec<u8> {
        let mut frame = [to.as_slice(), &from, &kind].concat();
        frame.resize(ETHERNET + packet, 0);
        frame
    }

    fn ip(to: [u8; 6], from: [u8; 6], packet: usize) -> Vec<u8> {
        frame(to, from, [0x08, 0x00], packet)
    }

    /// All that come out, each with its time and its port.
    fn drain(wires: &mut Wires) -> Vec<(Duration, usize)> {
        let mut out = Vec::new();
        while let Some(due) = wires.due() {
            out.extend(wires.leave().map(|(to, _)| (due, to)));
        }
        out
    }

    #[test]
    fn a_frame_passes_both_links_and_goes_to_all_until_its_host_is_known() {
        let mut wires = wires();
        wires.enter(ms(0), 0, &ip(B, A, 100));
        assert_eq!(drain(&mut wires), [(ms(5), 2), (ms(10), 1)]);
        wires.enter(ms(20), 1, &ip(A, B, 100));
        assert_eq!(drain(&mut wires), [(ms(30), 0)]);
        wires.enter(ms(40), 0, &ip(B, A, 100));
        assert_eq!(drain(&mut wires), [(ms(50), 1)]);
        wires.enter(ms(60), 0, &ip(ALL, A, 100));
        assert_eq!(drain(&mut wires), [(ms(65), 2), (ms(70), 1)]);
    }

    #[test]
    fn a_hole_takes_packets_in_its_direction_and_lets_hardware_be_asked_for() {
        let mut wires = wires();
        wires.obey(ms(0), "hole a b").unwrap();
        wires.enter(ms(0), 0, &ip(ALL, A, 100));
        assert_eq!(drain(&mut wires), [(ms(5), 2)]);
        wires.enter(ms(0), 0, &frame(ALL, A, [0x08, 0x06], 28));
        assert_eq!(drain(&mut wires).len(), 2);
        wires.enter(ms(20), 1, &ip(A, B, 100));
        assert_eq!(drain(&mut wires), [(ms(30), 0)]);
        wires.obey(ms(0), "mend a b").unwrap();
        wires.enter(ms(40), 0, &ip(B, A, 100));
        assert_eq!(drain(&mut wires), [(ms(50), 1)]);
    }

    #[test]
    fn ports_are_apart_in_the_direction_that_was_named() {
        let mut wires = wires();
        wires.obey(ms(0), "apart a b 40ms").unwrap();
        wires.enter(ms(0), 0, &ip(ALL, A, 100));
        assert_eq!(drain(&mut wires), [(ms(5), 2), (ms(50), 1)]);
        wires.enter(ms(60), 1, &ip(A, B, 100));
        assert_eq!(drain(&mut wires), [(ms(70), 0)]);
    }

    #[test]
    fn each_direction_is_changed_alone_and_what_is_on_its_way_meets_the_second_link_as_it_then_is()
    {
        let mut wires = wires();
        wires.obey(ms(0), "link a up delay=1ms").unwrap();
        wires.enter(ms(0), 0, &ip(ALL, A, 100));
        wires.obey(ms(0), "link b down delay=50ms").unwrap();
        assert_eq!(drain(&mut wires), [(ms(1), 2), (ms(51), 1)]);
        wires.enter(ms(60), 1, &ip(A, B, 100));
        assert_eq!(drain(&mut wires), [(ms(70), 0)]);
        wires.obey(ms(0), "link a both mtu=1280").unwrap();
        for (packet, came) in [(1280, 1), (1281, 0)] {
            wires.enter(ms(100), 1, &ip(A, B, packet));
            assert_eq!(drain(&mut wires).len(), came, "{packet}");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut wires = wires();
        wires.hosts.insert(B, 1);
        let large = ip(B, A, 1_500);
        let fits = MAX_HELD_BYTES / large.len();
        for _ in 0..fits + 10 {
            wires.enter(ms(0), 0, &large);
        }
        assert_eq!(wires.held.len(), fits);
        assert_eq!(drain(&mut wires).len(), fits);
        assert_eq!(wires.held_bytes, 0);
    }

    #[test]
    fn what_an_attacker_heard_comes_by_the_hole_to_both() {
        let mut wires = wires();
        for (to, from, port) in [(B, A, 0), (A, B, 1)] {
            let mut frame = ip(to, from, 60);
            frame[14] = 0x45;
            frame[23] = 17;
            if port == 0 {
                wires.enter(ms(0), 1, &ip(ALL, B, 60));
                drain(&mut wires);
                wires.obey(ms(0), "listen a b").unwrap();
            }
            wires.enter(ms(0), port, &frame);
        }
        drain(&mut wires);
        wires.obey(ms(0), "hole a b").unwrap();
        wires.obey(ms(0), "hole b a").unwrap();
        wires.obey(ms(1_000), "forge 10ms 203.0.113.40").unwrap();
        let mut came = [0; 3];
        for _ in 0..40 {
            assert!(wires.due().is_some());
            if let Some((to, _)) = wires.leave() {
                came[to] += 1;
            }
        }
        assert_eq!(came[2], 0);
        assert!(came[0] > 10 && came[1] > 10, "{came:?}");
        let told = wires.obey(ms(2_000), "forged").unwrap();
        let made: u64 = told.split(' ').map(|n| n.parse::<u64>().unwrap()).sum();
        assert_eq!(made, 40, "{told}");
        wires.obey(ms(2_000), "deaf").unwrap();
    }

    #[test]
    fn a_frame_without_addresses_goes_nowhere_and_nonsense_is_refused() {
        let mut wires = wires();
        wires.enter(ms(0), 0, &[0; 11]);
        assert_eq!(wires.due(), None);
        for (line, named) in [
            ("hole a x", "no port x"),
            ("link a sideways", "sideways"),
            ("apart a b soon", "soon"),
            ("dance", "link NAME"),
            ("forge 1ms 203.0.113.40", "nobody listens"),
        ] {
            let error = format!("{:#}", wires.obey(ms(0), line).unwrap_err());
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
