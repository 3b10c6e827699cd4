//! `byway ping`: round trips through the tunnel and the agent's process, and the path they took.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway::tunnel::{StreamError, Tunnel};
use byway::{Endpoint, PathInfo, PathKind};
use serde::Serialize;

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::output::{json_line, print_line};
use crate::peer::Peer;

/// Between two pings.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two pings that wait for a direct path: it may come within tens of milliseconds.
const HURRIED_INTERVAL: Duration = Duration::from_millis(250);
/// Between two tunnels of `--fresh`: what the tunnel before had is forgotten two seconds after it.
const FRESH_INTERVAL: Duration = Duration::from_secs(3);
/// With `--until-direct`: 40 x 250 ms, by when every probe of the ladder has had its answer.
const UNTIL_DIRECT_COUNT: u64 = 40;
/// An answer later than this counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// One line of `--json`.
#[derive(Serialize)]
struct Line {
    seq: u64,
    /// None: lost.
    rtt_ms: Option<f64>,
    /// From the first attempt to reach the peer to this answer, or to giving it up.
    at_ms: f64,
    /// From the first attempt until a link to a relay was up.
    link_ms: Option<f64>,
    /// From the first attempt until the tunnel was up.
    up_ms: f64,
    path: Path,
}

#[derive(Serialize)]
struct Path {
    kind: &'static str,
    remote: Option<SocketAddr>,
    relay: Option<String>,
    /// Why data came to it from the path before.
    reason: &'static str,
    /// From the first attempt until data came to it.
    at_ms: f64,
    /// How often the tunnel has changed its path.
    switches: u64,
}

/// When what happened: where the time to the first answer goes.
struct Times {
    /// The first attempt to reach the peer.
    began: Instant,
    /// From then until a link to a relay was up; nothing if there was one before. None: it was given up again in the same
    /// moment.
    link: Option<Duration>,
    /// From then until the tunnel was up.
    up: Duration,
}

impl Times {
    /// Of a tunnel that was asked for then and is up now.
    fn of(began: Instant, endpoint: &Endpoint) -> Self {
        let links = endpoint.links();
        let link = links.borrow().iter().filter_map(|link| link.since).min();
        Self {
            began,
            link: link.map(|at| at.saturating_duration_since(began)),
            up: began.elapsed(),
        }
    }
}

/// How the pings of a run go.
struct Run<'a> {
    args: &'a args::Ping,
    /// The peer, for people.
    label: &'a str,
    /// There was a tunnel.
    up: &'a Cell<bool>,
    answered: u64,
    /// The path of the last line.
    shown: Option<(PathKind, Option<SocketAddr>)>,
}

pub(crate) async fn run(args: args::Ping) -> Result<(), Failure> {
    let peer = Peer::find(&args.peer)?;
    let endpoint = client::bind(&args.tunnel).await?;
    let up = Cell::new(false);
    let mut run = Run {
        args: &args,
        label: &peer.label,
        up: &up,
        answered: 0,
        shown: None,
    };
    let result = tokio::select! {
        result = async {
            if args.fresh {
                return run.fresh(&endpoint, &peer).await;
            }
            let (tunnel, times) = run.connect(&endpoint, &peer).await?;
            run.all(&tunnel, &times).await
        } => result,
        // What it has printed is what was asked for, unless it was to wait for something, or never got so far.
        interrupted = client::interrupted() => {
            if args.until_direct || !up.get() { Err(interrupted) } else { Ok(()) }
        }
    };
    endpoint.close().await;
    result
}

impl Run<'_> {
    /// All pings through one tunnel.
    async fn all(&mut self, tunnel: &Tunnel, times: &Times) -> Result<(), Failure> {
        let until_direct = self.args.until_direct;
        let count = match (self.args.count, until_direct) {
            (Some(count), _) => count,
            (None, true) => UNTIL_DIRECT_COUNT,
            (None, false) => u64::MAX,
        };
        let interval = if until_direct {
            HURRIED_INTERVAL
        } else {
            INTERVAL
        };
        for seq in 1..=count {
            let direct = self.ping(seq, tunnel, times).await?;
            if until_direct && direct {
                return Ok(());
            }
            if seq < count {
                tokio::time::sleep(interval).await;
            }
        }
        if until_direct {
            return Err(
                Failure::new(Code::Failed, format!("no direct path to {}", self.label))
                    .why(format!("after {count} pings the path is still {}", client::describe_path(tunnel)))
                    .hint("byway netcheck --relay URL, here and at the agent, says what the networks allow"),
            );
        }
        self.some_answered()
    }

    /// A tunnel for each ping.
    async fn fresh(&mut self, endpoint: &Endpoint, peer: &Peer) -> Result<(), Failure> {
        let count = self.args.count.unwrap_or(u64::MAX);
        for seq in 1..=count {
            let (tunnel, times) = self.connect(endpoint, peer).await?;
            self.ping(seq, &tunnel, &times).await?;
            tunnel.close();
            if seq < count {
                tokio::time::sleep(FRESH_INTERVAL).await;
            }
        }
        self.some_answered()
    }

    /// One ping. True if it was answered by a direct path.
    async fn ping(&mut self, seq: u64, tunnel: &Tunnel, times: &Times) -> Result<bool, Failure> {
        // As it was when the ping left: by the time the answer is here the tunnel may have moved.
        let path = tunnel.path().borrow().clone();
        let switches = tunnel.stats().switches;
        let pinged = tokio::time::timeout(LOST_AFTER, tunnel.ping()).await;
        let rtt = match pinged {
            Ok(Ok(rtt)) => Some(rtt),
            Err(_) => None,
            Ok(Err(StreamError::Closed(closed))) => {
                return Err(Failure::closed(self.label, &closed));
            }
            Ok(Err(error)) => {
                let what = format!("pinging {} failed", self.label);
                return Err(Failure::new(Code::Failed, what).why(error));
            }
        };
        self.answered += u64::from(rtt.is_some());
        if self.args.json {
            json_line(&Line {
                seq,
                rtt_ms: rtt.map(in_ms),
                at_ms: in_ms(times.began.elapsed()),
                link_ms: times.link.map(in_ms),
                up_ms: in_ms(times.up),
                path: Path::of(&path, times.began, switches),
            });
        } else {
            let now = (path.kind, path.remote);
            let news = self.shown.replace(now) != Some(now);
            print_for_people(seq, rtt, &path, news);
        }
        Ok(rtt.is_some() && path.kind == PathKind::Direct)
    }

    /// A tunnel, and for people how long it took and how much of that was for the link.
    async fn connect(&self, endpoint: &Endpoint, peer: &Peer) -> Result<(Tunnel, Times), Failure> {
        let began = Instant::now();
        let tunnel = client::connect(endpoint, peer).await?;
        let times = Times::of(began, endpoint);
        self.up.set(true);
        if self.args.json {
            return Ok((tunnel, times));
        }
        let link = match times.link {
            Some(link) if !link.is_zero() => {
                format!(", the link to the relay in {:.2} ms", in_ms(link))
            }
            _ => String::new(),
        };
        print_line(&format!("connected in {:.2} ms{link}", in_ms(times.up)));
        Ok((tunnel, times))
    }

    fn some_answered(&self) -> Result<(), Failure> {
        if self.answered == 0 {
            let what = format!("{} answered no ping", self.label);
            return Err(Failure::new(Code::NoPath, what).hint("is this machine still online?"));
        }
        Ok(())
    }
}

impl Path {
    fn of(path: &PathInfo, began: Instant, switches: u64) -> Self {
        Self {
            kind: client::kind_name(path.kind),
            remote: path.remote,
            relay: path.relay.as_ref().map(ToString::to_string),
            reason: path.reason.name(),
            at_ms: in_ms(path.since.saturating_duration_since(began)),
            switches,
        }
    }
}

/// In milliseconds, to the microsecond.
fn in_ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// `news`: the path is another one than the last answer's.
fn print_for_people(seq: u64, rtt: Option<Duration>, path: &PathInfo, news: bool) {
    let by = client::describe(path);
    let why = if news {
        format!(" ({})", path.reason)
    } else {
        String::new()
    };
    match rtt {
        Some(rtt) => print_line(&format!("{seq}: {:.2} ms by {by}{why}", in_ms(rtt))),
        None => print_line(&format!("{seq}: lost, path {by}{why}")),
    }
}
