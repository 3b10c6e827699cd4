//! A relay on loopback, and small nodes that speak its protocol by hand: what they send is what a test says, byte by
//! byte.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

pub(crate) mod process;
pub(crate) mod root;
pub(crate) mod tls;
pub(crate) mod typist;
pub(crate) mod udp;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_relay::{Server, ServerConfig, Stats};
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Control, Hello, Open, Role, VERSION};
use byway_wire::{
    ChannelId, Instance, NodeId, NodeInstance, ProbeSecret, Record, SecretKey, SignedRecord,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};

/// Long enough for a busy machine; a test that works never waits for it.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) async fn start() -> Server {
    start_with(|_| {}).await
}
pub(crate) async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = ServerConfig::dev();
    config.shards = 2;
    change(&mut config);
    Server::start(config).await.unwrap()
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen in time: {what}"),
    }
}

/// Waits until the relay's counters say so.
pub(crate) async fn until(
    server: &Server,
    what: &str,
    mut condition: impl FnMut(&Stats) -> bool,
) -> Stats {
    let deadline = Instant::now() + SOON;
    loop {
        let stats = server.stats();
        if condition(&stats) {
            return stats;
        }
        assert!(
            Instant::now() < deadline,
            "did not happen in time: {what}; {stats:#?}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Node number `n`'s key.
pub(crate) fn key(n: u8) -> Arc<SecretKey> {
    key_of(n.into())
}
/// The same where there are many.
pub(crate) fn key_of(n: u32) -> Arc<SecretKey> {
    let bytes = match u8::try_from(n) {
        Ok(n) => [n; 32],
        Err(_) => std::array::from_fn(|at| n.to_be_bytes()[at % 4]),
    };
    Arc::new(SecretKey::from_bytes(&bytes))
}
pub(crate) fn node(n: u8) -> NodeId {
    key(n).node_id()
}
pub(crate) fn record(n: u8) -> SignedRecord {
    record_of(n.into())
}
fn record_of(n: u32) -> SignedRecord {
    let key = key_of(n);
    let id = NodeInstance {
        node: key.node_id(),
        instance: Instance(u64::from(n)),
    };
    let record = Record {
        id,
        probe_key: ProbeSecret::from_bytes([n as u8; 32]).public(),
        epoch: 1,
        seq: 1,
        relays: Vec::new(),
    };
    SignedRecord::sign(&key, record)
}
pub(crate) fn hello(n: u8, role: Role) -> Control {
    hello_of(n.into(), role)
}
pub(crate) fn hello_of(n: u32, role: Role) -> Control {
    Control::Hello(Hello {
        versions: vec![VERSION],
        role,
        record: record_of(n),
        token: None,
    })
}
pub(crate) fn channel(n: u64) -> ChannelId {
    ChannelId::from_u64(n)
}
pub(crate) fn open(id: u64, peer: u8) -> Control {
    open_to(id, peer.into())
}
pub(crate) fn open_to(id: u64, peer: u32) -> Control {
    Control::Open(Open {
        channel: channel(id),
        peer: key_of(peer).node_id(),
        proof: None,
        first: Vec::new(),
        wait_ms: 0,
    })
}

/// A relay-data datagram of `len` bytes in all, its payload filled with `tag`.
pub(crate) fn data(id: u64, tag: u8, len: usize) -> Vec<u8> {
    let mut datagram = channel(id).header().to_vec();
    datagram.resize(len, tag);
    datagram
}

pub(crate) fn addr(server: &Server) -> SocketAddr {
    server.local_addrs()[0]
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Knows the relay by its pin.
#[derive(Debug)]
pub(crate) struct PinVerifier(pub(crate) Pin);

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let seen: [u8; 32] = Sha256::digest(parsed.subject_public_key_info()).into();
        if seen == self.0.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("another pin".into()))
        }
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("no TLS 1.2".into()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
