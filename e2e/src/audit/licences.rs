//! Holds every dependency's licence against the ones that an Apache-2.0 program may ship with.

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

/// `metadata` is what `cargo metadata --format-version 1` prints.
pub fn scan(metadata: &Value) -> Vec<Finding> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages.iter().filter_map(judge).collect()
}

fn judge(package: &Value) -> Option<Finding> {
    let name = package["name"].as_str().unwrap_or("?");
    let version = package["version"].as_str().unwrap_or("?");
    let words = match package["license"].as_str() {
        Some(expression) if satisfied(expression) => return None,
        Some(expression) => format!("licence {expression} is not one we ship with; replace the crate or argue for the licence here"),
        None => "has no licence; replace the crate".to_owned(),
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
        assert_eq!(scan(&metadata)[0].to_string(), "x 1.0.0: has no licence; replace the crate");
    }
}
