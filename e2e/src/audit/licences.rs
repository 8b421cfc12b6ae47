//! Holds every dependency's licence against the ones that an Apache-2.0 program may ship with: the crates', and those of the
//! npm packages that build and test the contracts. The Go modules' are in `modules.rs`.

use super::Finding;
use serde_json::Value;

/// Permissive licences, and the weak copyleft one (MPL-2.0) whose duties stop at its own files.
const ACCEPTED: [&str; 14] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "BSL-1.0",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
];
const ACCEPTED_FILE_WISE: [&str; 1] = ["MPL-2.0"];
/// Packages that say it in a way from before npm's lock files took it up, with what they say.
const SAID_THE_OLD_WAY: [(&str, &str, &str); 1] = [("memorystream", "0.3.1", "MIT")];

/// `metadata` is what `cargo metadata --format-version 1` prints.
pub fn scan(metadata: &Value) -> Vec<Finding> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages.iter().filter_map(judge).collect()
}

fn judge(package: &Value) -> Option<Finding> {
    let text = |field: &str| package[field].as_str();
    found(text("name").unwrap_or("?"), text("version").unwrap_or("?"), text("license"))
}

/// `lock` is npm's lock file: every package of every platform, with its licence.
pub fn scan_npm(lock: &Value) -> Vec<Finding> {
    let packages = lock["packages"].as_object().into_iter().flatten();
    let theirs = packages.filter_map(|(place, package)| Some((place.rsplit_once("node_modules/")?.1, package)));
    let judged = theirs.filter_map(|(name, package)| {
        let version = package["version"].as_str().unwrap_or("?");
        let old = SAID_THE_OLD_WAY.iter().find(|(known, since, _)| (*known, *since) == (name, version)).map(|(_, _, licence)| *licence);
        found(name, version, package["license"].as_str().or(old))
    });
    judged.collect()
}

/// What is to be said against a dependency with this licence.
pub(super) fn found(name: &str, version: &str, licence: Option<&str>) -> Option<Finding> {
    let words = match licence {
        Some(expression) if satisfied(expression) => return None,
        Some(expression) => format!("licence {expression} is not one we ship with; replace it or argue for the licence in licences.rs"),
        None => "has no licence; replace it".to_owned(),
    };
    Some(Finding { place: format!("{name} {version}"), words })
}

/// Is some way of reading an SPDX expression acceptable? `AND` needs every part, `OR` (and the old `/`) any;
/// parentheses bind as written.
fn satisfied(expression: &str) -> bool {
    let text = expression.replace('/', " OR ");
    let (value, _) = any_of(&tokens(&text), 0);
    value
}

fn tokens(text: &str) -> Vec<String> {
    text.replace('(', " ( ").replace(')', " ) ").split_whitespace().map(str::to_owned).collect()
}

fn any_of(tokens: &[String], mut at: usize) -> (bool, usize) {
    let (mut value, next) = all_of(tokens, at);
    at = next;
    while tokens.get(at).is_some_and(|t| t == "OR") {
        let (right, next) = all_of(tokens, at + 1);
        value |= right;
        at = next;
    }
    (value, at)
}

fn all_of(tokens: &[String], mut at: usize) -> (bool, usize) {
    let (mut value, next) = single(tokens, at);
    at = next;
    while tokens.get(at).is_some_and(|t| t == "AND") {
        let (right, next) = single(tokens, at + 1);
        value &= right;
        at = next;
    }
    (value, at)
}

fn single(tokens: &[String], at: usize) -> (bool, usize) {
    match tokens.get(at).map(String::as_str) {
        Some("(") => {
            let (value, next) = any_of(tokens, at + 1);
            (value, next + 1)
        }
        Some(licence) if tokens.get(at + 1).is_some_and(|t| t == "WITH") => {
            let exception = tokens.get(at + 2).map_or("", String::as_str);
            (accepted(&format!("{licence} WITH {exception}")), at + 3)
        }
        Some(licence) => (accepted(licence), at + 1),
        None => (false, at + 1),
    }
}

fn accepted(licence: &str) -> bool {
    ACCEPTED.contains(&licence) || ACCEPTED_FILE_WISE.contains(&licence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_passes_when_one_of_its_readings_does() {
        for good in
            ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception OR MIT"]
        {
            assert!(satisfied(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-2.0 OR AGPL-3.0) AND MIT", ""] {
            assert!(!satisfied(bad), "{bad}");
        }
    }

    #[test]
    fn a_crate_without_a_licence_is_named() {
        let metadata = serde_json::json!({"packages": [{"name": "x", "version": "1.0.0", "license": null}]});
        assert_eq!(scan(&metadata)[0].to_string(), "x 1.0.0: has no licence; replace it");
    }

    #[test]
    fn a_package_of_the_lock_file_is_held_to_the_same_and_ours_is_not_a_dependency() {
        let lock = serde_json::json!({"packages": {
            "": {"name": "ours"},
            "node_modules/good": {"version": "1.0.0", "license": "MIT OR Apache-2.0"},
            "node_modules/@scope/silent": {"version": "2.0.0"},
            "node_modules/good/node_modules/bad": {"version": "3.0.0", "license": "GPL-3.0"},
            "node_modules/memorystream": {"version": "0.3.1"},
        }});
        let mut places: Vec<String> = scan_npm(&lock).into_iter().map(|finding| finding.place).collect();
        places.sort_unstable();
        assert_eq!(places, ["@scope/silent 2.0.0", "bad 3.0.0"]);
    }
}
