//! Bulk throughput of one stream: raw quinn, then a tunnel directly, through the UDP link and through the TLS link, in
//! alternating rounds of one run.

use anyhow::{Context, Result};
use byway::PathKind;
use byway_benches::measure::{Sample, measure, median};
use byway_benches::raw_quinn::RawQuinn;
use byway_benches::through_byway::ThroughByway;
use byway_relay::{Server, ServerConfig};
use clap::Parser;
use comfy_table::{Table, presets};

/// Byway's throughput beside raw quinn, on loopback, every role in this process.
#[derive(Parser)]
struct Args {
    /// MiB per transfer.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// Bytes that warm each connection up (congestion window, MTU search) before its measured transfer.
const WARM_UP: u64 = 32 << 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let bytes = args.mib << 20;
    let kinds = [
        ("direct", PathKind::Direct),
        ("relay_udp", PathKind::RelayUdp),
        ("relay_tls", PathKind::RelayTls),
    ];
    let relay = Server::start(ServerConfig::dev()).await?;
    let mut samples: [Vec<Sample>; 4] = Default::default();

    for _ in 0..args.rounds {
        let raw = RawQuinn::connect().await?;
        raw.transfer(WARM_UP).await?;
        samples[0].push(measure(bytes, raw.transfer(bytes)).await?);
        drop(raw);
        for (i, (name, kind)) in kinds.iter().enumerate() {
            let tunnel = ThroughByway::connect(&relay.url(), *kind)
                .await
                .with_context(|| format!("path {name}"))?;
            tunnel.transfer(WARM_UP).await?;
            samples[i + 1].push(measure(bytes, tunnel.transfer(bytes)).await?);
            tunnel.close().await;
        }
    }
    relay.stop().await;

    let names = ["raw_quinn", "direct", "relay_udp", "relay_tls"];
    let medians: Vec<Sample> = samples
        .into_iter()
        .map(median)
        .collect::<Option<_>>()
        .context("no rounds")?;
    if args.json {
        let rows: serde_json::Map<_, _> = names
            .iter()
            .zip(&medians)
            .map(|(name, s)| {
                let row = serde_json::json!({"mib_s": s.mib_per_second(), "cpu_s_per_gib": s.cpu_per_gib()});
                ((*name).to_owned(), row)
            })
            .collect();
        println!("{}", serde_json::Value::Object(rows));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "path",
        "MiB/s",
        "/ raw quinn",
        "/ direct",
        "CPU-s per GiB, all roles",
    ]);
    for (name, s) in names.iter().zip(&medians) {
        table.add_row([
            (*name).to_owned(),
            format!("{:.0}", s.mib_per_second()),
            format!("{:.2}", s.mib_per_second() / medians[0].mib_per_second()),
            format!("{:.2}", s.mib_per_second() / medians[1].mib_per_second()),
            format!("{:.2}", s.cpu_per_gib()),
        ]);
    }
    println!(
        "{} MiB a transfer, median of {} rounds, one stream, loopback\n{table}",
        args.mib, args.rounds
    );
    Ok(())
}
