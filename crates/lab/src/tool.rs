//! Small tools the scenarios run inside namespaces, as `byway-lab tool ...`: a UDP reflector and observer to
//! check that a NAT is what it claims, a hole puncher, a web server with a known body, and a switch with delay.

mod delay;
mod punch;
mod reflect;
mod web;

use anyhow::{Context, Result, bail};

pub use reflect::Observation;
pub use web::{body_sha256, sha256_of};

/// Runs `tool ARGS`.
pub fn main(args: &[String]) -> Result<()> {
    let (name, rest) = args
        .split_first()
        .context("which tool? delay, observe, punch, reflect, web")?;
    match name.as_str() {
        "delay" => delay::switch(rest),
        "reflect" => reflect::reflect(rest),
        "observe" => reflect::observe(rest),
        "punch" => punch::punch(rest),
        "web" => web::serve(rest),
        other => bail!("no tool {other}"),
    }
}
