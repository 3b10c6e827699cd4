//! Which way the bytes of a pair must go, and whether the hosts' counters saw them go there.

use anyhow::{Result, ensure};
use byway_sim::model::{Direct, PathKind, direct, expected_path};

use super::SIZE;
use crate::Kind;
use crate::world::Traffic;

/// Which way the bytes must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    /// Through the relay by UDP on both sides; the direct path cannot come up.
    UdpLink,
    /// The same, or direct by luck.
    UdpLinkOrDirect,
    ClientTls,
    AgentTls,
    BothTls,
}

impl Way {
    /// What the reference model expects.
    pub(super) fn expected(client: Kind, agent: Kind) -> Self {
        use PathKind::RelayTls;
        if direct(client, agent) == Direct::Perhaps {
            return Self::UdpLinkOrDirect;
        }
        match (expected_path(client, agent), expected_path(agent, client)) {
            (PathKind::Direct, _) | (_, PathKind::Direct) => Self::Direct,
            (RelayTls, RelayTls) => Self::BothTls,
            (RelayTls, _) => Self::ClientTls,
            (_, RelayTls) => Self::AgentTls,
            _ => Self::UdpLink,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::UdpLink => "relay",
            Self::UdpLinkOrDirect => "relay (luck)",
            Self::ClientTls | Self::AgentTls | Self::BothTls => "relay (TLS)",
        }
    }

    /// Compares with what the hosts' counters saw of a download.
    pub(super) fn judge(self, client: Traffic, agent: Traffic) -> Result<()> {
        // Where there is a proxy nothing gets past it, and elsewhere there is none.
        let tls = |t: Traffic| t.relay_tcp + t.proxied;
        let (on_client, on_agent) = match self {
            Self::Direct => (client.direct, agent.direct),
            Self::UdpLink => (client.relay_udp, agent.relay_udp),
            // It may become direct in the middle of a download.
            Self::UdpLinkOrDirect => (
                client.relay_udp + client.direct,
                agent.relay_udp + agent.direct,
            ),
            Self::ClientTls => (tls(client), agent.relay_udp),
            Self::AgentTls => (client.relay_udp, tls(agent)),
            Self::BothTls => (tls(client), tls(agent)),
        };
        ensure!(
            on_client >= SIZE && on_agent >= SIZE,
            "the bytes should have gone {self:?}: {client:?} / {agent:?}"
        );
        let all = |t: Traffic| t.direct + t.relay_udp + tls(t);
        ensure!(
            all(client).max(all(agent)) < SIZE * 3 / 2,
            "much was sent twice: {client:?} / {agent:?}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use byway_sim::model::Access::{
        self, Only443, Only443WithQuic, Open, PortRestricted, ProxyOnly, Sequential, UdpBlocked,
    };

    #[test]
    fn each_side_that_has_tls_alone_is_seen_to_use_it() {
        let expected = |client: Access, agent: Access| Way::expected(client.into(), agent.into());
        assert_eq!(expected(Open, UdpBlocked), Way::AgentTls);
        assert_eq!(expected(ProxyOnly, PortRestricted), Way::ClientTls);
        assert_eq!(expected(UdpBlocked, ProxyOnly), Way::BothTls);
        assert_eq!(expected(Only443WithQuic, Only443), Way::AgentTls);
    }

    #[test]
    fn where_luck_decides_either_way_is_right_and_no_other() {
        let way = Way::expected(Sequential.into(), Sequential.into());
        assert_eq!(way, Way::UdpLinkOrDirect);
        let none = Traffic::default();
        let relay_udp = Traffic {
            relay_udp: SIZE,
            ..none
        };
        let direct = Traffic {
            direct: SIZE,
            ..none
        };
        let both = Traffic {
            relay_udp: SIZE / 4,
            direct: SIZE - SIZE / 4,
            ..none
        };
        for right in [relay_udp, direct, both] {
            assert!(way.judge(right, right).is_ok(), "{right:?}");
        }
        let tls = Traffic {
            relay_tcp: SIZE,
            ..none
        };
        let twice = Traffic {
            relay_udp: SIZE,
            ..direct
        };
        for wrong in [none, tls, twice] {
            assert!(way.judge(wrong, direct).is_err(), "{wrong:?}");
            assert!(way.judge(direct, wrong).is_err(), "{wrong:?}");
        }
    }
}
