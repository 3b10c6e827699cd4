//! NAT64, by the system's resolver (RFC 7050).

use std::time::Duration;

use byway_core::discovery::{IPV4_ONLY, Nat64};

/// A resolver that takes longer leaves it unknown.
const DEADLINE: Duration = Duration::from_secs(2);

pub(crate) async fn nat64() -> Nat64 {
    // The port is of no account: only addresses are looked at.
    let lookup = tokio::net::lookup_host((IPV4_ONLY, 443));
    match tokio::time::timeout(DEADLINE, lookup).await {
        Ok(Ok(answers)) => Nat64::from_answers(answers.map(|addr| addr.ip())),
        Ok(Err(_)) | Err(_) => Nat64::Unknown,
    }
}
