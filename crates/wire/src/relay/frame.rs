//! How control and data share a carrier.
//!
//! On a UDP link's QUIC stream: each control message behind its length (4 bytes, big endian). On a TLS link each binary
//! WebSocket message is one frame: `0x00 | control message`, or `0x80 | channel (7) | segment size (2) | payload`, where
//! the payload is one or more datagrams of that size, the last possibly shorter: the shape of a GSO batch.

use bytes::{Bytes, BytesMut};

use super::ChannelId;
use super::control::{Control, ControlError};

/// Longest payload of one data frame, in bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// Length of a data frame's header, in bytes.
pub const DATA_HEADER_LEN: usize = 10;

/// One WebSocket message of a TLS link.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A control message.
    Control(Control),
    /// Datagrams of one channel.
    Data {
        /// Which channel.
        channel: ChannelId,
        /// Length of each datagram but the last, in bytes; at least 1.
        segment: u16,
        /// The datagrams, back to back; not empty.
        payload: Bytes,
    },
    /// A frame type of a newer version: ignored.
    Unknown,
}

/// Why a WebSocket message is not a frame: the other side is to blame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Empty, or a data frame without payload, with segment 0 or longer than [`MAX_DATA`].
    #[error("malformed frame")]
    Malformed,
    /// The control message inside is wrong.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Frame {
    /// The WebSocket message.
    pub fn encode(&self) -> Bytes {
        unimplemented!()
    }
    /// Reads a WebSocket message.
    pub fn decode(message: Bytes) -> Result<Self, FrameError> {
        let _ = message;
        unimplemented!()
    }
}
/// The header of a data frame, for building one in place.
pub fn data_header(channel: ChannelId, segment: u16) -> [u8; DATA_HEADER_LEN] {
    let _ = (channel, segment);
    unimplemented!()
}

/// Writes a control message for a QUIC stream: length, then body.
pub fn encode_stream(message: &Control, out: &mut BytesMut) {
    let _ = (message, out);
    unimplemented!()
}

/// Cuts a QUIC stream's bytes into control messages. Holds at most one message.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    _buffer: BytesMut,
}
impl StreamDecoder {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let _ = bytes;
        unimplemented!()
    }
    /// The next whole message, if there is one. After an error the stream is unusable.
    pub fn next(&mut self) -> Result<Option<Control>, ControlError> {
        unimplemented!()
    }
}
