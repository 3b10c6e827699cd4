//! Everything that can be set. What is not said is none, so that one source of settings can be laid over another.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

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

impl Settings {
    /// These, and where they say nothing, what `below` says.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            name: self.name.or(below.name),
            region: self.region.or(below.region),
            public_host: self.public_host.or(below.public_host),
            cert: self.cert.or(below.cert),
            key: self.key.or(below.key),
            shards: self.shards.or(below.shards),
            max_datagram: self.max_datagram.or(below.max_datagram),
            require_channel_binding: self
                .require_channel_binding
                .or(below.require_channel_binding),
            admission: self.admission.or(below.admission),
            nodes: self.nodes.or(below.nodes),
            tokens: self.tokens.over(below.tokens),
        }
    }

    /// True if they say anything of this key.
    pub(super) fn says(&self, key: &str) -> bool {
        match key {
            "listen" => self.listen.is_some(),
            "name" => self.name.is_some(),
            "region" => self.region.is_some(),
            "public_host" => self.public_host.is_some(),
            "cert" => self.cert.is_some(),
            "key" => self.key.is_some(),
            "shards" => self.shards.is_some(),
            "max_datagram" => self.max_datagram.is_some(),
            "require_channel_binding" => self.require_channel_binding.is_some(),
            "admission" => self.admission.is_some(),
            "nodes" => self.nodes.is_some(),
            "tokens.keys" => self.tokens.keys.is_some(),
            "tokens.audiences" => self.tokens.audiences.is_some(),
            "tokens.issuer" => self.tokens.issuer.is_some(),
            "tokens.revoked" => self.tokens.revoked.is_some(),
            _ => false,
        }
    }
}

impl TokenSettings {
    fn over(self, below: Self) -> Self {
        Self {
            keys: self.keys.or(below.keys),
            audiences: self.audiences.or(below.audiences),
            issuer: self.issuer.or(below.issuer),
            revoked: self.revoked.or(below.revoked),
        }
    }
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The flag for a key of the file.
pub(super) fn flag(key: &str) -> String {
    match key {
        "nodes" => "allow-node".to_owned(),
        "tokens" | "tokens.keys" => "token-key".to_owned(),
        "tokens.audiences" => "audience".to_owned(),
        "tokens.issuer" => "issuer".to_owned(),
        "tokens.revoked" => "revoked".to_owned(),
        key => key.replace('_', "-"),
    }
}
