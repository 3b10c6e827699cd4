//! The audit log: who linked, who had a channel with whom, when, how much, and why it ended, as JSON lines for a SIEM.
//!
//! Lines are written by a thread of its own, so that a slow disk holds up no node. What it cannot take is lost, counted, and said by a
//! line once there is room again: whoever reads the log knows that it is not whole. A file that was renamed or removed is opened anew, as rotation wants
//! it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use byway_relay_core::io::{Audit, Egress};
use byway_wire::ChannelId;
use byway_wire::relay::control::{RefuseReason, Role};
use serde_json::{Value, json};

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

/// Whole lines, each in one write: two programs that append to one file do not tear them. A disk that fills up may take part of one;
/// then the next begins on a line of its own, so that what cannot be parsed is that one alone.
struct Appender<W> {
    to: W,
    torn: bool,
}

impl Appender<File> {
    fn open(path: &Path) -> io::Result<Self> {
        let to = append(path)?;
        Ok(Self {
            torn: is_torn(path, &to),
            to,
        })
    }
}

/// True if the file's last line has no end: the relay, or the machine, ended while it was written.
fn is_torn(path: &Path, appended: &File) -> bool {
    // A file that may be written and not read is one of whose end nothing is known. Nor is a pipe opened twice.
    let last = || -> io::Result<Option<u8>> {
        let len = appended.metadata()?;
        if !len.is_file() || len.len() == 0 {
            return Ok(None);
        }
        let mut last = [0];
        File::open(path)?.read_exact_at(&mut last, len.len() - 1)?;
        Ok(Some(last[0]))
    };
    matches!(last(), Ok(Some(byte)) if byte != b'\n')
}

impl<W: Write> Appender<W> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.to.write_all(b"\n")?;
            self.torn = false;
        }
        let taken = loop {
            match self.to.write(line) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                taken => break taken?,
            }
        };
        if taken < line.len() {
            self.torn = taken > 0;
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "it took part of a line",
            ));
        }
        Ok(())
    }
}

fn lost_line(count: u64) -> Value {
    json!({ "event": "lost", "count": count })
}

/// A line with its time.
fn dated(mut line: Value) -> String {
    line["time"] = humantime::format_rfc3339_millis(SystemTime::now())
        .to_string()
        .into();
    format!("{line}\n")
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn describe(audit: &Audit, totals: Option<&Totals>) -> Value {
    let channel = |id: &ChannelId| format!("{:014x}", id.as_u64());
    match audit {
        Audit::Linked {
            link,
            node,
            role,
            observed,
            egress,
            workspace,
            owner,
        } => {
            let role = match role {
                Role::Agent => "agent",
                Role::Client => "client",
            };
            let carrier = match egress {
                Egress::Udp(_) => "udp",
                Egress::Tls(_) => "tls",
            };
            let mut line = json!({
                "event": "linked", "link": link.0, "node": node.to_string(), "role": role,
                "address": observed.to_string(), "carrier": carrier,
            });
            for (name, value) in [("workspace", workspace), ("owner", owner)] {
                if let Some(value) = value {
                    line[name] = value.as_str().into();
                }
            }
            line
        }
        Audit::Unlinked { link, node, why } => json!({
            "event": "unlinked", "link": link.0, "node": node.to_string(),
            "reason": why.map_or("connection_ended", refusal),
        }),
        Audit::Refused {
            link,
            node,
            observed,
            reason,
            detail,
        } => json!({
            "event": "refused", "link": link.0, "node": node.to_string(), "address": observed.to_string(),
            "reason": refusal(*reason), "detail": detail,
        }),
        Audit::Opened {
            channel: id,
            opener,
            target,
        } => json!({
            "event": "opened", "channel": channel(id), "opener": opener.to_string(), "target": target.to_string(),
        }),
        Audit::Ended {
            channel: id,
            opener,
            target,
            why,
        } => {
            let mut line = json!({
                "event": "ended", "channel": channel(id), "opener": opener.to_string(),
                "target": target.to_string(), "reason": why.name(),
            });
            if let Some(totals) = totals {
                line["duration_ms"] = (totals.since.elapsed().as_millis() as u64).into();
                line["opener_datagrams"] = totals.opener.0.into();
                line["opener_bytes"] = totals.opener.1.into();
                line["target_datagrams"] = totals.target.0.into();
                line["target_bytes"] = totals.target.1.into();
            }
            line
        }
        // Of a later relay-core.
        other => json!({ "event": "other", "detail": format!("{other:?}") }),
    }
}

/// The name that logs have: written like the reasons for which channels end.
fn refusal(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::Version => "version",
        RefuseReason::Identity => "identity",
        RefuseReason::NotAdmitted => "not_admitted",
        RefuseReason::Limit => "limit",
        RefuseReason::Protocol => "protocol",
        RefuseReason::Replaced => "replaced",
        RefuseReason::Shutdown => "shutdown",
        // Of a later relay-core.
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then none for one write.
    struct Filling {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Filling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            self.taken.extend_from_slice(&bytes[..n]);
            self.room -= n;
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

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

    #[test]
    fn a_line_after_a_torn_one_is_whole() {
        let mut log = Appender {
            to: Filling {
                taken: Vec::new(),
                room: 10,
            },
            torn: false,
        };
        log.line(b"{\"n\":1}\n").unwrap();
        log.line(b"{\"n\":2}\n").unwrap_err();
        log.line(b"{\"n\":3}\n").unwrap_err();
        log.to.room = 100;
        log.line(b"{\"n\":4}\n").unwrap();
        log.line(b"{\"n\":5}\n").unwrap();
        let text = String::from_utf8(log.to.taken).unwrap();
        assert_eq!(text, "{\"n\":1}\n{\"\n{\"n\":4}\n{\"n\":5}\n");
    }
}
