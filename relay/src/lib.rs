//! The relay as a library, so that `byway demo` and tests can embed it. See [`Server`].
//!
//! # How a packet travels
//!
//! ```text
//!   UDP :443 ──> shard (one per core, SO_REUSEPORT) ── recvmmsg + GRO ── cut into runs
//!                  ├─ 0x80 relay data ──> channel table ──> one GSO send, or a frame for a TLS link
//!                  ├─ STUN            ──> answered on the spot
//!                  └─ QUIC            ──> queue ──> one control endpoint ──> a task per UDP link ─┐
//!   TCP :443 ──> TLS ──> WebSocket ──────────────────────────────────────> a task per TLS link ──┤
//!                                                                                                 v
//!                                             relay-core behind one mutex: control events only ──> channel table
//! ```
//!
//! The table is written on control events and read without a lock, once for each run of datagrams. No data packet ever
//! waits for the mutex.
//!
//! | file | idea |
//! |---|---|
//! | `server`, `listen` | starting and stopping; sockets |
//! | `inherited`, `control` | sockets that systemd hands over; being told to stop |
//! | `hub`, `table`, `plane` | relay-core and what it decides; the forwarding table; what happens to data |
//! | `udp/` | shards, runs, sending, STUN, the control endpoint's socket |
//! | `quic`, `tls/`, `both_ways` | links |
//! | `outbox`, `queue` | what waits to be written to one node |
//! | `identity`, `certificate/` | what the relay shows, also while it changes; raw public keys |
//! | `acme/`, `challenge` | ordering a certificate; showing the authority that a name leads here |
//! | `proxies` | whose word about a client is believed |
//! | `pressure` | no newcomers while most of what there is is in use |
//! | `quota` | what one node may send in a second |
//! | `strangers`, `limit`, `limits`, `pace`, `stats` | who may begin a handshake, budgets, what an operator sets, floods, counters |
//! | `vital` | noticing that a part has failed without which a relay is none |
//! | `audit` | who linked, and who had a channel with whom, for a SIEM |
//! | `refusals` | how much of strangers who were refused |
//! | `observe/`, `delays` | metrics, status, health; how long data waits here |
//! | `admission/` | who may use it, as files and URLs say that may change |
//! | `https`, `pause` | asking others' servers, and how often |
//! | `config`, `check` | the configuration file; what the files that it names hold |

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")
)]

#[cfg(feature = "acme")]
mod acme;
pub mod admission;
mod audit;
mod both_ways;
mod certificate;
mod challenge;
mod check;
pub mod config;
mod context;
mod control;
mod delays;
#[cfg(any(feature = "acme", feature = "jwks"))]
mod https;
mod hub;
mod identity;
mod inherited;
mod journal;
mod limit;
mod limits;
mod listen;
mod observe;
mod outbox;
mod pace;
#[cfg(any(feature = "acme", feature = "jwks"))]
mod pause;
mod plane;
mod pressure;
mod proxies;
mod queue;
mod quic;
mod quota;
mod quotas;
mod refusals;
mod server;
mod stats;
mod strangers;
mod table;
mod tls;
mod udp;
mod vital;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use byway_wire::RelayUrl;

pub use admission::{AdmissionSource, Jwks, JwksUrl, JwksUrlError, TokenSources};
pub use byway_relay_core::io::NodeRate;
pub use byway_relay_core::relay::Load;
pub use byway_relay_core::{Admission, Counters as ControlStats};
pub use check::{Found, FoundCertificate, FoundKeys};
pub use identity::CertificateStatus;
pub use inherited::Inherited;
pub use ipnet::IpNet;
pub use limits::{EgressLimits, HandshakeLimits, LimitError, Limits, kpps, mbit};
pub use server::{Server, Stats};
pub use stats::DataStats;

/// What a relay needs to start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// UDP and TCP addresses to listen on; each gets both. Port 0 picks a free port, the same for both.
    pub listen: Vec<SocketAddr>,
    /// The relay's name, told to nodes.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Who may use it.
    pub admission: AdmissionSource,
    /// UDP shards; 0 means one per core.
    pub shards: usize,
    /// Host by which nodes know the relay; the first listening address otherwise. Must be right where an ingress or a
    /// proxy ends TLS before the relay: a node that dialled another host is refused then.
    pub public_host: Option<String>,
    /// Certificate and key in PEM files. None: a certificate signed by itself, made at each start and known by its pin
    /// (but see `identity`). Files that change are read again while the relay runs, which then also listens for SIGHUP to
    /// look at once.
    pub cert: Option<CertFiles>,
    /// Without a certificate of others: the PEM file that holds a key and a certificate signed by itself, made at the first
    /// start, so that the pin stays the same. None: another one at each start.
    pub identity: Option<PathBuf>,
    /// A certificate that the relay orders from an authority and renews by itself.
    pub acme: Option<Acme>,
    /// How often the certificate files are looked at.
    pub reload_every: Duration,
    /// Addresses on which an ingress that ends TLS hands on HTTP for TLS links, in the clear. Needs `public_host`. Nodes
    /// that come this way know the relay by the ingress's certificate, so their URL must not carry the relay's own pin.
    pub plain_http: Vec<SocketAddr>,
    /// Networks of proxies: they may come to `plain_http`, are believed there in what `X-Forwarded-For` says of their
    /// client, and have no limit of new connections of their own. Everybody else is refused there, but this machine. An
    /// ingress on this machine belongs here, too, or all its clients pass for programs of this machine.
    pub trusted_proxies: Vec<IpNet>,
    /// Where `/metrics`, `/status`, `/healthz` and `/readyz` are answered, in the clear and to anybody who can reach it: for the inside
    /// of a network.
    pub observe: Option<SocketAddr>,
    /// A file for the audit log: JSON lines, who linked and who had a channel with whom.
    pub audit: Option<PathBuf>,
    /// How long nodes have to go elsewhere once the relay is told to stop ([`Server::drain`]).
    pub drain_for: Duration,
    /// Where they may go then: its successor, its neighbours. Nodes take four at the most.
    pub alternates: Vec<RelayUrl>,
    /// A socket in the file system by which `byway-relay drain` reaches the relay. Whoever runs as the same user, or as root, may use
    /// it.
    pub control: Option<PathBuf>,
    /// What a node, or a stranger, may take.
    pub limits: Limits,
    /// Longest payload forwarded, in bytes (design section 12).
    pub max_datagram: u32,
    /// Refuse TLS links whose TLS ends before the relay (an ingress, an inspecting proxy).
    pub require_channel_binding: bool,
}

/// Where the relay's certificate is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertFiles {
    /// The chain, the relay's own certificate first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How the relay gets its certificate from an authority, by ACME (RFC 8555). The authority comes to port 443 of every
/// domain to see that it leads here (TLS-ALPN-01, RFC 8737), so the relay must listen there, without an ingress that ends TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Acme {
    /// Names for the certificate: host names, without wildcards. The first is the relay's public host unless another is
    /// given.
    pub domains: Vec<String>,
    /// Where the authority may write about the certificate: addresses of e-mail.
    pub contact: Vec<String>,
    /// The authority's directory; Let's Encrypt's by default. To use it is to agree to its terms of service.
    pub directory_url: String,
    /// Directory for the account's key and the certificate. Nobody else may read it.
    pub cache: PathBuf,
    /// PEM files of authorities to trust besides the system's when talking to the directory: for one of your own.
    pub extra_roots: Vec<PathBuf>,
    /// How long to wait after the first failure, and at least between two orders. Twice as long after each further
    /// failure, at most 12 hours.
    pub first_retry: Duration,
}

impl Acme {
    /// Certificates of Let's Encrypt for these domains, kept in `cache`.
    pub fn new(domains: Vec<String>, cache: PathBuf) -> Self {
        Self {
            domains,
            contact: Vec::new(),
            directory_url: "https://acme-v02.api.letsencrypt.org/directory".into(),
            cache,
            extra_roots: Vec::new(),
            // Four tries in the first hour: Let's Encrypt allows five failures.
            first_retry: Duration::from_secs(5 * 60),
        }
    }
}

impl ServerConfig {
    /// A relay on these addresses for whom `admission` admits; everything else as usual.
    pub fn new(listen: Vec<SocketAddr>, admission: impl Into<AdmissionSource>) -> Self {
        Self {
            listen,
            name: "relay".into(),
            region: "default".into(),
            admission: admission.into(),
            shards: 0,
            public_host: None,
            cert: None,
            identity: None,
            acme: None,
            plain_http: Vec::new(),
            trusted_proxies: Vec::new(),
            reload_every: Duration::from_secs(5),
            observe: None,
            audit: None,
            // The time that orchestrators leave a process by default before they kill it.
            drain_for: Duration::from_secs(30),
            alternates: Vec::new(),
            control: None,
            limits: Limits::default(),
            max_datagram: 9_000,
            require_channel_binding: false,
        }
    }
    /// Loopback, self-signed, open to anyone on this machine: for development.
    pub fn dev() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Self::new(vec![listen], Admission::Open);
        config.name = "dev".into();
        config.region = "dev".into();
        config.drain_for = Duration::ZERO;
        config
    }
}
