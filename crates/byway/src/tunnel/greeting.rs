//! The greeting: the first thing said on a tunnel, by which the agent decides whether it serves this client.
//!
//! TLS has proved both keys before. The client opens its first bidirectional stream and writes its [`Greeting`]: its
//! current record, and the proof that it holds the ticket's secret, an HMAC over the TLS exporter of this very
//! connection (so it is worth nothing on another). It closes its side of the stream and goes on at once: headers and
//! bytes of other streams leave in the same flight. The agent takes that stream first, checks that the record is of the
//! key TLS proved, then its [`Admission`], answers with its own record, and only then looks at other streams. What
//! fails is closed with [`CloseCode::NotAllowed`] or [`CloseCode::Protocol`]. What the agent's record becomes later follows
//! on the same stream ([`super::records`]).

use std::time::Duration;

use byway_core::io::Admission;
use byway_wire::tunnel::{CloseCode, Greeting};
use byway_wire::{NodeId, SignedRecord, TicketSecret};
use quinn::Connection;

use super::message::{self, ReadMessageError};
use super::records::AgentRecords;
use super::{SendStream, close_code};

/// The label of the TLS exporter (RFC 9266 shows the habit; ours must differ from every other protocol's).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-byway-tunnel";

/// A greeting travels right behind the handshake; a client that has not sent it after this long is broken or hostile.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a greeting failed. The connection was closed with the code that belongs to it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GreetError {
    /// The connection ended first.
    #[error("the connection ended: {0}")]
    Connection(quinn::ConnectionError),
    /// No greeting in time.
    #[error("no greeting within {DEADLINE:?}")]
    TimedOut,
    /// Not a greeting.
    #[error("malformed greeting: {0}")]
    Malformed(String),
    /// The record in the greeting is of another node than TLS proved.
    #[error("the greeting speaks of another node than the connection proved")]
    WrongNode,
    /// Neither listed nor in possession of a ticket's secret.
    #[error("node {0} is not allowed")]
    NotAllowed(NodeId),
    /// TLS gave no exporter.
    #[error("no TLS exporter")]
    Exporter,
}

impl GreetError {
    fn code(&self) -> CloseCode {
        match self {
            Self::NotAllowed(_) | Self::WrongNode => CloseCode::NotAllowed,
            _ => CloseCode::Protocol,
        }
    }
}

impl From<ReadMessageError> for GreetError {
    fn from(error: ReadMessageError) -> Self {
        match error {
            ReadMessageError::Connection(error) => Self::Connection(error),
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// Sends the client's greeting; must be the first use of the connection. It returns as soon as the greeting is queued,
/// without waiting for the agent: read [`AgentRecords::next`] beside the tunnel's first streams.
pub(crate) async fn greet_as_client(
    connection: &Connection,
    record: SignedRecord,
    secret: Option<&TicketSecret>,
) -> Result<AgentRecords, GreetError> {
    let proof = match secret {
        Some(secret) => Some(secret.tunnel_proof(&exporter(connection)?)),
        None => None,
    };
    let (mut send, recv) = connection.open_bi().await.map_err(GreetError::Connection)?;
    message::write(&mut send, &Greeting { record, proof })
        .await
        .map_err(|error| match error {
            quinn::WriteError::ConnectionLost(error) => GreetError::Connection(error),
            other => GreetError::Malformed(other.to_string()),
        })?;
    // Harmless if it fails: the agent reads no further than the greeting.
    let _ = send.finish();
    Ok(AgentRecords::new(connection.clone(), recv))
}

/// A client that was let in.
#[derive(Debug)]
pub(crate) struct Greeted {
    /// Its record.
    pub(crate) record: SignedRecord,
    /// Where it is told what the agent's record becomes ([`super::records::tell`]).
    pub(crate) later: SendStream,
}

/// Reads and verifies the client's greeting, and answers it. `remote` is the identity TLS proved. On failure the
/// connection is closed with the matching code. Nothing else must have taken the connection's streams before.
pub(crate) async fn greet_as_agent(
    connection: &Connection,
    own: SignedRecord,
    remote: NodeId,
    admission: &Admission,
) -> Result<Greeted, GreetError> {
    let result =
        match tokio::time::timeout(DEADLINE, verify_client(connection, own, remote, admission))
            .await
        {
            Ok(result) => result,
            Err(_) => Err(GreetError::TimedOut),
        };
    close_on_error(connection, result)
}

async fn verify_client(
    connection: &Connection,
    own: SignedRecord,
    remote: NodeId,
    admission: &Admission,
) -> Result<Greeted, GreetError> {
    let (mut send, mut recv) = connection
        .accept_bi()
        .await
        .map_err(GreetError::Connection)?;
    let greeting: Greeting = message::read(&mut recv).await?;
    if greeting.record.node() != remote {
        return Err(GreetError::WrongNode);
    }
    if !admits(
        admission,
        remote,
        greeting.proof.as_ref(),
        &exporter(connection)?,
    ) {
        return Err(GreetError::NotAllowed(remote));
    }
    let answer = Greeting {
        record: own,
        proof: None,
    };
    // Its failure means that the client is gone, which the tunnel will find out.
    let _ = message::write(&mut send, &answer).await;
    Ok(Greeted {
        record: greeting.record,
        later: send,
    })
}

/// By key, by secret, or because anyone may. Every secret is tried, so that time does not tell which one matched.
fn admits(
    admission: &Admission,
    node: NodeId,
    proof: Option<&[u8; 32]>,
    exporter: &[u8; 32],
) -> bool {
    let by_secret = proof.is_some_and(|proof| {
        admission.secrets.iter().fold(false, |found, secret| {
            found | secret.verify_tunnel_proof(exporter, proof)
        })
    });
    admission.anyone || admission.nodes.contains(&node) || by_secret
}

/// 32 bytes that only the two ends of this very connection know.
fn exporter(connection: &Connection) -> Result<[u8; 32], GreetError> {
    let mut out = [0; 32];
    connection
        .export_keying_material(&mut out, EXPORTER_LABEL, b"")
        .map_err(|_| GreetError::Exporter)?;
    Ok(out)
}

pub(super) fn close_on_error<T>(
    connection: &Connection,
    result: Result<T, GreetError>,
) -> Result<T, GreetError> {
    // What ended already keeps its reason: quinn would put ours in its place.
    if let Err(error) = &result
        && connection.close_reason().is_none()
    {
        // The other side is told the code alone: what exactly was wrong is for our log.
        connection.close(close_code(error.code()), b"");
    }
    result
}

#[cfg(test)]
mod tests;
