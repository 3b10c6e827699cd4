//! Certificates that somebody answers for: public authorities, a company's own, and relays known by name instead of a pin.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::Relay;
use crate::world::{Internet, World};

/// Who signs certificates.
#[derive(Debug)]
pub struct Authority {
    name: String,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    root: String,
}

/// A certificate and its key, in files.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        Ok(Self {
            name: name.to_owned(),
            issuer: Issuer::new(params, key),
            root,
        })
    }

    /// A certificate for whoever answers at this address.
    pub fn certify(&self, internet: &Internet, ip: Ipv4Addr) -> Result<Certificate> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![ip.to_string()])?;
        let file = |what| {
            internet
                .dir()
                .join(format!("{}-{ip}-{what}.pem", self.name))
        };
        let files = Certificate {
            cert: file("cert"),
            key: file("key"),
        };
        fs::write(&files.cert, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }

    /// A file of those that a host trusts.
    pub fn trusted(internet: &Internet, host: &str, authorities: &[&Self]) -> Result<PathBuf> {
        let file = internet.dir().join(format!("{host}-trusts.pem"));
        let roots: String = authorities.iter().map(|a| a.root.as_str()).collect();
        fs::write(&file, roots)?;
        Ok(file)
    }
}

impl Relay {
    /// Starts an open relay on the relay's host under this certificate. Its URL has no pin: who connects asks whom the host
    /// trusts. `strict`: it refuses links whose TLS is not ended by itself.
    pub fn start_certified(world: &World, certificate: &Certificate, strict: bool) -> Result<Self> {
        let place = &world.relay;
        let mut relay = Self::start_configured(
            world,
            &format!(
                "listen = [\"{}\", \"{}\"]\nname = \"lab\"\nregion = \"lab\"\nadmission = \"open\"\n\
                 cert = \"{}\"\nkey = \"{}\"\nrequire_channel_binding = {strict}\n",
                place.at(443),
                place.at(3478),
                certificate.cert.display(),
                certificate.key.display(),
            ),
        )?;
        let pinned = relay.url.find('#');
        relay.url.truncate(pinned.unwrap_or(relay.url.len()));
        Ok(relay)
    }
}
