//! Does TLS lead to a relay, how long does a round trip take, and if it leads elsewhere, to a page to log in at?
//!
//! The relay's port is connected to as a link does it, but whatever certificate is shown is accepted for a look: who answers
//! under another one with a redirect, or says that the network wants a login (RFC 6585), is a captive portal. So is who
//! answers TLS with HTTP in clear. Nothing is said there but the request for an upgrade that every stranger may make.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_core::discovery::Reach;
use byway_core::io::LinkError;
use byway_wire::RelayUrl;
use byway_wire::relay::Pin;
use byway_wire::text::printable;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::answer::Answer;
use super::{MAX_ADDRS, millis};
use crate::links::{Before, Connected, connect_relay, connect_tcp, round_trip};
use crate::socket::Nat64;
use crate::tls;

/// For all of it. Slower than this no one would call it a connection.
const DEADLINE: Duration = Duration::from_millis(4_500);
/// Most of an answer that is read: its head, and no page.
const MAX_HEAD: usize = 8 * 1024;

#[derive(Debug)]
pub(super) struct TlsLook {
    pub(super) reach: Reach,
    pub(super) ms: Option<f64>,
    /// As in [`super::RelayLook`].
    pub(super) portal: Option<Option<String>>,
    /// By which the relay is known here, where TLS leads to it.
    pub(super) key: Option<Pin>,
    /// Whom TCP was connected to, where no proxy hides it.
    pub(super) to: Option<IpAddr>,
}

/// Who was met.
#[derive(Debug)]
enum Met {
    /// Somebody whose certificate is the relay's.
    Relay(Option<Answer>, Option<Pin>),
    /// Somebody with another certificate; why it is not the relay's.
    Stranger(String, Option<Answer>),
    /// Somebody who does not speak TLS.
    InClear(Option<Answer>),
}

pub(super) async fn look(
    url: &RelayUrl,
    addrs: &[SocketAddr],
    proxy: Before<'_>,
    nat64: &Nat64,
) -> TlsLook {
    let silent = TlsLook {
        reach: Reach::Silent,
        ms: None,
        portal: None,
        key: None,
        to: None,
    };
    let met = match tokio::time::timeout(DEADLINE, meet(url, addrs, proxy, nat64)).await {
        Ok(Ok((rtt, to, met))) => TlsLook {
            to,
            ..judge(url, rtt, met)
        },
        Ok(Err(error)) => TlsLook {
            reach: Reach::Failed(error),
            ..silent
        },
        Err(_) => silent,
    };
    tracing::debug!(%url, ?met, "a look at a relay over TLS");
    met
}

fn judge(url: &RelayUrl, rtt: Duration, met: Met) -> TlsLook {
    let failed = |why: String, portal| TlsLook {
        reach: Reach::Failed(why),
        ms: None,
        portal,
        key: None,
        to: None,
    };
    let host = url.host();
    match met {
        Met::Relay(Some(answer), key) if answer.is_upgrade() => TlsLook {
            reach: Reach::Works,
            ms: Some(millis(rtt)),
            portal: Some(None),
            key,
            to: None,
        },
        // Under the right certificate it is the relay's own house that answers, whatever it says.
        Met::Relay(Some(answer), _) => failed(format!("it answers {answer}"), Some(None)),
        Met::Relay(None, _) => failed("no HTTP answer".to_owned(), Some(None)),
        Met::Stranger(why, answer) => {
            let login = answer.filter(Answer::asks_for_login);
            let portal = login.map(|answer| {
                Some(format!(
                    "somebody with another certificate answers for {host}: {answer}"
                ))
            });
            failed(why, portal)
        }
        Met::InClear(answer) => {
            let login = answer.filter(Answer::asks_for_login);
            let portal = login
                .map(|answer| Some(format!("somebody without TLS answers for {host}: {answer}")));
            failed("what answers there does not speak TLS".to_owned(), portal)
        }
    }
}

async fn meet(
    url: &RelayUrl,
    addrs: &[SocketAddr],
    proxy: Before<'_>,
    nat64: &Nat64,
) -> Result<(Duration, Option<IpAddr>, Met), String> {
    let addrs = async { Ok(addrs.iter().copied().take(MAX_ADDRS).collect()) };
    let connected = connect_relay(url, proxy, nat64, addrs).await;
    let Connected { tcp, straight } = connected.map_err(reason)?;
    let to = straight.map(|straight| straight.relay.ip());
    let (config, opinion) = tls::tls_look_client(url).map_err(text)?;
    let name = ServerName::try_from(url.host().to_owned()).map_err(text)?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let stream = match handshake.await {
        Ok(stream) => stream,
        Err(error) if is_no_tls(&error) => {
            // Asked again in clear it may say what it is; through a proxy, that would be the proxy's word.
            let answer = match straight {
                Some(straight) => in_clear(url, straight.relay, nat64).await,
                None => None,
            };
            return Ok((Duration::ZERO, to, Met::InClear(answer)));
        }
        Err(error) => return Err(printable(&error.to_string())),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let key = certificates.and_then(|shown| tls::pin_of(shown.first()?).ok());
    let began = Instant::now();
    let answer = ask(stream, url).await;
    let rtt = round_trip(straight, began.elapsed());
    Ok((
        rtt,
        to,
        match opinion.refusal() {
            None => Met::Relay(answer, key),
            Some(why) => Met::Stranger(why, answer),
        },
    ))
}

/// Asks for the upgrade a link begins with; the head of what is answered.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, url: &RelayUrl) -> Option<Answer> {
    // The key proves nothing to anybody here: the connection ends with the answer's head.
    let request = format!(
        "GET /byway/v1 HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        url.authority()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while head.len() < MAX_HEAD {
        let read = stream.read(&mut chunk).await.ok()?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(&chunk[..read]);
        if let Some(answer) = Answer::parse(&head) {
            return Some(answer);
        }
    }
    None
}

/// What somebody who took our TLS for something else says when asked in clear.
async fn in_clear(url: &RelayUrl, addr: SocketAddr, nat64: &Nat64) -> Option<Answer> {
    let (tcp, ..) = connect_tcp(vec![addr], nat64).await.ok()?;
    ask(tcp, url).await
}

/// True if what came back was no TLS record at all.
fn is_no_tls(error: &std::io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

/// Why nobody was connected to, without the sentence that says so.
fn reason(error: LinkError) -> String {
    match error {
        LinkError::Broken(why) => printable(&why),
        other => other.to_string(),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
