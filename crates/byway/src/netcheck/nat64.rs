//! NAT64, by the system's resolver (RFC 7050).

use byway_core::discovery::{IPV4_ONLY, Nat64};

use crate::links::lookup;

pub(crate) async fn nat64() -> Nat64 {
    // The port is of no account: only addresses are looked at.
    let answers = lookup(IPV4_ONLY, 443).await.unwrap_or_default();
    Nat64::from_answers(answers.iter().map(|addr| addr.ip()))
}
