//! From what has come in so far: what is settled, what is over, and what the report says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Asks, Discovery, Family, Kind, Round, sends};
use crate::discovery::infer::{Evidence, Finding, Local, Observation, infer};
use crate::discovery::server::{Fault, GIVE_UP, Server, State};
use crate::discovery::{NatReport, SecondNat, ServerRow};

/// A server silent for this long is dead for the question whether more evidence will come: it has been asked four times.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where round trips are longer than [`PATIENCE`] allows for, so is patience: this often the slowest answer's time.
const PATIENCE_RTTS: u32 = 4;

/// A family's finding, with the servers it rests on.
struct FamilyFinding {
    finding: Finding,
    believed: BTreeSet<u32>,
    set_aside: BTreeSet<u32>,
}

impl Discovery {
    /// Everything that follows from the present state: requests that are due, what is settled, what is over.
    pub(super) fn evaluate(&mut self, now: Instant) {
        for server in self.servers.values_mut() {
            if server
                .asking_since()
                .is_some_and(|began| now >= began + GIVE_UP)
            {
                server.conclude(Fault::NoAnswer);
            }
        }
        self.send_due(now);
        match self.round.as_ref().map(|round| round.asks) {
            None => self.reconsider(),
            Some(Asks::Everyone) => self.evaluate_full(now),
            Some(Asks::One(id)) => self.evaluate_refresh(now, id),
        }
    }

    fn evaluate_full(&mut self, now: Instant) {
        let Some(round) = &self.round else {
            return;
        };
        let patient = now < self.patience_ends(round);
        let was_settled = round.settled;
        let findings = [Family::V4, Family::V6].map(|family| self.find(family));
        let settled = [Family::V4, Family::V6]
            .iter()
            .zip(&findings)
            .all(|(family, finding)| self.is_family_settled(*family, finding, patient));

        let mut report = (*self.report).clone();
        let all = was_settled || settled;
        for (family, finding) in [Family::V4, Family::V6].into_iter().zip(&findings) {
            let done = all || self.is_family_settled(family, finding, patient);
            self.report_family(&mut report, family, finding, done);
        }
        self.report_rows(&mut report, &findings);
        report.public = self.public(&report);
        self.publish(report);

        let open = self.servers.values().any(Server::is_asking);
        if let Some(round) = &mut self.round {
            round.settled = all;
        }
        if all && !was_settled {
            self.fresh = true;
        }
        if !open {
            self.round = None;
        }
        if all {
            self.begin_hairpin(now);
        }
    }

    /// The server that is refreshed either bears the report out, or everything is asked anew.
    fn evaluate_refresh(&mut self, now: Instant, id: u32) {
        let Some(round) = &self.round else {
            return;
        };
        let patience_ends = self.patience_ends(round);
        let Some(server) = self.servers.get_mut(&id) else {
            self.round = None;
            return self.reconsider();
        };
        if server.is_asking() && now < patience_ends {
            return;
        }
        let same = |row: &&ServerRow| row.label == server.label && row.addr == server.addr;
        let reported = self.report.servers.iter().find(same);
        match (server.observation(), reported) {
            (Some((_, mapped)), Some(row)) if row.mapped == Some(mapped) => {
                server.row = row.clone();
                self.round = None;
            }
            _ => self.begin(now, Kind::Full),
        }
    }

    /// Outside a round: a server may have been removed.
    fn reconsider(&mut self) {
        let findings = [Family::V4, Family::V6].map(|family| self.find(family));
        let mut report = (*self.report).clone();
        for (family, finding) in [Family::V4, Family::V6].into_iter().zip(&findings) {
            self.report_family(&mut report, family, finding, true);
        }
        self.report_rows(&mut report, &findings);
        report.public = self.public(&report);
        self.publish(report);
    }

    /// What the answers of one family show.
    fn find(&self, family: Family) -> FamilyFinding {
        let mut ids = Vec::new();
        let mut observations = Vec::new();
        for (id, server) in self.outside(family) {
            if let Some((order, mapped)) = server.observation() {
                ids.push(*id);
                observations.push(Observation {
                    server: server.addr,
                    voter: server.voter,
                    order,
                    mapped,
                });
            }
        }
        let finding = match self.sockets.iter().find(|s| sends(s, family)) {
            Some(socket) => infer(
                &observations,
                Local {
                    port: socket.port,
                    addrs: &socket.addrs,
                },
            ),
            None => Finding::default(),
        };
        let believed = finding.believed.iter().map(|i| ids[*i]).collect();
        let set_aside = finding.set_aside.iter().map(|i| ids[*i]).collect();
        FamilyFinding {
            finding,
            believed,
            set_aside,
        }
    }

    fn is_family_settled(&self, family: Family, found: &FamilyFinding, patient: bool) -> bool {
        let mut asking = self.of(family).filter(|(_, server)| server.is_asking());
        let outstanding = match found.finding.evidence {
            Evidence::Conclusive => false,
            Evidence::AllButPorts => asking.any(|(id, server)| {
                self.of(family).any(|(other, sibling)| {
                    other != id
                        && sibling.addr.ip() == server.addr.ip()
                        && sibling.observation().is_some()
                })
            }),
            Evidence::Weak => asking.next().is_some(),
        };
        if !outstanding {
            return true;
        }
        let answered = self.servers.values().any(|s| s.observation().is_some());
        answered && !patient
    }

    fn report_family(
        &self,
        report: &mut NatReport,
        family: Family,
        found: &FamilyFinding,
        done: bool,
    ) {
        let udp = self.udp(family, done);
        let Finding {
            reflexive,
            mapping,
            port_dependent,
            ports,
            ..
        } = found.finding;
        let (old_udp, old_reflexive, old_mapping) = match family {
            Family::V4 => (
                &mut report.udp_v4,
                &mut report.reflexive_v4,
                &mut report.mapping,
            ),
            Family::V6 => (
                &mut report.udp_v6,
                &mut report.reflexive_v6,
                &mut report.mapping_v6,
            ),
        };
        if !done {
            // Any answer shows that UDP passes; what the first one says may yet be outvoted.
            *old_udp = udp.or(*old_udp);
            return;
        }
        let confirmed = *old_mapping == mapping;
        *old_udp = udp;
        *old_reflexive = reflexive;
        *old_mapping = mapping;
        if family == Family::V4 {
            // Settled before a second port answered: what the last round knew of ports stands until it does.
            let open = self.of(family).any(|(_, server)| server.is_asking());
            if port_dependent.is_some() || !confirmed || !open {
                report.port_dependent = port_dependent;
            }
            report.ports = ports;
        }
    }

    /// Whether UDP gets out and back: yes with any answer at all, no if two voters at least are silent.
    fn udp(&self, family: Family, done: bool) -> Option<bool> {
        let mut silent = BTreeSet::new();
        for (_, server) in self.outside(family) {
            match &server.state {
                State::Answered { .. } => return Some(true),
                State::Silent if self.socket(server.addr).is_some() => {
                    silent.insert(server.voter);
                }
                State::Asking(_) | State::Idle | State::Silent => {}
            }
        }
        let none_left = self.of(family).all(|(_, server)| !server.is_asking());
        (done && none_left && silent.len() >= 2).then_some(false)
    }

    fn report_rows(&mut self, report: &mut NatReport, findings: &[FamilyFinding; 2]) {
        for (id, server) in &mut self.servers {
            if server.observation().is_none() {
                continue;
            }
            let found = match Family::of(server.addr) {
                Family::V4 => &findings[0],
                Family::V6 => &findings[1],
            };
            server.row.believed = found.believed.contains(id);
            let outvoted = !server.row.believed
                && !found.set_aside.contains(id)
                && found.finding.reflexive.is_some();
            let fault = if server.addr.ip().is_loopback() {
                Some(Fault::OnThisHost)
            } else {
                outvoted.then_some(Fault::Outvoted)
            };
            server.row.fault = fault.map(|fault| fault.to_string());
        }
        report.servers = self
            .servers
            .values()
            .map(|server| server.row.clone())
            .collect();
    }

    fn public(&self, report: &NatReport) -> Option<bool> {
        let reflexive = report.reflexive_v4.or(report.reflexive_v6)?;
        let socket = self.socket(reflexive)?;
        if socket.addrs.is_empty() {
            return None;
        }
        Some(socket.port == reflexive.port() && socket.addrs.contains(&reflexive.ip()))
    }

    pub(super) fn publish(&mut self, mut report: NatReport) {
        report.generation = self.report.generation;
        report.double_nat = SecondNat::of(&report).map(SecondNat::is_suspected);
        let ip = |addr: Option<SocketAddr>| addr.map(|addr| addr.ip());
        if ip(report.reflexive_v4) != ip(self.report.reflexive_v4) || report.public == Some(true) {
            // It was about another address.
            report.hairpin = None;
        }
        if report != *self.report {
            report.generation += 1;
            self.report = Arc::new(report);
            self.fresh = true;
        }
    }

    pub(super) fn patience_ends(&self, round: &Round) -> Instant {
        let slowest = self
            .servers
            .values()
            .filter_map(|server| match server.state {
                State::Answered { took, .. } => Some(took),
                _ => None,
            });
        let patience = slowest.max().unwrap_or_default() * PATIENCE_RTTS;
        let began = self.servers.values().filter_map(Server::asking_since).max();
        began.unwrap_or(round.began) + patience.clamp(PATIENCE, GIVE_UP)
    }

    /// Servers whose answers say something of the network: one on this host sees no NAT wherever the host is.
    fn outside(&self, family: Family) -> impl Iterator<Item = (&u32, &Server)> {
        self.of(family)
            .filter(|(_, server)| !server.addr.ip().is_loopback())
    }

    fn of(&self, family: Family) -> impl Iterator<Item = (&u32, &Server)> {
        self.servers
            .iter()
            .filter(move |(_, server)| Family::of(server.addr) == family)
    }
}
