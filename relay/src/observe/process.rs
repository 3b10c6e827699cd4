//! What the kernel knows of this process: open files and memory. By /proc; nothing where there is none.

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    pub(crate) resident_bytes: Option<u64>,
}

impl Process {
    pub(crate) fn read() -> Self {
        let fds = std::fs::read_dir("/proc/self/fd").ok();
        let limits = std::fs::read_to_string("/proc/self/limits").ok();
        let status = std::fs::read_to_string("/proc/self/status").ok();
        Self {
            // One of them is the directory that is being read.
            open_fds: fds.map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: limits.and_then(|text| word(&text, "Max open files", 3)),
            resident_bytes: status
                .and_then(|text| word(&text, "VmRSS:", 1))
                .map(|kib| kib * 1024),
        }
    }
}

/// The `n`th word of the line that begins so, as a number; of the limit that is in force where there are a soft and a hard one.
fn word(text: &str, line: &str, n: usize) -> Option<u64> {
    let found = text.lines().find(|l| l.starts_with(line))?;
    found.split_whitespace().nth(n)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_files_open_and_memory() {
        let process = Process::read();
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert_eq!(
            word(
                "Max open files            1024                 4096                 files",
                "Max open files",
                3
            ),
            Some(1024)
        );
    }
}
