//! The data plane: what every shard and every TLS link does with a run of relay data.
//!
//! UDP to UDP, a run leaves as it came: the channel id is the same on both sides, so not a byte is touched. UDP to TLS,
//! the headers of the segments become one frame header; TLS to UDP, the other way round. TLS to TLS, the frame itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use byway_relay_core::forward::Source;
use byway_relay_core::io::LinkId;
use byway_wire::ChannelId;
use byway_wire::relay::cookie::{self, CookieKey};
use byway_wire::relay::data::HEADER_LEN;
use byway_wire::relay::frame::{self, DATA_HEADER_LEN};
use quinn_udp::EcnCodepoint;

use crate::delays::Delays;
use crate::limit::{Prefix, PrefixLimiter, Rate};
use crate::outbox::{Outbox, Queued};
use crate::stats::{Counters, add, bump};
use crate::table::{Table, Way};
use crate::udp::runs::Run;
use crate::udp::socket::{Destination, Socket, sendable};
use crate::udp::trains::Train;

/// Frames below this are copied before they wait, in bytes: cheaper than what they would hold on to.
const SMALL_FRAME: usize = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) table: Arc<Table>,
    /// For each listener its shards' sockets.
    pub(crate) sockets: Vec<Vec<Arc<Socket>>>,
    /// Longest payload forwarded, in bytes.
    pub(crate) max_datagram: usize,
    pub(crate) cookie_key: CookieKey,
    /// The start of the relay's clock, from which cookies count minutes.
    pub(crate) started: Instant,
    pub(crate) budgets: Budgets,
    pub(crate) delays: Arc<Delays>,
}

/// What the relay does for people it does not know.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// Answers longer than their request (design section 12).
    pub(crate) stun: PrefixLimiter,
    /// Rebind cookies: a node whose NAT moved needs one, and repeats its data until it has it.
    pub(crate) cookies: PrefixLimiter,
    /// Runs of echoes on channel 0, by which nodes see that a link carries data: a few at a link's beginning, and when it is in doubt.
    pub(crate) echoes: PrefixLimiter,
}

impl Budgets {
    /// `stun`: answers in a second to one network's bare requests; `stun_in_all`: to everybody's. Neither is 0.
    pub(crate) fn new(now: Instant, stun: u32, stun_in_all: u32) -> Self {
        let same = |n: u32| Rate::per_second(n.into(), n.into());
        let stun = (same(stun), same(stun_in_all));
        let cookies = (Rate::per_second(20, 20), Rate::per_second(5_000, 5_000));
        // An office that comes back behind one address after an outage.
        let echoes = (
            Rate::per_second(200, 1_000),
            Rate::per_second(50_000, 50_000),
        );
        Self {
            stun: PrefixLimiter::new(now, Prefix::NETWORK, stun.0, stun.1),
            cookies: PrefixLimiter::new(now, Prefix::NETWORK, cookies.0, cookies.1),
            echoes: PrefixLimiter::new(now, Prefix::HOST, echoes.0, echoes.1),
        }
    }
}

/// Where a received buffer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    /// Which of our addresses it was sent to.
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) listener: usize,
    pub(crate) shard: usize,
    pub(crate) ecn: Option<EcnCodepoint>,
}

impl Origin {
    /// The way back.
    fn back(&self) -> Destination {
        Destination {
            addr: self.addr,
            local_ip: self.local_ip,
        }
    }
}

impl Plane {
    /// What of a run is as long as it may be, and not only headers. Before runs are put together: a shorter datagram behind one that is too long is
    /// not to be dropped with it.
    pub(crate) fn sized<'a>(&self, run: Run<'a>, counters: &Counters) -> Option<Run<'a>> {
        if run.segment <= HEADER_LEN {
            add(&counters.dropped_unknown, run.count());
            return None;
        }
        let fits = |run: &Run<'_>| run.segment - HEADER_LEN <= self.max_datagram;
        if fits(&run) {
            return Some(run);
        }
        let last = run
            .shorter_last()
            .filter(|last| last.segment > HEADER_LEN && fits(last));
        add(
            &counters.dropped_oversize,
            run.count() - u64::from(last.is_some()),
        );
        last
    }

    /// Relay data that came to a UDP shard, of sizes that it may have. False if nothing of it was passed on, which is cheap.
    pub(crate) fn forward_udp(&self, train: &Train<'_>, counters: &Counters) -> bool {
        let (channel, from) = (train.channel, &train.from);
        if channel == ChannelId::ECHO {
            if !self.table.is_source(from.addr) {
                self.unbound(train, counters);
            } else if self.budgets.echoes.take(Instant::now(), from.addr.ip()) {
                add(&counters.echoed, train.count);
                if let Some(socket) = self.socket(from.listener, from.shard) {
                    socket.send(
                        from.back(),
                        from.ecn,
                        train.pieces(),
                        train.segment,
                        counters,
                    );
                }
                return true;
            } else {
                // A proof takes a few; beyond that this would be a way round what a node may send.
                add(&counters.dropped_rate, train.count);
            }
            return false;
        }
        let load = (train.count, train.payload());
        let mut passed_on = false;
        let routed = self.table.route(
            channel,
            Source::Udp(from.addr),
            load,
            |way, quota| match way {
                _ if !quota.take(load.0, load.1) => add(&counters.dropped_rate, load.0),
                Way::Udp { to, listener } => {
                    passed_on = true;
                    if let Some(socket) = self.socket(*listener, from.shard) {
                        socket.send(*to, from.ecn, train.pieces(), train.segment, counters);
                    }
                }
                Way::Tls(outbox) => {
                    passed_on = true;
                    queue(outbox, channel, to_frame(train), load.0, counters);
                }
                Way::Gone => add(&counters.dropped_gone, load.0),
            },
        );
        if routed.is_none() {
            self.unbound(train, counters);
        }
        passed_on
    }

    /// A data frame of a TLS link, whose node is at `ip`. `message` is the frame as it came, for passing on unchanged.
    pub(crate) fn forward_tls(
        &self,
        (link, ip): (LinkId, IpAddr),
        own: &Outbox,
        data: DataFrame,
        counters: &Counters,
    ) -> Taken {
        let DataFrame {
            channel,
            segment,
            payload,
            message,
        } = data;
        let count = payload.len().div_ceil(segment) as u64;
        add(&counters.tls_in, count);
        add(&counters.tls_in_bytes, payload.len() as u64);
        if segment.min(payload.len()) > self.max_datagram {
            add(&counters.dropped_oversize, count);
            return Taken::Stray;
        }
        if channel == ChannelId::ECHO {
            if self.budgets.echoes.take(Instant::now(), ip) {
                add(&counters.echoed, count);
                queue(own, channel, to_keep(&message), count, counters);
            } else {
                add(&counters.dropped_rate, count);
            }
            return Taken::Stray;
        }
        let bytes = payload.len() as u64;
        let routed = self
            .table
            .route(channel, Source::Tls(link), (count, bytes), |way, quota| {
                let verdict = quota.charge(count, bytes);
                match way {
                    _ if !verdict.passes => add(&counters.dropped_rate, count),
                    Way::Udp { to, listener } => {
                        // Any shard's socket will do; spread by link so that one does not carry all.
                        if let Some(socket) = self.socket(*listener, link.0 as usize) {
                            let datagrams = to_datagrams(channel, segment, &payload);
                            socket.send(*to, None, &[&datagrams], segment + HEADER_LEN, counters);
                        }
                    }
                    Way::Tls(outbox) => queue(outbox, channel, to_keep(&message), count, counters),
                    Way::Gone => add(&counters.dropped_gone, count),
                }
                verdict.pause
            });
        if routed.is_none() {
            add(&counters.dropped_unbound, count);
        }
        routed.map_or(Taken::Stray, Taken::Ours)
    }

    /// Sends a datagram back to where something came from.
    pub(crate) fn reply(&self, from: &Origin, datagram: &[u8], counters: &Counters) {
        if let Some(socket) = self.socket(from.listener, from.shard) {
            socket.send(from.back(), from.ecn, &[datagram], datagram.len(), counters);
        }
    }

    /// Data from an address that is not bound: dropped, and its sender is given the means to prove that it receives
    /// there. The same whether or not the channel exists, never longer than what asked for it.
    fn unbound(&self, train: &Train<'_>, counters: &Counters) {
        add(&counters.dropped_unbound, train.count);
        self.cookie(train.channel, train.segment, &train.from, counters);
    }

    /// A linked node seems to have moved there: it is asked to prove it, for its link as a whole.
    pub(crate) fn ask_to_rebind(&self, there: &Origin, counters: &Counters) {
        // Nothing of the node's triggers this, so no length bounds it; the budget does.
        self.cookie(ChannelId::ECHO, usize::MAX, there, counters);
    }

    fn cookie(&self, channel: ChannelId, longest: usize, to: &Origin, counters: &Counters) {
        if !sendable(to.addr) {
            return;
        }
        let now = Instant::now();
        let minute = now.saturating_duration_since(self.started).as_secs() / 60;
        // The budget first: a flood must not buy a MAC with every datagram.
        if cookie::len(to.addr) > longest || !self.budgets.cookies.take(now, to.addr.ip()) {
            return bump(&counters.cookies_limited);
        }
        let cookie = self.cookie_key.make(channel, to.addr, minute).encode();
        bump(&counters.cookies);
        self.reply(to, &cookie, counters);
    }

    fn socket(&self, listener: usize, shard: usize) -> Option<&Socket> {
        let shards = self.sockets.get(listener)?;
        shards.get(shard % shards.len()).map(AsRef::as_ref)
    }
}

/// What became of a data frame of a TLS link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It was of a channel of the node's. So long nothing more is to be read of the link: its node sent more than it may.
    Ours(Duration),
    /// It was for nobody, or an echo.
    Stray,
}

/// A data frame, taken apart.
#[derive(Debug)]
pub(crate) struct DataFrame {
    pub(crate) channel: ChannelId,
    pub(crate) segment: usize,
    pub(crate) payload: Bytes,
    /// The whole of it.
    pub(crate) message: Bytes,
}

fn queue(outbox: &Outbox, channel: ChannelId, frame: Bytes, count: u64, counters: &Counters) {
    let len = frame.len() as u64;
    match outbox.data(channel, frame) {
        Queued::Gone => add(&counters.dropped_gone, count),
        Queued::Yes(dropped) => {
            bump(&counters.tls_queued);
            add(&counters.tls_out, count);
            add(&counters.tls_out_bytes, len);
            add(&counters.tls_dropped_full, dropped.full);
            add(&counters.tls_dropped_old, dropped.old);
        }
    }
}

/// A frame that may wait. A small one is copied: it is a slice of a read buffer, and would keep the whole of it.
fn to_keep(frame: &Bytes) -> Bytes {
    if frame.len() < SMALL_FRAME {
        Bytes::copy_from_slice(frame)
    } else {
        frame.clone()
    }
}

/// Segments with a header each become one frame with one header.
fn to_frame(train: &Train<'_>) -> Bytes {
    // Neither can be too large: a train is at most 64 KiB.
    let segment = u16::try_from(train.segment - HEADER_LEN).unwrap_or(u16::MAX);
    let mut frame = BytesMut::with_capacity(DATA_HEADER_LEN + train.bytes);
    frame.extend_from_slice(&frame::data_header(train.channel, segment));
    for datagram in train.datagrams() {
        frame.extend_from_slice(datagram.get(HEADER_LEN..).unwrap_or_default());
    }
    frame.freeze()
}

/// The inverse of [`to_frame`].
fn to_datagrams(channel: ChannelId, segment: usize, payload: &[u8]) -> Vec<u8> {
    let header = channel.header();
    let count = payload.len().div_ceil(segment);
    let mut datagrams = Vec::with_capacity(payload.len() + count * HEADER_LEN);
    for part in payload.chunks(segment) {
        datagrams.extend_from_slice(&header);
        datagrams.extend_from_slice(part);
    }
    datagrams
}
