//! Admission tokens: JWTs (RFC 7519) signed with EdDSA over Ed25519 (RFC 8037).
//!
//! A token is made out to one node: its `sub` is the NodeId, and the link that shows it has proved that key, so that a token that was
//! overheard or stolen is of no use with another key. `exp`, `nbf`, `aud`, `sub` and `role` are required. The library checks
//! signature, algorithm and audience; time is checked here, by the `unix_time` that is passed in. Everything is checked against
//! the rules' own keys: what a header says of keys (`jwk`, `jku`, `x5c`) is ignored, and `crit` is refused.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use byway_wire::NodeId;
use byway_wire::relay::control::Role;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};

use super::AdmissionError;
use crate::io::NodeRate;

/// How far the issuer's clock may be ahead of ours, in seconds (design section 8).
const NOT_YET_LEEWAY: u64 = 60;
/// For how long a token still admits after its `exp`, and when the links that it let in are cut, in seconds. Not the whole minute, so
/// that who is cut is gone within it.
pub(crate) const EXPIRY_LEEWAY: u64 = 55;
/// Longest text of a claim that is kept for the log, in bytes.
const MAX_TEXT: usize = 128;
/// Most peers a token may name: what fits the largest token there may be.
const MAX_PEERS: usize = 256;

/// What a token says. Other claims are ignored.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The node it is made out to: a NodeId in its text form.
    pub sub: String,
    /// What it is for; must name one of the relay's audiences.
    pub aud: OneOrMany,
    /// Until when it holds, in seconds since the Unix epoch.
    pub exp: u64,
    /// From when on it holds, in seconds since the Unix epoch.
    pub nbf: u64,
    /// When it was made. Not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Who made it; judged where the relay names an issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Names the token in a list of those revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// `agent`, `client`, or both.
    pub role: OneOrMany,
    /// With whom it may have channels, as NodeIds: an opener whom it may call, an agent who may call it. None: anyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<String>>,
    /// What it may send through the relay in a second, in bytes and in datagrams, instead of what is usual there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<NonZeroU64>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_datagrams: Option<NonZeroU64>,
    /// The workspace, for the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Its owner, for the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// A claim that may be one text or a list of them (RFC 7519 section 4.1.3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl OneOrMany {
    fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            OneOrMany::One(one) => (Some(one.as_str()), &[][..]),
            OneOrMany::Many(many) => (None, &many[..]),
        };
        one.into_iter().chain(many.iter().map(String::as_str))
    }
}

/// An issuer's public key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenKey {
    /// Its `kid`. A token that names one is checked against keys of that name only.
    id: Option<String>,
    public: [u8; 32],
}

/// A public key that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an Ed25519 public key")]
pub struct KeyError;

impl TokenKey {
    /// True if it may have signed a token that names this key, or none.
    fn answers_to(&self, named: Option<&str>) -> bool {
        match (self.id.as_deref(), named) {
            (Some(id), Some(named)) => id == named,
            _ => true,
        }
    }
    /// True if it is called so.
    fn is_called(&self, named: &str) -> bool {
        self.id.as_deref() == Some(named)
    }
    /// Makes one of two entries for the same key. If they call it differently, it takes either name, as both did. False if it is another
    /// key.
    pub fn merge(&mut self, other: &Self) -> bool {
        if self.public != other.public {
            return false;
        }
        if self.id != other.id {
            self.id = None;
        }
        true
    }
    /// A key of an issuer. Refused if it is no point of the curve, or one with which anything can be signed.
    pub fn new(id: Option<String>, public: [u8; 32]) -> Result<Self, KeyError> {
        match NodeId::from_bytes(&public) {
            Ok(_) => Ok(Self { id, public }),
            Err(_) => Err(KeyError),
        }
    }
}

/// Which tokens admit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenRules {
    /// Who may sign. Without any nobody is admitted.
    pub keys: Vec<TokenKey>,
    /// A token must be for one of these. Without any nobody is admitted.
    pub audiences: Vec<String>,
    /// If given, a token must be of this issuer.
    pub issuer: Option<String>,
    /// Tokens taken back, by `jti`, and nodes shut out, by NodeId.
    pub revoked: BTreeSet<String>,
}

/// What a token lets its node do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Until when, in seconds since the Unix epoch, leeway included.
    pub(crate) until: u64,
    /// With whom it may have channels.
    peers: Option<BTreeSet<NodeId>>,
    /// What it may send in a second.
    pub(crate) rate: NodeRate,
    /// For the log.
    pub workspace: Option<String>,
    /// For the log.
    pub owner: Option<String>,
    node: NodeId,
    /// The public key that signed it, and what the token calls it. Not the key as the rules had it: that may get another name, or be
    /// in another file, and is the same key.
    signer: [u8; 32],
    kid: Option<String>,
    id: Option<String>,
    issuer: Option<String>,
    audiences: BTreeSet<String>,
}

impl Grant {
    /// For how many seconds from now on, leeway left out: whoever renews in time needs none.
    pub(crate) fn holds_for(&self, unix_time: u64) -> u32 {
        let left = self.until.saturating_sub(EXPIRY_LEEWAY + unix_time);
        u32::try_from(left).unwrap_or(u32::MAX)
    }
    /// True if it may have a channel with that node.
    pub(crate) fn reaches(&self, peer: NodeId) -> bool {
        self.peers
            .as_ref()
            .is_none_or(|peers| peers.contains(&peer))
    }
}

impl TokenRules {
    pub(crate) fn judge(
        &self,
        unix_time: u64,
        node: NodeId,
        role: Role,
        token: &str,
    ) -> Result<Grant, AdmissionError> {
        let (claims, signer, kid) = self.verify(token)?;
        if claims.sub.parse::<NodeId>().ok() != Some(node) {
            return Err(AdmissionError::WrongNode);
        }
        let named = match role {
            Role::Agent => "agent",
            Role::Client => "client",
        };
        if !claims.role.iter().any(|role| role == named) {
            return Err(AdmissionError::Role);
        }
        if claims.nbf > unix_time.saturating_add(NOT_YET_LEEWAY) {
            return Err(AdmissionError::NotYet);
        }
        let until = claims.exp.saturating_add(EXPIRY_LEEWAY);
        if until <= unix_time {
            return Err(AdmissionError::Expired);
        }
        let grant = Grant {
            until,
            peers: peers(claims.peers)?,
            rate: NodeRate {
                bytes: claims.max_bytes.map(NonZeroU64::get),
                datagrams: claims.max_datagrams.map(NonZeroU64::get),
            },
            workspace: claims.workspace.map(for_log),
            owner: claims.owner.map(for_log),
            node,
            signer,
            kid,
            id: claims.jti,
            issuer: claims.iss,
            audiences: claims.aud.iter().map(str::to_owned).collect(),
        };
        self.still_stands(&grant)?;
        Ok(grant)
    }

    /// Signature, algorithm, and that no claim is missing.
    fn verify(&self, token: &str) -> Result<(Claims, [u8; 32], Option<String>), AdmissionError> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| match e.kind() {
            // `alg` is missing or none that the library knows, `none` among them.
            ErrorKind::Json(_) => AdmissionError::Algorithm,
            other => told(other),
        })?;
        if header.alg != Algorithm::EdDSA {
            return Err(AdmissionError::Algorithm);
        }
        if self.keys.is_empty() {
            return Err(AdmissionError::NoKeys);
        }
        if header.crit.is_some() {
            return Err(AdmissionError::Malformed(
                "it asks for what this relay does not know (crit)",
            ));
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "sub"]);
        validation.set_audience(&self.audiences);
        // The library would read the system's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let named = header.kid.as_deref();
        let unknown = named.is_some_and(|id| !self.keys.iter().any(|key| key.is_called(id)));
        let mut error = if unknown {
            AdmissionError::UnknownKey
        } else {
            AdmissionError::Signature
        };
        for key in &self.keys {
            if !key.answers_to(named) {
                continue;
            }
            let decoding = DecodingKey::from_ed_der(&key.public);
            match jsonwebtoken::decode::<Claims>(token, &decoding, &validation) {
                Ok(data) => return Ok((data.claims, key.public, header.kid)),
                // Another key may have signed it; anything else was found behind a good signature.
                Err(e) if *e.kind() == ErrorKind::InvalidSignature => {}
                Err(e) => error = told(e.kind()),
            }
        }
        Err(error)
    }

    /// What may change while a grant is in use: keys, audiences, the issuer, what is revoked.
    pub(crate) fn still_stands(&self, grant: &Grant) -> Result<(), AdmissionError> {
        let stands =
            |key: &TokenKey| key.public == grant.signer && key.answers_to(grant.kid.as_deref());
        if !self.keys.iter().any(stands) {
            return Err(AdmissionError::Signature);
        }
        if !self.audiences.iter().any(|a| grant.audiences.contains(a)) {
            return Err(AdmissionError::Audience);
        }
        if self.issuer.is_some() && self.issuer != grant.issuer {
            return Err(AdmissionError::Issuer);
        }
        let by_id = grant
            .id
            .as_ref()
            .is_some_and(|id| self.revoked.contains(id));
        if by_id || self.revoked.contains(&grant.node.to_string()) {
            return Err(AdmissionError::Revoked);
        }
        Ok(())
    }
}

fn peers(named: Option<Vec<String>>) -> Result<Option<BTreeSet<NodeId>>, AdmissionError> {
    let Some(named) = named else { return Ok(None) };
    if named.len() > MAX_PEERS {
        return Err(AdmissionError::Malformed("too many peers"));
    }
    let peers = named.iter().map(|id| id.parse().ok());
    match peers.collect::<Option<BTreeSet<NodeId>>>() {
        Some(peers) => Ok(Some(peers)),
        // One that is left out would be somebody whom it may not reach, and nobody would know why.
        None => Err(AdmissionError::Malformed("a peer that is no NodeId")),
    }
}

/// Nobody writes lines of their own into a log.
fn for_log(text: String) -> String {
    let kept = text.chars().filter(|c| !c.is_control());
    let mut out = String::new();
    for c in kept {
        if out.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        out.push(c);
    }
    out
}

fn told(error: &ErrorKind) -> AdmissionError {
    match error {
        ErrorKind::InvalidSignature => AdmissionError::Signature,
        ErrorKind::InvalidAudience => AdmissionError::Audience,
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::UnsupportedAlgorithm
        | ErrorKind::MissingAlgorithm => AdmissionError::Algorithm,
        ErrorKind::MissingRequiredClaim(_) => {
            AdmissionError::Malformed("'exp', 'nbf', 'aud' or 'sub' is missing")
        }
        ErrorKind::Json(_) => AdmissionError::Malformed(
            "a claim is missing, or not of its type ('sub', 'aud', 'exp', 'nbf', 'role')",
        ),
        _ => AdmissionError::Malformed("it is no JWT"),
    }
}

#[cfg(test)]
mod tests;
