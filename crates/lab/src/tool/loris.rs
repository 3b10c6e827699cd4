//! `loris ADDR CONNECTIONS SOURCE...`: opens TCP connections from these addresses in turn and says one byte of a TLS record a second on
//! each, for ever. Prints `opened N` when it has tried all, and `cut COUNT longest MS` for those that the other side has
//! ended, once all are or after 20 seconds.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// A TLS record that promises much.
const BEGIN: [u8; 5] = [0x16, 0x03, 0x01, 0x40, 0x00];
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(args: &[String]) -> Result<()> {
    let [addr, connections, sources @ ..] = args else {
        bail!("loris ADDR CONNECTIONS SOURCE...")
    };
    let addr: SocketAddr = addr.parse()?;
    let connections: usize = connections.parse()?;
    let sources: Vec<IpAddr> = sources
        .iter()
        .map(|ip| ip.parse())
        .collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut lives = JoinSet::new();
        for n in 0..connections {
            let source = *sources.get(n % sources.len()).context("from where?")?;
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            // One that is not let in has been cut, too.
            if let Ok(stream) = socket.connect(addr).await {
                lives.spawn(live(stream));
            }
        }
        println!("opened {}", lives.len());
        let deadline = tokio::time::sleep(PATIENCE);
        tokio::pin!(deadline);
        let (mut cut, mut longest) = (0, Duration::ZERO);
        loop {
            tokio::select! {
                lived = lives.join_next() => match lived {
                    Some(lived) => {
                        cut += 1;
                        longest = longest.max(lived?);
                    }
                    None => break,
                },
                () = &mut deadline => break,
            }
        }
        println!("cut {cut} longest {}", longest.as_millis());
        // Those that were not cut stay.
        while lives.join_next().await.is_some() {}
        Ok(())
    })
}

/// How long the other side bore it.
async fn live(mut stream: TcpStream) -> Duration {
    let began = Instant::now();
    let mut byte = 0;
    let mut answer = [0; 64];
    loop {
        let said = BEGIN.get(byte).copied().unwrap_or(0);
        byte += 1;
        if stream.write_all(&[said]).await.is_err() {
            return began.elapsed();
        }
        let heard = tokio::time::timeout(EVERY, stream.read(&mut answer)).await;
        if matches!(heard, Ok(Ok(0) | Err(_))) {
            return began.elapsed();
        }
    }
}
