//! Bad links, emulated: a path that shrinks, and loss with disorder and copies.

use anyhow::{Result, ensure};

use super::WITH_CURL;
use super::ladder::{CONTROLLERS, Rung};
use super::scene::{STALL, Transfer, direct_forward};
use crate::harness::{Scenario, say};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "links::a_path_that_shrinks_under_a_transfer_costs_a_moment_and_no_byte",
        needs: WITH_CURL,
        run: shrinks,
    },
    Scenario {
        name: "links::five_per_cent_loss_with_disorder_and_copies_changes_no_byte",
        needs: WITH_CURL,
        run: || {
            for congestion in CONTROLLERS {
                let rung = Rung::play(congestion, 5, 1 << 20)?;
                let Rung { down, up, tcp, .. } = rung;
                say(format!(
                    "{congestion}: down {down:.2} MiB/s, up {up:.2} MiB/s, plain TCP ({}) down {tcp:.2} MiB/s",
                    rung.tcp_kind
                ));
            }
            Ok(())
        },
    },
];

fn shrinks() -> Result<()> {
    let scene = direct_forward()?;
    let emulator = scene.world.emulator();
    let stall = Transfer::LARGE.disturbed(&scene.world, &scene.forward.url, || {
        emulator.link("client", "delay=5ms mtu=1300")
    })?;
    say(format!(
        "1,300 bytes instead of 1,500: stalled for {:.0} ms",
        stall.as_secs_f64() * 1e3
    ));
    ensure!(stall < STALL, "stalled for {stall:?}");
    Ok(())
}
