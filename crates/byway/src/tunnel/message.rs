//! Messages on streams: length, then body ([`byway_wire::tunnel`]).

use bytes::{Bytes, BytesMut};
use byway_wire::tunnel::{LENGTH_PREFIX, Message, MessageError, decode_length};

use super::{RecvStream, SendStream};

/// Why no message could be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadMessageError {
    /// The connection ended.
    #[error("{0}")]
    Connection(quinn::ConnectionError),
    /// The other side reset the stream.
    #[error("the stream was reset (code {0})")]
    Reset(quinn::VarInt),
    /// The stream ended within or before the message.
    #[error("the stream ended before its message did")]
    Ended,
    /// The message is none.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl From<quinn::ReadExactError> for ReadMessageError {
    fn from(error: quinn::ReadExactError) -> Self {
        use quinn::ReadError;
        match error {
            quinn::ReadExactError::ReadError(ReadError::ConnectionLost(error)) => {
                Self::Connection(error)
            }
            quinn::ReadExactError::ReadError(ReadError::Reset(code)) => Self::Reset(code),
            _ => Self::Ended,
        }
    }
}

/// Writes one message.
pub(crate) async fn write(
    send: &mut SendStream,
    message: &impl Message,
) -> Result<(), quinn::WriteError> {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    send.write_chunk(out.freeze()).await
}

/// Reads one message. The length is checked before anything is allocated for it.
pub(crate) async fn read<M: Message>(recv: &mut RecvStream) -> Result<M, ReadMessageError> {
    read_or_end(recv).await?.ok_or(ReadMessageError::Ended)
}

/// The same where the stream may end instead, though not within a message.
pub(crate) async fn read_or_end<M: Message>(
    recv: &mut RecvStream,
) -> Result<Option<M>, ReadMessageError> {
    let mut prefix = [0; LENGTH_PREFIX];
    match recv.read_exact(&mut prefix).await {
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        result => result?,
    }
    let mut body = vec![0; decode_length(prefix)?];
    recv.read_exact(&mut body).await?;
    Ok(Some(M::decode(Bytes::from(body))?))
}
