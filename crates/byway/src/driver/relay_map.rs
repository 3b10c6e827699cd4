//! The relays of a map: shown to the node, and their names looked up.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use byway_core::io::{MapRelay, RelayId};
use byway_wire::RelayUrl;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Driver;
use crate::endpoint::names::Names;
use crate::relay_map::RelayMap;

/// Looks up the names of a map's relays.
#[derive(Debug)]
pub(super) struct MapNames {
    /// How many names were not looked up once; whoever asks for a report waits for them.
    pending: Arc<watch::Sender<usize>>,
    /// One task a name; with another map they end.
    tasks: JoinSet<()>,
    /// Those that were found.
    found: BTreeSet<RelayUrl>,
}

impl MapNames {
    pub(super) fn new(pending: Arc<watch::Sender<usize>>) -> Self {
        Self {
            pending,
            tasks: JoinSet::new(),
            found: BTreeSet::new(),
        }
    }
}

impl Driver {
    /// The node's relays are those of this map from now on, beside those that are configured. Needs a tokio runtime.
    pub(crate) fn set_relay_map(&mut self, map: &RelayMap) {
        let relays = map.relays().map(|(region, relay)| MapRelay {
            url: relay.url.clone(),
            addrs: self.socket.nat64.canonical(relay.socket_addrs()),
            region: region.name.clone(),
        });
        let relays: Vec<MapRelay> = relays.collect();
        let urls: BTreeSet<RelayUrl> = relays.iter().map(|relay| relay.url.clone()).collect();
        let known = self.node.set_relay_map(Instant::now(), relays);
        for (relay, url) in known {
            self.note_relay(relay, &url);
        }
        self.look_up(urls);
        self.show_own_relays();
    }

    /// Those of yesterday's map are looked up no more.
    fn look_up(&mut self, urls: BTreeSet<RelayUrl>) {
        let names = &mut self.map_names;
        names.found.retain(|url| urls.contains(url));
        names.tasks = JoinSet::new();
        for url in urls {
            let literal = url.host().parse::<std::net::IpAddr>().is_ok();
            if !literal && !names.found.contains(&url) {
                let looked_up = Names::new(&names.pending, &self.shared, &self.links.driver);
                names.tasks.spawn(looked_up.relay(url));
            }
        }
    }

    /// A relay's name was looked up.
    pub(super) fn relay_addrs(&mut self, url: RelayUrl, addrs: Vec<SocketAddr>) {
        let addrs = self.socket.nat64.canonical(addrs);
        self.node.handle_relay_addrs(Instant::now(), &url, addrs);
        self.map_names.found.insert(url);
    }

    /// The map, or the peer that had named it, names the relay no more, and it was left.
    pub(super) fn relay_dropped(&mut self, relay: RelayId) {
        // First: whoever sees a link gone finds its relay gone, too.
        self.show_own_relays();
        if let Some(url) = self.link_table.forget(relay) {
            tracing::info!(%url, "the relay is named no more, and was left");
            self.publish_links();
        }
    }

    /// Shows which relays are this node's own.
    pub(crate) fn show_own_relays(&self) {
        self.shared
            .own_relays
            .store(Arc::new(self.node.own_relays()));
    }
}
