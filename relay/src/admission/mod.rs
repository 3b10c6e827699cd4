//! Admission as an operator sets it up: which files say who comes in, read at the start and whenever they change.
//!
//! | file | idea |
//! |---|---|
//! | `keys` | issuers' public keys, from PEM, JWK and JWKS files |
//! | `files` | whether files changed |
//! | `follow` | reading them again when they did |
//! | `issue` | the embedded control plane: making keys and tokens |

mod files;
mod follow;
pub mod issue;
mod keys;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use byway_relay_core::{Admission, TokenRules};
use byway_wire::NodeId;

pub(crate) use follow::{Age, follow};

/// Most lines of a list of revocations: what stays in memory is some hundred bytes each.
const MAX_REVOKED: usize = 200_000;
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
    /// A list of tokens taken back (`jti`) and nodes shut out (NodeIds), a line each; `#` begins a comment.
    pub revoked: Option<PathBuf>,
}

impl AdmissionSource {
    /// What holds now. An error names the file, and what is wrong with it.
    pub fn load(&self) -> anyhow::Result<Admission> {
        match self {
            Self::Fixed(admission) => Ok(admission.clone()),
            Self::Tokens(files) => files.load().map(Admission::Tokens),
        }
    }
}

impl TokenFiles {
    fn load(&self) -> anyhow::Result<TokenRules> {
        anyhow::ensure!(
            !self.audiences.is_empty(),
            "no audience: say what tokens' 'aud' must be"
        );
        let mut keys = Vec::new();
        for path in &self.keys {
            let found = keys::parse(&read(path)?).with_context(|| path.display().to_string())?;
            keys.extend(found);
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
        let revoked = match &self.revoked {
            Some(path) => revocations(&read(path)?).with_context(|| path.display().to_string())?,
            None => BTreeSet::new(),
        };
        Ok(TokenRules {
            keys,
            audiences: self.audiences.clone(),
            issuer: self.issuer.clone(),
            revoked,
        })
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
    Ok(text)
}

fn revocations(text: &str) -> anyhow::Result<BTreeSet<String>> {
    let entries: BTreeSet<String> = text.lines().filter_map(revocation).collect();
    anyhow::ensure!(
        entries.len() <= MAX_REVOKED,
        "{} entries; let tokens expire sooner, so that fewer need to be revoked ({MAX_REVOKED} at the most)",
        entries.len()
    );
    Ok(entries)
}

/// A token's id may hold any sign, so `#` begins a comment only where a word could begin. A node is written in one way in the rules, and
/// may be in several here: one that is shut out in capitals must not come in.
fn revocation(line: &str) -> Option<String> {
    let comment = line.match_indices('#').find(|(at, _)| {
        let before = line[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    });
    let entry = line[..comment.map_or(line.len(), |(at, _)| at)].trim();
    let node = entry
        .parse::<NodeId>()
        .or_else(|_| entry.to_lowercase().parse());
    let entry = node.map_or_else(|_| entry.to_owned(), |id| id.to_string());
    (!entry.is_empty()).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_revocations_has_comments_and_blank_lines() {
        let list = revocations("# lost laptop\nabc  # Eve's\n\n  def\nabc\nx#1 # y\n").unwrap();
        assert_eq!(list.into_iter().collect::<Vec<_>>(), ["abc", "def", "x#1"]);
        let id = byway_wire::SecretKey::from_bytes(&[1; 32])
            .node_id()
            .to_string();
        let list = revocations(&format!(" {} # a node", id.to_uppercase())).unwrap();
        assert_eq!(list.into_iter().collect::<Vec<_>>(), [id]);
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
