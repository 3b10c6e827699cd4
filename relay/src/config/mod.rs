//! The relay's configuration: one TOML file, and every value of it also as a flag and in the environment.
//!
//! A flag counts before the environment, the environment before the file, the file before the default. What is not known, of the wrong
//! type, or contradicts itself is an error that names the line and the mend: a relay that runs with something else than its operator
//! wrote is worse than one that does not run.
//!
//! | file | idea |
//! |---|---|
//! | `settings`, `limits` | everything that can be set |
//! | `layers` | one source of settings over another |
//! | `resolve` | from settings to a configuration, or to what is wrong with them |
//! | `jwks` | from which URLs keys may be fetched |
//! | `place` | where in the file a value stands |

mod jwks;
mod layers;
mod limits;
mod place;
mod resolve;
mod settings;

use std::path::Path;

use anyhow::Context;

pub use limits::LimitSettings;
pub use resolve::Fault;
pub use settings::{AcmeSettings, AdmissionKind, Settings, TokenSettings};

use self::layers::Layer;
use crate::ServerConfig;

/// A configuration file, read.
#[derive(Clone, Debug, Default)]
pub struct File {
    text: String,
    /// What it says.
    pub settings: Settings,
}

impl File {
    /// Reads a file. Errors name line and column.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }
    /// The same for its text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let settings = toml::from_str(text)?;
        Ok(Self {
            text: text.to_owned(),
            settings,
        })
    }
    /// The configuration that follows from `flags` (and the environment), this file, and the defaults. An error says in which line, or in
    /// which flag, and how to mend it.
    pub fn resolve(&self, flags: Settings) -> anyhow::Result<ServerConfig> {
        let settings = flags.clone().over(self.settings.clone());
        resolve::resolve(settings).map_err(|fault| {
            let place = place::line_of(&self.text, fault.key)
                // A flag hides what the file says.
                .filter(|_| !flags.says(Some(fault.key)));
            match place {
                Some(line) => anyhow::anyhow!("line {line}: '{}' {fault}", fault.key),
                None => {
                    anyhow::anyhow!("'{}' (--{}) {fault}", fault.key, settings::flag(fault.key))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
