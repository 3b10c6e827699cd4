//! A small client: talks to the agent's program, then forwards a local port to one behind the agent.
//!
//! ```text
//! cargo run -p byway-examples --example client -- TICKET 8080
//! ```

use anyhow::Context;
use byway::forward::Forward;
use byway::{Endpoint, Target, Ticket};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let ticket: Ticket = args.next().context("usage: client TICKET PORT")?.parse()?;
    let target: Target = args.next().context("usage: client TICKET PORT")?.parse()?;

    // Without a key of its own the client is a new node each time; the ticket is what lets it in.
    let endpoint = Endpoint::builder().bind().await?;
    let tunnel = endpoint.connect(&ticket).await?;
    println!(
        "connected to {} in {:?}",
        tunnel.remote().short(),
        tunnel.ping().await?
    );

    // A stream to the agent's own program. It works at once, over whatever path came first ...
    let (mut send, mut recv) = tunnel.open().await?;
    send.write_all(b"hello through the tunnel").await?;
    send.finish()?;
    println!(
        "echo: {}",
        String::from_utf8_lossy(&recv.read_to_end(1024).await?)
    );

    // ... and the path gets better underneath it.
    let mut path = tunnel.path();
    tokio::spawn(async move {
        while path.changed().await.is_ok() {
            println!("path: {:?}", path.borrow_and_update().kind);
        }
    });

    // A TCP port of this machine that leads to one behind the agent.
    let bind = "127.0.0.1:0".parse()?;
    let forward = Forward::listen(tunnel, bind, target.clone(), |who, why| {
        eprintln!("{who}: {why}");
    })
    .await?;
    println!("{} leads to {target}", forward.local_addr());
    tokio::select! {
        why = forward.closed() => println!("the tunnel ended: {why}"),
        _ = tokio::signal::ctrl_c() => {}
    }
    endpoint.close().await;
    Ok(())
}
