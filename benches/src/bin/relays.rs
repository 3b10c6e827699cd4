//! What the end of a relay costs tunnels that have nothing but relays: rolling upgrades, and `kill -9`, of two relay processes
//! in turn, while every tunnel sends and gets back a record each 20 ms.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use byway::RelayUrl;
use byway_benches::fleet::Fleet;
use clap::{Parser, ValueEnum};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Two relays end in turn, and are started again.
#[derive(Parser)]
struct Args {
    /// How they end.
    how: How,
    /// Tunnels.
    #[arg(long, default_value_t = 200)]
    tunnels: usize,
    /// How often a relay ends.
    #[arg(long, default_value_t = 10)]
    turns: usize,
    /// The seconds that a relay gives its nodes.
    #[arg(long, default_value_t = 30)]
    drain: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// By SIGTERM: it drains.
    Upgrade,
    /// By SIGKILL.
    Kill,
}

/// Until a tunnel has a channel through a relay that was started again: agents come back within seconds, or after their
/// back-off of ten at the most.
const WARM: Duration = Duration::from_secs(20);

struct Relay {
    name: &'static str,
    dir: PathBuf,
    listen: String,
    drain: u32,
    url: Option<RelayUrl>,
    child: Option<Child>,
}

impl Relay {
    async fn start(&mut self) -> Result<()> {
        let program = std::env::current_exe()?.with_file_name("byway-relay");
        let mut child = Command::new(&program)
            .args(["serve", "--open", "--listen", &self.listen])
            .args([
                "--name",
                self.name,
                "--drain-seconds",
                &self.drain.to_string(),
            ])
            .arg("--identity")
            .arg(self.dir.join(format!("{}.pem", self.name)))
            .env("BYWAY_RELAY_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}: build byway-relay first",
                    program.display()
                )
            })?;
        let out = child.stdout.take().context("its output")?;
        let line = BufReader::new(out)
            .lines()
            .next_line()
            .await?
            .context("it ended at once")?;
        let url: RelayUrl = line.parse().context("its first line is no URL")?;
        // The same port and the same pin from now on.
        self.listen = format!("127.0.0.1:{}", url.port());
        self.url = Some(url);
        self.child = Some(child);
        Ok(())
    }
    fn url(&self) -> Result<RelayUrl> {
        self.url.clone().context("it was never started")
    }
    async fn end(&mut self, how: How) -> Result<Duration> {
        let mut child = self.child.take().context("it does not run")?;
        let began = Instant::now();
        match how {
            How::Kill => child.start_kill()?,
            How::Upgrade => {
                let pid = child.id().context("it has ended")?.to_string();
                let sent = Command::new("kill").args(["-TERM", &pid]).status().await?;
                ensure!(sent.success(), "cannot signal {pid}");
            }
        }
        child.wait().await?;
        Ok(began.elapsed())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let dir = std::env::temp_dir().join(format!("byway-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = run(&args, &dir).await;
    std::fs::remove_dir_all(&dir)?;
    result
}

async fn run(args: &Args, dir: &std::path::Path) -> Result<()> {
    let mut relays = ["a", "b"].map(|name| Relay {
        name,
        dir: dir.to_owned(),
        listen: "127.0.0.1:0".into(),
        drain: args.drain,
        url: None,
        child: None,
    });
    for relay in &mut relays {
        relay.start().await?;
    }
    let urls = [relays[0].url()?, relays[1].url()?];
    let fleet = Fleet::start(&urls, args.tunnels).await?;
    tokio::time::sleep(WARM).await;
    fleet.take_pauses();
    tokio::time::sleep(WARM).await;
    println!("undisturbed: {}", summary(fleet.take_pauses()));
    let mut all = Vec::new();
    for turn in 0..args.turns {
        let relay = &mut relays[turn % 2];
        fleet.take_pauses();
        let took = relay.end(args.how).await?;
        // What is lost by a kill is noticed within this time.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pauses = fleet.take_pauses();
        relay.start().await?;
        tokio::time::sleep(WARM).await;
        let (through, none) = fleet.spread(&urls);
        println!(
            "relay {} ended after {:.1} s: {}; then {through:?} tunnels through the two, {none} through neither; while it came back: {}",
            relay.name,
            took.as_secs_f64(),
            summary(pauses.clone()),
            summary(fleet.take_pauses()),
        );
        all.extend(pauses);
    }
    println!(
        "all {} turns: {}; {} MiB came back",
        args.turns,
        summary(all),
        fleet.received() >> 20
    );
    fleet.finish().await?;
    println!("0 streams lost, 0 bytes wrong");
    Ok(())
}

fn summary(mut pauses: Vec<Duration>) -> String {
    pauses.sort();
    let at = |share: usize| {
        let n = (pauses.len() * share).div_ceil(100).saturating_sub(1);
        pauses.get(n).map_or(0, |p| p.as_millis())
    };
    format!(
        "longest pauses p50 {} p99 {} max {} ms",
        at(50),
        at(99),
        at(100)
    )
}
