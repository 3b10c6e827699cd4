//! The options of libtest, as far as they mean something here.

/// What a run was asked to do.
#[derive(Debug, Default)]
pub(super) struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    pub(super) list: bool,
    /// Only what cannot run here.
    pub(super) ignored_only: bool,
    include_ignored: bool,
    pub(super) show: bool,
    pub(super) threads: usize,
}

impl Options {
    pub(super) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            threads: 1,
            ..Self::default()
        };
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let (flag, mut inline) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => {
                    (flag.to_owned(), Some(value.to_owned()))
                }
                _ => (arg, None),
            };
            let mut value = || {
                inline
                    .take()
                    .or_else(|| args.next())
                    .ok_or(format!("{flag} needs a value"))
            };
            match flag.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--ignored" => options.ignored_only = true,
                "--include-ignored" => options.include_ignored = true,
                "--nocapture" | "--no-capture" | "--show-output" => options.show = true,
                "--skip" => options.skips.push(value()?),
                "--test-threads" => {
                    options.threads = value()?
                        .parse()
                        .map_err(|_| "--test-threads needs a number".to_owned())?;
                }
                // Options of libtest that change nothing here.
                "--quiet" | "-q" | "--report-time" => {}
                "--format" | "--color" | "-Z" => drop(value()?),
                other if other.starts_with('-') => return Err(format!("unknown option {other}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        options.threads = options.threads.max(1);
        Ok(options)
    }

    /// Whether a scenario of that name was asked for.
    pub(super) fn wants(&self, name: &str) -> bool {
        let matches = |pattern: &String| {
            if self.exact {
                name == pattern
            } else {
                name.contains(pattern.as_str())
            }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }

    /// Whether a scenario that cannot run here has failed: somebody asked for it by its whole name, or for those that
    /// are ignored otherwise.
    pub(super) fn must_run(&self) -> bool {
        self.ignored_only || self.include_ignored || (self.exact && !self.filters.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Options {
        Options::parse(args.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn options_of_both_test_drivers_are_understood() {
        let nextest = parse("nat::one --exact --nocapture");
        assert!(nextest.wants("nat::one") && !nextest.wants("nat::one_more"));
        let listing = parse("--list --format terse --ignored");
        assert!(listing.list && listing.ignored_only && listing.filters.is_empty());
        let libtest = parse("nat --skip symmetric --test-threads=2");
        assert!(
            libtest.wants("nat::open")
                && !libtest.wants("nat::symmetric")
                && !libtest.wants("ssh::scp")
        );
        assert_eq!(libtest.threads, 2);
        assert!(Options::parse(["--frobnicate".to_owned()].into_iter()).is_err());
    }

    #[test]
    fn what_was_asked_for_by_its_whole_name_must_run() {
        for asked in ["nat::one --exact", "--ignored", "nat --include-ignored"] {
            assert!(parse(asked).must_run(), "{asked}");
        }
        for all in ["", "nat", "--exact"] {
            assert!(!parse(all).must_run(), "{all}");
        }
    }
}
