//! Paths: how datagrams reach one peer instance (design section 6).
//!
//! # The algorithm
//!
//! A tunnel begins on a relay channel and moves when something better has been *proven*. This module keeps all ways to
//! one peer instance, proves them, ranks them, and says which one carries data.
//!
//! **Association.** Both sides know each other's probe key from the signed records a relay forwarded; everything here is
//! sealed with the keys that follow from them. Each side tells the other, inside its sealed candidates, a random *index*
//! to be written into probes. A message that does not open, or whose counter was seen before, is counted and changes
//! nothing.
//!
//! **Candidates.** A peer's list is believed as far as its addresses can be a peer's: no multicast, broadcast,
//! unspecified or link-local addresses, no port 0, loopback only when the peer is on this host, at most 32. (A relay
//! attests that: it sees the peer at an address of our host, or both of us on its own loopback.) For each
//! address and each local socket of its family there is one direct path. An authenticated ping from an address nobody
//! named (a NAT chose it) makes one more. At most 64 direct paths are kept; what has been silent longest makes room.
//!
//! **Checking.** A direct path is first *searched*: small pings at 0, 25, 50, 100, 200, 400 and 800 ms, then slowly
//! while the tunnel is in use. Both sides do so at once, so that both NATs open. An address that no relay attests gets
//! three small pings, three more if an authenticated ping came from it, and nothing for a minute after that, so that
//! nobody can aim our probes, not even a peer that forges its source address. Once something came back, pings of all usual
//! sizes from 1,200 to 1,444 bytes are sent together (see `size`); an answer is as long as its ping. Then the path is *valid*
//! with the largest size that it proved, one round trip later, or three where it is narrow. A channel needs no search: its sizes
//! are tested as soon as the peer's index is known, and until that is concluded it counts as full-size.
//!
//! **Choosing.** Each path has a [`Score`]; a [`Policy`] compares. A better tier that is not impaired is taken as soon
//! as it is valid, be it narrow; anything else must be better by 5 ms and 20 % (or less
//! impaired) three times in a row. While the tunnel is active the primary, the standby and up to four other valid paths
//! are pinged and judged each second. An idle tunnel sends one small ping each 20 seconds on a direct primary, so that
//! its NAT mapping lives, and does nothing else.
//!
//! **Standby.** The best path of the other sort: the relay channel while direct. It costs nothing to keep, the link
//! under it is kept alive anyway.
//!
//! **Suspicion and failover.** Only a missing round trip is evidence: the tunnel's bytes in flight unacknowledged, or a
//! sealed ping unanswered, for max(2.5 srtt + 4 rttvar, 100 ms). Then the primary is *suspected*: data is duplicated on
//! the standby, the last datagrams are replayed, the peer is told to do the same, and primary and alternatives are
//! pinged at the size in use. If an alternative answers and the primary does not within its round trip + 50 ms, data
//! moves and the loser is quarantined for 10 s, doubling to 10 min. Any answer on the primary clears the suspicion. If
//! everything is silent nothing is demoted: the network is away, not the path. Pings go on with growing gaps, and the
//! first answer decides; a ping of the peer's, which is there again, begins the gaps anew. A primary that keeps answering
//! while the flow stays silent is doubted at growing intervals.
//!
//! In a steady flow the sender's retransmission timeout (srtt + 4 rttvar since the last acknowledgement, 100 ms at least)
//! is evidence already. An unanswered ping is repeated twice, 400 ms apart, before it counts: the bytes of a tunnel in
//! use say it sooner, and a queue that fills delays a ping. A side whose own bytes are being acknowledged does not
//! follow the other's suspicion.
//!
//! **QUIC's own timers.** A path that answers may carry a tunnel whose QUIC waits for hours, because its estimate of the round
//! trip holds a sleep, or because it backed off while the peer slept: then the tunnel is made to speak (see `nudge`).
//!
//! **Hard NATs.** Where one side's NAT gives each destination another random port and the other's does not, and ordinary
//! pings found nothing, both sides try many ports (see `spray`). A ping that gets through comes in by the same door as one
//! from an address nobody named.
//!
//! **Roaming.** When the host's network changes, or it slept, every direct path that was more than a word is searched anew,
//! and the primary is suspected at once (`docs/decisions/0016`): the peer is asked, and learns by that from where we speak
//! now. A peer that names an address again is searched for there again.

mod addresses;
pub(crate) mod candidate;
mod check;
mod failover;
mod measure;
mod nudge;
mod paths;
#[cfg(test)]
mod rig;
mod route;
mod rtt;
mod score;
mod secure;
mod size;
mod spray;
mod suspect;

pub(crate) use paths::{Output, Paths};
pub use score::{BestScore, PathId, Policy, Score, Standing, Verdict, score};
pub(crate) use secure::Association;
pub(crate) use spray::{Ask, MOST_AT_ONCE};
