//! quinn's settings for tunnels.

use std::sync::Arc;
use std::time::Duration;

use byway_congestion::{Congestion, FlowMonitor, PathAwareFactory};
use byway_wire::SecretKey;
use byway_wire::relay::data::HEADER_LEN;
use hmac::{Hmac, KeyInit, Mac};
use quinn::crypto::HmacKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use sha2::Sha256;

use crate::driver::Peer;
use crate::tls;

/// Longer than a night in a bag, and a day; what the path does meanwhile is reported by the
/// path layer, which knows within a second.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Target: 1 Gbit/s at 100 ms, so 12.5 MB in flight on one stream.
const STREAM_WINDOW: u32 = 12_500_000;
/// A stream that nobody reads must not stall the others soon: eight of them fill the connection. The same bound holds
/// for what may wait unacknowledged on the sending side.
const CONNECTION_WINDOW: u32 = 8 * STREAM_WINDOW;
/// Streams the other side may have open: a browser opens six connections a host, an IDE a few hundred. And that of the
/// greeting, which stays for as long as the tunnel.
const STREAMS: u32 = 1024 + 1;
/// What waits in datagrams, each way: 10 ms at 1 Gbit/s. The oldest goes first.
const DATAGRAMS: usize = 1_250_000;
/// Handshakes that wait for the accept loop, and what each may have sent meanwhile (design section 12).
const MAX_INCOMING: usize = 1024;
const INCOMING_BUFFER: u64 = 128 * 1024;

/// Everything that is the same for all tunnels of an endpoint.
pub(super) struct Quic {
    client: Arc<QuicClientConfig>,
    server: ServerConfig,
    max_datagram: u16,
    congestion: Congestion,
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic").finish_non_exhaustive()
    }
}

impl Quic {
    pub(super) fn new(
        key: &SecretKey,
        max_datagram: u16,
        congestion: Congestion,
    ) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let client = tls::tunnel_client(key).map_err(|error| text(&error))?;
        let server = tls::tunnel_server(key).map_err(|error| text(&error))?;
        let server = QuicServerConfig::try_from(server).map_err(|error| text(&error))?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server
            .migration(false)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER);
        Ok(Self {
            client: Arc::new(QuicClientConfig::try_from(client).map_err(|error| text(&error))?),
            server,
            max_datagram,
            congestion,
        })
    }

    /// For the endpoint itself: accepting is decided for each connection, with [`Quic::accept`].
    pub(super) fn endpoint_server(&self) -> ServerConfig {
        self.server.clone()
    }

    /// For one tunnel to `peer`: `monitor` tells its congestion controller of the peer's paths.
    pub(super) fn connect(&self, peer: &Peer, monitor: &Arc<FlowMonitor>) -> quinn::ClientConfig {
        let mut config = quinn::ClientConfig::new(Arc::clone(&self.client) as _);
        config.transport_config(Arc::new(self.transport(peer, monitor)));
        config
    }

    /// As [`Quic::connect`], for a tunnel that comes in.
    pub(super) fn accept(&self, peer: &Peer, monitor: &Arc<FlowMonitor>) -> Arc<ServerConfig> {
        let mut config = self.server.clone();
        config.transport_config(Arc::new(self.transport(peer, monitor)));
        Arc::new(config)
    }

    fn transport(&self, peer: &Peer, monitor: &Arc<FlowMonitor>) -> TransportConfig {
        let bound = peer.route.search_bound().unwrap_or(self.max_datagram);
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(bound.min(self.max_datagram));
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(IDLE.try_into().ok())
            .keep_alive_interval(None)
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(CONNECTION_WINDOW.into())
            .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(Some(DATAGRAMS))
            .datagram_send_buffer_size(DATAGRAMS)
            .mtu_discovery_config(Some(mtu))
            // The spin bit would show every observer the round-trip time.
            .allow_spin(false)
            .congestion_controller_factory(Arc::new(PathAwareFactory::choosing(
                Arc::clone(monitor),
                self.congestion,
            )));
        transport
    }
}

/// Derived keys make a restarted process recognise the connection ids of the one before, so that it can end its tunnels
/// at once instead of after their idle timeout.
pub(super) fn endpoint_config(
    key: &SecretKey,
    max_datagram: u16,
) -> Result<EndpointConfig, String> {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(*key.derive("quic stateless reset"))));
    let derived = key.derive("quic connection ids");
    let [a, b, c, d, e, f, g, h, ..] = *derived;
    let id_key = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)))
        // 128-191 as first byte are ours (RFC 9443).
        .grease_quic_bit(false)
        // A relay header in front must fit the receive buffer too.
        .max_udp_payload_size(max_datagram.max(1464) + HEADER_LEN as u16)
        .map_err(|error| error.to_string())?;
    Ok(config)
}

struct ResetKey([u8; 32]);

impl ResetKey {
    fn mac(&self, data: &[u8]) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(data);
        Some(mac)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        if let Some(mac) = self.mac(data) {
            signature_out.copy_from_slice(&mac.finalize().into_bytes());
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        self.mac(data)
            .and_then(|mac| mac.verify_slice(signature).ok())
            .ok_or(quinn::crypto::CryptoError)
    }
}

impl Drop for ResetKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_key_signs_and_refuses() {
        let key = ResetKey([7; 32]);
        let mut signature = [0; 32];
        key.sign(b"connection id", &mut signature);
        assert!(key.verify(b"connection id", &signature).is_ok());
        assert!(key.verify(b"another", &signature).is_err());
        signature[0] ^= 1;
        assert!(key.verify(b"connection id", &signature).is_err());
        assert!(key.verify(b"connection id", &[]).is_err());
    }

    #[test]
    fn a_restarted_process_knows_its_connection_ids() {
        use quinn::ConnectionIdGenerator;
        let key = SecretKey::from_bytes(&[3; 32]);
        let id_key = |key: &SecretKey| {
            u64::from_be_bytes(key.derive("quic connection ids")[..8].try_into().unwrap())
        };
        let mut before = HashedConnectionIdGenerator::from_key(id_key(&key));
        let after = HashedConnectionIdGenerator::from_key(id_key(&key));
        let other = HashedConnectionIdGenerator::from_key(id_key(&SecretKey::from_bytes(&[4; 32])));
        let id = before.generate_cid();
        assert!(after.validate(&id).is_ok());
        assert!(other.validate(&id).is_err());
    }
}
