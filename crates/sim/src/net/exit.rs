//! What a site's firewall lets out.

/// What gets out of a site, over IPv4 and IPv6 alike. What answers it comes in again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Exit {
    /// Everything.
    #[default]
    Everything,
    /// TCP and UDP to port 443: a network that knows of QUIC.
    Port443,
    /// TCP alone.
    Tcp,
    /// TCP to port 443 alone.
    Tcp443,
    /// Nothing. A proxy at the site's border connects for those inside.
    Proxy,
}

/// HTTPS, and QUIC beside it.
const HTTPS: u16 = 443;

impl Exit {
    /// True if UDP to this port gets out.
    pub fn udp_to(self, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Port443 => port == HTTPS,
            Self::Tcp | Self::Tcp443 | Self::Proxy => false,
        }
    }
    /// True if UDP gets out, whatever port it goes to.
    pub fn every_udp(self) -> bool {
        self == Self::Everything
    }
    /// True if UDP gets out to some port.
    pub fn some_udp(self) -> bool {
        self.udp_to(HTTPS)
    }
    /// True if TCP to this port gets out.
    pub fn tcp_to(self, port: u16) -> bool {
        match self {
            Self::Everything | Self::Tcp => true,
            Self::Port443 | Self::Tcp443 => port == HTTPS,
            Self::Proxy => false,
        }
    }
}
