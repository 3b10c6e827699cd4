//! Which targets an agent lets clients reach.
//!
//! A target is judged twice: by its text, before its name is resolved (so that a client cannot use the agent to look up
//! names that no rule could allow), and by each address the name resolved to, right before the connection is made to that very
//! address. A rule for a name admits the addresses of that name, except those that mean the agent itself or its link
//! (loopback, link-local, unspecified, multicast): whoever controls the name's zone could point it there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use byway_core::discovery::Prefix;

/// Which targets an agent lets clients reach. Default: loopback ports only.
#[derive(Clone, Debug, Default)]
pub struct TargetPolicy {
    /// None: the default.
    rules: Option<Vec<Rule>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    host: Host,
    /// None: every port.
    port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// Addresses whose first `bits` are those of `base`.
    Net { base: IpAddr, bits: u8 },
    /// A name, in lower case without a final dot.
    Name(String),
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a rule: write PORT, HOST:PORT, HOST:* or CIDR:PORT")]
pub struct PolicyError(pub String);

impl TargetPolicy {
    /// Loopback ports only.
    pub fn loopback() -> Self {
        Self::default()
    }

    /// Allows one more: `HOST:PORT`, `HOST:*`, `CIDR:PORT`, `CIDR:*` or `PORT` (loopback). The first call replaces the
    /// default. The resolved address is checked at connect.
    pub fn allow(mut self, rule: &str) -> Result<Self, PolicyError> {
        let rule = parse(rule.trim()).ok_or_else(|| PolicyError(rule.to_owned()))?;
        self.rules.get_or_insert_default().push(rule);
        Ok(self)
    }

    /// By the text alone: could any address of this target be allowed?
    pub(super) fn may_resolve(&self, host: &str, port: u16) -> bool {
        match parse_ip(host) {
            Some(ip) => self.permits(host, SocketAddr::new(ip, port)),
            None => self.rules().any(|rule| {
                rule.port.is_none_or(|allowed| allowed == port)
                    && match &rule.host {
                        // Only `localhost` needs no resolver to be loopback; for no other name is it asked on this rule.
                        Host::Loopback => is_localhost(host),
                        Host::Net { .. } => true,
                        Host::Name(name) => *name == canonical_name(host),
                    }
            }),
        }
    }

    /// True if the operator named this very name; then it is no secret whether it resolves.
    pub(super) fn names(&self, host: &str) -> bool {
        is_localhost(host)
            || self
                .rules()
                .any(|rule| matches!(&rule.host, Host::Name(name) if *name == canonical_name(host)))
    }

    /// By the address the target resolved to.
    pub(super) fn permits(&self, host: &str, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        self.rules().any(|rule| {
            rule.port.is_none_or(|allowed| allowed == addr.port())
                && match &rule.host {
                    Host::Loopback => ip.is_loopback(),
                    Host::Net { base, bits } => contains(*base, *bits, ip),
                    Host::Name(name) => {
                        *name == canonical_name(host)
                            && if is_localhost(name) {
                                ip.is_loopback()
                            } else {
                                !is_this_host_or_link(ip)
                            }
                    }
                }
        })
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        const DEFAULT: &[Rule] = &[Rule {
            host: Host::Loopback,
            port: None,
        }];
        self.rules.as_deref().unwrap_or(DEFAULT).iter()
    }
}

/// True for `localhost` and names below it, which mean loopback everywhere (RFC 6761, section 6.3).
pub(super) fn is_localhost(host: &str) -> bool {
    let host = canonical_name(host);
    host == "localhost" || host.ends_with(".localhost")
}

/// An address written as one, in its canonical form; brackets are allowed.
pub(super) fn parse_ip(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn canonical_name(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Addresses that a name must not lead to, since they mean this host or its own wire.
fn is_this_host_or_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                // "This network", RFC 1122 section 3.2.1.3; Linux connects 0.0.0.0 to loopback.
                || ip.octets()[0] == 0
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local()
                || ip.is_multicast()
                || match ip.segments() {
                    // Loopback, unspecified, and all IPv4-compatible addresses (RFC 4291 section 2.5.5.1, deprecated).
                    [0, 0, 0, 0, 0, 0, ..] => true,
                    // Site-local addresses (RFC 3879, deprecated) name an interface as link-local ones do.
                    [first, ..] => first & 0xffc0 == 0xfec0,
                }
                || embedded_v4(ip).is_some_and(|ip| is_this_host_or_link(ip.into()))
        }
    }
}

/// The IPv4 address that a translator or tunnel between would reach: NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    Prefix::WELL_KNOWN.extract(ip).or(match ip.octets() {
        [0x20, 0x02, a, b, c, d, ..] => Some([a, b, c, d].into()),
        _ => None,
    })
}

fn contains(base: IpAddr, bits: u8, ip: IpAddr) -> bool {
    match (base, ip) {
        (IpAddr::V4(base), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            (u32::from(base) ^ u32::from(ip)) & mask == 0
        }
        (IpAddr::V6(base), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            (u128::from(base) ^ u128::from(ip)) & mask == 0
        }
        _ => false,
    }
}

fn parse(rule: &str) -> Option<Rule> {
    if let Some(port) = parse_port(rule) {
        return Some(Rule {
            host: Host::Loopback,
            port: Some(port),
        });
    }
    let (host, port) = rule.rsplit_once(':')?;
    let port = match port {
        "*" => None,
        port => Some(parse_port(port)?),
    };
    Some(Rule {
        host: parse_host(host)?,
        port,
    })
}

fn parse_host(text: &str) -> Option<Host> {
    // Both [fd00::/8] and [fd00::]/8 are written by people.
    let plain = text.replace(['[', ']'], "");
    if let Some((base, bits)) = plain.split_once('/') {
        let base: IpAddr = base.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        return (bits <= most).then_some(Host::Net { base, bits });
    }
    if let Some(base) = parse_ip(text) {
        // An IPv6 address without brackets would have swallowed its last group as the port.
        if base.is_ipv6() && !text.starts_with('[') {
            return None;
        }
        let bits = if base.is_ipv4() { 32 } else { 128 };
        return Some(Host::Net { base, bits });
    }
    let name = canonical_name(text);
    let valid = !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    // An address with too few or too large numbers is a mistake, not a name.
    let number = name
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    (valid && !number).then_some(Host::Name(name))
}

/// 1-65535 in plain digits (`u16`'s parser takes a sign).
fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| plain && *port != 0)
}

/// The loopback addresses, IPv4 first.
pub(super) const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn policy(rules: &[&str]) -> TargetPolicy {
        rules.iter().fold(TargetPolicy::loopback(), |policy, rule| {
            policy.allow(rule).unwrap()
        })
    }

    fn permits(policy: &TargetPolicy, host: &str, addr: &str) -> bool {
        policy.permits(host, addr.parse().unwrap())
    }

    #[test]
    fn by_default_every_loopback_port_and_nothing_else() {
        let policy = TargetPolicy::loopback();
        assert!(permits(&policy, "localhost", "127.0.0.1:22"));
        assert!(permits(&policy, "127.5.5.5", "127.5.5.5:8080"));
        assert!(permits(&policy, "::1", "[::1]:8080"));
        assert!(permits(
            &policy,
            "::ffff:127.0.0.1",
            "[::ffff:127.0.0.1]:80"
        ));
        assert!(!permits(&policy, "10.0.0.1", "10.0.0.1:22"));
        assert!(
            !permits(&policy, "0.0.0.0", "0.0.0.0:22"),
            "Linux connects it to loopback"
        );
        assert!(!permits(&policy, "localhost", "10.0.0.1:22"));
        assert!(!policy.may_resolve("10.0.0.1", 22));
        assert!(!policy.may_resolve("::ffff:10.0.0.1", 22));
        assert!(!policy.names("db.internal"));
        assert!(policy.may_resolve("localhost", 22));
        assert!(policy.may_resolve("app.localhost.", 22));
        assert!(
            !policy.may_resolve("secret.attacker.test", 22),
            "a lookup would carry the name out"
        );
    }

    #[test]
    fn the_first_rule_replaces_the_default() {
        let policy = policy(&["8080"]);
        assert!(permits(&policy, "localhost", "127.0.0.1:8080"));
        assert!(permits(&policy, "localhost", "[::1]:8080"));
        assert!(!permits(&policy, "localhost", "127.0.0.1:22"));
        assert!(!policy.may_resolve("localhost", 22));
    }

    #[test]
    fn addresses_and_networks_are_matched_by_their_bits() {
        let policy = policy(&[
            "10.1.0.0/16:443",
            "192.0.2.7:*",
            "[fd00::/8]:80",
            "[2001:db8::1]:22",
        ]);
        assert!(permits(&policy, "x", "10.1.255.255:443"));
        assert!(!permits(&policy, "x", "10.2.0.0:443"));
        assert!(!permits(&policy, "x", "10.1.0.1:80"));
        assert!(permits(&policy, "x", "192.0.2.7:1"));
        assert!(!permits(&policy, "x", "192.0.2.8:1"));
        assert!(permits(&policy, "x", "[fdff::1]:80"));
        assert!(!permits(&policy, "x", "[fe00::1]:80"));
        assert!(permits(&policy, "x", "[2001:db8::1]:22"));
        assert!(!permits(&policy, "x", "[2001:db8::2]:22"));
    }

    #[test]
    fn zero_bits_mean_every_address_of_that_family() {
        let policy = policy(&["0.0.0.0/0:*"]);
        assert!(permits(&policy, "x", "203.0.113.9:9"));
        assert!(!permits(&policy, "x", "[2001:db8::1]:9"));
    }

    #[test]
    fn a_name_admits_its_addresses_but_not_the_agent_itself() {
        let policy = policy(&["DB.internal.:5432"]);
        assert!(policy.may_resolve("db.Internal", 5432));
        assert!(!policy.may_resolve("db.internal", 5433));
        assert!(!policy.may_resolve("other.internal", 5432));
        assert!(permits(&policy, "db.internal", "10.0.0.5:5432"));
        assert!(!permits(&policy, "other.internal", "10.0.0.5:5432"));
        assert!(!permits(&policy, "10.0.0.5", "10.0.0.5:5432"));
        for hostile in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:169.254.169.254]",
            "[::ffff:0.0.0.0]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
        ] {
            assert!(
                !permits(&policy, "db.internal", &format!("{hostile}:5432")),
                "a name that leads to {hostile}"
            );
        }
    }

    #[test]
    fn localhost_as_a_rule_means_loopback() {
        let policy = policy(&["localhost:*"]);
        assert!(permits(&policy, "localhost", "127.0.0.1:3000"));
        assert!(permits(&policy, "localhost", "[::1]:3000"));
        assert!(!permits(&policy, "localhost", "10.0.0.1:3000"));
    }

    #[test]
    fn what_is_not_a_rule_is_refused() {
        for bad in [
            "",
            "0",
            "65536",
            "+80",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:65536",
            "host:+8",
            "1.2.3:80",
            "1.2.3.4.5:80",
            "10.0.0.0/33:80",
            "fd00::/129:80",
            "::1:80",
            "a b:80",
            "10.0.0.0/-1:80",
            "*:80",
            "host:80/udp",
            "h\u{e9}:80",
        ] {
            assert!(
                TargetPolicy::loopback().allow(bad).is_err(),
                "{bad:?} must be refused"
            );
        }
    }
}
