//! `byway stdio`: standard input and output connected to one target; what an ssh ProxyCommand needs.
//!
//! Half-closes go both ways. The end of the target's output must reach whoever reads our standard output although we
//! may still have input to deliver, so descriptor 1 is then replaced by `/dev/null`, which closes the pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use byway::forward::{self, CarryError};
use byway::tunnel::Tunnel;
use tokio::fs::File;
use tokio::io::AsyncWrite;

use crate::args;
use crate::client;
use crate::failure::{Code, Failure};
use crate::peer::Peer;

pub(crate) async fn run(args: args::Stdio) -> Result<(), Failure> {
    let peer = Peer::find(&args.peer)?;
    let endpoint = client::bind(&args.tunnel).await?;
    let result = async {
        let tunnel = client::connect(&endpoint, &peer).await?;
        tokio::select! {
            result = carry(&args, &tunnel, &peer.label) => result,
            interrupted = client::interrupted() => Err(interrupted),
        }
    }
    .await;
    endpoint.close().await;
    result
}

async fn carry(args: &args::Stdio, tunnel: &Tunnel, label: &str) -> Result<(), Failure> {
    let unusable =
        |error| Failure::new(Code::Failed, "cannot use standard input and output").why(error);
    let input = duplicate(io::stdin().as_fd()).map_err(unusable)?;
    let output = Stdout(duplicate(io::stdout().as_fd()).map_err(unusable)?);
    // To its end: what came before the tunnel ended is still to be written.
    let carried = forward::carry(tunnel, &args.target, input, output).await;
    match carried {
        Ok((sent, received)) => {
            tracing::info!(sent, received, "done");
            Ok(())
        }
        Err(CarryError::Stream(error)) => Err(Failure::stream(label, &args.target, &error)),
        // Whoever read us has what it wanted.
        Err(CarryError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(CarryError::Lost(closed)) => Err(Failure::closed(label, &closed)),
        Err(error) => Err(Failure::new(
            Code::Failed,
            format!("the connection to {} at {label} broke", args.target),
        )
        .why(error)),
    }
}

/// Standard output, whose shutdown others can see.
#[derive(Debug)]
struct Stdout(File);

/// The same file without the standard library's buffers: its line buffer would cut binary output in pieces.
fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from_std(descriptor.try_clone_to_owned()?.into()))
}

impl AsyncWrite for Stdout {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        // The duplicate goes too, or the pipe would stay open.
        self.0 = File::from_std(null);
        Poll::Ready(Ok(()))
    }
}
