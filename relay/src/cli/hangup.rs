//! SIGHUP, which ends a process that does not listen for it.
//!
//! `systemctl reload` by habit, a closed terminal, a rotated log: none of them means that links are to be cut. What can change while a
//! relay runs is found by looking every few seconds anyway; only certificate files are looked at once, by those who watch them.

use tokio::signal::unix::{SignalKind, signal};

/// Listens from now on. Must be called inside a tokio runtime, and listens for as long as that lasts.
pub(super) fn listen() -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(
                "SIGHUP: looking at the files now, where there are any; the relay runs on"
            );
        }
    });
    Ok(())
}
