//! The control socket: how `byway-relay drain` reaches a relay on the same machine.
//!
//! A socket in the file system, for the user the relay runs as and for root. A request is one line, `drain` or `drain SECONDS`; the
//! answer is lines that say how many nodes are left, for a person, until the relay is gone.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::hub::Hub;

/// More than any request has, in bytes.
const MAX_REQUEST: u64 = 64;
/// For the request; the answer takes as long as it takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Callers at once.
const AT_ONCE: usize = 8;
/// How often the answer goes on.
const EVERY: Duration = Duration::from_secs(1);
/// Longest time that nodes can be given.
const LONGEST: u64 = 3_600;

/// Whether the relay was told to stop, and within what time.
#[derive(Debug)]
pub(crate) struct Told(watch::Sender<Option<Duration>>);

impl Default for Told {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Told {
    pub(crate) async fn asked(&self) -> Duration {
        let mut told = self.0.subscribe();
        match told.wait_for(Option::is_some).await {
            Ok(within) => within.unwrap_or_default(),
            // The sender is `self`.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The socket, bound. Its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot make the control socket {}", path.display());
        remove_dead(path).with_context(failed)?;
        let listener = UnixListener::bind(path).with_context(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers for ever. Dropping the future ends it.
    pub(crate) async fn serve(self, hub: Arc<Hub>, told: Arc<Told>, usual: Duration) {
        let mut answering = JoinSet::new();
        loop {
            while answering.len() >= AT_ONCE {
                answering.join_next().await;
            }
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept fails at the control socket");
                    tokio::time::sleep(EVERY).await;
                    continue;
                }
            };
            let (hub, told) = (Arc::clone(&hub), Arc::clone(&told));
            answering.spawn(async move {
                if let Err(error) = answer(stream, &hub, &told, usual).await {
                    tracing::debug!(%error, "at the control socket");
                }
            });
            while answering.try_join_next().is_some() {}
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Gone already, or not ours to remove: nothing depends on it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The socket of a relay that was killed stands in the way; one at which somebody listens, or another file, is left alone.
fn remove_dead(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::other("there is a file of that name"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other("a relay that runs listens there")),
        // Any other error may be a relay that is busy, or another user's.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

async fn answer(mut stream: UnixStream, hub: &Hub, told: &Told, usual: Duration) -> io::Result<()> {
    // The file's mode says the same, but not for the moment before it was set.
    let caller = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if caller != 0 && caller != own {
        return stream
            .write_all(b"refused: for the user the relay runs as, and for root\n")
            .await;
    }
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(MAX_REQUEST));
    tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await??;
    let within = match request(line.trim()) {
        Some(Some(seconds)) => Duration::from_secs(seconds),
        Some(None) => usual,
        None => {
            return write
                .write_all(b"refused: say 'drain', or 'drain SECONDS' (0 to 3600)\n")
                .await;
        }
    };
    // Who is told twice keeps to the first.
    let first = told
        .0
        .send_if_modified(|told| told.is_none().then(|| *told = Some(within)).is_some());
    if !first {
        write
            .write_all(b"it was told before, and keeps to the time that it was given then\n")
            .await?;
    }
    loop {
        let left = format!("{} links left\n", hub.welcomed());
        write.write_all(left.as_bytes()).await?;
        tokio::time::sleep(EVERY).await;
    }
}

/// The seconds that are named, if any; none if it is no request.
fn request(line: &str) -> Option<Option<u64>> {
    let mut words = line.split_ascii_whitespace();
    let (drain, seconds, more) = (words.next()?, words.next(), words.next());
    if drain != "drain" || more.is_some() {
        return None;
    }
    match seconds.map(str::parse) {
        None => Some(None),
        Some(Ok(seconds)) if seconds <= LONGEST => Some(Some(seconds)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_drain_with_or_without_seconds() {
        assert_eq!(request("drain"), Some(None));
        assert_eq!(request("drain 0"), Some(Some(0)));
        assert_eq!(request("drain 3600"), Some(Some(3_600)));
        for other in ["", "stop", "drain x", "drain -1", "drain 3601", "drain 1 2"] {
            assert_eq!(request(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_relay_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = ControlSocket::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = format!("{:#}", ControlSocket::bind(&path).unwrap_err());
        assert!(error.contains("a relay that runs"), "{error}");
        drop(bound);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        let error = format!("{:#}", ControlSocket::bind(&path).unwrap_err());
        assert!(error.contains("a file of that name"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
