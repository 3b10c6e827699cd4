//! Two nodes and a trivial relay in virtual time, without any I/O.

mod hostile;
mod life;
mod failover;
mod world;
