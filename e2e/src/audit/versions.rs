//! Counts crates that are built in two versions at once. Some pairs can't be helped (two families of libraries between
//! releases), so the number may only fall: `e2e/harness/duplicate-crates` records those we live with.

use super::Finding;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// `metadata` is what `cargo metadata` prints for this platform; `known` the recorded names, one a line.
pub fn scan(metadata: &Value, known: &str) -> Vec<Finding> {
    let known: BTreeSet<&str> = known.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let built: BTreeSet<&str> = metadata["resolve"]["nodes"].as_array().into_iter().flatten().filter_map(|n| n["id"].as_str()).collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        if let (Some(name), Some(version), Some(id)) = (package["name"].as_str(), package["version"].as_str(), package["id"].as_str())
            && built.contains(id)
        {
            versions.entry(name).or_default().insert(version);
        }
    }
    let doubled = versions.iter().filter(|(_, versions)| versions.len() > 1);
    let mut findings: Vec<Finding> = doubled
        .clone()
        .filter(|(name, _)| !known.contains(*name))
        .map(|(name, versions)| Finding {
            place: (*name).to_owned(),
            words: format!(
                "is built in {} versions ({}); agree on one, or record it in e2e/harness/duplicate-crates",
                versions.len(),
                versions.iter().copied().collect::<Vec<_>>().join(", ")
            ),
        })
        .collect();
    let doubled: BTreeSet<&str> = doubled.map(|(name, _)| *name).collect();
    findings.extend(known.difference(&doubled).map(|name| Finding {
        place: (*name).to_owned(),
        words: "is recorded as doubled and no longer is; take it off e2e/harness/duplicate-crates".to_owned(),
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Value {
        serde_json::json!({
            "packages": [
                {"name": "a", "version": "1.0.0", "id": "a1"}, {"name": "a", "version": "2.0.0", "id": "a2"},
                {"name": "b", "version": "1.0.0", "id": "b1"}, {"name": "b", "version": "2.0.0", "id": "b2-not-built"}
            ],
            "resolve": {"nodes": [{"id": "a1"}, {"id": "a2"}, {"id": "b1"}]}
        })
    }

    #[test]
    fn a_new_double_is_found_and_a_recorded_one_is_not() {
        assert_eq!(scan(&metadata(), "").len(), 1);
        assert_eq!(scan(&metadata(), "a\n").len(), 0);
    }

    #[test]
    fn a_record_that_is_no_longer_true_is_found() {
        assert_eq!(scan(&metadata(), "a\nb\n")[0].place, "b");
    }
}
