//! Carries bytes between a local connection and a stream of a tunnel.
//!
//! Two directions run side by side. *Up* reads the local side into buffers that go to QUIC without another copy; *down*
//! takes what QUIC has reassembled, up to 64 packets at once, and writes it with one vectored write. How each ends:
//!
//! | what happens | what is passed on |
//! |---|---|
//! | the local side ends its output | the stream is finished; down goes on |
//! | the stream is finished | the local output is shut down; up goes on |
//! | the local side is reset | the stream is reset and stopped; over |
//! | the stream is reset, or the tunnel ends | the local connection is reset; over |
//! | the other side stops reading | up ends; down goes on |
//! | the local side stops reading | the stream is stopped; a TCP connection's up goes on, as it would on a wire |
//!
//! A side that takes no bytes delays the news of a reset until it does: what was sent before the reset is in front of it.
//! When the tunnel has ended it has [`LAST_WORDS`] for that.
//! (Watching a stream for resets beside reading it would leave a waker behind in quinn 0.11 for every stream that ends
//! well: `RecvStream::received_reset` registers one even when no event will follow.)

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use byway_wire::tunnel::Target;

use super::batch::Batch;
use crate::tunnel::{RecvStream, SendStream, StreamError, Tunnel, TunnelClosed, stream_code};

/// How long a local connection has to take what arrived before its tunnel ended; then it is reset.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);
/// First buffer of a direction: an idle connection should cost little.
const SMALL_READ: usize = 8 * 1024;
/// A direction that fills its buffers gets larger ones up to this: beyond it, system calls are no longer what costs.
const LARGE_READ: usize = 128 * 1024;
/// Packets taken from QUIC at once; 64 is also the most that tokio passes to one vectored write.
const BATCH: usize = 64;

/// Carries bytes both ways until both sides are done: half-close and reset are passed on. Returns bytes (sent, received).
///
/// A failure of `writer` ends both directions, since a `reader` that is not the same connection may never notice.
pub async fn splice<R, W>(
    reader: R,
    writer: W,
    mut send: SendStream,
    mut recv: RecvStream,
) -> io::Result<(u64, u64)>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut counts = (0, 0);
    let result = both(
        up(reader, &mut send, &mut counts.0),
        down(writer, &mut recv, &mut counts.1),
        AfterWriteFailure::End,
    )
    .await;
    match result {
        Ok(()) => Ok(counts),
        Err(failure) => {
            abort(&mut send, &mut recv);
            Err(failure.into())
        }
    }
}

/// Why [`carry`] carries nothing, or no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarryError {
    /// The agent did not connect the target, or the tunnel ended before it had answered.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The tunnel ended. What had arrived before was written.
    #[error("the tunnel ended: {0}")]
    Lost(TunnelClosed),
    /// The connection broke, at this side or at the other.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Asks the agent for a target and carries bytes both ways until both sides are done, like [`splice`]. Nobody waits for the
/// agent's answer: what `reader` has leaves in the same flight as the question, and is lost if the answer is a refusal.
/// Returns bytes (sent, received).
pub async fn carry<R, W>(
    tunnel: &Tunnel,
    target: &Target,
    reader: R,
    writer: W,
) -> Result<(u64, u64), CarryError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut send, mut recv) = tunnel.connect_early(target).await?;
    let mut counts = (0, 0);
    let result = {
        let received = &mut counts.1;
        let down = async {
            tunnel
                .connected(&mut recv)
                .await
                .map_err(Failure::Refused)?;
            down(writer, &mut recv, received).await
        };
        let up = up(reader, &mut send, &mut counts.0);
        both(up, down, AfterWriteFailure::End).await
    };
    match result {
        Ok(()) => Ok(counts),
        Err(failure) => {
            abort(&mut send, &mut recv);
            Err(match failure {
                Failure::Refused(error) => CarryError::Stream(error),
                Failure::Lost(error) => CarryError::Lost(tunnel.verdict(&error)),
                failure => CarryError::Io(failure.into()),
            })
        }
    }
}

/// The agent's side: [`splice`] for a TCP connection, which is reset when the stream was.
pub(super) async fn tcp(
    stream: TcpStream,
    send: SendStream,
    recv: RecvStream,
) -> Result<(u64, u64), Failure> {
    forward(stream, send, recv, |recv| async { (recv, Ok(())) }).await
}

/// The client's side: like [`tcp`], but before anything is carried down, `connected` reads the agent's answer.
///
/// Dropping the future resets the connection.
pub(super) async fn forward<F, Fut>(
    stream: TcpStream,
    mut send: SendStream,
    recv: RecvStream,
    connected: F,
) -> Result<(u64, u64), Failure>
where
    F: FnOnce(RecvStream) -> Fut,
    Fut: Future<Output = (RecvStream, Result<(), StreamError>)>,
{
    let mut local = ResetUnlessDone {
        stream,
        done: false,
    };
    let mut counts = (0, 0);
    let result = {
        let (reader, writer) = local.stream.split();
        let received = &mut counts.1;
        let down = async {
            let (mut recv, answer) = connected(recv).await;
            answer.map_err(Failure::Refused)?;
            let result = down(writer, &mut recv, received).await;
            if result.is_err() {
                let _ = recv.stop(VarInt::from_u32(stream_code::ABORTED));
            }
            result
        };
        // Dropped at the end of the block, and with it the receiving half: that stops the other side.
        both(
            up(reader, &mut send, &mut counts.0),
            down,
            AfterWriteFailure::GoOn,
        )
        .await
    };
    match result {
        Ok(()) => {
            local.done = true;
            Ok(counts)
        }
        Err(failure) => {
            let _ = send.reset(VarInt::from_u32(stream_code::ABORTED));
            Err(failure)
        }
    }
}

/// A connection that must not look finished unless it is: the program at its other end would take what it has for all
/// there was.
struct ResetUnlessDone {
    stream: TcpStream,
    done: bool,
}

impl Drop for ResetUnlessDone {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Why a connection was aborted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Reading the local side failed.
    #[error("the local side: {0}")]
    Read(io::Error),
    /// Writing to the local side failed.
    #[error("the local side: {0}")]
    Write(io::Error),
    /// The other side reset the stream.
    #[error("reset by the other side (code {0})")]
    Reset(VarInt),
    /// The other side takes no more bytes.
    #[error("the other side reads no more (code {0})")]
    Stopped(VarInt),
    /// The tunnel ended.
    #[error("the tunnel ended: {0}")]
    Lost(quinn::ConnectionError),
    /// The stream is not usable; a bug on this side.
    #[error("the stream is closed")]
    Closed,
    /// The agent did not connect it.
    #[error(transparent)]
    Refused(StreamError),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Read(error) | Failure::Write(error) => error,
            Failure::Reset(_) | Failure::Stopped(_) => {
                Self::new(io::ErrorKind::ConnectionReset, failure.to_string())
            }
            _ => Self::new(io::ErrorKind::ConnectionAborted, failure.to_string()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterWriteFailure {
    /// Both directions are one connection: up will find out by itself, and may still have bytes to deliver.
    GoOn,
    /// They are not: end.
    End,
}

/// Runs both directions by the table at the top.
async fn both(
    up: impl Future<Output = Result<(), Failure>>,
    down: impl Future<Output = Result<(), Failure>>,
    after: AfterWriteFailure,
) -> Result<(), Failure> {
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        ended = &mut up => match ended {
            Ok(()) | Err(Failure::Stopped(_)) => down.await,
            Err(failure) => Err(failure),
        },
        ended = &mut down => match ended {
            Ok(()) => match up.await {
                Err(Failure::Stopped(_)) => Ok(()),
                ended => ended,
            },
            Err(failure @ Failure::Write(_)) if after == AfterWriteFailure::GoOn => {
                up.await.and(Err(failure))
            }
            Err(failure) => Err(failure),
        },
    }
}

/// Local bytes to the stream. Ends when the other side has acknowledged all of them, so that a tunnel closed behind a
/// finished splice loses nothing.
async fn up<R: AsyncRead + Unpin>(
    mut reader: R,
    send: &mut SendStream,
    count: &mut u64,
) -> Result<(), Failure> {
    let mut stopped = pin!(send.stopped());
    let mut buffer = BytesMut::new();
    let mut size = SMALL_READ;
    loop {
        if buffer.capacity() < size / 2 {
            buffer.reserve(size);
        }
        let room = buffer.capacity();
        let read = tokio::select! {
            biased;
            read = reader.read_buf(&mut buffer) => read.map_err(Failure::Read)?,
            stop = &mut stopped => return Err(stopped_early(stop)),
        };
        if read == 0 {
            break;
        }
        if read == room {
            size = (size * 2).min(LARGE_READ);
        } else if read < room / 8 {
            size = (size / 2).max(SMALL_READ);
        }
        *count += read as u64;
        send.write_chunk(buffer.split().freeze())
            .await
            .map_err(write_failure)?;
    }
    // Its only failure is a stream the other side has stopped, which `stopped` reports.
    let _ = send.finish();
    match stopped.await {
        Ok(None) => Ok(()),
        stop => Err(stopped_early(stop)),
    }
}

fn stopped_early(stop: Result<Option<VarInt>, quinn::StoppedError>) -> Failure {
    match stop {
        Ok(Some(code)) => Failure::Stopped(code),
        Err(quinn::StoppedError::ConnectionLost(error)) => Failure::Lost(error),
        Ok(None) | Err(quinn::StoppedError::ZeroRttRejected) => Failure::Closed,
    }
}

fn write_failure(error: WriteError) -> Failure {
    match error {
        WriteError::Stopped(code) => Failure::Stopped(code),
        WriteError::ConnectionLost(error) => Failure::Lost(error),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => Failure::Closed,
    }
}

/// Bytes of the stream to the local side, then its end.
async fn down<W: AsyncWrite + Unpin>(
    mut writer: W,
    recv: &mut RecvStream,
    count: &mut u64,
) -> Result<(), Failure> {
    let vectored = writer.is_write_vectored();
    let mut chunks = [const { Bytes::new() }; BATCH];
    loop {
        let taken = match recv.read_chunks(&mut chunks).await {
            Ok(Some(taken)) => taken,
            Ok(None) => break,
            Err(ReadError::Reset(code)) => return Err(Failure::Reset(code)),
            Err(ReadError::ConnectionLost(error)) => return Err(Failure::Lost(error)),
            Err(_) => return Err(Failure::Closed),
        };
        let mut batch = Batch::new(&mut chunks[..taken]);
        *count += batch.remaining() as u64;
        let write = async {
            if vectored {
                writer.write_all_buf(&mut batch).await?;
            } else {
                // One copy costs less than a system call for each packet.
                let mut joined = batch.copy_to_bytes(batch.remaining());
                writer.write_all_buf(&mut joined).await?;
            }
            // What sits between us and the wire (a buffered standard output) must not hold bytes back.
            writer.flush().await
        };
        write.await.map_err(Failure::Write)?;
    }
    writer.shutdown().await.or_else(|error| {
        // The connection is gone already; nobody is left to hear of the half-close.
        if error.kind() == io::ErrorKind::NotConnected {
            Ok(())
        } else {
            Err(Failure::Write(error))
        }
    })
}

/// Ends both directions of a stream; one that has ended already stays as it is.
fn abort(send: &mut SendStream, recv: &mut RecvStream) {
    let _ = send.reset(VarInt::from_u32(stream_code::ABORTED));
    let _ = recv.stop(VarInt::from_u32(stream_code::ABORTED));
}
