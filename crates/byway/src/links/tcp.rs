//! TCP to whichever of several addresses answers first.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::socket::Nat64;

/// Between attempts at several addresses (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Races the addresses, the next one beginning when its time has come or as soon as all so far have failed (a host without
/// IPv6 learns at once that it has no way there); the first connection wins. Beside it whom it leads to, and how long it took by itself: a round trip,
/// whatever was tried before it.
pub(crate) async fn connect_tcp(
    addrs: Vec<SocketAddr>,
    nat64: &Arc<Nat64>,
) -> io::Result<Connected> {
    race(addrs, nat64, STAGGER).await
}

async fn race(
    addrs: Vec<SocketAddr>,
    nat64: &Arc<Nat64>,
    stagger: Duration,
) -> io::Result<Connected> {
    let mut attempts = JoinSet::new();
    let mut error = None;
    let mut addrs = addrs.into_iter().peekable();
    while let Some(addr) = addrs.next() {
        let to = nat64.outside(addr).unwrap_or(addr);
        attempts.spawn(async move {
            let began = Instant::now();
            let tcp = TcpStream::connect(to).await;
            tcp.map(|tcp| (tcp, addr, began.elapsed()))
        });
        let first = first_success(&mut attempts);
        let ended = if addrs.peek().is_some() {
            tokio::time::timeout(stagger, first).await
        } else {
            Ok(first.await)
        };
        match ended {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(failed)) => error = failed.or(error),
            Err(_) => {}
        }
    }
    Err(error.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}

type Connected = (TcpStream, SocketAddr, Duration);

/// The first connection among the attempts under way, or the last error when none is left.
async fn first_success(
    attempts: &mut JoinSet<io::Result<Connected>>,
) -> Result<Connected, Option<io::Error>> {
    let mut error = None;
    while let Some(joined) = attempts.join_next().await {
        match joined {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(failed)) => error = Some(failed),
            Err(_) => {}
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_round_trip_is_the_winners_own() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let began = Instant::now();
        let (_tcp, to, rtt) = connect_tcp(vec![dead, there], &Arc::default())
            .await
            .unwrap();
        assert_eq!(to, there);
        assert!(rtt <= began.elapsed(), "{rtt:?}");
    }

    /// Where one family is missing, its addresses fail at once, and nobody waits for them.
    #[tokio::test]
    async fn an_address_that_fails_at_once_is_not_waited_for() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let an_hour = Duration::from_secs(3600);
        let nat64 = Arc::default();
        let racing = race(vec![dead, there], &nat64, an_hour);
        let connected = tokio::time::timeout(Duration::from_secs(30), racing).await;
        let (_tcp, to, _) = connected.expect("it was waited for").unwrap();
        assert_eq!(to, there);
    }
}
