//! When what happened, counted from the first attempt to reach the peer: where the time to the first answer goes.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use byway::tunnel::Tunnel;
use byway::{Endpoint, LinkStatus, PathInfo};
use tokio::sync::watch;

/// Counts from the first attempt until there is a tunnel.
pub(super) struct Attempt {
    began: Instant,
    link: Arc<OnceLock<Duration>>,
    links: watch::Receiver<Vec<LinkStatus>>,
}

/// The times of a tunnel.
pub(super) struct Times {
    began: Instant,
    /// A link to a relay was up; nothing if there was one before. None: it was given up again in the same moment.
    pub(super) link: Option<Duration>,
    /// The tunnel was up.
    pub(super) up: Duration,
    path: watch::Receiver<(PathInfo, Duration)>,
}

fn is_up(links: &[LinkStatus]) -> bool {
    links.iter().any(|link| link.carrier.is_some())
}

impl Attempt {
    /// Begins to count.
    pub(super) fn begin(endpoint: &Endpoint) -> Self {
        let began = Instant::now();
        let link = Arc::new(OnceLock::new());
        let links = endpoint.links();
        let (mut watched, known) = (links.clone(), Arc::clone(&link));
        if is_up(&links.borrow()) {
            // Nobody else sets it.
            let _ = link.set(Duration::ZERO);
        }
        tokio::spawn(async move {
            if watched.wait_for(|links| is_up(links)).await.is_ok() {
                let _ = known.set(began.elapsed());
            }
        });
        Self { began, link, links }
    }

    /// The tunnel is up.
    pub(super) fn succeeded(self, tunnel: &Tunnel) -> Times {
        let Self { began, link, links } = self;
        let up = began.elapsed();
        // On a short way both come in one moment, before who watches for the link has had its turn.
        let link = link.get().copied();
        let link = link.or_else(|| is_up(&links.borrow()).then_some(up));
        let mut path = tunnel.path();
        let (told, stamped) = watch::channel((path.borrow_and_update().clone(), up));
        tokio::spawn(async move {
            while path.changed().await.is_ok() {
                let new = path.borrow_and_update().clone();
                told.send_modify(|(old, since)| {
                    // Word of its health is no other path.
                    if (old.kind, old.remote) != (new.kind, new.remote) {
                        *since = began.elapsed();
                    }
                    *old = new;
                });
            }
        });
        Times {
            began,
            link,
            up,
            path: stamped,
        }
    }
}

impl Times {
    /// So far.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The path in use, and since when.
    pub(super) fn path(&self) -> (PathInfo, Duration) {
        self.path.borrow().clone()
    }
}
