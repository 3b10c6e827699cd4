//! Where an endpoint's admission token comes from (design section 8).
//!
//! Tokens run out. So what an endpoint is given is not a token but a source of tokens, asked at the start, in the last quarter of a
//! token's time, and when a relay refuses the one it has.

use std::future::Future;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use byway_wire::relay::control::{AdmissionToken, MAX_TOKEN};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

/// How long a token may take: a program may have to ask a service, and a file may be on another machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a program wrote before it ended is in the pipe already.
const DRAIN: Duration = Duration::from_millis(250);
/// More than a token has is read, so that one that is too long is told from one that fits.
const READ: u64 = MAX_TOKEN as u64 + 1_024;

/// Where the token comes from by which relays admit this node. `Debug` shows no token.
#[derive(Clone)]
pub struct RelayToken(Source);

type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

#[derive(Clone)]
enum Source {
    Fixed(AdmissionToken),
    File(PathBuf),
    Command(String),
    Provider(Arc<dyn Fn() -> Answer + Send + Sync>),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayTokenError {
    /// It is empty, or longer than a relay takes.
    #[error("the admission token must have 1 to {MAX_TOKEN} bytes, and has {0}")]
    Length(usize),
    /// It is something else: a page of a login, the message of a program.
    #[error("what was given is no admission token: one has three parts, with dots between them")]
    Form,
    /// Its file cannot be read.
    #[error("cannot read the admission token from {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program that gives it failed.
    #[error("the command for the admission token failed: {0}")]
    Command(String),
    /// The program's own source failed.
    #[error("there is no admission token: {0}")]
    Provider(String),
    /// There was no answer for so long.
    #[error("no admission token came within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// What was to give it panicked.
    #[error("there is no admission token: what was to give it panicked")]
    Panicked,
}

impl RelayToken {
    /// This one, until it runs out.
    pub fn fixed(token: &str) -> Result<Self, RelayTokenError> {
        check(token).map(|token| Self(Source::Fixed(token)))
    }
    /// What a file holds when it is asked for; somebody else keeps it fresh.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }
    /// What a command writes on its standard output. It is run by `sh -c`, in a process group of its own (it can ask nobody on the
    /// terminal), and has 20 s; then whatever it has begun is killed.
    pub fn command(command: impl Into<String>) -> Self {
        Self(Source::Command(command.into()))
    }
    /// What a function gives within 20 s; an error is a sentence for a person.
    pub fn provider<F, A>(provider: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, String>> + Send + 'static,
    {
        Self(Source::Provider(Arc::new(move || Box::pin(provider()))))
    }

    pub(crate) async fn fetch(&self) -> Result<AdmissionToken, RelayTokenError> {
        self.fetch_within(PATIENCE).await
    }

    /// Whatever the source does, there is an answer in that time: who waits for it has no other way to ask again. So it has a task of its
    /// own, which may panic, or block its thread.
    async fn fetch_within(&self, patience: Duration) -> Result<AdmissionToken, RelayTokenError> {
        if let Source::Fixed(token) = &self.0 {
            return Ok(token.clone());
        }
        let mut asking = JoinSet::new();
        asking.spawn(self.0.clone().ask());
        match tokio::time::timeout(patience, asking.join_next()).await {
            Ok(Some(Ok(answer))) => check(&answer?),
            Ok(Some(Err(_)) | None) => Err(RelayTokenError::Panicked),
            Err(_) => Err(RelayTokenError::Late(patience)),
        }
    }
}

impl Source {
    async fn ask(self) -> Result<String, RelayTokenError> {
        match self {
            Self::Fixed(token) => Ok(token.as_str().to_owned()),
            Self::File(path) => {
                let file = path.clone();
                let read = tokio::task::spawn_blocking(move || read(&file)).await;
                let read = read.map_err(|_| RelayTokenError::Panicked)?;
                read.map_err(|source| RelayTokenError::File { path, source })
            }
            Self::Command(command) => run(&command).await.map_err(RelayTokenError::Command),
            Self::Provider(provider) => provider().await.map_err(RelayTokenError::Provider),
        }
    }
}

impl std::fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Source::Fixed(_) => f.write_str("RelayToken(..)"),
            Source::File(path) => write!(f, "RelayToken({})", path.display()),
            Source::Command(_) => f.write_str("RelayToken(command)"),
            Source::Provider(_) => f.write_str("RelayToken(provider)"),
        }
    }
}

/// What has the form of a token: a relay would refuse anything else, and what a source gives once by mistake must not get that far.
fn check(text: &str) -> Result<AdmissionToken, RelayTokenError> {
    let text = text.trim();
    let token = AdmissionToken::new(text.to_owned()).ok_or(RelayTokenError::Length(text.len()))?;
    // RFC 7515, section 7.1: header, payload and signature, each in base64url without padding.
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_base64url);
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() == 3 && parts.into_iter().all(is_part) {
        Ok(token)
    } else {
        Err(RelayTokenError::Form)
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = Vec::new();
    std::fs::File::open(file)?
        .take(READ)
        .read_to_end(&mut text)?;
    Ok(as_text(text))
}

/// Its words on standard error are for whoever runs us, and go where ours go. The token is there when the shell that runs it ends,
/// whatever it leaves behind that holds its standard output.
async fn run(command: &str) -> Result<String, String> {
    let mut sh = Command::new("sh");
    sh.args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    sh.process_group(0);
    let mut child = sh.spawn().map_err(|error| error.to_string())?;
    let mut group = Group::of(&child);
    let mut out = child.stdout.take().ok_or("it has no output")?;
    let mut text = Vec::new();
    let status = tokio::select! {
        read = read_some(&mut out, &mut text) => {
            read.map_err(|error| error.to_string())?;
            if text.len() as u64 >= READ {
                // It is too long already, and the program may never end; dropped, it is killed.
                return Ok(as_text(text));
            }
            child.wait().await
        }
        status = child.wait() => status,
    };
    // Its number may be another's from now on, and what it left running it meant to.
    group.release();
    let status = status.map_err(|error| error.to_string())?;
    // An error here is the end of what it wrote.
    let _ = tokio::time::timeout(DRAIN, read_some(&mut out, &mut text)).await;
    if status.success() {
        Ok(as_text(text))
    } else {
        Err(status.to_string())
    }
}

/// Reads to the end, or until it is too much. Nothing is lost if it is dropped before.
async fn read_some(from: &mut ChildStdout, text: &mut Vec<u8>) -> std::io::Result<()> {
    while (text.len() as u64) < READ && from.read_buf(text).await? > 0 {}
    Ok(())
}

/// What is no text is no token either.
fn as_text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The processes of a command: killed with the shell that began them if they are given up, for the shell is not the one that hangs.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    #[cfg(unix)]
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            leader: id.and_then(rustix::process::Pid::from_raw),
        }
    }
    #[cfg(not(unix))]
    fn of(_: &Child) -> Self {
        Self {}
    }
    fn release(&mut self) {
        #[cfg(unix)]
        {
            self.leader = None;
        }
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // It may have ended by itself a moment ago.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fetch(token: RelayToken) -> Result<String, String> {
        let token = token.fetch().await;
        token
            .map(|t| t.as_str().to_owned())
            .map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_token_comes_from_where_it_is_said_to() {
        let path = std::env::temp_dir().join(format!("byway-token-{}", std::process::id()));
        std::fs::write(&path, "from.a.file\n").unwrap();
        assert_eq!(fetch(RelayToken::file(&path)).await.unwrap(), "from.a.file");
        std::fs::remove_file(&path).unwrap();
        let gone = fetch(RelayToken::file(&path)).await.unwrap_err();
        assert!(gone.contains(&path.display().to_string()), "{gone}");
        let printed = fetch(RelayToken::command("echo from.a.command; # b")).await;
        assert_eq!(printed.unwrap(), "from.a.command");
        let given = RelayToken::provider(|| async { Ok("from.us.all".to_owned()) });
        assert_eq!(fetch(given).await.unwrap(), "from.us.all");
        assert_eq!(
            fetch(RelayToken::fixed(" it.is.fixed ").unwrap())
                .await
                .unwrap(),
            "it.is.fixed"
        );
    }

    #[tokio::test]
    async fn what_is_no_token_is_an_error_that_says_why() {
        assert!(RelayToken::fixed(" ").is_err());
        assert!(RelayToken::fixed(&"x".repeat(MAX_TOKEN + 1)).is_err());
        for other in [
            "<html>",
            "a.b",
            "a.b.c.d",
            "a..c",
            ".b.c",
            "a.b.",
            "a.b=.c",
            "a.b c.d",
            "a.b.\u{e9}",
        ] {
            let error = RelayToken::fixed(other).unwrap_err();
            assert!(matches!(error, RelayTokenError::Form), "{other}: {error}");
        }
        let page = fetch(RelayToken::command("echo '<html>'"))
            .await
            .unwrap_err();
        assert!(page.contains("three parts"), "{page}");
        let failed = fetch(RelayToken::command("exit 3")).await.unwrap_err();
        assert!(failed.contains('3'), "{failed}");
        assert!(fetch(RelayToken::command("true")).await.is_err());
        let endless = fetch(RelayToken::command("yes")).await.unwrap_err();
        assert!(endless.contains("bytes"), "{endless}");
        let refused = RelayToken::provider(|| async { Err("log in first".to_owned()) });
        assert!(fetch(refused).await.unwrap_err().contains("log in first"));
        let shown = format!("{:?}", RelayToken::fixed("eyJ.eyJ.c2ln").unwrap());
        assert!(!shown.contains("eyJ"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_command_that_hangs_leaves_no_process_behind() {
        let dir = tempfile::tempdir().unwrap();
        let held = dir.path().join("held");
        let made = Command::new("mkfifo").arg(&held).status().await.unwrap();
        assert!(made.success());
        let mut holders = tokio::net::unix::pipe::OpenOptions::new()
            .open_receiver(&held)
            .unwrap();
        // Two that hold it, and the shell waits for both.
        let hangs = "echo up >&3; sleep 300 & sleep 300; echo a.b.c";
        let hangs = RelayToken::command(format!("exec 3>'{}'; {hangs}", held.display()));
        let error = hangs.fetch_within(Duration::from_secs(2)).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("within 2 s"), "{error}");
        let mut said = String::new();
        let ended = holders.read_to_string(&mut said);
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert!(ended.is_ok(), "somebody holds it still");
        assert_eq!(said, "up\n");
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_is_not_waited_for() {
        let token = RelayToken::command("sleep 6 2>/dev/null & echo a.b.c");
        let token = token.fetch_within(Duration::from_secs(4)).await;
        assert_eq!(token.unwrap().as_str(), "a.b.c");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn there_is_an_answer_whatever_a_provider_does() {
        let patience = Duration::from_millis(200);
        let within = |token: RelayToken| async move { token.fetch_within(patience).await };
        let hangs = RelayToken::provider(std::future::pending);
        let late = within(hangs).await.unwrap_err();
        assert!(matches!(late, RelayTokenError::Late(_)), "{late}");
        let panics = RelayToken::provider(|| async { panic!("out of tokens") });
        let error = within(panics).await.unwrap_err();
        assert!(matches!(error, RelayTokenError::Panicked), "{error}");
        // Before it has given a future, even; and one that blocks, until the test is over.
        let (over, blocked) = std::sync::mpsc::channel::<()>();
        let blocked = std::sync::Mutex::new(blocked);
        let blocks = RelayToken::provider(move || {
            let ended = blocked.lock().unwrap().recv();
            async move { Err(format!("{ended:?}")) }
        });
        let late = within(blocks).await.unwrap_err();
        assert!(matches!(late, RelayTokenError::Late(_)), "{late}");
        drop(over);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_cannot_be_read_to_its_end_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nobody-writes");
        let made = Command::new("mkfifo").arg(&file).status().await.unwrap();
        assert!(made.success());
        let token = RelayToken::file(&file);
        let late = token.fetch_within(Duration::from_millis(200)).await;
        assert!(matches!(late, Err(RelayTokenError::Late(_))));
        // A runtime waits for its threads: this one has its end of file now.
        drop(std::fs::File::options().write(true).open(&file).unwrap());
    }
}
