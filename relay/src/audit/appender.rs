//! Whole lines at the end of a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Whole lines, each in one write: two programs that append to one file do not tear them. A disk that fills up may take part of one;
/// then the next begins on a line of its own, so that what cannot be parsed is that one alone.
pub(super) struct Appender<W> {
    pub(super) to: W,
    torn: bool,
}

impl Appender<File> {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let to = append(path)?;
        Ok(Self {
            torn: is_torn(path, &to),
            to,
        })
    }
}

/// True if the file's last line has no end: the relay, or the machine, ended while it was written.
fn is_torn(path: &Path, appended: &File) -> bool {
    // A file that may be written and not read is one of whose end nothing is known. Nor is a pipe opened twice.
    let last = || -> io::Result<Option<u8>> {
        let len = appended.metadata()?;
        if !len.is_file() || len.len() == 0 {
            return Ok(None);
        }
        let mut last = [0];
        File::open(path)?.read_exact_at(&mut last, len.len() - 1)?;
        Ok(Some(last[0]))
    };
    matches!(last(), Ok(Some(byte)) if byte != b'\n')
}

impl<W: Write> Appender<W> {
    pub(super) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.to.write_all(b"\n")?;
            self.torn = false;
        }
        let taken = loop {
            match self.to.write(line) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                taken => break taken?,
            }
        };
        if taken < line.len() {
            self.torn = taken > 0;
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "it took part of a line",
            ));
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then none for one write.
    struct Filling {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Filling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            self.taken.extend_from_slice(&bytes[..n]);
            self.room -= n;
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_after_a_torn_one_is_whole() {
        let mut log = Appender {
            to: Filling {
                taken: Vec::new(),
                room: 10,
            },
            torn: false,
        };
        log.line(b"{\"n\":1}\n").unwrap();
        log.line(b"{\"n\":2}\n").unwrap_err();
        log.line(b"{\"n\":3}\n").unwrap_err();
        log.to.room = 100;
        log.line(b"{\"n\":4}\n").unwrap();
        log.line(b"{\"n\":5}\n").unwrap();
        let text = String::from_utf8(log.to.taken).unwrap();
        assert_eq!(text, "{\"n\":1}\n{\"\n{\"n\":4}\n{\"n\":5}\n");
    }
}
