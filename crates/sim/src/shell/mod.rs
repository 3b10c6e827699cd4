//! The programs that run on the simulated hosts: nodes, relays, STUN servers, and those that mean harm.

pub mod app;
pub mod hostile;
mod link;
pub mod node;
pub mod relay;
pub mod stun;
mod virt;
