//! For how long what is in force may not be what the files and URLs say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::AdmissionSource;
use super::jwks::{Board, Source};

/// Files are known at every look; what is at a URL for as long as the last answer is fresh by its own word.
#[derive(Debug)]
pub(crate) struct Age {
    began: Instant,
    /// When what is in force was last known to be what the files say. In milliseconds since then.
    known: AtomicU64,
    /// Something says who comes in that may change.
    sources: bool,
    board: Arc<Board>,
}

impl Age {
    pub(super) fn new(now: Instant, source: &AdmissionSource, board: Arc<Board>) -> Self {
        Self {
            began: now,
            known: AtomicU64::new(0),
            sources: matches!(source, AdmissionSource::Tokens(_)),
            board,
        }
    }
    pub(super) fn known(&self, now: Instant) {
        let since = now.duration_since(self.began).as_millis();
        self.known
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    /// None where neither files nor URLs say who comes in.
    pub(crate) fn at(&self, now: Instant) -> Option<Duration> {
        let known = Duration::from_millis(self.known.load(Ordering::Relaxed));
        let of_files = now.duration_since(self.began).saturating_sub(known);
        self.sources.then(|| of_files.max(self.board.overdue(now)))
    }
    /// How it stands with each URL.
    pub(crate) fn urls(&self) -> Vec<Source> {
        self.board.sources()
    }
}

#[cfg(test)]
mod tests {
    use byway_relay_core::Admission;

    use super::super::{Jwks, TokenSources};
    use super::*;

    #[test]
    fn the_age_is_of_what_may_change_only_and_grows_until_it_is_known() {
        let now = Instant::now();
        let later = now + Duration::from_secs(90);
        let age =
            |source: &AdmissionSource, jwks: &Jwks| Age::new(now, source, Board::new(now, jwks));
        let none = Jwks::default();
        let fixed = age(&AdmissionSource::Fixed(Admission::Open), &none);
        assert_eq!(fixed.at(later), None);
        let tokens = AdmissionSource::Tokens(TokenSources {
            keys: Vec::new(),
            jwks: none.clone(),
            audiences: Vec::new(),
            issuer: None,
            revoked: None,
        });
        let files = age(&tokens, &none);
        assert_eq!(files.at(later), Some(Duration::from_secs(90)));
        files.known(later);
        assert_eq!(files.at(later), Some(Duration::ZERO));
        // What is at a URL is not known because files are.
        let jwks = Jwks::new(vec!["https://idp.example/".parse().unwrap()]);
        let both = age(&tokens, &jwks);
        both.known(later);
        assert_eq!(both.at(later), Some(Duration::from_secs(90)));
        assert_eq!(both.urls().len(), 1);
    }
}
