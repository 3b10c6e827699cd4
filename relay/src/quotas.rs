//! What the nodes that are here may send, all links of each together.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byway_relay_core::io::LinkId;
use byway_wire::NodeId;
use tokio::sync::Notify;

use crate::quota::Quota;

/// How often a node is told that it sends more than it may.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Quotas {
    nodes: HashMap<NodeId, Limited>,
    /// Rung when a node sends more than it may.
    bell: Arc<Notify>,
}

#[derive(Debug)]
struct Limited {
    quota: Arc<Quota>,
    /// The node's links.
    links: BTreeSet<LinkId>,
    /// When it was last told that it sends more.
    told: Option<Instant>,
}

impl Quotas {
    pub(crate) fn new(bell: Arc<Notify>) -> Self {
        Self {
            nodes: HashMap::new(),
            bell,
        }
    }

    /// A link of the node's came.
    pub(crate) fn add(&mut self, now: Instant, node: NodeId, link: LinkId) -> Arc<Quota> {
        let limited = self.nodes.entry(node).or_insert_with(|| Limited {
            quota: Arc::new(Quota::new(now, Arc::clone(&self.bell))),
            links: BTreeSet::new(),
            told: None,
        });
        limited.links.insert(link);
        Arc::clone(&limited.quota)
    }

    /// A link of the node's has gone.
    pub(crate) fn remove(&mut self, node: NodeId, link: LinkId) {
        if let Some(limited) = self.nodes.get_mut(&node) {
            limited.links.remove(&link);
        }
    }

    /// Forgets nodes that have gone, once they owe nothing and no end of a channel counts with what they may send any more: or whoever hangs
    /// up and links again would begin anew. True if some are left that have gone.
    pub(crate) fn forget_paid(&mut self) -> bool {
        self.nodes.retain(|_, limited| {
            !limited.links.is_empty()
                || Arc::strong_count(&limited.quota) > 1
                || !limited.quota.is_paid()
        });
        self.nodes.values().any(|limited| limited.links.is_empty())
    }

    /// Nodes that send more than they may, and were not told lately: the newest link of each that was `welcomed`.
    pub(crate) fn exceeding(
        &mut self,
        now: Instant,
        welcomed: impl Fn(LinkId) -> bool,
    ) -> Vec<LinkId> {
        let due = |limited: &&mut Limited| {
            limited.told.is_none_or(|at| at + TELL_EVERY <= now) && limited.quota.was_exceeded()
        };
        let exceeding = self.nodes.values_mut().filter(due);
        let told = exceeding.filter_map(|limited| {
            let newest = limited.links.iter().rev().copied();
            let link = newest.into_iter().find(|link| welcomed(*link))?;
            limited.told = Some(now);
            Some(link)
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use byway_relay_core::io::NodeRate;

    use super::*;

    fn node() -> NodeId {
        byway_wire::SecretKey::from_bytes(&[1; 32]).node_id()
    }
    const RATE: NodeRate = NodeRate {
        bytes: Some(1_000_000),
        datagrams: None,
    };

    #[test]
    fn who_links_again_goes_on_with_the_debt_it_had() {
        let (mut quotas, now) = (Quotas::new(Arc::default()), Instant::now());
        let quota = quotas.add(now, node(), LinkId(1));
        quota.set(RATE);
        quota.charge(1, 500_000_000);
        drop(quota);
        quotas.remove(node(), LinkId(1));
        assert!(quotas.forget_paid(), "it owes something");
        let quota = quotas.add(now, node(), LinkId(2));
        assert!(!quota.charge(1, 1).passes);
    }

    #[test]
    fn who_owes_nothing_is_forgotten_once_it_has_gone_and_its_channels_too() {
        let (mut quotas, now) = (Quotas::new(Arc::default()), Instant::now());
        let end_of_a_channel = quotas.add(now, node(), LinkId(1));
        quotas.remove(node(), LinkId(1));
        assert!(quotas.forget_paid());
        drop(end_of_a_channel);
        assert!(!quotas.forget_paid() && quotas.nodes.is_empty());
    }

    #[test]
    fn a_node_is_told_on_its_newest_link_that_was_welcomed_and_not_again_for_a_while() {
        let (mut quotas, now) = (Quotas::new(Arc::default()), Instant::now());
        for link in [1, 2, 3] {
            quotas.add(now, node(), LinkId(link)).set(RATE);
        }
        let exceed = |quotas: &mut Quotas| {
            quotas.add(now, node(), LinkId(1)).charge(1, 500_000_000);
        };
        let welcomed = |link: LinkId| link.0 < 3;
        assert_eq!(quotas.exceeding(now, welcomed), []);
        exceed(&mut quotas);
        assert_eq!(quotas.exceeding(now, welcomed), [LinkId(2)]);
        exceed(&mut quotas);
        assert_eq!(quotas.exceeding(now + TELL_EVERY / 2, welcomed), []);
        assert_eq!(quotas.exceeding(now + TELL_EVERY, welcomed), [LinkId(2)]);
    }
}
