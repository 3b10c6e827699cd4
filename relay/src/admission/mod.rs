//! Admission as an operator sets it up: which files say who comes in, read at the start and whenever they change.
//!
//! | file | idea |
//! |---|---|
//! | `keys` | issuers' public keys, from PEM, JWK and JWKS files |
//! | `files` | whether files changed |
//! | `follow` | reading them again when they did |
//! | `list` | the list of revocations, whole or half-written |
//! | `issue` | the embedded control plane: making keys and tokens |

mod files;
mod follow;
pub mod issue;
mod keys;
mod list;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use byway_relay_core::{Admission, TokenKey, TokenRules};

use list::List;

pub(crate) use follow::{Age, follow};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Who may use the relay, and where that is written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AdmissionSource {
    /// This, for as long as the relay runs.
    Fixed(Admission),
    /// Who shows a token by these files' rules.
    Tokens(TokenFiles),
}

impl From<Admission> for AdmissionSource {
    fn from(admission: Admission) -> Self {
        Self::Fixed(admission)
    }
}

/// Which tokens admit (design section 8), as files that may change while the relay runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenFiles {
    /// Issuers' public keys: PEM (`PUBLIC KEY`), JWK or JWKS; Ed25519 only. At least one.
    pub keys: Vec<PathBuf>,
    /// A token's `aud` must name one of these. At least one.
    pub audiences: Vec<String>,
    /// If given, a token's `iss` must be this.
    pub issuer: Option<String>,
    /// A list of tokens taken back (`jti`) and nodes shut out (NodeIds), a line each and bare; `#` begins a comment.
    pub revoked: Option<PathBuf>,
}

impl AdmissionSource {
    /// What holds now. An error names the file, and what is wrong with it.
    pub fn load(&self) -> anyhow::Result<Admission> {
        match self {
            Self::Fixed(admission) => Ok(admission.clone()),
            Self::Tokens(files) => {
                let loaded = files.load()?;
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

impl TokenFiles {
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
            for key in found {
                // One that is listed twice is one, and tried once.
                if !keys.iter_mut().any(|known| known.merge(&key)) {
                    keys.push(key);
                }
            }
        }
        anyhow::ensure!(
            !keys.is_empty(),
            "no key: name at least one file with a public key ('byway-relay keygen' makes one)"
        );
        anyhow::ensure!(
            keys.len() <= keys::MAX_KEYS,
            "{} keys, and every token may be checked against each: {} at the most",
            keys.len(),
            keys::MAX_KEYS
        );
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

    #[test]
    fn a_key_that_several_files_hold_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [one, other] = [(); 2].map(|()| issue::SigningKey::generate().unwrap());
        std::fs::write(path("pem"), one.public_pem()).unwrap();
        std::fs::write(path("jwks"), format!("{{\"keys\": [{}]}}", one.jwk())).unwrap();
        std::fs::write(path("other"), other.public_pem()).unwrap();
        let named = |names: &[&str]| TokenFiles {
            keys: names.iter().map(|name| path(name)).collect(),
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
        let files = TokenFiles {
            keys: vec![path("keys")],
            audiences: vec!["relay".into()],
            issuer: None,
            revoked: Some(path("revoked")),
        };
        let rules = files.load().unwrap().rules;
        assert!(rules.revoked.contains("a"), "{:?}", rules.revoked);
    }

    #[test]
    fn rules_without_keys_or_audiences_are_refused() {
        let mut files = TokenFiles {
            keys: Vec::new(),
            audiences: Vec::new(),
            issuer: None,
            revoked: None,
        };
        let error = |files: &TokenFiles| format!("{:#}", files.load().unwrap_err());
        assert!(error(&files).contains("audience"));
        files.audiences.push("relay".into());
        assert!(error(&files).contains("keygen"));
        files.keys.push("/nonexistent/key.pub".into());
        assert!(error(&files).contains("/nonexistent/key.pub"));
    }
}
