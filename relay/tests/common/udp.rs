//! A node on a UDP link: QUIC control and plain data on one socket.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use byway_relay::Server;
use byway_wire::SecretKey;
use byway_wire::relay::control::{Control, Role};
use byway_wire::relay::frame::{StreamDecoder, encode_stream};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, Connection, Endpoint, EndpointConfig, RecvStream, Runtime, SendStream,
    TokioRuntime, UdpPoller,
};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::mpsc;

use super::{PinVerifier, hello, key, provider, soon};

/// Gives QUIC to quinn and everything else to the test.
#[derive(Debug)]
struct Shared {
    inner: Arc<dyn AsyncUdpSocket>,
    other: mpsc::UnboundedSender<Vec<u8>>,
}

impl AsyncUdpSocket for Shared {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter().zip(&mut meta[..n]) {
            if buf[0] & 0x40 == 0 {
                for datagram in buf[..meta.len].chunks(meta.stride) {
                    let _ = self.other.send(datagram.to_vec());
                }
                meta.len = 0;
            }
        }
        Poll::Ready(Ok(n))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }
}

/// Sends, and hears nothing: whoever begins a handshake from here never ends it, as with a forged address.
#[derive(Debug)]
struct Deaf(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }
    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Begins handshakes that will not end while the result is held.
pub(crate) fn unfinished(server: &Server, count: usize) -> (Endpoint, Vec<quinn::Connecting>) {
    let relay = super::addr(server);
    let socket = std::net::UdpSocket::bind(SocketAddr::new(relay.ip(), 0)).unwrap();
    let socket = Deaf(TokioRuntime.wrap_udp_socket(socket).unwrap());
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::new(socket),
        Arc::new(TokioRuntime),
    )
    .unwrap();
    let config = client_config(server, Some(&key(1)));
    let connecting = (0..count)
        .map(|_| {
            endpoint
                .connect_with(config.clone(), relay, "relay.invalid")
                .unwrap()
        })
        .collect();
    (endpoint, connecting)
}

pub(crate) struct UdpNode {
    pub(crate) n: u8,
    pub(crate) relay: SocketAddr,
    socket: Arc<Shared>,
    raw: std::net::UdpSocket,
    received: mpsc::UnboundedReceiver<Vec<u8>>,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    recv: RecvStream,
    decoder: StreamDecoder,
    endpoint: Endpoint,
}

/// The TLS configuration of a node; `None` shows no key.
pub(crate) fn client_config(server: &Server, key: Option<&SecretKey>) -> quinn::ClientConfig {
    client_config_for(server.certificate().pin, key)
}
pub(crate) fn client_config_for(
    pin: byway_wire::relay::Pin,
    key: Option<&SecretKey>,
) -> quinn::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier(pin)));
    let mut config = match key {
        None => builder.with_no_client_auth(),
        Some(key) => {
            let der = PrivatePkcs8KeyDer::from(key.to_pkcs8_der().to_vec());
            let signer = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&der).unwrap();
            let spki = CertificateDer::from(key.node_id().to_spki_der().to_vec());
            let certified = CertifiedKey::new(vec![spki], signer);
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::new(certified),
            )))
        }
    };
    config.alpn_protocols = vec![b"byway-relay/1".to_vec()];
    config.enable_sni = false;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    quinn::ClientConfig::new(Arc::new(crypto))
}

impl UdpNode {
    /// Connects, and says nothing yet.
    pub(crate) async fn connect(server: &Server, n: u8) -> Self {
        Self::connect_to(server, server.local_addrs()[0], n).await
    }
    pub(crate) async fn connect_to(server: &Server, relay: SocketAddr, n: u8) -> Self {
        let (socket, raw, received) = bind(relay);
        let mut config = EndpointConfig::default();
        config.grease_quic_bit(false);
        let endpoint = Endpoint::new_with_abstract_socket(
            config,
            None,
            Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>,
            Arc::new(TokioRuntime),
        )
        .unwrap();
        let config = client_config(server, Some(&key(n)));
        let connecting = endpoint
            .connect_with(config, relay, "relay.invalid")
            .unwrap();
        let connection = soon("QUIC handshake", connecting).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Self {
            n,
            relay,
            socket,
            raw,
            received,
            connection,
            send,
            recv,
            decoder: StreamDecoder::default(),
            endpoint,
        }
    }
    /// What a NAT that restarts looks like from outside: everything comes from another port.
    pub(crate) fn change_port(&mut self) {
        let (socket, raw, received) = bind(self.relay);
        let shared = Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>;
        self.endpoint.rebind_abstract(shared).unwrap();
        (self.socket, self.raw) = (socket, raw);
        self.received = received;
    }
    /// Connects and is welcomed.
    pub(crate) async fn welcome(server: &Server, n: u8, role: Role) -> Self {
        Self::welcome_at(server, server.local_addrs()[0], n, role).await
    }
    pub(crate) async fn welcome_at(server: &Server, relay: SocketAddr, n: u8, role: Role) -> Self {
        let mut node = Self::connect_to(server, relay, n).await;
        node.say(&hello(n, role)).await;
        match node.hear().await {
            Control::Welcome(welcome) => assert_eq!(welcome.observed, node.local()),
            other => panic!("{}", other.name()),
        }
        node
    }
    /// The socket itself, for who sends more than a test does.
    pub(crate) fn raw(&self) -> std::net::UdpSocket {
        self.raw.try_clone().unwrap()
    }
    pub(crate) fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
    pub(crate) async fn say(&mut self, message: &Control) {
        let mut out = BytesMut::new();
        encode_stream(message, &mut out);
        self.send.write_all(&out).await.unwrap();
    }
    /// The next control message; none when the link has ended.
    pub(crate) async fn try_hear(&mut self) -> Option<Control> {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            let chunk = soon("a control message", self.recv.read_chunk(65_536, true))
                .await
                .ok()??;
            self.decoder.push(&chunk.bytes);
        }
    }
    pub(crate) async fn hear(&mut self) -> Control {
        self.try_hear().await.expect("the link has ended")
    }
    /// Sends datagrams of `segment` bytes each as one GSO batch.
    pub(crate) fn send_batch(&self, bytes: &[u8], segment: usize) {
        let transmit = Transmit {
            destination: self.relay,
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > segment).then_some(segment),
            src_ip: None,
        };
        self.socket.try_send(&transmit).unwrap();
    }
    /// Sends on this channel more than any buffer holds, for ever.
    pub(crate) async fn flood(&self, id: u64) {
        let batch: Vec<u8> = (0..40).flat_map(|n| super::data(id, n, 1_452)).collect();
        loop {
            self.send_batch(&batch, 1_452);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    pub(crate) fn send_data(&self, datagram: &[u8]) {
        self.send_batch(datagram, datagram.len());
    }
    /// The next datagram that is not QUIC.
    pub(crate) async fn recv_data(&mut self) -> Vec<u8> {
        soon("a datagram", self.received.recv()).await.unwrap()
    }
    /// A datagram that is already here.
    pub(crate) fn pending_data(&mut self) -> Option<Vec<u8>> {
        self.received.try_recv().ok()
    }
    /// Proves that everything sent before has arrived: an echo overtakes nothing on loopback and one shard.
    pub(crate) async fn echo(&mut self) -> Vec<Vec<u8>> {
        let probe = super::data(0, 0xee, 60);
        self.send_data(&probe);
        let mut before = Vec::new();
        loop {
            let datagram = self.recv_data().await;
            if datagram == probe {
                return before;
            }
            before.push(datagram);
        }
    }
}

fn bind(
    towards: SocketAddr,
) -> (
    Arc<Shared>,
    std::net::UdpSocket,
    mpsc::UnboundedReceiver<Vec<u8>>,
) {
    let any = SocketAddr::new(towards.ip(), 0);
    let socket = std::net::UdpSocket::bind(any).unwrap();
    let raw = socket.try_clone().unwrap();
    let inner = TokioRuntime.wrap_udp_socket(socket).unwrap();
    let (other, received) = mpsc::unbounded_channel();
    (Arc::new(Shared { inner, other }), raw, received)
}

/// An agent and a client with channel 9 between them.
pub(crate) async fn pair(server: &Server) -> (UdpNode, UdpNode) {
    let mut agent = UdpNode::welcome(server, 2, Role::Agent).await;
    let mut client = UdpNode::welcome(server, 1, Role::Client).await;
    join(&mut client, &mut agent, 9).await;
    (client, agent)
}

/// Opens a channel and answers it.
pub(crate) async fn join(client: &mut UdpNode, agent: &mut UdpNode, id: u64) {
    client.say(&super::open(id, agent.n)).await;
    assert!(matches!(client.hear().await, Control::Opened(_)));
    assert!(matches!(agent.hear().await, Control::Incoming(_)));
    agent
        .say(&Control::Accept {
            channel: super::channel(id),
        })
        .await;
    // It was let in, and hears where the other side is.
    assert!(matches!(client.hear().await, Control::PeerMoved { .. }));
}
