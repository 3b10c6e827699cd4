//! A company's network, whose router ends all TLS under certificates of the company's own authority, which its hosts trust.

use anyhow::{Context, Result, ensure};
use byway_sim::model::Access::{self, Open, PortRestricted, UdpBlocked};
use serde_json::{Value, json};

use super::super::{ACCESS, SHORT};
use super::says;
use crate::harness::say;
use crate::process::{Finished, Running};
use crate::programs::{
    self, Agent, Authority, Certificate, Options, READY, Relay, byway, netcheck,
};
use crate::world::{RELAY, World};

/// Where the router sends what is meant for the relay.
const TO_THE_PROXY: &str =
    "insert rule ip nat prerouting iifname \"lan0\" tcp dport 443 redirect to :8443\n";
const ENDED: &str = "TLS to https://203.0.113.10:443 is ended on the way";

struct Company {
    world: World,
    public: Authority,
    own: Authority,
    /// The relay's.
    certificate: Certificate,
}

impl Company {
    /// With the client in it, and an agent elsewhere.
    fn new(access: Access) -> Result<Self> {
        let mut world = World::with_delay(access, Open, ACCESS)?;
        let (public, own) = (Authority::new("public")?, Authority::new("company")?);
        let trusts =
            |host, authorities: &[&Authority]| Authority::trusted(&world, host, authorities);
        let client = trusts("client", &[&public, &own])?;
        let agent = trusts("agent", &[&public])?;
        (world.client.trusts, world.agent.trusts) = (Some(client), Some(agent));
        let certificate = public.certify(&world, RELAY)?;
        Ok(Self {
            world,
            public,
            own,
            certificate,
        })
    }

    /// From now on the router inspects.
    fn inspect(&self) -> Result<Running> {
        let world = &self.world;
        let router = world.client.gate()?;
        let shown = self.own.certify(world, RELAY)?;
        let roots = Authority::trusted(world, "inspector", &[&self.public])?;
        let files = [shown.cert, shown.key, roots].map(|file| file.display().to_string());
        let mut args = vec!["0.0.0.0:8443".to_owned(), format!("{RELAY}:443")];
        args.extend(files);
        let inspector = programs::tool(router, "intercept", &args)?;
        inspector.first_line("readiness", READY)?;
        router.nft(TO_THE_PROXY)?;
        Ok(inspector)
    }
}

fn passed_on(inspector: &Running) -> usize {
    let lines = inspector.lines();
    lines.iter().filter(|l| l.text == "passed on").count()
}

fn is_told(report: &Value) -> Result<bool> {
    let findings = report["findings"].as_array().context("no findings")?;
    let mut findings = findings.iter().filter_map(Value::as_str);
    Ok(findings.any(|finding| finding.starts_with(ENDED)))
}

pub(super) fn told() -> Result<()> {
    for (access, carrier) in [(UdpBlocked, "tls"), (PortRestricted, "udp")] {
        let company = Company::new(access)?;
        let world = &company.world;
        let relay = Relay::start_certified(world, &company.certificate, false)?;
        let agent = Agent::start(world, &relay.url, Options::default(), &[])?;
        let args = ["--relay", relay.url.as_str()];
        let check = |ended: bool| -> Result<()> {
            let report = netcheck(world, &world.client, &args)?;
            let what = format!("{access:?}, ended: {ended}");
            says(
                &what,
                &report,
                &[
                    ("relays.0.carrier", json!(carrier)),
                    ("relays.0.tls", json!("works")),
                    ("relays.0.tls_intercepted", json!(ended)),
                    ("captive_portal", json!(false)),
                ],
            )?;
            ensure!(is_told(&report)? == ended, "{what}: {report}");
            Ok(())
        };
        check(false)?;
        let inspector = company.inspect()?;
        check(true)?;
        ensure!(passed_on(&inspector) > 0, "nothing came to the proxy");

        let options = Options {
            link: Some("tls"),
            no_direct: true,
            ..Options::default()
        };
        let before = passed_on(&inspector);
        let pongs = programs::ping(world, &agent.peer(), options, &["-c", "5"])?;
        say(format!("{access:?}: {pongs:?}"));
        ensure!(
            pongs.len() == 5 && pongs.iter().all(|pong| pong.kind == "relay_tls"),
            "{access:?}: every answer should have come by relay_tls: {pongs:?}"
        );
        ensure!(
            passed_on(&inspector) > before,
            "{access:?}: it went past the proxy"
        );
    }
    Ok(())
}

pub(super) fn refused() -> Result<()> {
    let company = Company::new(UdpBlocked)?;
    let world = &company.world;
    let inspector = company.inspect()?;
    let relay = Relay::start_certified(world, &company.certificate, true)?;
    let agent = Agent::start(world, &relay.url, Options::default(), &[])?;
    let run = |words: &[&str]| -> Result<Finished> {
        let mut command = byway(world, &world.client, "client")?;
        command.args(words);
        Running::run("byway", &mut command, SHORT * 2)
    };
    // The relay's own word, through the proxy.
    let done = run(&["netcheck", "--relay", &relay.url])?;
    say(format!("{}{}", done.stdout(), done.stderr()));
    let words = "TLS ends before this relay, which requires channel binding";
    ensure!(
        done.code == Some(5) && done.stdout().contains(words) && done.stderr().contains(words),
        "it ended {:?}: {}{}",
        done.code,
        done.stdout(),
        done.stderr()
    );
    let done = run(&["ping", &agent.peer(), "-c", "1"])?;
    say(done.stderr());
    ensure!(
        done.code == Some(5) && done.stderr().contains(words),
        "it ended {:?}: {}",
        done.code,
        done.stderr()
    );
    // A pin names one key: nobody else's counts, whoever signed it.
    let before = passed_on(&inspector);
    let pinned = format!("{}#{}", relay.url, pin(&relay)?);
    let done = run(&["netcheck", "--json", "--relay", &pinned])?;
    ensure!(done.code == Some(5), "it ended {:?}", done.code);
    let report: Value = serde_json::from_str(&done.stdout())?;
    says(
        "pinned",
        &report,
        &[
            ("relays.0.carrier", Value::Null),
            ("relays.0.tls", json!("failed")),
            ("relays.0.tls_intercepted", Value::Null),
            // An inspecting proxy that passes on what the relay answers asks for no login.
            ("captive_portal", Value::Null),
        ],
    )?;
    say(format!("{}", report["findings"]));
    ensure!(
        report["findings"].to_string().contains("certificate"),
        "why there is no link: {report}"
    );
    ensure!(passed_on(&inspector) > before, "nothing came to the proxy");
    Ok(())
}

/// The relay's own pin, as it printed it.
fn pin(relay: &Relay) -> Result<String> {
    let line = relay.process.first_line("readiness", READY)?;
    let (_, pin) = line.split_once('#').context("a URL with a pin")?;
    Ok(pin.to_owned())
}
