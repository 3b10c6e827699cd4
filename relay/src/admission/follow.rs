//! What files and URLs say, also when they say something else while the relay runs.
//!
//! What cannot be read, or holds no key, changes nothing, and is tried again at every look until it can: neither may a half-written
//! list let those in again whom it shuts out, nor an empty file send everybody away, nor may a disk that was away for a moment keep a
//! revocation from counting for ever. Files are read on a thread of their own: one that hangs, on a network's disk, holds up nobody.
//!
//! Keys that were fetched from URLs count at once, and without a look at the files: a list of revocations counts as settled by two looks that
//! are two seconds apart. Where all keys together are too many, those of the files count and those that were fetched before, so that
//! nobody else's mistake holds up a revocation.

use std::time::{Duration, Instant};

use anyhow::Context;
use byway_relay_core::{Admission, TokenRules};

use super::files::{Files, Marks};
use super::jwks::{Board, Sets};
use super::keys::together;
use super::list::Change;
use super::{Age, Loaded, TokenSources};
use crate::hub::Hub;
use crate::stats::{Counters, bump};

/// How often the files are looked at. A revocation waits for it.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is said again that they cannot be read, and that reading them takes long.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Follows files and URLs for ever.
pub(super) async fn follow(
    mut follower: Follower,
    board: &Board,
    hub: &Hub,
    counters: &Counters,
    age: &Age,
) {
    let mut changes = board.changes();
    put_in_force(hub, follower.offer(board.sets()).rules);
    let mut said = Said::default();
    let mut next = Instant::now() + LOOK;
    loop {
        // The board is here, so that it does not end.
        if let Ok(Ok(())) = tokio::time::timeout_at(next.into(), changes.changed()).await {
            // What is wrong with them is told at the next look.
            put_in_force(hub, follower.offer(board.sets()).rules);
            continue;
        }
        let looked = Instant::now();
        let Some((back, found)) = look(follower).await else {
            return;
        };
        follower = back;
        next = Instant::now() + LOOK;
        put_in_force(hub, found.rules);
        let Some(error) = found.error else {
            said.nothing();
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
        said.error(&error);
    }
}

fn put_in_force(hub: &Hub, rules: Option<TokenRules>) {
    if let Some(rules) = rules {
        tracing::info!(
            keys = rules.keys.len(),
            revoked = rules.revoked.len(),
            "admission reloaded"
        );
        hub.set_admission(Admission::Tokens(rules));
    }
}

/// What was said last, and when: no more often than somebody wants to read it.
#[derive(Debug, Default)]
struct Said(Option<(Instant, String)>);

impl Said {
    fn nothing(&mut self) {
        self.0 = None;
    }
    fn error(&mut self, error: &anyhow::Error) {
        let error = format!("{error:#}");
        let due = self
            .0
            .as_ref()
            .is_none_or(|(at, before)| at.elapsed() >= SAY_AGAIN || *before != error);
        if due {
            tracing::error!("admission stays as it was, for it cannot be reloaded: {error}");
            self.0 = Some((Instant::now(), error));
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
pub(super) struct Found {
    /// Rules that are in force from now on, if they are others.
    pub(super) rules: Option<TokenRules>,
    /// The list of revocations may be half-written: it is looked at once more before all of it counts.
    unsure: bool,
    /// Why what is in force is not what files and URLs say.
    error: Option<anyhow::Error>,
}

#[derive(Debug)]
pub(super) struct Follower {
    tokens: TokenSources,
    files: Files,
    /// What the files were when they were loaded. Not what they were when the relay started: they may have changed since they were
    /// read, and then would never be read again.
    loaded: Option<Marks>,
    /// What they were when the last look ended.
    seen: Option<Marks>,
    /// What they said then, as far as it counts.
    read: TokenRules,
    /// The keys that were fetched last, and those of them that are in force.
    offered: Sets,
    taken: Sets,
    in_force: TokenRules,
}

impl Follower {
    /// `started`: what the files said, which may be older than what they say by now.
    pub(super) fn new(tokens: TokenSources, started: TokenRules) -> Self {
        let paths = tokens.keys.iter().chain(&tokens.revoked).cloned();
        Self {
            files: Files::new(paths.collect()),
            tokens,
            loaded: None,
            seen: None,
            read: started.clone(),
            offered: Sets::new(),
            taken: Sets::new(),
            in_force: started,
        }
    }

    /// Keys were fetched.
    pub(super) fn offer(&mut self, sets: Sets) -> Found {
        self.offered = sets;
        self.settle()
    }

    fn look(&mut self) -> Found {
        let marks = self.files.marks();
        if self.loaded.as_ref() == Some(&marks) {
            return self.settle();
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
                self.read = loaded.rules;
                Found {
                    unsure,
                    ..self.settle()
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
            .after(&self.read.revoked, settled)
            .with_context(about)?;
        let (revoked, unsure) = match change {
            Change::Holds(revoked) => (revoked, false),
            Change::Unsure(revoked) => (revoked, true),
        };
        loaded.rules.revoked = revoked;
        together(&loaded.rules, &self.taken).context("with the keys that were fetched")?;
        Ok((loaded, unsure))
    }

    /// What follows from files and URLs together.
    fn settle(&mut self) -> Found {
        let (all, error) = match together(&self.read, &self.offered) {
            Ok(all) => {
                self.taken.clone_from(&self.offered);
                (Some(all), None)
            }
            // Of those that were taken there are not too many: that was seen when they were, and when files were read.
            Err(error) => (together(&self.read, &self.taken).ok(), Some(error)),
        };
        Found {
            rules: all.and_then(|all| self.take(all)),
            unsure: false,
            error: error.map(|error| anyhow::Error::new(error).context("keys that were fetched")),
        }
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

    use super::super::Jwks;
    use super::super::issue::SigningKey;
    use super::super::keys::MAX_KEYS;
    use super::super::tests::key;
    use super::*;

    /// A folder with a key and a list, and who follows them.
    struct Desk {
        folder: tempfile::TempDir,
        tokens: TokenSources,
    }

    impl Desk {
        fn new(list: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("keys"), SigningKey::generate().unwrap().public_pem()).unwrap();
            std::fs::write(path("revoked"), list).unwrap();
            let tokens = TokenSources {
                keys: vec![path("keys")],
                jwks: Jwks::default(),
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

    /// Key numbers as sets.
    fn sets(numbers: &[&[u8]]) -> Sets {
        let set = |set: &&[u8]| set.iter().map(|n| key(*n)).collect();
        numbers.iter().map(set).collect()
    }

    #[test]
    fn keys_that_were_fetched_count_beside_those_of_files_until_they_are_gone() {
        let desk = Desk::new("a\n");
        let mut follower = desk.follower();
        follower.look();
        let of_file = follower.in_force.keys.clone();
        let counted = |follower: &Follower| follower.in_force.keys.len();
        let found = follower.offer(sets(&[&[1, 2], &[2, 3]]));
        assert_eq!(found.rules.unwrap().keys.len(), 4, "one is in both");
        assert!(follower.offer(sets(&[&[1, 2], &[2, 3]])).rules.is_none());
        // A look at the files keeps them, also when the files say something else.
        assert!(follower.look().rules.is_none());
        desk.write("a\nb\n");
        assert!(follower.look().rules.is_some());
        assert_eq!(
            (counted(&follower), revoked(&follower)),
            (4, vec!["a", "b"])
        );
        follower.offer(sets(&[&[1]]));
        assert_eq!(follower.in_force.keys, [&of_file[..], &[key(1)]].concat());
    }

    /// Two looks at a list say that nobody is writing it any more; a provider's answer between them does not.
    #[test]
    fn keys_that_come_are_no_look_at_the_files() {
        let desk = Desk::new("a\nb\n");
        let mut follower = desk.follower();
        follower.look();
        desk.write("a\n");
        assert!(follower.look().unsure);
        follower.offer(sets(&[&[1]]));
        assert_eq!(revoked(&follower), ["a", "b"]);
        assert_eq!(follower.in_force.keys.len(), 2);
        assert!(follower.look().rules.is_some());
        assert_eq!(revoked(&follower), ["a"]);
    }

    #[test]
    fn too_many_keys_together_leave_the_former_ones_and_hold_up_no_revocation() {
        let desk = Desk::new("a\n");
        let mut follower = desk.follower();
        follower.look();
        follower.offer(sets(&[&[1]]));
        let most: Vec<u8> = (1..=MAX_KEYS as u8).collect();
        let found = follower.offer(sets(&[&most]));
        let error = format!("{:#}", found.error.unwrap());
        assert!(
            error.contains("17 keys") && error.contains("fetched"),
            "{error}"
        );
        assert_eq!(follower.in_force.keys.len(), 2);
        for _ in 0..2 {
            assert!(follower.look().error.is_some(), "it is not forgotten");
        }
        desk.write("a\nb\n");
        let found = follower.look();
        assert!(found.rules.is_some() && found.error.is_some());
        assert_eq!(revoked(&follower), ["a", "b"]);
        // Fewer are taken again, by whichever side.
        let found = follower.offer(sets(&[&most[1..]]));
        assert!(found.error.is_none());
        assert_eq!(follower.in_force.keys.len(), MAX_KEYS);
        // And a file may not add to the most either.
        let [one, other] = [(); 2].map(|()| SigningKey::generate().unwrap().public_pem());
        let path = desk.folder.path().join("keys");
        std::fs::write(&path, one + &other).unwrap();
        assert!(follower.look().error.is_some());
        assert_eq!(follower.in_force.keys.len(), MAX_KEYS);
    }
}
