//! What files and URLs say, also when they say something else while the relay runs.
//!
//! What cannot be read, or holds no key, changes nothing, and is tried again at every look until it can: neither may a half-written
//! list let those in again whom it shuts out, nor an empty file send everybody away, nor may a disk that was away for a moment keep a
//! revocation from counting for ever. Files are read on a thread of their own: one that hangs, on a network's disk, holds up nobody.
//!
//! Keys that were fetched from URLs count at once, and without a look at the files: a list of revocations counts as settled by two looks that
//! are two seconds apart, and files that hang must not keep a key in force that its provider withdrew. Where all keys together are too many,
//! each file and URL keeps what it had, less what it does not name any more, and all that fits is taken: nobody's mistake holds up somebody else's
//! keys, or a revocation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use byway_relay_core::{Admission, TokenKey, TokenRules};

use super::files::Marks;
use super::jwks::{Board, JwksUrl, Sets};
use super::keys::{TooManyKeys, together};
use super::list::Change;
use super::reader::{Reader, Saw};
use super::{Age, Loaded, TokenSources};
use crate::hub::Hub;
use crate::stats::{Counters, bump};

/// How often the files are looked at. A revocation waits for it.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is said again that they cannot be read, and that reading them takes long.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Follows files and URLs for ever.
pub(super) async fn follow(
    (mut follower, reader): (Follower, Reader),
    board: &Board,
    hub: &Hub,
    counters: &Counters,
    age: &Age,
) {
    let mut changes = board.changes();
    let offer = |follower: &mut Follower| {
        let found = follower.offer(board.sets());
        board.tell_refused(&found.refused);
        put_in_force(hub, found.rules);
    };
    offer(&mut follower);
    let mut said = Said::default();
    let look = look(reader, Instant::now() + LOOK, follower.loaded.clone());
    tokio::pin!(look);
    loop {
        let looked = tokio::select! {
            // What is wrong with them is told at the next look.
            Ok(()) = changes.changed() => {
                offer(&mut follower);
                continue;
            }
            looked = &mut look => looked,
        };
        let Some((reader, at, saw)) = looked else {
            return;
        };
        let found = follower.see(saw);
        look.set(self::look(
            reader,
            Instant::now() + LOOK,
            follower.loaded.clone(),
        ));
        board.tell_refused(&found.refused);
        put_in_force(hub, found.rules);
        if found.errors.is_empty() {
            said.nothing();
            if found.unsure {
                tracing::info!(
                    "the list of revocations lost entries or does not end: what is gone from it counts if it is the same at the next look"
                );
            } else {
                age.known(at);
            }
            continue;
        }
        bump(&counters.admission_reloads_failed);
        said.errors(&found.errors);
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
    fn errors(&mut self, errors: &[anyhow::Error]) {
        let errors: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
        let error = errors.join("; ");
        let due = self
            .0
            .as_ref()
            .is_none_or(|(at, before)| at.elapsed() >= SAY_AGAIN || *before != error);
        if due {
            tracing::error!("admission is not all that files and URLs say: {error}");
            self.0 = Some((Instant::now(), error));
        }
    }
}

/// Looks at the files at that time, unless they are still what was `loaded`. With when it began; none when the runtime ends.
async fn look(
    reader: Reader,
    at: Instant,
    loaded: Option<Marks>,
) -> Option<(Reader, Instant, Saw)> {
    tokio::time::sleep_until(at.into()).await;
    let began = Instant::now();
    let mut reading = tokio::task::spawn_blocking(move || {
        let saw = reader.look(loaded.as_ref());
        (reader, began, saw)
    });
    loop {
        match tokio::time::timeout(SAY_AGAIN, &mut reading).await {
            Ok(Ok(saw)) => return Some(saw),
            Ok(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return None,
            },
            Err(_) => tracing::error!(
                "what files say of admission stays as it was, for reading them takes more than a minute"
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
    errors: Vec<anyhow::Error>,
    /// For each URL, why not all of its keys count.
    pub(super) refused: Vec<Option<String>>,
}

/// What follows from what was read and fetched.
#[derive(Debug)]
pub(super) struct Follower {
    urls: Vec<JwksUrl>,
    /// The list of revocations, for people.
    list: String,
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
    pub(super) fn new(tokens: &TokenSources, started: TokenRules) -> Self {
        let list = tokens.revoked.as_deref();
        Self {
            urls: tokens.jwks.urls.clone(),
            list: list.map_or_else(String::new, |path| path.display().to_string()),
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

    /// The files were looked at.
    fn see(&mut self, saw: Saw) -> Found {
        let Some(read) = saw.read else {
            return self.settle();
        };
        let settled = self.seen.as_ref() == Some(&saw.before) && saw.after == saw.before;
        self.seen = Some(saw.after);
        match read.and_then(|loaded| self.judge(loaded, settled)) {
            Ok((loaded, unsure)) => {
                let too_many = self.read_keys(&loaded.rules).err();
                self.read.revoked.clone_from(&loaded.rules.revoked);
                if !unsure && too_many.is_none() {
                    self.loaded = Some(saw.before);
                    loaded.tell();
                }
                let mut found = self.settle();
                found.unsure = unsure;
                let told = |e| anyhow::Error::new(e).context("with the keys that were fetched");
                found.errors.extend(too_many.map(told));
                found
            }
            Err(error) => {
                let mut found = self.settle();
                found.errors.push(error);
                found
            }
        }
    }

    /// What holds now, and whether something else may at the next look.
    fn judge(&self, mut loaded: Loaded, settled: bool) -> anyhow::Result<(Loaded, bool)> {
        let change = std::mem::take(&mut loaded.list)
            .after(&self.read.revoked, settled)
            .with_context(|| self.list.clone())?;
        let (revoked, unsure) = match change {
            Change::Holds(revoked) => (revoked, false),
            Change::Unsure(revoked) => (revoked, true),
        };
        loaded.rules.revoked = revoked;
        Ok((loaded, unsure))
    }

    /// The files say these keys. If they are too many together with others, those stay that were there and are still: one that is gone must not go
    /// on to admit because of what else is wrong.
    fn read_keys(&mut self, said: &TokenRules) -> Result<(), TooManyKeys> {
        let fit = together(said, &self.taken).map(drop);
        match fit {
            Ok(()) => self.read.clone_from(said),
            Err(_) => self.read.keys.retain(|key| said.keys.contains(key)),
        }
        fit
    }

    /// What follows from files and URLs together. Of keys that are too many those count that were there, as far as they still are, and one
    /// URL's mistake takes nothing away from another.
    fn settle(&mut self) -> Found {
        let mut taken: Sets = (0..self.offered.len())
            .map(|n| still_there(self.taken.get(n), &self.offered[n]))
            .collect();
        let mut found = Found::default();
        for (n, offered) in self.offered.iter().enumerate() {
            let before = std::mem::replace(&mut taken[n], offered.clone());
            let fit = together(&self.read, &taken);
            let error = fit.err().map(|error| {
                taken[n] = before;
                let url = self.urls.get(n).map(JwksUrl::to_string);
                anyhow::Error::new(error)
                    .context(format!("keys fetched from {}", url.unwrap_or_default()))
            });
            found.refused.push(error.as_ref().map(|e| format!("{e:#}")));
            found.errors.extend(error);
        }
        self.taken = taken;
        // They fit: that was seen when each was taken, and when the files were read.
        let all = together(&self.read, &self.taken).ok();
        found.rules = all.and_then(|all| self.take(all));
        found
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

/// Of the keys that counted those that are among what is offered now.
fn still_there(
    before: Option<&Option<Arc<[TokenKey]>>>,
    offered: &Option<Arc<[TokenKey]>>,
) -> Option<Arc<[TokenKey]>> {
    let (before, offered) = (before?.as_ref()?, offered.as_ref()?);
    let still = before.iter().filter(|key| offered.contains(key));
    Some(still.cloned().collect())
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
        fn follower(&self) -> Both {
            Both::new(self.tokens.clone(), self.tokens.load().unwrap().rules)
        }
    }

    /// Who reads and who follows.
    struct Both {
        reader: Reader,
        follower: Follower,
    }

    impl Both {
        fn new(tokens: TokenSources, started: TokenRules) -> Self {
            Self {
                follower: Follower::new(&tokens, started),
                reader: Reader::new(tokens),
            }
        }
        fn look(&mut self) -> Found {
            let saw = self.reader.look(self.follower.loaded.as_ref());
            self.follower.see(saw)
        }
        fn offer(&mut self, sets: Sets) -> Found {
            self.follower.offer(sets)
        }
        fn keys(&self) -> &[TokenKey] {
            &self.follower.in_force.keys
        }
    }

    fn revoked(both: &Both) -> Vec<&str> {
        both.follower
            .in_force
            .revoked
            .iter()
            .map(String::as_str)
            .collect()
    }

    #[test]
    fn a_relay_without_a_list_is_sure_of_it_at_once() {
        let mut desk = Desk::new("");
        desk.tokens.revoked = None;
        let mut follower = desk.follower();
        let found = follower.look();
        assert!(!found.unsure && found.errors.is_empty() && found.rules.is_none());
        assert!(follower.follower.loaded.is_some());
    }

    /// A permission that is given, or a disk that comes back, does not change the file.
    #[test]
    fn a_load_that_failed_is_tried_again_at_every_look_until_it_succeeds() {
        let desk = Desk::new("a\n");
        let mut follower = desk.follower();
        assert!(follower.look().errors.is_empty());
        desk.write("a\nb\n");
        // The list can be seen and cannot be read, and then it can be, and is what it was.
        let list = follower
            .reader
            .tokens
            .revoked
            .replace("/nonexistent/list".into());
        for _ in 0..3 {
            assert!(!follower.look().errors.is_empty());
        }
        assert_eq!(revoked(&follower), ["a"]);
        follower.reader.tokens.revoked = list;
        let found = follower.look();
        assert!(found.rules.is_some() && found.errors.is_empty());
        assert_eq!(revoked(&follower), ["a", "b"]);
        let again = follower.look();
        assert!(again.rules.is_none() && again.errors.is_empty());
    }

    /// Between the start's reading and the first look a list may have changed.
    #[test]
    fn what_changed_since_the_start_is_found_at_the_first_look() {
        let desk = Desk::new("a\n");
        let started = desk.tokens.load().unwrap().rules;
        desk.write("a\nb\n");
        let mut follower = Both::new(desk.tokens, started);
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
            assert!(!follower.look().errors.is_empty(), "it is empty");
        }
        for half in ["al", "alice\nca", "alice\ncarol\nbo"] {
            desk.write(half);
            let found = follower.look();
            assert!(found.unsure && found.errors.is_empty(), "{half}");
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
        let set = |set: &&[u8]| Some(set.iter().map(|n| key(*n)).collect());
        numbers.iter().map(set).collect()
    }

    #[test]
    fn keys_that_were_fetched_count_beside_those_of_files_until_they_are_gone() {
        let desk = Desk::new("a\n");
        let mut follower = desk.follower();
        follower.look();
        let of_file = follower.keys().to_vec();
        let counted = |both: &Both| both.keys().len();
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
        assert_eq!(follower.keys(), [&of_file[..], &[key(1)]].concat());
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
        assert_eq!(follower.keys().len(), 2);
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
        let error = format!("{:#}", found.errors[0]);
        assert!(
            error.contains("17 keys") && error.contains("fetched"),
            "{error}"
        );
        assert_eq!(follower.keys().len(), 2);
        for _ in 0..2 {
            assert!(!follower.look().errors.is_empty(), "it is not forgotten");
        }
        desk.write("a\nb\n");
        let found = follower.look();
        assert!(found.rules.is_some() && !found.errors.is_empty());
        assert_eq!(revoked(&follower), ["a", "b"]);
        // Fewer are taken again, by whichever side.
        let found = follower.offer(sets(&[&most[1..]]));
        assert!(found.errors.is_empty());
        assert_eq!(follower.keys().len(), MAX_KEYS);
    }

    /// Two providers, of whom one goes beyond what counts.
    #[test]
    fn one_providers_excess_takes_nothing_from_another_and_keeps_no_key_that_is_gone() {
        let desk = Desk::new("a\n");
        let mut follower = desk.follower();
        follower.look();
        let eight: Vec<u8> = (1..=8).collect();
        let most: Vec<u8> = (100..100 + MAX_KEYS as u8).collect();
        // At a start, in whatever order they stand.
        let found = follower.offer(sets(&[&most, &eight]));
        let told = found.refused.iter().map(Option::is_some);
        assert_eq!(told.collect::<Vec<_>>(), [true, false]);
        assert_eq!(follower.keys().len(), 9);
        // Beside keys that count, one of which is withdrawn, by either.
        let found = follower.offer(sets(&[&[100, 101], &eight]));
        assert!(found.errors.is_empty() && found.refused == [None, None]);
        let found = follower.offer(sets(&[&most[1..], &eight[1..]]));
        assert_eq!(found.errors.len(), 1);
        let counts = |n: u8| follower.keys().contains(&key(n));
        assert!(counts(101) && counts(2) && counts(8));
        assert!(!counts(100) && !counts(1), "it was withdrawn");
        // A new key of the other's counts.
        follower.offer(sets(&[&most[1..], &[2, 9]]));
        assert!(follower.keys().contains(&key(9)));
    }

    #[test]
    fn a_file_with_too_many_keys_holds_up_no_revocation_and_keeps_no_key_that_is_gone_from_it() {
        let desk = Desk::new("a\n");
        let mut follower = desk.follower();
        follower.look();
        let of_file = follower.keys()[0].clone();
        let most: Vec<u8> = (1..MAX_KEYS as u8).collect();
        follower.offer(sets(&[&most]));
        assert_eq!(follower.keys().len(), MAX_KEYS);
        let two = [(); 2].map(|()| SigningKey::generate().unwrap().public_pem());
        std::fs::write(desk.folder.path().join("keys"), two.concat()).unwrap();
        desk.write("a\nb\n");
        assert_eq!(follower.look().errors.len(), 1);
        assert_eq!(revoked(&follower), ["a", "b"]);
        assert!(!follower.keys().contains(&of_file));
        assert_eq!(follower.look().errors.len(), 1, "it is not forgotten");
        // There is room again.
        follower.offer(sets(&[&most[..2]]));
        assert!(follower.look().errors.is_empty());
        assert_eq!(follower.keys().len(), 4);
    }
}
