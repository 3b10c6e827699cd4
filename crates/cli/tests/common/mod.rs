//! The real `byway` on loopback: a relay in this process, everything else as programs.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use byway_relay::{Server, ServerConfig};
use tempfile::TempDir;

/// Nothing here takes long; whoever waits longer has found a fault.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// A relay, and the runtime it runs on.
pub struct Relay {
    runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    pub url: String,
}

impl Relay {
    pub fn start() -> Self {
        Self::with(ServerConfig::dev())
    }

    pub fn with(config: ServerConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(Server::start(config)).unwrap();
        let url = server.url().to_string();
        Self {
            runtime,
            server: Some(server),
            url,
        }
    }

    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

/// A folder for keys, tickets and aliases.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// `byway` with this home and none of our environment.
    pub fn byway(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_byway"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let proxy = name.to_ascii_lowercase().ends_with("_proxy");
            if name.starts_with("BYWAY_") || name == "RUST_LOG" || proxy {
                command.env_remove(name);
            }
        }
        command
            .env("BYWAY_HOME", self.path())
            .env("NO_COLOR", "1")
            // What a test sends stays on this machine.
            .env("BYWAY_NO_PORT_MAPPING", "1")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        finish(self.byway(args).spawn_piped())
    }

    /// Starts an agent and waits for its ticket.
    pub fn agent(&self, relay: &str, args: &[&str]) -> Agent {
        let mut all = vec![
            "agent",
            "--relay",
            relay,
            "--json",
            "--ticket-file",
            "ticket",
        ];
        all.extend(args);
        let mut running = Running::start(self.byway(&all));
        let line = running.line_with("\"event\":\"ticket\"");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        Agent {
            ticket: json["ticket"].as_str().unwrap().to_owned(),
            peer: format!("@{}", self.file("ticket").display()),
            running,
        }
    }
}

pub struct Agent {
    pub ticket: String,
    /// As a PEER argument.
    pub peer: String,
    pub running: Running,
}

pub trait SpawnPiped {
    fn spawn_piped(&mut self) -> Child;
}
impl SpawnPiped for Command {
    fn spawn_piped(&mut self) -> Child {
        self.stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Requires the exit code, and each word (or one of its alternatives, split at `|`) in the message.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        let message = self.stderr.to_lowercase();
        for word in words {
            assert!(
                word.split('|').any(|word| message.contains(word)),
                "nothing of {word:?} in {self:#?}"
            );
        }
        self
    }

    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}

/// Waits for the end, and reads everything it says meanwhile.
pub fn finish(mut child: Child) -> Done {
    let mut out = child.stdout.take().unwrap();
    let mut err = child.stderr.take().unwrap();
    let stdout = std::thread::spawn(move || {
        let mut text = Vec::new();
        out.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let stderr = std::thread::spawn(move || {
        let mut text = Vec::new();
        err.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let code = wait(&mut child);
    Done {
        code,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// The exit code; kills what does not end.
fn wait(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it does not end");
        }
        // The standard library has no wait with a deadline.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program that goes on; killed when dropped.
pub struct Running {
    pub child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn_piped();
        let (send, lines) = mpsc::channel();
        let out = child.stdout.take().unwrap();
        let err = child.stderr.take().unwrap();
        let also = send.clone();
        std::thread::spawn(move || forward_lines(out, &send));
        std::thread::spawn(move || forward_lines(err, &also));
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// The next line, of either output, that contains this.
    #[track_caller]
    pub fn line_with(&mut self, part: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {part:?} among {:#?}", self.seen),
            }
        }
    }

    /// Sends a signal by name and returns the exit code.
    #[track_caller]
    pub fn signal(&mut self, name: &str) -> Option<i32> {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
        wait(&mut self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward_lines(from: impl Read, to: &mpsc::Sender<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        if to.send(line).is_err() {
            return;
        }
    }
}
