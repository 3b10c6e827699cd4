//! Addresses that were asked because a peer spoke of them, and that have not answered. What each peer may have asked is bounded where
//! its paths are; here it is seen to that peers, or one that calls again and again, do not have one address asked once for each call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// After this long an address may be asked for another.
const FOR: Duration = Duration::from_secs(60);
/// Most that are remembered: what five hundred peers may name in that time. Nobody is asked beyond.
const MOST: usize = 65_536;

/// Why an address is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Because {
    /// A peer named it.
    Named,
    /// A ping of a peer's came from there. Who only names an address keeps nobody away who is there.
    Heard,
}

/// Which, since when, and for whom.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    all: BTreeMap<(SocketAddr, Because), (Instant, u64)>,
}

impl Asked {
    /// True if an address may be asked for this caller: nobody else had it asked for such a reason lately. Then it is the caller's
    /// for a while.
    pub(crate) fn may(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        because: Because,
        caller: u64,
    ) -> bool {
        match self.all.get(&(addr, because)) {
            Some((since, by)) if *since + FOR > now => return *by == caller,
            Some(_) => {}
            None if self.all.len() >= MOST => {
                self.all.retain(|_, (since, _)| *since + FOR > now);
                if self.all.len() >= MOST {
                    return false;
                }
            }
            None => {}
        }
        self.all.insert((addr, because), (now, caller));
        true
    }

    /// Somebody is there, and answers.
    pub(crate) fn answered(&mut self, addr: SocketAddr) {
        for because in [Because::Named, Because::Heard] {
            self.all.remove(&(addr, because));
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
    fn an_address_is_one_callers_until_it_answers_or_a_minute_is_over() {
        let (now, mut asked) = (start(), Asked::default());
        for because in [Named, Heard] {
            assert!(asked.may(now, addr(1), because, 7));
            assert!(asked.may(now, addr(1), because, 7));
            assert!(!asked.may(now, addr(1), because, 8));
            assert!(asked.may(now, addr(2), because, 8));
        }
        asked.answered(addr(1));
        for because in [Named, Heard] {
            assert!(asked.may(now, addr(1), because, 8));
            let soon = now + FOR - Duration::from_millis(1);
            assert!(!asked.may(soon, addr(1), because, 7));
            assert!(asked.may(now + FOR, addr(1), because, 7));
        }
    }

    #[test]
    fn who_names_an_address_keeps_nobody_away_who_is_there() {
        let (now, mut asked) = (start(), Asked::default());
        assert!(asked.may(now, addr(1), Named, 7));
        assert!(asked.may(now, addr(1), Heard, 8));
        assert!(!asked.may(now, addr(1), Heard, 7));
    }

    #[test]
    fn beyond_the_most_nobody_is_asked_until_there_is_room() {
        let (now, mut asked) = (start(), Asked::default());
        for n in 0..MOST as u32 {
            assert!(asked.may(now, addr(n), Named, 7));
        }
        assert!(!asked.may(now, addr(MOST as u32), Named, 7));
        assert!(asked.may(now, addr(0), Named, 7), "whose it is, it stays");
        assert!(asked.may(now + FOR, addr(MOST as u32), Named, 7));
        assert_eq!(asked.all.len(), 1);
    }
}
