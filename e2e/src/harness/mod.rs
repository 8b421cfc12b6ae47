//! The test runner's reading side: what libtest and forge print, counted over all suites, and figures held against their
//! targets.

pub mod figures;
pub mod tally;

/// A line without what libtest prints before it: `test name ... ` stays open while the only test running prints.
fn without_progress(line: &str) -> &str {
    match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
        Some((name, rest)) if !name.contains(' ') => rest,
        _ => line,
    }
}
