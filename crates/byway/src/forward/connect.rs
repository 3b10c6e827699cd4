//! Connects an agent to a target: resolve, check, race.
//!
//! A name's addresses are raced ([`happy`]). `localhost` means both loopback addresses whatever the resolver says,
//! because servers of many tools listen on one of them only.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use byway_wire::tunnel::{Refusal, Refused};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::policy::{LOOPBACK, TargetPolicy, is_localhost, parse_ip};
use crate::happy;

/// Resolving and connecting together. Shorter than a person's patience, longer than three lost SYNs (1 + 2 + 4 s).
const DEADLINE: Duration = Duration::from_secs(10);
/// Addresses tried of one name.
const MAX_ADDRS: usize = 8;

/// A connection to the target, or the refusal the client is told.
pub(super) async fn connect(
    policy: &TargetPolicy,
    host: &str,
    port: u16,
) -> Result<TcpStream, Refused> {
    let until = Instant::now() + DEADLINE;
    let addrs = match tokio::time::timeout_at(until, resolve(policy, host, port)).await {
        Ok(addrs) => addrs?,
        Err(_) => {
            return Err(Refused {
                reason: Refusal::TimedOut,
                detail: format!("the agent could not resolve {host} in time"),
            });
        }
    };
    race(addrs, until)
        .await
        .map_err(|error| refused(&error, host, port))
}

/// The addresses of the target that the policy allows; at least one.
async fn resolve(policy: &TargetPolicy, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refused> {
    let denied = || Refused {
        reason: Refusal::Denied,
        detail: format!("the agent does not allow {}", display(host, port)),
    };
    if !policy.may_resolve(host, port) {
        return Err(denied());
    }
    let found: Vec<SocketAddr> = if let Some(ip) = parse_ip(host) {
        vec![SocketAddr::new(ip, port)]
    } else if is_localhost(host) {
        LOOPBACK
            .iter()
            .map(|ip| SocketAddr::new(*ip, port))
            .collect()
    } else {
        match tokio::net::lookup_host((host, port)).await {
            Ok(addrs) => addrs.collect(),
            // Whether an unlisted name exists is not the client's business.
            Err(_) if !policy.names(host) => return Err(denied()),
            Err(_) => Vec::new(),
        }
    };
    if found.is_empty() && policy.names(host) {
        return Err(Refused {
            reason: Refusal::Unreachable,
            detail: format!("the agent cannot resolve {host}"),
        });
    }
    let allowed: Vec<_> = found
        .into_iter()
        .filter(|addr| policy.permits(host, *addr))
        .take(MAX_ADDRS)
        .collect();
    if allowed.is_empty() {
        return Err(denied());
    }
    Ok(allowed)
}

/// One that is given up while it is being made may stand already, and be accepted, at its other end: whoever sits there must see
/// a reset, and not an orderly end of nothing.
async fn attempt(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    let stream = socket.connect(addr).await?;
    SockRef::from(&stream).set_linger(None)?;
    Ok(stream)
}

/// The first connection that stands, or the most telling failure.
async fn race(addrs: Vec<SocketAddr>, until: Instant) -> io::Result<TcpStream> {
    let raced = happy::first(addrs, happy::STAGGER, Some(until), attempt).await;
    raced.map_err(|failure| failure.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

fn reason(error: &io::Error) -> Refusal {
    match error.kind() {
        _ if happy::is_exhausted(error) => Refusal::Exhausted,
        io::ErrorKind::ConnectionRefused => Refusal::Refused,
        io::ErrorKind::TimedOut => Refusal::TimedOut,
        _ => Refusal::Unreachable,
    }
}

fn refused(error: &io::Error, host: &str, port: u16) -> Refused {
    let reason = reason(error);
    let detail = match reason {
        Refusal::Refused => format!("nothing listens on {} at the agent", display(host, port)),
        Refusal::Exhausted => "the agent has no free file descriptors".to_owned(),
        Refusal::TimedOut => format!(
            "{} did not answer within {} s",
            display(host, port),
            DEADLINE.as_secs()
        ),
        _ => format!("{}: {error}", display(host, port)),
    };
    Refused { reason, detail }
}

fn display(host: &str, port: u16) -> String {
    match parse_ip(host) {
        Some(ip) => SocketAddr::new(ip, port).to_string(),
        None => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_name_tries_both_families() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let policy = TargetPolicy::loopback();
        let stream = connect(&policy, "localhost", port).await.unwrap();
        assert!(stream.peer_addr().unwrap().is_ipv6());
        let refused = connect(&policy, "127.0.0.1", port).await.unwrap_err();
        assert_eq!(refused.reason, Refusal::Refused);
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_denied_without_a_lookup() {
        let policy = TargetPolicy::loopback().allow("example.test:80").unwrap();
        let denied = connect(&policy, "other.test", 80).await.unwrap_err();
        assert_eq!(denied.reason, Refusal::Denied);
        let denied = connect(&policy, "127.0.0.1", 80).await.unwrap_err();
        assert_eq!(denied.reason, Refusal::Denied);
        assert!(denied.detail.contains("127.0.0.1:80"));
    }

    #[tokio::test]
    async fn a_listed_name_that_does_not_resolve_is_unreachable() {
        let policy = TargetPolicy::loopback().allow("byway.invalid:80").unwrap();
        let refused = connect(&policy, "byway.invalid", 80).await.unwrap_err();
        assert_eq!(refused.reason, Refusal::Unreachable, "{}", refused.detail);
    }

    #[tokio::test]
    async fn an_unlisted_name_tells_nothing_about_its_existence() {
        let policy = TargetPolicy::loopback().allow("10.0.0.0/8:80").unwrap();
        let refused = connect(&policy, "byway.invalid", 80).await.unwrap_err();
        assert_eq!(refused.reason, Refusal::Denied, "{}", refused.detail);
    }
}
