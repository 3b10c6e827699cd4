//! Where the relay's certificate comes from, as its settings say, and who looks after it while the relay runs.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;

use super::files::Contents;
use super::watch::Watch;
use super::{Certificate, lasting};
use crate::ServerConfig;
use crate::identity::Identity;

/// Runs beside the relay, and never ends.
pub(crate) type Caretaker = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the relay shows.
pub(crate) fn identity(
    config: &ServerConfig,
    host: &str,
) -> anyhow::Result<(Arc<Identity>, Option<Caretaker>)> {
    one_source(config)?;
    if let Some(files) = &config.cert {
        let watch = Watch::start(files, known_by(config))
            .with_context(|| format!("the certificate in {}", files.cert.display()))?;
        let identity = watch.identity();
        return Ok((identity, Some(Box::pin(watch.run(config.reload_every)))));
    }
    let names = vec![host.to_owned()];
    if let Some(acme) = &config.acme {
        return ordered(acme, names);
    }
    let certificate = match &config.identity {
        Some(path) => lasting::read_or_make(path, names)
            .with_context(|| format!("the identity in {}", path.display()))?,
        None => Certificate::self_signed(names)?,
    };
    Ok((Arc::new(Identity::new(certificate)?), None))
}

/// The certificate that the relay would show now, if there is one already. Makes and orders none. An error says why the relay
/// would not start.
pub(crate) fn existing(config: &ServerConfig) -> anyhow::Result<Option<Certificate>> {
    one_source(config)?;
    if let Some(files) = &config.cert {
        let about = || format!("the certificate in {}", files.cert.display());
        // Not by a watch, which wants a runtime for its signal.
        let certificate = Contents::read(files).and_then(|contents| contents.certificate());
        let certificate = certificate.with_context(about)?;
        if let Some(host) = known_by(config) {
            certificate.check_host(host).with_context(about)?;
        }
        return Ok(Some(certificate));
    }
    if let Some(acme) = &config.acme {
        return kept(acme);
    }
    let Some(path) = &config.identity else {
        return Ok(None);
    };
    let about = || format!("the identity in {}", path.display());
    let found = lasting::read(path).with_context(about)?;
    if found.is_none() {
        crate::check::folder_of(path).with_context(about)?;
    }
    Ok(found)
}

/// The name by which nodes know the relay; none if they know it by an address, and so by its pin.
fn known_by(config: &ServerConfig) -> Option<&str> {
    let host = config.public_host.as_deref()?;
    host.parse::<IpAddr>().is_err().then_some(host)
}

fn one_source(config: &ServerConfig) -> anyhow::Result<()> {
    let sources = [
        config.cert.is_some(),
        config.identity.is_some(),
        config.acme.is_some(),
    ];
    anyhow::ensure!(
        sources.iter().filter(|given| **given).count() <= 1,
        "there is one certificate, so these exclude each other: 'cert' and 'key' for one in files, 'acme' for one that is \
         ordered from an authority, 'identity' for one that lasts and is known by its pin"
    );
    Ok(())
}

#[cfg(feature = "acme")]
fn ordered(
    acme: &crate::Acme,
    names: Vec<String>,
) -> anyhow::Result<(Arc<Identity>, Option<Caretaker>)> {
    let keeper = crate::acme::Keeper::start(acme, names).context("ACME")?;
    Ok((keeper.identity(), Some(Box::pin(keeper.run()))))
}

#[cfg(feature = "acme")]
fn kept(acme: &crate::Acme) -> anyhow::Result<Option<Certificate>> {
    crate::acme::check(acme).context("ACME")
}

#[cfg(not(feature = "acme"))]
fn kept(acme: &crate::Acme) -> anyhow::Result<Option<Certificate>> {
    ordered(acme, Vec::new()).map(|_| None)
}

#[cfg(not(feature = "acme"))]
fn ordered(
    _acme: &crate::Acme,
    _names: Vec<String>,
) -> anyhow::Result<(Arc<Identity>, Option<Caretaker>)> {
    anyhow::bail!(
        "this relay was built without ACME; build it with the feature 'acme', or give it a certificate in files"
    )
}
