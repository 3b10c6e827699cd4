//! Several addresses of one relay, tried side by side: the first that answers wins.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use byway_wire::RelayUrl;

/// Between the first attempts of several addresses (`STAGGER` in `links/udp.rs` and `links/tcp.rs`; RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// One dial's attempts, each of them a `T`.
#[derive(Debug)]
pub(super) struct Race<T> {
    planned: VecDeque<(Instant, SocketAddr)>,
    attempts: Vec<Attempt<T>>,
    next: u16,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<T> {
    pub(super) number: u16,
    pub(super) addr: SocketAddr,
    pub(super) is: T,
    pub(super) began: Instant,
}

impl<T: Copy + PartialEq> Race<T> {
    pub(super) fn new(planned: Vec<(Instant, SocketAddr)>) -> Self {
        Self {
            planned: planned.into(),
            attempts: Vec::new(),
            next: 0,
        }
    }
    /// The attempt to make now, if there is one: its number, and where to. [`Race::began`] follows, or [`Race::hurry`] if it
    /// could not be made.
    pub(super) fn due(&mut self, now: Instant) -> Option<(u16, SocketAddr)> {
        let (_, addr) = self.planned.pop_front_if(|(at, _)| *at <= now)?;
        let number = self.next;
        self.next += 1;
        Some((number, addr))
    }
    pub(super) fn began(&mut self, now: Instant, (number, addr): (u16, SocketAddr), is: T) {
        self.attempts.push(Attempt {
            number,
            addr,
            is,
            began: now,
        });
    }
    /// When the next attempt is to be made.
    pub(super) fn next(&self) -> Option<Instant> {
        self.planned.front().map(|(at, _)| *at)
    }
    /// Nothing is under way, and nothing is left to try.
    pub(super) fn is_lost(&self) -> bool {
        self.attempts.is_empty() && self.planned.is_empty()
    }
    /// Where what is under way leads.
    pub(super) fn attempts(&self) -> &[Attempt<T>] {
        &self.attempts
    }
    pub(super) fn has(&self, is: T) -> bool {
        self.attempts.iter().any(|attempt| attempt.is == is)
    }
    /// The one that won, or the first.
    pub(super) fn first(&self) -> Option<Attempt<T>> {
        self.attempts.first().copied()
    }
    /// This one won: gives the others, which are over.
    pub(super) fn won(&mut self, is: T) -> Vec<T> {
        self.planned.clear();
        let (won, lost) = self.attempts.iter().partition(|attempt| attempt.is == is);
        self.attempts = won;
        let lost: Vec<Attempt<T>> = lost;
        lost.into_iter().map(|attempt| attempt.is).collect()
    }
    /// This one failed.
    pub(super) fn failed(&mut self, now: Instant, is: T) {
        self.attempts.retain(|attempt| attempt.is != is);
        self.hurry(now);
    }
    /// Where nothing is under way any more, the next attempt is made at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.attempts.is_empty()
            && let Some((at, _)) = self.planned.front_mut()
        {
            *at = now;
        }
    }
}

/// A relay's addresses: those that belong to its name, families alternating, IPv6 first (`resolve.rs`; RFC 8305 section 4).
pub(super) fn resolve(url: &RelayUrl, known: &[SocketAddr]) -> Vec<SocketAddr> {
    if let Ok(ip) = url.host().parse::<IpAddr>() {
        return vec![SocketAddr::new(ip, url.port())];
    }
    let of = |v4: bool| known.iter().filter(move |addr| addr.is_ipv4() == v4);
    let (mut v6, mut v4) = (of(false), of(true));
    let mut out = Vec::new();
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return out;
        }
        out.extend(pair.into_iter().flatten());
    }
}

/// When to try which over UDP: the first of each family at once, then what is left (`schedule` in `links/udp.rs`).
pub(super) fn udp(now: Instant, addrs: &[SocketAddr]) -> Vec<(Instant, SocketAddr)> {
    let is_first = |n: usize| {
        let mut before = addrs[..n].iter();
        !before.any(|known| known.is_ipv4() == addrs[n].is_ipv4())
    };
    let (first, rest): (Vec<usize>, Vec<usize>) = (0..addrs.len()).partition(|n| is_first(*n));
    let rest = (1..)
        .zip(rest)
        .map(|(n, of)| (now + STAGGER * n, addrs[of]));
    let first = first.into_iter().map(|of| (now, addrs[of]));
    first.chain(rest).collect()
}

/// The same over TCP: one after the other (`race` in `links/tcp.rs`).
pub(super) fn tcp(now: Instant, addrs: Vec<SocketAddr>) -> Vec<(Instant, SocketAddr)> {
    let staggered = (0..).zip(addrs);
    staggered
        .map(|(n, addr)| (now + STAGGER * n, addr))
        .collect()
}

/// Through a proxy there is one attempt: the name is the proxy's to resolve. It takes IPv4 where the relay has it, which every
/// proxy here reaches.
pub(super) fn by_proxy(now: Instant, addrs: &[SocketAddr]) -> Vec<(Instant, SocketAddr)> {
    let v4 = addrs.iter().find(|addr| addr.is_ipv4());
    let addr = v4.or(addrs.first());
    addr.map(|addr| (now, *addr)).into_iter().collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
    fn now() -> Instant {
        #[expect(
            clippy::disallowed_methods,
            reason = "a run needs one instant to start from; nothing depends on which"
        )]
        Instant::now()
    }

    #[test]
    fn both_families_begin_at_once_over_udp_and_ipv6_first_over_tcp() {
        let (four, six) = (addr("192.0.2.1:443"), addr("[2001:db8::1]:443"));
        let url = RelayUrl::new("relay.test", 443, None).unwrap();
        let addrs = resolve(&url, &[four, six]);
        assert_eq!(addrs, [six, four]);
        let at = now();
        assert_eq!(udp(at, &addrs), [(at, six), (at, four)]);
        assert_eq!(tcp(at, addrs), [(at, six), (at + STAGGER, four)]);
    }

    #[test]
    fn an_attempt_that_fails_brings_the_next_one_on() {
        let (four, six) = (addr("192.0.2.1:443"), addr("[2001:db8::1]:443"));
        let at = now();
        let mut race = Race::new(tcp(at, vec![six, four]));
        let first = race.due(at).unwrap();
        race.began(at, first, 'a');
        assert_eq!(race.due(at), None);
        race.failed(at, 'a');
        assert!(!race.is_lost());
        let second = race.due(at).unwrap();
        assert_eq!(second, (1, four));
        race.began(at, second, 'b');
        race.failed(at, 'b');
        assert!(race.is_lost());
    }
}
