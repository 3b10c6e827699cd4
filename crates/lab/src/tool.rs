//! Small tools the scenarios run inside namespaces, as `byway-lab tool ...`: a UDP reflector and observer to
//! check that a NAT is what it claims, a hole puncher, numbered datagrams to check that a link is, a web server with a
//! known body, a server that needs half-close, a thrower of garbage, a typist, a gateway that is older than PCP, a captive
//! portal, an inspecting proxy, a link emulator, a STUN server that lies, a peer that promises paths, who begins
//! handshakes in others' names or holds connections open, and who cleans up after all
//! of it.

mod digest;
mod elder;
mod garbage;
mod initials;
mod intercept;
mod liar;
mod loris;
mod noise;
mod opener;
mod portal;
mod punch;
mod reflect;
mod stream;
mod switch;
mod tls;
mod typing;
mod web;

use anyhow::{Context, Result, bail};

pub use portal::LOGIN;
pub use reflect::Observation;
pub use stream::Arrival;
pub use web::{begins_as_body, body_sha256, sha256_of};

/// Runs `tool ARGS`.
pub fn main(args: &[String]) -> Result<()> {
    let (name, rest) = args.split_first().context(
        "which tool? digest, elder, garbage, initials, intercept, janitor, liar, loris, observe, opener, portal, punch, reflect, sink, stream, switch, type, upload, web",
    )?;
    match name.as_str() {
        "digest" => digest::serve(rest),
        "elder" => elder::serve(rest),
        "garbage" => garbage::throw(rest),
        "initials" => initials::run(rest),
        "intercept" => intercept::serve(rest),
        "loris" => loris::run(rest),
        "liar" => liar::serve(rest),
        "opener" => opener::run(rest),
        "janitor" => crate::leftovers::janitor(rest),
        "reflect" => reflect::reflect(rest),
        "observe" => reflect::observe(rest),
        "portal" => portal::serve(rest),
        "punch" => punch::punch(rest),
        "sink" => stream::sink(rest),
        "stream" => stream::stream(rest),
        "switch" => switch::run(rest),
        "type" => typing::run(rest),
        "upload" => digest::upload(rest),
        "web" => web::serve(rest),
        other => bail!("no tool {other}"),
    }
}
