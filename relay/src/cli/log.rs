//! The log on standard error, which holds up nobody.
//!
//! Whoever reads it may be slow, or stopped: a terminal that is held, a journal whose disk hangs. Lines are written by a thread of their
//! own and wait in a bounded queue; what that cannot take is dropped and counted, and a line says so once there is room again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: some seconds of a busy relay.
const WAITING: usize = 4_096;
/// How often it is tried to put the mark of the end behind a full queue.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Where lines are put. Clones lead to the same place.
#[derive(Clone, Debug)]
pub(super) struct Log {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// All that came before was written once this is gone.
    Mark(#[allow(dead_code, reason = "it is dropped, and that is what it says")] SyncSender<()>),
}

impl Log {
    /// Starts the thread.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (messages, received) = sync_channel(WAITING);
        let lost = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(out, &received, &counted))?;
        Ok(Self { messages, lost })
    }

    /// Never waits.
    pub(super) fn line(&self, line: &[u8]) {
        if self
            .messages
            .try_send(Message::Line(line.to_vec()))
            .is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written that was said so far, but no longer than this.
    pub(super) fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let (mark, gone) = sync_channel(0);
        let mut message = Message::Mark(mark);
        while let Err(TrySendError::Full(back)) = self.messages.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            std::thread::sleep(TRY_EVERY);
        }
        // Nothing is ever said by it.
        let _ = gone.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(mut out: impl Write, received: &Receiver<Message>, lost: &AtomicU64) {
    while let Ok(message) = received.recv() {
        let missing = lost.swap(0, Ordering::Relaxed);
        // Whoever closed standard error does not want to read.
        if let Message::Line(line) = &message {
            let _ = out.write_all(line);
        }
        // At the end as well, when no line follows.
        if missing > 0 {
            let _ = writeln!(
                out,
                "byway-relay: {missing} lines of the log are missing about here: whoever reads it did not keep up"
            );
        }
    }
}

/// One event is one write: what formats it gathers it before.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read};

    use super::*;

    /// A pipe that takes nothing until it is read.
    fn full() -> (PipeReader, PipeWriter) {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'.'; 65_536]).unwrap();
        (reader, writer)
    }

    #[test]
    fn what_is_said_to_nobody_is_dropped_and_counted_and_said_later() {
        let (mut reader, writer) = full();
        let log = Log::to(writer).unwrap();
        let said = WAITING as u64 + 50;
        for n in 0..said {
            log.line(format!("line {n}\n").as_bytes());
        }
        // One may be with the writer already.
        let lost = log.lost.load(Ordering::Relaxed);
        assert!((49..=50).contains(&lost), "{lost}");
        let began = Instant::now();
        log.flush(Duration::from_millis(50));
        assert!(began.elapsed() >= Duration::from_millis(50));
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        log.flush(Duration::from_secs(60));
        drop(log);
        let text = reading.join().unwrap();
        let lines = text.lines().filter(|l| l.contains("line ")).count() as u64;
        assert_eq!(lines, said - lost);
        assert!(text.contains(&format!("{lost} lines of the log are missing")));
    }

    #[test]
    fn a_flush_waits_for_what_was_said() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::to(writer).unwrap();
        log.line(b"last words\n");
        log.flush(Duration::from_secs(60));
        let mut text = [0; 11];
        // All of it is there: this would wait for ever otherwise.
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"last words\n");
    }
}
