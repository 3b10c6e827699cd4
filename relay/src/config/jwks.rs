//! From which URLs keys may be fetched, as settings say it. What is wrong with a URL is said without it: it may hold a secret.

use super::resolve::{Fault, fault};
use super::settings::TokenSettings;
use crate::{Jwks, JwksUrl, JwksUrlError};

/// Most URLs: more than anybody has providers. Of the keys of all together sixteen count.
const MAX_URLS: usize = 8;

/// None where nothing is said of any.
pub(super) fn jwks(tokens: &TokenSettings) -> Result<Jwks, Fault> {
    const KEY: &str = "tokens.jwks";
    let texts = tokens.jwks.clone().unwrap_or_default();
    if texts.is_empty() && tokens.jwks_roots.is_some() {
        return fault(
            "tokens.jwks_roots",
            "does nothing, for no keys are fetched",
            "name their URL by 'jwks', or remove it",
        );
    }
    if texts.len() > MAX_URLS {
        return fault(
            KEY,
            format!("names {}", texts.len()),
            format!("name at most {MAX_URLS}"),
        );
    }
    let mut urls = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        match text.parse::<JwksUrl>() {
            Ok(url) if urls.contains(&url) => {
                return fault(KEY, format!("names {url} twice"), "name it once");
            }
            Ok(url) => urls.push(url),
            Err(error) => {
                let mend = match error {
                    JwksUrlError::Credentials => {
                        "remove them: they would end up in logs, and keys are public"
                    }
                    JwksUrlError::NotHttps => {
                        "write https://...: whoever can change keys on their way can let anybody in; a program on this machine can write them into a file"
                    }
                    _ => "write https://host/path",
                };
                return fault(KEY, format!("has {error} (entry {})", n + 1), mend);
            }
        }
    }
    let mut jwks = Jwks::new(urls);
    jwks.extra_roots = tokens.jwks_roots.clone().unwrap_or_default();
    Ok(jwks)
}
