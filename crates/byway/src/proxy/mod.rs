//! Proxies between a node and its relays, for networks that let nothing out but through one.
//!
//! A TLS link goes through an HTTP proxy (`CONNECT`, RFC 9110 section 9.3.6) or a SOCKS5 proxy (RFC 1928, RFC 1929) when
//! one applies to its relay. The proxy is told the relay's host as its URL names it and resolves it itself; what passes
//! afterwards is the same TLS as without it, with the same check of the relay's certificate. UDP links and direct paths
//! are not proxied, and are tried as ever.
//!
//! A proxy that applies is used or its failure is reported: a link never goes round it in silence. Whoever configured it
//! may have had a reason, and a setting that quietly does nothing is found out by nobody.

mod connect;
mod http;
mod settings;
mod socks;
mod url;

pub(crate) use connect::connect;
pub(crate) use settings::Proxies;
pub use settings::{Proxy, ProxyInUse, ProxySource};
pub use url::{ProxyUrl, ProxyUrlError};
