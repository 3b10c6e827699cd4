//! What people see: colours on terminals only, logs on standard error.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

use crate::note;

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    on: bool,
}

/// For text on standard output.
pub(crate) fn stdout() -> Style {
    Style::when(std::io::stdout().is_terminal())
}

/// For text on standard error.
pub(crate) fn stderr() -> Style {
    Style::when(std::io::stderr().is_terminal())
}

impl Style {
    /// NO_COLOR (no-color.org) wins over a terminal.
    fn when(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            on: terminal && !refused && !dumb,
        }
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }
    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Sends logs to standard error: warnings, and more with each `-v`. `RUST_LOG` overrides.
pub(crate) fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "warn,byway=info",
        2 => "info,byway=debug,byway_core=debug,byway_relay=debug,byway_relay_core=debug",
        _ => "debug,byway=trace,byway_core=trace,byway_relay=trace,byway_relay_core=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(stderr().on)
        .with_target(verbose > 1)
        // A log that cannot be written must not be complained of where it cannot be written either.
        .log_internal_errors(false)
        .init();
}

/// Prints one line of machine output.
pub(crate) fn json_line(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => print_line(&line),
        Err(error) => tracing::error!(%error, "cannot write JSON"),
    }
}

/// Prints one line to standard output, at once even into a pipe. If whoever read us is gone, the command is told to end
/// ([`reader_gone`]): at once would leave its tunnels and links behind.
pub(crate) fn print_line(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) else {
        return;
    };
    let end = if error.kind() == std::io::ErrorKind::BrokenPipe {
        GONE
    } else {
        note!("byway: cannot write to standard output: {error}");
        UNWRITABLE
    };
    if END.swap(end, Ordering::Relaxed) == WRITABLE {
        TELL.notify_one();
    }
}

/// A line for people on standard error. If nobody reads that, the command goes on without.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr().lock(), $($text)*);
    }};
}

/// What became of standard output.
static END: AtomicU8 = AtomicU8::new(WRITABLE);
const WRITABLE: u8 = 0;
/// What a shell shows for a filter that died of SIGPIPE.
const GONE: u8 = 141;
/// A full disk, for example.
const UNWRITABLE: u8 = 1;
static TELL: Notify = Notify::const_new();

/// Waits until nobody reads our standard output any more.
pub(crate) async fn reader_gone() {
    while exit_code().is_none() {
        TELL.notified().await;
    }
}

/// The exit code of a command whose lines could not be written.
pub(crate) fn exit_code() -> Option<u8> {
    match END.load(Ordering::Relaxed) {
        WRITABLE => None,
        code => Some(code),
    }
}
