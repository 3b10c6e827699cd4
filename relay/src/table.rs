//! The forwarding table: written on control events, read once per run of datagrams by every shard without a lock.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use byway_relay_core::forward::{Decision, Source, decide};
use byway_relay_core::io::{Egress, Side};
use byway_wire::ChannelId;

use crate::outbox::Outbox;

/// How to reach one end of a channel.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// A datagram out of this listener, from this of its addresses.
    Udp {
        addr: SocketAddr,
        listener: usize,
        local_ip: Option<IpAddr>,
    },
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
}

#[derive(Clone, Debug)]
struct Entry {
    opener: End,
    target: End,
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
        self.channels
            .pin()
            .insert(channel, Entry { opener, target });
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
    pub(crate) fn remove(&self, channel: ChannelId) {
        self.channels.pin().remove(&channel);
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

    /// Where data of `channel` from `source` goes. None if the source is not bound to it, or there is no such channel:
    /// nobody can tell the two apart from outside.
    pub(crate) fn route<R>(
        &self,
        channel: ChannelId,
        source: Source,
        send: impl FnOnce(&Way) -> R,
    ) -> Option<R> {
        let channels = self.channels.pin();
        let entry = channels.get(&channel)?;
        match decide(entry.opener.egress, entry.target.egress, source) {
            Decision::Unbound => None,
            Decision::Forward(to) if to == entry.target.egress => Some(send(&entry.target.way)),
            Decision::Forward(_) => Some(send(&entry.opener.way)),
        }
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
                addr: addr(port),
                listener: 0,
                local_ip: None,
            },
        }
    }
    fn route(table: &Table, port: u16) -> Option<u16> {
        let channel = ChannelId::from_u64(9);
        table.route(channel, Source::Udp(addr(port)), |way| match way {
            Way::Udp { addr, .. } => addr.port(),
            _ => 0,
        })
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
        table.remove(channel);
        assert_eq!(route(&table, 3), None);
    }
}
