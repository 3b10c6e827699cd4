//! Programs started by a scenario: their output line by line as it comes, waited for with deadlines; ended
//! by their own ids when dropped.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::harness;

/// How many lines of each program a failure shows: enough for the events that led there.
const SHOWN_LINES: usize = 100;

/// Which of its outputs a program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    fn mark(self) -> char {
        match self {
            Self::Out => '|',
            Self::Err => '!',
        }
    }
}

/// A line and when it came, counted from the program's start.
#[derive(Clone, Debug)]
pub struct Line {
    /// Since the program's start.
    pub at: Duration,
    /// Where it was written.
    pub from: Stream,
    /// Without the line end.
    pub text: String,
}

#[derive(Debug, Default)]
struct Lines {
    all: Vec<Line>,
    open_streams: usize,
}

/// What a program has written so far.
#[derive(Debug, Default)]
pub(crate) struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

impl Output {
    /// The last lines, each with its time.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lock();
        let mut text = String::new();
        let skipped = lines.all.len().saturating_sub(SHOWN_LINES);
        if skipped > 0 {
            let _ = writeln!(text, "    ... {skipped} earlier lines");
        }
        for line in lines.all.iter().skip(skipped) {
            let (at, mark) = (line.at.as_secs_f64(), line.from.mark());
            let _ = writeln!(text, "    {at:>8.3}s {mark} {}", line.text);
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    label: String,
    child: Child,
    started: Instant,
    output: Arc<Output>,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What it was.
    pub label: String,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// How long it ran.
    pub took: Duration,
    /// All it wrote.
    pub lines: Vec<Line>,
}

impl Finished {
    /// Standard output, joined.
    pub fn stdout(&self) -> String {
        self.text(Stream::Out)
    }

    /// Standard error, joined.
    pub fn stderr(&self) -> String {
        self.text(Stream::Err)
    }

    /// This, if the program exited 0.
    pub fn success(self) -> Result<Self> {
        if self.code != Some(0) {
            bail!(
                "{} ended with {:?}\n{}{}",
                self.label,
                self.code,
                self.stdout(),
                self.stderr()
            );
        }
        Ok(self)
    }

    fn text(&self, from: Stream) -> String {
        self.lines
            .iter()
            .filter(|l| l.from == from)
            .fold(String::new(), |mut all, l| {
                all.push_str(&l.text);
                all.push('\n');
                all
            })
    }
}

impl Running {
    /// Starts a program and captures both outputs. Its standard input is empty.
    pub fn start(label: &str, command: &mut Command) -> Result<Self> {
        Self::start_with(label, command, Stdio::null())
    }

    /// Starts a program with a file as its standard input.
    pub fn start_from(input: &Path, label: &str, command: &mut Command) -> Result<Self> {
        let input = File::open(input).with_context(|| format!("opening {}", input.display()))?;
        Self::start_with(label, command, input.into())
    }

    /// Starts a program that is told something later: see [`Running::tell`].
    pub fn start_told(label: &str, command: &mut Command) -> Result<Self> {
        Self::start_with(label, command, Stdio::piped())
    }

    fn start_with(label: &str, command: &mut Command, input: Stdio) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {label}: {command:?}"))?;
        let output = Arc::new(Output::default());
        let out = child
            .stdout
            .take()
            .map(|p| Box::new(p) as Box<dyn Read + Send>);
        let err = child
            .stderr
            .take()
            .map(|p| Box::new(p) as Box<dyn Read + Send>);
        for (from, pipe) in [(Stream::Out, out), (Stream::Err, err)] {
            let Some(pipe) = pipe else { continue };
            output.lock().open_streams += 1;
            let output = Arc::clone(&output);
            thread::spawn(move || collect(&output, from, pipe, started));
        }
        harness::add_program(label, &output);
        Ok(Self {
            label: label.to_owned(),
            child,
            started,
            output,
        })
    }

    /// Starts a program and waits for its end.
    pub fn run(label: &str, command: &mut Command, deadline: Duration) -> Result<Finished> {
        Self::start(label, command)?.finish(deadline)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line, from the program's beginning, of which `pick` makes something.
    pub fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut pick: impl FnMut(&Line) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + deadline;
        let mut seen = 0;
        let mut lines = self.output.lock();
        loop {
            while let Some(line) = lines.all.get(seen) {
                if let Some(found) = pick(line) {
                    return Ok(found);
                }
                seen += 1;
            }
            if lines.open_streams == 0 {
                bail!("{} ended before {what}", self.label);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{}: no {what} within {deadline:?}", self.label);
            }
            lines = self
                .output
                .changed
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the first line on standard output.
    pub fn first_line(&self, what: &str, deadline: Duration) -> Result<String> {
        self.wait_for(what, deadline, |l| {
            (l.from == Stream::Out).then(|| l.text.clone())
        })
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.output.lock().all.clone()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut();
        let input = input.with_context(|| format!("{} is told nothing", self.label))?;
        writeln!(input, "{line}").with_context(|| format!("telling {} something", self.label))
    }

    /// Sends a signal, by the name `kill` knows it by.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()?;
        if !status.success() {
            bail!("{}: could not be sent {name}", self.label);
        }
        Ok(())
    }

    /// Waits for its end; ends it at the deadline and fails.
    pub fn finish(mut self, deadline: Duration) -> Result<Finished> {
        let end = self.started + deadline;
        // Its outputs close when it ends, unless a child of its own still holds them; then the poll below sees it.
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} still runs after {deadline:?}", self.label);
            }
            let lines = self.output.lock();
            // An exit without a last line wakes nobody, so look at least every 20 ms.
            let wait = left.min(Duration::from_millis(20));
            drop(
                self.output
                    .changed
                    .wait_timeout(lines, wait)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        };
        Ok(self.report(status))
    }

    /// Ends it and tells what it wrote.
    pub fn kill(mut self) -> Result<Finished> {
        let _ = self.child.kill();
        let status = self.child.wait()?;
        Ok(self.report(status))
    }

    fn report(&self, status: ExitStatus) -> Finished {
        let took = self.started.elapsed();
        // The readers are at most a pipe's content behind; a grandchild may keep the pipe open for longer.
        let end = Instant::now() + Duration::from_millis(500);
        let mut lines = self.output.lock();
        while lines.open_streams > 0 && Instant::now() < end {
            lines = self
                .output
                .changed
                .wait_timeout(lines, Duration::from_millis(20))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Finished {
            label: self.label.clone(),
            code: status.code(),
            took,
            lines: lines.all.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls a condition that has no event to wait for (a file that appears, a counter that moves).
pub fn poll<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("no {what} within {deadline:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn collect(output: &Output, from: Stream, pipe: impl Read, started: Instant) {
    let mut reader = BufReader::new(pipe);
    let mut raw = Vec::new();
    while let Ok(n) = reader.read_until(b'\n', &mut raw) {
        if n == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&raw)
            .trim_end_matches(['\n', '\r'])
            .to_owned();
        output.lock().all.push(Line {
            at: started.elapsed(),
            from,
            text,
        });
        output.changed.notify_all();
        raw.clear();
    }
    output.lock().open_streams -= 1;
    output.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_line_is_found_as_it_comes_and_the_end_is_reported() {
        let running = Running::start(
            "sh",
            &mut shell("echo one; echo two >&2; exec cat /dev/null; exit 3"),
        )
        .unwrap();
        assert_eq!(
            running
                .first_line("greeting", Duration::from_secs(5))
                .unwrap(),
            "one"
        );
        let done = running.finish(Duration::from_secs(5)).unwrap();
        assert_eq!(
            (done.code, done.stdout().as_str(), done.stderr().as_str()),
            (Some(0), "one\n", "two\n")
        );
    }

    #[test]
    fn a_program_is_told_a_line_when_it_is_time() {
        let command = &mut shell("echo ready; read line; echo $line");
        let mut running = Running::start_told("sh", command).unwrap();
        running
            .first_line("readiness", Duration::from_secs(5))
            .unwrap();
        running.tell("go").unwrap();
        let done = running.finish(Duration::from_secs(5)).unwrap();
        assert_eq!(done.stdout(), "ready\ngo\n");
        let mut deaf = Running::start("sh", &mut shell("exit 0")).unwrap();
        assert!(deaf.tell("go").is_err());
    }

    #[test]
    fn a_missed_deadline_is_an_error_and_ends_the_program() {
        let running = Running::start("sleep", &mut shell("exec sleep 60")).unwrap();
        let pid = running.pid();
        assert!(
            running
                .wait_for("never", Duration::from_millis(10), |_| None::<()>)
                .is_err()
        );
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn an_early_end_is_told_apart_from_a_missed_deadline() {
        let running = Running::start("true", &mut shell("exit 7")).unwrap();
        let error = running
            .wait_for("line", Duration::from_secs(5), |_| None::<()>)
            .unwrap_err();
        assert!(error.to_string().contains("ended before"), "{error}");
        assert_eq!(
            running.finish(Duration::from_secs(5)).unwrap().code,
            Some(7)
        );
    }
}
