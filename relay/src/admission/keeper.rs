//! Who comes in, from the start of a relay on: what is needed to start, and what goes on beside it.

use std::sync::Arc;
use std::time::Instant;

use byway_relay_core::{Admission, TokenRules};

use super::follow::{Follower, follow};
use super::jwks::{Board, Refreshers, Source};
use super::keys::together;
use super::reader::Reader;
use super::{AdmissionSource, Age, Jwks, TokenSources};
use crate::hub::Hub;
use crate::stats::Counters;

/// Keeps admission what its files and URLs say.
#[derive(Debug)]
pub(crate) struct Keeper {
    started: Admission,
    age: Arc<Age>,
    following: Option<Following>,
    counters: Arc<Counters>,
}

/// What there is to do where something may change.
#[derive(Debug)]
struct Following {
    follower: Follower,
    reader: Reader,
    refreshers: Refreshers,
    board: Arc<Board>,
}

impl Keeper {
    /// Reads the files, and asks every URL once. Files that are wrong are an error; what does not come from a URL comes later.
    pub(crate) async fn start(
        source: AdmissionSource,
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let none = Jwks::default();
        let jwks = match &source {
            AdmissionSource::Tokens(tokens) => &tokens.jwks,
            AdmissionSource::Fixed(_) => &none,
        };
        let now = Instant::now();
        let board = Board::new(now, jwks);
        let age = Arc::new(Age::new(now, &source, Arc::clone(&board)));
        let mut refreshers = Refreshers::new(jwks, &board, counters)?;
        let mut started = source.load()?;
        let mut following = None;
        if let (AdmissionSource::Tokens(tokens), Admission::Tokens(rules)) = (source, &mut started)
        {
            let mut follower = Follower::new(&tokens, rules.clone());
            refreshers.ask_once().await;
            // Too many together is told at the first look.
            if let Some(all) = follower.offer(board.sets()).rules {
                *rules = all;
            }
            if rules.keys.is_empty() {
                tracing::error!(
                    "there is no key yet to check tokens with: nobody is admitted until one can be fetched"
                );
            }
            following = Some(Following {
                follower,
                reader: Reader::new(tokens),
                refreshers,
                board,
            });
        }
        Ok(Self {
            started,
            age,
            following,
            counters: Arc::clone(counters),
        })
    }
    /// Who comes in at first.
    pub(crate) fn started(&self) -> &Admission {
        &self.started
    }
    pub(crate) fn age(&self) -> Arc<Age> {
        Arc::clone(&self.age)
    }

    /// Follows files and URLs for ever; ends if there are none.
    pub(crate) async fn run(self, hub: Arc<Hub>) {
        let Some(following) = self.following else {
            return;
        };
        let unknown = hub.unknown_keys();
        let refreshing = following.refreshers.run(&unknown);
        let (who, board) = ((following.follower, following.reader), following.board);
        let following = follow(who, &board, &hub, &self.counters, &self.age);
        futures_util::future::join(refreshing, following).await;
    }
}

/// An error if keys at URLs could not be fetched whatever their servers say.
pub(crate) fn check_settings(source: &AdmissionSource) -> anyhow::Result<()> {
    if let AdmissionSource::Tokens(tokens) = source {
        let board = Board::new(Instant::now(), &tokens.jwks);
        Refreshers::new(&tokens.jwks, &board, &Arc::default())?;
    }
    Ok(())
}

/// What the keys are at every URL, or why there are none, and what follows from them together with what the files say. The last is an
/// error if all together are too many.
pub(crate) async fn check_urls(
    tokens: &TokenSources,
    files: &TokenRules,
) -> anyhow::Result<(Vec<Source>, anyhow::Result<TokenRules>)> {
    let board = Board::new(Instant::now(), &tokens.jwks);
    let mut refreshers = Refreshers::new(&tokens.jwks, &board, &Arc::default())?;
    refreshers.ask_once().await;
    let all = together(files, &board.sets()).map_err(anyhow::Error::new);
    Ok((board.sources(), all))
}
