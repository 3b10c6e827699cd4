//! The agent's record, told to its client inside the tunnel: in the greeting, and again whenever it becomes another.
//!
//! Relays pass records on too, but a relay can do so only while both are linked to it. A tunnel on a direct path outlives
//! its relays, and the agent may have found others meanwhile: without a word from the agent itself the client would look
//! for it in vain on the day on which the direct path ends.
//!
//! The agent leaves its half of the greeting's stream open and writes a further [`Greeting`] there. A client that reads
//! the first alone stops the stream, and is told no more. Nobody looks for a client, so its later records are not told.

use std::sync::Arc;
use std::time::Duration;

use byway_wire::tunnel::Greeting;
use byway_wire::{NodeId, SignedRecord};
use quinn::Connection;
use tokio::sync::watch;

use super::greeting::{GreetError, close_on_error};
use super::message::{self, ReadMessageError};
use super::{RecvStream, SendStream};

/// Between two records that an agent tells, and that a client takes. Relays change by the hour; of more changes the last
/// one counts.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// The agent's half of the greeting's stream, as the client reads it.
#[derive(Debug)]
pub(crate) struct AgentRecords {
    connection: Connection,
    recv: RecvStream,
    greeted: bool,
    pause: Duration,
}

impl AgentRecords {
    pub(super) fn new(connection: Connection, recv: RecvStream) -> Self {
        Self {
            connection,
            recv,
            greeted: false,
            pause: PAUSE,
        }
    }

    /// The agent's current record, which overrides any relay's copy: at first that of its greeting. None when it will say
    /// no more. `expected` is the node that was dialled; a record of another, or what is none, ends the tunnel.
    pub(crate) async fn next(
        &mut self,
        expected: NodeId,
    ) -> Result<Option<SignedRecord>, GreetError> {
        if self.greeted {
            // What is over is let go of at once: a connection is held by its streams.
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                _ = self.connection.closed() => return Ok(None),
            }
        }
        // No deadline: the path may be slow or away for hours; the connection's own timeout ends it.
        let read = message::read_or_end::<Greeting>(&mut self.recv).await;
        let result = match read {
            // Agents of before end their half with the greeting.
            Ok(None) | Err(ReadMessageError::Reset(_)) if self.greeted => return Ok(None),
            Ok(Some(greeting)) if greeting.record.node() == expected => Ok(Some(greeting.record)),
            Ok(Some(_)) => Err(GreetError::WrongNode),
            Ok(None) => Err(ReadMessageError::Ended.into()),
            Err(error) => Err(error.into()),
        };
        self.greeted = true;
        close_on_error(&self.connection, result)
    }
}

/// Tells the client on the agent's half of the greeting's stream what the agent's record becomes after what `records` has
/// shown, until the client has heard enough, the tunnel ends, or the agent does; one in a `pause` at most ([`PAUSE`]).
pub(crate) async fn tell(
    mut send: SendStream,
    mut records: watch::Receiver<Arc<SignedRecord>>,
    pause: Duration,
) {
    let stopped = send.stopped();
    let telling = async {
        while records.changed().await.is_ok() {
            let greeting = Greeting {
                record: (**records.borrow_and_update()).clone(),
                proof: None,
            };
            if message::write(&mut send, &greeting).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = telling => {}
        _ = stopped => {}
    }
}

#[cfg(test)]
mod tests;
