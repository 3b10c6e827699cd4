//! `byway ping`: round trips through the tunnel and the agent's process, and the path they took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway::tunnel::{StreamError, Tunnel};
use byway::{PathInfo, PathKind};
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
    path: Path,
}

#[derive(Serialize)]
struct Path {
    kind: &'static str,
    remote: Option<SocketAddr>,
    relay: Option<String>,
    /// Why data came to it from the path before.
    reason: &'static str,
    /// How often the tunnel has changed its path.
    switches: u64,
}

pub(crate) async fn run(args: args::Ping) -> Result<(), Failure> {
    let peer = Peer::find(&args.peer)?;
    let endpoint = client::bind(&args.tunnel).await?;
    let result = async {
        let began = Instant::now();
        let tunnel = client::connect(&endpoint, &peer).await?;
        tokio::select! {
            result = ping(&args, &tunnel, &peer.label, began) => result,
            // What it has printed is what was asked for, unless it was to wait for something.
            interrupted = client::interrupted() => {
                if args.until_direct { Err(interrupted) } else { Ok(()) }
            }
        }
    }
    .await;
    endpoint.close().await;
    result
}

async fn ping(
    args: &args::Ping,
    tunnel: &Tunnel,
    label: &str,
    began: Instant,
) -> Result<(), Failure> {
    let count = match (args.count, args.until_direct) {
        (Some(count), _) => count,
        (None, true) => UNTIL_DIRECT_COUNT,
        (None, false) => u64::MAX,
    };
    let interval = if args.until_direct {
        HURRIED_INTERVAL
    } else {
        INTERVAL
    };
    let mut answered = 0;
    let mut shown = None;
    for seq in 1..=count {
        // As it was when the ping left: by the time the answer is here the tunnel may have moved.
        let path = tunnel.path().borrow().clone();
        let switches = tunnel.stats().switches;
        let pinged = tokio::time::timeout(LOST_AFTER, tunnel.ping()).await;
        let rtt = match pinged {
            Ok(Ok(rtt)) => Some(rtt),
            Err(_) => None,
            Ok(Err(StreamError::Closed(closed))) => return Err(Failure::closed(label, &closed)),
            Ok(Err(error)) => {
                return Err(
                    Failure::new(Code::Failed, format!("pinging {label} failed")).why(error),
                );
            }
        };
        answered += u64::from(rtt.is_some());
        if args.json {
            json_line(&Line {
                seq,
                rtt_ms: rtt.map(in_ms),
                at_ms: in_ms(began.elapsed()),
                path: Path::of(&path, switches),
            });
        } else {
            let news = shown.replace((path.kind, path.remote)) != Some((path.kind, path.remote));
            print_for_people(seq, rtt, &path, news);
        }
        if args.until_direct && rtt.is_some() && path.kind == PathKind::Direct {
            return Ok(());
        }
        if seq < count {
            tokio::time::sleep(interval).await;
        }
    }
    if args.until_direct {
        return Err(
            Failure::new(Code::Failed, format!("no direct path to {label}"))
                .why(format!("after {count} pings the path is still {}", client::describe_path(tunnel)))
                .hint("byway netcheck --relay URL, here and at the agent, says what the networks allow"),
        );
    }
    if answered == 0 {
        return Err(
            Failure::new(Code::NoPath, format!("{label} answered no ping"))
                .hint("is this machine still online?"),
        );
    }
    Ok(())
}

impl Path {
    fn of(path: &PathInfo, switches: u64) -> Self {
        Self {
            kind: client::kind_name(path.kind),
            remote: path.remote,
            relay: path.relay.as_ref().map(ToString::to_string),
            reason: path.reason.name(),
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
