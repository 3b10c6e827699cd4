//! A tunnel: one QUIC connection between two nodes, above all their paths.
//!
//! # What runs on it
//!
//! The client's first bidirectional stream carries the greeting (`greeting`): the client's record and its proof that
//! it holds the ticket's secret. The client waits for no answer: streams it opens behind it leave in the same flight,
//! and the agent looks at none of them before the greeting is verified. What the agent's record becomes while the tunnel
//! lasts follows there (`records`). Each later stream begins with a [`StreamHeader`], which `dispatch` reads on the
//! accepting side and by which it hands the stream to the forwarding server, to the embedding program, or to an echo. QUIC datagrams begin with a flow number (`datagram`).
//!
//! # How long it lives
//!
//! Until one side closes it, or until the last clone of the [`Tunnel`] is dropped. Keep a clone for as long as its
//! streams are in use; [`Tunnel::serve`] and [`crate::forward::Forward`] keep one of their own.

mod datagram;
pub(crate) mod dispatch;
#[cfg(test)]
mod ends;
pub(crate) mod greeting;
mod info;
pub(crate) mod message;
pub(crate) mod parts;
pub(crate) mod records;
pub(crate) mod stream_code;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_core::io::PathKind;
use byway_wire::NodeId;
use byway_wire::tunnel::{CloseCode, StreamHeader, StreamReply, Target};
use tokio::sync::{mpsc, watch};

use crate::forward::{ForwardServer, TargetPolicy};
pub(crate) use info::close_code;
pub use info::{PathInfo, StreamError, TunnelClosed, TunnelStats};
use message::ReadMessageError;
use parts::TunnelParts;

/// Sends on a stream. QUIC semantics: `finish` is a half-close, `reset` an abort.
pub type SendStream = quinn::SendStream;
/// Receives on a stream.
pub type RecvStream = quinn::RecvStream;

/// Application streams that wait for [`Tunnel::accept`]; a program that never accepts must not cost memory without
/// bound. As many as a busy program may lag behind in one scheduling hiccup.
const ACCEPT_QUEUE: usize = 256;

/// One QUIC connection between two nodes, above all their paths. Cheap to clone; dropping the last clone ends it.
#[derive(Clone, Debug)]
pub struct Tunnel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: TunnelParts,
    accepted: tokio::sync::Mutex<mpsc::Receiver<(SendStream, RecvStream)>>,
    /// The forwarding server, once [`Tunnel::serve`] was called; the dispatcher reads it.
    server: watch::Sender<Option<ForwardServer>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.parts
            .connection
            .close(close_code(CloseCode::Done), b"");
    }
}

impl Tunnel {
    /// Takes over an authenticated connection and begins to take its streams. Call it within a tokio runtime.
    pub(crate) fn new(parts: TunnelParts) -> Self {
        let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
        let (server, served) = watch::channel(None);
        // It ends with the connection, which ends at the latest when the last clone of the tunnel is dropped.
        tokio::spawn(dispatch::run(parts.connection.clone(), served, accept));
        Self {
            inner: Arc::new(Inner {
                parts,
                accepted: tokio::sync::Mutex::new(accepted),
                server,
            }),
        }
    }

    /// The node at the other end; its key was proved.
    pub fn remote(&self) -> NodeId {
        self.inner.parts.remote
    }

    /// Opens a stream to the embedding program on the other side, which hears of it at once.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), StreamError> {
        self.open_with(&StreamHeader::Application).await
    }

    /// The next stream the other side opened for the embedding program; none when the tunnel ends. Streams beyond 256
    /// that wait here are reset.
    pub async fn accept(&self) -> Option<(SendStream, RecvStream)> {
        self.inner.accepted.lock().await.recv().await
    }

    /// Opens a stream to a target behind the agent; waits for its answer.
    pub async fn connect(&self, target: &Target) -> Result<(SendStream, RecvStream), StreamError> {
        let (send, mut recv) = self.connect_early(target).await?;
        self.connected(&mut recv).await?;
        Ok((send, recv))
    }

    /// Asks for a target without waiting: what is written now leaves in the same flight. The caller must pass
    /// [`Tunnel::connected`] before it reads.
    pub(crate) async fn connect_early(
        &self,
        target: &Target,
    ) -> Result<(SendStream, RecvStream), StreamError> {
        self.open_with(&StreamHeader::Connect(target.clone())).await
    }

    /// Reads the agent's answer to [`Tunnel::connect_early`].
    pub(crate) async fn connected(&self, recv: &mut RecvStream) -> Result<(), StreamError> {
        match message::read(recv).await {
            Ok(StreamReply::Connected) => Ok(()),
            Ok(StreamReply::Refused(refused)) => Err(StreamError::Refused(refused)),
            Err(error) => Err(self.read_error(error)),
        }
    }

    /// Sends a datagram: unreliable, at most [`Tunnel::max_datagram`] bytes.
    pub fn send_datagram(&self, data: Bytes) -> Result<(), StreamError> {
        use quinn::SendDatagramError as E;
        match self
            .inner
            .parts
            .connection
            .send_datagram(datagram::application(&data))
        {
            Ok(()) => Ok(()),
            Err(E::ConnectionLost(error)) => Err(StreamError::Closed(self.verdict(&error))),
            Err(E::TooLarge) => Err(StreamError::DatagramTooLong {
                max: self.max_datagram(),
            }),
            Err(error @ (E::UnsupportedByPeer | E::Disabled)) => {
                Err(StreamError::Protocol(error.to_string()))
            }
        }
    }

    /// The next datagram of the embedding program's.
    pub async fn read_datagram(&self) -> Result<Bytes, TunnelClosed> {
        loop {
            match self.inner.parts.connection.read_datagram().await {
                Ok(data) => {
                    if let Some(data) = datagram::read_application(data) {
                        return Ok(data);
                    }
                }
                Err(error) => return Err(self.verdict(&error)),
            }
        }
    }

    /// Longest datagram now, in bytes; 0 if the other side takes none.
    pub fn max_datagram(&self) -> usize {
        self.inner
            .parts
            .connection
            .max_datagram_size()
            .map_or(0, |most| most.saturating_sub(datagram::HEADER))
    }

    /// One round trip through the tunnel and the other side's process.
    pub async fn ping(&self) -> Result<Duration, StreamError> {
        let began = Instant::now();
        let (mut send, mut recv) = self.open_with(&StreamHeader::Echo).await?;
        send.write_all(&PING)
            .await
            .map_err(|error| self.write_error(error))?;
        // Harmless if it fails: the answer tells.
        let _ = send.finish();
        let mut answer = [0; PING.len()];
        recv.read_exact(&mut answer)
            .await
            .map_err(|error| self.read_error(error.into()))?;
        if answer != PING {
            return Err(StreamError::Protocol(
                "an echo came back changed".to_owned(),
            ));
        }
        Ok(began.elapsed())
    }

    /// The path in use; changes are seen by waiting on the receiver.
    pub fn path(&self) -> watch::Receiver<PathInfo> {
        self.inner.parts.path.clone()
    }

    /// Waits until the tunnel runs on this kind of path.
    pub async fn wait_for(&self, kind: PathKind) -> Result<(), TunnelClosed> {
        let mut path = self.path();
        tokio::select! {
            biased;
            Ok(_) = path.wait_for(|path| path.kind == kind) => Ok(()),
            closed = self.closed() => Err(closed),
        }
    }

    /// Counters.
    pub fn stats(&self) -> TunnelStats {
        let parts = &self.inner.parts;
        let quic = parts.connection.stats();
        TunnelStats {
            rtt: quic.path.rtt,
            sent_bytes: quic.udp_tx.bytes,
            received_bytes: quic.udp_rx.bytes,
            lost_packets: quic.path.lost_packets,
            mtu: quic.path.current_mtu,
            switches: parts.counters.switches(),
            longest_stall: parts.counters.longest_stall(),
            sent_by_kind: parts.counters.sent_by_kind(),
        }
    }

    /// Serve streams to targets on this tunnel as `policy` allows (the agent's side of forwarding). Runs until the
    /// tunnel ends, even if every clone of it is dropped; embedders' own streams still arrive at [`Tunnel::accept`].
    /// A second call changes nothing.
    pub fn serve(&self, policy: TargetPolicy) {
        let first = self.inner.server.send_if_modified(|server| {
            let first = server.is_none();
            server.get_or_insert_with(|| ForwardServer::new(policy));
            first
        });
        if !first {
            return;
        }
        let keep = self.clone();
        tokio::spawn(async move {
            keep.closed().await;
        });
    }

    /// Ends the tunnel; data not yet acknowledged may be lost.
    pub fn close(&self) {
        self.inner
            .parts
            .connection
            .close(close_code(CloseCode::Done), b"");
    }

    /// Waits for the end.
    pub async fn closed(&self) -> TunnelClosed {
        let error = self.inner.parts.connection.closed().await;
        self.verdict(&error)
    }

    /// Opens a stream and announces its kind.
    async fn open_with(
        &self,
        header: &StreamHeader,
    ) -> Result<(SendStream, RecvStream), StreamError> {
        let (mut send, recv) = self
            .inner
            .parts
            .connection
            .open_bi()
            .await
            .map_err(|error| StreamError::Closed(self.verdict(&error)))?;
        message::write(&mut send, header)
            .await
            .map_err(|error| self.write_error(error))?;
        Ok((send, recv))
    }

    /// Why the tunnel ended: what the path layer found, if it did, else what QUIC says.
    pub(crate) fn verdict(&self, error: &quinn::ConnectionError) -> TunnelClosed {
        match self.inner.parts.verdict.get() {
            Some(verdict) => verdict.clone(),
            None => TunnelClosed::from_connection(error),
        }
    }

    fn write_error(&self, error: quinn::WriteError) -> StreamError {
        match error {
            quinn::WriteError::ConnectionLost(error) => StreamError::Closed(self.verdict(&error)),
            other => StreamError::Protocol(other.to_string()),
        }
    }

    fn read_error(&self, error: ReadMessageError) -> StreamError {
        match error {
            ReadMessageError::Connection(error) => StreamError::Closed(self.verdict(&error)),
            other => StreamError::Protocol(other.to_string()),
        }
    }
}

/// What a ping carries; its content means nothing.
const PING: [u8; 8] = *b"byway ?\n";
