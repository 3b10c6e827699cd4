//! Addresses that were asked because a peer spoke of them, and that have not answered. What each peer may have asked is bounded where
//! its paths are; here it is seen to that many peers, or one that calls again and again, do not have one address asked once for
//! each call. A few may: who names the address of somebody else first must not keep that one from being asked for.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// After this long an address may be asked for others.
const FOR: Duration = Duration::from_secs(60);
/// So many may have one address asked in that time: one who calls anew, and those who are named by somebody else too.
const CALLERS: usize = 4;
/// So many ports of one host are asked for one caller in that time: more than a NAT that counts has predicted...
const PORTS_OF_ONE: usize = 16;
/// ...and so many for all, so that it takes a few to keep others from it.
const PORTS: usize = PORTS_OF_ONE * CALLERS;
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
    /// Those at one host, and who had each asked first.
    ports: BTreeMap<(IpAddr, Because), Vec<(u16, u64)>>,
    /// In the order in which they came, those that answered since among them.
    order: VecDeque<(Instant, Key)>,
}

impl Asked {
    /// True if an address may be asked for this caller: not too many others had it asked for such a reason lately, nor too many
    /// other ports of its host.
    pub(crate) fn may(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        because: Because,
        caller: u64,
    ) -> bool {
        self.forget(now);
        match self.all.get(&(addr, because)) {
            Some(asking) => asking.callers.contains(&caller) || asking.callers.len() < CALLERS,
            None => {
                let Some(ports) = self.ports.get(&(addr.ip(), because)) else {
                    return true;
                };
                let own = ports.iter().filter(|(_, first)| *first == caller).count();
                ports.len() < PORTS && own < PORTS_OF_ONE
            }
        }
    }

    /// It is being asked.
    pub(crate) fn note(&mut self, now: Instant, addr: SocketAddr, because: Because, caller: u64) {
        self.forget(now);
        let key = (addr, because);
        if let Some(asking) = self.all.get_mut(&key) {
            if !asking.callers.contains(&caller) {
                asking.callers.push(caller);
            }
            return;
        }
        self.order.push_back((now, key));
        let asking = Asking {
            since: now,
            callers: vec![caller],
        };
        self.all.insert(key, asking);
        let ports = self.ports.entry((addr.ip(), because)).or_default();
        ports.push((addr.port(), caller));
    }

    /// Somebody is there, and answers.
    pub(crate) fn answered(&mut self, addr: SocketAddr) {
        for because in [Because::Named, Because::Heard] {
            self.remove(&(addr, because));
        }
    }

    fn remove(&mut self, key: &Key) {
        if self.all.remove(key).is_none() {
            return;
        }
        let host = (key.0.ip(), key.1);
        if let Some(ports) = self.ports.get_mut(&host) {
            ports.retain(|(port, _)| *port != key.0.port());
            if ports.is_empty() {
                self.ports.remove(&host);
            }
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
                self.remove(&key);
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

    /// Ports of one host.
    fn addr(n: u32) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], 1 + n as u16))
    }

    /// Asks, if it may.
    fn ask(asked: &mut Asked, now: Instant, addr: SocketAddr, because: Because, who: u64) -> bool {
        let may = asked.may(now, addr, because, who);
        if may {
            asked.note(now, addr, because, who);
        }
        may
    }

    #[test]
    fn an_address_is_asked_for_a_few_until_it_answers_or_a_minute_is_over() {
        for because in [Named, Heard] {
            let (now, mut asked) = (start(), Asked::default());
            for caller in 1..=CALLERS as u64 {
                assert!(ask(&mut asked, now, addr(1), because, caller));
                assert!(ask(&mut asked, now, addr(1), because, caller));
            }
            assert!(!ask(&mut asked, now, addr(1), because, 8));
            assert!(ask(&mut asked, now, addr(1), because, 1));
            assert!(ask(&mut asked, now, addr(2), because, 8));
            asked.answered(addr(1));
            assert!((8..8 + CALLERS as u64).all(|c| ask(&mut asked, now, addr(1), because, c)));
            let soon = now + FOR - Duration::from_millis(1);
            assert!(!ask(&mut asked, soon, addr(1), because, 7));
            assert!(ask(&mut asked, now + FOR, addr(1), because, 7));
            for caller in 1..CALLERS as u64 {
                assert!(ask(&mut asked, now + FOR, addr(1), because, caller));
            }
            assert!(!ask(&mut asked, now + FOR, addr(1), because, 8));
            asked.clear();
            assert!(ask(&mut asked, now + FOR, addr(1), because, 8));
        }
    }

    #[test]
    fn what_may_be_asked_and_is_not_counts_for_nothing() {
        let (now, mut asked) = (start(), Asked::default());
        assert!((0..99).all(|caller| asked.may(now, addr(1), Named, caller)));
        assert!(asked.all.is_empty() && asked.ports.is_empty());
    }

    #[test]
    fn of_one_host_a_few_ports_are_asked_for_each_and_a_list_of_them_for_all() {
        let (now, mut asked) = (start(), Asked::default());
        let ports = |asked: &mut Asked, now, caller| {
            (0..500)
                .filter(|n| ask(asked, now, addr(*n), Named, caller))
                .count()
        };
        assert_eq!(ports(&mut asked, now, 1), PORTS_OF_ONE);
        // Those that one had asked are others' to ask as well, and some more.
        assert_eq!(ports(&mut asked, now, 2), 2 * PORTS_OF_ONE);
        for caller in 3..9 {
            ports(&mut asked, now, caller);
        }
        let port = |asked: &Asked| asked.all.len();
        assert_eq!(port(&asked), PORTS);
        assert!(!asked.may(now, addr(499), Named, 10));
        assert!(asked.may(now, addr(499), Heard, 10));
        asked.answered(addr(3));
        assert!(ask(&mut asked, now, addr(499), Named, 10));
        assert!(!asked.may(now, addr(498), Named, 10));
        assert_eq!(ports(&mut asked, now + FOR, 1), PORTS_OF_ONE);
        assert_eq!(asked.ports.len(), 1);
    }

    #[test]
    fn who_names_an_address_keeps_nobody_away_who_is_there() {
        let (now, mut asked) = (start(), Asked::default());
        for caller in 0..9 {
            ask(&mut asked, now, addr(1), Named, caller);
        }
        assert!(!asked.may(now, addr(1), Named, 10));
        assert!(asked.may(now, addr(1), Heard, 10));
    }

    #[test]
    fn beyond_the_most_the_oldest_is_forgotten_and_nobody_is_kept_away() {
        let (now, mut asked) = (start(), Asked::default());
        let addr = |n: u32| SocketAddr::new(std::net::Ipv4Addr::from(n).into(), 9);
        for n in 0..2 * MOST as u32 {
            assert!(ask(&mut asked, now, addr(n), Named, 7));
            // What answers leaves the order at its time, which has a bound too.
            if n % 2 == 0 {
                asked.answered(addr(n));
            }
        }
        assert!(asked.all.len() <= MOST && asked.order.len() <= MOST);
        assert!(asked.ports.len() <= MOST);
        let last = addr(2 * MOST as u32 - 1);
        assert!((1..CALLERS as u64).all(|c| ask(&mut asked, now, last, Named, c)));
        assert!(!asked.may(now, last, Named, 8), "what is known is bounded");
        assert!(ask(&mut asked, now + FOR, addr(MOST as u32), Named, 7));
        let left = (asked.all.len(), asked.order.len(), asked.ports.len());
        assert_eq!(left, (1, 1, 1));
    }
}
