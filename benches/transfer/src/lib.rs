//! The work that Byway and its peers are compared by: so many bytes on one stream, from the one who listens to the one who came.
//!
//! Both programs of a comparison run this very code over their own library's connection, so what differs is the library.
//! It is driven from outside, line by line, so that whoever measures can read clocks between the parts:
//!
//! ```text
//! listen                                      fetch
//!   {"address": ...}
//!                                               warms up
//!   {"sent": ..., "path": "relay"}              {"ready": true, "path": "relay"}
//!                                               waits for a line on its standard input
//!   {"sent": ..., "path": "relay"}              {"bytes": ..., "seconds": ..., "path": "relay"}
//! ```
//!
//! A path is named after the bytes, by the library that carried them.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One write, and the most of one read, in bytes: large enough that the cost of a call vanishes.
const CHUNK: usize = 256 * 1024;

/// A connection of the library that is looked at.
pub trait Connection {
    /// Of a stream.
    type Send: AsyncWrite + Unpin;
    /// Of a stream.
    type Receive: AsyncRead + Unpin;

    /// A stream to the other side.
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Receive)>>;
    /// A stream from the other side; none when the connection has ended.
    fn accept(&self) -> impl Future<Output = Option<(Self::Send, Self::Receive)>>;
    /// The kind of path that data takes now.
    fn path(&self) -> &'static str;
}

/// How much is fetched, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Before it counts: the congestion window and the search for the MTU are done then.
    pub warm_up: u64,
    /// What counts.
    pub measured: u64,
}

/// Tells where this side is reached.
pub fn say_address(address: &str) {
    println!("{}", json!({ "address": address }));
}

/// Sends on each stream as many bytes as it asks for, until the connection ends.
pub async fn listen(connection: &impl Connection) -> Result<()> {
    while let Some((mut send, mut receive)) = connection.accept().await {
        let bytes = receive
            .read_u64()
            .await
            .context("how much is to be sent was not said")?;
        send_bytes(&mut send, bytes).await?;
        println!("{}", json!({ "sent": bytes, "path": connection.path() }));
    }
    Ok(())
}

/// Fetches twice, the second time when it is told to.
pub async fn fetch(connection: &impl Connection, sizes: Sizes) -> Result<()> {
    receive_bytes(connection, sizes.warm_up).await?;
    println!("{}", json!({ "ready": true, "path": connection.path() }));
    until_told().await?;
    println!("{}", receive_bytes(connection, sizes.measured).await?);
    Ok(())
}

/// Writes so many bytes, and ends the stream.
pub async fn send_bytes(send: &mut (impl AsyncWrite + Unpin), bytes: u64) -> Result<()> {
    let chunk = vec![0x5a; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(CHUNK as u64) as usize;
        send.write_all(&chunk[..n]).await?;
        left -= n as u64;
    }
    send.shutdown().await?;
    Ok(())
}

async fn receive_bytes(connection: &impl Connection, bytes: u64) -> Result<Value> {
    let began = Instant::now();
    let (mut send, mut receive) = connection.open().await?;
    send.write_u64(bytes).await?;
    send.shutdown().await?;
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    loop {
        let n = receive.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        received += n as u64;
    }
    let seconds = began.elapsed().as_secs_f64();
    ensure!(received == bytes, "{received} of {bytes} bytes arrived");
    Ok(json!({ "bytes": bytes, "seconds": seconds, "path": connection.path() }))
}

/// Waits for a line on standard input.
async fn until_told() -> Result<()> {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let length = read.await?.context("reading standard input")?;
    ensure!(length > 0, "nobody will tell when to begin");
    Ok(())
}
