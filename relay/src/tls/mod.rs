//! TLS links: WebSocket over TLS over TCP, for nodes whose UDP is blocked. Behind an ingress the TLS is the ingress's.

pub(crate) mod accept;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod plain;
pub(crate) mod read_ahead;
pub(crate) mod stream;
pub(crate) mod turn;
