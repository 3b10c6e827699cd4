//! The command as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use byway_wire::RelayUrl;

use super::SOON;

/// The command, in an environment that sets nothing for it.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_byway-relay"));
    command.args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BYWAY_RELAY_")) {
        command.env_remove(name);
    }
    command
}

/// What became of a command that ends by itself.
pub(crate) fn output(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// A relay that runs. It ends with the test, whatever becomes of that.
pub(crate) struct Running {
    child: Child,
    out: Receiver<String>,
    log: Option<Receiver<String>>,
}

impl Running {
    /// A relay whose log nobody wants.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(command(args).stderr(Stdio::null()))
    }
    /// A relay whose log is read.
    pub(crate) fn logging(args: &[&str]) -> Self {
        Self::spawn(command(args).stderr(Stdio::piped()))
    }
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        Self {
            out: lines(child.stdout.take().unwrap()),
            log: child.stderr.take().map(lines),
            child,
        }
    }

    /// What it prints once it is ready.
    #[track_caller]
    pub(crate) fn url(&self) -> RelayUrl {
        let line = self.out.recv_timeout(SOON).expect("it is ready");
        line.parse().unwrap()
    }
    /// The next line of its log.
    #[track_caller]
    pub(crate) fn log(&self) -> String {
        let log = self.log.as_ref().unwrap();
        log.recv_timeout(SOON).expect("it logs")
    }
    /// The lines of its log up to the next one with this in it.
    #[track_caller]
    pub(crate) fn log_until(&self, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines
            .last()
            .is_some_and(|line: &String| line.contains(part))
        {
            lines.push(self.log());
        }
        lines
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
    /// How it ended, and what it had printed that was not read, if it does end within what systemd and people are ready to wait.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> (Option<i32>, Vec<String>) {
        let deadline = Instant::now() + SOON * 2;
        let mut rest = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.out.recv_timeout(left) {
                Ok(line) => rest.push(line),
                // It holds its output open for as long as it lives.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
        (self.child.wait().unwrap().code(), rest)
    }
    #[track_caller]
    pub(crate) fn terminated(&mut self) -> (Option<i32>, Vec<String>) {
        self.signal("-TERM");
        self.ended()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, where a test was content with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(from).lines().map_while(Result::ok);
        // Read to the end, or a relay that logs on would be held up.
        lines.for_each(|line| _ = send.send(line));
    });
    receive
}
