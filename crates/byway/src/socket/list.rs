//! A list of sockets that changes while it is used: replaced whole at control events, read for every batch.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::{ArcSwap, Guard};
use byway_core::io::SocketId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::udp::UdpSocket;

#[derive(Debug, Default)]
pub(super) struct List {
    open: ArcSwap<Vec<Arc<UdpSocket>>>,
    /// Who receives, to be told of new sockets.
    receiver: AtomicWaker,
    /// For the one who waits for any of them to end.
    changed: Notify,
}

impl List {
    pub(super) fn load(&self) -> Guard<Arc<Vec<Arc<UdpSocket>>>> {
        self.open.load()
    }

    pub(super) fn replace(&self, open: Vec<Arc<UdpSocket>>) {
        self.open.store(Arc::new(open));
        self.receiver.wake();
        self.changed.notify_one();
    }

    /// All of them, for the one who receives: it is woken when they become others.
    pub(super) fn receiving(&self, cx: &Context<'_>) -> Guard<Arc<Vec<Arc<UdpSocket>>>> {
        // Registered first: what is opened after the look wakes.
        self.receiver.register(cx.waker());
        self.open.load()
    }

    /// Waits for the system to end one of them. Nobody else hears of it where nothing is sent. One at a time may wait, and
    /// holds them open until they become others.
    pub(super) async fn ended(&self) -> SocketId {
        let watch = async |socket: Arc<UdpSocket>| {
            while !socket.ends_by(&socket.failed().await) {}
            socket.id
        };
        loop {
            let open = Vec::clone(&self.open.load());
            let mut all: FuturesUnordered<_> = open.into_iter().map(watch).collect();
            tokio::select! {
                Some(id) = all.next() => return id,
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Waits until all of a list can send. Holds none of them but the one it waits for: a connection that is silent must not keep
/// closed sockets open.
#[derive(Default)]
pub(super) struct AllWritable(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl AllWritable {
    pub(super) fn poll(&mut self, list: &List, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(waiting) = &mut self.0 {
                std::task::ready!(waiting.as_mut().poll(cx));
                self.0 = None;
            }
            let open = list.open.load();
            let Some(full) = open.iter().find(|socket| !socket.is_writable()) else {
                return Poll::Ready(());
            };
            self.0 = Some(Box::pin(Arc::clone(full).writable()));
        }
    }
}
