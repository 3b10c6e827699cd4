//! A web server and a web client, as small as HTTP/1.1 lets them be: what a developer would run behind an agent, and a
//! browser in front of a forward.
//!
//! `GET /bytes/N` answers N bytes of [`Content`]; anything else is 404. One request a connection.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::content::Content;

/// Longest head of a request or an answer.
const MAX_HEAD: usize = 8 * 1024;
/// One write or read of a body.
const CHUNK: usize = 256 * 1024;
/// A download that makes no progress for this long has failed.
const STALL: Duration = Duration::from_secs(10);

/// Serves on a free loopback port until the runtime ends.
pub(super) async fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Err(error) = answer(stream).await {
                    tracing::debug!(%error, "a request to the demo's web server failed");
                }
            });
        }
    });
    Ok(addr)
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (head, _) = read_head(&mut stream).await?;
    let size = head
        .strip_prefix("GET /bytes/")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(size, _)| size.parse::<u64>().ok());
    let Some(size) = size else {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut content = Content::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        content.fill(&mut buffer[..take]);
        stream.write_all(&buffer[..take]).await?;
        left -= take as u64;
    }
    stream.shutdown().await
}

/// A finished download.
#[derive(Debug)]
pub(super) struct Download {
    /// From the first to the last byte of the body.
    pub(super) took: Duration,
    /// From the request to the first byte of the answer.
    pub(super) first_byte: Duration,
    /// Of the body.
    pub(super) sha256: [u8; 32],
}

/// Gets `size` bytes; `progress` hears of every read.
pub(super) async fn get(
    addr: SocketAddr,
    size: u64,
    progress: impl Fn(u64),
) -> io::Result<Download> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET /bytes/{size} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (head, body) = within(read_head(&mut stream)).await?;
    let first_byte = began.elapsed();
    if !head.starts_with("HTTP/1.1 200 ") {
        let line = head.lines().next().unwrap_or_default().to_owned();
        return Err(io::Error::other(format!("the web server says {line:?}")));
    }
    let body_began = Instant::now();
    let mut hash = Sha256::new();
    hash.update(&body);
    let mut received = body.len() as u64;
    progress(received);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = within(stream.read(&mut buffer)).await?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        received += read as u64;
        progress(read as u64);
    }
    if received != size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{received} bytes of {size} arrived"),
        ));
    }
    Ok(Download {
        took: body_began.elapsed(),
        first_byte,
        sha256: hash.finalize().into(),
    })
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL, step).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing arrived for {STALL:?}"),
        ))
    })
}

/// Reads up to the empty line; returns the head and what came behind it.
async fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP head"))?;
            return Ok((head, body));
        }
        if bytes.len() > MAX_HEAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an HTTP head too long",
            ));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[tokio::test]
    async fn what_is_served_has_the_known_checksum() {
        let addr = serve().await.unwrap();
        for size in [0, 1, 1_000_003] {
            let download = get(addr, size, |_| {}).await.unwrap();
            assert_eq!(download.sha256, super::super::content::sha256(size));
        }
    }
}
