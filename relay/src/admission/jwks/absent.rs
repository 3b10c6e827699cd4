//! A relay that was built without fetching keys: settings that ask for it are an error.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Board, Jwks};
use crate::stats::Counters;

#[derive(Debug)]
pub(in super::super) struct Refreshers;

impl Refreshers {
    pub(in super::super) fn new(
        jwks: &Jwks,
        _: &Arc<Board>,
        _: &Arc<Counters>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            jwks.urls.is_empty(),
            "this build has no JWKS by URL; build it with the feature 'jwks', or have another program write the keys into a file"
        );
        Ok(Self)
    }
    pub(in super::super) async fn ask_once(&mut self) {}
    pub(in super::super) async fn run(self, _: &watch::Receiver<u64>) {}
}
