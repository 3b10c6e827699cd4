//! One TLS link: proof of the node's key, then frames both ways.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_relay_core::proof::{self, Own, ProofError};
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Challenge, Control, RefuseReason};
use byway_wire::relay::frame::{DATA_HEADER_LEN, Frame, MAX_DATA};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_websockets::{Config, Limits, Message, ServerBuilder, WebSocketStream};

use crate::both_ways::{LAST_WORDS, ReadEnd, both_ways};
use crate::context::Context;
use crate::hub::{Carrier, LinkHandle, NewLink};
use crate::limits::EgressLimits;
use crate::outbox::{CloseOnDrop, Outbox};
use crate::pace::{self, Pace};
use crate::plane::{DataFrame, Taken};
use crate::stats::{add, bump};
use crate::tls::turn::Turn;

/// Keeps middleboxes awake, and finds out about nodes that vanished.
const PING: Duration = Duration::from_secs(20);
/// Two pings without an answer, and a bit.
const SILENCE: Duration = Duration::from_secs(50);

/// A WebSocket whose node proved its key.
#[derive(Debug)]
pub(crate) struct Ready<S> {
    ws: WebSocketStream<S>,
    proved: proof::Proved,
}

/// What the proof is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    /// The public key of the certificate that was shown here, or would have been.
    pub(crate) certificate: Pin,
    /// TLS's exporter, as seen here. None: TLS ended before.
    pub(crate) exporter: Option<[u8; 32]>,
}

/// Finishes the upgrade, and lets the node prove its key.
pub(crate) async fn prove<S>(stream: S, binding: Binding, context: &Context) -> io::Result<Ready<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = Limits::default().max_payload_len(Some(MAX_DATA + DATA_HEADER_LEN));
    // Frames are flushed in batches by the writer, not one by one.
    let config = Config::default().flush_threshold(usize::MAX);
    let builder = ServerBuilder::new().limits(limits).config(config);
    let (_, mut ws) = builder.accept(stream).await.map_err(io::Error::other)?;
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let challenge = Challenge {
        relay: context.name.clone(),
        region: context.region.clone(),
        nonce,
    };
    let frame = Frame::Control(Control::Challenge(challenge.clone())).encode();
    ws.send(Message::binary(frame))
        .await
        .map_err(io::Error::other)?;
    // Not even a ping may come before the proof.
    let message = match ws.next().await {
        Some(Ok(message)) => message,
        Some(Err(e)) => return Err(io::Error::other(e)),
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let frame = Frame::decode(message.into_payload().into()).map_err(io::Error::other)?;
    let Frame::Control(Control::Prove(proof)) = frame else {
        return Err(io::Error::other("something else than a proof"));
    };
    let own = Own {
        certificate: binding.certificate,
        exporter: binding.exporter,
        hosts: &context.hosts,
        require_channel_binding: context.require_channel_binding,
    };
    match proof::judge(&challenge, &proof, &own) {
        Ok(proved) => {
            if proved.intercepted {
                bump(&context.counters.intercepted);
            }
            Ok(Ready { ws, proved })
        }
        Err(error) => {
            bump(&context.counters.proofs_refused);
            if error == ProofError::Intercepted {
                bump(&context.counters.intercepted);
            }
            // Whoever takes longer has missed it.
            let _ = tokio::time::timeout(LAST_WORDS, refuse(ws, &error)).await;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
        }
    }
}

/// Tells the node why, and waits until it has read it: closing while its next messages are unread would reset TCP.
async fn refuse<S>(mut ws: WebSocketStream<S>, error: &ProofError)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let refused = Control::Refused {
        reason: RefuseReason::Identity,
        detail: error.to_string(),
    };
    let frame = Frame::Control(refused).encode();
    if ws.send(Message::binary(frame)).await.is_ok() && ws.close().await.is_ok() {
        while let Some(Ok(_)) = ws.next().await {}
    }
}

/// Runs the link to its end.
pub(crate) async fn run<S>(
    ready: Ready<S>,
    (from, began): (SocketAddr, Instant),
    written: Arc<AtomicU64>,
    context: &Context,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ready { ws, proved } = ready;
    let outbox = Arc::new(Outbox::measured(
        context.limits.egress,
        &context.plane.delays,
    ));
    let _closes = CloseOnDrop(Arc::clone(&outbox));
    let link = context.hub.link_up(NewLink {
        node: proved.node,
        role: Some(proved.role),
        began,
        observed: from,
        carrier: Carrier::Tls,
        intercepted: proved.intercepted,
        outbox: Arc::clone(&outbox),
    });
    tracing::debug!(
        link = link.id().0,
        intercepted = proved.intercepted,
        "TLS link up"
    );
    let (sink, stream) = ws.split();
    let read = read(stream, (&link, from.ip()), &outbox, context);
    let write = write(sink, &outbox, &written, context);
    both_ways(read, write, &outbox).await;
}

async fn read<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    (link, ip): (&LinkHandle, IpAddr),
    outbox: &Outbox,
    context: &Context,
) -> ReadEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pace = Pace::new(Instant::now(), pace::MESSAGES);
    let mut pings = Pace::new(Instant::now(), pace::PINGS);
    let mut strays = Pace::new(Instant::now(), pace::STRAYS);
    let mut turn = Turn::default();
    loop {
        let message = match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(_)) | None) | Err(_) => return ReadEnd::Broken,
        };
        if turn.is_over(message.as_payload().len()) {
            tokio::task::yield_now().await;
        }
        if message.is_ping() && pings.step(Instant::now(), 1).is_some() {
            link.malformed("too many pings");
            return ReadEnd::Refused;
        }
        if message.is_ping() || message.is_pong() || message.is_close() {
            continue;
        }
        let whole: Bytes = message.into_payload().into();
        let error = match Frame::decode(whole.clone()) {
            Ok(Frame::Control(message)) => {
                let cost = pace::cost(&message);
                link.control(message);
                if let Some(pause) = pace.step(Instant::now(), cost) {
                    tokio::time::sleep(pause).await;
                }
                continue;
            }
            Ok(Frame::Data {
                channel,
                segment,
                payload,
            }) => {
                let data = DataFrame {
                    channel,
                    segment: usize::from(segment),
                    payload,
                    message: whole,
                };
                let plane = &context.plane;
                let kib = data.message.len().div_ceil(1_024) as u32;
                let wait = match plane.forward_tls((link.id(), ip), outbox, data, &context.counters)
                {
                    Taken::Ours(wait) => wait,
                    Taken::Stray => strays.step(Instant::now(), kib).unwrap_or_default(),
                };
                if !wait.is_zero() {
                    bump(&context.counters.tls_held_back);
                    tokio::time::sleep(wait).await;
                }
                continue;
            }
            Ok(Frame::Unknown) => continue,
            Err(e) => e.to_string(),
        };
        link.malformed(&error);
        return ReadEnd::Refused;
    }
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    outbox: &Outbox,
    written: &AtomicU64,
    context: &Context,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ping = tokio::time::interval(PING);
    ping.tick().await; // The first comes at once.
    loop {
        tokio::select! {
            batch = outbox.next() => {
                let Some((frames, dropped)) = batch else { break };
                add(&context.counters.tls_dropped_old, dropped.old);
                for frame in frames {
                    if sink.feed(Message::binary(frame)).await.is_err() {
                        return;
                    }
                }
            }
            _ = ping.tick() => {
                if sink.feed(Message::ping(Bytes::new())).await.is_err() {
                    return;
                }
            }
        }
        if !flushed(&mut sink, written, outbox, context).await {
            return;
        }
    }
    // A close frame and its answer, so that the last words are read before TCP ends.
    let _ = sink.close().await;
}

/// Flushes, as long as bytes move. False if the link is dead.
async fn flushed<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    written: &AtomicU64,
    outbox: &Outbox,
    context: &Context,
) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let EgressLimits { age, stall, .. } = context.limits.egress;
    let flush = sink.flush();
    tokio::pin!(flush);
    let (mut before, mut moved) = (written.load(Ordering::Relaxed), Instant::now());
    loop {
        let dead = moved + stall;
        let look = Instant::now() + age;
        match tokio::time::timeout_at(look.min(dead).into(), &mut flush).await {
            Ok(result) => return result.is_ok(),
            Err(_) => {
                let dropped = outbox.expire();
                add(&context.counters.tls_dropped_old, dropped.old);
            }
        }
        let now = written.load(Ordering::Relaxed);
        if now != before {
            (before, moved) = (now, Instant::now());
        } else if Instant::now() >= dead {
            bump(&context.counters.stalled);
            return false;
        }
    }
}
