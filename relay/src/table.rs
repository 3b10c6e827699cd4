//! The forwarding table: written on control events, read once per run of datagrams by every shard without a lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use byway_relay_core::forward::{Decision, Source, decide};
use byway_relay_core::io::{Egress, Side};
use byway_wire::ChannelId;

use crate::outbox::Outbox;
use crate::quota::Quota;
use crate::stats::add;
use crate::udp::socket::Destination;

/// How to reach one end of a channel.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// A datagram out of this listener, from this of its addresses.
    Udp { to: Destination, listener: usize },
    /// A frame on a TLS link.
    Tls(Arc<Outbox>),
    /// Its link is gone and nothing is known of it any more.
    Gone,
}

/// One end as the shards need it.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) egress: Egress,
    pub(crate) way: Way,
    /// What its node may send.
    pub(crate) quota: Arc<Quota>,
}

#[derive(Clone, Debug)]
struct Entry {
    opener: End,
    target: End,
    carried: Arc<Carried>,
}

/// What a channel carried: one addition of each kind for a run of datagrams, in one cache line that the two shards of its ends share; no
/// lock, and nothing of what two other channels do.
#[derive(Debug)]
pub(crate) struct Carried {
    since: Instant,
    opener: Tally,
    target: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    fn read(&self) -> (u64, u64) {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (read(&self.datagrams), read(&self.bytes))
    }
}

/// What a channel carried, when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) since: Instant,
    /// Datagrams and bytes from its opener.
    pub(crate) opener: (u64, u64),
    /// The same from its target.
    pub(crate) target: (u64, u64),
}

impl Carried {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            opener: Tally::default(),
            target: Tally::default(),
        }
    }
    fn totals(&self) -> Totals {
        Totals {
            since: self.since,
            opener: self.opener.read(),
            target: self.target.read(),
        }
    }
}

/// Channels by id, and the addresses of live UDP links.
#[derive(Debug, Default)]
pub(crate) struct Table {
    channels: papaya::HashMap<ChannelId, Entry>,
    /// Addresses with the number of links that come from each: two links of one node may share a socket.
    sources: papaya::HashMap<SocketAddr, u32>,
}

impl Table {
    pub(crate) fn insert(&self, channel: ChannelId, opener: End, target: End) {
        let carried = Arc::new(Carried::new());
        let entry = Entry {
            opener,
            target,
            carried,
        };
        self.channels.pin().insert(channel, entry);
    }
    pub(crate) fn bind(&self, channel: ChannelId, side: Side, end: End) {
        self.channels.pin().update(channel, |entry| {
            let mut entry = entry.clone();
            match side {
                Side::Opener => entry.opener = end.clone(),
                Side::Target => entry.target = end.clone(),
            }
            entry
        });
    }
    /// Gives what it carried.
    pub(crate) fn remove(&self, channel: ChannelId) -> Option<Totals> {
        let channels = self.channels.pin();
        channels
            .remove(&channel)
            .map(|entry| entry.carried.totals())
    }
    pub(crate) fn totals(&self, channel: ChannelId) -> Option<Totals> {
        let channels = self.channels.pin();
        channels.get(&channel).map(|entry| entry.carried.totals())
    }
    pub(crate) fn add_source(&self, addr: SocketAddr) {
        self.sources.pin().update_or_insert(addr, |n| n + 1, 1);
    }
    pub(crate) fn remove_source(&self, addr: SocketAddr) {
        let sources = self.sources.pin();
        // Only the hub writes, under its lock, so nothing comes between the two steps.
        match sources.get(&addr) {
            Some(1) => _ = sources.remove(&addr),
            Some(_) => _ = sources.update(addr, |n| n - 1),
            None => {}
        }
    }
    /// True if a live link comes from this address.
    pub(crate) fn is_source(&self, addr: SocketAddr) -> bool {
        self.sources.pin().contains_key(&addr)
    }

    /// Where data of `channel` from `source` goes, so many datagrams and bytes of it. None if the source is not bound to it, or there is no such channel:
    /// nobody can tell the two apart from outside.
    pub(crate) fn route<R>(
        &self,
        channel: ChannelId,
        source: Source,
        (datagrams, bytes): (u64, u64),
        send: impl FnOnce(&Way, &Quota) -> R,
    ) -> Option<R> {
        let channels = self.channels.pin();
        let entry = channels.get(&channel)?;
        let carried = &entry.carried;
        let (way, tally, quota) = match decide(entry.opener.egress, entry.target.egress, source) {
            Decision::Unbound => return None,
            Decision::Forward(to) if to == entry.target.egress => {
                (&entry.target.way, &carried.opener, &entry.opener.quota)
            }
            Decision::Forward(_) => (&entry.opener.way, &carried.target, &entry.target.quota),
        };
        add(&tally.datagrams, datagrams);
        add(&tally.bytes, bytes);
        Some(send(way, quota))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }
    fn end(port: u16) -> End {
        End {
            egress: Egress::Udp(addr(port)),
            way: Way::Udp {
                to: Destination {
                    addr: addr(port),
                    local_ip: None,
                },
                listener: 0,
            },
            quota: Arc::new(Quota::new(Instant::now(), Arc::default())),
        }
    }
    fn route(table: &Table, port: u16) -> Option<u16> {
        let channel = ChannelId::from_u64(9);
        table.route(
            channel,
            Source::Udp(addr(port)),
            (2, 100),
            |way, _| match way {
                Way::Udp { to, .. } => to.addr.port(),
                _ => 0,
            },
        )
    }

    #[test]
    fn an_address_is_a_source_while_any_of_its_links_lives() {
        let table = Table::default();
        table.add_source(addr(1));
        table.add_source(addr(1));
        table.remove_source(addr(1));
        assert!(table.is_source(addr(1)));
        table.remove_source(addr(1));
        assert!(!table.is_source(addr(1)));
        table.remove_source(addr(1));
        assert!(!table.is_source(addr(1)));
    }

    #[test]
    fn data_goes_to_the_other_end_as_bound_last() {
        let table = Table::default();
        let channel = ChannelId::from_u64(9);
        assert_eq!(route(&table, 1), None);
        table.insert(channel, end(1), end(2));
        assert_eq!((route(&table, 1), route(&table, 2)), (Some(2), Some(1)));
        assert_eq!(route(&table, 3), None);
        table.bind(channel, Side::Opener, end(3));
        assert_eq!((route(&table, 1), route(&table, 2)), (None, Some(3)));
        // Two datagrams of the opener before it moved; of the target two before and two after.
        let totals = table.remove(channel).unwrap();
        assert_eq!((totals.opener, totals.target), ((2, 100), (4, 200)));
        assert_eq!(route(&table, 3), None);
    }
}
