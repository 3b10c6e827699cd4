//! A small agent: shares this machine's loopback ports, and answers a protocol of its own.
//!
//! ```text
//! cargo run -p byway-examples --example agent -- 'https://relay.example.com#PIN'
//! ```
//!
//! It prints a ticket; give that to the client example, or to `byway forward TICKET 8080`.

use std::time::Duration;

use byway::forward::TargetPolicy;
use byway::{Admission, Endpoint, RelayUrl, keyfile};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Some(relay) = std::env::args().nth(1) else {
        anyhow::bail!("usage: agent RELAY-URL");
    };
    // The key is who this agent is; the secret is what its tickets prove. Kept in files, tickets outlive a restart.
    let key = keyfile::load_or_create("agent.key".as_ref())?;
    let secret = keyfile::load_or_create_ticket_secret("agent.ticket-secret".as_ref())?;
    let admission = Admission {
        secrets: vec![secret],
        ..Admission::default()
    };

    let endpoint = Endpoint::builder()
        .secret_key(key)
        .epoch_file("agent.epoch")
        .relay(relay.parse::<RelayUrl>()?)
        .accept(admission)
        .bind()
        .await?;
    endpoint.online(Duration::from_secs(10)).await?;
    println!("{}", endpoint.ticket(Some("example")));

    // Who is connected learns at once that we left, not by our silence.
    let closing = endpoint.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        closing.close().await;
    });

    while let Some(tunnel) = endpoint.accept().await {
        println!("{} came", tunnel.remote().short());
        // Streams to TCP targets are served by the library, as the policy allows ...
        tunnel.serve(TargetPolicy::loopback());
        // ... and streams of our own protocol by us: this one sends every byte back.
        tokio::spawn(async move {
            while let Some((mut send, mut recv)) = tunnel.accept().await {
                tokio::spawn(async move { tokio::io::copy(&mut recv, &mut send).await });
            }
            println!(
                "{} left: {}",
                tunnel.remote().short(),
                tunnel.closed().await
            );
        });
    }
    endpoint.close().await;
    Ok(())
}
