//! The relay as a state machine without I/O (design section 7). Driven like the node: see `byway_core`'s drive contract.

pub mod forward;
pub mod io;
pub mod relay;
