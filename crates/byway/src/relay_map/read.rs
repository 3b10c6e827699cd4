//! What the file of a relay map holds.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::{MAX_FILE, RelayMapFault};

/// What a file holds, if it is not too much.
pub(super) fn read(path: &Path) -> Result<String, RelayMapFault> {
    let failed = |error: std::io::Error| RelayMapFault::Read(error.to_string());
    let file = open(path).map_err(failed)?;
    // A pipe gives what it has once, and a device may have no end.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(RelayMapFault::NoFile);
    }
    let mut text = Vec::new();
    file.take(MAX_FILE as u64 + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() > MAX_FILE {
        return Err(RelayMapFault::TooLong);
    }
    String::from_utf8(text).map_err(|_| RelayMapFault::NoText)
}

/// Opens a file. If it is a pipe, nobody is waited for who would write into it.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay_map::RelayMap;

    const ONE: &str = "[[region]]\nname = 'eu'\n[[region.relay]]\nurl = 'https://a.test'\n";

    #[test]
    fn a_file_that_is_not_there_or_no_text_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relays.toml");
        let said = || RelayMap::load(&file).unwrap_err().to_string();
        assert!(
            said().contains("relays.toml: the relay map cannot be read"),
            "{}",
            said()
        );
        std::fs::write(&file, b"\xff\xfe").unwrap();
        assert!(said().contains("UTF-8"), "{}", said());
        std::fs::write(&file, "[[region]]\n").unwrap();
        assert!(said().contains("relays.toml: line 1: "), "{}", said());
        std::fs::write(&file, ONE).unwrap();
        assert_eq!(RelayMap::load(&file).unwrap(), ONE.parse().unwrap());
    }

    /// A pipe that nobody writes into would be waited for without end.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("relays.toml");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [pipe, dir.path().to_owned()] {
            let (said, faults) = std::sync::mpsc::channel();
            std::thread::spawn(move || said.send(RelayMap::load(path).unwrap_err().fault));
            let fault = faults.recv_timeout(std::time::Duration::from_secs(5));
            assert_eq!(fault, Ok(RelayMapFault::NoFile));
        }
    }
}
