//! From settings to a configuration, or to what is wrong with them and how to mend it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use byway_relay_core::Admission;
use byway_wire::RelayUrl;
use byway_wire::relay::control::MAX_NAME;
use byway_wire::relay::{HTTPS_PORT, STUN_PORT};
use ipnet::IpNet;

use super::jwks;
use super::layers::Layer;
use super::settings::{AcmeSettings, AdmissionKind, Settings};
use crate::certificate::{can_be_ordered, is_directory};
use crate::{Acme, AdmissionSource, CertFiles, ServerConfig, TokenSources};

/// What a token must be for where nothing else is said; what `byway-relay token` makes.
pub(super) const AUDIENCE: &str = "byway-relay";
/// Most shards of an address: more than any machine has cores to spare, and each takes two megabytes.
const MAX_SHARDS: usize = 256;
/// Longest time that nodes are given to leave, in seconds.
const MAX_DRAIN: u32 = 3_600;
/// Most relays that nodes take of one that stops.
const MAX_NAMED: usize = 4;
/// From QUIC's smallest to a jumbo frame's.
const DATAGRAMS: std::ops::RangeInclusive<u32> = 1_200..=9_000;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which setting, as the file names it.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub mend: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.mend)
    }
}

pub(super) fn fault<T>(
    key: &'static str,
    problem: impl Into<String>,
    mend: impl Into<String>,
) -> Result<T, Fault> {
    Err(Fault {
        key,
        problem: problem.into(),
        mend: mend.into(),
    })
}

/// Ports 443 and 3478 on all addresses: where nodes look for a relay, and where they go if networks block UDP on the first.
pub(super) fn everywhere() -> Vec<SocketAddr> {
    let ports = [HTTPS_PORT, STUN_PORT].into_iter();
    let both = ports.flat_map(|port| {
        [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ]
    });
    both.collect()
}

pub(super) fn resolve(settings: Settings) -> Result<ServerConfig, Fault> {
    let admission = admission(&settings)?;
    let listen = settings.listen.unwrap_or_else(everywhere);
    if listen.is_empty() {
        return fault(
            "listen",
            "names no address",
            "name one, or leave it out for ports 443 and 3478 everywhere",
        );
    }
    let mut config = ServerConfig::new(listen, admission);
    for (key, value, to) in [
        ("name", settings.name, &mut config.name),
        ("region", settings.region, &mut config.region),
    ] {
        let Some(value) = value else { continue };
        if value.is_empty() || value.len() > MAX_NAME {
            return fault(
                key,
                format!("has {} bytes", value.len()),
                format!("give it 1 to {MAX_NAME}"),
            );
        }
        *to = value;
    }
    if let Some(host) = &settings.public_host
        && RelayUrl::new(host, HTTPS_PORT, None).is_err()
    {
        return fault(
            "public_host",
            format!("is '{host}', which is no host"),
            "write a name or an address alone, without https:// and without a port",
        );
    }
    config.public_host = settings.public_host;
    config.cert = match (settings.cert, settings.key) {
        (Some(cert), Some(key)) => Some(CertFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => return fault("cert", "has no private key", "give 'key' as well"),
        (None, Some(_)) => return fault("key", "has no certificate", "give 'cert' as well"),
    };
    config.acme = acme(&settings.acme)?;
    config.identity = settings.identity;
    if config.identity.is_some() && (config.cert.is_some() || config.acme.is_some()) {
        return fault(
            "identity",
            "is one certificate too many",
            "it lasts and is known by its pin; remove it, or 'cert' and 'key', or [acme]",
        );
    }
    if config.acme.is_some() && config.cert.is_some() {
        return fault(
            "cert",
            "is one certificate too many",
            "remove 'cert' and 'key', or [acme]",
        );
    }
    if let (Some(host), Some(acme)) = (&config.public_host, &config.acme)
        && host.parse::<IpAddr>().is_err()
        && !acme.domains.iter().any(|d| same_host(d, host))
    {
        return fault(
            "public_host",
            format!("is '{host}', for which no certificate is ordered"),
            "name it in [acme] domains as well",
        );
    }
    let open = config.admission == AdmissionSource::Fixed(Admission::Open);
    config.limits = settings.limits.resolve(open)?;
    config.audit = settings.audit;
    config.control = settings.control;
    if let Some(seconds) = settings.drain_seconds {
        if seconds > MAX_DRAIN {
            return fault(
                "drain_seconds",
                format!("is {seconds}"),
                format!("give 0 to {MAX_DRAIN}"),
            );
        }
        config.drain_for = Duration::from_secs(seconds.into());
    }
    for url in settings.alternates.unwrap_or_default() {
        match url.parse() {
            Ok(url) => config.alternates.push(url),
            Err(error) => {
                return fault(
                    "alternates",
                    format!("names '{url}': {error}"),
                    "write the URL as that relay prints it, https://host:port#pin",
                );
            }
        }
    }
    if config.alternates.len() > MAX_NAMED {
        return fault(
            "alternates",
            format!("names {}", config.alternates.len()),
            format!("name at most {MAX_NAMED}: nodes go to no more"),
        );
    }
    config.observe = settings.observe;
    config.plain_http = settings.plain_http.unwrap_or_default();
    for network in settings.trusted_proxies.unwrap_or_default() {
        match network.parse::<IpNet>() {
            Ok(all) if all.prefix_len() == 0 => {
                return fault(
                    "trusted_proxies",
                    format!("names '{network}': everybody could say to be anybody"),
                    "name the addresses of your proxies",
                );
            }
            Ok(network) => config.trusted_proxies.push(network),
            Err(_) => {
                return fault(
                    "trusted_proxies",
                    format!("names '{network}', which is no network"),
                    "write 10.0.0.0/8, or 192.0.2.1/32 for one address",
                );
            }
        }
    }
    if !config.plain_http.is_empty() && config.public_host.is_none() {
        return fault(
            "plain_http",
            "is for an ingress, and nobody knows by which name nodes come to it",
            "set 'public_host'",
        );
    }
    let shards = settings.shards.unwrap_or(0);
    if shards > MAX_SHARDS {
        return fault(
            "shards",
            format!("is {shards}"),
            format!("give at most {MAX_SHARDS}, or leave it out for one a core"),
        );
    }
    config.shards = shards;
    if let Some(bytes) = settings.max_datagram {
        if !DATAGRAMS.contains(&bytes) {
            return fault("max_datagram", format!("is {bytes}"), "give 1200 to 9000");
        }
        config.max_datagram = bytes;
    }
    config.require_channel_binding = settings.require_channel_binding.unwrap_or(false);
    if config.require_channel_binding && !config.plain_http.is_empty() {
        return fault(
            "require_channel_binding",
            "refuses every link whose TLS ends before the relay, and by 'plain_http' there come no others",
            "remove one of the two",
        );
    }
    Ok(config)
}

fn same_host(one: &str, other: &str) -> bool {
    let bare = |host: &str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    bare(one) == bare(other)
}

fn acme(settings: &AcmeSettings) -> Result<Option<Acme>, Fault> {
    if !settings.says(None) {
        return Ok(None);
    }
    let Some(domains) = settings.domains.clone().filter(|d| !d.is_empty()) else {
        return fault(
            "acme.domains",
            "names no host",
            "name the host for which the certificate is",
        );
    };
    if let Some(domain) = domains.iter().find(|d| !can_be_ordered(d)) {
        return fault(
            "acme.domains",
            format!("names '{domain}', for which no certificate can be ordered"),
            "name a host: no wildcard, no address, no dot at the end",
        );
    }
    let Some(cache) = settings.cache.clone() else {
        return fault(
            "acme.cache",
            "is not said, and authorities do not make out a certificate at every start",
            "name a directory that stays, such as /var/lib/byway-relay",
        );
    };
    let mut acme = Acme::new(domains, cache);
    acme.contact = settings.contact.clone().unwrap_or_default();
    acme.extra_roots = settings.roots.clone().unwrap_or_default();
    if let Some(url) = &settings.directory {
        if !is_directory(url) {
            return fault(
                "acme.directory",
                format!("is '{url}', which is no https URL"),
                "write https://..., for the account's key goes there",
            );
        }
        acme.directory_url.clone_from(url);
    }
    Ok(Some(acme))
}

fn admission(settings: &Settings) -> Result<AdmissionSource, Fault> {
    let tokens = &settings.tokens;
    let Some(kind) = settings.admission else {
        return fault(
            "admission",
            "is not said: nobody knows who may use this relay",
            "say 'tokens', 'nodes' or 'open' (anyone)",
        );
    };
    // Keys beside an open door: one of the two is not what the operator means.
    if kind != AdmissionKind::Tokens && tokens.says(None) {
        return fault(
            "tokens",
            "does nothing unless admission is by token",
            "say admission = \"tokens\", or remove it",
        );
    }
    if kind != AdmissionKind::Nodes && settings.nodes.is_some() {
        return fault(
            "nodes",
            "does nothing unless admission is by list",
            "say admission = \"nodes\", or remove it",
        );
    }
    match kind {
        AdmissionKind::Open => Ok(Admission::Open.into()),
        AdmissionKind::Nodes => {
            let named = settings.nodes.iter().flatten();
            let parsed = named.map(|id| id.parse().map_err(|_| id));
            match parsed.collect::<Result<_, _>>() {
                Ok(nodes) if settings.nodes.as_ref().is_some_and(|n| !n.is_empty()) => {
                    Ok(Admission::Nodes(nodes).into())
                }
                Ok(_) => fault(
                    "nodes",
                    "is empty: nobody could use this relay",
                    "name at least one NodeId",
                ),
                Err(id) => fault(
                    "nodes",
                    format!("names '{id}', which is no NodeId"),
                    "a NodeId has 52 characters; 'byway id' shows it",
                ),
            }
        }
        AdmissionKind::Tokens => {
            let files = TokenSources {
                keys: tokens.keys.clone().unwrap_or_default(),
                jwks: jwks::jwks(tokens)?,
                audiences: match &tokens.audiences {
                    Some(audiences) => audiences.clone(),
                    None => vec![AUDIENCE.to_owned()],
                },
                issuer: tokens.issuer.clone(),
                revoked: tokens.revoked.clone(),
            };
            if files.keys.is_empty() && files.jwks.urls.is_empty() {
                return fault(
                    "tokens.keys",
                    "names no file",
                    "make a key by 'byway-relay keygen', or name your control plane's JWKS file, or its URL by 'jwks'",
                );
            }
            if files.audiences.is_empty() {
                return fault(
                    "tokens.audiences",
                    "is empty: no token could admit",
                    format!("name one, or leave it out for '{AUDIENCE}'"),
                );
            }
            Ok(AdmissionSource::Tokens(files))
        }
    }
}
