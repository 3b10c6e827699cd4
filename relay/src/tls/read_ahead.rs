//! Reads from the kernel as much as there is.
//!
//! rustls asks for 4 KiB at a time, of records that have up to 16 KiB. Each of these small reads is a system call, and may have the kernel tell the
//! other side that there is room again: more packets than the data itself needs. So what is there is read at once, and rustls is served from that.
//!
//! The memory is held only while there is something in it: of ten thousand links most are idle.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::stream::write_through;

/// Most that is read at once, in bytes: four records. What the kernel merges is not longer.
const MOST: usize = 64 * 1024;

/// See the module. What is written goes through.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    inner: S,
    ahead: BytesMut,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            ahead: BytesMut::new(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, ahead } = self.get_mut();
        if ahead.is_empty() {
            ahead.reserve(MOST);
            let read = poll_read_buf(Pin::new(inner), cx, ahead);
            if !matches!(read, Poll::Ready(Ok(n)) if n > 0) {
                *ahead = BytesMut::new();
            }
            ready!(read)?;
        }
        let n = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..n]);
        ahead.advance(n);
        Poll::Ready(Ok(()))
    }
}

write_through!(ReadAhead);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_read_at_once_and_nothing_is_kept_while_there_is_nothing() {
        let (mut far, near) = tokio::io::duplex(2 * MOST);
        let mut near = ReadAhead::new(near);
        let sent: Vec<u8> = (0..MOST + 10).map(|n| n as u8).collect();
        far.write_all(&sent).await.unwrap();
        let mut got = vec![0; 4_096];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(near.ahead.len(), MOST - 4_096);
        let mut rest = vec![0; sent.len() - got.len()];
        near.read_exact(&mut rest).await.unwrap();
        got.extend(rest);
        assert!(got == sent);
        // It waits for more, and holds nothing meanwhile.
        let mut byte = [0];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let waiting = Pin::new(&mut near).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
        assert!(waiting.is_pending());
        assert_eq!(near.ahead.capacity(), 0);
        near.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        far.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
        drop(far);
        assert_eq!(near.read(&mut byte).await.unwrap(), 0, "its end is the end");
    }
}
