//! Where an endpoint's admission token comes from (design section 8).
//!
//! Tokens run out. So what an endpoint is given is not a token but a source of tokens, asked at the start, in the last quarter of a
//! token's time, and when a relay refuses the one it has.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use byway_wire::relay::control::{AdmissionToken, MAX_TOKEN};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a program may take for a token: it may have to ask a service.
const PATIENCE: Duration = Duration::from_secs(20);
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
    /// What a command writes on its standard output. It is run by `sh -c`, and has 20 s.
    pub fn command(command: impl Into<String>) -> Self {
        Self(Source::Command(command.into()))
    }
    /// What a function gives; an error is a sentence for a person.
    pub fn provider<F, A>(provider: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, String>> + Send + 'static,
    {
        Self(Source::Provider(Arc::new(move || Box::pin(provider()))))
    }

    pub(crate) async fn fetch(&self) -> Result<AdmissionToken, RelayTokenError> {
        match &self.0 {
            Source::Fixed(token) => Ok(token.clone()),
            Source::File(path) => {
                let about = |source| RelayTokenError::File {
                    path: path.clone(),
                    source,
                };
                let file = tokio::fs::File::open(path).await.map_err(about)?;
                let mut text = String::new();
                file.take(READ)
                    .read_to_string(&mut text)
                    .await
                    .map_err(about)?;
                check(&text)
            }
            Source::Command(command) => match tokio::time::timeout(PATIENCE, run(command)).await {
                Ok(Ok(text)) => check(&text),
                Ok(Err(why)) => Err(RelayTokenError::Command(why)),
                Err(_) => {
                    let why = format!("it took longer than {} s", PATIENCE.as_secs());
                    Err(RelayTokenError::Command(why))
                }
            },
            Source::Provider(provider) => {
                let text = provider().await.map_err(RelayTokenError::Provider)?;
                check(&text)
            }
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

/// Its words on standard error are for whoever runs us, and go where ours go.
async fn run(command: &str) -> Result<String, String> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    if let Some(out) = child.stdout.take() {
        let read = out.take(READ).read_to_string(&mut text).await;
        read.map_err(|error| error.to_string())?;
    }
    if text.len() as u64 == READ {
        // It is too long already, and the program may never end; dropped, it is killed.
        return Ok(text);
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() {
        Ok(text)
    } else {
        Err(status.to_string())
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
}
