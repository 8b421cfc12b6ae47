//! `tests`: runs every suite, shows what each prints, and closes with the sum over all.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;
use supercargo_e2e::harness::figures::{self, Figure};
use supercargo_e2e::harness::tally::{self, Tally};

/// A suite: its name and its command. Cargo always gets the whole workspace, so that nothing is compiled twice.
const SUITES: [(&str, &str); 5] = [
    ("unit", "cargo test --workspace --locked --quiet --no-fail-fast --lib --bins -- --show-output"),
    ("contracts", "contracts/node_modules/.bin/forge test --root contracts"),
    ("kinds", "cargo test --workspace --locked --quiet --no-fail-fast --test kinds -- --show-output"),
    ("journeys", "cargo test --workspace --locked --quiet --no-fail-fast --test journeys -- --show-output --test-threads=2"),
    // Last: it kills the cluster's processes one by one, and takes it down.
    ("cluster", "cargo test --workspace --locked --quiet --no-fail-fast --test cluster -- --show-output --test-threads=1"),
];

fn main() -> Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !SUITES.iter().any(|(suite, _)| suite == name)) {
        let names: Vec<&str> = SUITES.iter().map(|(suite, _)| *suite).collect();
        anyhow::bail!("there is no suite {unknown:?}: there are {}", names.join(", "));
    }
    let targets = figures::targets(&std::fs::read_to_string("figures.tsv").context("reading figures.tsv")?)?;
    let mut sum = Tally::default();
    let mut measured: Vec<Figure> = Vec::new();
    for (name, command) in SUITES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|suite| suite == name)) {
        let started = Instant::now();
        println!("== {name}");
        let tally = run(command, &mut measured)?;
        println!("== {name}: {tally}, in {} s", started.elapsed().as_secs());
        sum += tally;
    }
    for figure in &measured {
        if let Err(words) = figures::judge(&targets, figure) {
            println!("a target is missed: {words}");
        }
    }
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(command: &str, measured: &mut Vec<Figure>) -> Result<Tally> {
    let mut words = command.split_whitespace();
    let program = words.next().context("a suite has a command")?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let output = child.stdout.take().context("the suite has an output")?;
    let (mut lines, mut said_skipped) = (Tally::default(), 0);
    for line in BufReader::new(output).lines() {
        let line = line.context("reading the suite's output")?;
        println!("{line}");
        let added = tally::of_line(&line);
        if line.trim_start().starts_with("skipped:") {
            said_skipped += 1;
        }
        lines += added;
        measured.extend(figures::figure(&line));
    }
    let status = child.wait().context("waiting for the suite")?;
    Ok(tally::settled(lines, said_skipped, status.success()))
}
