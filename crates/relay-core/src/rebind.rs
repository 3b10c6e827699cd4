//! Rebinding: a node's NAT gave it another port, and its data must move there (design section 7).
//!
//! Data from an unbound address is dropped by the shards, which answer with a cookie: a MAC over channel, address and
//! minute. The node echoes it on its authenticated control stream. That proves two things at once: the node receives at
//! that address, and the address is this node's. Then all of the link's channels move; the link's own address moves
//! with them, for opens to come. A cookie for channel 0 does the same for a link that has no channel.

use std::time::Instant;

use byway_wire::relay::control::Control;
use byway_wire::relay::cookie::Cookie;
use byway_wire::{ChannelId, NodeInstance};

use crate::channels::Target;
use crate::io::*;
use crate::relay::Relay;

impl Relay {
    pub(crate) fn rebind(&mut self, now: Instant, link: LinkId, me: NodeInstance, cookie: &Cookie) {
        let minute = self.minute(now);
        let udp = self
            .links
            .get(&link)
            .is_some_and(|l| matches!(l.info.egress, Egress::Udp(_)));
        let genuine = self.cookie_key.0.verify(cookie, minute);
        let mine = cookie.channel == ChannelId::ECHO
            || self
                .channels
                .get(&cookie.channel)
                .is_some_and(|c| c.side_of(me).is_some());
        if !(udp && genuine && mine) {
            self.counters.bad_cookies += 1;
            return;
        }
        let Some(on) = self.links.get_mut(&link) else {
            return;
        };
        on.info.egress = Egress::Udp(cookie.addr);
        // Each datagram that was under way draws a cookie of its own.
        let news = std::mem::replace(&mut on.info.observed, cookie.addr) != cookie.addr;
        let ends: Vec<(ChannelId, Side)> = on.ends.iter().copied().collect();
        self.counters.rebound += 1;
        self.events.push_back(Event::Source {
            link,
            addr: Some(cookie.addr),
        });
        for &(channel, side) in &ends {
            let egress = Egress::Udp(cookie.addr);
            let Some(c) = self.channels.get_mut(&channel) else {
                continue;
            };
            if let Some(end) = c.end_mut(side) {
                end.egress = egress;
            }
            if matches!(c.target, Target::Here { .. }) {
                self.table(TableUpdate::Bind {
                    channel,
                    side,
                    egress,
                });
            }
        }
        let observed = cookie.addr;
        self.send(link, Control::Rebound { observed });
        for (channel, side) in ends.into_iter().filter(|_| news) {
            self.tell_moved(channel, side);
        }
    }
}
