//! Certificates that the relay orders by itself, of an authority that is not ours.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{Open, PortRestricted};

use super::{LONG, SHORT};
use crate::harness::{Need, Scenario, say};
use crate::programs::{Agent, Authority, Options, Pebble, Relay, ping, until_direct};
use crate::world::ipv6::RELAY_NAME;
use crate::world::{NOBODY, RELAY, STUN_1, World};

const WITH_PEBBLE: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("curl"),
    Need::Tool("pebble"),
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "acme::pebble_certifies_the_relay_and_nodes_know_it_by_its_name",
        needs: WITH_PEBBLE,
        run: certified,
    },
    Scenario {
        name: "acme::a_name_that_leads_elsewhere_gets_no_certificate_and_the_relay_says_why",
        needs: WITH_PEBBLE,
        run: elsewhere,
    },
];

/// What the relay says when it has one.
const SHOWN: &str = "a new certificate is shown";
/// What it says when it has none.
const NONE: &str = "no certificate could be had";

/// A world in which the relay's name leads to this address, and the authority of it.
fn world(leads_to: Ipv4Addr) -> Result<(World, Pebble)> {
    let world = World::new(PortRestricted, Open)?;
    for place in [&world.client, &world.agent, &world.stun_1] {
        let addr = IpAddr::V4(leads_to);
        place.namespace.name_hosts(&[(RELAY_NAME, &[addr])])?;
    }
    let pebble = Pebble::start(&world, &world.stun_1, STUN_1[0])?;
    Ok((world, pebble))
}

fn relay(world: &World, pebble: &Pebble) -> Result<Relay> {
    let (at, cache) = (world.relay.at(443), world.dir().join("acme"));
    let relay = Relay::start_configured(
        world,
        &format!(
            "listen = [\"{at}\"]\nadmission = \"open\"\ndrain_seconds = 0\n[acme]\ndomains = [\"{RELAY_NAME}\"]\n\
             contact = [\"ops@relay.lab\"]\ncache = \"{}\"\ndirectory = \"{}\"\nroots = [\"{}\"]\n",
            cache.display(),
            pebble.directory,
            pebble.trusted.display()
        ),
    )?;
    // It goes by its name, and by no pin.
    ensure!(
        relay.url == format!("https://{RELAY_NAME}:443"),
        "the relay's URL is {}",
        relay.url
    );
    Ok(relay)
}

fn says(relay: &Relay, what: &str) -> Result<String> {
    relay
        .process
        .wait_for(what, SHORT, |line| {
            line.text.contains(what).then(|| line.text.clone())
        })
        .with_context(|| format!("the relay does not say: {what}"))
}

fn certified() -> Result<()> {
    let (mut world, pebble) = world(RELAY)?;
    let first = relay(&world, &pebble)?;
    say(says(&first, SHOWN)?);
    for place in [&mut world.client, &mut world.agent] {
        place.trusts = Some(pebble.root.clone());
    }
    works(&world, &first.url)?;

    // Whoever asks other authorities than this one does not take it for the relay.
    let other = Authority::new("other")?;
    let other = Authority::trusted(&world, "stranger", &[&other])?;
    world.agent.trusts = Some(other);
    let stranger = Agent::start_unlinked(&world, &first.url, Options::default(), &[])?;
    let why = stranger
        .process
        .wait_for("the stranger's complaint", SHORT, |line| {
            let refused = line.text.contains("certificate is not the expected one");
            refused.then(|| line.text.clone())
        })?;
    say(format!("who trusts another authority: {why}"));
    drop(stranger);
    world.agent.trusts = Some(pebble.root.clone());

    // What was had is kept: nobody is asked again. The agent before was killed, and nobody waits for it.
    first.process.signal("TERM")?;
    first.process.finish(LONG)?.success()?;
    let second = relay(&world, &pebble)?;
    works(&world, &second.url)?;
    ensure!(
        pebble.signed() == 1,
        "{} certificates were ordered",
        pebble.signed()
    );
    Ok(())
}

/// By each kind of link, and beside the relay.
fn works(world: &World, relay: &str) -> Result<()> {
    let agent = Agent::start(world, relay, Options::default(), &[])?;
    for (link, kind) in [("udp", "relay_udp"), ("tls", "relay_tls")] {
        let options = Options {
            no_direct: true,
            link: Some(link),
            ..Options::default()
        };
        let pongs = ping(world, &agent.peer(), options, &["--count", "1"])?;
        let last = pongs.last().context("no answer")?;
        ensure!(last.kind == kind, "by {link}: {last:?}");
    }
    until_direct(world, &agent.peer())?;
    Ok(())
}

fn elsewhere() -> Result<()> {
    let (world, pebble) = world(NOBODY)?;
    let relay = relay(&world, &pebble)?;
    let why = says(&relay, NONE)?;
    say(&why);
    ensure!(
        why.contains(&format!("did not find this relay at {RELAY_NAME}:443")),
        "{why}"
    );
    ensure!(pebble.signed() == 0, "a certificate was signed");
    Ok(())
}
