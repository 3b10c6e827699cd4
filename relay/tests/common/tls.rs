//! A node on a TLS link.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use byway_relay::Server;
use byway_wire::key::Purpose;
use byway_wire::relay::control::{Challenge, Control, Prove, Role};
use byway_wire::relay::frame::Frame;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::{PinVerifier, addr, hello, key, provider, soon};

pub(crate) struct TlsNode {
    pub(crate) ws: WebSocketStream<TlsStream<TcpStream>>,
    pub(crate) challenge: Challenge,
    pub(crate) exporter: [u8; 32],
    pub(crate) local: SocketAddr,
}

/// A TLS connection, nothing said.
pub(crate) async fn tls(server: &Server) -> TlsStream<TcpStream> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier(server.url().pin().unwrap())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(addr(server)).await.unwrap();
    let name = ServerName::try_from("relay.invalid").unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    soon("TLS handshake", connect).await.unwrap()
}

impl TlsNode {
    /// Connects and is challenged.
    pub(crate) async fn connect(server: &Server) -> Self {
        let stream = tls(server).await;
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
            exporter,
            local,
        }
    }
    /// Proves key `signer` for node `n`, having seen `exporter`.
    pub(crate) async fn prove(&mut self, n: u8, signer: u8, exporter: [u8; 32]) {
        let nonce = [5; 32];
        let signed = Prove::signed_bytes(&self.challenge, &nonce, &exporter);
        let proof = Prove {
            node: key(n).node_id(),
            nonce,
            exporter,
            signature: key(signer).sign(Purpose::LinkProof, &signed),
        };
        self.say(Control::Prove(proof)).await;
    }
    /// Connects and is welcomed.
    pub(crate) async fn welcome(server: &Server, n: u8, role: Role) -> Self {
        let mut node = Self::connect(server).await;
        let exporter = node.exporter;
        node.prove(n, n, exporter).await;
        node.say(hello(n, role)).await;
        match node.hear().await {
            Control::Welcome(welcome) => assert_eq!(welcome.observed, node.local),
            other => panic!("{}", other.name()),
        }
        node
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

async fn hear_on(ws: &mut WebSocketStream<TlsStream<TcpStream>>) -> Option<Frame> {
    loop {
        let message = soon("a frame", ws.next()).await?.ok()?;
        if message.is_binary() {
            return Some(Frame::decode(message.into_payload().into()).unwrap());
        }
    }
}
