//! Which lines of the log are written: `BYWAY_RELAY_LOG`, in the directives of `tracing_subscriber`'s `EnvFilter`.

use std::ffi::OsStr;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use super::sample::OWN;

pub(super) const VARIABLE: &str = "BYWAY_RELAY_LOG";
/// quinn tells at `info` of every connection that a stranger breaks off.
const USUAL: &str = "info,quinn=warn";

/// What an operator asked for, or the usual. An error where that means nothing: a relay that is silent by mistake is noticed too late.
///
/// What the log says of itself is always written: a filter on one module would otherwise hide that lines of that module are missing.
pub(super) fn filter(asked: Option<&OsStr>) -> anyhow::Result<EnvFilter> {
    let asked = match asked {
        None => "",
        Some(asked) => asked
            .to_str()
            .with_context(|| format!("{VARIABLE} is not UTF-8"))?,
    };
    let directives = if asked.trim().is_empty() {
        USUAL
    } else {
        asked
    };
    let filter = EnvFilter::builder().parse(directives).with_context(|| {
        format!("{VARIABLE} is no filter ({directives:?}); a level as \"info\" is one, or \"info,quinn=debug\"")
    })?;
    let own: Directive = format!("{OWN}=warn").parse()?;
    Ok(filter.add_directive(own))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::sample::tell;
    use super::*;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Text {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of a line of ours, one of quinn's at `info`, and one that says that lines were left out.
    fn written(asked: Option<&str>) -> [bool; 3] {
        let text = Text::default();
        let writer = text.clone();
        let formatted = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry()
            .with(filter(asked.map(OsStr::new)).unwrap())
            .with(formatted);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "byway_relay::hub", "ours");
            tracing::info!(target: "quinn", "theirs");
            tell(vec![(3, "left".into())]);
        });
        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        ["ours", "theirs", "left"].map(|what| text.contains(what))
    }

    #[test]
    fn the_usual_is_ours_and_what_quinn_warns_of() {
        assert_eq!(written(None), [true, false, true]);
        assert_eq!(written(Some(" ")), [true, false, true]);
    }

    #[test]
    fn a_filter_does_not_hide_that_lines_are_missing() {
        assert_eq!(written(Some("quinn=info")), [false, true, true]);
        assert_eq!(written(Some("error")), [false, false, true]);
        assert_eq!(written(Some("off")), [false, false, true]);
    }

    #[test]
    fn what_is_no_filter_is_an_error_that_says_what_is_one() {
        let error = filter(Some(OsStr::new("byway=loud"))).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("BYWAY_RELAY_LOG is no filter"), "{error}");
    }
}
