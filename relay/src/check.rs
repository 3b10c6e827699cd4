//! What a configuration's files hold, before a relay starts with them: nothing is made, ordered or bound.
//!
//! It refuses what a start would refuse, as far as that can be told by another process. Whoever checks may be another user than the
//! relay will be: what only that user may read is not judged where the start needs no more than the right to write.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;
use byway_relay_core::Admission;
use ipnet::IpNet;

use crate::certificate::source;
use crate::{AdmissionSource, JwksUrl, ServerConfig, admission};

/// Networks of proxies with shorter prefixes hold others than proxies: all of a company's machines, say.
const NARROW_V4: u8 = 16;
const NARROW_V6: u8 = 48;

/// What [`ServerConfig::check_files`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Found {
    /// Who is admitted now, keys at URLs left out.
    pub admission: Admission,
    /// The certificate that the relay would show, if it need not make or order one.
    pub certificate: Option<FoundCertificate>,
}

/// What [`ServerConfig::check_urls`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FoundKeys {
    /// Who is admitted now.
    pub admission: Admission,
    /// How many keys each URL has.
    pub urls: Vec<(JwksUrl, usize)>,
    /// What a relay would start without, for a person.
    pub warnings: Vec<String>,
}

/// A certificate that fits its key and the public host, whatever the time.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FoundCertificate {
    /// The hosts that it is for, wildcards as they stand.
    pub names: Vec<String>,
    /// When it begins to hold.
    pub not_before: SystemTime,
    /// When it expires.
    pub not_after: SystemTime,
}

impl ServerConfig {
    /// Reads what the configuration names. An error says why a relay would not start with it.
    pub fn check_files(&self) -> anyhow::Result<Found> {
        let admission = self.admission.load()?;
        admission::check_settings(&self.admission)?;
        let certificate = source::existing(self)?.map(|certificate| FoundCertificate {
            names: certificate.names().to_vec(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        });
        if let Some(path) = &self.audit {
            appendable(path).with_context(|| format!("the audit log {}", path.display()))?;
        }
        if let Some(path) = &self.control {
            bindable(path).with_context(|| format!("the control socket {}", path.display()))?;
        }
        Ok(Found {
            admission,
            certificate,
        })
    }

    /// Asks every URL that the configuration names for its keys, once, all at the same time, and for ten seconds at the most. A relay starts
    /// also if none answers, so that is a warning. `found` is what the files hold.
    pub async fn check_urls(&self, found: &Found) -> anyhow::Result<FoundKeys> {
        let mut keys = FoundKeys {
            admission: found.admission.clone(),
            urls: Vec::new(),
            warnings: Vec::new(),
        };
        let (AdmissionSource::Tokens(tokens), Admission::Tokens(rules)) =
            (&self.admission, &mut keys.admission)
        else {
            return Ok(keys);
        };
        let (sources, all) = admission::check_urls(tokens, rules).await?;
        for source in sources {
            match (source.keys, source.error) {
                (Some(keys_there), _) => keys.urls.push((source.url, keys_there.len())),
                (None, why) => keys.warnings.push(format!(
                    "{}: {}; until its keys can be fetched nobody is admitted by them",
                    source.url,
                    why.unwrap_or_default()
                )),
            }
        }
        match all {
            Ok(all) => *rules = all,
            Err(error) => keys.warnings.push(format!(
                "files and URLs together: {error}; those of the files alone count"
            )),
        }
        Ok(keys)
    }
}

impl ServerConfig {
    /// What is allowed, and most likely not meant.
    pub fn warnings(&self) -> Vec<String> {
        let wide = self.trusted_proxies.iter().filter(|network| match network {
            IpNet::V4(network) => network.prefix_len() < NARROW_V4,
            IpNet::V6(network) => network.prefix_len() < NARROW_V6,
        });
        wide.map(|network| {
            format!(
                "trusted_proxies: everybody in {network} may say to be anybody, and connects without a limit; name the \
                 proxies' own addresses"
            )
        })
        .collect()
    }
}

/// An error unless there is a folder for the file.
pub(crate) fn folder_of(path: &Path) -> anyhow::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => anyhow::bail!("{} is no folder", folder.display()),
        // The relay may see more.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(_) => anyhow::bail!(
            "there is no folder {}; make it (systemd makes those of its units when they start)",
            folder.display()
        ),
    }
}

fn appendable(path: &Path) -> anyhow::Result<()> {
    folder_of(path)?;
    match OpenOptions::new().append(true).open(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            Err(e.into())
        }
        _ => Ok(()),
    }
}

fn bindable(path: &Path) -> anyhow::Result<()> {
    folder_of(path)?;
    // A relay that runs has it; one that was killed left it.
    let there = std::fs::symlink_metadata(path);
    let another = there.is_ok_and(|found| !found.file_type().is_socket());
    anyhow::ensure!(!another, "there is a file of that name");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_too_wide_for_proxies_alone_are_warned_about() {
        let mut config = ServerConfig::dev();
        let networks = [
            ("10.0.0.0/8", true),
            ("10.0.0.0/15", true),
            ("10.1.0.0/16", false),
            ("10.1.2.3/32", false),
            ("2001:db8::/47", true),
            ("2001:db8::/48", false),
        ];
        config.trusted_proxies = networks.iter().map(|(n, _)| n.parse().unwrap()).collect();
        let warnings = config.warnings();
        for (network, wide) in networks {
            let warned = warnings
                .iter()
                .any(|w| w.contains(&format!("in {network} ")));
            assert_eq!(warned, wide, "{network}");
        }
    }
}
