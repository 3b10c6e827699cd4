//! When to ask again: as seldom as the answer allows, and as often as a rotation needs.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

use crate::pause::{self, Part};

/// However short an answer says that it holds: no provider wants to be asked by every relay all the time.
const LEAST: Duration = Duration::from_secs(60);
/// However long: a key that is gone must not admit for a day.
const MOST: Duration = Duration::from_secs(60 * 60);
/// The longest pause between two tries: nobody waits longer for a provider that is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long an answer is fresh (RFC 9111 section 4.2.1), and `usual` if it does not say. What only caches that many share go by (`s-maxage`),
/// and dates, which are another clock's, are left out.
pub(super) fn fresh_for(headers: &HeaderMap, usual: Duration) -> Duration {
    let values = headers.get_all(CACHE_CONTROL).iter();
    let directives = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    // Of several the least: none of them may be broken.
    let Some(max_age) = directives.filter_map(lifetime).min() else {
        return usual;
    };
    // It may have lain in a cache on the way.
    let age = headers
        .get(AGE)
        .and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let left = max_age.saturating_sub(age.unwrap_or(0));
    Duration::from_secs(left).clamp(LEAST, MOST)
}

/// The seconds that a directive gives an answer, if it says anything of that.
fn lifetime(directive: &str) -> Option<u64> {
    let (name, value) = match directive.split_once('=') {
        Some((name, value)) => (name.trim(), value.trim().trim_matches('"')),
        None => (directive.trim(), ""),
    };
    if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
        return Some(0);
    }
    if !name.eq_ignore_ascii_case("max-age") {
        return None;
    }
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    // RFC 9111: what is no number makes the answer stale (section 4.2.1), what is too large is the largest (section 1.2.2).
    Some(if digits {
        value.parse().unwrap_or(u64::MAX)
    } else {
        0
    })
}

/// When to ask for what is fresh for so long: up to a tenth sooner, so that the next keys are there before these are old, and relays that
/// started together do not ask together.
pub(super) fn refresh(fresh: Duration, jitter: Part) -> Duration {
    fresh - jitter.of(fresh / 10)
}

/// The pause after so many failures in a row.
pub(super) fn back_off(first: Duration, failures: u32, jitter: Part) -> Duration {
    pause::back_off(first, LONGEST_PAUSE, failures, jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(300);

    fn fresh(headers: &[(&'static str, &'static str)]) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        fresh_for(&map, USUAL).as_secs()
    }
    fn control(value: &'static str) -> u64 {
        fresh(&[("cache-control", value)])
    }

    #[test]
    fn an_answer_is_fresh_for_as_long_as_it_says_within_a_minute_and_an_hour() {
        assert_eq!(fresh(&[]), 300);
        for (value, expected) in [
            ("max-age=600", 600),
            ("public, Max-Age = 600 , must-revalidate", 600),
            ("max-age=\"600\"", 600),
            ("max-age=60", 60),
            ("max-age=59", 60),
            ("max-age=0", 60),
            ("max-age=3600", 3_600),
            ("max-age=3601", 3_600),
            ("max-age=86400", 3_600),
            ("max-age=99999999999999999999999", 3_600),
            ("max-age=600, max-age=120", 120),
            ("max-age=600, no-cache", 60),
            ("no-store", 60),
            // What is no number is no reason to wait.
            ("max-age=", 60),
            ("max-age", 60),
            ("max-age=-1", 60),
            ("max-age=soon", 60),
            // Of nothing that is ours.
            ("s-maxage=600", 300),
            ("x-max-age=600", 300),
            ("public", 300),
            ("", 300),
        ] {
            assert_eq!(control(value), expected, "{value}");
        }
        let two = [("cache-control", "public"), ("cache-control", "max-age=90")];
        assert_eq!(fresh(&two), 90);
    }

    #[test]
    fn what_lay_in_a_cache_is_fresh_for_the_rest() {
        let after = |age| fresh(&[("cache-control", "max-age=600"), ("age", age)]);
        assert_eq!(after("500"), 100);
        assert_eq!(after("599"), 60);
        assert_eq!(after("601"), 60);
        assert_eq!(after("99999999999999999999999"), 600);
        assert_eq!(after("soon"), 600);
        assert_eq!(fresh(&[("age", "500")]), 300);
    }

    #[test]
    fn what_is_fresh_is_asked_for_up_to_a_tenth_before_it_is_old() {
        let ten = Duration::from_secs(600);
        assert_eq!(refresh(ten, Part(0)), ten);
        for part in [1, 500, 1_023, u32::MAX] {
            let wait = refresh(ten, Part(part));
            assert!(wait < ten && wait >= ten - ten / 10, "{wait:?}");
        }
        for short in [Duration::ZERO, Duration::from_nanos(1)] {
            assert_eq!(refresh(short, Part(1_023)), short);
        }
    }

    #[test]
    fn a_provider_that_fails_is_asked_ever_more_seldom_but_once_a_minute() {
        let first = Duration::from_secs(1);
        let waits = (1..=8).map(|n| back_off(first, n, Part(0)).as_secs());
        assert_eq!(waits.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60]);
        let longest = back_off(first, u32::MAX, Part(1_023));
        assert!(longest <= Duration::from_secs(75), "{longest:?}");
    }
}
