//! Asking for keys for as long as the relay runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::join_all;
use tokio::sync::watch;

use super::fetch::{Client, Fetched};
use super::schedule::{back_off, refresh};
use super::{Board, Jwks, JwksUrl};
use crate::pause::Part;
use crate::stats::{Counters, bump};

/// The longest of the times that may be set.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Those who ask, one for each URL: none waits for another's server.
#[derive(Debug)]
pub(in super::super) struct Refreshers(Vec<Refresher>);

impl Refreshers {
    pub(in super::super) fn new(
        jwks: &Jwks,
        board: &Arc<Board>,
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Self> {
        // Without URLs nobody need be trusted: there are machines without any root.
        if jwks.urls.is_empty() {
            return Ok(Self(Vec::new()));
        }
        // Of nothing a provider would be asked without end, and no clock counts for ever.
        for (name, time) in [
            ("patience", jwks.patience),
            ("first_retry", jwks.first_retry),
            ("refresh", jwks.refresh),
        ] {
            anyhow::ensure!(
                !time.is_zero() && time <= LONGEST,
                "keys by URL: '{name}' is {time:?}, and may be up to {LONGEST:?}"
            );
        }
        let client = Arc::new(Client::new(jwks).context("keys by URL")?);
        let refresher = |(n, url): (usize, &JwksUrl)| Refresher {
            n,
            url: url.clone(),
            first_retry: jwks.first_retry,
            apart: jwks.apart,
            client: Arc::clone(&client),
            board: Arc::clone(board),
            counters: Arc::clone(counters),
            failures: 0,
            asked: Instant::now(),
            due: Instant::now(),
        };
        Ok(Self(jwks.urls.iter().enumerate().map(refresher).collect()))
    }

    /// Asks every URL once.
    pub(in super::super) async fn ask_once(&mut self) {
        join_all(self.0.iter_mut().map(Refresher::ask)).await;
    }

    /// Asks whenever it is time, for ever. `unknown` rings when a token names a key that nobody knows.
    pub(in super::super) async fn run(self, unknown: &watch::Receiver<u64>) {
        let all = self.0.into_iter().map(|one| one.run(unknown.clone()));
        join_all(all).await;
    }
}

#[derive(Debug)]
struct Refresher {
    n: usize,
    url: JwksUrl,
    first_retry: Duration,
    apart: Duration,
    client: Arc<Client>,
    board: Arc<Board>,
    counters: Arc<Counters>,
    /// In a row.
    failures: u32,
    /// When the last request was begun.
    asked: Instant,
    /// When the next one is due.
    due: Instant,
}

impl Refresher {
    async fn run(mut self, mut unknown: watch::Receiver<u64>) {
        loop {
            self.wait(&mut unknown).await;
            // What rings from now on may be about keys that are newer than the answer.
            unknown.mark_unchanged();
            self.ask().await;
        }
    }

    async fn wait(&self, unknown: &mut watch::Receiver<u64>) {
        let earlier = async {
            if unknown.changed().await.is_err() {
                // The relay is about to end.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep_until((self.asked + self.apart).into()).await;
        };
        tokio::select! {
            () = tokio::time::sleep_until(self.due.into()) => {}
            () = earlier => tracing::debug!(url = %self.url, "a token names an unknown key"),
        }
    }

    async fn ask(&mut self) {
        self.asked = Instant::now();
        let fetched = self.client.fetch(&self.url).await;
        let now = Instant::now();
        match fetched {
            Ok(fetched) => {
                self.due = now + refresh(fetched.fresh, Part::random());
                self.take(now, fetched);
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause = back_off(self.first_retry, self.failures, Part::random());
                self.due = now + pause;
                bump(&self.counters.admission_fetches_failed);
                let error = format!("{:#}", anyhow::Error::new(error));
                let kept = self.board.failed(self.n, error.clone());
                let what_follows = if kept == 0 {
                    "there are none yet, so that they admit nobody"
                } else {
                    "the last ones stay in force"
                };
                tracing::error!(
                    url = %self.url,
                    failures = self.failures,
                    again_in_s = pause.as_secs(),
                    kept,
                    "keys cannot be fetched: {error}; {what_follows}"
                );
            }
        }
    }

    fn take(&mut self, now: Instant, fetched: Fetched) {
        let Fetched { keys, notes, fresh } = fetched;
        let found = keys.len();
        let changed = self.board.took(self.n, now, keys, fresh);
        if changed || self.failures > 0 {
            tracing::info!(url = %self.url, keys = found, fresh_s = fresh.as_secs(), "keys fetched");
        }
        if changed {
            for note in notes {
                tracing::warn!("{}: {note}", self.url);
            }
        }
        self.failures = 0;
    }
}
