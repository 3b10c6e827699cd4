//! miniupnpd: a home router's PCP, NAT-PMP and UPnP server.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{READY, tool};
use crate::debian::find;
use crate::netns::Namespace;
use crate::process::{Running, poll};
use crate::world::{Place, World};

/// The outside address it tells of. It refuses to map ports of reserved ones, as all others in the laboratory are; this
/// one is somebody's, and exists in the scenario's namespaces only.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(193, 0, 2, 66);

/// The chains it works in, and the way in for what it lets in.
const RULES: &str = r#"
table inet filter {
    chain miniupnpd { }
}
table inet upnp {
    chain in { }
    chain out { }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        jump in
    }
    chain postrouting {
        type nat hook postrouting priority srcnat - 1; policy accept;
        jump out
    }
}
insert rule inet filter forward ct status dnat accept
"#;

/// Requests of PCP, whose first byte is its version, go to who answers as one from before it.
const ELDER: &str = r#"
table ip elder {
    chain prerouting {
        type nat hook prerouting priority dstnat - 1; policy accept;
        iifname "lan0" udp dport 5351 @th,64,8 2 redirect to :5361
    }
}
"#;

/// miniupnpd gives by NAT-PMP whatever lifetime is asked for: so nobody is let ask it for more (RFC 6886 section 3.3: version,
/// operation, reserved, two ports, lifetime).
fn shorten(longest: u32) -> String {
    format!(
        r#"
table ip shorten {{
    chain prerouting {{
        type filter hook prerouting priority mangle; policy accept;
        iifname "lan0" udp dport 5351 @th,64,16 1 @th,128,32 > {longest} @th,128,32 set {longest}
    }}
}}
"#
    )
}

/// Neither PCP nor NAT-PMP, and no word of either that the router began anew.
const UPNP_ALONE: &str = r#"
insert rule inet filter input udp dport 5351 drop
table inet quiet {
    chain output {
        type filter hook output priority filter; policy accept;
        udp dport 5350 drop
    }
}
"#;

/// No answer by PCP or NAT-PMP gets out, though what was asked has been done, until [`Miniupnpd::answers`]; from then on they are
/// counted.
const MUTE: &str = r#"
table inet watch {
    counter answers { }
    chain mute {
        udp sport 5351 udp dport != 5350 drop
    }
    chain output {
        type filter hook output priority filter; policy accept;
        jump mute
        udp sport 5351 udp dport != 5350 counter name answers
    }
}
"#;

/// They get out.
const HEARD: &str = "flush chain inet watch mute\n";

/// What it maps when it is told to forget.
const FORGET: &str =
    "flush chain inet upnp in\nflush chain inet upnp out\nflush chain inet filter miniupnpd\n";

/// What a gateway speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// PCP, NAT-PMP and UPnP, as Debian's miniupnpd does.
    Everything,
    /// NAT-PMP and UPnP. miniupnpd cannot leave PCP alone, so a small stand-in answers what is PCP's, as RFC 6886 has an
    /// older server do; the port is given by miniupnpd.
    NoPcp,
    /// UPnP alone: the others are not heard.
    UpnpAlone,
    /// Everything, but by PCP and NAT-PMP it is mute until [`Miniupnpd::answers`].
    MutePcp,
}

/// A router's miniupnpd.
#[derive(Debug)]
pub struct Miniupnpd {
    /// The process.
    pub process: Running,
    _elder: Option<Running>,
    config: PathBuf,
}

impl Miniupnpd {
    /// Starts one on the router of a site, whose hosts may map ports, and lets another site's router find [`OUTSIDE`].
    /// `longest` is the longest lifetime in seconds that it gives by PCP or NAT-PMP.
    pub fn start(
        world: &World,
        site: &Place,
        other: &Place,
        speaks: Speaks,
        longest: u32,
    ) -> Result<Self> {
        let router = router(site)?;
        router.nft(RULES)?;
        let mut elder = None;
        match speaks {
            Speaks::Everything => {}
            Speaks::NoPcp => {
                router.nft(ELDER)?;
                router.nft(&shorten(longest))?;
                let process = tool(router, "elder", &["0.0.0.0:5361".to_owned()])?;
                process.first_line("readiness", READY)?;
                elder = Some(process);
            }
            Speaks::UpnpAlone => router.nft(UPNP_ALONE)?,
            Speaks::MutePcp => router.nft(MUTE)?,
        }
        router.ip(&format!("addr add {OUTSIDE}/32 dev wan0\n"))?;
        if let Some(there) = &other.router {
            there.ip(&format!("route add {OUTSIDE}/32 dev wan0\n"))?;
        }
        let config = world.dir().join("miniupnpd.conf");
        let net = site.addr.octets()[1];
        fs::write(
            &config,
            format!(
                "ext_ifname=wan0\next_ip={OUTSIDE}\nlistening_ip=lan0\nenable_natpmp=yes\nenable_upnp=yes\nsecure_mode=yes\n\
                 uuid=11111111-2222-3333-4444-555555555555\nmin_lifetime=1\nmax_lifetime={longest}\n\
                 upnp_table_name=filter\nupnp_forward_chain=miniupnpd\n\
                 upnp_nat_table_name=upnp\nupnp_nat_chain=in\nupnp_nat_postrouting_chain=out\n\
                 allow 1024-65535 10.{net}.0.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
            ),
        )?;
        let process = serve(world, router, &config)?;
        Ok(Self {
            process,
            _elder: elder,
            config,
        })
    }

    /// The router is switched off and on: all that it mapped is forgotten, and it begins to count its time anew.
    pub fn restart(&mut self, world: &World, site: &Place) -> Result<()> {
        let router = router(site)?;
        self.process.signal("KILL")?;
        poll("end of miniupnpd", READY, || {
            Ok((!self.process.is_running()).then_some(()))
        })?;
        router.nft(FORGET)?;
        self.process = serve(world, router, &self.config)?;
        Ok(())
    }

    /// One that was mute by PCP and NAT-PMP ([`Speaks::MutePcp`]) is heard from now on.
    pub fn answers(&self, site: &Place) -> Result<()> {
        router(site)?.nft(HEARD)
    }

    /// Whether an answer of such a one got out.
    pub fn has_answered(&self, site: &Place) -> Result<bool> {
        Ok(router(site)?.counter("answers")? > 0)
    }
}

fn router(site: &Place) -> Result<&Namespace> {
    site.router.as_deref().context("a site with a router")
}

fn serve(world: &World, router: &Namespace, config: &PathBuf) -> Result<Running> {
    let mut command = router.command(find("miniupnpd").unwrap_or_default());
    command.arg("-d").arg("-f").arg(config);
    command.arg("-P").arg(world.dir().join("miniupnpd.pid"));
    let process = Running::start("miniupnpd", &mut command)?;
    // PCP's port, as the kernel's table writes it.
    poll("listening miniupnpd", READY, || {
        let table = fs::read_to_string(format!("/proc/{}/net/udp", process.pid()))?;
        Ok(table.contains(":14E7").then_some(()))
    })?;
    Ok(process)
}

/// The ports mapped at present, as the router's rules say it.
pub fn mapped(site: &Place) -> Result<usize> {
    let mut command = router(site)?.command("nft");
    command.args(["list", "chain", "inet", "upnp", "in"]);
    // Asked again and again, it is nothing for a story of programs.
    let rules = command.output()?;
    ensure!(
        rules.status.success(),
        "{}",
        String::from_utf8_lossy(&rules.stderr)
    );
    let rules = String::from_utf8_lossy(&rules.stdout);
    Ok(rules.matches("dnat").count())
}
