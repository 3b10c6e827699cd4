//! How control and data share a carrier.
//!
//! On a UDP link's QUIC stream: each control message behind its length (4 bytes, big endian). On a TLS link each binary
//! WebSocket message is one frame: `0x00 | control message`, or `0x80 | channel (7) | segment size (2) | payload`, where
//! the payload is one or more datagrams of that size, the last possibly shorter: the shape of a GSO batch.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ChannelId;
use super::control::{Control, ControlError, MAX_FRAME};

/// Longest payload of one data frame, in bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// Length of a data frame's header, in bytes.
pub const DATA_HEADER_LEN: usize = 10;

/// Most datagrams in one data frame: what one GSO send takes (`UDP_MAX_SEGMENTS`). Without it, one frame of one-byte
/// datagrams would cost its forwarder 65,536 packets.
pub const MAX_SEGMENTS: usize = 128;

/// First byte of a frame that holds a control message.
const CONTROL: u8 = 0x00;
/// First byte of a frame that holds datagrams, as in plain relay data.
const DATA: u8 = 0x80;

/// One WebSocket message of a TLS link.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a frame is moved once, from the decoder to its reader; a box would cost an allocation"
)]
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
    /// Empty, or a data frame without payload, with segment 0, longer than [`MAX_DATA`], or of more than
    /// [`MAX_SEGMENTS`] datagrams.
    #[error("malformed frame")]
    Malformed,
    /// The control message inside is wrong.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Frame {
    /// The WebSocket message.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Control(message) => {
                let body = message.encode();
                let mut out = BytesMut::with_capacity(1 + body.len());
                out.put_u8(CONTROL);
                out.put(body);
                out.freeze()
            }
            Self::Data {
                channel,
                segment,
                payload,
            } => {
                let mut out = BytesMut::with_capacity(DATA_HEADER_LEN + payload.len());
                out.put_slice(&data_header(*channel, *segment));
                out.put_slice(payload);
                out.freeze()
            }
            // Nothing to say; a receiver skips it too.
            Self::Unknown => Bytes::from_static(&[0xff]),
        }
    }
    /// Reads a WebSocket message.
    pub fn decode(mut message: Bytes) -> Result<Self, FrameError> {
        match message.first() {
            None => Err(FrameError::Malformed),
            Some(&CONTROL) => {
                message.advance(1);
                Ok(Self::Control(Control::decode(message)?))
            }
            Some(&DATA) => {
                let (header, rest) = message
                    .split_first_chunk::<DATA_HEADER_LEN>()
                    .ok_or(FrameError::Malformed)?;
                let [c0, c1, c2, c3, c4, c5, c6, c7, s0, s1] = *header;
                let segment = u16::from_be_bytes([s0, s1]);
                if segment == 0
                    || rest.is_empty()
                    || rest.len() > MAX_DATA
                    || rest.len().div_ceil(usize::from(segment)) > MAX_SEGMENTS
                {
                    return Err(FrameError::Malformed);
                }
                let bits = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
                Ok(Self::Data {
                    channel: ChannelId::from_u64(bits),
                    segment,
                    payload: message.slice(DATA_HEADER_LEN..),
                })
            }
            Some(_) => Ok(Self::Unknown),
        }
    }
}
/// The header of a data frame, for building one in place.
pub fn data_header(channel: ChannelId, segment: u16) -> [u8; DATA_HEADER_LEN] {
    let mut out = [0; DATA_HEADER_LEN];
    out[..8].copy_from_slice(&channel.header());
    out[8..].copy_from_slice(&segment.to_be_bytes());
    out
}

/// Writes a control message for a QUIC stream: length, then body.
pub fn encode_stream(message: &Control, out: &mut BytesMut) {
    let body = message.encode();
    out.reserve(4 + body.len());
    out.put_u32(body.len() as u32);
    out.put(body);
}

/// Cuts a QUIC stream's bytes into control messages. Holds at most one message and what was pushed last: take every
/// message out before pushing again.
#[derive(Debug, Default)]
pub struct StreamDecoder {
    buffer: BytesMut,
    failed: Option<ControlError>,
}
impl StreamDecoder {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }
    /// The next whole message, if there is one. After an error the stream is unusable, and every call repeats the error.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator's None would mean the end, not a wait"
    )]
    pub fn next(&mut self) -> Result<Option<Control>, ControlError> {
        match self.failed {
            Some(error) => Err(error),
            None => self.take().inspect_err(|error| {
                self.failed = Some(*error);
                self.buffer = BytesMut::new();
            }),
        }
    }

    fn take(&mut self) -> Result<Option<Control>, ControlError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        // Judged as soon as it is known, so that nobody can make us wait for 4 GiB.
        if length > MAX_FRAME {
            return Err(ControlError::TooLong);
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Control::decode(self.buffer.split_to(length).freeze()).map(Some)
    }
}
