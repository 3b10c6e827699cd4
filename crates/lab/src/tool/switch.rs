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
//! apart FROM TO TIME                     frames from one port to the other take so much longer
//! listen ONE OTHER                       an attacker hears what these two say to each other over UDP
//! deaf                                   what it heard so far is all it will have
//! forge TIME STRANGER                    it sends something it heard each so often, also in the name of this address
//! forged                                 how many, by how: repeated, reflected, renamed, damaged
//! ```
//!
//! What is not IP (ARP) is delayed and nothing else: a lost question for an address would cost a second of the kernel's time,
//! which is no property of the link. Prints `ready` when the ports are there.
//!
//! Here are the ports, the clock and the socket; what becomes of a frame, [`Wires`] says.

mod attacker;
mod wires;

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};
use wires::Wires;

use crate::emulator;

/// A full Ethernet frame with room for tags; TAP ports get no larger ones, since they offer no offloads.
const MAX_FRAME: usize = 1_600;

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
    let mut wires = Wires::new(seed);
    let mut taps = Vec::new();
    for port in ports {
        let (name, settings) = port.split_once('=').unwrap_or((port, ""));
        taps.push(
            DeviceBuilder::new()
                .name(format!("t-{name}"))
                .layer(Layer::L2)
                .build_sync()?,
        );
        wires.plug(name, emulator::parse(settings)?);
    }
    let switch = Switch {
        began: Instant::now(),
        taps,
        wires: Mutex::new(wires),
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
            match wires.due() {
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
            let now = self.began.elapsed();
            let answer = match lock(&self.wires).obey(now, &line?) {
                Ok(said) => format!("ok {said}"),
                Err(error) => format!("{error:#}"),
            };
            // There may be something to do sooner than was known.
            self.changed.notify_one();
            writeln!(&*caller, "{answer}")?;
        }
        Ok(())
    }
}

fn lock(wires: &Mutex<Wires>) -> MutexGuard<'_, Wires> {
    wires.lock().unwrap_or_else(PoisonError::into_inner)
}
