//! The TLS link: a WebSocket over TLS over TCP, for networks that let nothing else through; where they let out no TCP either
//! but through a proxy, through that.
//!
//! Right after the upgrade the relay sends `Challenge`; the node answers `Prove`, which signs the challenge together with
//! what it dialled, the certificate it was shown and the TLS exporter it sees. A relay that sees others knows that someone
//! between ends TLS, and a relay that hands on another's challenge gets an answer of no use there. After that the node
//! says `Hello`, as on any link, and data travels in frames of the same WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_core::io::{Carrier, LinkError, LinkId, LinkUp, Way};
use byway_wire::demux::{Kind, classify};
use byway_wire::key::Purpose;
use byway_wire::relay::control::{Challenge, Control, LinkClaim, Prove};
use byway_wire::relay::frame::{DATA_HEADER_LEN, Frame, MAX_DATA};
use byway_wire::{ChannelId, RelayUrl};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Config, Limits, Message, WebSocketStream};

use super::{Connected, Dial, Egress, Ended, Links, connect_relay, round_trip};
use crate::socket::{Injected, Reassembler, ToDriver, Virtual};
use crate::tls;

/// TCP, proxy, TLS, upgrade and challenge together. Slow proxies are slow.
const DEADLINE: Duration = Duration::from_secs(10);
/// Design section 7; middleboxes close idle connections after a minute.
const PING: Duration = Duration::from_secs(20);
/// Nothing at all came for two pings and a margin.
const SILENCE: Duration = Duration::from_secs(50);
/// A write that makes no progress for so long (design section 12).
const WRITE_STALL: Duration = Duration::from_secs(2);
/// Where relays accept the upgrade.
const PATH: &str = "/byway/v1";
/// The exporter's label (design section 7).
const EXPORTER: &[u8] = b"EXPORTER-byway-link";

/// What is read from the kernel at once, in bytes. rustls asks for 4 KiB at a time, each of which would be a system call, and may have the kernel tell
/// the relay that there is room again: more packets than the data itself needs.
const READ_AHEAD: usize = 64 * 1024;

/// What is written at once, in bytes: few enough that control, and the age of data, are looked at again soon.
const TOGETHER: usize = 64 * 1024;

type Socket = WebSocketStream<TlsStream<BufReader<TcpStream>>>;

pub(super) async fn run(links: &Links, mut dial: Dial) -> Ended {
    let (socket, relay, rtt) = match timeout(DEADLINE, connect(links, &dial)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Ended::NeverUp(error),
        Err(_) => return Ended::NeverUp(LinkError::TimedOut),
    };
    let egress = Arc::new(Egress::new(relay));
    links
        .socket
        .tables
        .insert_tls(dial.link, Arc::clone(&egress));
    let up = LinkUp {
        rtt: Some(rtt),
        udp: None,
    };
    if let Err(error) = links.up(dial.link, up).await {
        return Ended::NeverUp(error);
    }
    let (sink, stream) = socket.split();
    let error = tokio::select! {
        error = read(links, dial.link, stream) => error,
        error = write(sink, &egress, &mut dial.control) => error,
    };
    tracing::debug!(link = dial.link.0, dropped = egress.dropped(), %error, "TLS link ended");
    Ended::Lost(error)
}

/// The link, the relay's address unless only a proxy knows it, and a round trip.
async fn connect(
    links: &Links,
    dial: &Dial,
) -> Result<(Socket, Option<SocketAddr>, Duration), LinkError> {
    let tls = tls::tls_link_client(&dial.url).map_err(broken)?;
    let nat64 = &links.socket.nat64;
    let addrs = async {
        let addrs = super::resolve(&dial.url, &dial.addrs).await?;
        Ok(nat64.canonical(addrs))
    };
    let proxy = links.proxies.before(&dial.url);
    let Connected { tcp, straight } = connect_relay(&dial.url, proxy, nat64, addrs).await?;
    // Batches are whole messages already: nothing is gained by waiting for more.
    let _ = tcp.set_nodelay(true);
    // What the kernel holds back unsent cannot be dropped by age any more.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(32 * 1024);

    let name = ServerName::try_from(dial.url.host().to_owned())
        .map_err(|_| LinkError::Resolve(dial.url.host().to_owned()))?;
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, BufReader::with_capacity(READ_AHEAD, tcp))
        .await
        .map_err(tls_error)?;
    let claim = claim(links, &dial.url, stream.get_ref().1)?;

    let began = Instant::now();
    let (mut socket, _response) = ClientBuilder::new()
        .uri(&upgrade_uri(&dial.url))
        .map_err(broken)?
        .limits(Limits::default().max_payload_len(Some(DATA_HEADER_LEN + MAX_DATA)))
        .config(Config::default().flush_threshold(TOGETHER))
        .connect_on(stream)
        .await
        .map_err(|error| LinkError::Protocol(format!("no upgrade to a WebSocket: {error}")))?;
    let upgraded = began.elapsed();
    let challenge = read_challenge(&mut socket).await?;
    let prove = prove(links, &challenge, claim);
    socket
        .send(Message::binary(
            Frame::Control(Control::Prove(prove)).encode(),
        ))
        .await
        .map_err(broken)?;
    Ok((
        socket,
        straight.map(|s| s.relay),
        round_trip(straight, upgraded),
    ))
}

fn upgrade_uri(url: &RelayUrl) -> String {
    let (host, port) = (url.host(), url.port());
    if host.contains(':') {
        format!("wss://[{host}]:{port}{PATH}")
    } else {
        format!("wss://{host}:{port}{PATH}")
    }
}

async fn read_challenge(socket: &mut Socket) -> Result<Challenge, LinkError> {
    let unexpected = |what: &str| LinkError::Protocol(format!("{what} instead of a challenge"));
    loop {
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(broken(error)),
            None => return Err(unexpected("the end")),
        };
        if !message.is_binary() {
            continue;
        }
        return match Frame::decode(message.into_payload().into()) {
            Ok(Frame::Control(Control::Challenge(challenge))) => Ok(challenge),
            Ok(Frame::Control(Control::Refused { reason, detail })) => {
                Err(LinkError::Refused(reason, detail))
            }
            Ok(_) => Err(unexpected("another frame")),
            Err(error) => Err(LinkError::Protocol(error.to_string())),
        };
    }
}

/// What this node dialled, and what it met there.
fn claim(
    links: &Links,
    url: &RelayUrl,
    tls: &rustls::ClientConnection,
) -> Result<LinkClaim, LinkError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(broken)?;
    let exporter = tls
        .export_keying_material([0; 32], EXPORTER, None)
        .map_err(broken)?;
    let shown = tls.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.ok_or_else(|| LinkError::Certificate("the relay showed none".to_owned()))?;
    Ok(LinkClaim {
        nonce,
        exporter,
        dialled: url.authority(),
        certificate: tls::pin_of(shown).map_err(|e| LinkError::Certificate(e.to_string()))?,
        role: links.role,
    })
}

fn prove(links: &Links, challenge: &Challenge, claim: LinkClaim) -> Prove {
    let signed = Prove::signed_bytes(challenge, &claim);
    Prove {
        node: links.key.node_id(),
        claim,
        signature: links.key.sign(Purpose::LinkProof, &signed),
    }
}

async fn read(links: &Links, link: LinkId, mut stream: SplitStream<Socket>) -> LinkError {
    let mut parts = Reassembler::default();
    loop {
        let message = match timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return broken(error),
            Ok(None) => return LinkError::Broken("the relay ended the link".to_owned()),
            Err(_) => return LinkError::TimedOut,
        };
        // What was read ahead takes no turn of the runtime: a relay that sends what is for nobody would let nobody else have one.
        tokio::task::coop::consume_budget().await;
        // Pings are answered by the library; pongs have done their work by arriving.
        if !message.is_binary() {
            continue;
        }
        let heard = match Frame::decode(message.into_payload().into()) {
            // It hangs up behind this, which is no news then.
            Ok(Frame::Control(Control::Refused { reason, detail })) => {
                let why = LinkError::Refused(reason, detail.clone());
                let refused = Control::Refused { reason, detail };
                links.heard(link, refused).await.and(Err(why))
            }
            Ok(Frame::Control(message)) => links.heard(link, message).await,
            Ok(Frame::Data {
                channel,
                segment,
                payload,
            }) => {
                let frame = (channel, usize::from(segment), payload);
                deliver(links, link, frame, &mut parts).await;
                Ok(())
            }
            Ok(Frame::Unknown) => Ok(()),
            Err(error) => Err(LinkError::Protocol(error.to_string())),
        };
        if let Err(error) = heard {
            return error;
        }
    }
}

/// Hands a data frame to quinn, or its probes to the driver: each datagram's first byte decides, as on a UDP socket.
async fn deliver(
    links: &Links,
    link: LinkId,
    (channel, segment, payload): (ChannelId, usize, Bytes),
    parts: &mut Reassembler,
) {
    let peer = links.socket.tables.tls_peer(link, channel);
    let counters = &links.socket.counters;
    let all_quic = payload
        .chunks(segment)
        .all(|datagram| classify(datagram) == Kind::Quic);
    if all_quic {
        match peer {
            Some(peer) => inject(links, peer, payload, segment).await,
            None => counters.unknown_channel.add(),
        }
        return;
    }
    let mut rest = payload;
    while !rest.is_empty() {
        let datagram = rest.split_to(segment.min(rest.len()));
        match (classify(&datagram), peer) {
            (Kind::Quic, Some(peer)) => {
                let segment = datagram.len();
                inject(links, peer, datagram, segment).await;
            }
            (Kind::Quic, None) => counters.unknown_channel.add(),
            (Kind::Probe, _) => {
                links.socket.to_driver(ToDriver::Datagram {
                    way: Way::Channel {
                        link,
                        carrier: Carrier::Tls,
                        channel,
                    },
                    to: None,
                    data: datagram,
                });
            }
            // A TLS link carries any size; the peer's UDP link at the other end of the channel may not.
            (Kind::Fragment, Some(peer)) => {
                let from = Virtual::Peer(peer).to_addr();
                if let Some(whole) = parts.join(from, &datagram, counters) {
                    let segment = whole.len();
                    inject(links, peer, whole.into(), segment).await;
                }
            }
            (Kind::Fragment, None) => counters.unknown_channel.add(),
            _ => counters.unknown_kind.add(),
        }
    }
}

/// Waits for room: TCP then slows the relay, which drops by age.
async fn inject(links: &Links, peer: byway_core::io::PeerId, data: Bytes, segment: usize) {
    let _ = links
        .socket
        .inject()
        .send(Injected {
            peer,
            data,
            segment,
            ecn: None,
        })
        .await;
}

/// Writes control messages first, then data that is still fresh; flushes when nothing waits.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    egress: &Egress,
    control: &mut mpsc::Receiver<Control>,
) -> LinkError {
    let mut ping = tokio::time::interval(PING);
    ping.reset();
    loop {
        let message = tokio::select! {
            biased;
            message = control.recv() => match message {
                Some(message) => Message::binary(Frame::Control(message).encode()),
                None => {
                    // Hung up, all was said.
                    let _ = timeout(WRITE_STALL, sink.close()).await;
                    return LinkError::HungUp;
                }
            },
            _ = ping.tick() => Message::ping(Bytes::new()),
            () = egress.filled() => match egress.pop(Instant::now()) {
                Some(frame) => Message::binary(frame),
                None => continue,
            },
        };
        let mut next = Some(message);
        while let Some(message) = next {
            match timeout(WRITE_STALL, sink.feed(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return broken(error),
                Err(_) => return LinkError::Broken("the relay takes nothing".to_owned()),
            }
            next = match control.try_recv() {
                Ok(message) => Some(Message::binary(Frame::Control(message).encode())),
                Err(_) => egress.pop(Instant::now()).map(Message::binary),
            };
        }
        match timeout(WRITE_STALL, sink.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return broken(error),
            Err(_) => return LinkError::Broken("the relay takes nothing".to_owned()),
        }
    }
}

/// A failed TLS handshake: about the certificate, or anything else.
fn tls_error(error: std::io::Error) -> LinkError {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    if certificate {
        LinkError::Certificate(error.to_string())
    } else {
        broken(error)
    }
}

fn broken(error: impl std::fmt::Display) -> LinkError {
    LinkError::Broken(error.to_string())
}
