//! Counts crates that are built in two versions at once. Some pairs can't be helped (two families of libraries between
//! releases), so the number may only fall: `e2e/harness/duplicate-crates` records those we live with. And holds the versions
//! of Rust and Go that people are told to install against those that are asked for.

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

/// `documents` are (path, text) of what tells people what to install.
pub fn scan_documents(documents: &[(&str, &str)], cargo_toml: &str, go_mods: &[&str]) -> Vec<Finding> {
    let rust = cargo_toml.lines().find_map(|line| line.strip_prefix("rust-version = ")).map(|version| version.trim_matches('"'));
    let go =
        go_mods.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("go ")).max_by_key(|version| numbers(version));
    let asked: Vec<String> =
        [("Rust", rust), ("Go", go)].into_iter().filter_map(|(name, version)| Some(format!("{name} {}", version?))).collect();
    // Not as the beginning of a longer number.
    let ends = |rest: &str| !rest.trim_start_matches('.').starts_with(|next: char| next.is_ascii_digit());
    let has = |text: &str, words: &str| text.match_indices(words).any(|(at, _)| ends(&text[at + words.len()..]));
    let findings = documents.iter().flat_map(|(path, text)| {
        let missing = asked.iter().filter(move |words| !has(text, words));
        missing.map(|words| Finding { place: (*path).to_owned(), words: format!("does not ask for {words}, and the build does") })
    });
    findings.collect()
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_to_install_what_the_build_asks_for() {
        let (cargo, go) = ("[workspace.package]\nrust-version = \"1.95\"\n", ["module a\n\ngo 1.26.10\n", "module b\n\ngo 1.26.9\n"]);
        let said = |text: &str| scan_documents(&[("README.md", text)], cargo, &go).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(said("On Debian, with Rust 1.95, Go 1.26.10, and make").is_empty());
        assert_eq!(said("Rust 1.95, Go 1.26.9, make"), ["README.md: does not ask for Go 1.26.10, and the build does"]);
        assert_eq!(said("Rust 1.951, Go 1.26.10\n"), ["README.md: does not ask for Rust 1.95, and the build does"]);
    }

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
