//! What the tunnels to one peer take for their MTU.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest MTU that the search of any live tunnel has found, for tunnels that share a socket's route: the socket does not
/// know whose datagram it sends. A single larger one is a probe of such a search.
#[derive(Debug, Default)]
pub struct LargestMtu {
    largest: AtomicU16,
    /// Of each tunnel that has found one, in no order.
    each: Mutex<Vec<u16>>,
}

/// One tunnel's part in a [`LargestMtu`], which ends with it.
#[derive(Debug)]
pub(crate) struct OwnMtu {
    all: Arc<LargestMtu>,
    own: AtomicU16,
}

impl LargestMtu {
    /// In bytes of UDP payload; zero while no tunnel has found any.
    pub fn get(&self) -> u16 {
        self.largest.load(Ordering::Relaxed)
    }

    /// One tunnel has another one than before; zero is none.
    fn replace(&self, before: u16, now: u16) {
        let mut each = self.lock();
        if let Some(at) = each.iter().position(|mtu| *mtu == before) {
            each.swap_remove(at);
        }
        if now > 0 {
            each.push(now);
        }
        let largest = each.iter().copied().max().unwrap_or_default();
        self.largest.store(largest, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u16>> {
        // Nothing between two of its changes can panic.
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnMtu {
    pub(crate) fn new(all: Arc<LargestMtu>) -> Self {
        Self {
            all,
            own: AtomicU16::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn get(&self) -> u16 {
        self.own.load(Ordering::Relaxed)
    }

    pub(crate) fn put(&self, mtu: u16) {
        let before = self.own.swap(mtu, Ordering::Relaxed);
        self.all.replace(before, mtu);
    }
}

impl Drop for OwnMtu {
    fn drop(&mut self) {
        self.put(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_all_live_tunnels_counts_and_each_keeps_its_own() {
        let all = Arc::new(LargestMtu::default());
        let one = OwnMtu::new(Arc::clone(&all));
        assert_eq!((one.get(), all.get()), (0, 0));
        one.put(1_444);
        let two = OwnMtu::new(Arc::clone(&all));
        two.put(1_230);
        assert_eq!((one.get(), two.get(), all.get()), (1_444, 1_230, 1_444));
        two.put(1_444);
        // A black hole: what is larger is a probe again, but for the other's data.
        one.put(1_200);
        assert_eq!((one.get(), all.get()), (1_200, 1_444));
        drop(two);
        assert_eq!(all.get(), 1_200);
        drop(one);
        assert_eq!(all.get(), 0);
    }
}
