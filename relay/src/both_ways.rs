//! How a link of either sort runs: it is read and written at once until one side ends it, and its last words are sent.

use std::future::Future;
use std::time::Duration;

use crate::outbox::Outbox;

/// How long a link's last words may take to arrive.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// How the reading of a link ended.
pub(crate) enum ReadEnd {
    /// Nobody is there any more: nothing need be said.
    Broken,
    /// The relay refuses what it read, and has said so into the outbox.
    Refused,
}

/// Reads and writes until either ends, or until the relay has no more to say.
pub(crate) async fn both_ways(
    read: impl Future<Output = ReadEnd>,
    write: impl Future<Output = ()>,
    outbox: &Outbox,
) {
    tokio::pin!(read, write);
    tokio::select! {
        () = &mut write => return,
        end = &mut read => match end {
            ReadEnd::Broken => return,
            ReadEnd::Refused => {}
        },
        () = outbox.finished() => {}
    }
    // Its last words are in the outbox. The relay has forgotten the link, so a node that does not take them, or takes them byte
    // by byte, must not keep it: no limit counts it any more.
    let _ = tokio::time::timeout(LAST_WORDS, write).await;
}
