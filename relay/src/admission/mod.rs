//! Admission as an operator sets it up: which files and URLs say who comes in, read at the start and whenever they change.
//!
//! | file | idea |
//! |---|---|
//! | `keys` | issuers' public keys, from PEM, JWK and JWKS files |
//! | `files` | whether files changed |
//! | `jwks/` | keys that are published at URLs |
//! | `reader` | what files say, read where it may hang |
//! | `follow` | what files and URLs say, also when they say something else |
//! | `keeper` | all of it together, from the start of a relay on |
//! | `age` | for how long what is in force may not be what they say |
//! | `list` | the list of revocations, whole or half-written |
//! | `issue` | the embedded control plane: making keys and tokens |

mod age;
mod files;
mod follow;
pub mod issue;
mod jwks;
mod keeper;
mod keys;
mod list;
mod reader;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use byway_relay_core::{Admission, TokenKey, TokenRules};

use list::List;

pub(crate) use age::Age;
pub use jwks::{Jwks, JwksUrl, JwksUrlError};
pub(crate) use keeper::{Keeper, check_settings, check_urls};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Who may use the relay, and where that is written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AdmissionSource {
    /// This, for as long as the relay runs.
    Fixed(Admission),
    /// Who shows a token by these rules.
    Tokens(TokenSources),
}

impl From<Admission> for AdmissionSource {
    fn from(admission: Admission) -> Self {
        Self::Fixed(admission)
    }
}

/// Which tokens admit (design section 8), as files and URLs say, which may change while the relay runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenSources {
    /// Files with issuers' public keys: PEM (`PUBLIC KEY`), JWK or JWKS; Ed25519 only. At least one, or a URL.
    pub keys: Vec<PathBuf>,
    /// The same at URLs.
    pub jwks: Jwks,
    /// A token's `aud` must name one of these. At least one.
    pub audiences: Vec<String>,
    /// If given, a token's `iss` must be this.
    pub issuer: Option<String>,
    /// A list of tokens taken back (`jti`) and nodes shut out (NodeIds), a line each and bare; `#` begins a comment.
    pub revoked: Option<PathBuf>,
}

impl AdmissionSource {
    /// What the files say now; what is at URLs comes later. An error names the file, and what is wrong with it.
    pub fn load(&self) -> anyhow::Result<Admission> {
        match self {
            Self::Fixed(admission) => Ok(admission.clone()),
            Self::Tokens(tokens) => {
                let loaded = tokens.load()?;
                loaded.tell();
                Ok(Admission::Tokens(loaded.rules))
            }
        }
    }
}

/// What the files hold.
#[derive(Debug)]
struct Loaded {
    rules: TokenRules,
    /// The list of revocations, which is part of the rules, as its file holds it.
    list: List,
    /// What was left out. Not said when it is read: that may be at every look.
    notes: Vec<String>,
}

impl Loaded {
    fn tell(&self) {
        for note in &self.notes {
            tracing::warn!("{note}");
        }
    }
}

impl TokenSources {
    fn load(&self) -> anyhow::Result<Loaded> {
        anyhow::ensure!(
            !self.audiences.is_empty(),
            "no audience: say what tokens' 'aud' must be"
        );
        let mut keys: Vec<TokenKey> = Vec::new();
        let mut notes = Vec::new();
        for path in &self.keys {
            let mut left_out = Vec::new();
            let found = keys::parse(&read(path)?, &mut left_out)
                .with_context(|| path.display().to_string())?;
            let about = |note| format!("{}: {note}", path.display());
            notes.extend(left_out.into_iter().map(about));
            keys::add(&mut keys, found);
        }
        anyhow::ensure!(
            !keys.is_empty() || !self.jwks.urls.is_empty(),
            "no key: name at least one file with a public key ('byway-relay keygen' makes one), or a URL"
        );
        keys::not_too_many(&keys)?;
        let list = match &self.revoked {
            Some(path) => List::parse(&read(path)?).with_context(|| path.display().to_string())?,
            None => List::default(),
        };
        let rules = TokenRules {
            keys,
            audiences: self.audiences.clone(),
            issuer: self.issuer.clone(),
            revoked: list.clone().entries(),
        };
        Ok(Loaded { rules, list, notes })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let about = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(about)?;
    let mut text = String::new();
    // Its size is not asked for: what is no plain file has none.
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .with_context(about)?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_FILE,
        "{} is larger than 32 MiB",
        path.display()
    );
    // Editors on some systems begin a file with one.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key number `n`.
    pub(super) fn key(n: u8) -> TokenKey {
        let id = byway_wire::SecretKey::from_bytes(&[n; 32]).node_id();
        TokenKey::new(None, *id.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_that_several_files_hold_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [one, other] = [(); 2].map(|()| issue::SigningKey::generate().unwrap());
        std::fs::write(path("pem"), one.public_pem()).unwrap();
        std::fs::write(path("jwks"), format!("{{\"keys\": [{}]}}", one.jwk())).unwrap();
        std::fs::write(path("other"), other.public_pem()).unwrap();
        let named = |names: &[&str]| TokenSources {
            keys: names.iter().map(|name| path(name)).collect(),
            jwks: Jwks::default(),
            audiences: vec!["relay".into()],
            issuer: None,
            revoked: None,
        };
        let keys = |names: &[&str]| named(names).load().unwrap().rules.keys;
        assert_eq!(keys(&["jwks", "pem"]), keys(&["pem"]));
        assert_eq!(keys(&["jwks", "jwks"]), keys(&["jwks"]));
        assert_eq!(keys(&["pem", "jwks", "other"]).len(), 2);
    }

    /// As editors on Windows write it; it belongs to no entry and no key.
    #[test]
    fn a_byte_order_mark_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let jwk = issue::SigningKey::generate().unwrap().jwk();
        std::fs::write(path("keys"), format!("\u{feff}{jwk}")).unwrap();
        std::fs::write(path("revoked"), "\u{feff}a\n").unwrap();
        let files = TokenSources {
            keys: vec![path("keys")],
            jwks: Jwks::default(),
            audiences: vec!["relay".into()],
            issuer: None,
            revoked: Some(path("revoked")),
        };
        let rules = files.load().unwrap().rules;
        assert!(rules.revoked.contains("a"), "{:?}", rules.revoked);
    }

    #[test]
    fn rules_without_keys_or_audiences_are_refused() {
        let mut files = TokenSources {
            keys: Vec::new(),
            jwks: Jwks::default(),
            audiences: Vec::new(),
            issuer: None,
            revoked: None,
        };
        let error = |files: &TokenSources| format!("{:#}", files.load().unwrap_err());
        assert!(error(&files).contains("audience"));
        files.audiences.push("relay".into());
        assert!(error(&files).contains("keygen"));
        // What is at a URL comes later, or not.
        let mut published = files.clone();
        published.jwks = Jwks::new(vec!["https://idp.example/".parse().unwrap()]);
        assert!(published.load().unwrap().rules.keys.is_empty());
        files.keys.push("/nonexistent/key.pub".into());
        assert!(error(&files).contains("/nonexistent/key.pub"));
    }
}
