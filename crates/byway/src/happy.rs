//! TCP to whichever of several addresses answers first, as RFC 8305 advises: the next one is tried when one before has failed or
//! nobody has answered for 250 ms, and the first connection wins. What is still under way then is given up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// RFC 8305, section 5: "Connection Attempt Delay ... recommended value is 250 milliseconds".
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// The first success, or every failure in its order; none if there was no address.
pub(crate) async fn first<T, F>(
    addrs: Vec<SocketAddr>,
    stagger: Duration,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<io::Error>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addrs.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    attempts.extend(waiting.next().map(&attempt));
    loop {
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    failures.push(error);
                    attempts.extend(waiting.next().map(&attempt));
                }
            },
            () = tokio::time::sleep(stagger), if waiting.len() > 0 => {
                attempts.extend(waiting.next().map(&attempt));
            }
            else => return Err(failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Where one family is missing, its addresses fail at once, and nobody waits for them.
    #[tokio::test]
    async fn an_address_that_fails_at_once_is_not_waited_for() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let an_hour = Duration::from_secs(3600);
        let racing = first(vec![dead, there], an_hour, TcpStream::connect);
        let connected = tokio::time::timeout(Duration::from_secs(30), racing).await;
        let tcp = connected.expect("it was waited for").unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), there);
    }

    #[tokio::test]
    async fn every_failure_is_told_in_its_order_and_no_address_is_none() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let told = first(vec![addr(1), addr(2)], STAGGER, |at| async move {
            Err::<(), _>(io::Error::other(at.port().to_string()))
        });
        let told: Vec<_> = told
            .await
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, ["1", "2"]);
        let nobody = first(Vec::new(), STAGGER, |_| async { Ok(()) });
        assert!(nobody.await.unwrap_err().is_empty());
    }
}
