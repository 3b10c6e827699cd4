//! Whether the laboratory's NATs are crossed by small tools as the real ones are.

use anyhow::{Result, ensure};
use byway_sim::model::Access;

use super::{QUICK, reflect};
use crate::harness::{Scenario, say};
use crate::process::Running;
use crate::programs;
use crate::scenario::NAMESPACES;
use crate::world::{Place, STUN_1, World};

pub(in crate::scenario) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "nat::two_port_restricted_cones_can_be_crossed",
        needs: NAMESPACES,
        run: restricted,
    },
    Scenario {
        name: "nat::a_stray_packet_before_the_punch_does_not_spoil_it",
        needs: NAMESPACES,
        run: late,
    },
    Scenario {
        name: "nat::two_symmetric_nats_cannot_be_crossed_by_one_socket_each",
        needs: NAMESPACES,
        run: symmetric,
    },
];

fn restricted() -> Result<()> {
    ensure!(
        punch(Access::PortRestricted, Access::PortRestricted, false)?,
        "two cones must be crossable"
    );
    ensure!(
        punch(Access::Open, Access::PortRestricted, false)?,
        "an open host and a cone must be crossable"
    );
    Ok(())
}

fn late() -> Result<()> {
    ensure!(
        punch(Access::PortRestricted, Access::PortRestricted, true)?,
        "stray packets must leave no trace"
    );
    Ok(())
}

fn symmetric() -> Result<()> {
    ensure!(
        !punch(Access::Symmetric, Access::Symmetric, false)?,
        "two symmetric NATs must not be crossable"
    );
    ensure!(
        !punch(Access::Symmetric, Access::PortRestricted, false)?,
        "nor a symmetric one and a cone"
    );
    Ok(())
}

/// Whether one socket behind each NAT gets across. With `stray`, the client's packets have been hitting the
/// agent's router for a while before the agent sends its first.
fn punch(client: Access, agent: Access, stray: bool) -> Result<bool> {
    let crossed = between(&World::new(client, agent)?, stray)?;
    say(format!(
        "{client:?} to {agent:?}: {}",
        if crossed { "crossed" } else { "not crossed" }
    ));
    Ok(crossed)
}

pub(super) fn between(world: &World, stray: bool) -> Result<bool> {
    let reflector_at = format!("{}:7001", STUN_1[0]);
    let _reflector = reflect(&world.stun_1, std::slice::from_ref(&reflector_at))?;
    let file = |name: &str| world.dir().join(name).to_string_lossy().into_owned();
    let puncher = |place: &Place, own: &str, peer: &str, head_start: &str| -> Result<Running> {
        programs::tool(
            &place.namespace,
            "punch",
            &[
                reflector_at.clone(),
                file(own),
                file(peer),
                head_start.to_owned(),
            ],
        )
    };
    let a = puncher(&world.client, "a", "b", "0")?;
    let b = puncher(&world.agent, "b", "a", if stray { "300" } else { "0" })?;
    let a = a.finish(QUICK)?.success()?;
    let b = b.finish(QUICK)?.success()?;
    Ok(a.stdout().trim() == "crossed" && b.stdout().trim() == "crossed")
}
