//! Somebody who types through a relay over TLS, and who sends every keystroke back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use byway_wire::relay::frame::Frame;
use futures_util::{SinkExt, StreamExt};
use tokio_websockets::Message;

use super::channel;
use super::tls::Socket;

/// Types so many keystrokes, one in each of these times, and gives how long each was away that came back before it counts as lost.
pub(crate) async fn type_on(
    ws: &mut Socket,
    on: u64,
    (every, keystrokes): (Duration, u32),
    lost: Duration,
) -> Vec<Duration> {
    let (mut out, mut back) = ws.split();
    let mut under_way = BTreeMap::new();
    let mut took = Vec::new();
    let mut ticks = tokio::time::interval(every);
    let mut typed = 0;
    let mut patience = Instant::now() + lost;
    while typed < keystrokes || !under_way.is_empty() {
        tokio::select! {
            _ = ticks.tick(), if typed < keystrokes => {
                let frame = Frame::Data {
                    channel: channel(on),
                    segment: 52,
                    payload: [&typed.to_be_bytes()[..], &[0; 48]].concat().into(),
                };
                patience = Instant::now() + lost;
                under_way.insert(typed, Instant::now());
                out.send(Message::binary(frame.encode())).await.unwrap();
                typed += 1;
            }
            message = back.next() => {
                let message = message.unwrap().unwrap();
                if !message.is_binary() {
                    continue;
                }
                if let Ok(Frame::Data { payload, .. }) = Frame::decode(message.into_payload().into()) {
                    let number = u32::from_be_bytes(payload[..4].try_into().unwrap());
                    let sent: Option<Instant> = under_way.remove(&number);
                    took.extend(sent.map(|at| at.elapsed()).filter(|away| *away <= lost));
                }
            }
            () = tokio::time::sleep_until(patience.into()), if typed == keystrokes => break,
        }
    }
    took
}

/// Sends back what comes on this channel, and reads the rest, until the link ends.
pub(crate) async fn send_back(mut ws: Socket, on: u64) {
    while let Some(Ok(message)) = ws.next().await {
        if !message.is_binary() {
            continue;
        }
        let bytes: bytes::Bytes = message.into_payload().into();
        let typed = matches!(
            Frame::decode(bytes.clone()),
            Ok(Frame::Data { channel: id, .. }) if id == channel(on)
        );
        if typed && ws.send(Message::binary(bytes)).await.is_err() {
            break;
        }
    }
}
