//! Over TLS links. TCP holds the flooder back to what the relay reads of it, so it cannot send more than the relay takes; it sends small datagrams, a
//! frame each, as fast as it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use byway_relay::Server;
use byway_wire::relay::control::Role;
use byway_wire::relay::frame::Frame;
use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio_websockets::Message;

use crate::common::tls::{Socket, TlsNode, join};
use crate::common::{channel, typist};
use crate::typed::{EVERY, FLOOD, KEYSTROKES, LOST, Row, TYPIST};

/// Frames between two flushes of the flooder.
const BURST: u64 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    None,
    ToAnother,
    ToTheSame,
}

pub(crate) fn measure(server: &Server, flood: Flood) -> Row {
    let nodes = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    nodes.block_on(async {
        let mut tasks = JoinSet::new();
        let mut echo = TlsNode::welcome(server, 2, Role::Agent).await;
        let mut sink = TlsNode::welcome(server, 4, Role::Agent).await;
        let mut typist = TlsNode::welcome(server, 1, Role::Client).await;
        let mut flooder = TlsNode::welcome(server, 3, Role::Client).await;
        join(&mut typist, &mut echo, 2, TYPIST).await;
        match flood {
            Flood::ToTheSame => join(&mut flooder, &mut echo, 2, FLOOD).await,
            Flood::ToAnother | Flood::None => join(&mut flooder, &mut sink, 4, FLOOD).await,
        }
        for node in [echo, sink] {
            tasks.spawn(typist::send_back(node.ws, TYPIST));
        }
        let over = Arc::new(AtomicBool::new(flood == Flood::None));
        let sent = Arc::<AtomicU64>::default();
        tasks.spawn(send(flooder.ws, Arc::clone(&over), Arc::clone(&sent)));
        let (before, began) = (server.stats().data, Instant::now());
        let back = typist::type_on(&mut typist.ws, TYPIST, (EVERY, KEYSTROKES), LOST).await;
        let (after, time) = (server.stats().data, began.elapsed().as_secs_f64());
        over.store(true, Ordering::Relaxed);
        let rate = |n: u64| n as f64 / time;
        let dropped = |data: &byway_relay::DataStats| data.tls_dropped_full + data.tls_dropped_old;
        Row {
            back,
            sent: rate(sent.load(Ordering::Relaxed)),
            forwarded: rate(after.tls_out - before.tls_out),
            dropped: rate(dropped(&after) - dropped(&before)),
        }
    })
}

async fn send(mut ws: Socket, over: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let frame = Frame::Data {
        channel: channel(FLOOD),
        segment: 112,
        payload: vec![7; 112].into(),
    };
    let frame = frame.encode();
    while !over.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            ws.feed(Message::binary(frame.clone())).await.unwrap();
        }
        ws.flush().await.unwrap();
        sent.fetch_add(BURST, Ordering::Relaxed);
    }
    // The relay's words stay unread, which it bears.
    while ws.next().await.is_some() {}
}
