//! The application inside a tunnel: transfers that check every byte and their own progress.
//!
//! The client opens a stream for each task and begins it with a head: what to do, how much, and which pattern. The agent
//! does it. Bytes follow from the pattern and their position, so a byte that is lost, doubled or out of place is seen
//! where it happens. The receiving side also measures its longest silence, which is what a person at the other end
//! would notice of a failover.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn_proto::{Connection, Dir, Event, StreamEvent, StreamId};

/// What a task does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// The agent answers one byte.
    Touch,
    /// The client sends so many bytes; the agent checks them and confirms.
    Upload(u64),
    /// The agent sends so many bytes; the client checks them.
    Download(u64),
}

impl Task {
    /// How many are moved.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Touch => 1,
            Self::Upload(bytes) | Self::Download(bytes) => bytes,
        }
    }
}

/// How a task went, as the client sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which.
    pub task: Task,
    /// When it began.
    pub began: Duration,
    /// When its first answer byte came.
    pub first: Option<Duration>,
    /// When it was complete and right.
    pub done: Option<Duration>,
    /// What went wrong.
    pub fault: Option<String>,
    /// Bytes received in order so far.
    pub received: u64,
    /// The longest time between two arrivals.
    pub longest_silence: Duration,
    last: Duration,
}

/// The agent's view of an upload: the longest silence while it ran.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// Bytes that came in order and right.
    pub received: u64,
    /// The longest time between two arrivals.
    pub longest_silence: Duration,
    /// When the first and the last byte came.
    pub span: Option<(Duration, Duration)>,
    /// What was wrong.
    pub fault: Option<String>,
}

#[derive(Debug)]
struct Job {
    /// Index into `reports` (client) or `served` (agent).
    index: usize,
    serving: bool,
    task: Option<Task>,
    pattern: u64,
    head: Vec<u8>,
    /// Of what this side must send: sent so far, and all of it once known.
    sent: u64,
    /// What comes next of it, made and not taken yet: quinn takes a little with each acknowledgement.
    made: Bytes,
    to_send: Option<u64>,
    got: u64,
    /// An upload did not match its pattern.
    wrong: bool,
}

/// All tasks of one node.
#[derive(Debug, Default)]
pub struct App {
    /// The client's tasks in the order they were begun.
    pub reports: Vec<Report>,
    /// What an agent served, in the order the streams came.
    pub served: Vec<Served>,
    jobs: BTreeMap<(u64, StreamId), Job>,
    next_pattern: u64,
}

/// What the first byte of a stream's head says, then how much (8 bytes) and which pattern (8 bytes).
const HEAD_LEN: usize = 17;
/// The agent's answer to a touch and to a whole upload.
const FINE: u8 = b'+';
/// The agent's answer to an upload with a wrong byte.
const WRONG: u8 = b'-';
/// How much is written at once.
const CHUNK: usize = 16 * 1024;

impl App {
    /// Begins a task on a connection (named by `key`); false while the peer allows no more streams.
    pub fn begin(&mut self, key: u64, conn: &mut Connection, now: Duration, task: Task) -> bool {
        let Some(stream) = conn.streams().open(Dir::Bi) else {
            return false;
        };
        self.next_pattern += 1;
        let (op, amount) = match task {
            Task::Touch => (b't', 0),
            Task::Upload(n) => (b'u', n),
            Task::Download(n) => (b'd', n),
        };
        let pattern = self.next_pattern;
        let mut head = vec![op];
        head.extend_from_slice(&amount.to_be_bytes());
        head.extend_from_slice(&pattern.to_be_bytes());
        let index = self.reports.len();
        self.reports.push(Report {
            task,
            began: now,
            first: None,
            done: None,
            fault: None,
            received: 0,
            longest_silence: Duration::ZERO,
            last: now,
        });
        let job = Job {
            index,
            serving: false,
            task: Some(task),
            pattern,
            head,
            sent: 0,
            made: Bytes::new(),
            to_send: Some(match task {
                Task::Upload(n) => n,
                _ => 0,
            }),
            got: 0,
            wrong: false,
        };
        self.jobs.insert((key, stream), job);
        self.write(key, conn, stream);
        true
    }

    /// A task that could not even begin.
    pub fn give_up(&mut self, now: Duration, task: Task, why: &str) {
        self.reports.push(Report {
            task,
            began: now,
            first: None,
            done: None,
            fault: Some(why.to_owned()),
            received: 0,
            longest_silence: Duration::ZERO,
            last: now,
        });
    }

    /// True while a task of this side runs.
    pub fn busy(&self) -> bool {
        self.reports
            .iter()
            .any(|r| r.done.is_none() && r.fault.is_none())
    }

    /// A connection says something.
    pub fn on_event(&mut self, key: u64, conn: &mut Connection, now: Duration, event: &Event) {
        match event {
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(stream) = conn.streams().accept(Dir::Bi) {
                    let index = self.served.len();
                    self.served.push(Served::default());
                    let job = Job {
                        index,
                        serving: true,
                        task: None,
                        pattern: 0,
                        head: Vec::new(),
                        sent: 0,
                        made: Bytes::new(),
                        to_send: None,
                        got: 0,
                        wrong: false,
                    };
                    self.jobs.insert((key, stream), job);
                    self.read(key, conn, stream, now);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(key, conn, *id, now),
            Event::Stream(StreamEvent::Writable { id }) => self.write(key, conn, *id),
            Event::ConnectionLost { reason } => {
                for ((k, _), job) in &self.jobs {
                    if *k == key && !job.serving {
                        let report = &mut self.reports[job.index];
                        if report.done.is_none() && report.fault.is_none() {
                            report.fault = Some(format!("the connection ended: {reason}"));
                        }
                    }
                }
                self.jobs.retain(|(k, _), _| *k != key);
            }
            _ => {}
        }
    }

    fn read(&mut self, key: u64, conn: &mut Connection, stream: StreamId, now: Duration) {
        let Some(job) = self.jobs.get_mut(&(key, stream)) else {
            return;
        };
        let mut bytes = Vec::new();
        let mut ended = false;
        let mut broken = None;
        let mut recv = conn.recv_stream(stream);
        match recv.read(true) {
            Ok(mut chunks) => {
                loop {
                    match chunks.next(usize::MAX) {
                        Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
                        Ok(None) => {
                            ended = true;
                            break;
                        }
                        Err(quinn_proto::ReadError::Blocked) => break,
                        Err(error) => {
                            broken = Some(error.to_string());
                            break;
                        }
                    }
                }
                let _ = chunks.finalize();
            }
            Err(_) => return,
        }
        if job.serving {
            serve(job, &mut self.served[job.index], &bytes, ended, now);
        } else {
            receive(job, &mut self.reports[job.index], &bytes, ended, now);
            let report = &mut self.reports[job.index];
            if let Some(error) = broken {
                report.fault.get_or_insert(error);
            }
            if report.done.is_some() || report.fault.is_some() {
                self.jobs.remove(&(key, stream));
                return;
            }
        }
        self.write(key, conn, stream);
    }

    fn write(&mut self, key: u64, conn: &mut Connection, stream: StreamId) {
        let Some(job) = self.jobs.get_mut(&(key, stream)) else {
            return;
        };
        let mut send = conn.send_stream(stream);
        // The client's head goes in front; an agent's `head` is what it read, not what it writes.
        while !job.serving && !job.head.is_empty() {
            match send.write(&job.head) {
                Ok(n) => {
                    job.head.drain(..n);
                }
                Err(_) => return,
            }
        }
        let Some(total) = job.to_send else { return };
        while job.sent < total {
            if job.made.is_empty() {
                let len = (total - job.sent).min(CHUNK as u64) as usize;
                job.made = Bytes::from(match (job.serving, job.task) {
                    (true, Some(Task::Touch | Task::Upload(_))) => {
                        vec![if job.wrong { WRONG } else { FINE }; len]
                    }
                    _ => pattern(job.pattern, job.sent, len),
                });
            }
            match send.write(&job.made) {
                Ok(n) => {
                    job.sent += n as u64;
                    job.made.advance(n);
                }
                Err(_) => return,
            }
        }
        let _ = send.finish();
        if job.serving {
            // The request was read to its end, or nothing more of it matters.
            self.jobs.remove(&(key, stream));
        }
    }
}

/// The client's side of reading.
fn receive(job: &mut Job, report: &mut Report, bytes: &[u8], ended: bool, now: Duration) {
    if !bytes.is_empty() {
        report.first.get_or_insert(now);
        report.longest_silence = report.longest_silence.max(now - report.last);
        report.last = now;
    }
    match job.task {
        Some(Task::Download(total)) => {
            check(job.pattern, job.got, bytes, &mut report.fault);
            job.got += bytes.len() as u64;
            report.received = job.got;
            if ended && report.fault.is_none() {
                if job.got == total {
                    report.done.get_or_insert(now);
                } else {
                    report.fault = Some(format!("ended after {} of {total} bytes", job.got));
                }
            }
        }
        _ => {
            job.got += bytes.len() as u64;
            if bytes.contains(&WRONG) {
                report.fault = Some("the agent saw a wrong byte".to_owned());
            } else if ended && job.got == 1 {
                report.done.get_or_insert(now);
            } else if ended && report.fault.is_none() {
                report.fault = Some(format!("{} answer bytes instead of 1", job.got));
            }
        }
    }
}

/// The agent's side of reading.
fn serve(job: &mut Job, served: &mut Served, mut bytes: &[u8], ended: bool, now: Duration) {
    if job.task.is_none() {
        let need = HEAD_LEN.saturating_sub(job.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(need);
        job.head.extend_from_slice(head);
        bytes = rest;
        if job.head.len() < HEAD_LEN {
            return;
        }
        let number = |from: usize| {
            let mut n = [0; 8];
            n.copy_from_slice(&job.head[from..from + 8]);
            u64::from_be_bytes(n)
        };
        let amount = number(1);
        job.pattern = number(9);
        job.task = Some(match job.head[0] {
            b'u' => Task::Upload(amount),
            b'd' => Task::Download(amount),
            _ => Task::Touch,
        });
        job.to_send = match job.task {
            Some(Task::Touch) => Some(1),
            Some(Task::Download(n)) => Some(n),
            _ => None,
        };
    }
    if let Some(Task::Upload(total)) = job.task {
        if !bytes.is_empty() {
            if let Some((first, last)) = served.span {
                served.longest_silence = served.longest_silence.max(now - last);
                served.span = Some((first, now));
            } else {
                served.span = Some((now, now));
            }
        }
        check(job.pattern, job.got, bytes, &mut served.fault);
        job.got += bytes.len() as u64;
        served.received = job.got;
        if ended {
            if job.got != total {
                served
                    .fault
                    .get_or_insert(format!("{} of {total} bytes", job.got));
            }
            job.wrong = served.fault.is_some();
            job.to_send = Some(1);
        }
    }
}

fn check(seed: u64, offset: u64, bytes: &[u8], fault: &mut Option<String>) {
    if fault.is_none() && !matches(seed, offset, bytes) {
        *fault = Some(format!(
            "wrong bytes between {offset} and {}",
            offset + bytes.len() as u64
        ));
    }
}

/// Eight bytes of the pattern, from a mixing function of the position (SplitMix64's).
fn word(seed: u64, at: u64) -> [u8; 8] {
    let mut z = (seed << 40) ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

fn pattern(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let first = offset / 8;
    let last = (offset + len as u64).div_ceil(8);
    let mut out = Vec::with_capacity(((last - first) * 8) as usize);
    for at in first..last {
        out.extend_from_slice(&word(seed, at));
    }
    let skip = (offset % 8) as usize;
    out.drain(..skip);
    out.truncate(len);
    out
}

/// True if the pattern has these bytes there.
fn matches(seed: u64, offset: u64, bytes: &[u8]) -> bool {
    let skip = (offset % 8) as usize;
    let (head, rest) = bytes.split_at(((8 - skip) % 8).min(bytes.len()));
    let first = offset.div_ceil(8);
    // Whole words are compared as numbers: every byte of every transfer of every seed goes through here.
    let (words, tail) = rest.as_chunks();
    word(seed, offset / 8)[skip..].starts_with(head)
        && words
            .iter()
            .zip(first..)
            .all(|(w, at)| *w == word(seed, at))
        && word(seed, first + words.len() as u64).starts_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_same_however_it_is_cut() {
        let whole = pattern(3, 0, 1000);
        let mut pieces = Vec::new();
        for (at, len) in [(0, 1), (1, 6), (7, 100), (107, 893)] {
            pieces.extend(pattern(3, at, len));
        }
        assert_eq!(whole, pieces);
        for (at, len) in [
            (0, 0),
            (0, 1000),
            (1, 6),
            (1, 7),
            (2, 3),
            (8, 9),
            (107, 893),
        ] {
            let mut part = whole[at..at + len].to_vec();
            assert!(matches(3, at as u64, &part), "{at}, {len}");
            for wrong in 0..len {
                part[wrong] ^= 1;
                assert!(!matches(3, at as u64, &part), "{at}, {len}, {wrong}");
                part[wrong] ^= 1;
            }
        }
        assert_ne!(pattern(3, 0, 100), pattern(4, 0, 100));
    }

    #[test]
    fn a_wrong_or_shifted_byte_is_seen() {
        let mut fault = None;
        check(1, 10, &pattern(1, 10, 50), &mut fault);
        assert_eq!(fault, None);
        check(1, 11, &pattern(1, 10, 50), &mut fault);
        assert!(fault.is_some());
    }
}
