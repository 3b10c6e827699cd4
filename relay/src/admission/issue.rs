//! The embedded control plane: an operator without one of their own makes a key and signs tokens by hand (design section 8).

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use byway_relay_core::{Claims, OneOrMany};
pub use byway_wire::relay::control::Role;
use byway_wire::{NodeId, SecretKey};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A PEM line's length (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// Signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    key: SecretKey,
}

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct Order {
    /// The node it is made out to.
    pub node: NodeId,
    /// As what it may come.
    pub roles: Vec<Role>,
    /// For whom it is.
    pub audience: String,
    /// How long it holds from now on.
    pub lifetime: Duration,
    /// With whom the node may have channels; without any, with anyone.
    pub peers: Vec<NodeId>,
    /// Who made it.
    pub issuer: Option<String>,
    /// Names it, for a list of those revoked; a random one otherwise.
    pub id: Option<String>,
    /// Bytes, and datagrams, that it may send through the relay in a second; what is usual there if not said.
    pub max_bytes: Option<NonZeroU64>,
    /// As above.
    pub max_datagrams: Option<NonZeroU64>,
    /// For the relay's log.
    pub workspace: Option<String>,
    /// For the relay's log.
    pub owner: Option<String>,
}

impl SigningKey {
    /// A fresh one.
    pub fn generate() -> anyhow::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).context("no randomness")?;
        Ok(Self {
            key: SecretKey::from_bytes(&seed),
        })
    }
    /// Reads one as [`SigningKey::private_pem`] or OpenSSL writes it.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .context("no private key (PKCS #8 in PEM)")?;
        let key = SecretKey::from_pkcs8_der(der.secret_pkcs8_der())
            .context("not an Ed25519 private key")?;
        Ok(Self { key })
    }
    /// The private key, PKCS #8 in PEM.
    pub fn private_pem(&self) -> Zeroizing<String> {
        let der = self.key.to_pkcs8_der();
        Zeroizing::new(pem("PRIVATE KEY", &der))
    }
    /// The public key, SPKI in PEM: what a relay needs.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.key.node_id().to_spki_der())
    }
    /// The public key as a JWK (RFC 8037), for those who publish a set.
    pub fn jwk(&self) -> String {
        format!(
            r#"{{"alg":"EdDSA","kid":"{}",{}}}"#,
            self.id(),
            self.required()
        )
    }
    /// The members of the JWK that make its thumbprint, in their order.
    fn required(&self) -> String {
        let x = BASE64URL_NOPAD.encode(self.key.node_id().as_bytes());
        format!(r#""crv":"Ed25519","kty":"OKP","x":"{x}""#)
    }
    /// Its name in tokens: the JWK's thumbprint (RFC 7638).
    fn id(&self) -> String {
        let thumbprint = Sha256::digest(format!("{{{}}}", self.required()));
        BASE64URL_NOPAD.encode(&thumbprint)
    }

    /// Signs a token that holds from now on.
    pub fn sign(&self, order: Order) -> anyhow::Result<String> {
        self.sign_at(order, SystemTime::now())
    }
    /// Signs a token that holds from then on.
    pub fn sign_at(&self, order: Order, from: SystemTime) -> anyhow::Result<String> {
        let now = from
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?;
        let exp = now
            .checked_add(order.lifetime)
            .context("it would never expire")?;
        let id = match order.id {
            Some(id) => id,
            None => {
                let mut random = [0; 12];
                getrandom::fill(&mut random).context("no randomness")?;
                BASE64URL_NOPAD.encode(&random)
            }
        };
        let roles = order.roles.iter().map(|role| match role {
            Role::Agent => "agent".to_owned(),
            Role::Client => "client".to_owned(),
        });
        let peers = order.peers.iter().map(NodeId::to_string);
        let claims = Claims {
            sub: order.node.to_string(),
            aud: OneOrMany::One(order.audience),
            exp: exp.as_secs(),
            nbf: now.as_secs(),
            iat: Some(now.as_secs()),
            iss: order.issuer,
            jti: Some(id),
            role: OneOrMany::Many(roles.collect()),
            peers: (!order.peers.is_empty()).then(|| peers.collect()),
            max_bytes: order.max_bytes,
            max_datagrams: order.max_datagrams,
            workspace: order.workspace,
            owner: order.owner,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id());
        let key = EncodingKey::from_ed_der(&self.key.to_pkcs8_der());
        Ok(jsonwebtoken::encode(&header, &claims, &key)?)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(BASE64.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_LINE));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = SigningKey::generate().unwrap();
        let read = SigningKey::from_pem(&key.private_pem()).unwrap();
        assert_eq!(read.public_pem(), key.public_pem());
        assert!(SigningKey::from_pem(&key.public_pem()).is_err());
    }

    /// RFC 8037 appendix A.
    #[test]
    fn the_thumbprint_is_the_standards() {
        let x = BASE64URL_NOPAD
            .decode(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
            .unwrap();
        let key = SigningKey {
            key: SecretKey::from_bytes(&x.try_into().unwrap()),
        };
        assert!(
            key.jwk()
                .contains("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
        );
        assert_eq!(key.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
