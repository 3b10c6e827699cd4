//! Counting tests from what `cargo test` and `cargo nextest` print.

/// What test programs reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, timed out, or aborted.
    pub(crate) failed: u64,
    /// Tests that did not run.
    pub(crate) skipped: u64,
    /// Names of those that failed.
    pub(crate) failures: Vec<String>,
    /// Names of those that did not run, with the reason where one is given.
    pub(crate) skips: Vec<String>,
    /// nextest is speaking, and shows what failed tests printed: their own counts are in its count.
    nextest: bool,
    /// It has given its count.
    summary: bool,
}

impl Count {
    /// Reads one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim();
        self.nextest |= line.starts_with("Nextest run ID");
        if self.nextest {
            self.nextest_line(line);
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.libtest_result(rest);
        } else if let Some((name, outcome)) = line
            .strip_prefix("test ")
            .and_then(|l| l.split_once(" ... "))
        {
            if outcome.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            } else if let Some(why) = outcome.strip_prefix("ignored") {
                let why = why.trim_start_matches([',', ' ']);
                self.skips.push(if why.is_empty() {
                    name.to_owned()
                } else {
                    format!("{name}: {why}")
                });
            }
        }
    }

    fn nextest_line(&mut self, line: &str) {
        if line.starts_with("Summary [") {
            self.summary = true;
            self.nextest_summary(line);
        } else if let Some((status, rest)) = line.split_once(' ')
            && let Some((_, name)) = rest
                .trim_start()
                .strip_prefix('[')
                .and_then(|r| r.split_once(']'))
        {
            match status {
                "FAIL" | "TIMEOUT" | "ABORT" => push_new(&mut self.failures, name),
                // One that a signal ended is named by it.
                signal if signal.starts_with("SIG") => push_new(&mut self.failures, name),
                "SKIP" => push_new(&mut self.skips, name),
                _ => {}
            }
        }
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// True if nextest began and never gave its count.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.nextest && !self.summary
    }

    /// `ok. 5 passed; 0 failed; 1 ignored; ...`
    fn libtest_result(&mut self, rest: &str) {
        for part in rest.split([';', '.']) {
            match number_before(part) {
                Some((n, "passed")) => self.passed += n,
                Some((n, "failed")) => self.failed += n,
                Some((n, "ignored")) => self.skipped += n,
                _ => {}
            }
        }
    }

    /// `Summary [ 5.732s] 17 tests run: 16 passed (1 slow), 1 failed, 1 timed out, 2 skipped`
    fn nextest_summary(&mut self, line: &str) {
        let Some((_, results)) = line.split_once(" run: ") else {
            return;
        };
        for part in results.split(',') {
            match number_before(part) {
                Some((n, "passed")) => self.passed += n,
                Some((n, "skipped")) => self.skipped += n,
                Some((n, "failed" | "timed" | "exec")) => self.failed += n,
                _ => {}
            }
        }
    }
}

/// `"12 passed (1 slow)"` is `(12, "passed")`.
fn number_before(part: &str) -> Option<(u64, &str)> {
    let mut words = part.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?))
}

/// nextest names a failure when it happens and again at the end.
fn push_new(names: &mut Vec<String>, name: &str) {
    // `( 1/17) crate test::name` or `crate test::name`
    let name = name.trim_start();
    let name = name
        .strip_prefix('(')
        .and_then(|n| n.split_once(')'))
        .map_or(name, |(_, n)| n)
        .trim();
    if !names.iter().any(|n| n == name) {
        names.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Count {
        let mut count = Count::default();
        text.lines().for_each(|l| count.line(l));
        count
    }

    #[test]
    fn cargo_test_is_counted_over_all_its_programs() {
        let c = count(
            "running 3 tests\ntest a::b ... ok\ntest a::c ... FAILED (1.20 s)\ntest a::d ... ignored, needs nft: apt-get install nftables\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!((c.passed, c.failed, c.skipped), (5, 1, 1));
        assert_eq!(c.failures, ["a::c"]);
        assert_eq!(c.skips, ["a::d: needs nft: apt-get install nftables"]);
    }

    #[test]
    fn nextest_is_counted_and_each_failure_named_once() {
        let c = count(
            " Nextest run ID 1-2 with nextest profile: default\n\
                     PASS [   0.014s] ( 1/4) byway-lab a::b\n    test a::c ... FAILED\n\
                 test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s\n        FAIL [   0.014s] ( 2/4) byway-lab a::c\n\
             ────────────\n     Summary [   5.732s] 4 tests run: 2 passed (1 slow), 1 failed, 1 timed out, 2 skipped\n\
                     SKIP [         ] byway-lab a::d\n        FAIL [   0.014s] ( 2/4) byway-lab a::c\n     TIMEOUT [  60.0s] byway-lab a::e\n",
        );
        assert_eq!((c.passed, c.failed, c.skipped), (2, 2, 2));
        assert_eq!(c.failures, ["byway-lab a::c", "byway-lab a::e"]);
        assert_eq!(c.skips, ["byway-lab a::d"]);
    }

    #[test]
    fn other_lines_count_nothing() {
        let c = count(
            "test result\n   Compiling foo v1.0 (/a/b)\nerror: could not compile\nSummary\ntesting 5 passed\n",
        );
        assert_eq!(c, Count::default());
    }
}
