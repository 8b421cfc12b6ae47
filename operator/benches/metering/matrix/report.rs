//! The matrix as a table that a person can read, and as figures.

use super::Row;
use super::used::{self, UsedVerdict};
use super::verdict::{Errors, Verdict};

pub const SECOND_LINE: usize = 18;

/// What holds over the whole matrix.
pub struct Whole {
    pub containers: usize,
    pub errors: Errors,
    pub together: Errors,
    pub set: Errors,
    pub missed: usize,
    pub double_seconds: f64,
    pub incomplete_over: f64,
    pub busiest: f64,
    pub false_faults: usize,
    /// CPU or memory that a container was billed for beyond what it used, in seconds of all that it might have; and of one whose
    /// samples are said to show all of it, CPU that was not billed.
    pub used_over: f64,
    pub used_unsaid: f64,
    pub used_wrong: usize,
}

impl Whole {
    pub fn of(rows: &[Row]) -> Self {
        let all = |of: fn(&Verdict) -> &Errors| Errors(rows.iter().flat_map(|row| of(&row.verdict).0.iter().copied()).collect());
        let most_used = |of: fn(&UsedVerdict) -> f64| rows.iter().map(|row| of(&row.used)).fold(0.0, f64::max);
        let most = |of: fn(&Verdict) -> f64| rows.iter().map(|row| of(&row.verdict)).fold(0.0, f64::max);
        Self {
            // The fewest that a row had.
            containers: rows.iter().map(|row| row.verdict.containers).min().unwrap_or_default(),
            errors: all(|verdict| &verdict.errors),
            together: all(|verdict| &verdict.together),
            set: all(|verdict| &verdict.set),
            missed: rows.iter().map(|row| row.verdict.missed).sum(),
            double_seconds: rows.iter().map(|row| row.verdict.double_seconds).sum(),
            incomplete_over: most(|verdict| verdict.incomplete_over),
            busiest: most(|verdict| verdict.busiest),
            false_faults: rows.iter().map(|row| row.verdict.false_faults).sum(),
            used_over: most_used(|used| used.cpu.over.max(used.memory.over)),
            used_unsaid: most_used(|used| used.cpu.unsaid),
            used_wrong: rows.iter().map(|row| row.used.wrong).sum(),
        }
    }
}

pub fn head() -> String {
    format!(
        "{:<SECOND_LINE$} {:<18} {:>10} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>9} {:>11}",
        "what fails", "who measures", "containers", "p50 s", "p99 s", "max s", "mean s", "missed", "twice s", "absorbed s", "no record"
    )
}

fn errors(errors: &Errors, missed: usize) -> String {
    format!(
        "{:>10} {:>9.2} {:>9.2} {:>9.2} {:>+9.3} {missed:>7}",
        errors.0.len(),
        errors.within(500),
        errors.within(990),
        errors.most(),
        errors.mean()
    )
}

/// A row's lines: what the books billed, then what others would have measured of the same containers.
pub fn lines(row: &Row) -> Vec<String> {
    let Row { faults, verdict, .. } = row;
    let own = errors(&verdict.errors, verdict.missed);
    let mut lines = vec![format!(
        "{:<SECOND_LINE$} {:<18} {own} {:>7.0} {:>9.0} {:>11}",
        faults.name, "the books", verdict.double_seconds, verdict.absorbed_seconds, verdict.incomplete
    )];
    let mut beside = |what: &str, line: String| lines.push(format!("{:<SECOND_LINE$} {what:<18} {line}", ""));
    if !verdict.together.0.is_empty() {
        beside("gangs, by 2 clocks", errors(&verdict.together, 0));
    }
    if !verdict.set.0.is_empty() {
        beside("clock set meanwhile", errors(&verdict.set, 0));
    }
    for (name, measured, missed) in &verdict.peers {
        beside(name, errors(measured, *missed));
    }
    if row.deaths > 0 {
        beside("", format!("the operator died {} times, at {} different moments", row.deaths, row.moments));
    }
    if row.fenced > 0 {
        beside("", format!("{} writes of somebody who no longer led were refused", row.fenced));
    }
    if verdict.incomplete > 0 {
        beside("", format!("without a record at most {:+.2} s over what ran", verdict.incomplete_over));
    }
    if row.held > 0 {
        beside("", format!("{} accounts are still told that something runs", row.held));
    }
    if !row.ended {
        beside("", "something never came to an end".to_owned());
    }
    lines.insert(1, used::line(&row.used));
    lines
}
