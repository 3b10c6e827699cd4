//! The UDP link: a QUIC connection to the relay on the node's own socket, with one control stream. Relay data does not
//! pass here; it travels beside, as plain datagrams from the same socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use byway_core::io::{LinkError, LinkId, LinkUp};
use byway_wire::relay::control::Control;
use byway_wire::relay::frame::{StreamDecoder, encode_stream};
use byway_wire::relay::{HTTPS_PORT, STUN_PORT};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Dial, Ended, Links};
use crate::socket::Virtual;
use crate::tls;

/// Between the first attempts of several addresses (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// A dial over UDP that took this long leads nowhere.
const DEADLINE: Duration = Duration::from_secs(5);
/// Keeps the NAT's mapping (RFC 4787 asks for 2 minutes, many give 30 s) and tells that the relay lives.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Two keep-alives lost and a margin.
const IDLE: Duration = Duration::from_secs(50);
/// The other port is tried this much after the first (design section 7).
const SECOND_PORT_AFTER: Duration = Duration::from_millis(150);
/// Attempts side by side.
const MAX_ATTEMPTS: usize = 6;

pub(super) async fn run(links: &Links, mut dial: Dial) -> Ended {
    let connected = tokio::time::timeout(DEADLINE, connect(links, &dial)).await;
    let (connection, up) = match connected {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Ended::NeverUp(error),
        Err(_) => return Ended::NeverUp(LinkError::TimedOut),
    };
    let (send, recv) = match connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return Ended::NeverUp(link_error(&error)),
    };
    if let Err(error) = links.up(dial.link, up).await {
        return Ended::NeverUp(error);
    }
    let error = tokio::select! {
        error = read(links, dial.link, recv) => error,
        error = write(send, &mut dial.control) => error,
    };
    // What was said must arrive before the connection ends: close only asks for it if the relay did not end first.
    connection.close(VarInt::from_u32(0), b"");
    Ended::Lost(match connection.close_reason() {
        Some(
            reason @ (ConnectionError::ConnectionClosed(_) | ConnectionError::TransportError(_)),
        ) => link_error(&reason),
        _ => error,
    })
}

/// Races the relay's addresses by [`schedule`]; the first whose handshake completes wins.
async fn connect(links: &Links, dial: &Dial) -> Result<(Connection, LinkUp), LinkError> {
    let addrs = super::resolve(&dial.url, &dial.addrs).await?;
    let addrs = links.socket.nat64.canonical(addrs);
    let config = client_config(links, dial)?;
    let mut attempts = JoinSet::new();
    let mut error = None;
    let began = Instant::now();
    let mut planned = schedule(&addrs).into_iter().zip(0u16..).peekable();
    while let Some(((after, addr), attempt)) = planned.next() {
        let Some(socket) = links.socket.for_remote(addr) else {
            continue;
        };
        links
            .socket
            .tables
            .insert_dial(dial.link, attempt, socket, addr);
        let connecting = links
            .quic
            .connect_with(
                config.clone(),
                Virtual::Link(dial.link, attempt).to_addr(),
                dial.url.host(),
            )
            .map_err(|error| LinkError::Broken(error.to_string()))?;
        attempts.spawn(async move {
            let result = connecting.await;
            (attempt, socket, addr, result)
        });
        // The next one when its time has come, or as soon as all so far failed.
        let next = planned.peek().map_or(after, |((next, _), _)| *next);
        let wait = next.saturating_sub(began.elapsed());
        let success = next_success(links, dial.link, &mut attempts);
        match tokio::time::timeout(wait, success).await {
            Ok(Ok(won)) => return Ok(won),
            Ok(Err(failed)) => error = failed.or(error),
            Err(_) => {}
        }
    }
    match next_success(links, dial.link, &mut attempts).await {
        Ok(won) => Ok(won),
        Err(failed) => Err(failed.or(error).unwrap_or_else(|| {
            LinkError::Broken("this machine has no address of the relay's family".to_owned())
        })),
    }
}

/// When to try which address (design section 7): the first of each family at once, the same at the other port a relay
/// listens on after [`SECOND_PORT_AFTER`], for there are networks that block UDP on 443 alone, then what is left.
fn schedule(addrs: &[SocketAddr]) -> Vec<(Duration, SocketAddr)> {
    let mut firsts: Vec<SocketAddr> = Vec::new();
    let mut rest = Vec::new();
    for &addr in addrs {
        if firsts.iter().any(|known| known.is_ipv4() == addr.is_ipv4()) {
            rest.push(addr);
        } else {
            firsts.push(addr);
        }
    }
    let second = firsts
        .iter()
        .filter(|addr| addr.port() == HTTPS_PORT)
        .map(|addr| SocketAddr::new(addr.ip(), STUN_PORT));
    let mut plan: Vec<(Duration, SocketAddr)> = Vec::new();
    plan.extend(firsts.iter().map(|&addr| (Duration::ZERO, addr)));
    plan.extend(second.map(|addr| (SECOND_PORT_AFTER, addr)));
    plan.extend((1..).zip(rest).map(|(n, addr)| (STAGGER * n, addr)));
    plan.truncate(MAX_ATTEMPTS);
    plan.sort();
    plan
}

type Attempt = (
    u16,
    byway_core::io::SocketId,
    SocketAddr,
    Result<Connection, ConnectionError>,
);

/// The first connection among the attempts under way, or the last error when none is left.
async fn next_success(
    links: &Links,
    link: LinkId,
    attempts: &mut JoinSet<Attempt>,
) -> Result<(Connection, LinkUp), Option<LinkError>> {
    let mut error = None;
    while let Some(joined) = attempts.join_next().await {
        let Ok((attempt, socket, addr, result)) = joined else {
            continue;
        };
        match result {
            Ok(connection) => {
                attempts.abort_all();
                for other in (0..MAX_ATTEMPTS as u16).filter(|other| *other != attempt) {
                    links.socket.tables.remove_dial(link, other);
                }
                let up = LinkUp {
                    rtt: Some(connection.rtt()),
                    udp: Some((socket, addr)),
                };
                return Ok((connection, up));
            }
            Err(failed) => {
                links.socket.tables.remove_dial(link, attempt);
                error = Some(link_error(&failed));
            }
        }
    }
    Err(error)
}

fn client_config(links: &Links, dial: &Dial) -> Result<quinn::ClientConfig, LinkError> {
    let broken = |error: &dyn std::fmt::Display| LinkError::Broken(error.to_string());
    let tls = tls::udp_link_client(&dial.url, &links.key).map_err(|error| broken(&error))?;
    let quic = QuicClientConfig::try_from(tls).map_err(|error| broken(&error))?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE.try_into().ok())
        // Control messages are few and small: no batches, no search for a larger packet.
        .enable_segmentation_offload(false)
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

async fn read(links: &Links, link: LinkId, mut recv: RecvStream) -> LinkError {
    let mut decoder = StreamDecoder::default();
    loop {
        match recv.read_chunk(16 * 1024, true).await {
            Ok(Some(chunk)) => decoder.push(&chunk.bytes),
            Ok(None) => return LinkError::Broken("the relay ended the link".to_owned()),
            Err(error) => return LinkError::Broken(error.to_string()),
        }
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    if let Err(error) = links.heard(link, message).await {
                        return error;
                    }
                }
                Ok(None) => break,
                Err(error) => return LinkError::Protocol(error.to_string()),
            }
        }
    }
}

/// Writes what the driver says, as much as is queued at once: `Hello` and `Open` must leave in one flight.
async fn write(mut send: SendStream, control: &mut mpsc::Receiver<Control>) -> LinkError {
    let mut out = BytesMut::new();
    while let Some(message) = control.recv().await {
        encode_stream(&message, &mut out);
        while let Ok(message) = control.try_recv() {
            encode_stream(&message, &mut out);
        }
        if let Err(error) = send.write_chunk(out.split().freeze()).await {
            return LinkError::Broken(error.to_string());
        }
    }
    // Hung up: let the relay acknowledge what was said, for a moment.
    let _ = send.finish();
    let _ = tokio::time::timeout(Duration::from_millis(500), send.stopped()).await;
    LinkError::HungUp
}

/// What the end of a QUIC connection to a relay means.
fn link_error(error: &ConnectionError) -> LinkError {
    match error {
        ConnectionError::TimedOut => LinkError::TimedOut,
        ConnectionError::TransportError(error) => {
            // RFC 9001 section 4.8: TLS alert + 0x100. Alerts 42-49 are about certificates (RFC 8446 section 6.2).
            match u64::from(error.code) {
                0x12a..=0x131 => LinkError::Certificate(error.reason.clone()),
                _ => LinkError::Broken(error.to_string()),
            }
        }
        other => LinkError::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(addrs: &[&str]) -> Vec<(u64, String)> {
        let addrs: Vec<SocketAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        let plan = schedule(&addrs);
        plan.iter()
            .map(|(after, addr)| (after.as_millis() as u64, addr.to_string()))
            .collect()
    }

    #[test]
    fn both_families_start_at_once_and_the_second_port_comes_before_tls() {
        let addrs = ["[2001:db8::1]:443", "192.0.2.1:443", "192.0.2.2:443"];
        let expected = [
            (0, "192.0.2.1:443"),
            (0, "[2001:db8::1]:443"),
            (150, "192.0.2.1:3478"),
            (150, "[2001:db8::1]:3478"),
            (250, "192.0.2.2:443"),
        ];
        assert_eq!(
            plan(&addrs),
            expected.map(|(at, addr)| (at, addr.to_owned()))
        );
    }

    #[test]
    fn a_relay_at_a_port_of_its_own_has_no_second_one() {
        assert_eq!(
            plan(&["192.0.2.1:4443"]),
            [(0, "192.0.2.1:4443".to_owned())]
        );
    }

    #[test]
    fn a_name_with_many_addresses_is_tried_at_six() {
        let many: Vec<String> = (1..20).map(|n| format!("192.0.2.{n}:443")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(plan(&many).len(), MAX_ATTEMPTS);
    }
}
