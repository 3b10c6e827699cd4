//! A list of sockets that changes while it is used: replaced whole at control events, read for every batch.

use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::{ArcSwap, Guard};
use futures_util::task::AtomicWaker;

use super::udp::{UdpSocket, Writable};

#[derive(Debug, Default)]
pub(super) struct List {
    open: ArcSwap<Vec<Arc<UdpSocket>>>,
    /// Who receives, to be told of new sockets.
    receiver: AtomicWaker,
}

impl List {
    pub(super) fn load(&self) -> Guard<Arc<Vec<Arc<UdpSocket>>>> {
        self.open.load()
    }

    pub(super) fn replace(&self, open: Vec<Arc<UdpSocket>>) {
        self.open.store(Arc::new(open));
        self.receiver.wake();
    }

    /// All of them, for the one who receives: it is woken when they become others.
    pub(super) fn receiving(&self, cx: &Context<'_>) -> Guard<Arc<Vec<Arc<UdpSocket>>>> {
        // Registered first: what is opened after the look wakes.
        self.receiver.register(cx.waker());
        self.open.load()
    }
}

/// Waits until all of a list can send. Holds none of them but the one it waits for: a connection that is silent must not keep
/// closed sockets open.
#[derive(Default)]
pub(super) struct AllWritable(Option<Writable>);

impl AllWritable {
    pub(super) fn poll(&mut self, list: &List, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waiting) = &mut self.0 {
            std::task::ready!(waiting.poll(cx));
            self.0 = None;
        }
        for socket in list.open.load().iter() {
            let mut writable = Writable::new(Arc::clone(socket));
            if writable.poll(cx).is_pending() {
                self.0 = Some(writable);
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}
