//! Does QUIC lead to a relay, and how long does a round trip take? A handshake and no more, from a socket of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use byway_core::discovery::Reach;
use byway_wire::relay::{HTTPS_PORT, Pin, STUN_PORT};
use byway_wire::text::printable;
use byway_wire::{RelayUrl, SecretKey};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{MAX_ADDRS, millis, unspecified};
use crate::tls;

/// The round trip to it, and its key with the address that showed it.
type Met = (Duration, Option<(IpAddr, Pin)>);

/// Two repetitions of the first flight.
const DEADLINE: Duration = Duration::from_millis(3_200);
/// After the first that succeeds, for the keys at the relay's other addresses: TLS may lead to any of them. Few relays are farther
/// by one family than by the other by as much.
const OTHERS: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct QuicLook {
    pub(super) reach: Reach,
    pub(super) ms: Option<f64>,
    /// By which the relay is known here, with the addresses where QUIC leads to it.
    pub(super) keys: Vec<(IpAddr, Pin)>,
}

impl From<Reach> for QuicLook {
    fn from(reach: Reach) -> Self {
        Self {
            reach,
            ms: None,
            keys: Vec::new(),
        }
    }
}

pub(super) async fn look(url: &RelayUrl, addrs: &[SocketAddr]) -> QuicLook {
    let config = match config(url) {
        Ok(config) => config,
        Err(error) => return Reach::Failed(error).into(),
    };
    let attempts: JoinSet<_> = places(addrs)
        .into_iter()
        .map(|addr| connect(config.clone(), addr, url.host().to_owned()))
        .collect();
    first(attempts).await
}

/// The first that succeeds, and whom the others soon meet; otherwise what was heard, if everybody answered.
async fn first(mut attempts: JoinSet<Result<Met, Option<String>>>) -> QuicLook {
    let mut heard = None;
    let mut until = Instant::now() + DEADLINE;
    let mut met: Option<QuicLook> = None;
    loop {
        let joined = match timeout_at(until, attempts.join_next()).await {
            Ok(Some(joined)) => joined,
            Ok(None) => break,
            Err(_) => return met.unwrap_or_else(|| Reach::Silent.into()),
        };
        match joined {
            Ok(Ok((rtt, key))) => {
                if met.is_none() {
                    until = until.min(Instant::now() + OTHERS);
                }
                let met = met.get_or_insert_with(|| QuicLook {
                    reach: Reach::Works,
                    ms: Some(millis(rtt)),
                    keys: Vec::new(),
                });
                met.keys.extend(key);
            }
            Ok(Err(error)) => heard = heard.or(error),
            Err(_) => {}
        }
    }
    met.unwrap_or_else(|| heard.map_or(Reach::Silent, Reach::Failed).into())
}

/// Its addresses, and for a relay on 443 the other port it listens on: there are networks that block UDP on 443 alone.
fn places(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut places: Vec<SocketAddr> = Vec::new();
    for addr in addrs.iter().take(MAX_ADDRS) {
        places.push(*addr);
        if addr.port() == HTTPS_PORT {
            places.push(SocketAddr::new(addr.ip(), STUN_PORT));
        }
    }
    places
}

async fn connect(
    config: quinn::ClientConfig,
    addr: SocketAddr,
    host: String,
) -> Result<Met, Option<String>> {
    // A family this host does not have is no finding about the relay.
    let endpoint = quinn::Endpoint::client(unspecified(addr)).map_err(|_| None)?;
    let connecting = endpoint
        .connect_with(config, addr, &host)
        .map_err(|_| None)?;
    let connection = connecting.await.map_err(|error| match error {
        ConnectionError::TimedOut => None,
        other => Some(printable(&other.to_string())),
    })?;
    let key = shown(&connection).map(|key| (addr.ip(), key));
    let met = (connection.rtt(), key);
    connection.close(VarInt::from_u32(0), b"");
    // The word of the end leaves with the endpoint's last poll; the relay does not need it.
    let _ = tokio::time::timeout(Duration::from_millis(50), endpoint.wait_idle()).await;
    Ok(met)
}

/// The key of the certificate it showed.
fn shown(connection: &quinn::Connection) -> Option<Pin> {
    let identity = connection.peer_identity()?;
    let certificates = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::pin_of(certificates.first()?).ok()
}

fn config(url: &RelayUrl) -> Result<quinn::ClientConfig, String> {
    // A key of its own: the node's own may be linked at this moment, and nothing is asked for in anybody's name.
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    let key = SecretKey::from_bytes(&bytes);
    let tls = tls::udp_link_client(url, &key).map_err(|error| error.to_string())?;
    let quic = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    Ok(quinn::ClientConfig::new(Arc::new(quic)))
}
