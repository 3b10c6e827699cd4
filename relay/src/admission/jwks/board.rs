//! What was fetched, and how it stands: written by who fetches, read by who puts keys in force, by metrics and by `/status`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_relay_core::TokenKey;
use tokio::sync::watch;

use super::{Jwks, JwksUrl};

/// The keys of every URL, in the order of the settings; none where none were fetched yet.
pub(in super::super) type Sets = Vec<Option<Arc<[TokenKey]>>>;

/// How it stands with one URL.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) url: JwksUrl,
    /// What was fetched last, whatever failed since.
    pub(crate) keys: Option<Arc<[TokenKey]>>,
    /// When.
    pub(crate) fetched: Option<Instant>,
    /// Until when it is what the URL says, by the URL's own word. From the start on while there is nothing.
    fresh_until: Instant,
    /// Why the last request failed.
    pub(crate) error: Option<String>,
    /// Why not all of the keys count.
    pub(crate) refused: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Board {
    sources: watch::Sender<Vec<Source>>,
}

impl Board {
    pub(in super::super) fn new(now: Instant, jwks: &Jwks) -> Arc<Self> {
        let source = |url: &JwksUrl| Source {
            url: url.clone(),
            keys: None,
            fetched: None,
            fresh_until: now,
            error: None,
            refused: None,
        };
        let sources = jwks.urls.iter().map(source).collect();
        Arc::new(Self {
            sources: watch::Sender::new(sources),
        })
    }

    /// Rings when keys are others than before.
    pub(in super::super) fn changes(&self) -> watch::Receiver<Vec<Source>> {
        self.sources.subscribe()
    }
    pub(in super::super) fn sets(&self) -> Sets {
        let sources = self.sources.borrow();
        sources.iter().map(|s| s.keys.clone()).collect()
    }
    /// For each URL, why not all of its keys count.
    pub(in super::super) fn tell_refused(&self, refused: &[Option<String>]) {
        self.sources.send_if_modified(|sources| {
            for (source, refused) in sources.iter_mut().zip(refused) {
                source.refused.clone_from(refused);
            }
            false
        });
    }
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.sources.borrow().clone()
    }
    /// For how long some of it may not have been what the URLs say.
    pub(in super::super) fn overdue(&self, now: Instant) -> Duration {
        let sources = self.sources.borrow();
        let overdue = sources
            .iter()
            .map(|s| now.saturating_duration_since(s.fresh_until));
        overdue.max().unwrap_or_default()
    }
}

#[cfg(feature = "jwks")]
impl Board {
    /// True if the keys are others than before.
    pub(super) fn took(
        &self,
        n: usize,
        now: Instant,
        keys: Vec<TokenKey>,
        fresh: Duration,
    ) -> bool {
        self.sources.send_if_modified(|sources| {
            let Some(source) = sources.get_mut(n) else {
                return false;
            };
            source.fetched = Some(now);
            source.fresh_until = now + fresh;
            source.error = None;
            let others = source.keys.as_deref() != Some(&keys[..]);
            if others {
                source.keys = Some(keys.into());
            }
            others
        })
    }
    /// Returns how many keys stay.
    pub(super) fn failed(&self, n: usize, error: String) -> usize {
        let mut kept = 0;
        self.sources.send_if_modified(|sources| {
            if let Some(source) = sources.get_mut(n) {
                source.error = Some(error);
                kept = source.keys.as_ref().map_or(0, |keys| keys.len());
            }
            false
        });
        kept
    }
}

#[cfg(all(test, feature = "jwks"))]
mod tests {
    use super::super::super::tests::key;
    use super::*;

    #[test]
    fn a_failure_keeps_the_keys_and_ages_them_from_when_they_were_not_fresh_any_more() {
        let urls = ["https://a.example/", "https://b.example/"];
        let jwks = Jwks::new(urls.map(|url| url.parse().unwrap()).to_vec());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let overdue = |board: &Board, seconds| board.overdue(at(seconds)).as_secs();
        let board = Board::new(start, &jwks);
        let mut changes = board.changes();
        assert!(board.sets().iter().all(Option::is_none));
        assert_eq!(overdue(&board, 5), 5, "nothing has come yet");

        let fresh = Duration::from_secs(300);
        assert!(board.took(0, at(5), vec![key(1)], fresh));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(overdue(&board, 7), 7, "nothing from the other");
        assert!(board.took(1, at(7), vec![key(2)], fresh));
        assert_eq!(overdue(&board, 300), 0);
        changes.mark_unchanged();

        // The same again rings no bell, and neither does a failure.
        assert!(!board.took(0, at(100), vec![key(1)], fresh));
        assert_eq!(board.failed(1, "gone".into()), 1);
        assert!(!changes.has_changed().unwrap());
        assert_eq!(overdue(&board, 307), 0);
        assert_eq!(overdue(&board, 407), 100);
        assert!(board.sets().iter().all(Option::is_some));
        board.tell_refused(&[None, Some("too many".into())]);
        assert!(!changes.has_changed().unwrap());
        assert_eq!(board.sources()[1].refused.as_deref(), Some("too many"));
        let [one, other] = board.sources().try_into().unwrap();
        assert_eq!((one.error, other.error.as_deref()), (None, Some("gone")));
        assert!(board.took(1, at(407), vec![key(3)], fresh));
        assert_eq!(overdue(&board, 407), 7);
        assert_eq!(board.sources()[1].error, None);
    }
}
