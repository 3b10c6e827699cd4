//! The state machine against servers of every kind, behind a small NAT, in virtual time.

mod rounds;
mod servers;
mod turned;
mod world;
mod wrong;
