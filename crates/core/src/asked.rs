//! Addresses that were asked because a peer spoke of them, and that have not answered. What each peer may have asked is bounded where
//! its paths are; here it is seen to that many peers, or one that calls again and again, do not have one address asked once for
//! each call. A few may: who names the address of somebody else first must not keep that one from being asked for.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// After this long an address may be asked for others.
const FOR: Duration = Duration::from_secs(60);
/// So many may have one address asked in that time: one who calls anew, and those who are named by somebody else too.
const CALLERS: usize = 4;
/// Most that are remembered. Beyond, the oldest is forgotten: what is sent in all has a budget of its own, and a table that
/// somebody filled must not keep others from being asked for.
const MOST: usize = 65_536;

/// Why an address is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Because {
    /// A peer named it.
    Named,
    /// A ping of a peer's came from there. Who only names an address keeps nobody away who is there.
    Heard,
}

type Key = (SocketAddr, Because);

/// Since when, and for whom.
#[derive(Debug)]
struct Asking {
    since: Instant,
    callers: Vec<u64>,
}

/// Which they are.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    all: BTreeMap<Key, Asking>,
    /// In the order in which they came, those that answered since among them.
    order: VecDeque<(Instant, Key)>,
}

impl Asked {
    /// True if an address may be asked for this caller: not too many others had it asked for such a reason lately.
    pub(crate) fn may(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        because: Because,
        caller: u64,
    ) -> bool {
        self.forget(now);
        let key = (addr, because);
        if let Some(asking) = self.all.get_mut(&key) {
            if asking.callers.contains(&caller) {
                return true;
            }
            let may = asking.callers.len() < CALLERS;
            if may {
                asking.callers.push(caller);
            }
            return may;
        }
        self.order.push_back((now, key));
        let asking = Asking {
            since: now,
            callers: vec![caller],
        };
        self.all.insert(key, asking);
        true
    }

    /// Somebody is there, and answers.
    pub(crate) fn answered(&mut self, addr: SocketAddr) {
        for because in [Because::Named, Because::Heard] {
            self.all.remove(&(addr, because));
        }
    }

    /// This is another network: what was asked in vain in the last one may be here.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Makes room: drops what is over, and the oldest if there are too many.
    fn forget(&mut self, now: Instant) {
        while let Some(&(since, key)) = self.order.front() {
            if since + FOR > now && self.order.len() < MOST {
                break;
            }
            self.order.pop_front();
            // It may have answered meanwhile, and be asked again.
            if self
                .all
                .get(&key)
                .is_some_and(|asking| asking.since == since)
            {
                self.all.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Because::{Heard, Named};
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "a virtual clock needs one instant to count from"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn addr(n: u32) -> SocketAddr {
        let ip = std::net::Ipv4Addr::from(0xcb00_7100 + n / 60_000);
        SocketAddr::new(ip.into(), (n % 60_000) as u16 + 1)
    }

    #[test]
    fn an_address_is_asked_for_a_few_until_it_answers_or_a_minute_is_over() {
        for because in [Named, Heard] {
            let (now, mut asked) = (start(), Asked::default());
            for caller in 1..=CALLERS as u64 {
                assert!(asked.may(now, addr(1), because, caller));
                assert!(asked.may(now, addr(1), because, caller));
            }
            assert!(!asked.may(now, addr(1), because, 8));
            assert!(asked.may(now, addr(1), because, 1));
            assert!(asked.may(now, addr(2), because, 8));
            asked.answered(addr(1));
            assert!((8..8 + CALLERS as u64).all(|c| asked.may(now, addr(1), because, c)));
            let soon = now + FOR - Duration::from_millis(1);
            assert!(!asked.may(soon, addr(1), because, 7));
            assert!(asked.may(now + FOR, addr(1), because, 7));
            for caller in 1..CALLERS as u64 {
                assert!(asked.may(now + FOR, addr(1), because, caller));
            }
            assert!(!asked.may(now + FOR, addr(1), because, 8));
            asked.clear();
            assert!(asked.may(now + FOR, addr(1), because, 8));
        }
    }

    #[test]
    fn who_names_an_address_keeps_nobody_away_who_is_there() {
        let (now, mut asked) = (start(), Asked::default());
        for caller in 0..9 {
            asked.may(now, addr(1), Named, caller);
        }
        assert!(!asked.may(now, addr(1), Named, 10));
        assert!(asked.may(now, addr(1), Heard, 10));
    }

    #[test]
    fn beyond_the_most_the_oldest_is_forgotten_and_nobody_is_kept_away() {
        let (now, mut asked) = (start(), Asked::default());
        for n in 0..2 * MOST as u32 {
            assert!(asked.may(now, addr(n), Named, 7));
            // What answers leaves the order at its time, which has a bound too.
            if n % 2 == 0 {
                asked.answered(addr(n));
            }
        }
        assert!(asked.all.len() <= MOST && asked.order.len() <= MOST);
        let last = addr(2 * MOST as u32 - 1);
        assert!((1..CALLERS as u64).all(|c| asked.may(now, last, Named, c)));
        assert!(!asked.may(now, last, Named, 8), "what is known is bounded");
        assert!(asked.may(now + FOR, addr(MOST as u32), Named, 7));
        assert_eq!((asked.all.len(), asked.order.len()), (1, 1));
    }
}
