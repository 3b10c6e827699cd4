mod common;
use byway_core::io::PathKind;
use byway_sim::net::link::LinkConfig;
use byway_sim::net::{Hole, Traffic};
use byway_sim::scene::Setup;
use byway_sim::shell::app::Task;
use byway_sim::world::Fault;
use common::{ms, scene, secs};
#[test]
fn dbg() {
    let l = LinkConfig { rate: Some(1_000_000), ..LinkConfig::default() };
    let mut s = scene(Setup { client_link: l, agent_link: l, trace: 100000, ..Setup::default() });
    let peer = s.dial(vec![Task::Touch]);
    assert!(s.until_path(peer, PathKind::Direct, secs(10)));
    s.world.run_for(secs(3));
    s.begin(peer, Task::Download(2 << 20));
    s.world.run_for(ms(700));
    let (c, a) = (Some(s.client_site), Some(s.agent_site));
    s.world.inflict(Fault::Open(Hole { from: c, to: a, what: Traffic::Udp }));
    s.world.inflict(Fault::Open(Hole { from: a, to: c, what: Traffic::Udp }));
    let t = s.world.net.now();
    s.world.run_for(secs(4));
    println!("hole at {t:?}");
    for h in [s.client, s.agent] {
        for n in &s.world.node(h).0.notes { println!("{} {n:?}", h.0); }
        println!("{:?}", s.world.node(h).0.counts); println!("{:?}", s.world.node(h).0.wakes);
    }
    println!("{}", s.world.net.trace);
}
