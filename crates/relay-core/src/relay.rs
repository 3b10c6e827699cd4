//! The relay: admission, links, channels.

use std::time::Instant;

use byway_wire::relay::control::Control;

use crate::io::*;

/// Settings; the defaults are design section 12's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The relay's name, told to nodes.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Longest payload forwarded, in bytes.
    pub max_datagram: u32,
    /// Most channels of one node instance.
    pub max_channels: u32,
    /// Most links of one NodeId, all its processes together.
    pub max_links_per_node: u32,
    /// Most links of one process.
    pub max_links_per_instance: u32,
    /// Most unanswered opens of one opener to one target.
    pub max_unanswered: u32,
}

/// See `byway_core`'s drive contract.
#[derive(Debug)]
pub struct Relay {
    _private: (),
}

impl Relay {
    /// A relay without links. `seed` makes session numbers and the cookie key.
    pub fn new(now: Instant, config: Config, seed: [u8; 32]) -> Self {
        let _ = (now, config, seed);
        unimplemented!()
    }
    /// A node proved its key on a new link. `unix_time` is the wall clock in seconds, for `Welcome` (and tokens later).
    pub fn handle_link_up(&mut self, now: Instant, unix_time: u64, link: LinkId, info: LinkInfo) {
        let _ = (now, unix_time, link, info);
        unimplemented!()
    }
    /// A control message came in.
    pub fn handle_control(&mut self, now: Instant, unix_time: u64, link: LinkId, message: Control) {
        let _ = (now, unix_time, link, message);
        unimplemented!()
    }
    /// A link ended.
    pub fn handle_link_down(&mut self, now: Instant, link: LinkId) {
        let _ = (now, link);
        unimplemented!()
    }
    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        unimplemented!()
    }
    /// The next thing to carry out.
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }
    /// When to call `handle_timeout`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        unimplemented!()
    }
    /// The key by which shards make rebind cookies (they are checked in here).
    pub fn cookie_key(&self) -> byway_wire::relay::cookie::CookieKey {
        unimplemented!()
    }
    /// Minutes on the relay's own clock, for cookies.
    pub fn minute(&self, now: Instant) -> u64 {
        let _ = now;
        unimplemented!()
    }
}
