//! TCP to whichever of several addresses answers first.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::socket::Nat64;

/// Between attempts at several addresses (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Races the addresses; the first connection wins.
pub(crate) async fn connect_tcp(
    addrs: Vec<SocketAddr>,
    nat64: &Arc<Nat64>,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut attempts = tokio::task::JoinSet::new();
    for (addr, n) in addrs.into_iter().zip(0u32..) {
        let nat64 = Arc::clone(nat64);
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * n).await;
            let to = nat64.outside(addr).unwrap_or(addr);
            TcpStream::connect(to).await.map(|tcp| (tcp, addr))
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
