//! UDP links: QUIC control with one bidirectional stream; data goes beside it and is not seen here.
//!
//! The address bound to a link is the one its handshake came from: the handshake proves that the node receives there,
//! and QUIC does not migrate before it is over. Later `remote_address()` moves before the new path is validated, so it
//! is a hint to ask the node, and binds nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_wire::canonical;
use byway_wire::relay::frame::StreamDecoder;
use hmac::{Hmac, KeyInit, Mac};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use sha2::Sha256;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use zeroize::Zeroizing;

use crate::both_ways::{ReadEnd, both_ways};
use crate::context::Context;
use crate::hub::{Carrier, LinkHandle, NewLink};
use crate::identity::proved_node;
use crate::limits::HandshakeLimits;
use crate::outbox::{CloseOnDrop, Outbox};
use crate::pace::{self, Pace};
use crate::plane::Origin;
use crate::stats::bump;
use crate::strangers::{Crowd, Place, Verdict};

/// Bytes buffered for all handshakes together that wait to be judged.
const INCOMING_BUFFER_TOTAL: u64 = 32 * 1024 * 1024;
/// A node keeps its link alive every 20 s; one lost keep-alive is sent again well before this.
const IDLE: Duration = Duration::from_secs(30);
/// How often a link is looked at for having moved: a part of the 20 s that QUIC takes to notice.
const LOOK: Duration = Duration::from_secs(5);
/// The control stream: four messages of the greatest length may be under way.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The QUIC configuration of a relay's endpoint.
pub(crate) fn server_config(
    tls: rustls::ServerConfig,
    limits: &HandshakeLimits,
) -> anyhow::Result<quinn::ServerConfig> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls)?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE)?))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(STREAM_WINDOW))
        .datagram_receive_buffer_size(None)
        // Control messages are small and rare: neither is worth its memory in each of thousands of idle links.
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        // They are judged as they come.
        .max_incoming(limits.under_way as usize)
        .incoming_buffer_size(limits.buffered.into())
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    Ok(config)
}

/// The endpoint's own part of it. `secret` is the same after a restart, so that a new process answers the packets of
/// the old one's links with stateless resets (RFC 9000 section 10.3), and nodes dial again at once instead of waiting
/// for an idle timeout. It must differ between relays, or one could be made to reset another's links.
pub(crate) fn endpoint_config(secret: &[u8; 32]) -> EndpointConfig {
    let key = ResetKey(Zeroizing::new(*secret));
    let ids = key.mac(b"connection ids").finalize().into_bytes();
    let id_key = u64::from_be_bytes(std::array::from_fn(|i| ids[i]));
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    // The bit tells QUIC from relay data (RFC 9443 and design section 3).
    config.grease_quic_bit(false);
    config
}

/// Makes stateless reset tokens.
struct ResetKey(Zeroizing<[u8; 32]>);

impl ResetKey {
    fn mac(&self, data: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&*self.0)
            .expect("HMAC takes keys of any length");
        mac.update(data);
        mac
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.mac(data).finalize().into_bytes());
    }
    fn signature_len(&self) -> usize {
        32
    }
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.mac(data)
            .verify_slice(signature)
            .map_err(|_| CryptoError)
    }
}

/// Accepts links for ever. Dropping the future ends them all.
pub(crate) async fn accept(endpoint: Endpoint, listener: usize, context: Arc<Context>) {
    let mut links = JoinSet::new();
    let crowd = Arc::new(Crowd::default());
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            Some(_) = links.join_next() => continue,
        };
        let Some(incoming) = incoming else {
            // Closed: the links end by themselves.
            while links.join_next().await.is_some() {}
            return;
        };
        if context.pressure.is_high().await {
            bump(&context.counters.refused_pressure);
            incoming.refuse();
            continue;
        }
        let ip = canonical(incoming.remote_address()).ip();
        let proved = incoming.remote_address_validated();
        match context.strangers.judge(Instant::now(), ip, proved, &crowd) {
            Verdict::Serve(place) => {
                let context = Arc::clone(&context);
                links.spawn(async move { serve(incoming, place, listener, &context).await });
            }
            Verdict::Prove => {
                bump(&context.counters.retried);
                // It may always retry when its address is not proved.
                let _ = incoming.retry();
            }
            Verdict::Refuse => {
                bump(&context.counters.connections_limited);
                incoming.ignore();
            }
        }
    }
}

async fn serve(incoming: Incoming, place: Place, listener: usize, context: &Context) {
    let observed = canonical(incoming.remote_address());
    let local_ip = incoming.local_ip();
    let began = Instant::now();
    let connection = match incoming.accept() {
        Ok(connecting) => tokio::time::timeout(context.limits.handshakes.within, connecting).await,
        Err(e) => Ok(Err(e)),
    };
    drop(place);
    let connection = match connection {
        Ok(Ok(connection)) => connection,
        Ok(Err(e)) => {
            tracing::debug!(%observed, %e, "QUIC handshake failed");
            return bump(&context.counters.handshakes_failed);
        }
        Err(_) => return bump(&context.counters.handshakes_failed),
    };
    let Some(node) = proved_node(&connection) else {
        bump(&context.counters.handshakes_failed);
        return connection.close(VarInt::from_u32(1), b"no node key");
    };
    let outbox = Arc::new(Outbox::default());
    let _closes = CloseOnDrop(Arc::clone(&outbox));
    let link = context.hub.link_up(NewLink {
        node,
        role: None,
        began,
        observed,
        carrier: Carrier::Udp { listener, local_ip },
        intercepted: false,
        outbox: Arc::clone(&outbox),
    });
    tokio::select! {
        () = converse(&connection, &link, &outbox) => {}
        () = notice_moves(&connection, listener, local_ip, context) => {}
    }
    connection.close(VarInt::from_u32(0), b"link ended");
}

/// A node whose NAT gave it another port and that only listens sends no data, so no shard would send it a cookie, and what
/// is sent to it would be lost for good. QUIC follows it at its next keep-alive. QUIC's address is a hint and no more: a
/// cookie goes there, and the node's answer on the control stream is what moves its data. Never returns.
async fn notice_moves(
    connection: &Connection,
    listener: usize,
    local_ip: Option<IpAddr>,
    context: &Context,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let addr = canonical(connection.remote_address());
        if !context.plane.table.is_source(addr) {
            let there = Origin {
                addr,
                local_ip,
                listener,
                shard: 0,
                ecn: None,
            };
            context.plane.ask_to_rebind(&there, &context.counters);
        }
    }
}

/// Carries control messages both ways until either side ends.
async fn converse(connection: &Connection, link: &LinkHandle, outbox: &Outbox) {
    let (send, recv) = tokio::select! {
        stream = connection.accept_bi() => match stream {
            Ok(stream) => stream,
            Err(_) => return,
        },
        // Refused before it said a word, or silent for too long.
        () = outbox.finished() => return,
    };
    both_ways(read(recv, link), write(send, outbox), outbox).await;
}

async fn read(mut recv: RecvStream, link: &LinkHandle) -> ReadEnd {
    let mut decoder = StreamDecoder::default();
    let mut pace = Pace::new(Instant::now(), pace::MESSAGES);
    loop {
        let chunk = match recv.read_chunk(STREAM_WINDOW as usize, true).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) | Err(_) => return ReadEnd::Broken,
        };
        decoder.push(&chunk.bytes);
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    let cost = pace::cost(&message);
                    link.control(message);
                    if let Some(pause) = pace.step(Instant::now(), cost) {
                        tokio::time::sleep(pause).await;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    link.malformed(&e.to_string());
                    return ReadEnd::Refused;
                }
            }
        }
    }
}

async fn write(mut send: SendStream, outbox: &Outbox) {
    while let Some((mut frames, _)) = outbox.next().await {
        if send.write_all_chunks(&mut frames).await.is_err() {
            return;
        }
    }
    // Closing the connection would discard what is not yet acknowledged.
    if send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}
