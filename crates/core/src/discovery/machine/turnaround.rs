//! The hairpin test as part of discovery: when it begins, and what becomes of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use byway_wire::stun::{self, Message, TransactionId};

use super::{Discovery, Hairpin, Ignored, Mapping, SocketId, Verdict, screen, sends_to};

impl Discovery {
    /// Begins the test somebody asked for, if this network is one where its answer means something.
    pub(super) fn begin_hairpin(&mut self, now: Instant) {
        if !std::mem::take(&mut self.wants_hairpin) {
            return;
        }
        let believed = self.report.servers.iter().filter(|row| row.believed);
        let nearest = believed.filter_map(|row| row.rtt_ms).min_by(f64::total_cmp);
        let nearest = Duration::try_from_secs_f64(nearest.unwrap_or_default() / 1e3);
        self.hairpin = self
            .hairpin_target()
            .map(|target| Hairpin::new(now, target, nearest.unwrap_or_default()));
        if self.hairpin.is_none() {
            // What was found out once does not hold of a network that cannot be asked any more.
            let mut report = (*self.report).clone();
            report.hairpin = None;
            self.publish(report);
        }
        self.run_hairpin(now);
    }

    /// Our outside address, where there is a NAT that shows the same to everyone and a believed server has named it.
    fn hairpin_target(&self) -> Option<SocketAddr> {
        let report = &self.report;
        let target = report.reflexive_v4?;
        let named = report
            .servers
            .iter()
            .any(|row| row.believed && row.mapped == Some(target));
        let same_for_all = match report.mapping {
            Mapping::EndpointIndependent => true,
            Mapping::Unknown => report.port_dependent != Some(true),
            _ => false,
        };
        let useful = named && same_for_all && report.public == Some(false);
        (useful && screen::is_askable(target)).then_some(target)
    }

    /// Sends what is due, and draws the conclusion when it is time.
    pub(super) fn run_hairpin(&mut self, now: Instant) {
        let Some(test) = &mut self.hairpin else {
            return;
        };
        let Some(socket) = self.sockets.iter().find(|s| sends_to(s, test.target())) else {
            self.hairpin = None;
            return;
        };
        while test.is_due(now) {
            let txid = TransactionId(self.rng.bytes());
            let request = stun::encode_request(txid, true, None);
            test.sent(txid);
            self.transmits
                .push_back((socket.id, test.target(), request.into()));
        }
        if let Some(verdict) = test.expired(now) {
            self.end_hairpin(verdict);
        }
    }

    /// Takes a datagram with a transaction id of the test: our own request, or a fraud.
    pub(super) fn take_hairpin(
        &mut self,
        now: Instant,
        socket: SocketId,
        datagram: &[u8],
    ) -> Result<(), (Ignored, bool)> {
        let Some(test) = &self.hairpin else {
            return Ok(());
        };
        // A server that sits at our supposed address would answer rather than turn it around.
        let Ok(Message::Request { .. }) = stun::decode(datagram) else {
            return Err((Ignored::UnknownTransaction, true));
        };
        let asked_from = self.sockets.iter().find(|s| sends_to(s, test.target()));
        if asked_from.is_none_or(|asked_from| asked_from.id != socket) {
            return Err((Ignored::WrongSocket, true));
        }
        self.now = Some(now);
        self.end_hairpin(Verdict::Returned);
        Ok(())
    }

    fn end_hairpin(&mut self, verdict: Verdict) {
        let tested = self.hairpin.take().map(|test| test.target().ip());
        let mut report = (*self.report).clone();
        // A late answer may have corrected the address meanwhile.
        if report.reflexive_v4.map(|addr| addr.ip()) == tested {
            report.hairpin = Some(verdict == Verdict::Returned);
            self.publish(report);
        }
        // Who waits for the round to settle learns that it has.
        self.fresh = true;
    }
}
