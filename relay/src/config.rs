//! The configuration file of `byway-relay serve --config FILE`.
//!
//! Small and strict: a key that is not known or is missing is an error that names the line, because a relay that runs
//! with something else than its operator wrote is worse than one that does not run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use byway_relay_core::Admission;
use serde::Deserialize;

use crate::{CertFiles, ServerConfig};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Addresses, each for UDP and TCP.
    listen: Vec<SocketAddr>,
    name: String,
    region: String,
    admission: AdmissionKey,
    public_host: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    shards: Option<usize>,
    require_channel_binding: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AdmissionKey {
    /// Anyone who proves a key.
    Open,
}

/// Reads a configuration file.
pub fn load(path: &Path) -> anyhow::Result<ServerConfig> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

/// Reads a configuration. Errors name line and column.
pub fn parse(text: &str) -> anyhow::Result<ServerConfig> {
    let file: File = toml::from_str(text)?;
    let cert = match (file.cert, file.key) {
        (Some(cert), Some(key)) => Some(CertFiles { cert, key }),
        (None, None) => None,
        _ => anyhow::bail!("'cert' and 'key' belong together: give both or neither"),
    };
    anyhow::ensure!(!file.listen.is_empty(), "'listen' names no address");
    let admission = match file.admission {
        AdmissionKey::Open => Admission::Open,
    };
    let mut config = ServerConfig::new(file.listen, admission);
    config.name = file.name;
    config.region = file.region;
    config.public_host = file.public_host;
    config.cert = cert;
    config.shards = file.shards.unwrap_or(0);
    config.require_channel_binding = file.require_channel_binding.unwrap_or(false);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
listen = ["127.0.0.1:4433", "[::1]:4433"]
name = "fra-1"
region = "fra"
admission = "open"
"#;

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).unwrap_err())
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.listen.len(), 2);
        assert_eq!(
            (config.name.as_str(), config.region.as_str()),
            ("fra-1", "fra")
        );
        assert_eq!(config.admission, Admission::Open);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = error(&format!("{GOOD}max_links = 3\n"));
        assert!(
            error.contains("line 6") && error.contains("max_links"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_key_is_an_error_that_names_it() {
        let error = error(&GOOD.replace("admission = \"open\"\n", ""));
        assert!(
            error.contains("admission") && error.contains("line"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_value_is_an_error_with_its_line() {
        let error = error(&GOOD.replace("\"open\"", "\"everyone\""));
        assert!(
            error.contains("line 5") && error.contains("open"),
            "{error}"
        );
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error() {
        assert!(error(&format!("{GOOD}cert = \"c.pem\"\n")).contains("'key'"));
    }

    #[test]
    fn no_address_is_an_error() {
        let text = GOOD.replace(r#"["127.0.0.1:4433", "[::1]:4433"]"#, "[]");
        assert!(error(&text).contains("listen"));
    }
}
