//! `cargo bench -p byway-relay --bench fairness`: somebody who types beside somebody who floods, through the same relay with one shard and one
//! thread for everything else. A keystroke each 50 ms goes through the relay and comes back. What counts is how many keystrokes are lost, and how
//! much later the slowest come back.
//!
//! | file | idea |
//! |---|---|
//! | `udp`, `tls` | the same over UDP links and over TLS links |
//! | `typed` | what came of it, as a line of a table |
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on must panic"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../shared/mod.rs"]
mod shared;
mod tls;
mod typed;
mod udp;

use byway_relay::{Server, ServerConfig};
use typed::Table;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut config = ServerConfig::dev();
    config.shards = 1;
    let server = runtime.block_on(Server::start(config)).unwrap();
    let mut table = Table::begin();
    table.alone("UDP, alone", udp::measure(&server, false));
    table.beside("UDP, beside a flood", udp::measure(&server, true));
    table.alone("TLS, alone", tls::measure(&server, tls::Flood::None));
    table.beside(
        "TLS, beside a flood to somebody else",
        tls::measure(&server, tls::Flood::ToAnother),
    );
    table.beside(
        "TLS, beside a flood to the same node",
        tls::measure(&server, tls::Flood::ToTheSame),
    );
    runtime.block_on(server.stop());
}
