//! Sockets beside the endpoint's own, opened for a while to cross a hard NAT (design section 6). Most are closed after a few
//! seconds; one that a path was found by carries data like any other. One that the system ends (see [`super::own`]) is closed
//! and told of: another port would be of no use to its path.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use byway_core::io::SocketId;
use tokio::sync::Notify;

use super::list::List;
use super::udp::UdpSocket;

/// Numbers below are the endpoint's own.
const FIRST: u16 = 256;

/// The share of the process's descriptors that these sockets may take: forwarding needs the others.
const SHARE: u64 = 4;
/// Where the system does not tell how many there are: what Unix systems commonly begin with.
const COMMON_LIMIT: u64 = 1_024;

#[derive(Debug)]
pub(super) struct Extra {
    pub(super) list: List,
    /// Held while it is made another one: the driver opens and closes sockets, and who meets one that ended closes it.
    changing: Mutex<()>,
    /// The number after the last one given. Numbers come around after 65,280 sockets, when
    /// whatever named the first ones is long gone.
    next: AtomicU16,
    /// Those that the system ended, for the driver.
    ended: Mutex<Vec<SocketId>>,
    /// There are some.
    news: Notify,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            list: List::default(),
            changing: Mutex::default(),
            next: AtomicU16::new(FIRST),
            ended: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl Extra {
    /// Opens up to `count` sockets, fewer where the host has no more descriptors to spare.
    pub(super) fn open(&self, count: u16) -> Vec<SocketId> {
        let _alone = self.alone();
        let mut open = Vec::clone(&self.list.load());
        let room = (descriptors() / SHARE).saturating_sub(open.len() as u64);
        let mut opened = Vec::new();
        for _ in 0..u64::from(count).min(room) {
            let id = self.free_id(&open);
            match UdpSocket::bind(id, (Ipv4Addr::UNSPECIFIED, 0).into()) {
                Ok(socket) => {
                    open.push(Arc::new(socket));
                    opened.push(id);
                }
                Err(error) => {
                    tracing::debug!(%error, opened = opened.len(), "no more sockets for a hard NAT");
                    break;
                }
            }
        }
        self.list.replace(open);
        opened
    }

    pub(super) fn close(&self, ids: &[SocketId]) {
        let _alone = self.alone();
        let mut open = Vec::clone(&self.list.load());
        open.retain(|socket| !ids.contains(&socket.id));
        self.list.replace(open);
    }

    /// The system has ended one: it is closed, and told of once, whoever else notices.
    pub(super) fn end(&self, id: SocketId) {
        let _alone = self.alone();
        let mut open = Vec::clone(&self.list.load());
        let before = open.len();
        open.retain(|socket| socket.id != id);
        if open.len() < before {
            tracing::debug!(
                socket = id.0,
                "the system ended a socket of a path through a hard NAT"
            );
            self.list.replace(open);
            self.ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(id);
            self.news.notify_one();
        }
    }

    /// Waits for sockets that the system ended, and gives each once.
    pub(super) async fn ended(&self) -> Vec<SocketId> {
        loop {
            let ended =
                std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
            if !ended.is_empty() {
                return ended;
            }
            self.news.notified().await;
        }
    }

    /// Waits for the system to end one of them, and closes it, for ever.
    pub(super) async fn watch(&self) {
        loop {
            let id = self.list.ended().await;
            self.end(id);
        }
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_id(&self, open: &[Arc<UdpSocket>]) -> SocketId {
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let id = SocketId(next);
            if next >= FIRST && !open.iter().any(|socket| socket.id == id) {
                return id;
            }
        }
    }

    pub(super) fn get(&self, id: SocketId) -> Option<Arc<UdpSocket>> {
        let open = self.list.load();
        open.iter().find(|socket| socket.id == id).cloned()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.load().len()
    }
}

/// How many descriptors the process may have.
fn descriptors() -> u64 {
    #[cfg(unix)]
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let limit = None;
    limit.unwrap_or(COMMON_LIMIT)
}
