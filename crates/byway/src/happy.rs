//! TCP to whichever of several addresses answers first, as RFC 8305 advises: the next one is tried when one before has failed or
//! nobody has answered for 250 ms, and the first connection wins. What is still under way then is given up. Where none stands,
//! the failure that tells most is the race's, whichever address it was of and whenever it came.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

/// RFC 8305, section 5: "Connection Attempt Delay ... recommended value is 250 milliseconds".
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// The first success, or the most telling failure; none if there was no address. The race ends at `until`, if that is given: whoever
/// has not answered by then has timed out.
pub(crate) async fn first<T, F>(
    addrs: Vec<SocketAddr>,
    stagger: Duration,
    until: Option<Instant>,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Option<io::Error>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addrs.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    let over = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
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
            () = &mut over, if !attempts.is_empty() => {
                failures.push(io::ErrorKind::TimedOut.into());
                break;
            }
            else => break,
        }
    }
    Err(failures.into_iter().min_by_key(says))
}

/// What a failure says, the most telling first; of two that say the same the earlier is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Says {
    /// This process or this system has no room for one more: no other address would do better.
    Exhausted,
    /// A host is there and says no.
    Refused,
    /// A host or a middlebox was there, and hung up.
    HungUp,
    /// Nobody says anything.
    Silent,
    /// Somebody on the way, or this system, knows no way there.
    Unreachable,
    /// Something about this host: it has no address of the family, or may not use it.
    Own,
}

fn says(error: &io::Error) -> Says {
    match error.kind() {
        _ if is_exhausted(error) => Says::Exhausted,
        io::ErrorKind::ConnectionRefused => Says::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Says::HungUp,
        io::ErrorKind::TimedOut => Says::Silent,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Says::Unreachable,
        _ => Says::Own,
    }
}

/// True if there are no descriptors or no memory left for one more connection.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    // ENFILE and EMFILE have no ErrorKind of their own.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    error.kind() == io::ErrorKind::OutOfMemory
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
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
        let racing = first(vec![dead, there], an_hour, None, TcpStream::connect);
        let connected = tokio::time::timeout(Duration::from_secs(30), racing).await;
        let tcp = connected.expect("it was waited for").unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), there);
    }

    /// Races one address for each failure, which come in this order.
    async fn told(failures: &[io::ErrorKind]) -> Option<io::ErrorKind> {
        let addrs = (0..failures.len()).map(|n| SocketAddr::from(([127, 0, 0, 1], n as u16)));
        let attempt =
            |at: SocketAddr| async move { Err::<(), _>(failures[usize::from(at.port())].into()) };
        let error = first(addrs.collect(), STAGGER, None, attempt).await;
        error.unwrap_err().map(|error| error.kind())
    }

    #[tokio::test]
    async fn the_most_telling_failure_is_told_in_whatever_order_they_come() {
        use io::ErrorKind::*;
        for failures in [
            [ConnectionRefused, TimedOut, NetworkUnreachable],
            [ConnectionRefused, ConnectionReset, Unsupported],
            [TimedOut, HostUnreachable, AddrNotAvailable],
            [HostUnreachable, AddrNotAvailable, Unsupported],
            [OutOfMemory, ConnectionRefused, TimedOut],
        ] {
            for turned in 0..failures.len() {
                let mut order = failures;
                order.rotate_left(turned);
                assert_eq!(told(&order).await, Some(failures[0]), "{order:?}");
            }
        }
        assert_eq!(told(&[]).await, None);
    }

    #[tokio::test]
    async fn a_race_that_ends_with_one_silent_tells_what_another_said() {
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let attempt = |at: SocketAddr| async move {
            match at.port() {
                1 => Err::<(), _>(io::ErrorKind::ConnectionRefused.into()),
                _ => std::future::pending().await,
            }
        };
        let stagger = Duration::from_millis(10);
        for (addrs, expected) in [
            (vec![addr(2), addr(1)], io::ErrorKind::ConnectionRefused),
            (vec![addr(1), addr(2)], io::ErrorKind::ConnectionRefused),
            (vec![addr(2)], io::ErrorKind::TimedOut),
        ] {
            let until = Instant::now() + stagger * 20;
            let error = first(addrs, stagger, Some(until), attempt).await;
            assert_eq!(error.unwrap_err().map(|e| e.kind()), Some(expected));
            assert!(Instant::now() >= until);
        }
    }
}
