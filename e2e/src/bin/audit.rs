//! `audit`: runs the repository's audit over the files that git tracks and the crates that cargo builds, prints each
//! finding on a line and exits with 1 when there is one.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, ExitCode};
use supercargo_e2e::audit::{Finding, licences, repetition, stray, versions};

fn main() -> Result<ExitCode> {
    let files = tracked_files()?;
    let metadata = cargo_metadata()?;
    let known = std::fs::read_to_string("e2e/harness/duplicate-crates").context("reading e2e/harness/duplicate-crates")?;
    let sources: Vec<(String, String)> = files.iter().filter(|(path, _)| is_source(path)).cloned().collect();

    let mut findings: Vec<Finding> = files.iter().flat_map(|(path, text)| stray::scan(path, text)).collect();
    findings.extend(licences::scan(&metadata));
    findings.extend(versions::scan(&metadata, &known));
    findings.extend(repetition::scan(&sources));

    for finding in &findings {
        println!("{finding}");
    }
    println!("audit: {} files, {} findings", files.len(), findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_source(path: &str) -> bool {
    [".rs", ".go", ".sol", ".sh"].iter().any(|ending| path.ends_with(ending))
}

/// Every tracked file that is text, with its text.
fn tracked_files() -> Result<Vec<(String, String)>> {
    let listed = run("git", &["ls-files", "-z"])?;
    let names = listed.split('\0').filter(|name| !name.is_empty() && Path::new(name).is_file());
    Ok(names.filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(name).ok()?))).collect())
}

fn cargo_metadata() -> Result<serde_json::Value> {
    let host = run("rustc", &["--print", "host-tuple"])?;
    let text = run("cargo", &["metadata", "--format-version", "1", "--locked", "--filter-platform", host.trim()])?;
    serde_json::from_str(&text).context("reading what cargo metadata printed")
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("starting {program}"))?;
    anyhow::ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(|| format!("reading what {program} printed"))
}
