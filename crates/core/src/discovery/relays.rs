//! How relays are reached, and which is best: pure functions of what was measured.

use std::fmt;

use byway_wire::RelayUrl;

/// A difference in latency that no one notices: among relays this close the one configured first is preferred, so that a
/// repeated check does not name another each time.
const SAME_MS: f64 = 1.0;

/// Whether a relay can be connected to by one carrier.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Reach {
    /// Not tried.
    #[default]
    Unknown,
    /// A handshake was completed, and the relay is who it should be.
    Works,
    /// Nothing came back.
    Silent,
    /// Something came back, and it was no use; in words.
    Failed(String),
}

/// One relay's row in the report.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct RelayRow {
    /// The relay.
    pub url: RelayUrl,
    /// Round trip of its quickest STUN answer, in milliseconds.
    pub stun_ms: Option<f64>,
    /// Round trip of a QUIC handshake with it, over UDP, in milliseconds.
    pub udp_ms: Option<f64>,
    /// Round trip of a TCP connection to it (through a proxy, of the first request the relay itself answers), in
    /// milliseconds; only where TLS over it led to the relay.
    pub tls_ms: Option<f64>,
    /// Whether QUIC, over UDP, leads to it.
    pub udp: Reach,
    /// Whether TLS leads to it.
    pub tls: Reach,
    /// Somebody ends TLS to it on the way, an ingress or an inspecting proxy: a TLS link's two ends see different sessions, or
    /// TLS shows a certificate of another key than QUIC does. Unknown where there is no TLS link and not both lead to it.
    pub tls_intercepted: Option<bool>,
}

impl RelayRow {
    /// One of which nothing is known.
    pub fn new(url: RelayUrl) -> Self {
        Self {
            url,
            stun_ms: None,
            udp_ms: None,
            tls_ms: None,
            udp: Reach::Unknown,
            tls: Reach::Unknown,
            tls_intercepted: None,
        }
    }
}

/// The relay to use from here, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Preferred {
    /// Which.
    pub relay: RelayUrl,
    /// Why.
    pub reason: PreferredReason,
}

/// Why a relay is preferred. Shown in words by `Display`.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum PreferredReason {
    /// No other relay was asked.
    OnlyOne,
    /// No other relay could be reached.
    OnlyReachable,
    /// Of those reached over UDP it is the nearest, at so many milliseconds.
    LowestOverUdp(f64),
    /// None is reached over UDP; over TLS it is the nearest, at so many milliseconds.
    LowestOverTls(f64),
}

impl fmt::Display for PreferredReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyOne => write!(f, "the only one asked"),
            Self::OnlyReachable => write!(f, "the only one reachable"),
            Self::LowestOverUdp(ms) => write!(f, "lowest latency over UDP: {ms:.1} ms"),
            Self::LowestOverTls(ms) => {
                write!(f, "none over UDP; lowest latency over TLS: {ms:.1} ms")
            }
        }
    }
}

/// The relay to prefer: the nearest over UDP, or where UDP leads to none the nearest over TLS, which is slower whatever its
/// distance. None if none is reached.
pub fn prefer(rows: &[RelayRow]) -> Option<Preferred> {
    let over = |ms: fn(&RelayRow) -> Option<f64>| -> Vec<(&RelayRow, f64)> {
        rows.iter()
            .filter_map(|row| Some((row, ms(row)?)))
            .collect()
    };
    let udp = over(|row| row.udp_ms);
    let tls = over(|row| row.tls_ms);
    let (best, ms) = nearest(&udp).or_else(|| nearest(&tls))?;
    let reached = |row: &&RelayRow| row.udp_ms.is_some() || row.tls_ms.is_some();
    let reason = if rows.len() == 1 {
        PreferredReason::OnlyOne
    } else if rows.iter().filter(reached).count() == 1 {
        PreferredReason::OnlyReachable
    } else if udp.is_empty() {
        PreferredReason::LowestOverTls(ms)
    } else {
        PreferredReason::LowestOverUdp(ms)
    };
    Some(Preferred {
        relay: best.url.clone(),
        reason,
    })
}

fn nearest<'a>(rows: &[(&'a RelayRow, f64)]) -> Option<(&'a RelayRow, f64)> {
    let least = rows.iter().map(|(_, ms)| *ms).fold(f64::INFINITY, f64::min);
    rows.iter().copied().find(|(_, ms)| *ms <= least + SAME_MS)
}

/// Whether the network lets UDP through and QUIC not: a relay answers STUN, and its QUIC is silent, twice over if there are
/// two. One relay's QUIC that comes up shows that it is not the network.
pub fn quic_filtered(rows: &[RelayRow]) -> Option<bool> {
    if rows.iter().any(|row| row.udp == Reach::Works) {
        return Some(false);
    }
    let heard = rows.iter().filter(|row| row.stun_ms.is_some());
    let mut heard = heard.peekable();
    heard.peek()?;
    heard.all(|row| row.udp == Reach::Silent).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: &str, udp: Option<f64>, tls: Option<f64>) -> RelayRow {
        let reach = |ms: Option<f64>| ms.map_or(Reach::Silent, |_| Reach::Works);
        RelayRow {
            udp_ms: udp,
            tls_ms: tls,
            udp: reach(udp),
            tls: reach(tls),
            ..RelayRow::new(RelayUrl::new(host, 443, None).unwrap())
        }
    }

    fn preferred(rows: &[RelayRow]) -> Option<(String, String)> {
        prefer(rows).map(|p| (p.relay.host().to_owned(), p.reason.to_string()))
    }

    fn says(host: &str, why: &str) -> Option<(String, String)> {
        Some((host.to_owned(), why.to_owned()))
    }

    #[test]
    fn the_nearest_over_udp_is_preferred_however_near_one_over_tls_is() {
        let rows = [
            row("a.test", Some(40.0), Some(40.0)),
            row("b.test", Some(12.34), Some(13.0)),
            row("c.test", None, Some(2.0)),
        ];
        let expected = says("b.test", "lowest latency over UDP: 12.3 ms");
        assert_eq!(preferred(&rows), expected);
    }

    #[test]
    fn without_udp_the_nearest_over_tls_is_preferred() {
        let rows = [
            row("a.test", None, Some(40.0)),
            row("b.test", None, Some(20.0)),
        ];
        let expected = says("b.test", "none over UDP; lowest latency over TLS: 20.0 ms");
        assert_eq!(preferred(&rows), expected);
    }

    #[test]
    fn one_that_is_alone_is_said_to_be() {
        let only = [row("a.test", Some(1.0), None)];
        assert_eq!(preferred(&only), says("a.test", "the only one asked"));
        let other_dead = [row("a.test", None, None), row("b.test", None, Some(3.0))];
        let expected = says("b.test", "the only one reachable");
        assert_eq!(preferred(&other_dead), expected);
    }

    #[test]
    fn among_equals_the_first_is_preferred() {
        let rows = [
            row("a.test", Some(12.9), None),
            row("b.test", Some(12.3), None),
        ];
        assert_eq!(preferred(&rows).unwrap().0, "a.test");
    }

    #[test]
    fn none_is_preferred_where_none_is_reached() {
        assert_eq!(prefer(&[]), None);
        assert_eq!(prefer(&[row("a.test", None, None)]), None);
    }

    #[test]
    fn quic_is_filtered_where_stun_is_answered_and_quic_is_not() {
        let mut silent = row("a.test", None, Some(1.0));
        assert_eq!(
            quic_filtered(std::slice::from_ref(&silent)),
            None,
            "UDP may be blocked, or the relay"
        );
        silent.stun_ms = Some(3.0);
        assert_eq!(quic_filtered(std::slice::from_ref(&silent)), Some(true));
        let works = row("b.test", Some(2.0), None);
        assert_eq!(quic_filtered(&[silent.clone(), works]), Some(false));
        silent.udp = Reach::Failed("another certificate".to_owned());
        assert_eq!(quic_filtered(&[silent]), None, "it was heard");
        assert_eq!(quic_filtered(&[]), None);
    }
}
