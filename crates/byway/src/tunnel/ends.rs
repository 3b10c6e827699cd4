//! Two ends of a connection without an endpoint of ours around it, for tests of what is said on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use byway_wire::{Instance, ProbeSecret, Record, SecretKey, SignedRecord};
use quinn::Connection;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use crate::tls;

pub(super) fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

pub(super) fn record(n: u8) -> SignedRecord {
    SignedRecord::sign(
        &key(n),
        Record {
            id: byway_wire::NodeInstance {
                node: key(n).node_id(),
                instance: Instance(1),
            },
            probe_key: ProbeSecret::from_bytes([n; 32]).public(),
            epoch: 1,
            seq: 1,
            relays: Vec::new(),
        },
    )
}

/// Both ends of a connection between client 1 and agent 2, and the endpoints that keep it.
pub(super) struct Ends {
    pub(super) client: Connection,
    pub(super) agent: Connection,
    _endpoints: [quinn::Endpoint; 2],
}

pub(super) async fn ends() -> Ends {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = QuicServerConfig::try_from(tls::tunnel_server(&key(2)).unwrap()).unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(server));
    let server = quinn::Endpoint::server(server, any).unwrap();
    let client = QuicClientConfig::try_from(tls::tunnel_client(&key(1)).unwrap()).unwrap();
    let mut dialler = quinn::Endpoint::client(any).unwrap();
    dialler.set_default_client_config(quinn::ClientConfig::new(Arc::new(client)));
    let name = key(2).node_id().server_name();
    let dialled = dialler
        .connect(server.local_addr().unwrap(), &name)
        .unwrap();
    let (client, agent) = tokio::join!(dialled, async { server.accept().await.unwrap().await });
    Ends {
        client: client.unwrap(),
        agent: agent.unwrap(),
        _endpoints: [server, dialler],
    }
}
