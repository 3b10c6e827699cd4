//! From answers to a finding: one pure function. The rules, with their reasons, are in the module's documentation.
//!
//! # The port pattern
//!
//! An endpoint-independent mapping shows one port: it is the local one (*preserving*) or it says nothing. A dependent
//! mapping shows one port for each destination, in the order of the requests. They are *sequential* if each differs from
//! the one before by 1 to 16 in the same direction (other hosts behind the NAT take ports in between, hence not exactly
//! one); the delta is the smallest step seen. One voter among four or more that breaks the sequence is left out: it may
//! lie. If leaving one out of three would make a sequence of two, that is too little to tell, and the pattern is unknown.
//! Otherwise there is none: *random*.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::addr::is_inside;

use super::{Mapping, PortPattern};

/// The largest step between two mappings that is still a sequence. Sixteen mappings of other hosts within the
/// millisecond in which the requests leave is a busy NAT; two random ports are this close once in two thousand.
const MAX_STEP: i32 = 16;

/// One believable answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Observation {
    /// Who was asked.
    pub(super) server: SocketAddr,
    /// Whose voice it is.
    pub(super) voter: u32,
    /// When it was first asked, among the others.
    pub(super) order: u32,
    /// How it saw us.
    pub(super) mapped: SocketAddr,
}

/// The socket that asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local<'a> {
    pub(super) port: u16,
    pub(super) addrs: &'a [IpAddr],
}

/// What follows from the observations of one family.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Finding {
    pub(super) reflexive: Option<SocketAddr>,
    pub(super) mapping: Mapping,
    pub(super) port_dependent: Option<bool>,
    pub(super) ports: PortPattern,
    /// The observations that are borne out, by index.
    pub(super) believed: BTreeSet<usize>,
    /// The observations that were not weighed, by index: made inside our own network.
    pub(super) set_aside: BTreeSet<usize>,
    pub(super) evidence: Evidence,
}

/// How much more answers could change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Evidence {
    /// Another voter could change the finding.
    #[default]
    Weak,
    /// Only a second port of a server heard already could refine it.
    AllButPorts,
    /// Nothing that one more server says can.
    Conclusive,
}

/// Infers what the observations of one family, all made from one socket, show.
pub(super) fn infer(observations: &[Observation], local: Local<'_>) -> Finding {
    let outside = from_outside(observations);
    let set_aside = (0..observations.len())
        .filter(|i| !outside.contains(i))
        .collect();
    let Some(ip) = our_ip(observations, &outside, local) else {
        return Finding {
            set_aside,
            ..Finding::default()
        };
    };
    let mut heard = outside;
    heard.retain(|&i| observations[i].mapped.ip() == ip);
    heard.sort_by_key(|&i| observations[i].order);
    let heard: Vec<(usize, Observation)> =
        heard.into_iter().map(|i| (i, observations[i])).collect();

    let voters: BTreeSet<u32> = heard.iter().map(|(_, o)| o.voter).collect();
    let last = heard.last().map(|(_, o)| o.mapped);
    let ports = port_votes(&heard);
    let mut finding = Finding {
        reflexive: last,
        port_dependent: ports.verdict(),
        believed: heard.iter().map(|(i, _)| *i).collect(),
        set_aside,
        ..Finding::default()
    };
    if voters.len() >= 2
        && let Some(agreed) = agreed_mapping(&heard, voters.len(), local)
    {
        finding.reflexive = Some(agreed);
        finding
            .believed
            .retain(|&i| observations[i].mapped == agreed);
        finding.ports = preserving(agreed, local);
        finding.evidence = Evidence::Conclusive;
        if ports.differ >= 2 && finding.port_dependent == Some(true) {
            // The same port for two addresses and another for each port: none of RFC 4787's behaviours.
            finding.ports = PortPattern::Unknown;
        } else {
            finding.mapping = Mapping::EndpointIndependent;
            finding.port_dependent = ports.verdict().filter(|differs| !differs);
        }
        return finding;
    }
    finding.mapping = match (voters.len(), finding.port_dependent) {
        (_, Some(true)) => Mapping::AddressAndPortDependent,
        (1, _) => Mapping::Unknown,
        _ => Mapping::AddressDependent,
    };
    finding.ports = match (finding.mapping, finding.reflexive) {
        (Mapping::Unknown, Some(reflexive)) => preserving(reflexive, local),
        _ => pattern(&heard),
    };
    if voters.len() >= 3 {
        finding.evidence = Evidence::AllButPorts;
    }
    finding
}

/// The observations that tell how we look from outside. A server inside our own network sees what is behind the NAT: it
/// counts only where there is no other.
fn from_outside(observations: &[Observation]) -> Vec<usize> {
    let outside: Vec<usize> = (0..observations.len())
        .filter(|&i| !is_inside(observations[i].server.ip()))
        .collect();
    if outside.is_empty() {
        return (0..observations.len()).collect();
    }
    outside
}

/// True if this is the address and port of the very socket: something no server can know unless it sees it.
fn is_own(mapped: SocketAddr, local: Local<'_>) -> bool {
    mapped.port() == local.port && local.addrs.contains(&mapped.ip())
}

/// The address that more than half of the voters name. Our own socket has a voice where a server names it exactly.
fn our_ip(observations: &[Observation], among: &[usize], local: Local<'_>) -> Option<IpAddr> {
    let mut votes: BTreeMap<IpAddr, BTreeSet<u32>> = BTreeMap::new();
    let mut voters = BTreeSet::new();
    let mut own = None;
    for &i in among {
        let Observation { voter, mapped, .. } = observations[i];
        votes.entry(mapped.ip()).or_default().insert(voter);
        voters.insert(voter);
        if is_own(mapped, local) {
            own = Some(mapped.ip());
        }
    }
    let all = voters.len() + usize::from(own.is_some());
    let mut majority = votes
        .into_iter()
        .map(|(ip, voters)| (ip, voters.len() + usize::from(own == Some(ip))))
        .filter(|(_, count)| 2 * count > all)
        .map(|(ip, _)| ip);
    // A voter with several ports may name several addresses, so two can have a majority: then none has.
    match (majority.next(), majority.next()) {
        (Some(ip), None) => Some(ip),
        _ => None,
    }
}

/// The address and port that at least two and more than half of the voters name.
fn agreed_mapping(
    heard: &[(usize, Observation)],
    voters: usize,
    local: Local<'_>,
) -> Option<SocketAddr> {
    let mut votes: BTreeMap<SocketAddr, BTreeSet<u32>> = BTreeMap::new();
    for (_, observation) in heard {
        votes
            .entry(observation.mapped)
            .or_default()
            .insert(observation.voter);
    }
    let own = usize::from(votes.keys().any(|mapped| is_own(*mapped, local)));
    votes
        .into_iter()
        .map(|(mapped, voters)| {
            let own = usize::from(is_own(mapped, local));
            (voters.len() + own, mapped)
        })
        .filter(|(count, _)| *count >= 2 && 2 * count > voters + own)
        .max_by_key(|(count, _)| *count)
        .map(|(_, mapped)| mapped)
}

/// How many voters show that two of their ports see the same mapping, or different ones.
struct PortVotes {
    same: usize,
    differ: usize,
}

impl PortVotes {
    fn verdict(&self) -> Option<bool> {
        match self.differ.cmp(&self.same) {
            std::cmp::Ordering::Greater => Some(true),
            std::cmp::Ordering::Less => Some(false),
            std::cmp::Ordering::Equal => None,
        }
    }
}

fn port_votes(heard: &[(usize, Observation)]) -> PortVotes {
    // The mappings each destination address saw, by its port; several at one port are one configured twice.
    let mut seen: BTreeMap<IpAddr, BTreeMap<u16, SocketAddr>> = BTreeMap::new();
    let mut voter_of = BTreeMap::new();
    for (_, o) in heard {
        seen.entry(o.server.ip())
            .or_default()
            .entry(o.server.port())
            .or_insert(o.mapped);
        voter_of.insert(o.server.ip(), o.voter);
    }
    let mut differs: BTreeMap<u32, bool> = BTreeMap::new();
    for (ip, mappings) in &seen {
        if mappings.len() < 2 {
            continue;
        }
        let distinct: BTreeSet<&SocketAddr> = mappings.values().collect();
        *differs.entry(voter_of[ip]).or_default() |= distinct.len() > 1;
    }
    let differ = differs.values().filter(|differs| **differs).count();
    PortVotes {
        same: differs.len() - differ,
        differ,
    }
}

fn preserving(reflexive: SocketAddr, local: Local<'_>) -> PortPattern {
    if reflexive.port() == local.port {
        PortPattern::Preserving
    } else {
        PortPattern::Unknown
    }
}

/// The pattern of a dependent mapping's ports, in the order in which they were made.
fn pattern(heard: &[(usize, Observation)]) -> PortPattern {
    let mut known = BTreeSet::new();
    let mappings: Vec<(u32, i32)> = heard
        .iter()
        .filter(|(_, o)| known.insert(o.mapped))
        .map(|(_, o)| (o.voter, i32::from(o.mapped.port())))
        .collect();
    if mappings.len() < 2 {
        return PortPattern::Unknown;
    }
    let without = |left_out: Option<u32>| -> Vec<(i32, i32)> {
        (0..)
            .zip(&mappings)
            .filter(|(_, (voter, _))| Some(*voter) != left_out)
            .map(|(position, (_, port))| (position, *port))
            .collect()
    };
    if let Some(delta) = step(&without(None)) {
        return PortPattern::Sequential { delta };
    }
    let mut too_few = false;
    let voters: BTreeSet<u32> = mappings.iter().map(|(voter, _)| *voter).collect();
    for voter in voters {
        let rest = without(Some(voter));
        match step(&rest) {
            Some(delta) if rest.len() >= 3 => return PortPattern::Sequential { delta },
            Some(_) => too_few = true,
            None => {}
        }
    }
    if too_few {
        PortPattern::Unknown
    } else {
        PortPattern::Random
    }
}

/// The smallest step if these ports, by position, are one sequence.
fn step(ports: &[(i32, i32)]) -> Option<i32> {
    let mut smallest: Option<i32> = None;
    for pair in ports.windows(2) {
        let distance = pair[1].0 - pair[0].0;
        let difference = pair[1].1 - pair[0].1;
        if difference == 0 || difference.abs() > MAX_STEP * distance {
            return None;
        }
        // A mapping left out in between took its share.
        let step = match difference / distance {
            0 => difference.signum(),
            step => step,
        };
        match smallest {
            Some(known) if known.signum() != step.signum() => return None,
            Some(known) if known.abs() <= step.abs() => {}
            _ => smallest = Some(step),
        }
    }
    smallest
}

#[cfg(test)]
mod tests;
