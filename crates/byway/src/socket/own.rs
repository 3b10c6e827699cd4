//! The endpoint's own sockets. They stay for its life, but the system may end one under it: iOS does when the app was in the
//! background, Android when the network that the socket was used on is gone (`SOCK_DESTROY`), and what is left neither
//! sends nor receives, or has lost its port. Such a socket is bound anew, to the same address and port where that is free,
//! so that NATs, relays and peers see no other.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use byway_core::io::SocketId;
use tokio::sync::Notify;

use super::list::List;
use super::udp::UdpSocket;

/// Between two times that sockets are bound anew: a system that takes each at once must not keep the node busy.
const REVIVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Own {
    /// Indexed by [`SocketId`].
    pub(super) list: List,
    /// One that could not be bound anew: no network may be there that has its address.
    dead: AtomicBool,
    /// One was bound anew: for the driver.
    pub(super) rebound: Notify,
    /// It was tried to bind some anew, and one may wait: for who watches them.
    tried: Notify,
    /// When one was bound anew, or that was tried.
    last: Mutex<Option<Instant>>,
}

impl Own {
    /// Binds one socket to each address, numbered in that order.
    pub(super) fn bind(addrs: &[SocketAddr]) -> Result<Self, (SocketAddr, io::Error)> {
        let sockets = addrs
            .iter()
            .zip(0..)
            .map(|(addr, id)| {
                UdpSocket::bind(SocketId(id), *addr)
                    .map(Arc::new)
                    .map_err(|error| (*addr, error))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let list = List::default();
        list.replace(sockets);
        Ok(Self {
            list,
            dead: AtomicBool::new(false),
            rebound: Notify::new(),
            tried: Notify::new(),
            last: Mutex::new(None),
        })
    }

    /// Binds those anew that the system has ended, once in a while.
    pub(super) fn revive(&self) {
        // Whoever comes second finds the first one's sockets.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.list.load();
        if old.iter().all(|socket| socket.is_sound()) {
            self.dead.store(false, Ordering::Relaxed);
            return;
        }
        let now = Instant::now();
        if last.is_some_and(|at| now < at + REVIVAL) {
            self.dead.store(true, Ordering::Relaxed);
            return;
        }
        *last = Some(now);
        let mut sockets = Vec::clone(&old);
        let (mut revived, mut dead) = (false, false);
        for socket in sockets.iter_mut().filter(|socket| !socket.is_sound()) {
            match socket.renewed() {
                Ok(new) => {
                    tracing::debug!(old = %socket.addr, new = %new.addr, "the system ended a socket; it is bound anew");
                    *socket = Arc::new(new);
                    revived = true;
                }
                Err(error) => {
                    tracing::debug!(addr = %socket.addr, %error, "the system ended a socket, and it cannot be bound anew yet");
                    dead = true;
                }
            }
        }
        self.dead.store(dead, Ordering::Relaxed);
        if revived {
            self.list.replace(sockets);
            self.rebound.notify_one();
        }
        self.tried.notify_one();
    }

    /// Waits for the system to end one of them, and binds it anew, for ever.
    pub(super) async fn watch(&self) {
        loop {
            tokio::select! {
                _ = self.list.ended() => self.revive(),
                // Whoever sent or received was first.
                () = self.tried.notified() => {}
                () = tokio::time::sleep(REVIVAL), if self.is_dead() => self.revive(),
            }
        }
    }

    /// One waits to be bound anew.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn localhost(sockets: usize) -> Own {
        Own::bind(&vec![(Ipv4Addr::LOCALHOST, 0).into(); sockets]).unwrap()
    }

    #[tokio::test]
    async fn a_socket_that_the_system_ended_is_bound_anew_and_the_others_stay() {
        let own = localhost(2);
        let before = Vec::clone(&own.list.load());
        own.revive();
        assert!(Arc::ptr_eq(&before[0], &own.list.load()[0]), "it lives");
        before[0].end();
        own.revive();
        own.rebound.notified().await;
        let after = Vec::clone(&own.list.load());
        assert!(Arc::ptr_eq(&before[1], &after[1]));
        assert!(after[0].is_sound() && after[0].id == before[0].id);
        // The old one still has its port here.
        assert_ne!(after[0].addr.port(), before[0].addr.port());
        assert_eq!(after[0].addr.ip(), before[0].addr.ip());
        assert!(!own.is_dead());
        // A second end in the same second waits.
        after[0].end();
        own.revive();
        assert!(own.is_dead() && Arc::ptr_eq(&after[0], &own.list.load()[0]));
    }

    #[tokio::test]
    async fn two_who_notice_at_once_bind_one_socket() {
        for _ in 0..50 {
            let own = localhost(2);
            let reset = io::Error::from(io::ErrorKind::ConnectionAborted);
            let before: Vec<_> = own.list.load().iter().map(|s| s.addr).collect();
            assert!(own.list.load().iter().all(|s| s.ends_by(&reset)));
            let runtime = tokio::runtime::Handle::current();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let _in_it = runtime.enter();
                        own.revive();
                    });
                }
            });
            let after: Vec<_> = own.list.load().iter().map(|s| s.addr).collect();
            assert_eq!(after, before);
            assert!(own.list.load().iter().all(|s| s.is_sound()) && !own.is_dead());
        }
    }

    #[tokio::test]
    async fn one_that_cannot_be_bound_anew_is_tried_again() {
        let own = localhost(1);
        // An address of nobody's, as after a change of network.
        let mut lost = UdpSocket::bind(SocketId(0), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        lost.addr = (Ipv4Addr::new(192, 0, 2, 1), 4_000).into();
        lost.end();
        own.list.replace(vec![Arc::new(lost)]);
        own.revive();
        assert!(own.is_dead());
        let lost = UdpSocket::bind(SocketId(0), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        lost.end();
        own.list.replace(vec![Arc::new(lost)]);
        let bound = own.rebound.notified();
        tokio::select! {
            () = own.watch() => {}
            () = bound => {}
        }
        assert!(!own.is_dead() && own.list.load()[0].is_sound());
    }
}
