//! Is an announcement one of a gateway that began anew, or only said to be? (RFC 6886 sections 3.2.1 and 3.6, RFC 6887 sections
//! 8.5 and 14.1.)
//!
//! Anybody on the local network can send one, and the gateway's address as the source is easily forged. What an announcement can
//! do is therefore small: the gateway itself is asked once more for what it should hold already, or for what it did not give
//! before. It does even that only if it comes from the gateway's own address and port, tells something new, and not too many
//! came before it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use byway_core::bucket::TokenBucket;

/// What is lost of a second when two clocks are read, and the wire's part of it (RFC 6886 section 3.6, RFC 6887 section 8.5).
const SLACK: u64 = 2;
/// A gateway announces itself ten times within minutes (RFC 6886 section 3.2.1). One that begins anew so often at a stretch is
/// asked each time,
const AT_ONCE: u32 = 4;
/// and then only so often: a port is renewed without any announcement, and whoever forges them gains nothing.
const AGAIN: Duration = Duration::from_secs(600);
/// Of an answer to a request for the outside address (NAT-PMP), and of PCP's header.
const NAT_PMP: usize = 12;
const PCP: usize = 24;
/// Longest message of PCP (RFC 6887 section 7).
pub(super) const LONGEST: usize = 1100;
/// An answer (of both protocols) to the request with the number 0: NAT-PMP's outside address, PCP's `ANNOUNCE`.
const ANNOUNCED: u8 = 0x80;

/// A gateway's time, in seconds since it began to keep its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Epoch {
    pub(super) seconds: u32,
    /// When it was told.
    pub(super) at: Instant,
}

impl Epoch {
    /// True if the table was kept in between: the gateway's time went on, and about as fast as ours.
    fn goes_on_to(self, later: Self) -> bool {
        let ours = later.at.saturating_duration_since(self.at).as_secs();
        let Some(theirs) = later.seconds.checked_sub(self.seconds) else {
            // One second is lost between two answers that cross.
            return self.seconds - later.seconds <= 1 && ours <= SLACK;
        };
        let theirs = u64::from(theirs);
        let is_late = ours - ours / 8 > theirs + SLACK;
        let is_early = theirs - theirs / 16 > ours + SLACK;
        !is_late && !is_early
    }
}

/// What is known of the gateway whose announcements count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) gateway: Ipv4Addr,
    /// Its outside address and its time, as it told them when it was asked.
    pub(super) external: Option<IpAddr>,
    pub(super) epoch: Option<Epoch>,
}

/// Why an announcement changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Another address than the gateway's.
    Stranger,
    /// The gateway's address, and not the port from which it answers.
    Port,
    /// No announcement of either protocol.
    Garbage,
    /// The gateway has not forgotten anything, and has the outside address it had.
    NothingNew,
    TooMany,
}

/// What an announcement says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Said {
    seconds: u32,
    /// NAT-PMP tells it. None while there is no outside network.
    external: Option<Ipv4Addr>,
}

impl Said {
    fn read(data: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            data.get(at..at + 4)?
                .try_into()
                .ok()
                .map(u32::from_be_bytes)
        };
        match data {
            // Version, opcode, result (two bytes), time, outside address.
            [0, ANNOUNCED, 0, 0, ..] if data.len() == NAT_PMP => Some(Self {
                seconds: number(4)?,
                external: Some(Ipv4Addr::from_bits(number(8)?)).filter(|ip| !ip.is_unspecified()),
            }),
            // Version, opcode, reserved, result, lifetime, time.
            [2, ANNOUNCED, _, 0, ..]
                if (PCP..=LONGEST).contains(&data.len()) && data.len().is_multiple_of(4) =>
            {
                Some(Self {
                    seconds: number(8)?,
                    external: None,
                })
            }
            _ => None,
        }
    }
}

/// Judges announcements.
#[derive(Debug)]
pub(super) struct Judge {
    /// The last that counted, and whose it was.
    last: Option<(Ipv4Addr, Epoch, Option<Ipv4Addr>)>,
    allowed: TokenBucket,
}

impl Judge {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: None,
            allowed: TokenBucket::full(now, AT_ONCE, AGAIN),
        }
    }

    /// Whether the gateway should be asked again.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        known: Known,
        from: SocketAddr,
        data: &[u8],
    ) -> Result<(), Refusal> {
        if from.ip() != IpAddr::V4(known.gateway) {
            return Err(Refusal::Stranger);
        }
        if from.port() != crab_nat::GATEWAY_PORT {
            return Err(Refusal::Port);
        }
        let said = Said::read(data).ok_or(Refusal::Garbage)?;
        let epoch = Epoch {
            seconds: said.seconds,
            at: now,
        };
        let last = self.last.filter(|(whose, ..)| *whose == known.gateway);
        // The gateway's own answers before what somebody announced.
        let before = known.epoch.or(last.map(|(_, epoch, _)| epoch));
        let address = known
            .external
            .or(last.and_then(|(.., ip)| ip).map(IpAddr::V4));
        let has_moved = said
            .external
            .is_some_and(|ip| address.is_some_and(|before| before != IpAddr::V4(ip)));
        let went_on = before.is_some_and(|before| before.goes_on_to(epoch));
        // One that had no outside address before may have one now.
        let has_begun = known.external.is_none() && address.is_none() && said.external.is_some();
        if went_on && !has_moved && !has_begun {
            return Err(Refusal::NothingNew);
        }
        if !self.allowed.take(now) {
            return Err(Refusal::TooMany);
        }
        let external = said.external.or(last.and_then(|(.., ip)| ip));
        self.last = Some((known.gateway, epoch, external));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

    fn from(addr: &str) -> SocketAddr {
        addr.parse().unwrap()
    }

    fn gateway() -> SocketAddr {
        from("192.168.1.1:5351")
    }

    fn nat_pmp(seconds: u32, external: Ipv4Addr) -> Vec<u8> {
        [
            &[0, 128, 0, 0][..],
            &seconds.to_be_bytes(),
            &external.octets(),
        ]
        .concat()
    }

    fn pcp(seconds: u32) -> Vec<u8> {
        let mut data = vec![0; 24];
        data[..2].copy_from_slice(&[2, 128]);
        data[8..12].copy_from_slice(&seconds.to_be_bytes());
        data
    }

    /// A gateway that has been up for a day when it gave a port.
    fn holding(at: Instant) -> Known {
        Known {
            gateway: GATEWAY,
            external: Some(OUTSIDE.into()),
            epoch: Some(Epoch {
                seconds: 86_400,
                at,
            }),
        }
    }

    fn nothing_given() -> Known {
        Known {
            gateway: GATEWAY,
            external: None,
            epoch: None,
        }
    }

    #[test]
    fn a_gateway_that_began_anew_is_heard_by_either_protocol() {
        let now = Instant::now();
        for data in [nat_pmp(0, OUTSIDE), pcp(3)] {
            let mut judge = Judge::new(now);
            let later = now + Duration::from_secs(600);
            assert_eq!(judge.judge(later, holding(now), gateway(), &data), Ok(()));
        }
    }

    #[test]
    fn whoever_is_not_the_gateway_is_refused() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        for stranger in ["192.168.1.2:5351", "[::1]:5351", "203.0.113.9:5351"] {
            let verdict = judge.judge(now, holding(now), from(stranger), &pcp(0));
            assert_eq!(verdict, Err(Refusal::Stranger), "{stranger}");
        }
        // Any program of a host behind whose address it is can do so; its answers come from its own port alone.
        let port = from("192.168.1.1:5350");
        let verdict = judge.judge(now, holding(now), port, &pcp(0));
        assert_eq!(verdict, Err(Refusal::Port));
    }

    #[test]
    fn what_is_no_announcement_is_refused() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        let mut refused = vec![
            Vec::new(),
            vec![0],
            vec![2, 128],
            // Cut short, too long, no multiple of four.
            nat_pmp(0, OUTSIDE)[..11].to_vec(),
            [nat_pmp(0, OUTSIDE), vec![0]].concat(),
            pcp(0)[..23].to_vec(),
            [pcp(0), vec![0]].concat(),
            [pcp(0), vec![0; 1100]].concat(),
        ];
        // Another version, a request, another operation, an error.
        for (at, byte) in [(0, 1), (1, 0), (1, 129), (3, 3)] {
            for mut data in [nat_pmp(0, OUTSIDE), pcp(0)] {
                data[at] = byte;
                refused.push(data);
            }
        }
        for data in refused {
            let verdict = judge.judge(now, holding(now), gateway(), &data);
            assert_eq!(verdict, Err(Refusal::Garbage), "{data:?}");
        }
    }

    #[test]
    fn a_time_that_went_on_is_nothing_new() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        for minutes in [0, 1, 60, 24 * 60] {
            let later = now + Duration::from_secs(60 * u64::from(minutes));
            let seconds = 86_400 + 60 * minutes;
            for data in [nat_pmp(seconds, OUTSIDE), pcp(seconds), pcp(seconds - 1)] {
                let verdict = judge.judge(later, holding(now), gateway(), &data);
                assert_eq!(verdict, Err(Refusal::NothingNew), "{minutes}");
            }
        }
        // Nobody was charged for it.
        assert_eq!(judge.judge(now, holding(now), gateway(), &pcp(0)), Ok(()));
    }

    #[test]
    fn a_time_behind_or_ahead_of_ours_is_another_table() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3_600);
        for seconds in [0, 86_400, 86_400 + 3_000, 86_400 + 4_000] {
            let mut judge = Judge::new(now);
            let verdict = judge.judge(later, holding(now), gateway(), &pcp(seconds));
            assert_eq!(verdict, Ok(()), "{seconds}");
        }
    }

    #[test]
    fn another_outside_address_is_news_though_nothing_was_forgotten() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        let moved = nat_pmp(86_400, Ipv4Addr::new(203, 0, 113, 10));
        assert_eq!(judge.judge(now, holding(now), gateway(), &moved), Ok(()));
        let lost = nat_pmp(86_400, Ipv4Addr::UNSPECIFIED);
        let verdict = judge.judge(now, holding(now), gateway(), &lost);
        assert_eq!(verdict, Err(Refusal::NothingNew));
    }

    #[test]
    fn one_that_gave_nothing_is_asked_at_its_first_word_and_not_at_its_repetitions() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        let unknown = nothing_given();
        let starting = nat_pmp(1, Ipv4Addr::UNSPECIFIED);
        assert_eq!(judge.judge(now, unknown, gateway(), &starting), Ok(()));
        let later = now + Duration::from_secs(5);
        let again = nat_pmp(6, Ipv4Addr::UNSPECIFIED);
        let verdict = judge.judge(later, unknown, gateway(), &again);
        assert_eq!(verdict, Err(Refusal::NothingNew));
        let there = nat_pmp(6, OUTSIDE);
        assert_eq!(judge.judge(later, unknown, gateway(), &there), Ok(()));
        let verdict = judge.judge(later, unknown, gateway(), &there);
        assert_eq!(verdict, Err(Refusal::NothingNew));
    }

    #[test]
    fn too_many_are_refused_until_time_has_passed() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        let mut count = |at: Duration| {
            let now = now + at;
            let accepted = (0..1_000).filter(|_| {
                // As if the gateway had answered each time that nothing had happened.
                judge.judge(now, holding(now), gateway(), &pcp(0)).is_ok()
            });
            accepted.count()
        };
        assert_eq!(count(Duration::ZERO), 4);
        assert_eq!(count(Duration::from_secs(599)), 0);
        assert_eq!(count(Duration::from_secs(600)), 1);
        assert_eq!(count(Duration::from_secs(1_801)), 2);
        assert_eq!(count(Duration::from_secs(86_400)), 4);
    }
}
