//! OpenSSH, scp and git through a tunnel, over each of the three kinds of path.

use std::fs;

use anyhow::{Result, ensure};
use byway_sim::model::Access::{Open, PortRestricted};
use std::process::Command;

use super::{LONG, SHORT};
use crate::harness::{Need, Scenario, say};
use crate::process::Running;
use crate::programs::{self, Agent, Options, Relay, Sshd, on_client};
use crate::tool::sha256_of;
use crate::world::{Traffic, World};

const WITH_SSH: &[Need] = &[
    Need::Namespaces,
    Need::Binaries,
    Need::Tool("sshd"),
    Need::Tool("scp"),
    Need::Tool("git"),
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "openssh::the_daemon_works_without_a_tunnel",
        needs: &[Need::Namespaces, Need::Tool("sshd"), Need::Tool("ssh")],
        run: without_tunnel,
    },
    Scenario {
        name: "openssh::ssh_scp_and_git_work_over_the_direct_path",
        needs: WITH_SSH,
        run: || over(Options::default(), |t| t.direct),
    },
    Scenario {
        name: "openssh::ssh_scp_and_git_work_over_the_udp_link",
        needs: WITH_SSH,
        run: || {
            over(
                Options {
                    no_direct: true,
                    link: Some("udp"),
                    ..Options::default()
                },
                |t| t.relay_udp,
            )
        },
    },
    Scenario {
        name: "openssh::ssh_scp_and_git_work_over_the_tls_link",
        needs: WITH_SSH,
        run: || {
            over(
                Options {
                    no_direct: true,
                    link: Some("tls"),
                    ..Options::default()
                },
                |t| t.relay_tcp,
            )
        },
    },
];

/// The laboratory's own part, checked alone.
fn without_tunnel() -> Result<()> {
    let world = World::new(Open, Open)?;
    let sshd = Sshd::start(&world)?;
    let config = programs::ssh_tools(&world, &sshd, "nobody", &[])?;
    let mut command = world.agent.namespace.command("ssh");
    command.args(config).args(["127.0.0.1", "echo here"]);
    let said = Running::run("ssh", &mut command, SHORT)?
        .success()?
        .stdout();
    ensure!(said.trim() == "here", "ssh said {said:?}");
    Ok(())
}

fn over(options: Options, by: fn(Traffic) -> u64) -> Result<()> {
    let size = programs::bulk_size()?;
    let world = World::new(PortRestricted, PortRestricted)?;
    let relay = Relay::start(&world)?;
    let sshd = Sshd::start(&world)?;
    let agent = Agent::start(&world, &relay.url, Options::default(), &[])?;
    let peer = agent.peer();
    let config = programs::ssh_tools(&world, &sshd, &peer, &options.args())?;

    // `byway ssh` itself: a command's output, and its exit code.
    let mut ssh = vec!["ssh".to_owned()];
    ssh.extend(options.args().iter().map(|&a| a.to_owned()));
    ssh.push(peer);
    ssh.extend(config.iter().cloned());
    ssh.push("root@desk".to_owned());
    let byway = programs::binary("byway").to_string_lossy().into_owned();
    let said = on_client(
        &world,
        &byway,
        &[&ssh[..], &["echo over".to_owned()]].concat(),
        &[],
        SHORT,
    )?;
    ensure!(said.trim() == "over", "the remote command said {said:?}");
    let mut failing = programs::byway(&world, &world.client, "client")?;
    failing.args(&ssh).arg("exit 42");
    let code = Running::run("byway ssh", &mut failing, SHORT)?.code;
    ensure!(code == Some(42), "the remote exit code 42 became {code:?}");
    say("byway ssh ran commands");

    // scp, both ways.
    let source = world.dir().join("source");
    noise(&source, size)?;
    let expected = sha256_of(&source)?;
    let before = world.client.traffic()?;
    let mut scp = config.clone();
    scp.extend([
        "-q".to_owned(),
        source.display().to_string(),
        format!("workspace:{}/pushed", world.dir().display()),
    ]);
    on_client(&world, "scp", &scp, &[], LONG)?;
    ensure!(
        sha256_of(&world.dir().join("pushed"))? == expected,
        "what scp pushed arrived changed"
    );
    let mut scp = config.clone();
    scp.extend([
        "-q".to_owned(),
        format!("workspace:{}/pushed", world.dir().display()),
        "pulled".to_owned(),
    ]);
    on_client(&world, "scp", &scp, &[], LONG)?;
    ensure!(
        sha256_of(&world.dir().join("home-client/pulled"))? == expected,
        "what scp pulled arrived changed"
    );
    let moved = world.client.traffic()?.since(before);
    say(format!("scp of {size} bytes, both ways: {moved:?}"));
    // Both ways are twice the size; the first packets of a tunnel that goes direct are relayed.
    ensure!(
        by(moved) > size + size / 2,
        "the bytes went another way than asked: {moved:?}"
    );

    // git clone.
    let repository = world.dir().join("repository");
    let head = make_repository(&world, &repository, &source)?;
    let command = format!("ssh {}", config.join(" "));
    let clone = [
        "clone",
        "-q",
        &format!("ssh://workspace{}", repository.display()),
        "clone",
    ]
    .map(str::to_owned);
    on_client(
        &world,
        "git",
        &clone,
        &[("GIT_SSH_COMMAND", &command)],
        LONG,
    )?;
    let cloned = world.dir().join("home-client/clone");
    let git = |args: &[&str]| {
        let args: Vec<String> = ["-C", &cloned.to_string_lossy()]
            .iter()
            .chain(args)
            .map(|s| (*s).to_owned())
            .collect();
        on_client(&world, "git", &args, &[], LONG)
    };
    ensure!(
        git(&["rev-parse", "HEAD"])?.trim() == head,
        "the clone has another head"
    );
    git(&["fsck", "--full", "--strict"])?;
    ensure!(
        sha256_of(&cloned.join("data"))? == expected,
        "the cloned file arrived changed"
    );
    say("git cloned a repository");
    Ok(())
}

/// A repository with some history and one large file.
fn make_repository(world: &World, at: &std::path::Path, data: &std::path::Path) -> Result<String> {
    fs::create_dir_all(at)?;
    fs::copy(data, at.join("data"))?;
    let git = |args: &[&str]| -> Result<String> {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(at)
            .args(["-c", "user.name=Lab", "-c", "user.email=lab@byway.invalid"])
            .args(args);
        command
            .env("HOME", world.dir())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        Ok(Running::run("git", &mut command, LONG)?.success()?.stdout())
    };
    git(&["init", "-q", "-b", "main"])?;
    git(&["add", "data"])?;
    git(&["commit", "-q", "-m", "Add data"])?;
    for n in 0..20 {
        fs::write(at.join("notes"), format!("{n}\n").repeat(n + 1))?;
        git(&["add", "notes"])?;
        git(&["commit", "-q", "-m", &format!("Note {n}")])?;
    }
    Ok(git(&["rev-parse", "HEAD"])?.trim().to_owned())
}

/// A file that no compression shortens.
fn noise(path: &std::path::Path, size: u64) -> Result<()> {
    let mut file = fs::File::create(path)?;
    let mut random = std::io::Read::take(fs::File::open("/dev/urandom")?, size);
    std::io::copy(&mut random, &mut file)?;
    Ok(())
}
