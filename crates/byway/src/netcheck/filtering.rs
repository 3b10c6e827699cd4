//! Runs the tests of filtering against STUN servers, each from a socket of its own: one that had spoken to a server before
//! would be let in by what it said then.

use std::net::SocketAddr;
use std::time::Instant;

use byway_core::discovery::{FilterTest, Filtering};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Most servers that are asked: one that can answer from elsewhere is enough, and a second may disagree.
const MAX_SERVERS: usize = 4;
/// Longer than any STUN message.
const BUFFER: usize = 2048;

/// What servers of one family show together: they see one filter, so where they differ nothing is known.
pub(crate) async fn filtering(servers: Vec<SocketAddr>) -> Filtering {
    let mut tests: JoinSet<_> = servers.into_iter().take(MAX_SERVERS).map(test).collect();
    let mut known = Vec::new();
    while let Some(joined) = tests.join_next().await {
        match joined {
            Ok(Some(Filtering::Unknown) | None) | Err(_) => {}
            Ok(Some(found)) => known.push(found),
        }
    }
    match known.split_first() {
        Some((first, rest)) if rest.iter().all(|other| other == first) => *first,
        _ => Filtering::Unknown,
    }
}

async fn test(server: SocketAddr) -> Option<Filtering> {
    let socket = UdpSocket::bind(super::unspecified(server)).await.ok()?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).ok()?;
    let mut test = FilterTest::new(Instant::now(), seed, server);
    let mut buffer = [0; BUFFER];
    loop {
        while let Some((to, request)) = test.poll_transmit(Instant::now()) {
            // What cannot be sent is asked again, or not answered.
            let _ = socket.send_to(&request, to).await;
        }
        let Some(wake) = test.poll_timeout() else {
            return test.verdict();
        };
        match tokio::time::timeout_at(wake.into(), socket.recv_from(&mut buffer)).await {
            Ok(Ok((len, from))) => test.handle(Instant::now(), from, &buffer[..len]),
            // An ICMP error about an earlier request: of no account, and there may be many.
            Ok(Err(_)) => tokio::time::sleep_until(wake.into()).await,
            Err(_) => {}
        }
        test.handle_timeout(Instant::now());
    }
}
