//! Following the files while the relay runs.
//!
//! What cannot be read, or holds no key, changes nothing, and is tried again at every look until it can: neither may a half-written
//! list let those in again whom it shuts out, nor an empty file send everybody away, nor may a disk that was away for a moment keep a
//! revocation from counting for ever. Files are read on a thread of their own: one that hangs, on a network's disk, holds up nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use byway_relay_core::{Admission, TokenRules};

use super::files::{Files, Marks};
use super::list::Change;
use super::{AdmissionSource, Loaded, TokenFiles};
use crate::hub::Hub;
use crate::stats::{Counters, bump};

/// How often the files are looked at. A revocation waits for it.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is said again that they cannot be read, and that reading them takes long.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// When what is in force was last known to be what the files say.
#[derive(Debug)]
pub(crate) struct Age {
    began: Instant,
    /// In milliseconds since then.
    known: AtomicU64,
    /// There are files.
    files: bool,
}

impl Age {
    pub(crate) fn new(now: Instant, source: &AdmissionSource) -> Self {
        Self {
            began: now,
            known: AtomicU64::new(0),
            files: matches!(source, AdmissionSource::Tokens(_)),
        }
    }
    fn known(&self, now: Instant) {
        let since = now.duration_since(self.began).as_millis();
        self.known
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    /// None where no files say who comes in.
    pub(crate) fn at(&self, now: Instant) -> Option<Duration> {
        let known = Duration::from_millis(self.known.load(Ordering::Relaxed));
        self.files
            .then(|| now.duration_since(self.began).saturating_sub(known))
    }
}

/// Follows the files for ever. `started`: what the relay was started with, which may be older than what they say by now.
pub(crate) async fn follow(
    source: AdmissionSource,
    started: Admission,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    age: Arc<Age>,
) {
    let (AdmissionSource::Tokens(tokens), Admission::Tokens(started)) = (source, started) else {
        return;
    };
    let mut follower = Follower::new(tokens, started);
    let mut said: Option<(Instant, String)> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let looked = Instant::now();
        let Some((back, found)) = look(follower).await else {
            return;
        };
        follower = back;
        if let Some(rules) = found.rules {
            tracing::info!(
                keys = rules.keys.len(),
                revoked = rules.revoked.len(),
                "admission reloaded"
            );
            hub.set_admission(Admission::Tokens(rules));
        }
        let Some(error) = found.error else {
            said = None;
            if found.unsure {
                tracing::info!(
                    "the list of revocations lost entries or does not end: what is gone from it counts if it is the same at the next look"
                );
            } else {
                age.known(looked);
            }
            continue;
        };
        bump(&counters.admission_reloads_failed);
        let error = format!("{error:#}");
        let due = said
            .as_ref()
            .is_none_or(|(at, before)| at.elapsed() >= SAY_AGAIN || *before != error);
        if due {
            tracing::error!("admission stays as it was, for it cannot be reloaded: {error}");
            said = Some((Instant::now(), error));
        }
    }
}

/// None when the runtime ends.
async fn look(mut follower: Follower) -> Option<(Follower, Found)> {
    let mut reading = tokio::task::spawn_blocking(move || {
        let found = follower.look();
        (follower, found)
    });
    loop {
        match tokio::time::timeout(SAY_AGAIN, &mut reading).await {
            Ok(Ok(found)) => return Some(found),
            Ok(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return None,
            },
            Err(_) => tracing::error!(
                "admission stays as it was, for reading its files takes more than a minute"
            ),
        }
    }
}

/// What a look found.
#[derive(Debug, Default)]
struct Found {
    /// Rules that are in force from now on, if they are others.
    rules: Option<TokenRules>,
    /// The list of revocations may be half-written: it is looked at once more before all of it counts.
    unsure: bool,
    /// Why what is in force is not what the files say.
    error: Option<anyhow::Error>,
}

#[derive(Debug)]
struct Follower {
    tokens: TokenFiles,
    files: Files,
    /// What the files were when they were loaded. Not what they were when the relay started: they may have changed since they were
    /// read, and then would never be read again.
    loaded: Option<Marks>,
    /// What they were when the last look ended.
    seen: Option<Marks>,
    in_force: TokenRules,
}

impl Follower {
    fn new(tokens: TokenFiles, started: TokenRules) -> Self {
        let paths = tokens.keys.iter().chain(&tokens.revoked).cloned();
        Self {
            files: Files::new(paths.collect()),
            tokens,
            loaded: None,
            seen: None,
            in_force: started,
        }
    }

    fn look(&mut self) -> Found {
        let marks = self.files.marks();
        if self.loaded.as_ref() == Some(&marks) {
            return Found::default();
        }
        let read = self.tokens.load();
        // Before they were read and after: what is written meanwhile is read again at the next look.
        let after = self.files.marks();
        let settled = self.seen.as_ref() == Some(&marks) && after == marks;
        self.seen = Some(after);
        match read.and_then(|loaded| self.judge(loaded, settled)) {
            Ok((loaded, unsure)) => {
                if !unsure {
                    self.loaded = Some(marks);
                    loaded.tell();
                }
                Found {
                    rules: self.take(loaded.rules),
                    unsure,
                    error: None,
                }
            }
            Err(error) => Found {
                error: Some(error),
                ..Found::default()
            },
        }
    }

    /// What holds now, and whether something else may at the next look.
    fn judge(&self, mut loaded: Loaded, settled: bool) -> anyhow::Result<(Loaded, bool)> {
        let about = || {
            let path = self.tokens.revoked.as_deref();
            path.map_or_else(String::new, |path| path.display().to_string())
        };
        let change = std::mem::take(&mut loaded.list)
            .after(&self.in_force.revoked, settled)
            .with_context(about)?;
        let (revoked, unsure) = match change {
            Change::Holds(revoked) => (revoked, false),
            Change::Unsure(revoked) => (revoked, true),
        };
        loaded.rules.revoked = revoked;
        Ok((loaded, unsure))
    }

    /// Gives the rules back if they are others than those in force.
    fn take(&mut self, rules: TokenRules) -> Option<TokenRules> {
        if self.in_force == rules {
            return None;
        }
        self.in_force = rules.clone();
        Some(rules)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::issue::SigningKey;
    use super::*;

    /// A folder with a key and a list, and who follows them.
    struct Desk {
        folder: tempfile::TempDir,
        tokens: TokenFiles,
    }

    impl Desk {
        fn new(list: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("keys"), SigningKey::generate().unwrap().public_pem()).unwrap();
            std::fs::write(path("revoked"), list).unwrap();
            let tokens = TokenFiles {
                keys: vec![path("keys")],
                audiences: vec!["relay".into()],
                issuer: None,
                revoked: Some(path("revoked")),
            };
            Self { folder, tokens }
        }
        fn list(&self) -> PathBuf {
            self.folder.path().join("revoked")
        }
        /// All or nothing, and with another number: no clock has to tick for it to be seen.
        fn write(&self, list: &str) {
            let new = self.folder.path().join("new");
            std::fs::write(&new, list).unwrap();
            std::fs::rename(new, self.list()).unwrap();
        }
        fn follower(&self) -> Follower {
            Follower::new(self.tokens.clone(), self.tokens.load().unwrap().rules)
        }
    }

    fn revoked(follower: &Follower) -> Vec<&str> {
        follower
            .in_force
            .revoked
            .iter()
            .map(String::as_str)
            .collect()
    }

    /// A permission that is given, or a disk that comes back, does not change the file.
    #[test]
    fn a_load_that_failed_is_tried_again_at_every_look_until_it_succeeds() {
        let desk = Desk::new("a\n");
        let mut follower = desk.follower();
        assert!(follower.look().error.is_none());
        desk.write("a\nb\n");
        // The list can be seen and cannot be read, and then it can be, and is what it was.
        let list = follower.tokens.revoked.replace("/nonexistent/list".into());
        for _ in 0..3 {
            assert!(follower.look().error.is_some());
        }
        assert_eq!(revoked(&follower), ["a"]);
        follower.tokens.revoked = list;
        let found = follower.look();
        assert!(found.rules.is_some() && found.error.is_none());
        assert_eq!(revoked(&follower), ["a", "b"]);
        let again = follower.look();
        assert!(again.rules.is_none() && again.error.is_none());
    }

    /// Between the start's reading and the first look a list may have changed.
    #[test]
    fn what_changed_since_the_start_is_found_at_the_first_look() {
        let desk = Desk::new("a\n");
        let started = desk.tokens.load().unwrap().rules;
        desk.write("a\nb\n");
        let mut follower = Follower::new(desk.tokens, started);
        assert!(follower.look().rules.is_some());
        assert_eq!(revoked(&follower), ["a", "b"]);
    }

    /// A program that writes the list in place is seen at its beginning, in its midst, and when it is done.
    #[test]
    fn a_list_that_is_being_written_readmits_nobody() {
        let desk = Desk::new("alice\nbob\n");
        let mut follower = desk.follower();
        follower.look();
        std::fs::write(desk.list(), "").unwrap();
        for _ in 0..2 {
            assert!(follower.look().error.is_some(), "it is empty");
        }
        for half in ["al", "alice\nca", "alice\ncarol\nbo"] {
            desk.write(half);
            let found = follower.look();
            assert!(found.unsure && found.error.is_none(), "{half}");
            assert!(revoked(&follower).starts_with(&["alice", "bob"]), "{half}");
        }
        assert_eq!(revoked(&follower), ["alice", "bob", "carol"]);
        desk.write("alice\ncarol\nbob\n");
        let found = follower.look();
        assert!(found.rules.is_none() && !found.unsure);
    }

    #[test]
    fn entries_that_are_gone_count_no_more_after_two_looks_at_the_same_list() {
        let desk = Desk::new("a\nb\n");
        let mut follower = desk.follower();
        follower.look();
        for list in ["a\n", "a\n"] {
            // Written anew, it has not settled.
            desk.write(list);
            assert!(follower.look().unsure);
            assert_eq!(revoked(&follower), ["a", "b"]);
        }
        assert!(follower.look().rules.is_some());
        assert_eq!(revoked(&follower), ["a"]);
        desk.write("# nobody\n");
        assert!(follower.look().unsure && !follower.look().unsure);
        assert!(revoked(&follower).is_empty());
    }

    #[test]
    fn the_age_is_of_files_only_and_grows_until_they_are_known() {
        let now = Instant::now();
        let later = now + Duration::from_secs(90);
        let fixed = Age::new(now, &AdmissionSource::Fixed(Admission::Open));
        assert_eq!(fixed.at(later), None);
        let desk = Desk::new("");
        let age = Age::new(now, &AdmissionSource::Tokens(desk.tokens));
        assert_eq!(age.at(later), Some(Duration::from_secs(90)));
        age.known(later);
        assert_eq!(age.at(later), Some(Duration::ZERO));
    }
}
