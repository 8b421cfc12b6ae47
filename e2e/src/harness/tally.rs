//! Counting tests from what their runners print. A test that passes and prints a line beginning with `skipped:` was
//! skipped, for the reason that the line gives.

use super::without_progress;
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

/// Whose output the lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Loose,
    /// In the output of one test, which libtest shows under `successes:` or `failures:`.
    Test { failed: bool, said_skipped: bool },
}

/// Reads one suite's output line by line. A suite may consist of several programs, each with a summary of its own.
#[derive(Debug, Default)]
pub struct Reader {
    sum: Tally,
    said_skipped: u32,
    /// A program has begun and has not summed up yet.
    running: bool,
    summed_up: bool,
    in_failures: bool,
    place: Place,
}

impl Reader {
    pub fn read(&mut self, line: &str) {
        if begins_program(line) {
            self.end_program();
            self.running = true;
        } else if let Some(summary) = summary(line) {
            self.sum += summary;
            self.summed_up = true;
            self.running = false;
            self.end_program();
        } else if self.running && (line == "successes:" || line == "failures:") {
            self.in_failures = line == "failures:";
            self.place = Place::Loose;
        } else if self.running && line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.place = Place::Test { failed: self.in_failures, said_skipped: false };
        } else if without_progress(line).starts_with("skipped:") {
            self.skipped();
        }
    }

    /// A program that began and never summed up has crashed.
    fn end_program(&mut self) {
        self.sum.failed += u32::from(self.running);
        self.running = false;
        self.in_failures = false;
        self.place = Place::Loose;
    }

    fn skipped(&mut self) {
        match &mut self.place {
            Place::Loose => self.said_skipped += 1,
            Place::Test { failed: false, said_skipped } if !*said_skipped => {
                *said_skipped = true;
                self.said_skipped += 1;
            }
            Place::Test { .. } => {}
        }
    }

    /// The suite's sum. One whose command failed without a failed test (it did not compile, or did not start), that never
    /// summed up, or that has no tests, is one failure: nothing says that its tests pass.
    pub fn finish(mut self, succeeded: bool) -> Tally {
        self.end_program();
        let said_skipped = self.said_skipped.min(self.sum.passed);
        let mut tally = self.sum;
        tally.passed -= said_skipped;
        tally.skipped += said_skipped;
        if tally.failed == 0 && (!(succeeded && self.summed_up) || tally == Tally::default()) {
            tally.failed = 1;
        }
        tally
    }
}

/// `running 3 tests`, the first line of each program of libtest's.
fn begins_program(line: &str) -> bool {
    let count = line.strip_prefix("running ").and_then(|rest| rest.strip_suffix(" tests").or(rest.strip_suffix(" test")));
    count.is_some_and(|count| count.parse::<u32>().is_ok())
}

fn summary(line: &str) -> Option<Tally> {
    if let Some(rest) = line.strip_prefix("test result: ") {
        return Some(Tally { passed: before(rest, " passed"), failed: before(rest, " failed"), skipped: before(rest, " ignored") });
    }
    let forge = line.starts_with("Ran ") && (line.contains(" test suites in ") || line.contains(" test suite in "));
    forge.then(|| Tally { passed: before(line, " tests passed"), failed: before(line, " failed"), skipped: before(line, " skipped") })
}

/// The number right before a word.
fn before(line: &str, word: &str) -> u32 {
    let Some((head, _)) = line.split_once(word) else { return 0 };
    let digits = head.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    head[digits..].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";

    fn read(text: &str, succeeded: bool) -> Tally {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.read(line));
        reader.finish(succeeded)
    }

    fn tally(passed: u32, failed: u32, skipped: u32) -> Tally {
        Tally { passed, failed, skipped }
    }

    #[test]
    fn the_summaries_of_both_runners_are_read() {
        let libtest = "test result: FAILED. 4 passed; 5 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.77s";
        assert_eq!(read(libtest, false), tally(4, 5, 1));
        let forge = "Suite result: ok. 5 passed; 0 failed; 0 skipped; finished in 2.13s (3.41s CPU time)\n\n\
            Ran 3 test suites in 1.32s (2.5s CPU time): 22 tests passed, 0 failed, 2 skipped (24 total tests)";
        assert_eq!(read(forge, true), tally(22, 0, 2));
        let alone = "Ran 1 test suite in 1.32s (2.5s CPU time): 21 tests passed, 1 failed, 0 skipped (22 total tests)";
        assert_eq!(read(alone, false), tally(21, 1, 0));
    }

    #[test]
    fn a_test_that_says_it_was_skipped_did_not_pass_and_is_counted_once() {
        let output = format!(
            "running 2 tests\ntest a ... ok\ntest b ... ok\n\nsuccesses:\n\n---- a stdout ----\nskipped: no GPU\n\
             skipped: once more\n\n\nsuccesses:\n    a\n\n{OK}"
        );
        assert_eq!(read(&output, true), tally(1, 0, 1));
        assert_eq!(read(&format!("running 2 tests\ntest a ... skipped: no GPU\nok\n{OK}"), true), tally(1, 0, 1));
    }

    #[test]
    fn a_test_that_fails_is_not_skipped_whatever_it_says() {
        let output = "running 2 tests\n\nfailures:\n\n---- a stdout ----\nskipped: not really\n\nfailures:\n    a\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(read(output, false), tally(1, 1, 0));
    }

    #[test]
    fn a_program_that_crashes_is_a_failure_beside_those_of_the_others() {
        let crashed = "running 2 tests\ntest a ... ok\nerror: test failed, to rerun pass `-p x`";
        assert_eq!(read(&format!("{crashed}\nrunning 2 tests\n{OK}"), false), tally(2, 1, 0));
        assert_eq!(read(&format!("running 2 tests\n{OK}\n{crashed}\n{crashed}"), false), tally(2, 2, 0));
    }

    #[test]
    fn a_suite_that_says_nothing_or_fails_without_a_word_is_a_failure() {
        assert_eq!(read("", false), tally(0, 1, 0));
        assert_eq!(read("", true), tally(0, 1, 0));
        assert_eq!(read(&format!("running 2 tests\n{OK}"), false), tally(2, 1, 0));
    }

    #[test]
    fn other_lines_count_for_nothing() {
        let noise = "running 5 tests of another kind\nfailures:\nIt was skipped: why?\nRan 5 tests for test/Escrow.t.sol:EscrowTest";
        assert_eq!(read(&format!("{noise}\nrunning 2 tests\n{OK}"), true), tally(2, 0, 0));
        assert_eq!(tally(1, 2, 3).to_string(), "1 passed, 2 failed, 3 skipped");
    }
}
