//! Reads the files that say who comes in. It is apart from what follows from them, for it may hang.

use super::files::{Files, Marks};
use super::{Loaded, TokenSources};

/// Who reads the files, on whatever thread.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) tokens: TokenSources,
    files: Files,
}

/// What was seen of the files.
#[derive(Debug)]
pub(super) struct Saw {
    /// What they were before they were read, and after: what is written meanwhile is read again at the next look.
    pub(super) before: Marks,
    pub(super) after: Marks,
    /// None: they are what was loaded.
    pub(super) read: Option<anyhow::Result<Loaded>>,
}

impl Reader {
    pub(super) fn new(tokens: TokenSources) -> Self {
        let paths = tokens.keys.iter().chain(&tokens.revoked).cloned();
        Self {
            files: Files::new(paths.collect()),
            tokens,
        }
    }

    pub(super) fn look(&self, loaded: Option<&Marks>) -> Saw {
        let before = self.files.marks();
        let read = (loaded != Some(&before)).then(|| self.tokens.load());
        Saw {
            after: self.files.marks(),
            before,
            read,
        }
    }
}
