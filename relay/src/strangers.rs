//! What strangers may do before they proved a key: how many handshakes they may begin in a second, and how many may be
//! under way, in all and from each host (design section 12).
//!
//! Two things keep one stranger from shutting the others out. An address that may be forged spends a budget of its own:
//! otherwise a few hundred forged datagrams a second would use up a victim's right to connect, over TCP as well. When
//! that budget is spent, the sender must prove its address (QUIC's Retry, which costs us no memory and is shorter than
//! what asked for it), and then spends the same budget as TCP does. And neither a host nor all the hosts of one customer may
//! fill the room where handshakes wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limit::{Prefix, PrefixLimiter, Rate};
use crate::limits::Limits;
use crate::proxies::Proxies;

/// New connections of all hosts together.
const ALL: Rate = Rate::per_second(10_000, 10_000);
/// The budgets; shared by all listeners.
#[derive(Debug)]
pub(crate) struct Strangers {
    proved: PrefixLimiter,
    claimed: PrefixLimiter,
    proxies: Proxies,
    /// Handshakes under way beyond which an address must be proved first.
    prove_above: usize,
    room: Room,
}

/// How many handshakes may be under way.
#[derive(Clone, Copy, Debug)]
struct Room {
    all: usize,
    /// One host's: of a thousand enough for an office that comes back behind its NAT after an outage.
    of_host: usize,
    /// One customer's, who has as many hosts as he likes (IPv6).
    of_site: usize,
}

/// What to do with somebody who wants to connect.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Begin the handshake, and hold the place while it lasts.
    Serve(Place),
    /// Let it prove its address and come again.
    Prove,
    /// Drop it.
    Refuse,
}

impl Strangers {
    /// Of the limits `connections` must not be 0.
    pub(crate) fn new(now: Instant, limits: &Limits, proxies: Proxies) -> Self {
        let each = u64::from(limits.connections);
        let each = Rate::per_second(each, each * 2);
        let all = limits.handshakes.under_way as usize;
        Self {
            // Whoever forges addresses may fill the places up to here: the others are for those who proved theirs.
            prove_above: (limits.handshakes.prove_above as usize).min(all / 2),
            room: Room {
                all,
                of_host: (all / 8).max(1),
                of_site: (all / 4).max(1),
            },
            proved: PrefixLimiter::new(now, Prefix::HOST, each, ALL),
            claimed: PrefixLimiter::new(now, Prefix::HOST, each, ALL),
            proxies,
        }
    }
    /// The proxies that are trusted.
    pub(crate) fn proxies(&self) -> &Proxies {
        &self.proxies
    }
    /// Judges a new connection. `proved`: its sender receives at `ip` for certain. This machine's own programs and trusted
    /// proxies, behind whom everybody comes, have no budget.
    pub(crate) fn judge(
        &self,
        now: Instant,
        ip: IpAddr,
        proved: bool,
        crowd: &Arc<Crowd>,
    ) -> Verdict {
        let budget = if proved { &self.proved } else { &self.claimed };
        let crowded = !proved && crowd.len() >= self.prove_above;
        // Nobody can forge our loopback, but a proxy's address anybody.
        let exempt = ip.is_loopback() || (proved && self.proxies.trusts(ip));
        if !crowded && (exempt || budget.take(now, ip)) {
            // A forged address must not take its owner's places.
            let host = (proved && !exempt).then_some(ip);
            if let Some(place) = crowd.enter(host, self.room) {
                return Verdict::Serve(place);
            }
        }
        if proved {
            Verdict::Refuse
        } else {
            Verdict::Prove
        }
    }
}

/// The handshakes that are under way.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<Present>);

#[derive(Debug, Default)]
struct Present {
    all: usize,
    hosts: Counts,
    sites: Counts,
}

/// Handshakes by prefix; none where there is none.
#[derive(Debug, Default)]
struct Counts(HashMap<(bool, u128), usize>);

impl Counts {
    fn of(&self, prefix: (bool, u128)) -> usize {
        self.0.get(&prefix).copied().unwrap_or(0)
    }
    fn add(&mut self, prefix: (bool, u128)) {
        *self.0.entry(prefix).or_default() += 1;
    }
    fn remove(&mut self, prefix: (bool, u128)) {
        if let Some(count) = self.0.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&prefix);
            }
        }
    }
}

impl Crowd {
    fn len(&self) -> usize {
        self.lock().all
    }
    fn enter(self: &Arc<Self>, host: Option<IpAddr>, room: Room) -> Option<Place> {
        let mut present = self.lock();
        if present.all >= room.all {
            return None;
        }
        if let Some(ip) = host {
            let (host, site) = (Prefix::HOST.of(ip), Prefix::SITE.of(ip));
            if present.hosts.of(host) >= room.of_host || present.sites.of(site) >= room.of_site {
                return None;
            }
            present.hosts.add(host);
            present.sites.add(site);
        }
        present.all += 1;
        Some(Place {
            crowd: Arc::clone(self),
            host,
        })
    }
    fn lock(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One handshake's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    host: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut present = self.crowd.lock();
        present.all -= 1;
        if let Some(ip) = self.host {
            present.hosts.remove(Prefix::HOST.of(ip));
            present.sites.remove(Prefix::SITE.of(ip));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(now: Instant) -> Strangers {
        Strangers::new(now, &Limits::default(), Proxies::default())
    }
    fn host(n: u32) -> IpAddr {
        IpAddr::V4((0xc000_0200 + n).into())
    }

    #[test]
    fn forged_addresses_do_not_spend_their_owners_budget_or_places() {
        let now = Instant::now();
        let strangers = usual(now);
        let crowd = Arc::new(Crowd::default());
        for _ in 0..1_000 {
            // Each ends at once, so the room stays empty and only the budget counts.
            strangers.judge(now, host(1), false, &crowd);
        }
        let verdict = strangers.judge(now, host(1), false, &crowd);
        assert!(matches!(verdict, Verdict::Prove));
        let verdict = strangers.judge(now, host(1), true, &crowd);
        assert!(matches!(verdict, Verdict::Serve(_)));
    }

    #[test]
    fn a_host_beyond_its_rate_is_refused() {
        let now = Instant::now();
        let strangers = usual(now);
        let crowd = Arc::new(Crowd::default());
        let served = (0..1_000)
            .filter(|_| {
                let verdict = strangers.judge(now, host(1), true, &crowd);
                matches!(verdict, Verdict::Serve(_))
            })
            .count();
        assert_eq!(served, 200);
    }

    #[test]
    fn a_trusted_proxy_has_no_budget_unless_its_address_may_be_forged() {
        let now = Instant::now();
        let proxies = Proxies::new(vec!["192.0.2.0/28".parse().unwrap()]);
        let strangers = Strangers::new(now, &Limits::default(), proxies);
        let crowd = Arc::new(Crowd::default());
        let serve = |n, proved| match strangers.judge(now, host(n), proved, &crowd) {
            Verdict::Serve(place) => Some(place),
            _ => None,
        };
        // More at once and under way than any host may have.
        let held: Vec<Place> = (0..1_000).filter_map(|_| serve(1, true)).collect();
        assert_eq!(held.len(), 1_000);
        drop(held);
        let served = (0..1_000).filter_map(|_| serve(2, false)).count();
        assert_eq!(served, 200);
        let served = (0..1_000).filter_map(|_| serve(16, true)).count();
        assert_eq!(served, 200, "beyond its network");
    }

    #[test]
    fn a_host_that_never_ends_its_handshakes_leaves_room_for_others() {
        let now = Instant::now();
        let strangers = usual(now);
        let crowd = Arc::new(Crowd::default());
        let serve = |n| match strangers.judge(now, host(n), true, &crowd) {
            Verdict::Serve(place) => Some(place),
            _ => None,
        };
        let slow: Vec<Place> = (0..150).filter_map(|_| serve(1)).collect();
        assert_eq!(slow.len(), 128);
        assert!(serve(1).is_none());
        assert!(serve(2).is_some());
        drop(slow);
        assert!(serve(1).is_some());
        assert!(crowd.lock().hosts.0.is_empty() && crowd.len() == 0);
    }

    /// A customer's /48 has 65,536 hosts, eight of which would fill the room.
    #[test]
    fn one_customer_s_many_hosts_leave_room_for_others() {
        let now = Instant::now();
        let strangers = usual(now);
        let crowd = Arc::new(Crowd::default());
        let serve = |site: u128, host: u128| {
            let ip = IpAddr::V6(((0x2001_0db8_u128 << 96) | site << 80 | host << 64 | 1).into());
            match strangers.judge(now, ip, true, &crowd) {
                Verdict::Serve(place) => Some(place),
                _ => None,
            }
        };
        let slow: Vec<Place> = (0..2_000).filter_map(|n| serve(1, n % 40)).collect();
        assert_eq!(slow.len(), 256);
        assert!(serve(1, 50).is_none());
        assert!(serve(2, 0).is_some());
        drop(slow);
        assert!(serve(1, 50).is_some());
        assert!(crowd.lock().sites.0.is_empty() && crowd.len() == 0);
        // An IPv4 address is a host and a customer.
        let four: Vec<_> = (0..300)
            .filter_map(|n| match strangers.judge(now, host(n % 3), true, &crowd) {
                Verdict::Serve(place) => Some(place),
                _ => None,
            })
            .collect();
        assert_eq!(four.len(), 300);
    }

    #[test]
    fn an_operator_may_make_the_room_another() {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.handshakes.prove_above = 0;
        limits.handshakes.under_way = 16;
        let strangers = Strangers::new(now, &limits, Proxies::default());
        let crowd = Arc::new(Crowd::default());
        let verdict = strangers.judge(now, host(1), false, &crowd);
        assert!(matches!(verdict, Verdict::Prove), "always");
        let serve = |n| match strangers.judge(now, host(n), true, &crowd) {
            Verdict::Serve(place) => Some(place),
            _ => None,
        };
        let places: Vec<Place> = (0..30).filter_map(|n| serve(n / 3)).collect();
        assert_eq!(places.len(), 16, "two of each host, until it is full");
        assert!(serve(20).is_none());
    }

    #[test]
    fn a_full_room_asks_for_proof_and_then_takes_nobody() {
        let now = Instant::now();
        let strangers = usual(now);
        let crowd = Arc::new(Crowd::default());
        let mut places = Vec::new();
        for n in 0..2_000 {
            if let Verdict::Serve(place) = strangers.judge(now, host(n), false, &crowd) {
                places.push(place);
            }
        }
        assert_eq!(places.len(), 128);
        for n in 0..2_000 {
            if let Verdict::Serve(place) = strangers.judge(now, host(n), true, &crowd) {
                places.push(place);
            }
        }
        assert_eq!(places.len(), 1_024);
        let verdict = strangers.judge(now, host(3_000), true, &crowd);
        assert!(matches!(verdict, Verdict::Refuse));
    }

    /// An operator who makes the room small and leaves the rest as it is.
    #[test]
    fn forged_addresses_do_not_fill_a_small_room() {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.handshakes.under_way = 64;
        let strangers = Strangers::new(now, &limits, Proxies::default());
        let crowd = Arc::new(Crowd::default());
        let mut forged = Vec::new();
        for n in 0..1_000 {
            match strangers.judge(now, host(n), false, &crowd) {
                Verdict::Serve(place) => forged.push(place),
                Verdict::Prove => {}
                Verdict::Refuse => panic!("the sender may prove its address"),
            }
        }
        assert_eq!(forged.len(), 32);
        let verdict = strangers.judge(now, host(2_000), true, &crowd);
        assert!(matches!(verdict, Verdict::Serve(_)));
    }
}
