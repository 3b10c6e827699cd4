//! How the demo tells what happens: a line when it happens, with the time since the start.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::note;
use crate::output::{self, Style};

/// Tells to standard output, or to standard error while that is for machines.
#[derive(Debug)]
pub(super) struct Story {
    began: Instant,
    json: bool,
    style: Style,
}

impl Story {
    pub(super) fn new(json: bool) -> Self {
        Self {
            began: Instant::now(),
            json,
            style: if json {
                output::stderr()
            } else {
                output::stdout()
            },
        }
    }

    /// Something happened just now.
    pub(super) fn step(&self, what: &str) {
        let ms = self.began.elapsed().as_secs_f64() * 1e3;
        self.line(&format!(
            "{} {what}",
            self.style.dim(&format!("{ms:>8.1} ms"))
        ));
    }

    /// A line without a time.
    pub(super) fn line(&self, line: &str) {
        if self.json {
            note!("{line}");
        } else {
            output::print_line(line);
        }
    }

    pub(super) fn style(&self) -> Style {
        self.style
    }

    /// A progress bar; invisible unless standard error is a terminal.
    pub(super) fn bar(&self, label: &str, size: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix:>11}  {bar:30.cyan/dim} {binary_bytes:>11} of {binary_total_bytes}, {binary_bytes_per_sec}",
        ) {
            bar.set_style(style);
        }
        bar.set_prefix(label.to_owned());
        bar
    }
}

/// Milliseconds with one decimal, for people and for JSON.
pub(super) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}
