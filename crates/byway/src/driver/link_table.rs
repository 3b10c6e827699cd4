//! The driver's links: their tasks, and what is shown of each relay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use byway_core::io::{Carrier, LinkError, LinkId, RelayId};
use byway_wire::RelayUrl;
use byway_wire::relay::control::Control;
use byway_wire::relay::control::RefuseReason;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::endpoint::LinkStatus;

/// A dial or a link.
#[derive(Debug)]
pub(super) struct LinkEntry {
    pub(super) relay: RelayId,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) task: AbortHandle,
    pub(super) up: bool,
}

/// What is known of a link that a relay admitted.
#[derive(Debug)]
pub(super) struct UpLink {
    pub(super) since: Instant,
    pub(super) carrier: Carrier,
    /// The address at which the relay was reached.
    pub(super) address: Option<SocketAddr>,
    pub(super) observed: SocketAddr,
    pub(super) intercepted: bool,
}

#[derive(Debug, Default)]
pub(super) struct LinkTable {
    links: BTreeMap<LinkId, LinkEntry>,
    relays: BTreeMap<RelayId, LinkStatus>,
    /// The links that each relay admitted us on: one replaces another, and both are up for a while. The newest is shown.
    up: BTreeMap<RelayId, BTreeMap<LinkId, UpLink>>,
}

impl LinkTable {
    /// True if the relay is new.
    pub(super) fn note_relay(&mut self, relay: RelayId, url: &RelayUrl) -> bool {
        let new = !self.relays.contains_key(&relay);
        self.relays
            .entry(relay)
            .or_insert_with(|| LinkStatus::unlinked(url.clone()));
        new
    }

    /// Nobody here keeps the relay any more: nothing is shown of it, nor of how its links end. Its URL, if it was known.
    pub(super) fn forget(&mut self, relay: RelayId) -> Option<RelayUrl> {
        self.up.remove(&relay);
        self.relays.remove(&relay).map(|status| status.relay)
    }

    pub(super) fn url(&self, relay: RelayId) -> Option<&RelayUrl> {
        self.relays.get(&relay).map(|status| &status.relay)
    }

    pub(super) fn insert(&mut self, link: LinkId, entry: LinkEntry) {
        self.links.insert(link, entry);
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&LinkEntry> {
        self.links.get(&link)
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Option<LinkEntry> {
        self.links.remove(&link)
    }

    /// Ends every dial at once and every link after what was said has been sent. Returns the links.
    pub(super) fn hang_up_all(&mut self) -> BTreeSet<LinkId> {
        let (up, dials): (BTreeMap<_, _>, _) = std::mem::take(&mut self.links)
            .into_iter()
            .partition(|(_, entry)| entry.up);
        for entry in dials.values() {
            entry.task.abort();
        }
        up.into_keys().collect()
    }

    pub(super) fn set_up(&mut self, link: LinkId) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.up = true;
        }
    }

    /// A relay admitted us on this link.
    pub(super) fn ready(&mut self, relay: RelayId, link: LinkId, up: UpLink) {
        self.up.entry(relay).or_default().insert(link, up);
        self.show(relay, None);
    }

    /// A link on which the relay had admitted us ended.
    pub(super) fn lost(&mut self, relay: RelayId, link: LinkId, error: &LinkError) {
        if let Some(up) = self.up.get_mut(&relay) {
            up.remove(&link);
        }
        self.show(relay, Some(error));
    }

    /// There is no link, and this is why.
    pub(super) fn failed(&mut self, relay: RelayId, error: &LinkError) {
        self.show(relay, Some(error));
    }

    /// Shows the relay's newest link; if it has none, why.
    fn show(&mut self, relay: RelayId, error: Option<&LinkError>) {
        let Some(status) = self.relays.get_mut(&relay) else {
            return;
        };
        let up = self.up.get(&relay).and_then(BTreeMap::last_key_value);
        let up = up.map(|(_, up)| up);
        let error = error.filter(|_| up.is_none());
        *status = LinkStatus {
            relay: status.relay.clone(),
            since: up.map(|up| up.since),
            carrier: up.map(|up| up.carrier),
            address: up.and_then(|up| up.address),
            observed: up.map(|up| up.observed),
            intercepted: up.is_some_and(|up| up.intercepted),
            error: error.map(LinkError::to_string),
            certificate_refused: matches!(error, Some(LinkError::Certificate(_))),
            proxy_failed: matches!(error, Some(LinkError::Proxy(_))),
            not_admitted: matches!(
                error,
                Some(LinkError::Refused(RefuseReason::NotAdmitted, _))
            ),
        };
    }

    pub(super) fn relay(&self, link: LinkId) -> Option<&LinkStatus> {
        self.relays.get(&self.links.get(&link)?.relay)
    }

    pub(super) fn statuses(&self) -> Vec<LinkStatus> {
        self.relays.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use byway_core::io::{ProxyError, ProxyFault};

    use super::*;

    const RELAY: RelayId = RelayId(0);

    fn table() -> LinkTable {
        let mut table = LinkTable::default();
        table.note_relay(RELAY, &RelayUrl::new("relay.test", 443, None).unwrap());
        table
    }

    fn up(carrier: Carrier) -> UpLink {
        UpLink {
            since: Instant::now(),
            carrier,
            address: None,
            observed: ([203, 0, 113, 1], 5000).into(),
            intercepted: carrier == Carrier::Tls,
        }
    }

    fn shown(table: &LinkTable) -> LinkStatus {
        table.statuses().remove(0)
    }

    #[test]
    fn why_a_relay_has_no_link_is_shown_until_it_has_one_and_when_it_is_lost() {
        let mut table = table();
        let proxy = LinkError::from(ProxyError {
            proxy: "http://proxy.test:3128".to_owned(),
            fault: ProxyFault::AuthRefused,
        });
        table.failed(RELAY, &proxy);
        let status = shown(&table);
        assert!(status.proxy_failed && !status.certificate_refused);
        assert_eq!(status.error, Some(proxy.to_string()));
        table.ready(RELAY, LinkId(1), up(Carrier::Tls));
        let status = shown(&table);
        assert_eq!(status.carrier, Some(Carrier::Tls));
        assert!(status.intercepted && !status.proxy_failed && status.error.is_none());
        let other = LinkError::Certificate("another one".to_owned());
        table.lost(RELAY, LinkId(1), &other);
        let status = shown(&table);
        assert!(status.certificate_refused && !status.intercepted);
        assert_eq!((status.carrier, status.observed), (None, None));
        assert_eq!(status.error, Some(other.to_string()));
    }

    #[test]
    fn of_a_relay_that_was_left_nothing_is_shown_not_even_that_its_link_ends() {
        let mut table = table();
        table.ready(RELAY, LinkId(1), up(Carrier::Udp));
        assert!(table.forget(RELAY).is_some());
        table.lost(RELAY, LinkId(1), &LinkError::HungUp);
        assert_eq!(table.statuses(), []);
        assert_eq!(table.forget(RELAY), None);
    }

    #[test]
    fn the_newest_link_is_shown_and_when_it_fails_the_one_that_still_serves() {
        let mut table = table();
        table.ready(RELAY, LinkId(1), up(Carrier::Tls));
        table.ready(RELAY, LinkId(2), up(Carrier::Udp));
        assert_eq!(shown(&table).carrier, Some(Carrier::Udp));
        // It carried no data.
        table.lost(RELAY, LinkId(2), &LinkError::HungUp);
        let status = shown(&table);
        assert_eq!((status.carrier, status.error), (Some(Carrier::Tls), None));
        table.ready(RELAY, LinkId(3), up(Carrier::Udp));
        // Replaced, and retired.
        table.lost(RELAY, LinkId(1), &LinkError::HungUp);
        assert_eq!(shown(&table).carrier, Some(Carrier::Udp));
        table.lost(RELAY, LinkId(3), &LinkError::TimedOut);
        let status = shown(&table);
        assert_eq!(status.carrier, None);
        assert_eq!(status.error, Some(LinkError::TimedOut.to_string()));
    }
}
