//! Between the messages inside a tunnel and their protobuf. A kind that a newer version added reads as `Unknown`.

use bytes::{BufMut, Bytes, BytesMut};

use super::*;

impl Message for Greeting {
    fn encode(&self, out: &mut BytesMut) {
        let message = proto::Greeting {
            record: self.record.as_bytes().clone(),
            proof: self
                .proof
                .as_ref()
                .map(|proof| Bytes::copy_from_slice(proof)),
        };
        write(&message, out);
    }
    fn decode(body: Bytes) -> Result<Self, MessageError> {
        let message: proto::Greeting = read(body)?;
        let proof = message.proof.map(|proof| proof.as_ref().try_into());
        Ok(Self {
            record: SignedRecord::decode(message.record).map_err(|_| MessageError::Malformed)?,
            proof: proof.transpose().map_err(|_| MessageError::Malformed)?,
        })
    }
}

impl Message for StreamHeader {
    fn encode(&self, out: &mut BytesMut) {
        let kind = match self {
            Self::Connect(Target::Tcp { host, port }) => {
                Some(proto::HeaderKind::Connect(proto::Connect {
                    target: Some(proto::Target::Tcp(proto::Tcp {
                        host: host.clone(),
                        port: (*port).into(),
                    })),
                }))
            }
            Self::Application => Some(proto::HeaderKind::Application(proto::Empty {})),
            Self::Echo => Some(proto::HeaderKind::Echo(proto::Empty {})),
            Self::Unknown => None,
        };
        write(&proto::StreamHeader { kind }, out);
    }
    fn decode(body: Bytes) -> Result<Self, MessageError> {
        let message: proto::StreamHeader = read(body)?;
        Ok(match message.kind {
            Some(proto::HeaderKind::Connect(connect)) => match connect.target {
                Some(proto::Target::Tcp(tcp)) => {
                    let port = tcp.port.try_into().map_err(|_| MessageError::Malformed)?;
                    Self::Connect(
                        Target::tcp(&tcp.host, port).map_err(|_| MessageError::Malformed)?,
                    )
                }
                None => Self::Unknown,
            },
            Some(proto::HeaderKind::Application(_)) => Self::Application,
            Some(proto::HeaderKind::Echo(_)) => Self::Echo,
            None => Self::Unknown,
        })
    }
}

impl Message for StreamReply {
    fn encode(&self, out: &mut BytesMut) {
        let kind = match self {
            Self::Connected => proto::ReplyKind::Connected(proto::Empty {}),
            Self::Refused(refused) => proto::ReplyKind::Refused(proto::Refused {
                reason: match refused.reason {
                    Refusal::Unknown => 0,
                    Refusal::Refused => 1,
                    Refusal::Denied => 2,
                    Refusal::Unreachable => 3,
                    Refusal::TimedOut => 4,
                    Refusal::Unsupported => 5,
                    Refusal::Exhausted => 6,
                },
                detail: text::truncated(&refused.detail, MAX_DETAIL).to_owned(),
            }),
        };
        write(&proto::StreamReply { kind: Some(kind) }, out);
    }
    fn decode(body: Bytes) -> Result<Self, MessageError> {
        let message: proto::StreamReply = read(body)?;
        match message.kind {
            Some(proto::ReplyKind::Connected(_)) => Ok(Self::Connected),
            Some(proto::ReplyKind::Refused(refused)) if refused.detail.len() <= MAX_DETAIL => {
                Ok(Self::Refused(Refused {
                    reason: match refused.reason {
                        1 => Refusal::Refused,
                        2 => Refusal::Denied,
                        3 => Refusal::Unreachable,
                        4 => Refusal::TimedOut,
                        5 => Refusal::Unsupported,
                        6 => Refusal::Exhausted,
                        _ => Refusal::Unknown,
                    },
                    detail: refused.detail,
                }))
            }
            // An answer that says neither yes nor no cannot be acted upon.
            _ => Err(MessageError::Malformed),
        }
    }
}

fn write(message: &impl prost::Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(LENGTH_PREFIX + length);
    out.put_u32(length as u32);
    out.put_slice(&message.encode_to_vec());
}

fn read<M: prost::Message + Default>(body: Bytes) -> Result<M, MessageError> {
    if body.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    M::decode(body).map_err(|_| MessageError::Malformed)
}

/// Field numbers are the protocol: never reused; new fields are optional.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Greeting {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) record: Bytes,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) proof: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct StreamHeader {
        #[prost(oneof = "HeaderKind", tags = "1, 2, 3")]
        pub(super) kind: Option<HeaderKind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum HeaderKind {
        #[prost(message, tag = "1")]
        Connect(Connect),
        #[prost(message, tag = "2")]
        Application(Empty),
        #[prost(message, tag = "3")]
        Echo(Empty),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Connect {
        #[prost(oneof = "Target", tags = "1")]
        pub(super) target: Option<Target>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Target {
        #[prost(message, tag = "1")]
        Tcp(Tcp),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Tcp {
        #[prost(string, tag = "1")]
        pub(super) host: String,
        #[prost(uint32, tag = "2")]
        pub(super) port: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Empty {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct StreamReply {
        #[prost(oneof = "ReplyKind", tags = "1, 2")]
        pub(super) kind: Option<ReplyKind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum ReplyKind {
        #[prost(message, tag = "1")]
        Connected(Empty),
        #[prost(message, tag = "2")]
        Refused(Refused),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Refused {
        #[prost(uint32, tag = "1")]
        pub(super) reason: u32,
        #[prost(string, tag = "2")]
        pub(super) detail: String,
    }
}
