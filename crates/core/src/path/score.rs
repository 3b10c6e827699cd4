//! Which path is best, and when a better one is worth a change.

use std::time::Duration;

use crate::io::PathKind;

/// Names a path of one peer; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId(pub u32);

/// Above this share of lost pings a path is impaired, in percent: TCP-like traffic collapses there.
const IMPAIRED_LOSS: u32 = 5;
/// A path is impaired when its round trip is above twice the best one's plus this: a detour a person would notice.
const IMPAIRED_RTT: Duration = Duration::from_millis(50);
/// Width of an RTT bucket: smaller differences are noise.
const RTT_BUCKET: Duration = Duration::from_millis(5);
/// A better tier is left for its loss only if it loses twice as much as the other path and this much more, in percent: both
/// often cross the same lossy access network.
const LOSS_MARGIN: u32 = 5;
/// And only if chance does not explain the difference, for a few dozen pings measure a few percent badly, and the question
/// is asked every second of a day: so many of its standard deviations, squared (3.5 of them; some 35 pings tell 30 % from
/// none, 60 tell 20 %).
const LOSS_CERTAINTY: u64 = 12;
/// Within a tier a change must gain this much...
const MARGIN: Duration = Duration::from_millis(5);
/// ...and this share of the current round trip, in percent.
const MARGIN_PERCENT: u32 = 20;

/// A path's rank; smaller is better. The order of the fields is the priority (design section 6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Score {
    /// The relay that it goes through stops.
    pub leaving: bool,
    /// It loses more than 5 % or takes more than twice the best path's time plus 50 ms.
    pub impaired: bool,
    /// Direct before UDP channel before TLS channel.
    pub tier: PathKind,
    /// It does not carry full-size datagrams: each is sent in two parts.
    pub narrow: bool,
    /// Lost pings, in steps of 5 %.
    pub loss_bucket: u32,
    /// Round-trip time, in steps of 5 ms; unknown counts as the worst.
    pub rtt_bucket: u32,
    /// IPv6 before IPv4 before channels: IPv6 has no NAT whose mapping could expire.
    pub family: u8,
    /// The older path, so that the order is total.
    pub id: PathId,
}

/// What a policy knows of a path that may carry data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which path.
    pub id: PathId,
    /// Its tier.
    pub kind: PathKind,
    /// The relay that it goes through stops soon: data is to go elsewhere, as soon as that is proven.
    pub leaving: bool,
    /// 0 for IPv6, 1 for IPv4, 2 for a channel.
    pub family: u8,
    /// Smoothed round-trip time, if measured.
    pub rtt: Option<Duration>,
    /// It was found not to carry full-size datagrams.
    pub narrow: bool,
    /// Lost pings in percent.
    pub loss_percent: u32,
    /// Of how many pings.
    pub pings: u32,
}

/// What a policy decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Stay, or there is nothing to go to.
    Keep,
    /// This path would be better; move if it still is after three samples.
    Challenge(PathId),
    /// Move now.
    Move(PathId),
}

/// How to choose among paths. One pure function: everything it may consider is an argument.
pub trait Policy: std::fmt::Debug + Send + Sync {
    /// Judges `current` (none: there is no primary) against all paths that may carry data, `current` among them.
    fn judge(&self, current: Option<PathId>, paths: &[Standing]) -> Verdict;
}

/// The design's policy: best score; at once to a better tier that is not impaired, patiently otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestScore;

impl Policy for BestScore {
    fn judge(&self, current: Option<PathId>, paths: &[Standing]) -> Verdict {
        let best_rtt = paths.iter().filter_map(|p| p.rtt).min();
        let rank = |p: &Standing| score(p, best_rtt);
        let Some(best) = paths.iter().min_by_key(|p| rank(p)) else {
            return Verdict::Keep;
        };
        let Some(current) = paths.iter().find(|p| Some(p.id) == current) else {
            return Verdict::Move(best.id);
        };
        if best.id == current.id {
            return Verdict::Keep;
        }
        if current.leaving {
            // Not to one that has not answered yet: nothing hurries so much.
            let proven = |p: &&Standing| !p.leaving && p.rtt.is_some();
            let next = paths.iter().filter(proven).min_by_key(|p| rank(p));
            return next.map_or(Verdict::Keep, |p| Verdict::Move(p.id));
        }
        let (new, old) = (rank(best), rank(current));
        if new.tier > old.tier && !is_slow(current, best_rtt) && !loses_clearly_more(current, best)
        {
            return Verdict::Keep;
        }
        if new.tier < old.tier && !new.impaired {
            return Verdict::Move(best.id);
        }
        let graver = |s: Score| (s.impaired, s.tier, s.narrow, s.loss_bucket);
        if graver(new) < graver(old) {
            return Verdict::Challenge(best.id);
        }
        match (best.rtt, current.rtt) {
            (Some(new), Some(old)) if new + MARGIN.max(old * MARGIN_PERCENT / 100) < old => {
                Verdict::Challenge(best.id)
            }
            _ => Verdict::Keep,
        }
    }
}

fn loses_clearly_more(path: &Standing, other: &Standing) -> bool {
    let (own, others) = (path.loss_percent, other.loss_percent);
    if own < others * 2 + LOSS_MARGIN {
        return false;
    }
    // Two shares of n pings each differ by chance with the variance 2 p (1 - p) / n, p being the mean.
    let more = u64::from(own - others);
    let pings = u64::from(path.pings.min(other.pings));
    let mean = u64::from(own + others) / 2;
    more * more * pings >= LOSS_CERTAINTY * 2 * mean * 100u64.saturating_sub(mean)
}

/// A detour that a person would notice.
fn is_slow(path: &Standing, best_rtt: Option<Duration>) -> bool {
    match (path.rtt, best_rtt) {
        (Some(rtt), Some(best)) => rtt > best * 2 + IMPAIRED_RTT,
        _ => false,
    }
}

/// A path's score; `best_rtt` is the smallest round trip of all paths that may carry data.
pub fn score(path: &Standing, best_rtt: Option<Duration>) -> Score {
    Score {
        leaving: path.leaving,
        impaired: is_slow(path, best_rtt) || path.loss_percent > IMPAIRED_LOSS,
        tier: path.kind,
        narrow: path.narrow,
        loss_bucket: path.loss_percent / 5,
        rtt_bucket: path.rtt.map_or(u32::MAX, |rtt| {
            (rtt.as_micros() / RTT_BUCKET.as_micros()) as u32
        }),
        family: path.family,
        id: path.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(id: u32, kind: PathKind, rtt_ms: u64, loss_percent: u32) -> Standing {
        Standing {
            id: PathId(id),
            kind,
            leaving: false,
            family: 1,
            rtt: Some(Duration::from_millis(rtt_ms)),
            narrow: false,
            loss_percent,
            pings: 128,
        }
    }
    fn judge(current: u32, paths: &[Standing]) -> Verdict {
        BestScore.judge(Some(PathId(current)), paths)
    }

    #[test]
    fn the_first_path_is_taken_at_once() {
        assert_eq!(
            BestScore.judge(None, &[path(1, PathKind::RelayTls, 90, 0)]),
            Verdict::Move(PathId(1))
        );
    }
    #[test]
    fn a_better_tier_is_taken_at_once_even_if_slightly_slower() {
        let paths = [
            path(1, PathKind::RelayUdp, 20, 0),
            path(2, PathKind::Direct, 40, 0),
        ];
        assert_eq!(judge(1, &paths), Verdict::Move(PathId(2)));
    }
    #[test]
    fn a_detour_is_not_taken_although_it_is_direct() {
        let paths = [
            path(1, PathKind::RelayUdp, 20, 0),
            path(2, PathKind::Direct, 91, 0),
        ];
        assert_eq!(judge(1, &paths), Verdict::Keep);
    }
    #[test]
    fn a_channel_of_a_relay_that_stops_is_left_for_any_that_answered() {
        let leaving = |path: Standing| Standing {
            leaving: true,
            ..path
        };
        let silent = |path: Standing| Standing { rtt: None, ..path };
        let stops = leaving(path(1, PathKind::RelayUdp, 20, 0));
        let (near, far) = (
            path(2, PathKind::RelayUdp, 30, 0),
            path(3, PathKind::RelayTls, 400, 20),
        );
        assert_eq!(judge(1, &[stops, far]), Verdict::Move(PathId(3)));
        assert_eq!(judge(1, &[stops, near, far]), Verdict::Move(PathId(2)));
        assert_eq!(
            judge(1, &[stops, silent(near), far]),
            Verdict::Move(PathId(3))
        );
        assert_eq!(judge(1, &[stops, silent(near)]), Verdict::Keep);
        assert_eq!(judge(1, &[stops, leaving(near)]), Verdict::Keep);
        assert_eq!(judge(2, &[stops, near]), Verdict::Keep, "nor returned to");
        assert_eq!(
            BestScore.judge(None, &[stops, silent(far)]),
            Verdict::Move(PathId(3))
        );
    }
    #[test]
    fn a_lossy_direct_path_is_left_patiently() {
        let paths = [
            path(1, PathKind::RelayUdp, 20, 0),
            path(2, PathKind::Direct, 10, 20),
        ];
        assert_eq!(judge(2, &paths), Verdict::Challenge(PathId(1)));
    }
    #[test]
    fn what_chance_explains_moves_nothing() {
        let judge = |loss, pings| {
            let known = |path: Standing| Standing { pings, ..path };
            judge(
                2,
                &[
                    known(path(1, PathKind::RelayUdp, 20, 0)),
                    known(path(2, PathKind::Direct, 10, loss)),
                ],
            )
        };
        for (loss, pings, verdict) in [
            (30, 20, Verdict::Keep),
            (30, 40, Verdict::Challenge(PathId(1))),
            (12, 60, Verdict::Keep),
            (12, 128, Verdict::Challenge(PathId(1))),
        ] {
            assert_eq!(judge(loss, pings), verdict, "{loss} % of {pings}");
        }
    }
    #[test]
    fn a_direct_path_is_not_left_for_one_that_loses_as_much() {
        for (direct, relay, verdict) in [
            (6, 3, Verdict::Keep),
            (12, 4, Verdict::Keep),
            (15, 4, Verdict::Keep),
            (25, 4, Verdict::Challenge(PathId(1))),
        ] {
            let paths = [
                path(1, PathKind::RelayUdp, 20, relay),
                path(2, PathKind::Direct, 10, direct),
            ];
            assert_eq!(judge(2, &paths), verdict, "{direct} {relay}");
        }
    }
    #[test]
    fn within_a_tier_both_margins_must_be_gained() {
        let close = [
            path(1, PathKind::Direct, 24, 0),
            path(2, PathKind::Direct, 20, 0),
        ];
        assert_eq!(judge(1, &close), Verdict::Keep);
        let share = [
            path(1, PathKind::Direct, 100, 0),
            path(2, PathKind::Direct, 85, 0),
        ];
        assert_eq!(judge(1, &share), Verdict::Keep);
        let both = [
            path(1, PathKind::Direct, 100, 0),
            path(2, PathKind::Direct, 75, 0),
        ];
        assert_eq!(judge(1, &both), Verdict::Challenge(PathId(2)));
    }
    #[test]
    fn the_order_of_fields_is_the_priority() {
        let best = Some(Duration::from_millis(10));
        let lossy_direct = score(&path(1, PathKind::Direct, 10, 4), best);
        let clean_relay = score(&path(2, PathKind::RelayUdp, 10, 0), best);
        let impaired_direct = score(&path(3, PathKind::Direct, 10, 6), best);
        assert!(lossy_direct < clean_relay);
        assert!(clean_relay < impaired_direct);
    }
}
