//! Figures: what the repository asks of itself, and what was measured.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// What is asked of one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub name: String,
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

/// Reads the list of targets: name, `<=` or `>=`, value, unit, in columns.
pub fn targets(text: &str) -> Result<BTreeMap<String, Target>> {
    let mut targets = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, operator, value, unit, ..] = fields.as_slice() else { bail!("{line:?} has too few columns") };
        let at_most = match *operator {
            "<=" => true,
            ">=" => false,
            other => bail!("{name}: {other:?} is neither <= nor >="),
        };
        let value = value.parse().with_context(|| format!("{name}: {value:?} is no number"))?;
        targets.insert((*name).to_owned(), Target { name: (*name).to_owned(), at_most, value, unit: (*unit).to_owned() });
    }
    Ok(targets)
}

/// Reads `figure <name> <value> <unit>`.
pub fn figure(line: &str) -> Option<Figure> {
    let mut words = line.trim().strip_prefix("figure ")?.split_whitespace();
    Some(Figure { name: words.next()?.to_owned(), value: words.next()?.parse().ok()?, unit: words.next()?.to_owned() })
}

/// Whether a figure is what is asked; in words when it is not.
pub fn judge(targets: &BTreeMap<String, Target>, figure: &Figure) -> Result<(), String> {
    let Some(target) = targets.get(&figure.name) else { return Err(format!("{} is not in the list of targets", figure.name)) };
    if target.unit != figure.unit {
        return Err(format!("{} is in {}, and asked for in {}", figure.name, figure.unit, target.unit));
    }
    let met = if target.at_most { figure.value <= target.value } else { figure.value >= target.value };
    let side = if target.at_most { "at most" } else { "at least" };
    if met { Ok(()) } else { Err(format!("{} is {} {}: {side} {} is asked", figure.name, figure.value, figure.unit, target.value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_target() {
        let targets = targets("# comment\na.b\t<=\t5\ts\tmake x\twhat\nc\t>=\t5\t1/s\tmake y\twhat\n").expect("reads");
        let judged = |line: &str| judge(&targets, &figure(line).expect("a figure"));
        assert_eq!(judged("figure a.b 5 s"), Ok(()));
        assert_eq!(judged("figure a.b 5.1 s"), Err("a.b is 5.1 s: at most 5 is asked".into()));
        assert_eq!(judged("figure c 4 1/s"), Err("c is 4 1/s: at least 5 is asked".into()));
        assert_eq!(judged("figure c 6 s"), Err("c is in s, and asked for in 1/s".into()));
        assert_eq!(judged("figure d 6 s"), Err("d is not in the list of targets".into()));
        assert_eq!(figure("a figure of speech"), None);
    }

    #[test]
    fn the_repositorys_own_list_can_be_read() {
        let text = include_str!("../../../figures.tsv");
        assert!(targets(text).expect("reads").len() > 10);
    }
}
