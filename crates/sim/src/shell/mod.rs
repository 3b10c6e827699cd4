//! The programs that run on the simulated hosts: nodes, relays, STUN servers, and those that mean harm.
//!
//! Node and relay are shells around the same state machines as `byway` and `byway-relay`, and what those decide beside the
//! state machines, these must decide alike: a file here says which file there it follows, a constant which constant.

pub mod app;
mod egress;
mod heartbeat;
pub mod hostile;
mod link;
mod nat64;
pub mod node;
pub mod relay;
pub mod stun;
mod virt;
