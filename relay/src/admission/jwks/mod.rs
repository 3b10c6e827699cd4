//! Keys that an identity provider, or a control plane, publishes at a URL: a JWKS (RFC 7517), fetched while the relay runs.
//!
//! # How it goes
//!
//! The start asks every URL once, all at the same time, and waits for the answers, but no longer than ten seconds: so a relay that is
//! restarted refuses nobody for a key that it would have had a moment later. Then it goes on whatever came. A start that waited for ever would
//! make every relay's life depend on the provider's, also of those whose other keys would do; one that failed would be tried again by its
//! supervisor, and come up later than it has to.
//!
//! A URL whose keys have not come yet admits nobody. Where no key has come from anywhere nobody is admitted at all; that is logged as an
//! error, and `/readyz` answers 503, so that a balancer sends nodes elsewhere and a rolling upgrade stops at the first relay. One key is enough to be
//! ready, whichever it is: with two providers the failure of one must not take the other's nodes away. When keys were there once the relay stays ready.
//!
//! What was fetched is asked for again when it is not fresh any more: after the answer's `Cache-Control: max-age`, within a minute and an hour,
//! or after five minutes if it does not say. What fails is tried again after a second, then after twice as long each time, up to a minute.
//! Whatever fails changes nothing: the last keys stay. An answer without any key of ours is a failure as well, as an empty file is: nothing that a provider gets
//! wrong sends everybody away. A key that is gone from a good answer is gone: links whose tokens it signed are cut, as with files.
//!
//! A token that names a key (`kid`) which the relay has none of has every URL asked at once, unless that was done within the last half minute: so a
//! new key counts as soon as it is used, and strangers, who can name what keys they like, can cause no more than two requests a minute.
//!
//! # What is not done
//!
//! Nothing is fetched in the clear, not even from this machine: whoever answers in the provider's place decides who comes in, and who
//! has a program beside the relay can have it write a file. User and password in a URL are refused, for they end up in logs; of a URL's query, which may be a
//! secret too, nothing is logged. Redirects are not followed: where keys come from is the operator's word, not that of whoever answers.
//! No proxy is used. Keys are not kept on the disk: a file that outlives the process would be one more thing that says who comes in.
//!
//! | file | idea |
//! |---|---|
//! | `url` | where keys may be fetched from |
//! | `board` | what was fetched, and how it stands |
//! | `fetch` | one request and its answer |
//! | `schedule` | when to ask again |
//! | `refresh` | asking for as long as the relay runs |
//! | `absent` | the same in a relay that was built without |

#[cfg(not(feature = "jwks"))]
mod absent;
mod board;
#[cfg(feature = "jwks")]
mod fetch;
#[cfg(feature = "jwks")]
mod refresh;
#[cfg(feature = "jwks")]
mod schedule;
mod url;

use std::path::PathBuf;
use std::time::Duration;

#[cfg(not(feature = "jwks"))]
pub(super) use absent::Refreshers;
pub(super) use board::Sets;
pub(crate) use board::{Board, Source};
#[cfg(feature = "jwks")]
pub(super) use refresh::Refreshers;
pub use url::{JwksUrl, JwksUrlError};

/// Keys that are published at URLs, and how they are fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Jwks {
    /// Where they are.
    pub urls: Vec<JwksUrl>,
    /// PEM files of authorities to trust besides the system's when they are fetched: for one of your own. Read at the start.
    pub extra_roots: Vec<PathBuf>,
    /// How long a request may take, its answer included; and how long the start waits for the first ones.
    pub patience: Duration,
    /// How long to wait after the first failure. Twice as long after each further one, at most a minute.
    pub first_retry: Duration,
    /// How long an answer that does not say so itself is fresh.
    pub refresh: Duration,
    /// How long after a request tokens that name unknown keys cause no other.
    pub apart: Duration,
}

impl Jwks {
    /// Keys at these URLs, fetched in the usual way.
    pub fn new(urls: Vec<JwksUrl>) -> Self {
        Self {
            urls,
            extra_roots: Vec::new(),
            patience: Duration::from_secs(10),
            first_retry: Duration::from_secs(1),
            // For so long a key that is gone may go on to admit; a new one counts sooner, for tokens name it.
            refresh: Duration::from_secs(5 * 60),
            apart: Duration::from_secs(30),
        }
    }
}

/// None.
impl Default for Jwks {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}
