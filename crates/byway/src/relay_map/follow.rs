//! Following the file of a relay map while the node runs.
//!
//! What the file says counts when it has said the same at two looks, a second apart. A program that writes it in place is seen
//! at the beginning, in the midst and at the end, and half a map may be a map, of half the relays. What cannot be read, is no
//! map, or names no relay changes nothing: it is logged, once, and the last good map stays in force until there is another.
//!
//! Contents are compared, not times: copies keep their times, and a folder mounted into a container changes by a symbolic
//! link. The file is read on a thread of its own, and the kernel is told there to watch it: both walk the path, and on a
//! network's disk that does not answer either hangs, which is to hold up nobody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use super::notice::Notice;
use super::{RelayMap, RelayMapError, RelayMapFault, of_text, read};
use crate::driver::Input;

/// Between two looks at a file that changes: a program writes a file of some kilobytes in less.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the first reading may take, and others before that is said: as an admission token's.
const PATIENCE: Duration = Duration::from_secs(20);

/// Follows one file.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    /// What is in force, and the text that it came from.
    map: RelayMap,
    text: String,
    /// What the last look found, if that is not in force.
    seen: Option<Result<String, RelayMapFault>>,
    /// It was found at two looks, and judged.
    judged: bool,
}

/// What comes of a look.
#[derive(PartialEq, Debug)]
enum Look {
    /// Nothing.
    Nothing,
    /// The file changes: it is to be looked at once more.
    Unsettled,
    /// Another map.
    Map(RelayMap),
    /// The file is of no use now.
    Fault(RelayMapError),
}

impl Follower {
    /// Reads the file for the first time.
    pub(crate) async fn start(path: PathBuf) -> Result<Self, RelayMapError> {
        let file = path.clone();
        let reading = tokio::time::timeout(PATIENCE, spawn_blocking(move || read(&file)));
        let text = match reading.await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => Err(RelayMapFault::Read(error.to_string())),
            Err(_) => Err(RelayMapFault::Read(format!(
                "no end of it within {PATIENCE:?}"
            ))),
        };
        let (text, map) = of_text(&path, text)?;
        Ok(Self {
            path,
            map,
            text,
            seen: None,
            judged: false,
        })
    }

    /// What is in force.
    pub(crate) fn map(&self) -> &RelayMap {
        &self.map
    }

    /// Tells the driver of every map that comes. Ends with it.
    pub(crate) async fn run(mut self, driver: mpsc::Sender<Input>) {
        let mut notice = Notice::new(&self.path);
        loop {
            let found;
            (notice, found) = look_apart(&self.path, notice).await;
            match self.look(found) {
                Look::Nothing => notice.wait().await,
                Look::Unsettled => {}
                Look::Map(map) => {
                    let relays = map.relays().count();
                    tracing::info!(map = %self.path.display(), relays, "the relay map is another one");
                    if driver.send(Input::RelayMap(map)).await.is_err() {
                        return;
                    }
                    notice.wait().await;
                }
                Look::Fault(error) => {
                    tracing::error!("{error}; the relay map before stays in force");
                    notice.wait().await;
                }
            }
            // Many changes in a row are looked at together.
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn look(&mut self, found: Result<String, RelayMapFault>) -> Look {
        if found.as_ref() == Ok(&self.text) {
            self.seen = None;
            return Look::Nothing;
        }
        if self.seen.as_ref() != Some(&found) {
            self.seen = Some(found);
            self.judged = false;
            return Look::Unsettled;
        }
        if std::mem::replace(&mut self.judged, true) {
            return Look::Nothing;
        }
        match of_text(&self.path, found) {
            Ok((text, map)) => {
                self.text = text;
                self.seen = None;
                let same = map == self.map;
                self.map.clone_from(&map);
                if same { Look::Nothing } else { Look::Map(map) }
            }
            Err(error) => Look::Fault(error),
        }
    }
}

/// Has the file watched, and reads it.
async fn look_apart(path: &Path, mut notice: Notice) -> (Notice, Result<String, RelayMapFault>) {
    let slow = || {
        tracing::warn!(
            map = %path.display(),
            "the relay map is not read within {PATIENCE:?}: its disk does not answer; the map before stays in force"
        );
    };
    let file = path.to_owned();
    let looked = apart(PATIENCE, slow, move || {
        // Before the file is read: what changes after that is told of.
        notice.arm();
        let found = read(&file);
        (notice, found)
    });
    looked.await.unwrap_or_else(|error| {
        let found = Err(RelayMapFault::Read(error.to_string()));
        (Notice::new(path), found)
    })
}

/// On a thread of its own, however long it takes; `slow` is for saying so, once.
async fn apart<T: Send + 'static>(
    patience: Duration,
    slow: impl FnOnce(),
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let mut looking = spawn_blocking(look);
    if let Ok(looked) = tokio::time::timeout(patience, &mut looking).await {
        return looked;
    }
    slow();
    looking.await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(relays: &[&str]) -> String {
        let relays = relays
            .iter()
            .map(|name| format!("[[region.relay]]\nurl = 'https://{name}.test'\n"));
        format!("[[region]]\nname = 'eu'\n{}", relays.collect::<String>())
    }

    fn follower(relays: &[&str]) -> Follower {
        let text = text(relays);
        Follower {
            path: PathBuf::from("relays.toml"),
            map: text.parse().unwrap(),
            text,
            seen: None,
            judged: false,
        }
    }

    fn hosts(map: &RelayMap) -> String {
        let hosts = map.relays().map(|(_, relay)| relay.url.host());
        hosts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn another_map_counts_when_it_was_found_twice() {
        let mut follower = follower(&["a", "b"]);
        assert_eq!(follower.look(Ok(text(&["a", "b"]))), Look::Nothing);
        assert_eq!(follower.look(Ok(text(&["b", "c"]))), Look::Unsettled);
        let Look::Map(map) = follower.look(Ok(text(&["b", "c"]))) else {
            panic!("it has settled");
        };
        assert_eq!(hosts(&map), "b.test c.test");
        assert_eq!(follower.look(Ok(text(&["b", "c"]))), Look::Nothing);
    }

    /// Half a map may be a map.
    #[test]
    fn a_file_that_is_being_written_takes_no_relay_away() {
        let mut follower = follower(&["a", "b"]);
        let whole = text(&["c", "b", "a"]);
        for end in 0..whole.len() {
            let look = follower.look(Ok(whole[..end].to_owned()));
            assert_eq!(look, Look::Unsettled, "{:?}", &whole[..end]);
        }
        assert_eq!(follower.look(Ok(whole.clone())), Look::Unsettled);
        assert!(matches!(follower.look(Ok(whole)), Look::Map(_)));
    }

    #[test]
    fn what_is_no_map_is_told_of_once_and_the_last_good_one_stays() {
        let mut follower = follower(&["a"]);
        let gone = || Err(RelayMapFault::Read("no such file".to_owned()));
        for (found, words) in [
            (Ok(String::new()), "names no relay"),
            (Ok("[[region]]\nname = 7\n".to_owned()), "line 2"),
            (gone(), "no such file"),
        ] {
            assert_eq!(follower.look(found.clone()), Look::Unsettled);
            let Look::Fault(error) = follower.look(found.clone()) else {
                panic!("{words}");
            };
            let said = error.to_string();
            assert!(
                said.starts_with("relays.toml: ") && said.contains(words),
                "{said}"
            );
            assert_eq!(follower.look(found), Look::Nothing, "it was told of");
            assert_eq!(hosts(follower.map()), "a.test");
        }
        // It is back: that is nothing new. And then it is gone again, which is.
        assert_eq!(follower.look(Ok(text(&["a"]))), Look::Nothing);
        assert_eq!(follower.look(gone()), Look::Unsettled);
        assert!(matches!(follower.look(gone()), Look::Fault(_)));
    }

    #[test]
    fn a_comment_makes_no_other_map() {
        let mut follower = follower(&["a"]);
        let commented = || Ok(format!("# mine\n{}", text(&["a"])));
        assert_eq!(follower.look(commented()), Look::Unsettled);
        assert_eq!(follower.look(commented()), Look::Nothing);
        assert_eq!(follower.look(commented()), Look::Nothing);
    }

    /// The disk answers only after it was said that it does not: nobody else was held up.
    #[tokio::test]
    async fn a_look_that_hangs_holds_up_nobody_and_is_told_of_once() {
        let (answer, disk) = std::sync::mpsc::channel();
        let mut told = 0;
        let look = move || disk.recv_timeout(Duration::from_secs(5));
        let slow = || {
            told += 1;
            answer.send("a map").unwrap();
        };
        let found = apart(Duration::from_millis(10), slow, look).await;
        assert_eq!((found.unwrap(), told), (Ok("a map"), 1));
        let soon = apart(PATIENCE, || told += 1, || "at once").await;
        assert_eq!((soon.unwrap(), told), ("at once", 1));
    }

    /// What the kernel is told, and what is read, in that order.
    #[tokio::test]
    async fn a_look_watches_the_file_and_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relays.toml");
        std::fs::write(&file, text(&["a"])).unwrap();
        let (notice, found) = look_apart(&file, Notice::new(&file)).await;
        assert_eq!(found, Ok(text(&["a"])));
        assert_eq!(notice.is_armed(), cfg!(target_os = "linux"));
        std::fs::remove_file(&file).unwrap();
        let (notice, found) = look_apart(&file, notice).await;
        assert!(matches!(found, Err(RelayMapFault::Read(_))));
        assert!(!notice.is_armed());
    }
}
