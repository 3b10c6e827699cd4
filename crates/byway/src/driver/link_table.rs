//! The driver's links: their tasks, and what is shown of each relay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use byway_core::io::{Carrier, LinkError, LinkId, RelayId};
use byway_wire::RelayUrl;
use byway_wire::relay::control::Control;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::endpoint::LinkStatus;

/// A dial or a link.
#[derive(Debug)]
pub(super) struct LinkEntry {
    pub(super) relay: RelayId,
    pub(super) carrier: Carrier,
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
    /// The link that serves each relay.
    ready: BTreeMap<RelayId, LinkId>,
    /// What is shown of the others, and by which carrier it came.
    told: BTreeMap<RelayId, (Carrier, LinkError)>,
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
        self.ready.insert(relay, link);
        self.told.remove(&relay);
        if let Some(status) = self.relays.get_mut(&relay) {
            status.since = Some(up.since);
            status.carrier = Some(up.carrier);
            status.address = up.address;
            status.observed = Some(up.observed);
            status.intercepted = up.intercepted;
            status.error = None;
            status.certificate_refused = false;
            status.proxy_failed = false;
        }
    }

    /// A dial failed or a link ended; its carrier, if still known. What is shown changes only if no other link serves the
    /// relay, and not for what is no news beside what was said over the other carrier.
    pub(super) fn failed(
        &mut self,
        relay: RelayId,
        link: LinkId,
        carrier: Option<Carrier>,
        error: &LinkError,
    ) {
        match self.ready.get(&relay) {
            Some(serving) if *serving != link => return,
            _ => self.ready.remove(&relay),
        };
        if let Some(carrier) = carrier {
            let told = self.told.get(&relay);
            if told.is_some_and(|(by, told)| *by != carrier && !error.is_news_beside(told)) {
                return;
            }
            self.told.insert(relay, (carrier, error.clone()));
        }
        if let Some(status) = self.relays.get_mut(&relay) {
            status.since = None;
            status.carrier = None;
            status.address = None;
            status.observed = None;
            status.intercepted = false;
            status.error = Some(error.to_string());
            status.certificate_refused = matches!(error, LinkError::Certificate(_));
            status.proxy_failed = matches!(error, LinkError::Proxy(_));
        }
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
    use byway_wire::relay::control::RefuseReason;

    use super::*;

    #[test]
    fn what_a_proxy_said_is_shown_though_udp_fails_later() {
        let relay = RelayId(0);
        let mut table = LinkTable::default();
        table.note_relay(relay, &RelayUrl::new("relay.test", 443, None).unwrap());
        let proxy = LinkError::from(ProxyError {
            proxy: "http://proxy.test:3128".to_owned(),
            fault: ProxyFault::AuthRefused,
        });
        table.failed(relay, LinkId(2), Some(Carrier::Tls), &proxy);
        table.failed(relay, LinkId(1), Some(Carrier::Udp), &LinkError::TimedOut);
        let shown = table.statuses().remove(0);
        assert!(shown.proxy_failed);
        assert_eq!(shown.error, Some(proxy.to_string()));
        // The next word over TLS counts again.
        table.failed(relay, LinkId(3), Some(Carrier::Tls), &LinkError::TimedOut);
        let shown = table.statuses().remove(0);
        assert!(!shown.proxy_failed);
        assert_eq!(shown.error, Some(LinkError::TimedOut.to_string()));
    }

    #[test]
    fn a_word_over_one_carrier_is_shown_though_the_other_is_silent_for_longer() {
        let relay = RelayId(0);
        let refused = LinkError::Refused(RefuseReason::Identity, "TLS ends before".to_owned());
        for (by, silent) in [(Carrier::Tls, Carrier::Udp), (Carrier::Udp, Carrier::Tls)] {
            let mut table = LinkTable::default();
            table.note_relay(relay, &RelayUrl::new("relay.test", 443, None).unwrap());
            let mut shown = |link, carrier, error: &LinkError| {
                table.failed(relay, LinkId(link), Some(carrier), error);
                table.statuses().remove(0).error
            };
            assert_eq!(shown(1, by, &refused), Some(refused.to_string()));
            let beside = shown(2, silent, &LinkError::TimedOut);
            assert_eq!(beside, Some(refused.to_string()));
            // Its own silence is news, and so is another word.
            let later = shown(3, by, &LinkError::TimedOut);
            assert_eq!(later, Some(LinkError::TimedOut.to_string()));
            let other = LinkError::Broken("reset".to_owned());
            assert_eq!(shown(4, silent, &other), Some(other.to_string()));
        }
    }
}
