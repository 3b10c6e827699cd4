//! The scenarios, by group.

mod nats;

use crate::harness::{Need, Scenario};

/// Every scenario, the laboratory's own checks first: if a NAT is not what it claims, nothing later means much.
pub fn all() -> Vec<Scenario> {
    [nats::SCENARIOS].concat()
}

/// What a scenario with nothing but namespaces needs.
const NAMESPACES: &[Need] = &[Need::Namespaces];
