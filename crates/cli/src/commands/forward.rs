//! `byway forward`: local ports that lead to ports behind an agent.
//!
//! All forwards share one tunnel. When it ends because the agent restarted or went offline, the listeners stay, a new
//! tunnel is tried with growing pauses, and connections made meanwhile wait for it a while.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use byway::forward::Forward;
use byway::tunnel::{Tunnel, TunnelClosed};
use byway::{Endpoint, Target};

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::note;
use crate::output::{self, print_line};
use crate::peer::Peer;

/// Before the first attempt to reach an agent again: a restart takes about this long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between attempts: a person who started the agent again should not wait noticeably longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One forward, as written on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Spec {
    bind: SocketAddr,
    target: Target,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with("/udp") {
            return Err("forwarding UDP is not supported yet".to_owned());
        }
        let bad =
            || "write PORT, PORT:HOST:PORT or BIND:PORT:HOST:PORT (IPv6 in brackets)".to_owned();
        let parts = split(text).ok_or_else(bad)?;
        let (bind, local, target) = match parts.as_slice() {
            [port] => (None, *port, (*port).to_owned()),
            [local, host, port] => (None, *local, format!("{host}:{port}")),
            [bind, local, host, port] => (Some(*bind), *local, format!("{host}:{port}")),
            _ => return Err(bad()),
        };
        let bind = match bind {
            None | Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some("*") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(bind) => bind
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| format!("'{bind}' is not an address of this machine"))?,
        };
        let digits = local.bytes().all(|byte| byte.is_ascii_digit());
        let local: u16 = local.parse().ok().filter(|_| digits).ok_or_else(bad)?;
        Ok(Self {
            bind: SocketAddr::new(bind, local),
            target: args::target(&target)?,
        })
    }
}

/// Splits at colons outside of brackets.
fn split(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ':' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if !(0..=1).contains(&depth) {
            return None;
        }
    }
    parts.push(&text[start..]);
    (depth == 0 && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

pub(crate) async fn run(args: args::Forward) -> Result<(), Failure> {
    let peer = Peer::find(&args.peer)?;
    let endpoint = client::bind(&args.tunnel).await?;
    let up = Cell::new(false);
    let result = tokio::select! {
        result = forward(&endpoint, &peer, &args.forwards, &up) => result,
        // It runs until it is told to end: that is no failure, unless it never listened.
        interrupted = client::interrupted() => if up.get() { Ok(()) } else { Err(interrupted) },
    };
    endpoint.close().await;
    result
}

/// Runs until it fails for good.
async fn forward(
    endpoint: &Endpoint,
    peer: &Peer,
    specs: &[Spec],
    up: &Cell<bool>,
) -> Result<(), Failure> {
    let mut tunnel = client::connect(endpoint, peer).await?;
    client::log_path_changes(&tunnel, &peer.label);
    let mut forwards = Vec::new();
    for spec in specs {
        forwards.push(listen(&tunnel, peer, spec).await?);
    }
    up.set(true);
    loop {
        let closed = tunnel.closed().await;
        if matches!(closed, TunnelClosed::NotAllowed | TunnelClosed::Local) {
            return Err(Failure::closed(&peer.label, &closed));
        }
        note!(
            "byway: {}: the tunnel ended ({closed}); reconnecting",
            peer.label
        );
        tunnel = reconnect(endpoint, peer).await?;
        note!("byway: {}: connected again", peer.label);
        client::log_path_changes(&tunnel, &peer.label);
        for forward in &forwards {
            forward.redirect(tunnel.clone());
        }
    }
}

async fn listen(tunnel: &Tunnel, peer: &Peer, spec: &Spec) -> Result<Forward, Failure> {
    let (label, target) = (peer.label.clone(), spec.target.clone());
    let forward = Forward::listen(
        tunnel.clone(),
        spec.bind,
        spec.target.clone(),
        move |from, refused| {
            note!("byway: {label} gives {from} no connection to {target}: {refused}");
        },
    )
    .await
    .map_err(|error| {
        Failure::new(Code::Failed, format!("cannot listen on {}", spec.bind))
            .why(&error)
            .hint(if error.kind() == std::io::ErrorKind::AddrInUse {
                let other = SocketAddr::new(spec.bind.ip(), free_port_hint(spec.bind.port()));
                format!("another local port: {other}:{}", spec.target)
            } else {
                format!("another local address or port: BIND:PORT:{}", spec.target)
            })
    })?;
    print_line(&format!(
        "listening on {} for {} at {}",
        output::stdout().bold(&forward.local_addr().to_string()),
        spec.target,
        peer.label
    ));
    Ok(forward)
}

fn free_port_hint(port: u16) -> u16 {
    if port < 1024 {
        port + 8000
    } else {
        port.checked_add(1).unwrap_or(8080)
    }
}

/// Tries until the agent is back, or until it says that it does not want us.
async fn reconnect(endpoint: &Endpoint, peer: &Peer) -> Result<Tunnel, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match client::connect(endpoint, peer).await {
            Ok(tunnel) => return Ok(tunnel),
            Err(failure) if matches!(failure.code, Code::Offline | Code::NoPath | Code::Failed) => {
                let now = failure.summary();
                if now != said {
                    note!("byway: {now}; trying on");
                    said = now;
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn spec(text: &str) -> (String, String) {
        let spec: Spec = text.parse().unwrap();
        (spec.bind.to_string(), spec.target.to_string())
    }

    #[test]
    fn forwards_are_read_as_people_write_them() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(spec("8080"), pair("127.0.0.1:8080", "localhost:8080"));
        assert_eq!(
            spec("8080:db.internal:5432"),
            pair("127.0.0.1:8080", "db.internal:5432")
        );
        assert_eq!(spec("0:localhost:80"), pair("127.0.0.1:0", "localhost:80"));
        assert_eq!(
            spec("0.0.0.0:1:10.0.0.1:2"),
            pair("0.0.0.0:1", "10.0.0.1:2")
        );
        assert_eq!(spec("*:1:h:2"), pair("0.0.0.0:1", "h:2"));
        assert_eq!(spec("localhost:1:h:2"), pair("127.0.0.1:1", "h:2"));
        assert_eq!(spec("[::1]:1:[fd00::1]:2"), pair("[::1]:1", "[fd00::1]:2"));
        assert_eq!(spec("1:[::1]:2"), pair("127.0.0.1:1", "[::1]:2"));
    }

    #[test]
    fn what_is_no_forward_is_refused() {
        for bad in [
            "",
            "0",
            "99999",
            "a",
            "8080:9090",
            "1:h:0",
            "1:h:99999",
            "b:1:h:2:3",
            "1::2",
            ":1:h:2",
            "[::1:1:h:2",
            "::1:1:h:2",
            "+1:h:2",
            "nohost:1:h:2",
            "1]:[h:2",
        ] {
            assert!(bad.parse::<Spec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn udp_is_refused_by_name() {
        let error = "53:dns:53/udp".parse::<Spec>().unwrap_err();
        assert!(error.contains("UDP is not supported yet"), "{error}");
    }
}
