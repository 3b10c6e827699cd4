//! Parts without which a relay is none: timers, shards, whoever follows the admission files.
//!
//! A panic ends the task or the thread it happens in and nothing else, so that a relay would go on without, say, its timers: it would
//! answer, take nodes, and cut nobody whose token has run out. Whoever runs a relay waits for such a failure, and ends it.

use std::sync::Arc;

use tokio::sync::watch;

/// Knows whether a vital part has failed, and which was the first.
#[derive(Debug)]
pub(crate) struct Vitals {
    failed: watch::Sender<Option<Arc<str>>>,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            failed: watch::Sender::new(None),
        }
    }
}

impl Vitals {
    /// Notices if what holds the result panics.
    pub(crate) fn sentinel(self: &Arc<Self>, part: impl Into<Arc<str>>) -> Sentinel {
        Sentinel {
            vitals: Arc::clone(self),
            part: part.into(),
        }
    }
    /// Notices if the future panics. What becomes of the panic is its task's affair.
    pub(crate) fn guard<F: Future>(
        self: &Arc<Self>,
        part: &'static str,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let sentinel = self.sentinel(part);
        async move {
            let _sentinel = sentinel;
            future.await
        }
    }
    pub(crate) fn have_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }
    /// Waits until one has failed, and says which.
    pub(crate) async fn failure(&self) -> Arc<str> {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(part) = &*failed.borrow_and_update() {
                return Arc::clone(part);
            }
            if failed.changed().await.is_err() {
                // Its sender is here; but should it not be, nothing fails any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Held by a vital part while it works.
#[derive(Debug)]
pub(crate) struct Sentinel {
    vitals: Arc<Vitals>,
    part: Arc<str>,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Otherwise it has ended, or was told to.
        if !std::thread::panicking() {
            return;
        }
        tracing::error!(part = %self.part, "a part of the relay has failed");
        self.vitals.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| Arc::clone(&self.part));
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_has_failed_and_one_that_ends_or_is_aborted_has_not() {
        let vitals = Arc::<Vitals>::default();
        tokio::spawn(vitals.guard("ends", async {})).await.unwrap();
        let aborted = tokio::spawn(vitals.guard("aborted", std::future::pending::<()>()));
        tokio::task::yield_now().await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        assert!(!vitals.have_failed());
        let panics = vitals.guard("panics", async {
            tokio::task::yield_now().await;
            panic!("as it should");
        });
        let task: tokio::task::JoinHandle<()> = tokio::spawn(panics);
        assert_eq!(&*vitals.failure().await, "panics");
        assert!(task.await.unwrap_err().is_panic());
        assert!(vitals.have_failed());
        // The first is what counts, threads too.
        let sentinel = vitals.sentinel("thread");
        let thread = std::thread::spawn(move || {
            let _sentinel = sentinel;
            panic!("as it should");
        });
        assert!(thread.join().is_err());
        assert_eq!(&*vitals.failure().await, "panics");
    }
}
