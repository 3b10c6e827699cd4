//! Over TLS links. TCP holds the flooder back to what the relay reads of it, so it cannot send more than the relay takes; it sends small datagrams, a
//! frame each, as fast as it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use byway_relay::Server;
use byway_wire::relay::control::Role;
use byway_wire::relay::frame::Frame;
use futures_util::{SinkExt, StreamExt};
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
    // Each is a machine of its own, as far as two processors allow.
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (typing, echoing, flooding, sinking) = (runtime(), runtime(), runtime(), runtime());
    let mut echo = echoing.block_on(TlsNode::welcome(server, 2, Role::Agent));
    let mut sink = sinking.block_on(TlsNode::welcome(server, 4, Role::Agent));
    let mut typist = typing.block_on(TlsNode::welcome(server, 1, Role::Client));
    let mut flooder = flooding.block_on(TlsNode::welcome(server, 3, Role::Client));
    typing.block_on(join(&mut typist, &mut echo, 2, TYPIST));
    let floods = flood != Flood::None;
    flooding.block_on(async {
        match flood {
            Flood::ToTheSame => join(&mut flooder, &mut echo, 2, FLOOD).await,
            Flood::ToAnother | Flood::None => join(&mut flooder, &mut sink, 4, FLOOD).await,
        }
    });
    echoing.spawn(typist::send_back(echo.ws, TYPIST));
    sinking.spawn(typist::send_back(sink.ws, TYPIST));
    let over = Arc::new(AtomicBool::new(!floods));
    let sent = Arc::<AtomicU64>::default();
    flooding.spawn(send(flooder.ws, Arc::clone(&over), Arc::clone(&sent)));
    let (before, began) = (server.stats().data, Instant::now());
    let times = (EVERY, KEYSTROKES);
    // On the runtime's own thread: this one is nobody's machine.
    let typed = async move { typist::type_on(&mut typist.ws, TYPIST, times, LOST).await };
    let back = typing.block_on(typing.spawn(typed)).unwrap();
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
