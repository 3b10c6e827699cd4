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

/// `agent.key` -> `agent.epoch`: a file beside a key. Of any other name the whole is kept (`ws.1` -> `ws.1.epoch`), so that no
/// two keys share one.
pub(crate) fn beside(key: &Path, extension: &str) -> PathBuf {
    if key.extension().is_some_and(|known| known == "key") {
        return key.with_extension(extension);
    }
    let mut name = key.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// What stands beside keys.
const COMPANIONS: [&str; 3] = ["ticket-secret", "epoch", "lock"];

/// Refuses a key under a name that another key's companions have: it would be taken for one of them, and overwritten.
pub(crate) fn check_key_name(key: &Path) -> Result<(), Failure> {
    let known = |extension: &std::ffi::OsStr| COMPANIONS.iter().any(|name| extension == *name);
    if !key.extension().is_some_and(known) {
        return Ok(());
    }
    Err(
        Failure::new(Code::Usage, format!("{} cannot be a key", key.display()))
            .why("files of that name stand beside keys, and are written over")
            .hint("give the key another name, for example one that ends in .key"),
    )
}

/// Changes a file by itself: nobody else who asks for it does so meanwhile. Held until it is dropped.
pub(crate) fn lock(path: &Path) -> std::io::Result<std::fs::File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    make_folder(path)?;
    let lock = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(PathBuf::from(name))?;
    lock.lock()?;
    Ok(lock)
}

/// Makes the folder of a file, and returns it.
fn make_folder(path: &Path) -> std::io::Result<&Path> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    Ok(folder)
}

/// Replaces a file at once, readable by its owner only: nobody sees half of it, and a crash leaves the old one. A symbolic
/// link is followed; what is no regular file (a pipe, `/dev/stdout`) is written to.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let target = follow(path);
    match std::fs::metadata(path) {
        // What stands for an open file must stay the file that others have open.
        Ok(known) if !known.is_file() || is_descriptor(&target) => {
            return std::fs::OpenOptions::new()
                .append(true)
                .open(path)?
                .write_all(content);
        }
        _ => {}
    }
    let path = target.as_path();
    let folder = make_folder(path)?;
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

/// Where symbolic links lead, whether or not there is a file yet.
fn follow(path: &Path) -> PathBuf {
    /// As many as Linux follows (path_resolution(7)).
    const MOST: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        if is_descriptor(&path) {
            break;
        }
        let Ok(next) = std::fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    path
}

/// `/dev/stdout`, `/dev/fd/3` and what they lead to.
fn is_descriptor(path: &Path) -> bool {
    ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"]
        .iter()
        .any(|known| path.starts_with(known))
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
    fn no_two_keys_share_a_file_beside_them() {
        let of = |key: &str| beside(Path::new(key), "epoch");
        assert_eq!(of("/k/agent.key"), Path::new("/k/agent.epoch"));
        assert_eq!(of("ws.1"), Path::new("ws.1.epoch"));
        assert_ne!(of("ws.1"), of("ws.2"));
        assert_ne!(of("x.epoch"), Path::new("x.epoch"));
        assert_eq!(of("plain"), Path::new("plain.epoch"));
    }

    #[test]
    fn a_key_is_never_its_own_companion_nor_anothers() {
        for bad in ["x.ticket-secret", "/k/x.epoch", "x.key.lock"] {
            let failure = check_key_name(Path::new(bad)).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{bad}");
        }
        for good in ["x", "x.key", "ws.1", "epoch", "lock.key", ".epoch"] {
            assert!(check_key_name(Path::new(good)).is_ok(), "{good}");
            for companion in COMPANIONS {
                assert_ne!(beside(Path::new(good), companion), Path::new(good));
            }
        }
    }

    #[test]
    fn what_is_no_regular_file_is_written_to_and_a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        std::fs::remove_file(&target).unwrap();
        replace(&link, b"again").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"again");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        // A loop is an error and no reason to go on for ever.
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::os::unix::fs::symlink("b", &a).unwrap();
        std::os::unix::fs::symlink("a", &b).unwrap();
        let _ = replace(&a, b"x");
        replace(Path::new("/dev/null"), b"gone").unwrap();
        let null = std::fs::metadata("/dev/null").unwrap();
        assert!(!null.is_file(), "it must stay the device");
    }

    #[test]
    fn an_open_file_is_written_to_where_others_have_it_open() {
        use std::os::fd::AsRawFd;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let open = std::fs::File::create(&path).unwrap();
        let descriptor = format!("/dev/fd/{}", open.as_raw_fd());
        replace(Path::new(&descriptor), b"ticket").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"ticket");
        assert_eq!(
            open.metadata().unwrap().len(),
            6,
            "another file took its name"
        );
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
