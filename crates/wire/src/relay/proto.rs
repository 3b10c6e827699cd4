//! The protobuf behind [`super::control`]. Field numbers are the protocol: they are never reused, new fields are
//! optional, and a new message is a new number in [`Kind`].

use bytes::Bytes;

/// The envelope of every control message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Control {
    /// A receiver that does not know the kind must end the link instead of ignoring it.
    #[prost(bool, tag = "1")]
    pub(super) critical: bool,
    #[prost(
        oneof = "Kind",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25"
    )]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "2")]
    Challenge(Challenge),
    #[prost(message, tag = "3")]
    Prove(Prove),
    #[prost(message, tag = "4")]
    Hello(Hello),
    #[prost(message, tag = "5")]
    Welcome(Welcome),
    #[prost(message, tag = "6")]
    Refused(Refused),
    #[prost(message, tag = "7")]
    Open(Open),
    #[prost(message, tag = "8")]
    Opened(Opened),
    #[prost(message, tag = "9")]
    Incoming(Incoming),
    #[prost(message, tag = "10")]
    Accept(Channel),
    #[prost(message, tag = "11")]
    Closed(Closed),
    #[prost(message, tag = "12")]
    Attach(Channel),
    #[prost(message, tag = "13")]
    Attached(Channel),
    #[prost(message, tag = "14")]
    Signal(Signal),
    #[prost(message, tag = "15")]
    Rebind(Rebind),
    #[prost(message, tag = "16")]
    Rebound(Rebound),
    #[prost(message, tag = "17")]
    Ping(Echo),
    #[prost(message, tag = "18")]
    Pong(Echo),
    #[prost(message, tag = "19")]
    Record(Record),
    #[prost(message, tag = "20")]
    GoingAway(GoingAway),
    #[prost(message, tag = "21")]
    PeerMoved(PeerMoved),
    #[prost(message, tag = "22")]
    Token(Token),
    #[prost(message, tag = "23")]
    TokenTaken(TokenTaken),
    #[prost(message, tag = "24")]
    TokenRefused(TokenRefused),
    #[prost(message, tag = "25")]
    Throttled(Throttled),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Challenge {
    #[prost(string, tag = "1")]
    pub(super) relay: String,
    #[prost(string, tag = "2")]
    pub(super) region: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) nonce: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Prove {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) node: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) nonce: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) exporter: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) signature: Bytes,
    #[prost(string, tag = "5")]
    pub(super) dialled: String,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) certificate: Bytes,
    /// As in [`Hello`].
    #[prost(uint32, tag = "7")]
    pub(super) role: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(uint32, repeated, tag = "1")]
    pub(super) versions: Vec<u32>,
    /// 1 agent, 2 client.
    #[prost(uint32, tag = "2")]
    pub(super) role: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) record: Bytes,
    #[prost(string, optional, tag = "4")]
    pub(super) token: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Welcome {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(string, tag = "2")]
    pub(super) relay: String,
    #[prost(string, tag = "3")]
    pub(super) region: String,
    #[prost(fixed64, tag = "4")]
    pub(super) session: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) observed: Bytes,
    #[prost(uint32, tag = "6")]
    pub(super) max_channels: u32,
    #[prost(uint32, tag = "7")]
    pub(super) max_datagram: u32,
    #[prost(uint64, tag = "8")]
    pub(super) time: u64,
    #[prost(bool, tag = "9")]
    pub(super) intercepted: bool,
    #[prost(uint32, optional, tag = "10")]
    pub(super) admitted_for: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Token {
    #[prost(string, tag = "1")]
    pub(super) token: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TokenTaken {
    #[prost(uint32, optional, tag = "1")]
    pub(super) admitted_for: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TokenRefused {
    #[prost(string, tag = "1")]
    pub(super) detail: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Throttled {
    #[prost(uint64, optional, tag = "1")]
    pub(super) bytes: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) datagrams: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refused {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
    #[prost(string, tag = "2")]
    pub(super) detail: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Open {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) peer: Bytes,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) proof: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) first: Vec<Bytes>,
    #[prost(uint32, tag = "5")]
    pub(super) wait_ms: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Opened {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) record: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Incoming {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) record: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) observed: Bytes,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(super) proof: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) first: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Channel {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Closed {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
    #[prost(uint32, tag = "2")]
    pub(super) reason: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Signal {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) sealed: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Rebind {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) addr: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) mac: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Rebound {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) observed: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PeerMoved {
    #[prost(fixed64, tag = "1")]
    pub(super) channel: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) observed: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Echo {
    #[prost(fixed64, tag = "1")]
    pub(super) token: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) record: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GoingAway {
    #[prost(uint32, tag = "1")]
    pub(super) deadline_ms: u32,
    #[prost(string, repeated, tag = "2")]
    pub(super) alternates: Vec<String>,
}
