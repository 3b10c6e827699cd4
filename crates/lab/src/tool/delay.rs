//! `delay NAME=MICROSECONDS...`: an Ethernet switch with a TAP port `t-NAME` for each name, which holds every
//! frame for the sum of the two ports' delays. Order is kept between any two ports. Prints `ready` when the
//! ports are there.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// What a router's buffer would hold: 20 ms at 10 Gbit/s. Frames beyond are dropped, as there.
const MAX_HELD_BYTES: usize = 25 << 20;
/// A full Ethernet frame with room for tags; TAP ports get no larger ones, since they offer no offloads.
const MAX_FRAME: usize = 1_600;

struct Port {
    tap: SyncDevice,
    delay: Duration,
}

/// A frame on its way. The heap is a max-heap: the earliest must compare greatest.
#[derive(PartialEq, Eq)]
struct Held {
    due: Instant,
    number: u64,
    to: usize,
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

#[derive(Default)]
struct State {
    held: BinaryHeap<Held>,
    held_bytes: usize,
    number: u64,
    /// Which port each hardware address was last seen on.
    hosts: BTreeMap<[u8; 6], usize>,
}

pub(super) fn switch(args: &[String]) -> Result<()> {
    let ports: Vec<Port> = args.iter().map(|arg| open(arg)).collect::<Result<_>>()?;
    let state = Mutex::new(State::default());
    let changed = Condvar::new();
    println!("ready");
    thread::scope(|scope| {
        for from in 0..ports.len() {
            let (ports, state, changed) = (&ports, &state, &changed);
            scope.spawn(move || receive(from, ports, state, changed));
        }
        deliver(&ports, &state, &changed);
    });
    Ok(())
}

fn open(arg: &str) -> Result<Port> {
    let (name, micros) = arg.split_once('=').context("a port is NAME=MICROSECONDS")?;
    let tap = DeviceBuilder::new()
        .name(format!("t-{name}"))
        .layer(Layer::L2)
        .build_sync()?;
    Ok(Port {
        tap,
        delay: Duration::from_micros(micros.parse()?),
    })
}

fn receive(from: usize, ports: &[Port], state: &Mutex<State>, changed: &Condvar) {
    let mut buffer = [0; MAX_FRAME];
    loop {
        // A port that is not up yet gives errors; asking again at once would spin until it is.
        let Ok(n) = ports[from].tap.recv(&mut buffer) else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let now = Instant::now();
        let frame = &buffer[..n];
        let (Some(to_mac), Some(from_mac)) = (mac(frame, 0), mac(frame, 6)) else {
            continue;
        };
        let mut state = lock(state);
        state.hosts.insert(from_mac, from);
        // The lowest bit of the first byte marks broadcast and multicast.
        let known = (to_mac[0] & 1 == 0)
            .then(|| state.hosts.get(&to_mac).copied())
            .flatten();
        for to in (0..ports.len()).filter(|to| *to != from && known.is_none_or(|k| k == *to)) {
            if state.held_bytes + n > MAX_HELD_BYTES {
                continue;
            }
            state.number += 1;
            state.held_bytes += n;
            let (due, number) = (now + ports[from].delay + ports[to].delay, state.number);
            state.held.push(Held {
                due,
                number,
                to,
                frame: frame.to_vec(),
            });
        }
        drop(state);
        changed.notify_one();
    }
}

fn deliver(ports: &[Port], state: &Mutex<State>, changed: &Condvar) {
    let mut held = lock(state);
    loop {
        let now = Instant::now();
        match held.held.peek().map(|first| first.due) {
            Some(due) if due <= now => {
                if let Some(first) = held.held.pop() {
                    held.held_bytes -= first.frame.len();
                    drop(held);
                    // A port that is down loses the frame, as a cable would.
                    let _ = ports[first.to].tap.send(&first.frame);
                    held = lock(state);
                }
            }
            Some(due) => {
                held = changed
                    .wait_timeout(held, due - now)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            None => held = changed.wait(held).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

fn mac(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..at + 6)?.try_into().ok()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
