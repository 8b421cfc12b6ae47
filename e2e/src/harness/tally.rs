//! Counting tests from what their runners print. A test that prints a line beginning with `skipped:` was skipped, for
//! the reason that the line gives.

use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What one line adds.
pub fn of_line(line: &str) -> Tally {
    if line.trim_start().starts_with("skipped:") {
        // It will be counted as passed with its suite: here it changes sides, see `settled`.
        return Tally { skipped: 1, ..Tally::default() };
    }
    if let Some(rest) = line.trim_start().strip_prefix("test result: ") {
        return Tally { passed: before(rest, " passed"), failed: before(rest, " failed"), skipped: before(rest, " ignored") };
    }
    if line.starts_with("Ran ") && line.contains(" test suites in ") {
        return Tally { passed: before(line, " tests passed"), failed: before(line, " failed"), skipped: before(line, " skipped") };
    }
    Tally::default()
}

/// The number right before a word.
fn before(line: &str, word: &str) -> u32 {
    let Some(at) = line.find(word) else { return 0 };
    let digits: String = line[..at].chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().unwrap_or(0)
}

/// A suite's sum: tests that said that they were skipped are not passed, and a runner that failed without naming a test
/// counts as one failure.
pub fn settled(lines: Tally, said_skipped: u32, succeeded: bool) -> Tally {
    let mut tally = Tally { passed: lines.passed.saturating_sub(said_skipped), ..lines };
    if !succeeded && tally.failed == 0 {
        tally.failed = 1;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summaries_of_both_runners_are_read() {
        let libtest = "test result: FAILED. 4 passed; 5 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.77s";
        assert_eq!(of_line(libtest), Tally { passed: 4, failed: 5, skipped: 1 });
        let forge = "Ran 3 test suites in 1.32s (2.5s CPU time): 22 tests passed, 0 failed, 2 skipped (24 total tests)";
        assert_eq!(of_line(forge), Tally { passed: 22, failed: 0, skipped: 2 });
        assert_eq!(of_line("running 3 tests"), Tally::default());
    }

    #[test]
    fn a_test_that_says_it_was_skipped_did_not_pass() {
        assert_eq!(of_line("skipped: there is no GPU").skipped, 1);
        let lines = Tally { passed: 10, failed: 0, skipped: 2 };
        assert_eq!(settled(lines, 2, true), Tally { passed: 8, failed: 0, skipped: 2 });
    }

    #[test]
    fn a_runner_that_fails_without_a_word_is_a_failure() {
        assert_eq!(settled(Tally::default(), 0, false).failed, 1);
        assert_eq!(settled(Tally { failed: 3, ..Tally::default() }, 0, false).failed, 3);
    }
}
