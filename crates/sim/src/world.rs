//! The world: the network and the programs on its hosts, run together until something is the case.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::net::{Happening, Hole, HostId, Network, SiteId, Step};
use crate::shell::hostile::{Abuser, Flooder, Forger};
use crate::shell::node::NodeShell;
use crate::shell::relay::RelayShell;
use crate::shell::stun::StunServer;

/// A program on a host.
#[expect(
    clippy::large_enum_variant,
    reason = "a handful of them in a run, and most are of the large kinds"
)]
enum Program {
    Node(NodeShell),
    Relay(RelayShell),
    Stun(StunServer),
    Flooder(Flooder),
    Forger(Forger),
    Abuser(Abuser),
}

/// Something that goes wrong, or right again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    /// A black hole opens.
    Open(Hole),
    /// It closes.
    Close(Hole),
    /// The NATs of a site restart.
    Rebind(SiteId),
    /// The relay's process dies.
    KillRelay(HostId),
    /// It says that it will stop in so long, and welcomes nobody any more.
    DrainRelay(HostId, Duration),
    /// It is started again.
    StartRelay(HostId),
    /// A STUN server's process dies for good.
    KillStun(HostId),
    /// The access link of a site loses this share of its packets from now on, in both directions.
    Loss(SiteId, f64),
    /// The access link of a site takes this long from now on, in each direction.
    Delay(SiteId, Duration),
    /// A host falls asleep: its program stands still. What comes by TCP waits for it, and datagrams as far as its sockets hold
    /// them.
    Sleep(HostId),
    /// It wakes up.
    Wake(HostId, Clock, Sockets),
    /// The wall clock of a host is set forwards by so much. Nothing else about it changes.
    ClockForwards(HostId, Duration),
    /// It is set back.
    ClockBackwards(HostId, Duration),
    /// A site gets another public address. A host that is at it itself learns of that, one behind a NAT does not.
    Readdress(SiteId, IpAddr),
}

/// What a machine's monotonic clock does while the machine sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// It goes on, as on Windows.
    Counts,
    /// It stands still, as Linux's and macOS's do.
    StandsStill,
}

/// What a machine that wakes up has in its sockets, and when that is read. Which of a program's tasks runs first is the
/// system's choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sockets {
    /// No datagrams: its network interface slept too.
    Lost,
    /// Those that came meanwhile, as for a process that was stopped. All is read after timers have fired and somebody has looked
    /// at the clock.
    ReadLater,
    /// The same, and all is read before anything is known of the sleep.
    ReadFirst,
}

impl Sockets {
    /// Every kind.
    pub const ALL: [Sockets; 3] = [Sockets::Lost, Sockets::ReadLater, Sockets::ReadFirst];
}

/// How a relay is started again.
type Restart = Box<dyn Fn(&Network, u32) -> RelayShell>;

/// See the module's documentation.
pub struct World {
    /// The network, with the clock.
    pub net: Network,
    programs: BTreeMap<HostId, Program>,
    faults: Vec<Fault>,
    restarts: BTreeMap<HostId, (u32, Restart)>,
    asleep: BTreeMap<HostId, Asleep>,
}

/// A host that sleeps.
struct Asleep {
    since: Duration,
    /// What its sockets have for it when it wakes up.
    kept: Vec<Happening>,
    /// Bytes of datagrams among that.
    buffered: usize,
}

/// Bytes of datagrams that wait for a sleeper: what Linux allows a socket unless it is told otherwise (`net.core.rmem_max`),
/// however much `byway` asks for (`BUFFER` in `socket/udp.rs`).
const RECEIVE_BUFFER: usize = 212_992;

impl Asleep {
    fn keep(&mut self, what: Happening) {
        match &what {
            Happening::Wake => return,
            Happening::Datagram { data, .. } => {
                if self.buffered + data.len() > RECEIVE_BUFFER {
                    return;
                }
                self.buffered += data.len();
            }
            _ => {}
        }
        self.kept.push(what);
    }
}

impl World {
    /// A network without programs.
    pub fn new(net: Network) -> Self {
        Self {
            net,
            programs: BTreeMap::new(),
            faults: Vec::new(),
            restarts: BTreeMap::new(),
            asleep: BTreeMap::new(),
        }
    }
    /// Starts a node.
    pub fn add_node(&mut self, mut node: NodeShell) {
        node.ask_gateway(&mut self.net);
        self.programs.insert(node.host(), Program::Node(node));
    }
    /// Starts a relay, and says how it is started again.
    pub fn add_relay(
        &mut self,
        host: HostId,
        start: impl Fn(&Network, u32) -> RelayShell + 'static,
    ) {
        self.programs
            .insert(host, Program::Relay(start(&self.net, 0)));
        self.restarts.insert(host, (0, Box::new(start)));
    }
    /// Starts a STUN server.
    pub fn add_stun(&mut self, host: HostId, server: StunServer) {
        self.programs.insert(host, Program::Stun(server));
    }
    /// Starts a flooder.
    pub fn add_flooder(&mut self, host: HostId, flooder: Flooder) {
        self.programs.insert(host, Program::Flooder(flooder));
    }
    /// Starts a forger.
    pub fn add_forger(&mut self, host: HostId, forger: Forger) {
        self.programs.insert(host, Program::Forger(forger));
    }
    /// Starts an abuser.
    pub fn add_abuser(&mut self, host: HostId, abuser: Abuser) {
        self.programs.insert(host, Program::Abuser(abuser));
    }

    /// A node, and the network it acts on. Panics if there is none: a test asked for the wrong host.
    pub fn node(&mut self, host: HostId) -> (&mut NodeShell, &mut Network) {
        self.net.at_work(host);
        match self.programs.get_mut(&host) {
            Some(Program::Node(node)) => (node, &mut self.net),
            _ => panic!("host {} is not a node", host.0),
        }
    }
    /// A relay. Panics if there is none.
    pub fn relay(&self, host: HostId) -> &RelayShell {
        match self.programs.get(&host) {
            Some(Program::Relay(relay)) => relay,
            _ => panic!("host {} is not a relay", host.0),
        }
    }
    /// The flooder on a host. Panics if there is none.
    pub fn flooder(&mut self, host: HostId) -> &mut Flooder {
        match self.programs.get_mut(&host) {
            Some(Program::Flooder(flooder)) => flooder,
            _ => panic!("host {} is not a flooder", host.0),
        }
    }
    /// The forger on a host. Panics if there is none.
    pub fn forger(&self, host: HostId) -> &Forger {
        match self.programs.get(&host) {
            Some(Program::Forger(forger)) => forger,
            _ => panic!("host {} is not a forger", host.0),
        }
    }
    /// The abuser on a host. Panics if there is none.
    pub fn abuser(&self, host: HostId) -> &Abuser {
        match self.programs.get(&host) {
            Some(Program::Abuser(abuser)) => abuser,
            _ => panic!("host {} is not an abuser", host.0),
        }
    }

    /// A node's host is carried to another network, and the system tells the node.
    pub fn move_node(&mut self, host: HostId, site: SiteId, addrs: Vec<IpAddr>) {
        self.net.move_host(host, site, addrs);
        let (node, net) = self.node(host);
        node.moved(net);
    }

    /// A fault at a time.
    pub fn at(&mut self, when: Duration, fault: Fault) {
        let number = self.faults.len() as u32;
        self.faults.push(fault);
        self.net.script_at(when, number);
    }
    /// A fault now.
    pub fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Open(hole) => self.net.open_hole(hole),
            Fault::Close(hole) => self.net.close_hole(hole),
            Fault::Rebind(site) => {
                self.net.rebind_nat(site);
                self.gateway_began_anew(site);
            }
            Fault::KillRelay(host) | Fault::KillStun(host) => self.net.set_alive(host, false),
            Fault::DrainRelay(host, deadline) => {
                if let Some(Program::Relay(relay)) = self.programs.get_mut(&host) {
                    self.net.at_work(host);
                    relay.drain(&mut self.net, deadline);
                }
            }
            Fault::StartRelay(host) => {
                if let Some((lives, restart)) = self.restarts.get_mut(&host) {
                    *lives += 1;
                    self.net.at_work(host);
                    let relay = restart(&self.net, *lives);
                    self.net.set_alive(host, true);
                    self.programs.insert(host, Program::Relay(relay));
                }
            }
            Fault::Loss(site, share) => self.net.set_loss(site, share),
            Fault::Delay(site, delay) => self.net.set_delay(site, delay),
            Fault::Sleep(host) => {
                let since = self.net.now();
                self.net
                    .trace
                    .say(since, "asleep", format!("host {}", host.0));
                self.asleep.entry(host).or_insert(Asleep {
                    since,
                    kept: Vec::new(),
                    buffered: 0,
                });
            }
            Fault::Wake(host, clock, sockets) => self.wake(host, clock, sockets),
            Fault::ClockForwards(host, by) => self.set_wall(host, true, by),
            Fault::ClockBackwards(host, by) => self.set_wall(host, false, by),
            Fault::Readdress(site, ip) => {
                self.net.readdress(site, ip);
                for program in self.programs.values_mut() {
                    if let Program::Node(node) = program
                        && self.net.site_of(node.host()) == site
                        && self.net.addrs(node.host()).contains(&ip)
                    {
                        self.net.at_work(node.host());
                        node.moved(&mut self.net);
                    }
                }
                // A NAT is IPv4's alone.
                if ip.is_ipv4() {
                    self.gateway_began_anew(site);
                }
            }
        }
    }

    /// The nodes of a site hear that its gateway has forgotten what it gave them (RFC 6887 section 14.1). Who sleeps hears of it
    /// on waking up.
    fn gateway_began_anew(&mut self, site: SiteId) {
        for (host, program) in &mut self.programs {
            if let Program::Node(node) = program
                && self.net.site_of(*host) == site
                && !self.asleep.contains_key(host)
            {
                self.net.at_work(*host);
                node.ask_gateway(&mut self.net);
            }
        }
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.net.now() + time;
        self.run_until(end, |_| false);
    }
    /// Runs until the condition holds, looking after every event that reached a program; false if it did not by `end`.
    pub fn run_until(&mut self, end: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        if done(self) {
            return true;
        }
        loop {
            match self.net.step(end) {
                Step::Host(host, what) => {
                    self.deliver(host, what);
                    if done(self) {
                        return true;
                    }
                }
                Step::Script(number) => {
                    if let Some(fault) = self.faults.get(number as usize).copied() {
                        self.inflict(fault);
                    }
                }
                Step::Inside => {}
                Step::Limit => return done(self),
            }
        }
    }
    /// Runs until the condition holds, at most for `time`.
    pub fn run_within(&mut self, time: Duration, done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.net.now() + time;
        self.run_until(end, done)
    }

    /// True while a host sleeps.
    pub fn sleeps(&self, host: HostId) -> bool {
        self.asleep.contains_key(&host)
    }

    fn wake(&mut self, host: HostId, clock: Clock, sockets: Sockets) {
        let Some(sleeper) = self.asleep.remove(&host) else {
            return;
        };
        let mut kept = sleeper.kept;
        if sockets == Sockets::Lost {
            kept.retain(|what| !matches!(what, Happening::Datagram { .. }));
        }
        let now = self.net.now();
        self.net.trace.say(now, "awake", format!("host {}", host.0));
        if clock == Clock::StandsStill {
            self.net.set_back(host, now - sleeper.since);
        }
        if sockets == Sockets::ReadFirst
            && let Some(Program::Node(node)) = self.programs.get_mut(&host)
        {
            self.net.at_work(host);
            for what in kept.drain(..) {
                node.read(&mut self.net, what);
            }
        }
        // Timers that were due, and the next one is asked for. The system wakes who waits for its clock to jump.
        self.deliver(host, Happening::Wake);
        for what in kept {
            self.deliver(host, what);
        }
        // What a gateway says of itself it repeats for minutes (RFC 6887 section 14.1.1), and longer sleeps are noticed.
        if let Some(Program::Node(node)) = self.programs.get_mut(&host) {
            self.net.at_work(host);
            node.ask_gateway(&mut self.net);
        }
    }

    fn set_wall(&mut self, host: HostId, forwards: bool, by: Duration) {
        self.net.set_wall(host, forwards, by);
        // As on Linux: who waits for that is woken at once.
        self.deliver(host, Happening::Wake);
    }

    fn deliver(&mut self, host: HostId, what: Happening) {
        if let Some(sleeper) = self.asleep.get_mut(&host) {
            return sleeper.keep(what);
        }
        self.net.at_work(host);
        let net = &mut self.net;
        match self.programs.get_mut(&host) {
            Some(Program::Node(node)) => node.handle(net, what),
            Some(Program::Relay(relay)) => relay.handle(net, what),
            Some(Program::Stun(server)) => server.handle(net, what),
            Some(Program::Flooder(flooder)) => flooder.handle(net, what),
            Some(Program::Forger(forger)) => forger.handle(net, what),
            Some(Program::Abuser(abuser)) => abuser.handle(net, what),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::net::pipe::PipeId;

    #[test]
    fn what_waits_for_a_sleeper_are_datagrams_up_to_a_buffer_and_all_that_tcp_brings() {
        let mut sleeper = Asleep {
            since: Duration::ZERO,
            kept: Vec::new(),
            buffered: 0,
        };
        let addr = std::net::SocketAddr::from(([192, 0, 2, 1], 1));
        for _ in 0..300 {
            sleeper.keep(Happening::Datagram {
                from: addr,
                to: addr,
                data: Bytes::from(vec![0; 1_000]),
            });
            sleeper.keep(Happening::PipeRoom { pipe: PipeId(1) });
            sleeper.keep(Happening::Wake);
        }
        let datagram = |what: &&Happening| matches!(what, Happening::Datagram { .. });
        assert_eq!(sleeper.kept.iter().filter(datagram).count(), 212);
        assert_eq!(sleeper.kept.len(), 212 + 300);
    }
}
