//! Fresh admission tokens, when the node wants one.

use std::time::Instant;

use byway_core::io::RelayId;
use byway_wire::relay::control::AdmissionToken;

use super::{Driver, Input};
use crate::relay_token::{RelayToken, RelayTokenError};

/// Where they come from.
#[derive(Debug)]
pub(super) struct Tokens {
    source: RelayToken,
    /// One is being fetched.
    fetching: bool,
}

impl Driver {
    /// Admission by tokens of this source; `first` is the first of them.
    pub(crate) fn set_token(&mut self, source: RelayToken, first: AdmissionToken) {
        self.tokens = Some(Tokens {
            source,
            fetching: false,
        });
        self.node.set_token(Instant::now(), Some(first));
    }

    pub(super) fn want_token(&mut self) {
        let Some(tokens) = self.tokens.as_mut().filter(|t| !t.fetching) else {
            return;
        };
        tokens.fetching = true;
        let source = tokens.source.clone();
        let driver = self.links.driver.clone();
        tokio::spawn(async move {
            let token = source.fetch().await;
            // If the driver is gone, nobody wants it any more.
            let _ = driver.send(Input::Token(token)).await;
        });
    }

    pub(super) fn token_came(&mut self, token: Result<AdmissionToken, RelayTokenError>) {
        if let Some(tokens) = &mut self.tokens {
            tokens.fetching = false;
        }
        let now = Instant::now();
        match token {
            Ok(token) => self.node.set_token(now, Some(token)),
            Err(error) => tracing::warn!("{}", no_token(&error, self.node.token_holds(now))),
        }
    }

    pub(super) fn throttled(&self, relay: RelayId, bytes: Option<u64>, datagrams: Option<u64>) {
        let url = self.link_table.url(relay).map(ToString::to_string);
        let bytes = bytes.map(|n| format!("{:.1} Mbit/s", n as f64 * 8.0 / 1e6));
        let datagrams = datagrams.map(|n| format!("{n} datagrams a second"));
        let limits: Vec<String> = bytes.into_iter().chain(datagrams).collect();
        tracing::warn!(
            "more is sent through the relay {} than it lets this node send ({})",
            url.unwrap_or_default(),
            limits.join(", ")
        );
    }
    pub(super) fn token_refused(&self, relay: RelayId, detail: &str) {
        let url = self.link_table.url(relay).map(ToString::to_string);
        tracing::warn!(
            "the relay {} does not take the fresh admission token: {}",
            url.unwrap_or_default(),
            detail.escape_debug()
        );
    }
}

/// Why there is no fresh token, and what that means. `holds`: a relay admitted this node by one whose time is not over.
fn no_token(error: &RelayTokenError, holds: bool) -> String {
    if holds {
        format!("{error}; the one before is used until it expires")
    } else {
        format!("{error}; no relay is known to admit this node by the one before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_said_to_hold_only_while_it_does() {
        let error = RelayTokenError::Panicked;
        let holds = no_token(&error, true);
        assert!(holds.contains("is used until it expires"), "{holds}");
        let none = no_token(&error, false);
        assert!(!none.contains("is used"), "{none}");
        assert!(none.contains(&error.to_string()), "{none}");
    }
}
