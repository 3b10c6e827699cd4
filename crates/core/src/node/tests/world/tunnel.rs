//! The toy tunnel of each host: it numbers its datagrams, and acknowledges what it gets.

use super::*;

impl World {
    /// The application of `host` writes one datagram into the tunnel.
    pub(in crate::node::tests) fn write(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        let seq = h.next_seq;
        h.next_seq += 1;
        h.unacked.insert(seq, now);
        h.flow.sent += 1_000;
        h.flow.in_flight += 1_000;
        h.flow.waiting_since.get_or_insert(now);
        h.flow.quiet_since.get_or_insert(now);
        self.send_data(host, 0, seq);
        if let Some(way) = self.hosts[host].route.as_ref().and_then(|r| r.primary) {
            let recent = &mut self.hosts[host].recent;
            recent.push_back((seq, way));
            if recent.len() > 16 {
                recent.pop_front();
            }
        }
    }
    /// Writes every `gap` for `time`.
    pub(in crate::node::tests) fn chat(&mut self, host: usize, gap: Duration, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.write(host);
            self.pass(gap);
        }
    }
    pub(super) fn sample(&mut self, host: usize) {
        if self.hosts[host]
            .peer
            .is_some_and(|p| self.hosts[host].node.watched_flows().contains(&p))
        {
            self.sample_now(host);
        }
    }
    pub(super) fn sample_now(&mut self, host: usize) {
        let now = self.now;
        let h = &mut self.hosts[host];
        if let Some(peer) = h.peer {
            h.node.handle_flow(now, peer, h.flow);
        }
    }
    pub(super) fn send_data(&mut self, host: usize, kind: u8, seq: u64) {
        let Some(route) = self.hosts[host].route.clone() else {
            return;
        };
        let mut data = vec![0x40, kind];
        data.extend_from_slice(&seq.to_be_bytes());
        if kind == 0 {
            data.resize(self.hosts[host].payload, 0);
        }
        let standby = route.standby.filter(|_| route.duplicate);
        for way in route.primary.into_iter().chain(standby) {
            self.transmit(host, way, data.clone().into());
        }
        // Any datagram: a tunnel that only acknowledges is in use too.
        if std::mem::take(&mut self.hosts[host].flow_armed) {
            self.sample_now(host);
        }
    }
    pub(super) fn on_data(&mut self, host: usize, way: Way, data: &[u8]) {
        let now = self.now;
        let at = self.elapsed();
        let h = &mut self.hosts[host];
        let on_route = h
            .route
            .as_ref()
            .is_some_and(|r| r.primary == Some(way) || r.standby == Some(way));
        let known = h.peer.is_some_and(|peer| h.known.contains(&(peer, way)));
        if !known && !on_route {
            h.unknown_source += 1;
            return;
        }
        let seq = u64::from_be_bytes(data[2..10].try_into().unwrap());
        if data[1] == 0 {
            if h.seen.insert(seq) {
                h.received.push((at, seq));
            }
            self.send_data(host, 1, seq);
        } else if let Some(sent) = h.unacked.remove(&seq) {
            let rtt = now - sent;
            h.flow.srtt = if h.flow.srtt.is_zero() {
                rtt
            } else {
                (h.flow.srtt * 7 + rtt) / 8
            };
            h.flow.acked += 1_000;
            h.flow.in_flight -= 1_000;
            h.flow.last_ack = Some(now);
            h.flow.waiting_since = h.unacked.values().min().copied();
            h.flow.quiet_since = (h.flow.in_flight > 0).then_some(now);
        }
    }
}
