//! Holds the Go modules of the local cluster's programs to the same licences as everything else. A go.mod file names no
//! licence and a fresh machine has no module's files, so what each module's own files say is written down once, in
//! `e2e/cluster/licences.tsv`, and held against every go.mod here: none is missing, none is left over.

use super::{Finding, licences};
use std::collections::{BTreeMap, BTreeSet};

/// Where the list stands, seen from the repository's root.
pub const LIST: &str = "e2e/cluster/licences.tsv";
const AGAIN: &str = "run make generate";

/// A module in one version.
pub type Module = (String, String);

/// All that the programs of a go.mod file are built and tested from: since Go 1.17 the file names every one of them.
/// One that is replaced counts as what it is replaced by.
pub fn required(go_mod: &str) -> BTreeSet<Module> {
    let mut block = "";
    let mut required = Vec::new();
    let mut replaced = BTreeMap::new();
    for line in go_mod.lines() {
        let words: Vec<&str> = line.split("//").next().unwrap_or_default().split_whitespace().collect();
        let (keyword, rest) = match (block, words.as_slice()) {
            ("", [keyword, "("]) => {
                block = keyword;
                continue;
            }
            (_, [")"]) => {
                block = "";
                continue;
            }
            ("", [keyword, rest @ ..]) => (*keyword, rest),
            (inside, rest) => (inside, rest),
        };
        match (keyword, rest) {
            ("require", [path, version]) => required.push((*path, *version)),
            ("replace", [path, "=>", by, version] | [path, _, "=>", by, version]) => {
                replaced.insert(*path, (*by, *version));
            }
            _ => {}
        }
    }
    let settled = required.into_iter().map(|module| replaced.get(module.0).copied().unwrap_or(module));
    settled.map(|(path, version)| (path.to_owned(), version.to_owned())).collect()
}

/// The list as a table: module, version, licence.
pub fn read(list: &str) -> BTreeMap<Module, String> {
    let rows = list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split('\t').map(str::to_owned);
        Some(((fields.next()?, fields.next()?), fields.next()?))
    });
    rows.collect()
}

pub fn write(licences: &BTreeMap<Module, String>) -> String {
    let head = "# What the licence files of each Go module say that the local cluster's programs are built from. Written by make generate.\n\
                # module\tversion\tlicence\n";
    let rows = licences.iter().map(|((path, version), licence)| format!("{path}\t{version}\t{licence}\n"));
    head.to_owned() + &rows.collect::<String>()
}

/// `go_mods` are the texts of all go.mod files; `on_this_machine` gives a module's licence files where they are here.
pub fn scan(go_mods: &[&str], list: &str, on_this_machine: impl Fn(&Module) -> Option<Vec<String>>) -> Vec<Finding> {
    let required: BTreeSet<Module> = go_mods.iter().flat_map(|text| required(text)).collect();
    let listed = read(list);
    let finding = |module: &Module, words: String| Finding { place: format!("{} {}", module.0, module.1), words };
    let missing = required.iter().filter(|module| !listed.contains_key(*module));
    let mut findings: Vec<Finding> = missing.map(|module| finding(module, format!("is not in {LIST}; {AGAIN}"))).collect();
    for (module, licence) in &listed {
        if !required.contains(module) {
            findings.push(finding(module, format!("is in {LIST} and no longer used; {AGAIN}")));
            continue;
        }
        findings.extend(licences::found(&module.0, &module.1, Some(licence)));
        if let Some(now) = on_this_machine(module).map(|texts| recognise(&texts)).filter(|now| now != licence) {
            findings.push(finding(module, format!("is listed as {licence}, and its files say {now}; {AGAIN}")));
        }
    }
    findings
}

/// Is this the name of a file that holds a licence?
pub fn is_licence_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["licence", "license", "unlicense", "copying"].iter().any(|start| name.starts_with(start))
}

/// The SPDX expression for a module's licence files: where they hold several licences, all of them are asked for, which is the
/// strictest way to read them.
pub fn recognise(texts: &[String]) -> String {
    let found: BTreeSet<&str> = texts.iter().flat_map(|text| licences_in(text)).collect();
    if found.is_empty() { "unknown".to_owned() } else { found.into_iter().collect::<Vec<_>>().join(" AND ") }
}

fn licences_in(text: &str) -> Vec<&'static str> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let has = |words: &str| text.contains(words);
    let bsd = if has("advertising materials mentioning") {
        "BSD-4-Clause"
    } else if has("Neither the name") || has("endorse or promote") {
        "BSD-3-Clause"
    } else {
        "BSD-2-Clause"
    };
    // Titles in capitals: the Mozilla licence speaks of GNU's in its own text.
    let known = [
        ("Apache-2.0", has("Apache License") && has("Version 2.0")),
        ("MIT", has("Permission is hereby granted, free of charge")),
        (bsd, has("Redistribution and use in source and binary forms")),
        ("ISC", has("Permission to use, copy, modify, and") && has("for any purpose with or without fee")),
        ("MPL-2.0", has("Mozilla Public License Version 2.0") || has("Mozilla Public License, version 2.0")),
        ("CC0-1.0", has("CC0 1.0 Universal")),
        ("Unlicense", has("This is free and unencumbered software")),
        ("GPL", has("GNU GENERAL PUBLIC LICENSE")),
        ("LGPL", has("GNU LESSER GENERAL PUBLIC LICENSE")),
        ("AGPL", has("GNU AFFERO GENERAL PUBLIC LICENSE")),
    ];
    known.into_iter().filter(|(_, found)| *found).map(|(licence, _)| licence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_MOD: &str = "module m\n\ngo 1.26.0\n\ntool example.org/a/cmd/a\n\nrequire (\n\texample.org/a v1.0.0\n\
                          \texample.org/b v0.0.0 // indirect\n)\n\nrequire example.org/c v3.0.0\n\n\
                          exclude example.org/d v1.0.0\n\nreplace (\n\texample.org/b => example.org/b v2.0.0\n)\n";

    fn module(path: &str, version: &str) -> Module {
        (format!("example.org/{path}"), version.to_owned())
    }

    fn list(rows: &[(&str, &str, &str)]) -> String {
        write(&rows.iter().map(|(path, version, licence)| (module(path, version), (*licence).to_owned())).collect())
    }

    #[test]
    fn every_module_that_is_required_counts_as_what_it_is_replaced_by() {
        let expected = [module("a", "v1.0.0"), module("b", "v2.0.0"), module("c", "v3.0.0")];
        assert_eq!(required(GO_MOD), expected.into());
    }

    #[test]
    fn a_list_that_is_whole_and_of_good_licences_passes() {
        let list = list(&[("a", "v1.0.0", "MIT"), ("b", "v2.0.0", "Apache-2.0 AND BSD-3-Clause"), ("c", "v3.0.0", "MPL-2.0")]);
        assert_eq!(scan(&[GO_MOD], &list, |_| None), []);
    }

    #[test]
    fn what_is_missing_left_over_not_accepted_or_no_longer_true_is_found() {
        let list = list(&[("a", "v1.0.0", "MIT"), ("b", "v0.0.0", "MIT"), ("c", "v3.0.0", "MIT AND LGPL")]);
        let here = |asked: &Module| (asked.0 == "example.org/a").then(|| vec!["This is free and unencumbered software".to_owned()]);
        let said: Vec<String> = scan(&[GO_MOD], &list, here).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "example.org/b v2.0.0: is not in e2e/cluster/licences.tsv; run make generate",
                "example.org/a v1.0.0: is listed as MIT, and its files say Unlicense; run make generate",
                "example.org/b v0.0.0: is in e2e/cluster/licences.tsv and no longer used; run make generate",
                "example.org/c v3.0.0: licence MIT AND LGPL is not one we ship with; replace it or argue for the licence in licences.rs",
            ]
        );
    }

    #[test]
    fn a_licence_is_recognised_by_its_words_and_one_that_is_not_is_none() {
        let bsd = "Redistribution and use in source\nand binary forms, with or without";
        for (texts, expected) in [
            (vec!["Apache License\n   Version 2.0, January 2004"], "Apache-2.0"),
            (vec![bsd], "BSD-2-Clause"),
            (
                vec!["MIT: Permission is hereby granted, free of charge, to", format!("{bsd} Neither the name").as_str()],
                "BSD-3-Clause AND MIT",
            ),
            (vec![format!("{bsd} All advertising materials mentioning features").as_str()], "BSD-4-Clause"),
            (vec!["Mozilla Public License Version 2.0, or the GNU General Public License"], "MPL-2.0"),
            (vec!["GNU LESSER GENERAL PUBLIC LICENSE"], "LGPL"),
            (vec!["All rights reserved."], "unknown"),
            (vec![], "unknown"),
        ] {
            assert_eq!(recognise(&texts.into_iter().map(str::to_owned).collect::<Vec<_>>()), expected);
        }
        assert!(licences::found("m", "v1", Some("unknown")).is_some() && licences::found("m", "v1", Some("BSD-4-Clause")).is_some());
    }
}
