//! A relay with everything that came out of it, and nodes to talk to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use byway_wire::relay::control::*;
use byway_wire::{
    ChannelId, Instance, NodeId, NodeInstance, ProbeSecret, Record, SecretKey, SignedRecord,
};

use crate::io::*;
use crate::relay::{Config, Relay};

/// Node number `n`, its process number `instance`.
pub(super) fn record(n: u8, instance: u64, epoch: u64, seq: u64) -> SignedRecord {
    let key = SecretKey::from_bytes(&[n; 32]);
    let id = NodeInstance {
        node: key.node_id(),
        instance: Instance(instance),
    };
    let record = Record {
        id,
        probe_key: ProbeSecret::from_bytes([n ^ 0x55; 32]).public(),
        epoch,
        seq,
        relays: Vec::new(),
    };
    SignedRecord::sign(&key, record)
}
pub(super) fn node(n: u8) -> NodeId {
    SecretKey::from_bytes(&[n; 32]).node_id()
}
pub(super) fn channel(n: u64) -> ChannelId {
    ChannelId::from_u64(n)
}
pub(super) fn addr(link: u64) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1_000 + link as u16))
}
pub(super) fn hello(n: u8, instance: u64, epoch: u64, role: Role) -> Hello {
    Hello {
        versions: vec![VERSION],
        role,
        record: record(n, instance, epoch, 0),
        token: None,
    }
}
pub(super) fn open(channel_id: u64, peer: u8) -> Control {
    open_waiting(channel_id, peer, 0)
}
pub(super) fn open_waiting(channel_id: u64, peer: u8, wait_ms: u32) -> Control {
    Control::Open(Open {
        channel: channel(channel_id),
        peer: node(peer),
        proof: Some([7; 32]),
        first: vec![Bytes::from_static(b"first flight")],
        wait_ms,
    })
}

/// The forwarding table as a shell would keep it. Checks each update against what is there.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<ChannelId, (Egress, Egress)>,
    pub(super) sources: BTreeMap<LinkId, SocketAddr>,
}
impl Table {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Table(TableUpdate::Insert {
                channel,
                opener,
                target,
            }) => {
                let before = self.entries.insert(*channel, (*opener, *target));
                assert!(before.is_none(), "{channel:?} inserted twice");
            }
            Event::Table(TableUpdate::Bind {
                channel,
                side,
                egress,
            }) => {
                let entry = self
                    .entries
                    .get_mut(channel)
                    .expect("bound before inserted");
                match side {
                    Side::Opener => entry.0 = *egress,
                    Side::Target => entry.1 = *egress,
                }
            }
            Event::Table(TableUpdate::Remove { channel }) => {
                let before = self.entries.remove(channel);
                assert!(before.is_some(), "{channel:?} removed but not there");
            }
            Event::Source { link, addr } => match addr {
                Some(addr) => _ = self.sources.insert(*link, *addr),
                None => assert!(self.sources.remove(link).is_some(), "{link:?} twice gone"),
            },
            _ => {}
        }
    }
}

pub(super) struct Bench {
    pub(super) relay: Relay,
    pub(super) now: Instant,
    started: Instant,
    /// The wall clock at the start.
    pub(super) wall: u64,
    pub(super) table: Table,
    /// Links that the relay ended, or was told the end of.
    pub(super) gone: BTreeSet<LinkId>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }
    pub(super) fn with(config: Config) -> Self {
        let now = Instant::now();
        Self {
            relay: Relay::new(now, config, [1; 32]),
            now,
            started: now,
            wall: 1_000,
            table: Table::default(),
            gone: BTreeSet::new(),
        }
    }
    pub(super) fn unix_time(&self) -> u64 {
        self.wall + (self.now - self.started).as_secs()
    }
    pub(super) fn drain(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.relay.poll_event() {
            self.table.apply(&event);
            if let Event::Disconnect { link, .. } = &event {
                self.gone.insert(*link);
            }
            events.push(event);
        }
        events
    }
    pub(super) fn link_up(&mut self, link: u64, n: u8) -> Vec<Event> {
        self.link_up_as(link, n, Egress::Udp(addr(link)))
    }
    pub(super) fn link_up_as(&mut self, link: u64, n: u8, egress: Egress) -> Vec<Event> {
        let info = LinkInfo {
            node: node(n),
            role: None,
            began: self.now,
            egress,
            observed: addr(link),
            intercepted: false,
        };
        self.link_up_with(link, info)
    }
    pub(super) fn link_up_with(&mut self, link: u64, info: LinkInfo) -> Vec<Event> {
        self.relay.handle_link_up(self.now, LinkId(link), info);
        self.drain()
    }
    pub(super) fn say(&mut self, link: u64, message: Control) -> Vec<Event> {
        self.relay
            .handle_control(self.now, self.unix_time(), LinkId(link), message);
        self.drain()
    }
    /// A link and its `Hello`.
    pub(super) fn come(&mut self, link: u64, n: u8, instance: u64, role: Role) -> Vec<Event> {
        self.come_at(link, n, instance, 1, role)
    }
    pub(super) fn come_at(
        &mut self,
        link: u64,
        n: u8,
        instance: u64,
        epoch: u64,
        role: Role,
    ) -> Vec<Event> {
        self.link_up(link, n);
        self.say(link, Control::Hello(hello(n, instance, epoch, role)))
    }
    pub(super) fn link_down(&mut self, link: u64) -> Vec<Event> {
        if self.relay.links.contains_key(&LinkId(link)) {
            self.gone.insert(LinkId(link));
        }
        self.relay.handle_link_down(self.now, LinkId(link));
        self.drain()
    }
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Event> {
        self.now += time;
        let unix_time = self.unix_time();
        self.relay.handle_timeout(self.now, unix_time);
        self.drain()
    }
    /// Client 1 on link 1, agent 2 on link 2, channel 9 between them, answered.
    pub(super) fn joined() -> Self {
        let mut bench = Self::new();
        bench.come(2, 2, 20, Role::Agent);
        bench.come(1, 1, 10, Role::Client);
        bench.say(1, open(9, 2));
        bench.say(
            2,
            Control::Accept {
                channel: channel(9),
            },
        );
        bench
    }
}

/// What was sent on `link`.
pub(super) fn sent(events: &[Event], link: u64) -> Vec<Control> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Send { link: on, message } if on.0 == link => Some(message.clone()),
            _ => None,
        })
        .collect()
}
/// Why a channel was closed towards `link`.
pub(super) fn closed(events: &[Event], link: u64) -> Option<CloseReason> {
    sent(events, link)
        .into_iter()
        .find_map(|message| match message {
            Control::Closed { reason, .. } => Some(reason),
            _ => None,
        })
}
/// Why a link was ended.
pub(super) fn refused(events: &[Event], link: u64) -> Option<RefuseReason> {
    events.iter().find_map(|event| match event {
        Event::Disconnect {
            link: on, reason, ..
        } if on.0 == link => Some(*reason),
        _ => None,
    })
}
pub(super) fn has(events: &[Event], link: u64, name: &str) -> bool {
    sent(events, link)
        .iter()
        .any(|message| message.name() == name)
}
