//! The log on standard error, which holds up nobody.
//!
//! Whoever reads it may be slow, or stopped: a terminal that is held, a journal whose disk hangs. Lines are written by a thread of their
//! own and wait in a bounded queue; what that cannot take is dropped and counted, and a line says so once there is room again. Of lines of one kind
//! no more than some a second are written ([`super::sample`]).

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

use super::sample::{Sampler, Verdict, WINDOW, message_of, tell};

/// Lines that may wait: some seconds of a busy relay.
const WAITING: usize = 4_096;
/// How often it is tried to put the mark of the end behind a full queue.
const TRY_EVERY: Duration = Duration::from_millis(10);

thread_local! {
    /// What the log's own thread has to say, while it says it: not by its queue, which may be full, and then the count of what was left out would be lost.
    static OWN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Where lines are put. Clones lead to the same place.
#[derive(Clone, Debug)]
pub(super) struct Log {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    sampler: Arc<Sampler>,
    /// Lines were left out: their second will be over soon, and then it is to be said.
    left_out: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Nothing but a reason to look at what was left out.
    Look,
    /// All that came before was written once this is gone.
    Mark(#[allow(dead_code, reason = "it is dropped, and that is what it says")] SyncSender<()>),
}

impl Log {
    /// Starts the thread. Of lines of one kind `most` a second are written; 0 for all.
    pub(super) fn to(out: impl Write + Send + 'static, most: u32) -> io::Result<Self> {
        let (messages, received) = sync_channel(WAITING);
        let lost = Arc::<AtomicU64>::default();
        let sampler = Arc::new(Sampler::new(most));
        let left_out = Arc::<AtomicBool>::default();
        let writer = Writer {
            lost: Arc::clone(&lost),
            sampler: Arc::clone(&sampler),
            left_out: Arc::clone(&left_out),
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(out, &received))?;
        Ok(Self {
            messages,
            lost,
            sampler,
            left_out,
        })
    }

    /// Never waits.
    pub(super) fn line(&self, line: &[u8]) {
        let is_own = OWN.with_borrow_mut(|own| {
            let own = own.as_mut();
            own.map(|text| text.extend_from_slice(line)).is_some()
        });
        if is_own {
            return;
        }
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
        let now = Instant::now();
        let deadline = now + within;
        // There may be no later second.
        tell(self.sampler.left_out(now + WINDOW).0);
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

/// What the thread needs to know.
struct Writer {
    lost: Arc<AtomicU64>,
    sampler: Arc<Sampler>,
    left_out: Arc<AtomicBool>,
}

impl Writer {
    fn run(&self, mut out: impl Write, received: &Receiver<Message>) {
        // While lines are left out, a second at a time; else for ever.
        let mut look = None;
        loop {
            let message = match look {
                None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => received.recv_timeout(WINDOW),
            };
            let now = Instant::now();
            if let Err(RecvTimeoutError::Disconnected) = message {
                return;
            }
            if self.left_out.swap(false, Ordering::Relaxed) {
                look = look.or(Some(now));
            }
            let missing = self.lost.swap(0, Ordering::Relaxed);
            if let Ok(Message::Line(line)) = &message {
                self.write(&mut out, line, 1);
            }
            // At the end as well, when no line follows.
            if missing > 0 {
                let line = format!(
                    "byway-relay: {missing} lines of the log are missing about here: whoever reads it did not keep up\n"
                );
                self.write(&mut out, line.as_bytes(), missing);
            }
            if look.is_some_and(|since| now.duration_since(since) >= WINDOW) {
                let (left_out, more) = self.sampler.left_out(now);
                look = more.then_some(now);
                let lines = left_out.len() as u64;
                OWN.set(Some(Vec::new()));
                tell(left_out);
                let said = OWN.take().unwrap_or_default();
                self.write(&mut out, &said, lines);
            }
        }
    }

    /// What cannot be written, to a full disk for one, is missing as well.
    fn write(&self, out: &mut impl Write, text: &[u8], lines: u64) {
        if out.write_all(text).is_err() {
            self.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

/// Which lines are written at all.
impl<S: Subscriber> Layer<S> for Log {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let judged = self
            .sampler
            .judge(Instant::now(), event.metadata(), || message_of(event));
        if judged == Verdict::LeaveOutAndTell {
            self.left_out.store(true, Ordering::Relaxed);
            // Where there is no room the thread has enough to do, and sees it by itself.
            let _ = self.messages.try_send(Message::Look);
        }
        judged == Verdict::Write
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

    use tracing_subscriber::layer::SubscriberExt;

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
        let log = Log::to(writer, 0).unwrap();
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
    fn of_lines_of_one_kind_a_few_are_written_and_the_others_counted() {
        let (reader, writer) = io::pipe().unwrap();
        let log = Log::to(writer, 5).unwrap();
        let formatted = tracing_subscriber::fmt::layer().with_writer(log.clone());
        let subscriber = tracing_subscriber::registry()
            .with(log.clone())
            .with(formatted.with_ansi(false));
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..40 {
                tracing::warn!(n, "the disk is slow");
            }
            tracing::info!("something else");
            // It is said here, for only this thread has the subscriber.
            log.flush(Duration::from_secs(60));
        });
        drop(log);
        let text = io::read_to_string(reader).unwrap();
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!(count("the disk is slow n="), 5, "{text}");
        assert_eq!(count("something else"), 1, "{text}");
        assert_eq!(count("count=35 like=\"the disk is slow\""), 1, "{text}");
    }

    #[test]
    fn a_flush_waits_for_what_was_said() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::to(writer, 0).unwrap();
        log.line(b"last words\n");
        log.flush(Duration::from_secs(60));
        let mut text = [0; 11];
        // All of it is there: this would wait for ever otherwise.
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"last words\n");
    }

    /// A disk that is full, and then is not.
    #[derive(Clone, Default)]
    struct Disk(Arc<AtomicBool>, Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Disk {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            if self.0.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.lock().unwrap().write(text)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_said_later() {
        let disk = Disk::default();
        let log = Log::to(disk.clone(), 0).unwrap();
        disk.0.store(true, Ordering::Relaxed);
        for _ in 0..7 {
            log.line(b"lost\n");
        }
        log.flush(Duration::from_secs(60));
        disk.0.store(false, Ordering::Relaxed);
        log.line(b"there\n");
        log.flush(Duration::from_secs(60));
        let text = String::from_utf8(disk.1.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("there\n"), "{text}");
        assert!(text.contains("7 lines of the log are missing"), "{text}");
    }

    #[test]
    fn what_the_log_says_itself_takes_no_room_in_its_queue() {
        let (reader, writer) = full();
        let log = Log::to(writer, 0).unwrap();
        while log.lost.load(Ordering::Relaxed) == 0 {
            log.line(b"line\n");
        }
        OWN.set(Some(Vec::new()));
        log.line(b"own\n");
        assert_eq!(OWN.take().unwrap(), b"own\n");
        assert_eq!(log.lost.load(Ordering::Relaxed), 1);
        drop((log, reader));
    }
}
