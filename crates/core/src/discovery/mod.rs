//! Finding the network (design section 5): STUN servers in, a [`NatReport`] out.
//!
//! # What is asked
//!
//! Every configured server (any STUN server, and each relay's STUN port) is asked a binding request (RFC 8489) from the
//! data socket itself, all in parallel, over IPv4 and IPv6. A silent server is asked again 100, 300, 700 and 1,500 ms
//! after the first time, each time with a new transaction id, so that an answer tells which request it answers: the
//! round-trip time is exact. Once the answer is settled only the first three are sent. After 3 s a round is over; until
//! then late answers still correct the report. A server that names another port of its own (OTHER-ADDRESS, RFC 5780) is
//! asked there too; another *address* it names is not: a stranger could point us at a victim that way.
//!
//! # Which answers count
//!
//! An answer counts if it carries a transaction id of this round, comes from the very address that was asked, arrives on
//! the socket that asked, is the first of its server, and names an address that can be ours (of the right family, a
//! port, and neither unspecified, multicast, broadcast, reserved nor, from a server elsewhere, loopback or link-local).
//! Everything else is counted by reason ([`Ignored`]) and, where a server is to blame, said in its row; it changes
//! nothing more.
//!
//! # What is believed
//!
//! A server sees the truth or it does not tell it, and nothing in one answer says which. So answers are compared.
//! Servers that share a label or an IP address speak with one voice (a *voter*), however many ports they have.
//!
//! 1. *Our IP address* is the one that more than half of the voters name. A voter that names another one is not heard
//!    any further. A lie nearly always shows here; so does a NAT with a pool of addresses, of which we then claim no more
//!    than most voters saw. If no address has a majority, one that is an address and port of this very socket is
//!    believed: nobody else could know it. Otherwise everything stays unknown.
//! 2. Of those heard, if two or more, and more than half, name *the same address and port*, the mapping is
//!    *endpoint-independent*: two independent servers cannot agree on a wrong address, and a NAT that gives each
//!    destination its own port does not give most of them the same. One voter among three or more that names another
//!    port at that address is outvoted.
//! 3. Of those heard, if two or more differ without such a majority, the mapping *depends on the destination*. A single
//!    lie cannot cause this among three or more: it leaves at least two that agree. With only two voters a liar
//!    could: naming our true IP address and inventing only the port. That is believed, since such a NAT is far more
//!    common than such a server.
//! 4. *Ports of one server*: two ports of one IP address that see different mappings prove that the mapping depends on
//!    the destination port, and that alone makes it address-and-port-dependent, the only behaviour of RFC 4787 that
//!    allows it. Two that see the same mapping prove nothing about other addresses. With several such servers, more
//!    than half must say so. Without a server with two ports a dependent mapping is called address-dependent, which it
//!    is at least; [`NatReport::port_dependent`] then stays unknown.
//! 5. One voter alone leaves the mapping unknown (unless 4 decides); its word on our address is taken, for there is no
//!    other.
//!
//! The *port pattern* follows from the mappings in the order in which the first requests were sent, for that is the
//! order in which the NAT made them; see `infer.rs`. *No UDP* is claimed when two or more voters were asked and nobody
//! answered anything: one silent server is only a silent server.
//!
//! # When it is settled
//!
//! A family is settled when more answers could not change it: two voters agree (2), or three differ (3) and no second
//! port is outstanding, or all have answered. With less than that, a server that has stayed silent for 1 s (or four
//! times the slowest answer's time, if that is longer) is taken for dead, and what is there decides. Until a
//! family is settled the report keeps what the last round found: the first answer alone might be the lie. Only that UDP
//! passes is said at once.
//!
//! # What else is found out
//!
//! Somebody who wants to know everything asks for a *whole* round ([`Kind::Whole`]). When it has settled, the node sends
//! three datagrams to its own outside address (`hairpin.rs`). What needs more than the data socket, or a relay, is asked
//! beside it by the shell and judged here: who is let in ([`FilterTest`]), how large a datagram may be (`mtu.rs`), NAT64
//! ([`Nat64`]), how relays are reached ([`prefer`], [`quic_filtered`]). Whether there is a second NAT follows from all that
//! is known ([`SecondNat`]).
//!
//! A *refresh* asks one server, keeps the mapping alive at the NAT, and says nothing unless it sees another mapping or
//! no answer: then it becomes a full round.

mod filtering;
mod hairpin;
mod infer;
mod machine;
mod mtu;
mod nat64;
mod relays;
mod report;
mod screen;
mod second_nat;
mod server;
#[cfg(test)]
mod tests;

pub use byway_wire::signal::Mapping;
pub use filtering::{FilterTest, Filtering};
pub use machine::{Discovery, Kind, MAX_SERVERS};
pub use mtu::FULL_DATAGRAM;
pub(crate) use mtu::MtuSearch;
pub use nat64::{IPV4_ONLY, NAT64_HOST, Nat64, Prefix};
pub use relays::{Preferred, PreferredReason, Reach, RelayRow, prefer, quic_filtered};
pub use report::{
    GatewayPort, Ignored, IgnoredAnswers, MappingProtocol, NatReport, PortMapping, PortPattern,
    ServerRow,
};
pub use second_nat::SecondNat;
