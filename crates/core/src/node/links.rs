//! Carrying on with what happened to links.

use std::time::Instant;

use byway_wire::ChannelId;

use super::Node;
use super::peer::Peer;
use crate::io::{Event, LinkId, RelayId, Transmit};
use crate::{link, path};

impl Node {
    /// What happened to links.
    pub(super) fn on_link_output(&mut self, now: Instant, output: link::Output) {
        match output {
            link::Output::Dial {
                link,
                relay,
                carrier,
            } => {
                let Some(url) = self.links.url(relay).cloned() else {
                    return;
                };
                let addrs = self.links.addrs(relay).to_vec();
                self.events.push_back(Event::Dial {
                    link,
                    relay,
                    url,
                    addrs,
                    carrier,
                });
            }
            link::Output::HangUp { link } => self.events.push_back(Event::HangUp { link }),
            link::Output::Send { link, message } => {
                self.events.push_back(Event::Control { link, message });
            }
            link::Output::Echo { link, payload } => {
                if let Some(way) = self.channel_way(link, ChannelId::ECHO) {
                    self.transmits.push_back(Transmit { way, data: payload });
                }
            }
            link::Output::Usable { link } => self.on_usable(link),
            link::Output::Ready {
                link,
                relay,
                carrier,
                observed,
                intercepted,
            } => {
                self.events.push_back(Event::LinkReady {
                    link,
                    relay,
                    carrier,
                    observed,
                    intercepted,
                });
                self.on_found(relay);
                self.observed_changed(now);
                // Calls may wait on the other lane of the race.
                self.on_usable(link);
            }
            link::Output::HeardAgain { relay } => self.on_heard_again(now, relay),
            link::Output::Replace { old, new } => self.move_channels(now, old, new),
            link::Output::Lost {
                link,
                relay,
                error,
                welcomed,
            } => {
                if welcomed {
                    self.events
                        .push_back(Event::LinkLost { link, relay, error });
                }
                self.detach_channels(now, link);
                self.observed_changed(now);
            }
            link::Output::Failed { relay, error } => {
                self.events.push_back(Event::LinkFailed { relay, error });
            }
            link::Output::RoundFailed { relay, error } => self.on_round_failed(now, relay, &error),
            link::Output::Leave {
                relay,
                alternates,
                lasted,
            } => self.on_leave(now, relay, alternates, lasted),
            link::Output::WillStop { relay } | link::Output::MayReturn { relay } => {
                self.touch_users(relay);
            }
            link::Output::Parting { relay } | link::Output::KeptAfterAll { relay } => {
                self.on_parting(relay);
            }
            link::Output::Dropped { relay } => self.on_dropped(now, relay),
            link::Output::Replaced => self.events.push_back(Event::Replaced),
            link::Output::TokenWanted => self.events.push_back(Event::TokenWanted),
        }
    }

    /// A relay was silent, and is heard again. Only for peers that it carries: whoever owns a relay can have it fall silent, and
    /// must not have us ask for others by that.
    fn on_heard_again(&mut self, now: Instant, relay: RelayId) {
        let carried = |peer: &Peer| peer.channels.iter().any(|c| c.relay == relay);
        let carried = self.peers.iter().filter(|(_, peer)| carried(peer));
        for id in carried.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.with_paths(now, id, path::Paths::handle_outage_over);
        }
    }

    /// A link connected: opens and attachments go out behind `Hello`.
    fn on_usable(&mut self, link: LinkId) {
        let Some(relay) = self.links.get(link).map(|l| l.relay) else {
            return;
        };
        self.touch_users(relay);
    }
}
