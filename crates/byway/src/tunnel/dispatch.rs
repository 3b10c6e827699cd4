//! Takes the streams the other side opens, reads how each begins, and hands it on.
//!
//! A header must be complete within [`HEADER_DEADLINE`], and at most [`MAX_UNDECIDED`] streams may be without one, so a
//! peer that opens streams and says nothing costs a bounded amount for a bounded time. Nothing here waits for the
//! embedding program: a full accept queue resets the stream that does not fit.

use std::sync::Arc;
use std::time::Duration;

use byway_wire::tunnel::{Refusal, Refused, StreamHeader, StreamReply};
use quinn::{Connection, VarInt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::stream_code;
use super::{RecvStream, SendStream, message};
use crate::forward::{ForwardServer, LAST_WORDS};

/// A header travels in the stream's first packet; ten seconds survive several losses of it in a row.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// Streams whose header is not read yet. A browser opens some tens at once; this is ten times that.
const MAX_UNDECIDED: usize = 256;

/// A program calls [`super::Tunnel::serve`] right after it accepted the tunnel, but the client's first stream may be
/// faster: a stream to a target waits this long for it.
const SERVE_GRACE: Duration = Duration::from_secs(1);

/// Echo streams at work at once; a ping needs one.
const MAX_ECHOES: usize = 16;

/// Longest echo, in bytes: for measuring round trips, not throughput.
const MAX_ECHO: u64 = 1024 * 1024;

type Accept = mpsc::Sender<(SendStream, RecvStream)>;

#[derive(Debug, Clone)]
struct Dispatch {
    server: watch::Receiver<Option<ForwardServer>>,
    accept: Accept,
    echoes: Arc<Semaphore>,
}

/// Runs until the connection ended and its streams' tasks with it.
pub(super) async fn run(
    connection: Connection,
    server: watch::Receiver<Option<ForwardServer>>,
    accept: Accept,
) {
    let dispatch = Dispatch {
        server,
        accept,
        echoes: Arc::new(Semaphore::new(MAX_ECHOES)),
    };
    let undecided = Arc::new(Semaphore::new(MAX_UNDECIDED));
    let mut streams = JoinSet::new();
    loop {
        // The permit first: while none is free, further streams wait in QUIC, bounded by its flow control.
        let Ok(permit) = Arc::clone(&undecided).acquire_owned().await else {
            return;
        };
        let next = tokio::select! {
            next = connection.accept_bi() => next,
            // Finished tasks are collected as they end, or a long-lived tunnel would keep them all.
            Some(_) = streams.join_next(), if !streams.is_empty() => continue,
        };
        let Ok((send, recv)) = next else { break };
        let dispatch = dispatch.clone();
        streams.spawn(async move {
            dispatch.stream(send, recv, permit).await;
        });
    }
    // Whoever waits to accept a stream need not wait for the last of these.
    drop(dispatch);
    // Each stream's task finds out by itself, delivers what it has, and resets its local connection.
    let ended = async { while streams.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, ended).await;
}

impl Dispatch {
    async fn stream(
        self,
        mut send: SendStream,
        mut recv: RecvStream,
        undecided: tokio::sync::OwnedSemaphorePermit,
    ) {
        let header = tokio::time::timeout(HEADER_DEADLINE, message::read(&mut recv)).await;
        drop(undecided);
        match header {
            Ok(Ok(StreamHeader::Application)) => self.application(send, recv),
            Ok(Ok(StreamHeader::Connect(target))) => match self.server().await {
                Some(server) => server.stream(target, send, recv).await,
                None => {
                    refuse(
                        send,
                        recv,
                        Refusal::Denied,
                        "this side serves no targets on this tunnel",
                    )
                    .await;
                }
            },
            Ok(Ok(StreamHeader::Echo)) => self.echo(send, recv).await,
            Ok(Ok(_)) => refuse(send, recv, Refusal::Unsupported, "unknown kind of stream").await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a stream without a header");
                abort(&mut send, &mut recv, stream_code::PROTOCOL);
            }
            Err(_) => {
                tracing::debug!("a stream without a header in time");
                abort(&mut send, &mut recv, stream_code::PROTOCOL);
            }
        }
    }

    fn application(&self, send: SendStream, recv: RecvStream) {
        if let Err(mpsc::error::TrySendError::Full((mut send, mut recv))) =
            self.accept.try_send((send, recv))
        {
            tracing::debug!("nobody accepts application streams: one was reset");
            abort(&mut send, &mut recv, stream_code::EXHAUSTED);
        }
    }

    /// The forwarding server, waiting a moment for the program to start it.
    async fn server(&self) -> Option<ForwardServer> {
        let mut server = self.server.clone();
        let served = server.wait_for(Option::is_some);
        match tokio::time::timeout(SERVE_GRACE, served).await {
            Ok(Ok(server)) => server.clone(),
            _ => None,
        }
    }

    async fn echo(&self, mut send: SendStream, mut recv: RecvStream) {
        let Ok(_permit) = self.echoes.try_acquire() else {
            return abort(&mut send, &mut recv, stream_code::EXHAUSTED);
        };
        let mut echoed = 0;
        while let Ok(Some(chunk)) = recv.read_chunk(64 * 1024, true).await {
            echoed += chunk.bytes.len() as u64;
            if echoed > MAX_ECHO || send.write_chunk(chunk.bytes).await.is_err() {
                return abort(&mut send, &mut recv, stream_code::EXHAUSTED);
            }
        }
        // Harmless if it fails: the other side has lost interest.
        let _ = send.finish();
    }
}

/// Answers a stream to a target with a refusal. What the client may have sent already is not read.
pub(crate) async fn refuse(
    mut send: SendStream,
    mut recv: RecvStream,
    reason: Refusal,
    detail: &str,
) {
    let reply = StreamReply::Refused(Refused {
        reason,
        detail: detail.to_owned(),
    });
    if message::write(&mut send, &reply).await.is_ok() {
        let _ = send.finish();
    }
    let _ = recv.stop(VarInt::from_u32(stream_code::REFUSED));
}

/// Ends both directions of a stream; one that has ended already stays as it is.
fn abort(send: &mut SendStream, recv: &mut RecvStream, code: u32) {
    let _ = send.reset(VarInt::from_u32(code));
    let _ = recv.stop(VarInt::from_u32(code));
}
