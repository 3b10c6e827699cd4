//! A node on a TLS link.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use byway_relay::Server;
use byway_wire::RelayUrl;
use byway_wire::key::Purpose;
use byway_wire::relay::Pin;
use byway_wire::relay::control::{Challenge, Control, LinkClaim, Prove, Role};
use byway_wire::relay::frame::Frame;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::udp::UdpNode;
use super::{PinVerifier, addr, hello, hello_of, key, key_of, provider, soon};

/// What a node speaks by.
pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

pub(crate) struct TlsNode {
    pub(crate) ws: Socket,
    pub(crate) challenge: Challenge,
    /// What it will say of the way here; a test may change it.
    pub(crate) claim: LinkClaim,
    pub(crate) local: SocketAddr,
}

/// A TLS connection, nothing said.
pub(crate) async fn tls(server: &Server) -> TlsStream<TcpStream> {
    tls_to(addr(server), server.url().pin().unwrap()).await
}
/// The same with whoever is there and has this key.
pub(crate) async fn tls_to(to: SocketAddr, pin: Pin) -> TlsStream<TcpStream> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier(pin)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(to).await.unwrap();
    // As nodes do: otherwise half of what they say waits for an acknowledgement.
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("relay.invalid").unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    soon("TLS handshake", connect).await.unwrap()
}

impl TlsNode {
    /// Connects and is challenged.
    pub(crate) async fn connect(server: &Server) -> Self {
        let (url, pin) = (server.url(), server.url().pin().unwrap());
        Self::connect_to(addr(server), pin, &url.authority()).await
    }
    /// Dials `dialled`, which leads to `to`, where somebody shows the key of `pin`.
    pub(crate) async fn connect_to(to: SocketAddr, pin: Pin, dialled: &str) -> Self {
        let stream = tls_to(to, pin).await;
        let local = stream.get_ref().0.local_addr().unwrap();
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], b"EXPORTER-byway-link", None)
            .unwrap();
        let uri = "wss://relay.invalid/byway/v1";
        let builder = ClientBuilder::new().uri(uri).unwrap();
        let (mut ws, _) = soon("upgrade", builder.connect_on(stream)).await.unwrap();
        let challenge = match hear_on(&mut ws).await {
            Some(Frame::Control(Control::Challenge(challenge))) => challenge,
            other => panic!("{other:?}"),
        };
        Self {
            ws,
            challenge,
            claim: LinkClaim {
                nonce: [5; 32],
                exporter,
                dialled: dialled.to_owned(),
                certificate: pin,
                role: Role::Client,
            },
            local,
        }
    }
    /// Proves key `signer` for node `n`.
    pub(crate) async fn prove(&mut self, n: u8, signer: u8) {
        self.prove_by(key(n).node_id(), &key(signer)).await;
    }
    pub(crate) async fn prove_by(
        &mut self,
        node: byway_wire::NodeId,
        signer: &byway_wire::SecretKey,
    ) {
        let signed = Prove::signed_bytes(&self.challenge, &self.claim);
        let proof = Prove {
            node,
            claim: self.claim.clone(),
            signature: signer.sign(Purpose::LinkProof, &signed),
        };
        self.say(Control::Prove(proof)).await;
    }
    /// Connects and is welcomed.
    pub(crate) async fn welcome(server: &Server, n: u8, role: Role) -> Self {
        let mut node = Self::connect(server).await;
        node.claim.role = role;
        node.prove(n, n).await;
        node.say(hello(n, role)).await;
        match node.hear().await {
            Control::Welcome(welcome) => assert_eq!(welcome.observed, node.local),
            other => panic!("{}", other.name()),
        }
        node
    }
    /// The same at the relay of this URL, which is an address: node `n`, if it is welcomed.
    pub(crate) async fn welcome_at(url: &RelayUrl, n: u32, role: Role) -> Option<Self> {
        let ip: IpAddr = url.host().parse().unwrap();
        let to = SocketAddr::new(ip, url.port());
        let mut node = Self::connect_to(to, url.pin().unwrap(), &url.authority()).await;
        let key = key_of(n);
        node.claim.role = role;
        node.prove_by(key.node_id(), &key).await;
        node.say(hello_of(n, role)).await;
        matches!(node.hear().await, Control::Welcome(_)).then_some(node)
    }
    pub(crate) async fn say(&mut self, message: Control) {
        self.send(Frame::Control(message).encode()).await;
    }
    pub(crate) async fn send(&mut self, frame: Bytes) {
        self.ws.send(Message::binary(frame)).await.unwrap();
    }
    /// The next frame; none when the link has ended.
    pub(crate) async fn try_hear(&mut self) -> Option<Frame> {
        hear_on(&mut self.ws).await
    }
    pub(crate) async fn hear(&mut self) -> Control {
        match self.try_hear().await {
            Some(Frame::Control(message)) => message,
            other => panic!("{other:?}"),
        }
    }
}

async fn hear_on(ws: &mut Socket) -> Option<Frame> {
    loop {
        let message = soon("a frame", ws.next()).await?.ok()?;
        if message.is_binary() {
            return Some(Frame::decode(message.into_payload().into()).unwrap());
        }
    }
}

/// A client on a TLS link, and an agent on a UDP link, with channel 9 between them.
pub(crate) async fn bridged(server: &Server) -> (TlsNode, UdpNode) {
    let mut agent = UdpNode::welcome(server, 2, Role::Agent).await;
    let mut client = TlsNode::welcome(server, 1, Role::Client).await;
    client.say(super::open(9, 2)).await;
    assert!(matches!(client.hear().await, Control::Opened(_)));
    assert!(matches!(agent.hear().await, Control::Incoming(_)));
    let channel = super::channel(9);
    agent.say(&Control::Accept { channel }).await;
    assert_let_in(&mut client).await;
    (client, agent)
}

/// It was let in, and hears where the other side is.
async fn assert_let_in(opener: &mut TlsNode) {
    let told = opener.hear().await;
    assert!(matches!(told, Control::PeerMoved { .. }), "{told:?}");
}

/// A channel from one node to another, who is number `n`.
pub(crate) async fn join(opener: &mut TlsNode, target: &mut TlsNode, n: u32, id: u64) {
    opener.say(super::open_to(id, n)).await;
    let opened = opener.hear().await;
    assert!(matches!(opened, Control::Opened(_)), "{opened:?}");
    assert!(matches!(target.hear().await, Control::Incoming(_)));
    let channel = super::channel(id);
    target.say(Control::Accept { channel }).await;
    assert_let_in(opener).await;
}

/// Ends TLS with a certificate of its own and hands every byte on to the relay: a proxy that inspects, an ingress, or
/// another relay that wants to pass for its nodes.
pub(crate) struct Interceptor {
    pub(crate) addr: SocketAddr,
    pub(crate) pin: Pin,
    /// Dropping it ends the connections.
    _task: JoinSet<()>,
}

impl Interceptor {
    pub(crate) async fn start(server: &Server) -> Self {
        Self::run(addr(server), server.url().pin(), "").await
    }
    /// An ingress that hands on in the clear, with these headers added to the request.
    pub(crate) async fn plain(plain: SocketAddr, headers: &str) -> Self {
        Self::run(plain, None, headers).await
    }
    /// One that encrypts again.
    pub(crate) async fn encrypting(server: &Server, headers: &str) -> Self {
        Self::run(addr(server), server.url().pin(), headers).await
    }
    /// Hands on to `relay`, over TLS if it knows its pin, with these headers added to the request.
    async fn run(relay: SocketAddr, relay_pin: Option<Pin>, headers: &str) -> Self {
        let (acceptor, pin) = acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let headers = headers.to_owned();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, headers) = (acceptor.clone(), headers.clone());
                connections.spawn(async move {
                    let node = acceptor.accept(tcp).await.unwrap();
                    match relay_pin {
                        Some(pin) => hand_on(node, tls_to(relay, pin).await, &headers).await,
                        None => {
                            let relay = TcpStream::connect(relay).await.unwrap();
                            hand_on(node, relay, &headers).await;
                        }
                    }
                });
            }
        });
        Self {
            addr,
            pin,
            _task: task,
        }
    }
}

fn acceptor() -> (TlsAcceptor, Pin) {
    let made = rcgen::generate_simple_self_signed(vec!["other.example".into()]).unwrap();
    let parsed = ParsedCertificate::try_from(made.cert.der()).unwrap();
    let pin = Pin(Sha256::digest(parsed.subject_public_key_info()).into());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pin)
}

/// Adds headers behind the request's first line; then every byte as it comes.
async fn hand_on<N, R>(mut node: N, mut relay: R, headers: &str)
where
    N: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite + Unpin,
{
    if !headers.is_empty() {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(node.read_u8().await.unwrap());
        }
        line.extend_from_slice(headers.as_bytes());
        relay.write_all(&line).await.unwrap();
    }
    // However it ends, it ends.
    let _ = tokio::io::copy_bidirectional(&mut node, &mut relay).await;
}
