//! TCP to a relay or a proxy, through NAT64 where that is the way.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::happy;
use crate::socket::Nat64;

/// Races the addresses. Beside the first connection whom it leads to, and how long it took by itself: a round trip, whatever was
/// tried before it.
pub(crate) async fn connect_tcp(
    addrs: Vec<SocketAddr>,
    nat64: &Nat64,
) -> io::Result<(TcpStream, SocketAddr, Duration)> {
    let attempt = async |addr| {
        let began = Instant::now();
        let tcp = TcpStream::connect(nat64.outside(addr).unwrap_or(addr)).await?;
        Ok((tcp, addr, began.elapsed()))
    };
    let connected = happy::first(addrs, happy::STAGGER, None, attempt).await;
    connected.map_err(|failure| failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
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
        let (_tcp, to, rtt) = connect_tcp(vec![dead, there], &Nat64::default())
            .await
            .unwrap();
        assert_eq!(to, there);
        assert!(rtt <= began.elapsed(), "{rtt:?}");
    }
}
