//! The audit log: who linked, who had a channel with whom, when, how much, and why it ended, as JSON lines for a SIEM.
//!
//! Lines are written by a thread of its own, so that a slow disk holds up no node. What it cannot take is lost, counted, and said by a
//! line once there is room again: whoever reads the log knows that it is not whole. A file that was renamed or removed is opened anew, as rotation wants
//! it.

mod appender;
mod event;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use byway_relay_core::io::Audit;
use serde_json::{Value, json};

use self::appender::Appender;
use self::event::{dated, describe, lost_line};
use crate::stats::{Counters, bump};
use crate::table::Totals;

/// Lines that may wait for the disk: some seconds of a busy relay, a megabyte.
const WAITING: usize = 4_096;
/// How often the file is looked for under its name.
const LOOK: Duration = Duration::from_secs(1);
/// For how long what waits is still written when the log ends. A disk that hangs must not keep the relay from ending.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Ends when it is dropped, with all that waits written, if the disk takes it in time.
#[derive(Debug)]
pub(crate) struct AuditLog {
    lines: Option<SyncSender<Line>>,
    /// Events that wait to be written.
    waiting: Arc<AtomicU64>,
    /// Hangs up when the writer has ended.
    ended: Mutex<Receiver<()>>,
    /// Lines lost that no line says yet.
    lost: Arc<AtomicU64>,
    counters: Arc<Counters>,
    writer: Option<JoinHandle<()>>,
}

/// One line, and how many events are missing from the log if it is lost: those it was to say are missing, too.
#[derive(Debug)]
struct Line {
    text: String,
    events: u64,
    /// It says what was lost, which was counted then.
    counted: bool,
}

impl AuditLog {
    /// Appends to the file, which is made for its owner alone.
    pub(crate) fn open(path: &Path, counters: &Arc<Counters>) -> anyhow::Result<Self> {
        let about = || format!("cannot write the audit log {}", path.display());
        let file = Appender::open(path).with_context(about)?;
        let (lines, received) = sync_channel(WAITING);
        let (ends, ended) = sync_channel(0);
        let waiting = Arc::<AtomicU64>::default();
        let lost = Arc::<AtomicU64>::default();
        let to = Target {
            lost: Arc::clone(&lost),
            waiting: Arc::clone(&waiting),
            counters: Arc::clone(counters),
            path: path.to_owned(),
            file,
            looked: Instant::now(),
            failing: false,
            moved: false,
        };
        let writer = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || {
                to.write_all(&received);
                drop(ends);
            })
            .with_context(about)?;
        Ok(Self {
            lines: Some(lines),
            waiting,
            ended: Mutex::new(ended),
            lost,
            counters: Arc::clone(counters),
            writer: Some(writer),
        })
    }

    /// Never waits.
    pub(crate) fn write(&self, audit: &Audit, totals: Option<&Totals>) {
        self.put(describe(audit, totals));
    }
    /// Says how many refusals of strangers are not on record.
    pub(crate) fn write_suppressed(&self, count: u64) {
        self.put(json!({ "event": "refused_suppressed", "count": count }));
    }

    fn put(&self, line: Value) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.send(lost_line(lost), Some(lost)) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        if !self.send(line, None) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            bump(&self.counters.audit_dropped);
        }
    }

    /// `lost`: what a line says of others.
    fn send(&self, line: Value, lost: Option<u64>) -> bool {
        let line = Line {
            text: dated(line),
            events: lost.unwrap_or(1),
            counted: lost.is_some(),
        };
        let events = line.events;
        // Before it is sent: the writer may be done with it at once.
        self.waiting.fetch_add(events, Ordering::Relaxed);
        let lines = self.lines.as_ref();
        let sent = lines.is_some_and(|lines| lines.try_send(line).is_ok());
        if !sent {
            self.waiting.fetch_sub(events, Ordering::Relaxed);
        }
        sent
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        drop(self.lines.take());
        let Some(writer) = self.writer.take() else {
            return;
        };
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
            let lost = self.waiting.load(Ordering::Relaxed) + self.lost.load(Ordering::Relaxed);
            tracing::error!(
                lost,
                "the audit log takes nothing: it ends without what waited to be written"
            );
            return;
        }
        // It panicked, and said so then.
        let _ = writer.join();
    }
}

struct Target {
    lost: Arc<AtomicU64>,
    waiting: Arc<AtomicU64>,
    counters: Arc<Counters>,
    path: PathBuf,
    file: Appender<File>,
    looked: Instant,
    failing: bool,
    /// The file has another name by now, and there is none under its own.
    moved: bool,
}

impl Target {
    fn write_all(mut self, received: &Receiver<Line>) {
        while let Ok(line) = received.recv() {
            let written = self.write(line.text.as_bytes());
            self.waiting.fetch_sub(line.events, Ordering::Relaxed);
            match written {
                Ok(()) => self.failing = false,
                Err(error) => {
                    self.lost.fetch_add(line.events, Ordering::Relaxed);
                    if !line.counted {
                        bump(&self.counters.audit_dropped);
                    }
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%error, "the audit log {} cannot be written: lines are lost", self.path.display());
                    }
                }
            }
        }
        // No event follows before which it could be said.
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0
            && let Err(error) = self.write(dated(lost_line(lost)).as_bytes())
        {
            tracing::error!(%error, lost, "the audit log ends, and does not say what is missing at its end");
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.failing || self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let there = std::fs::metadata(&self.path)
                .map(|m| (m.dev(), m.ino()))
                .ok();
            let ours = self.file.to.metadata()?;
            if there != Some((ours.dev(), ours.ino())) {
                match Appender::open(&self.path) {
                    Ok(file) => {
                        self.file = file;
                        self.moved = false;
                    }
                    // A file without a name is nowhere once it is closed.
                    Err(error) if ours.nlink() == 0 => return Err(error),
                    // Whoever renamed it still has it; better there than lost.
                    Err(error) => {
                        if !std::mem::replace(&mut self.moved, true) {
                            tracing::error!(%error, "the audit log {} cannot be opened anew: the old file is written on", self.path.display());
                        }
                    }
                }
            }
        }
        self.file.line(line)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use byway_wire::ChannelId;

    use super::*;

    fn opened() -> Audit {
        Audit::Opened {
            channel: ChannelId::from_u64(1),
            opener: byway_wire::SecretKey::from_bytes(&[1; 32]).node_id(),
            target: byway_wire::SecretKey::from_bytes(&[2; 32]).node_id(),
        }
    }

    fn events(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        let events = text.lines().map(|line| {
            let line = serde_json::from_str::<Value>(line);
            line.map_or("torn".into(), |line| line["event"].clone())
        });
        events.collect()
    }

    #[test]
    fn a_log_that_was_torn_when_the_relay_ended_goes_on_with_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        for before in ["{\"event\":\"linked\"}\n{\"eve", "{\"event\":\"linked\"}\n"] {
            std::fs::write(&path, before).unwrap();
            let log = AuditLog::open(&path, &Arc::default()).unwrap();
            log.write(&opened(), None);
            drop(log);
            let events = events(&path);
            assert_eq!(
                (&events[0], events.last().unwrap()),
                (&"linked".into(), &"opened".into())
            );
        }
    }

    #[test]
    fn what_is_lost_when_the_log_ends_is_said_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let log = AuditLog::open(&path, &Arc::default()).unwrap();
        log.write(&opened(), None);
        log.lost.fetch_add(3, Ordering::Relaxed);
        drop(log);
        assert_eq!(events(&path), ["opened", "lost"]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().last().unwrap().contains("\"count\":3"));
    }

    #[test]
    fn a_file_that_was_renamed_is_kept_until_there_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let [path, old] = ["audit.jsonl", "audit.1"].map(|name| folder.path().join(name));
        let mut to = Target {
            lost: Arc::default(),
            waiting: Arc::default(),
            counters: Arc::default(),
            file: Appender::open(&path).unwrap(),
            path: path.clone(),
            looked: Instant::now(),
            // Looks at every line.
            failing: true,
            moved: false,
        };
        std::fs::rename(&path, &old).unwrap();
        // What is in its place is nothing that can be written.
        std::fs::create_dir(&path).unwrap();
        to.write(b"{\"event\":1}\n").unwrap();
        std::fs::remove_dir(&path).unwrap();
        to.write(b"{\"event\":2}\n").unwrap();
        assert_eq!(
            (events(&old), events(&path)),
            (vec![1.into()], vec![2.into()])
        );
        // Of one that is gone nobody would read.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        to.write(b"{\"event\":3}\n").unwrap_err();
    }

    /// A named pipe that nobody reads is a disk that hangs.
    #[test]
    fn a_disk_that_hangs_does_not_keep_the_log_from_ending() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        // Held open for both: neither this nor the log waits for another end.
        let mut both = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        both.write_all(&[b'\n'; 65_536]).unwrap();
        let log = AuditLog::open(&path, &Arc::default()).unwrap();
        for _ in 0..5 {
            log.write(&opened(), None);
        }
        assert_eq!(log.waiting.load(Ordering::Relaxed), 5);
        let began = Instant::now();
        drop(log);
        let took = began.elapsed();
        assert!(took >= LAST_WORDS && took < LAST_WORDS * 4, "{took:?}");
    }
}
