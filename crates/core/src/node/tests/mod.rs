//! Two nodes and a trivial relay in virtual time, without any I/O.

mod chaos;
mod discover;
mod failover;
mod hostile;
mod hostile_relays;
mod leaving;
mod left_out;
mod life;
mod moved;
mod records;
mod relay_map;
mod relays;
mod tokens;
mod world;
mod wrong_map;
