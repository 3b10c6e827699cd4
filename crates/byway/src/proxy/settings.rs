//! Which proxy applies to which relay.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use byway_core::io::{ProxyError, ProxyFault};
use byway_wire::RelayUrl;
use hyper_util::client::proxy::matcher::Matcher;

use super::url::{ProxyUrl, ProxyUrlError};

/// The first of these that is set and not empty names the proxy. Links are TLS, hence not `HTTP_PROXY`.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// The first of these that is set names hosts that are reached without it.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Whether TLS links to relays go through a proxy. UDP never does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Proxy {
    /// The one that the environment names when the endpoint binds: `HTTPS_PROXY`, else `ALL_PROXY` (upper case first), for
    /// relays that `NO_PROXY` does not except (names with all below them, addresses, networks such as `10.0.0.0/8`, `*`)
    /// and that are not on this very host.
    #[default]
    Environment,
    /// This one for every relay, whatever the environment says.
    Url(ProxyUrl),
    /// None, whatever the environment says.
    None,
}

/// `none`, or the URL of a proxy.
impl FromStr for Proxy {
    type Err = ProxyUrlError;
    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Self::None);
        }
        text.parse().map(Self::Url)
    }
}

/// Who named a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProxySource {
    /// [`Proxy::Url`].
    Setting,
    /// This environment variable.
    Variable(&'static str),
}

/// The proxy of an endpoint, for showing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProxyInUse {
    /// Its URL without user name and password; or why what was named cannot be used.
    pub url: Result<String, ProxyUrlError>,
    /// Who named it.
    pub source: ProxySource,
}

/// The setting, resolved against the environment.
pub(crate) struct Proxies {
    proxy: Option<(Result<ProxyUrl, ProxyUrlError>, ProxySource)>,
    /// Relays on this host, and those that this matcher does not give to its proxy; none without it.
    exceptions: Option<Matcher>,
}

impl Proxies {
    /// `environment` gives the value of a variable.
    pub(crate) fn new(setting: &Proxy, environment: impl Fn(&str) -> Option<String>) -> Self {
        let (proxy, exceptions) = match setting {
            Proxy::None => (None, None),
            Proxy::Url(url) => (Some((Ok(url.clone()), ProxySource::Setting)), None),
            Proxy::Environment => {
                let named = VARIABLES.iter().find_map(|&name| {
                    let value = environment(name).filter(|value| !value.trim().is_empty())?;
                    Some((value.parse(), ProxySource::Variable(name)))
                });
                let list = EXCEPTIONS.iter().find_map(|name| environment(name));
                // Asked for its exceptions alone: what it would do with a proxy's URL is to ignore a wrong one.
                let matcher = Matcher::builder()
                    .https("http://proxy.invalid")
                    .no(list.unwrap_or_default())
                    .build();
                (named, Some(matcher))
            }
        };
        Self { proxy, exceptions }
    }

    /// The process's environment.
    pub(crate) fn from_process(setting: &Proxy) -> Self {
        Self::new(setting, |name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// The proxy before this relay; an error if there should be one and it cannot be used.
    pub(crate) fn before(&self, relay: &RelayUrl) -> Option<Result<&ProxyUrl, ProxyError>> {
        let (url, source) = self.proxy.as_ref()?;
        if self.excepts(relay) {
            return None;
        }
        Some(url.as_ref().map_err(|error| ProxyError {
            proxy: source.to_string(),
            fault: ProxyFault::Unusable(error.to_string()),
        }))
    }

    /// For showing.
    pub(crate) fn in_use(&self) -> Option<ProxyInUse> {
        let (url, source) = self.proxy.as_ref()?;
        Some(ProxyInUse {
            url: url
                .as_ref()
                .map(ToString::to_string)
                .map_err(|&error| error),
            source: *source,
        })
    }

    fn excepts(&self, relay: &RelayUrl) -> bool {
        let Some(matcher) = &self.exceptions else {
            return false;
        };
        // A proxy's own loopback is another host's.
        let host = relay.host();
        if host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) {
            return true;
        }
        // Not parsed: it cannot be, for a relay's URL is narrower. Through the proxy then, as everything.
        let Ok(url) = format!("https://{}/", relay.authority()).parse() else {
            return false;
        };
        matcher.intercept(&url).is_none()
    }
}

/// Completes "the proxy ...".
impl fmt::Display for ProxySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting => f.write_str("of the settings"),
            Self::Variable(name) => write!(f, "in {name}"),
        }
    }
}

/// The matcher's own would show what this leaves out.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxies").field(&self.in_use()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &'static [(&str, &str)]) -> Proxies {
        Proxies::new(&Proxy::Environment, |wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }
    fn relay(host: &str) -> RelayUrl {
        RelayUrl::new(host, 443, None).unwrap()
    }
    /// What stands before a relay.
    fn before(proxies: &Proxies, host: &str) -> Option<String> {
        let proxy = proxies.before(&relay(host))?;
        Some(proxy.map_or_else(|error| error.to_string(), ToString::to_string))
    }

    #[test]
    fn an_environment_without_proxies_means_none() {
        assert_eq!(before(&environment(&[]), "relay.test"), None);
        let others = environment(&[("HTTP_PROXY", "http://p:1"), ("HTTPS_PROXY", "  ")]);
        assert_eq!(before(&others, "relay.test"), None);
    }

    #[test]
    fn the_more_special_variable_counts() {
        let all = environment(&[("all_proxy", "socks5://s:1080")]);
        assert_eq!(before(&all, "relay.test").unwrap(), "socks5://s:1080");
        let both = environment(&[("ALL_PROXY", "socks5://s:1"), ("https_proxy", "p:3128")]);
        assert_eq!(before(&both, "relay.test").unwrap(), "http://p:3128");
        let twice = environment(&[
            ("https_proxy", "http://low:1"),
            ("HTTPS_PROXY", "http://up:1"),
        ]);
        assert_eq!(before(&twice, "relay.test").unwrap(), "http://up:1");
        let empty = environment(&[("HTTPS_PROXY", ""), ("ALL_PROXY", "http://all:1")]);
        assert_eq!(before(&empty, "relay.test").unwrap(), "http://all:1");
    }

    #[test]
    fn no_proxy_excepts_names_addresses_and_networks() {
        let proxies = environment(&[
            ("HTTPS_PROXY", "http://p:1"),
            (
                "NO_PROXY",
                "corp.test, .lan,192.0.2.7,10.0.0.0/8,2001:db8::/32",
            ),
        ]);
        for excepted in [
            "corp.test",
            "eu.corp.test",
            "CORP.test",
            "relay.lan",
            "192.0.2.7",
            "10.20.30.40",
            "2001:db8::5",
        ] {
            assert_eq!(before(&proxies, excepted), None, "{excepted}");
        }
        for proxied in ["notcorp.test", "corp.test.evil", "192.0.2.8", "2001:db9::5"] {
            assert!(before(&proxies, proxied).is_some(), "{proxied}");
        }
        let nobody = environment(&[("ALL_PROXY", "http://p:1"), ("no_proxy", "*")]);
        assert_eq!(before(&nobody, "relay.test"), None);
    }

    #[test]
    fn a_relay_on_this_host_is_not_looked_for_on_the_proxys() {
        let proxies = environment(&[("HTTPS_PROXY", "http://p:1")]);
        for here in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(before(&proxies, here), None, "{here}");
        }
    }

    #[test]
    fn an_explicit_setting_overrides_the_environment() {
        let full = |name: &str| {
            let value = if name == "NO_PROXY" {
                "*"
            } else {
                "http://p:1"
            };
            Some(value.to_owned())
        };
        let url = Proxy::Url("socks5://mine:9".parse().unwrap());
        let proxies = Proxies::new(&url, full);
        assert_eq!(before(&proxies, "relay.test").unwrap(), "socks5://mine:9");
        assert_eq!(before(&proxies, "127.0.0.1").unwrap(), "socks5://mine:9");
        let proxies = Proxies::new(&"None".parse().unwrap(), full);
        assert_eq!(before(&proxies, "relay.test"), None);
        assert_eq!(proxies.in_use(), None);
    }

    #[test]
    fn a_variable_that_names_none_is_an_error_of_its_relays_and_no_silence() {
        let proxies = environment(&[
            ("HTTPS_PROXY", "https://me:hunter2@p:1"),
            ("NO_PROXY", "corp.test"),
        ]);
        let error = before(&proxies, "relay.test").unwrap();
        assert!(
            error.starts_with("the proxy in HTTPS_PROXY cannot be used"),
            "{error}"
        );
        assert_eq!(before(&proxies, "corp.test"), None);
        let shown = format!("{proxies:?} {error}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn nothing_shows_a_password() {
        let proxies = environment(&[("HTTPS_PROXY", "http://me:hunter2@p:1")]);
        let setting = Proxy::Url("http://me:hunter2@p:1".parse().unwrap());
        let shown = format!("{proxies:?} {setting:?} {:?}", proxies.in_use());
        assert!(shown.contains("http://p:1"), "{shown}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("me:"),
            "{shown}"
        );
    }
}
