//! Everything that can be set. What is not said is none, so that one source of settings can be laid over another.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::layers::layers;
use super::limits::LimitSettings;

/// Settings of `byway-relay serve`. The names in the file are those of the fields.
#[derive(Clone, PartialEq, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Listen here, for UDP and TCP; may be given several times. Default: ports 443 and 3478 on all addresses.
    #[arg(
        long,
        value_name = "ADDR",
        env = "BYWAY_RELAY_LISTEN",
        value_delimiter = ','
    )]
    pub listen: Option<Vec<SocketAddr>>,
    /// The relay's name, told to nodes. Default: relay.
    #[arg(long, env = "BYWAY_RELAY_NAME")]
    pub name: Option<String>,
    /// Its region. Default: default.
    #[arg(long, env = "BYWAY_RELAY_REGION")]
    pub region: Option<String>,
    /// The host name or address by which nodes know the relay. Behind an ingress that ends TLS it must be right.
    #[arg(long, value_name = "HOST", env = "BYWAY_RELAY_PUBLIC_HOST")]
    pub public_host: Option<String>,
    /// A certificate chain in PEM. Default: a certificate made at each start, known by its pin.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_CERT")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_KEY")]
    pub key: Option<PathBuf>,
    /// A file that keeps a certificate signed by the relay itself, made at the first start, so that the pin in the relay's URL stays.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_IDENTITY")]
    pub identity: Option<PathBuf>,
    /// Here an ingress that ends TLS hands on HTTP, in the clear; may be given several times. Needs the public host.
    #[arg(
        long,
        value_name = "ADDR",
        env = "BYWAY_RELAY_PLAIN_HTTP",
        value_delimiter = ','
    )]
    pub plain_http: Option<Vec<SocketAddr>>,
    /// Networks of proxies whose word about their clients is believed (X-Forwarded-For), and who alone may come by plain HTTP; may be
    /// given several times.
    #[arg(
        long = "trusted-proxy",
        value_name = "NETWORK",
        env = "BYWAY_RELAY_TRUSTED_PROXY",
        value_delimiter = ','
    )]
    pub trusted_proxies: Option<Vec<String>>,
    /// Answer /metrics, /status, /healthz and /readyz here, in the clear and to anybody who can reach it. Default: nowhere; the last two are
    /// answered where nodes come in as well.
    #[arg(long, value_name = "ADDR", env = "BYWAY_RELAY_OBSERVE")]
    pub observe: Option<SocketAddr>,
    /// Append an audit log of JSON lines to this file: who linked, who had a channel with whom, when, how much, why it ended.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_AUDIT")]
    pub audit: Option<PathBuf>,
    /// When the relay is told to stop, give nodes so many seconds to go elsewhere, 0-3600. Default: 30.
    #[arg(long, value_name = "N", env = "BYWAY_RELAY_DRAIN_SECONDS")]
    pub drain_seconds: Option<u32>,
    /// The URL of a relay that nodes may go to when this one stops (its successor, its neighbours); may be given up to 4 times.
    #[arg(
        long = "alternate",
        value_name = "URL",
        env = "BYWAY_RELAY_ALTERNATE",
        value_delimiter = ','
    )]
    pub alternates: Option<Vec<String>>,
    /// A socket in the file system by which `byway-relay drain` reaches the relay. Default: none.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_CONTROL")]
    pub control: Option<PathBuf>,
    /// UDP shards for each address. Default: one for each core.
    #[arg(long, value_name = "N", env = "BYWAY_RELAY_SHARDS")]
    pub shards: Option<usize>,
    /// Longest payload that is forwarded, in bytes, 1,200-9,000. Default: 9,000.
    #[arg(long, value_name = "BYTES", env = "BYWAY_RELAY_MAX_DATAGRAM")]
    pub max_datagram: Option<u32>,
    /// Refuse TLS links whose TLS ends before the relay (an ingress, an inspecting proxy). Default: false.
    #[arg(
        long,
        value_name = "BOOL",
        env = "BYWAY_RELAY_REQUIRE_CHANNEL_BINDING",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub require_channel_binding: Option<bool>,
    /// Who may use the relay. There is no default.
    #[arg(long, env = "BYWAY_RELAY_ADMISSION")]
    pub admission: Option<AdmissionKind>,
    /// With admission by list: these nodes, by their NodeIds; may be given several times.
    #[arg(
        long = "allow-node",
        value_name = "ID",
        env = "BYWAY_RELAY_ALLOW_NODE",
        value_delimiter = ','
    )]
    pub nodes: Option<Vec<String>>,
    /// Which tokens admit.
    #[command(flatten)]
    #[serde(default)]
    pub tokens: TokenSettings,
    /// What a node, or a stranger, may take.
    #[command(flatten)]
    #[serde(default)]
    pub limits: LimitSettings,
    /// A certificate from an authority.
    #[command(flatten)]
    #[serde(default)]
    pub acme: AcmeSettings,
}

/// A certificate that the relay orders from an authority and renews by itself (RFC 8555): the table `acme`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AcmeSettings {
    /// Order a certificate for this host name, which leads here: the authority comes to its port 443. May be given several times.
    #[arg(
        long = "acme-domain",
        value_name = "HOST",
        env = "BYWAY_RELAY_ACME_DOMAIN",
        value_delimiter = ','
    )]
    pub domains: Option<Vec<String>>,
    /// Where the authority may write about the certificate; may be given several times.
    #[arg(
        long = "acme-contact",
        value_name = "EMAIL",
        env = "BYWAY_RELAY_ACME_CONTACT",
        value_delimiter = ','
    )]
    pub contact: Option<Vec<String>>,
    /// A directory that keeps the account and the certificate.
    #[arg(
        long = "acme-cache",
        value_name = "DIR",
        env = "BYWAY_RELAY_ACME_CACHE"
    )]
    pub cache: Option<PathBuf>,
    /// The authority. Default: Let's Encrypt, to whose terms of service one agrees by using it.
    #[arg(
        long = "acme-directory",
        value_name = "URL",
        env = "BYWAY_RELAY_ACME_DIRECTORY"
    )]
    pub directory: Option<String>,
    /// Certificates in PEM to trust beside the system's when the authority is asked: for one of your own. May be given several times.
    #[arg(
        long = "acme-root",
        value_name = "FILE",
        env = "BYWAY_RELAY_ACME_ROOT",
        value_delimiter = ','
    )]
    pub roots: Option<Vec<PathBuf>>,
}

/// Which tokens admit: the table `tokens`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TokenSettings {
    /// With admission by token: a file with public keys of those who sign them (PEM, JWK or JWKS, Ed25519); read again when it
    /// changes. May be given several times.
    #[arg(
        long = "token-key",
        value_name = "FILE",
        env = "BYWAY_RELAY_TOKEN_KEY",
        value_delimiter = ','
    )]
    pub keys: Option<Vec<PathBuf>>,
    /// With admission by token: an https URL of such keys (JWKS), fetched at the start and again while the relay runs. May be given
    /// several times.
    #[arg(
        long = "token-jwks",
        value_name = "URL",
        env = "BYWAY_RELAY_TOKEN_JWKS",
        value_delimiter = ','
    )]
    pub jwks: Option<Vec<String>>,
    /// Certificates in PEM to trust beside the system's when keys are fetched: for an authority of your own. May be given several times.
    #[arg(
        long = "token-jwks-root",
        value_name = "FILE",
        env = "BYWAY_RELAY_TOKEN_JWKS_ROOT",
        value_delimiter = ','
    )]
    pub jwks_roots: Option<Vec<PathBuf>>,
    /// What a token's 'aud' must name; may be given several times. Default: byway-relay.
    #[arg(
        long = "audience",
        value_name = "NAME",
        env = "BYWAY_RELAY_AUDIENCE",
        value_delimiter = ','
    )]
    pub audiences: Option<Vec<String>>,
    /// What a token's 'iss' must be. Default: anything.
    #[arg(long, value_name = "NAME", env = "BYWAY_RELAY_ISSUER")]
    pub issuer: Option<String>,
    /// A list of tokens ('jti') taken back and nodes (NodeId) shut out, one a line; read again when it changes.
    #[arg(long, value_name = "FILE", env = "BYWAY_RELAY_REVOKED")]
    pub revoked: Option<PathBuf>,
}

/// Who may use the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AdmissionKind {
    /// Anyone who can reach it and proves a key.
    Open,
    /// The nodes on a list.
    Nodes,
    /// Who shows a token that one of the keys signed.
    Tokens,
}

layers!(Settings {
    listen,
    name,
    region,
    public_host,
    cert,
    key,
    identity,
    plain_http,
    trusted_proxies,
    observe,
    audit,
    drain_seconds,
    alternates,
    control,
    shards,
    max_datagram,
    require_channel_binding,
    admission,
    nodes,
    tokens,
    limits,
    acme,
});

layers!(TokenSettings {
    keys,
    jwks,
    jwks_roots,
    audiences,
    issuer,
    revoked,
});

layers!(AcmeSettings {
    domains,
    contact,
    cache,
    directory,
    roots,
});

/// The flag for a key of the file.
pub(super) fn flag(key: &str) -> String {
    match key {
        "nodes" => "allow-node".to_owned(),
        "tokens" | "tokens.keys" => "token-key".to_owned(),
        "tokens.jwks" => "token-jwks".to_owned(),
        "tokens.jwks_roots" => "token-jwks-root".to_owned(),
        "tokens.audiences" => "audience".to_owned(),
        "tokens.issuer" => "issuer".to_owned(),
        "tokens.revoked" => "revoked".to_owned(),
        "trusted_proxies" => "trusted-proxy".to_owned(),
        "alternates" => "alternate".to_owned(),
        "acme" | "acme.domains" => "acme-domain".to_owned(),
        "acme.contact" => "acme-contact".to_owned(),
        "acme.cache" => "acme-cache".to_owned(),
        "acme.directory" => "acme-directory".to_owned(),
        "acme.roots" => "acme-root".to_owned(),
        "limits.shed_above" => "max-use".to_owned(),
        key if key.starts_with("limits.") => {
            format!("max-{}", key["limits.".len()..].replace('_', "-"))
        }
        key => key.replace('_', "-"),
    }
}
