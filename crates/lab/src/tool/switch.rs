//! `switch SEED CONTROL NAME[=SETTINGS]...`: an Ethernet switch with a TAP port `t-NAME` for each name, whose cables behave
//! as one wants: the link emulator, where the kernel has no netem.
//!
//! Each port has a link in each direction (`up` into the switch, `down` out of it) with delay, jitter, loss, reordering,
//! duplication, rate, queue and MTU; what a link does to a packet is the simulator's own model, seeded. Frames between two
//! ports may fall into a black hole, in one direction or both. All of it is changed while it runs, by lines on the Unix
//! socket CONTROL, each answered by `ok` or by what is wrong with it:
//!
//! ```text
//! link NAME up|down|both SETTINGS        delay=5ms jitter=2ms loss=5 reorder=1 duplicate=1 rate=8mbit queue=15ms mtu=1280
//! hole FROM TO                           frames from one port to the other vanish
//! mend FROM TO                           they no longer do
//! ```
//!
//! What is not IP (ARP) is delayed and nothing else: a lost question for an address would cost a second of the kernel's time,
//! which is no property of the link. Prints `ready` when the ports are there.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use byway_sim::net::link::{Link, LinkConfig};
use byway_sim::rng::Rng;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::emulator;

/// What a router's buffer would hold: 20 ms at 10 Gbit/s. Frames beyond are dropped, as there.
const MAX_HELD_BYTES: usize = 25 << 20;
/// A full Ethernet frame with room for tags; TAP ports get no larger ones, since they offer no offloads.
const MAX_FRAME: usize = 1_600;
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

struct Wires {
    names: Vec<String>,
    cables: Vec<Cable>,
    holes: BTreeSet<(usize, usize)>,
    held: BinaryHeap<Held>,
    held_bytes: usize,
    number: u64,
    /// Which port each hardware address was last seen on.
    hosts: BTreeMap<[u8; 6], usize>,
}

struct Switch {
    began: Instant,
    taps: Vec<SyncDevice>,
    wires: Mutex<Wires>,
    changed: Condvar,
}

pub(super) fn run(args: &[String]) -> Result<()> {
    let [seed, control, ports @ ..] = args else {
        bail!("switch SEED CONTROL NAME[=SETTINGS]...");
    };
    let seed: u64 = seed.parse().context("SEED is a whole number")?;
    let listener = UnixListener::bind(control).with_context(|| format!("socket {control}"))?;
    let (mut taps, mut names, mut cables) = (Vec::new(), Vec::new(), Vec::new());
    for port in ports {
        let (name, settings) = port.split_once('=').unwrap_or((port, ""));
        let config = emulator::parse(settings)?;
        let link = |way: &str| Link::new(config, Rng::new(seed, &format!("{name} {way}")));
        taps.push(
            DeviceBuilder::new()
                .name(format!("t-{name}"))
                .layer(Layer::L2)
                .build_sync()?,
        );
        names.push(name.to_owned());
        cables.push(Cable {
            up: link("up"),
            down: link("down"),
        });
    }
    let switch = Switch {
        began: Instant::now(),
        taps,
        wires: Mutex::new(Wires {
            names,
            cables,
            holes: BTreeSet::new(),
            held: BinaryHeap::new(),
            held_bytes: 0,
            number: 0,
            hosts: BTreeMap::new(),
        }),
        changed: Condvar::new(),
    };
    println!("ready");
    thread::scope(|scope| {
        let switch = &switch;
        for from in 0..switch.taps.len() {
            scope.spawn(move || switch.receive(from));
        }
        scope.spawn(move || {
            for caller in listener.incoming().flatten() {
                // One at a time: whoever changes a link waits for the answer.
                let _ = switch.obey(&caller);
            }
        });
        switch.deliver();
    });
    Ok(())
}

impl Switch {
    fn receive(&self, from: usize) {
        let mut buffer = [0; MAX_FRAME];
        loop {
            // A port that is not up yet gives errors; asking again at once would spin until it is.
            let Ok(n) = self.taps[from].recv(&mut buffer) else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            let now = self.began.elapsed();
            lock(&self.wires).enter(now, from, &buffer[..n]);
            self.changed.notify_one();
        }
    }

    fn deliver(&self) {
        let mut wires = lock(&self.wires);
        loop {
            let now = self.began.elapsed();
            match wires.held.peek().map(|first| first.due) {
                Some(due) if due <= now => {
                    if let Some((to, frame)) = wires.leave() {
                        drop(wires);
                        // A port that is down loses the frame, as a cable would.
                        let _ = self.taps[to].send(&frame);
                        wires = lock(&self.wires);
                    }
                }
                Some(due) => {
                    let waited = self.changed.wait_timeout(wires, due - now);
                    wires = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    let waited = self.changed.wait(wires);
                    wires = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn obey(&self, caller: &UnixStream) -> Result<()> {
        for line in BufReader::new(caller).lines() {
            let answer = match lock(&self.wires).obey(&line?) {
                Ok(()) => "ok".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            writeln!(&*caller, "{answer}")?;
        }
        Ok(())
    }
}

impl Wires {
    /// A frame comes in by a port's cable.
    fn enter(&mut self, now: Duration, from: usize, frame: &[u8]) {
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
            for due in arrivals.into_iter().flatten() {
                self.hold(due, to, true, frame.to_vec());
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
    fn leave(&mut self) -> Option<(usize, Vec<u8>)> {
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

    fn obey(&mut self, line: &str) -> Result<()> {
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
            _ => bail!("link NAME up|down|both SETTINGS, hole FROM TO, or mend FROM TO"),
        }
        Ok(())
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

fn lock(wires: &Mutex<Wires>) -> MutexGuard<'_, Wires> {
    wires.lock().unwrap_or_else(PoisonError::into_inner)
}
