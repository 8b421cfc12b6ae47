//! Figures: what the repository asks of itself, and what was measured.

use super::without_progress;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Where the targets stand, seen from the repository's root.
pub const TARGETS_FILE: &str = "figures.tsv";

/// What is asked of one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub at_most: bool,
    pub value: f64,
    pub unit: String,
}

/// A measured figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
}

pub type Targets = BTreeMap<String, Target>;

/// The repository's own targets.
pub fn read_targets() -> Result<Targets> {
    let text = std::fs::read_to_string(TARGETS_FILE).with_context(|| format!("reading {TARGETS_FILE}"))?;
    targets(&text).with_context(|| format!("reading {TARGETS_FILE}"))
}

/// Reads the list of targets: name, `<=` or `>=`, value, unit, in columns.
pub fn targets(text: &str) -> Result<Targets> {
    let mut targets = Targets::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, operator, value, unit, ..] = fields.as_slice() else { bail!("{line:?} has too few columns") };
        let at_most = match *operator {
            "<=" => true,
            ">=" => false,
            other => bail!("{name}: {other:?} is neither <= nor >="),
        };
        let value = value.parse().with_context(|| format!("{name}: {value:?} is no number"))?;
        let earlier = targets.insert((*name).to_owned(), Target { at_most, value, unit: (*unit).to_owned() });
        ensure!(earlier.is_none(), "{name} is there twice");
    }
    Ok(targets)
}

/// Reads `figure <name> <value> <unit>`.
pub fn figure(line: &str) -> Option<Figure> {
    let words: Vec<&str> = without_progress(line).strip_prefix("figure ")?.split_whitespace().collect();
    let [name, value, unit] = words.as_slice() else { return None };
    Some(Figure { name: (*name).to_owned(), value: value.parse().ok()?, unit: (*unit).to_owned() })
}

/// Whether a figure is what is asked; in words when it is not.
pub fn judge(targets: &Targets, figure: &Figure) -> Result<(), String> {
    let Some(target) = targets.get(&figure.name) else { return Err(format!("{} is not in the list of targets", figure.name)) };
    if target.unit != figure.unit {
        return Err(format!("{} is in {}, and asked for in {}", figure.name, figure.unit, target.unit));
    }
    let met = if target.at_most { figure.value <= target.value } else { figure.value >= target.value };
    let side = if target.at_most { "at most" } else { "at least" };
    if met { Ok(()) } else { Err(format!("{} is {} {}: {side} {} is asked", figure.name, figure.value, figure.unit, target.value)) }
}

/// A figure as it is printed by whoever measures it, and in a second line that its target is missed when it is.
pub fn tell(targets: &Targets, figure: &Figure) -> String {
    let missed = judge(targets, figure).err().map(|words| format!("a target is missed: {words}\n"));
    format!("figure {} {} {}\n{}", figure.name, figure.value, figure.unit, missed.unwrap_or_default())
}

/// A line for each figure: whether its target is met, what was measured, what is asked.
pub fn table(targets: &Targets, figures: &[Figure]) -> String {
    let name_width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let measured = |figure: &Figure| format!("{} {}", figure.value, figure.unit);
    let measured_width = figures.iter().map(|figure| measured(figure).len()).max().unwrap_or(0);
    let mut text = String::new();
    for figure in figures {
        let verdict = if judge(targets, figure).is_ok() { "met" } else { "missed" };
        let asked = targets.get(&figure.name).map_or("no target".to_owned(), |target| {
            format!("{} {} {}", if target.at_most { "<=" } else { ">=" }, target.value, target.unit)
        });
        let (name, measured) = (&figure.name, measured(figure));
        // Writing to a String can not fail.
        let _ = writeln!(text, "{verdict:<6}  {name:<name_width$}  {measured:>measured_width$}  {asked}");
    }
    text
}

/// The least of the values that so many percent of all don't pass: one that was measured, never one between two. Zero of none.
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=120).rev().map(Duration::from_millis).collect();
        let found = [0, 1, 50, 99, 100].map(|percent| percentile(&values, percent).as_millis());
        assert_eq!(found, [1, 2, 60, 119, 120]);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    const LIST: &str = "# comment\na.b\t<=\t5\ts\tmake x\twhat\nc\t>=\t5\t1/s\tmake y\twhat\n";

    #[test]
    fn a_figure_is_held_against_its_target() {
        let targets = targets(LIST).expect("reads");
        let judged = |line: &str| judge(&targets, &figure(line).expect("a figure"));
        assert_eq!(judged("figure a.b 5 s"), Ok(()));
        assert_eq!(judged("figure a.b 5.1 s"), Err("a.b is 5.1 s: at most 5 is asked".into()));
        assert_eq!(judged("figure a.b NaN s"), Err("a.b is NaN s: at most 5 is asked".into()));
        assert_eq!(judged("figure c 4 1/s"), Err("c is 4 1/s: at least 5 is asked".into()));
        assert_eq!(judged("figure c 6 s"), Err("c is in s, and asked for in 1/s".into()));
        assert_eq!(judged("figure d 6 s"), Err("d is not in the list of targets".into()));
    }

    #[test]
    fn a_figure_is_told_with_its_target_only_when_that_is_missed() {
        let targets = targets(LIST).expect("reads");
        let told = |value: f64| tell(&targets, &Figure { name: "a.b".into(), value, unit: "s".into() });
        assert_eq!(told(5.0), "figure a.b 5 s\n");
        assert_eq!(told(6.0), "figure a.b 6 s\na target is missed: a.b is 6 s: at most 5 is asked\n");
        assert_eq!(told(6.0).lines().filter_map(figure).count(), 1, "it is read back once");
    }

    #[test]
    fn only_a_line_that_is_a_figure_is_one() {
        assert!(figure("test a_journey ... figure a.b 5 s").is_some(), "printed while its test runs");
        for line in ["a figure of speech", "figure of speech", "figure a.b five s", "figure a.b 5", "figure a.b 5 s and more"] {
            assert_eq!(figure(line), None, "{line}");
        }
    }

    #[test]
    fn the_table_says_of_each_figure_whether_it_is_met() {
        let figures: Vec<Figure> = ["figure a.b 5.5 s", "figure c 60 1/s", "figure d 1 s"].into_iter().filter_map(figure).collect();
        let expected = "missed  a.b   5.5 s  <= 5 s\nmet     c    60 1/s  >= 5 1/s\nmissed  d       1 s  no target\n";
        assert_eq!(table(&targets(LIST).expect("reads"), &figures), expected);
    }

    #[test]
    fn a_broken_list_is_refused() {
        for (list, words) in
            [("a\t<\t5\ts", "neither"), ("a\t<=\tx\ts", "no number"), ("a\t<=\t5", "few"), ("a\t<=\t5\ts\na\t<=\t6\ts", "twice")]
        {
            let error = format!("{:#}", targets(list).expect_err("refused"));
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_repositorys_own_list_can_be_read() {
        let text = include_str!("../../../figures.tsv");
        assert!(targets(text).expect("reads").len() > 10);
    }
}
