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
use tls::Flood;
use typed::{Row, Table};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // A relay of its own for each, so that nobody of before is in the way.
    let measured = |measure: &dyn Fn(&Server) -> Row| {
        let mut config = ServerConfig::dev();
        config.shards = 1;
        let server = runtime.block_on(Server::start(config)).unwrap();
        let row = measure(&server);
        runtime.block_on(server.stop());
        row
    };
    let mut table = Table::begin();
    let udp = |flood| measured(&|s| udp::measure(s, flood));
    table.alone("UDP, alone", udp(udp::Flood::None));
    table.beside(
        "UDP, beside twice of what is forwarded",
        udp(udp::Flood::Twice),
    );
    table.beside(
        "UDP, beside a thread that floods",
        udp(udp::Flood::Threads(1)),
    );
    table.beside("UDP, beside two of them", udp(udp::Flood::Threads(2)));
    let tls = |flood| measured(&|s| tls::measure(s, flood));
    table.alone("TLS, alone", tls(Flood::None));
    table.beside("TLS, beside a flood to another", tls(Flood::ToAnother));
    table.beside("TLS, beside a flood to the same", tls(Flood::ToTheSame));
}
