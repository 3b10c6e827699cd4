//! A handshake and packet protection for quinn-proto that repeat exactly.
//!
//! Real TLS draws its randomness from the system, so no two runs would have the same bytes on the wire and a failing
//! seed would not replay. This session takes its randomness from the seed. What matters to everything below it is kept:
//!
//! - the same flights: ClientHello; ServerHello, then EncryptedExtensions to Finished; the client's Certificate to
//!   Finished; with about the sizes of raw public keys under X25519MLKEM768 (so the first flight is two full
//!   datagrams), each in the packet number space it has in TLS;
//! - both sides prove their node key by a signature over both hellos, and the client pins the key it dialled;
//! - 16-byte tags over key, packet number, header and payload: a forged or damaged packet does not authenticate.
//!
//! What it does not have is secrecy: payloads are in the clear, and the packet keys follow from both hellos. Nothing in
//! the simulation attacks the cipher; the real one is tested in `byway` and `lab`.

use std::any::Any;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use byway_wire::key::Purpose;
use byway_wire::{NodeId, SecretKey};
use quinn_proto::crypto::{
    AeadKey, ClientConfig, CryptoError, ExportKeyingMaterialError, HandshakeTokenKey, HeaderKey,
    HmacKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};

use crate::rng::{FNV_OFFSET, Rng, fnv};

/// What a real ClientHello with an X25519MLKEM768 share (1,216 bytes) comes to.
const CLIENT_HELLO_LEN: usize = 1_560;
/// ServerHello: the ML-KEM ciphertext (1,088 bytes), an X25519 share and the rest.
const SERVER_HELLO_LEN: usize = 1_210;
/// EncryptedExtensions, CertificateRequest, Certificate (one SPKI), CertificateVerify, Finished.
const SERVER_FLIGHT_LEN: usize = 360;
/// Certificate, CertificateVerify, Finished.
const CLIENT_FLIGHT_LEN: usize = 220;
/// As AES-GCM's.
const TAG_LEN: usize = 16;

/// A certificate error of TLS: `bad_certificate` (RFC 8446 section 6).
const BAD_CERTIFICATE: u8 = 42;
/// `no_application_protocol` (RFC 7301).
const NO_PROTOCOL: u8 = 120;
/// `decode_error`.
const DECODE_ERROR: u8 = 50;

/// One node's credentials, for both sides of a handshake.
pub struct Credentials {
    key: Arc<SecretKey>,
    rng: Mutex<Rng>,
}

impl Credentials {
    /// The node's key, and the generator of its hellos' randoms.
    pub fn new(key: Arc<SecretKey>, rng: Rng) -> Arc<Self> {
        Arc::new(Self {
            key,
            rng: Mutex::new(rng),
        })
    }
    /// Who they belong to.
    pub fn node_id(&self) -> NodeId {
        self.key.node_id()
    }
    /// Signs with the node's key.
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> [u8; 64] {
        self.key.sign(purpose, message)
    }
    /// 32 bytes that nobody had before.
    pub fn random(&self) -> [u8; 32] {
        // A poisoned lock means that a test panicked already; its numbers no longer matter.
        match self.rng.lock() {
            Ok(mut rng) => rng.seed(),
            Err(poisoned) => poisoned.into_inner().seed(),
        }
    }
}

/// A client's side: speaks one protocol, pins the key in the server name.
pub struct Client {
    /// Who we are.
    pub credentials: Arc<Credentials>,
    /// The application protocol.
    pub alpn: &'static [u8],
}

/// A server's side: speaks several protocols.
pub struct Server {
    /// Who we are.
    pub credentials: Arc<Credentials>,
    /// The application protocols.
    pub alpn: Vec<&'static [u8]>,
}

/// What a handshake found, from [`Session::handshake_data`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandshakeData {
    /// The application protocol.
    pub alpn: Vec<u8>,
}

impl ClientConfig for Client {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let pinned = NodeId::from_server_name(server_name)
            .map_err(|_| ConnectError::InvalidServerName(server_name.to_owned()))?;
        let mut own_params = Vec::new();
        params.write(&mut own_params);
        Ok(Box::new(Handshake {
            side: Side::Client,
            credentials: self.credentials.clone(),
            stage: Stage::Start,
            pinned: Some(pinned),
            offered: vec![self.alpn],
            alpn: None,
            own_params,
            peer_params: None,
            peer: None,
            inbox: Vec::new(),
            secret: 0,
            transcript: Vec::new(),
            generation: 0,
            told: false,
        }))
    }
}

impl ServerConfig for Server {
    fn initial_keys(
        &self,
        _version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        Ok(keys(
            fnv(dst_cid, FNV_OFFSET),
            Level::Initial,
            0,
            Side::Server,
        ))
    }
    fn retry_tag(&self, _version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        tag(fnv(orig_dst_cid, FNV_OFFSET), 0, &[], packet)
    }
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let mut own_params = Vec::new();
        params.write(&mut own_params);
        Box::new(Handshake {
            side: Side::Server,
            credentials: self.credentials.clone(),
            stage: Stage::Start,
            pinned: None,
            offered: self.alpn.clone(),
            alpn: None,
            own_params,
            peer_params: None,
            peer: None,
            inbox: Vec::new(),
            secret: 0,
            transcript: Vec::new(),
            generation: 0,
            told: false,
        })
    }
}

/// How far a side has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Client: nothing sent. Server: nothing received.
    Start,
    /// Client: ClientHello sent. Server: ClientHello received, ServerHello to be sent.
    Hello,
    /// Handshake keys are there to be taken (client), or the server's flight to be sent.
    Flight,
    /// Client: waits for the server's flight. Server: waits for the client's.
    Waiting,
    /// Client: its flight is to be sent.
    Finish,
    /// Done.
    Done,
}

struct Handshake {
    side: Side,
    credentials: Arc<Credentials>,
    stage: Stage,
    pinned: Option<NodeId>,
    offered: Vec<&'static [u8]>,
    alpn: Option<Vec<u8>>,
    own_params: Vec<u8>,
    peer_params: Option<TransportParameters>,
    peer: Option<NodeId>,
    inbox: Vec<u8>,
    /// From both hellos' randoms.
    secret: u64,
    /// Both hellos' randoms and the protocol: what is signed.
    transcript: Vec<u8>,
    generation: u64,
    told: bool,
}

impl Handshake {
    fn learn_random(&mut self, random: &[u8]) {
        self.transcript.extend_from_slice(random);
        self.secret = fnv(&self.transcript, FNV_OFFSET);
    }
    fn signed(&self, signer: Side) -> Vec<u8> {
        let mut message = vec![u8::from(signer.is_client())];
        message.extend_from_slice(&self.transcript);
        message.extend_from_slice(self.alpn.as_deref().unwrap_or_default());
        message
    }
    fn identity(&self) -> Vec<u8> {
        let key = &self.credentials.key;
        let mut out = key.node_id().as_bytes().to_vec();
        out.extend_from_slice(&key.sign(Purpose::LinkProof, &self.signed(self.side)));
        out
    }
    fn check_identity(&mut self, fields: &mut Reader<'_>) -> Result<(), TransportError> {
        let id = NodeId::from_bytes(&fields.array()?).map_err(|_| alert(BAD_CERTIFICATE))?;
        let signature: [u8; 64] = fields.array()?;
        let signed = self.signed(!self.side);
        id.verify(Purpose::LinkProof, &signed, &signature)
            .map_err(|_| alert(BAD_CERTIFICATE))?;
        if self.pinned.is_some_and(|pinned| pinned != id) {
            return Err(alert(BAD_CERTIFICATE));
        }
        self.peer = Some(id);
        Ok(())
    }
    fn read_params(&mut self, fields: &mut Reader<'_>) -> Result<(), TransportError> {
        let params = TransportParameters::read(self.side, &mut fields.vec()?.as_slice())?;
        self.peer_params = Some(params);
        Ok(())
    }

    fn read_message(&mut self, body: &[u8]) -> Result<(), TransportError> {
        let mut fields = Reader(body);
        match (self.side, self.stage) {
            (Side::Server, Stage::Start) => {
                let random: [u8; 32] = fields.array()?;
                let alpn = fields.vec()?;
                self.read_params(&mut fields)?;
                if !self.offered.iter().any(|o| **o == *alpn) {
                    return Err(alert(NO_PROTOCOL));
                }
                self.alpn = Some(alpn);
                self.learn_random(&random);
                self.stage = Stage::Hello;
            }
            (Side::Client, Stage::Hello) => {
                let random: [u8; 32] = fields.array()?;
                self.learn_random(&random);
                self.stage = Stage::Flight;
            }
            (Side::Client, Stage::Waiting) => {
                self.alpn = Some(fields.vec()?);
                self.read_params(&mut fields)?;
                self.check_identity(&mut fields)?;
                self.stage = Stage::Finish;
            }
            (Side::Server, Stage::Waiting) => {
                self.check_identity(&mut fields)?;
                self.stage = Stage::Done;
            }
            _ => return Err(alert(DECODE_ERROR)),
        }
        Ok(())
    }
}

impl Session for Handshake {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        keys(fnv(dst_cid, FNV_OFFSET), Level::Initial, 0, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let alpn = self.alpn.clone()?;
        Some(Box::new(HandshakeData { alpn }))
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.peer.map(|id| -> Box<dyn Any> { Box::new(id) })
    }
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.side.is_client().then_some(false)
    }
    fn is_handshaking(&self) -> bool {
        self.stage != Stage::Done
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inbox.extend_from_slice(buf);
        while self.inbox.len() >= 2 {
            let len = usize::from(u16::from_be_bytes([self.inbox[0], self.inbox[1]]));
            if self.inbox.len() < 2 + len {
                break;
            }
            let message: Vec<u8> = self.inbox.drain(..2 + len).skip(2).collect();
            self.read_message(&message)?;
        }
        let ready = self.alpn.is_some() && !self.told;
        self.told |= ready;
        Ok(ready)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.peer_params)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match (self.side, self.stage) {
            (Side::Client, Stage::Start) => {
                let random = self.credentials.random();
                let mut body = random.to_vec();
                write_vec(&mut body, self.offered.first().copied().unwrap_or_default());
                write_vec(&mut body, &self.own_params);
                self.learn_random(&random);
                write_message(buf, body, CLIENT_HELLO_LEN);
                self.stage = Stage::Hello;
                None
            }
            (Side::Client, Stage::Flight) => {
                self.stage = Stage::Waiting;
                Some(keys(self.secret, Level::Handshake, 0, self.side))
            }
            (Side::Client, Stage::Finish) => {
                write_message(buf, self.identity(), CLIENT_FLIGHT_LEN);
                self.stage = Stage::Done;
                Some(keys(self.secret, Level::Data, 0, self.side))
            }
            (Side::Server, Stage::Hello) => {
                let random = self.credentials.random();
                self.learn_random(&random);
                write_message(buf, random.to_vec(), SERVER_HELLO_LEN);
                self.stage = Stage::Flight;
                Some(keys(self.secret, Level::Handshake, 0, self.side))
            }
            (Side::Server, Stage::Flight) => {
                let mut body = Vec::new();
                write_vec(&mut body, self.alpn.as_deref().unwrap_or_default());
                write_vec(&mut body, &self.own_params);
                body.extend_from_slice(&self.identity());
                write_message(buf, body, SERVER_FLIGHT_LEN);
                self.stage = Stage::Waiting;
                Some(keys(self.secret, Level::Data, 0, self.side))
            }
            _ => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.generation += 1;
        Some(keys(self.secret, Level::Data, self.generation, self.side).packet)
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((packet, got)) = payload.split_last_chunk::<TAG_LEN>() else {
            return false;
        };
        let whole = [header, packet].concat();
        tag(fnv(orig_dst_cid, FNV_OFFSET), 0, &[], &whole) == *got
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        stretch(self.secret, &[label, context].concat(), output);
        Ok(())
    }
}

fn alert(code: u8) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(code),
        frame: None,
        reason: String::new(),
    }
}

fn write_vec(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn write_message(out: &mut Vec<u8>, mut body: Vec<u8>, size: usize) {
    body.resize(body.len().max(size - 2), 0);
    write_vec(out, &body);
}

/// Reads the fields of a handshake message; what is cut off is a `decode_error`.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TransportError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| alert(DECODE_ERROR))?;
        self.0 = rest;
        Ok(*head)
    }
    fn vec(&mut self) -> Result<Vec<u8>, TransportError> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| alert(DECODE_ERROR))?;
        self.0 = rest;
        Ok(head.to_vec())
    }
}

#[derive(Clone, Copy)]
enum Level {
    Initial,
    Handshake,
    Data,
}

fn keys(secret: u64, level: Level, generation: u64, side: Side) -> Keys {
    let key = |sender: Side| -> u64 {
        let context = [level as u8, u8::from(sender.is_client())];
        fnv(&generation.to_le_bytes(), fnv(&context, secret))
    };
    let pair = || -> KeyPair<Box<dyn HeaderKey>> {
        KeyPair {
            local: Box::new(ClearHeader),
            remote: Box::new(ClearHeader),
        }
    };
    Keys {
        header: pair(),
        packet: KeyPair {
            local: Box::new(Tagged(key(side))),
            remote: Box::new(Tagged(key(!side))),
        },
    }
}

/// No header protection; the sample keeps packets as long as they would be with it.
struct ClearHeader;

impl HeaderKey for ClearHeader {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}
    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}
    fn sample_size(&self) -> usize {
        TAG_LEN
    }
}

/// A key that authenticates packets without hiding them.
struct Tagged(u64);

impl PacketKey for Tagged {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let (header, rest) = buf.split_at_mut(header_len);
        let end = rest.len() - TAG_LEN;
        let (payload, out) = rest.split_at_mut(end);
        out.copy_from_slice(&tag(self.0, packet, header, payload));
    }
    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        let Some((body, got)) = payload.split_last_chunk::<TAG_LEN>() else {
            return Err(CryptoError);
        };
        if tag(self.0, packet, header, body) != *got {
            return Err(CryptoError);
        }
        let len = body.len();
        payload.truncate(len);
        Ok(())
    }
    fn tag_len(&self) -> usize {
        TAG_LEN
    }
    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }
    fn integrity_limit(&self) -> u64 {
        // As AES-GCM's (RFC 9001 section 6.6), so that a flood of forgeries ends like a real one.
        1 << 52
    }
}

fn tag(key: u64, packet: u64, header: &[u8], payload: &[u8]) -> [u8; TAG_LEN] {
    let state = fnv(header, fnv(&packet.to_le_bytes(), key));
    let first = fnv(payload, state);
    let second = fnv(&first.to_le_bytes(), state ^ key);
    let mut out = [0; TAG_LEN];
    out[..8].copy_from_slice(&first.to_le_bytes());
    out[8..].copy_from_slice(&second.to_le_bytes());
    out
}

fn stretch(secret: u64, label: &[u8], out: &mut [u8]) {
    let mut state = fnv(label, secret);
    for chunk in out.chunks_mut(8) {
        state = fnv(b"stretch", state);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// The stateless-reset key: a node that restarts with the same key resets its old connections.
pub struct ResetKey(pub [u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        stretch(fnv(&self.0, FNV_OFFSET), data, signature_out);
    }
    fn signature_len(&self) -> usize {
        32
    }
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut expected = [0; 32];
        self.sign(data, &mut expected);
        if expected == *signature {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Keys for Retry and NEW_TOKEN tokens, which the simulation does not hand out.
pub struct TokenKey(pub u64);

impl HandshakeTokenKey for TokenKey {
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Tagged(fnv(random_bytes, self.0)))
    }
}

impl AeadKey for Tagged {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        let tag = tag(self.0, 0, additional_data, data);
        data.extend_from_slice(&tag);
        Ok(())
    }
    fn open<'a>(
        &self,
        data: &'a mut [u8],
        additional_data: &[u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        let len = data.len().checked_sub(TAG_LEN).ok_or(CryptoError)?;
        let (body, got) = data.split_at_mut(len);
        if tag(self.0, 0, additional_data, body) == *got {
            Ok(body)
        } else {
            Err(CryptoError)
        }
    }
}
