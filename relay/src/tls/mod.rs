//! TLS links: WebSocket over TLS over TCP, for nodes whose UDP is blocked.

pub(crate) mod accept;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod stream;
