//! Where the command keeps what must outlive it: `$BYWAY_HOME`, else `$XDG_CONFIG_HOME/byway`, else `~/.config/byway`.
//!
//! | file | what |
//! |---|---|
//! | `client.key` | the key of this person's clients |
//! | `agent.key` | the key of an agent started without `--key` |
//! | `*.ticket-secret` | beside an agent's key: the secret of its tickets |
//! | `*.epoch` | beside a key: how often it was started, so that old records never win |
//! | `aliases` | names for tickets |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::failure::{Code, Failure};

/// The folder, whether it exists or not; none if the environment names no home at all.
pub(crate) fn home() -> Option<PathBuf> {
    choose(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

fn choose(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(home) = var("BYWAY_HOME") {
        return Some(home.into());
    }
    // The XDG base directory specification: a relative path is invalid and ignored.
    if let Some(config) = var("XDG_CONFIG_HOME").map(PathBuf::from)
        && config.is_absolute()
    {
        return Some(config.join("byway"));
    }
    Some(PathBuf::from(var("HOME")?).join(".config/byway"))
}

/// A file in the folder.
pub(crate) fn file(name: &str) -> Result<PathBuf, Failure> {
    home().map(|home| home.join(name)).ok_or_else(|| {
        Failure::new(Code::Failed, "nowhere to keep keys and aliases")
            .why("neither BYWAY_HOME nor HOME is set")
            .hint("export BYWAY_HOME=/some/folder")
    })
}

/// `agent.key` -> `agent.epoch`: a file beside a key.
pub(crate) fn beside(key: &Path, extension: &str) -> PathBuf {
    key.with_extension(extension)
}

/// Replaces a file at once, readable by its owner only: nobody sees half of it, and a crash leaves the old one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(name);
    // A leftover of a crashed process with our number would be in the way.
    let _ = std::fs::remove_file(&temporary);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn chosen(vars: &[(&str, &str)]) -> Option<PathBuf> {
        choose(|name| {
            vars.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_folder_is_chosen_in_order() {
        let home = ("HOME", "/h");
        assert_eq!(chosen(&[home]), Some("/h/.config/byway".into()));
        assert_eq!(
            chosen(&[home, ("XDG_CONFIG_HOME", "/x")]),
            Some("/x/byway".into())
        );
        assert_eq!(
            chosen(&[home, ("XDG_CONFIG_HOME", "relative")]),
            Some("/h/.config/byway".into())
        );
        assert_eq!(
            chosen(&[home, ("XDG_CONFIG_HOME", "/x"), ("BYWAY_HOME", "/b")]),
            Some("/b".into())
        );
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn a_replaced_file_is_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/ticket");
        replace(&path, b"one").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }
}
