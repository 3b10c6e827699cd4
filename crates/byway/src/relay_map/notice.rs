//! When a file may have changed.
//!
//! On Linux the kernel says so (inotify), of the very file that is there now: written, touched, renamed away, written over by
//! another. So an idle node need not wake up to look. It still does once a minute, for what the kernel does not see: a disk of
//! another machine, a symbolic link on the way that points elsewhere. Where nothing is watched (there is no such file now, or
//! the system is another one) it looks every ten seconds.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Beside the kernel's word.
const SELDOM: Duration = Duration::from_secs(60);
/// Without it.
const OFTEN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Notice {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    kernel: Option<linux::Inotify>,
    /// The kernel watches the file.
    armed: bool,
}

impl Notice {
    /// Needs a tokio runtime.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            #[cfg(target_os = "linux")]
            kernel: linux::Inotify::new()
                .map_err(
                    |error| tracing::debug!(%error, "no word from the kernel on changed files"),
                )
                .ok(),
            armed: false,
        }
    }

    /// What happens to the file from now on is noticed. It may be another file than before. Walks the path, which may hang: not
    /// for a thread on which others wait.
    pub(super) fn arm(&mut self) {
        #[cfg(target_os = "linux")]
        {
            let kernel = self.kernel.as_mut();
            self.armed = kernel.is_some_and(|kernel| kernel.watch(&self.path).is_ok());
        }
    }

    #[cfg(test)]
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Waits until the file may be another one.
    pub(super) async fn wait(&mut self) {
        let look = tokio::time::sleep(if self.armed { SELDOM } else { OFTEN });
        #[cfg(target_os = "linux")]
        if let Some(kernel) = self.kernel.as_mut().filter(|_| self.armed) {
            return tokio::select! {
                () = kernel.news() => {}
                () = look => {}
            };
        }
        look.await;
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};
    use tokio::io::unix::AsyncFd;

    /// Watches one file.
    #[derive(Debug)]
    pub(super) struct Inotify {
        inotify: AsyncFd<OwnedFd>,
        watched: Option<i32>,
    }

    impl Inotify {
        pub(super) fn new() -> io::Result<Self> {
            let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            // What the lint warns of cannot happen to an OwnedFd, and the function's successor is unsafe.
            #[expect(
                deprecated,
                reason = "an owned descriptor stays open as long as it is registered"
            )]
            let inotify = AsyncFd::new(inotify)?;
            Ok(Self {
                inotify,
                watched: None,
            })
        }

        /// Watches what is at this path now, and no longer what was.
        pub(super) fn watch(&mut self, path: &Path) -> io::Result<()> {
            let flags = WatchFlags::MODIFY
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::ATTRIB
                | WatchFlags::MOVE_SELF
                | WatchFlags::DELETE_SELF;
            let new = add_watch(self.inotify.get_ref(), path, flags)?;
            if let Some(old) = self.watched.replace(new)
                && old != new
            {
                // It went by itself if the file is no more.
                let _ = remove_watch(self.inotify.get_ref(), old);
            }
            Ok(())
        }

        /// Waits for word of anything.
        pub(super) async fn news(&mut self) {
            let mut words = [0u8; 4096];
            let mut heard = false;
            loop {
                let Ok(mut ready) = self.inotify.readable().await else {
                    return std::future::pending().await;
                };
                // All that is said: one look is enough.
                while let Ok(Ok(_)) = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut words)?)) {
                    heard = true;
                }
                if heard {
                    return;
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Far less than a look by the clock.
    const SOON: Duration = Duration::from_secs(5);

    /// Waits until all that was said is heard, and the file is watched.
    async fn at_rest(notice: &mut Notice) {
        loop {
            notice.arm();
            assert!(notice.armed);
            let said = tokio::time::timeout(Duration::from_millis(50), notice.wait()).await;
            if said.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_noticed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("map"), dir.path().join("new"));
        std::fs::write(&file, "one").unwrap();
        let mut notice = Notice::new(&file);
        for round in 0..3 {
            at_rest(&mut notice).await;
            std::fs::write(&file, format!("in place {round}")).unwrap();
            tokio::time::timeout(SOON, notice.wait()).await.unwrap();
            at_rest(&mut notice).await;
            std::fs::write(&other, format!("renamed {round}")).unwrap();
            std::fs::rename(&other, &file).unwrap();
            tokio::time::timeout(SOON, notice.wait()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_happens_beside_the_file_wakes_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("map");
        std::fs::write(&file, "one").unwrap();
        let mut notice = Notice::new(&file);
        at_rest(&mut notice).await;
        std::fs::write(dir.path().join("other"), "noise").unwrap();
        std::fs::read(&file).unwrap();
        let said = tokio::time::timeout(Duration::from_millis(50), notice.wait()).await;
        assert!(said.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_watched_when_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("map");
        let mut notice = Notice::new(&file);
        notice.arm();
        assert!(!notice.armed);
        std::fs::write(&file, "one").unwrap();
        notice.arm();
        assert!(notice.armed);
    }
}
