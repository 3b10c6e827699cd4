//! TCP to whichever of several addresses answers first.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::socket::Nat64;

/// Between attempts at several addresses (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Races the addresses; the first connection wins. Beside it whom it leads to, and how long it took by itself: a round trip,
/// whatever was tried before it.
pub(crate) async fn connect_tcp(
    addrs: Vec<SocketAddr>,
    nat64: &Arc<Nat64>,
) -> io::Result<(TcpStream, SocketAddr, Duration)> {
    let mut attempts = tokio::task::JoinSet::new();
    for (addr, n) in addrs.into_iter().zip(0u32..) {
        let nat64 = Arc::clone(nat64);
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * n).await;
            let to = nat64.outside(addr).unwrap_or(addr);
            let began = Instant::now();
            let tcp = TcpStream::connect(to).await;
            tcp.map(|tcp| (tcp, addr, began.elapsed()))
        });
    }
    let mut error = io::Error::from(io::ErrorKind::TimedOut);
    while let Some(joined) = attempts.join_next().await {
        match joined {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(failed)) => error = failed,
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
        // It began a stagger later, which is no part of the way.
        assert!(rtt + STAGGER <= began.elapsed(), "{rtt:?}");
    }
}
