//! `tests [SUITE...]`: runs the suites one after the other, all of them when none is named, shows what each prints, and
//! closes with the sum over all.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;
use supercargo_e2e::harness::figures::{self, Figure};
use supercargo_e2e::harness::tally::{Reader, Tally};

/// Always the whole workspace: a narrower selection would unify features differently and compile everything again.
const CARGO_TEST: &str = "cargo test --workspace --locked --no-fail-fast";
const CARGO_BUILD: &str = "cargo test --workspace --locked --no-run --quiet --tests";
/// Last of all: it kills the cluster's processes one by one, and takes it down.
const LAST: &str = "cluster";

struct Suite {
    name: String,
    command: String,
}

fn main() -> Result<ExitCode> {
    let targets = figures::read_targets()?;
    let suites = wanted(suites()?, std::env::args().skip(1).collect())?;
    if suites.len() > 1 {
        // All at once: one after the other, each would leave a processor idle.
        ensure!(run(CARGO_BUILD, &mut std::io::stdout(), |_| ())?, "the tests don't compile");
    }
    let mut sums: Vec<(&str, Tally)> = Vec::new();
    let mut measured: Vec<Figure> = Vec::new();
    for Suite { name, command } in &suites {
        println!("== {name}: {command}");
        let started = Instant::now();
        let mut reader = Reader::default();
        let succeeded = run(command, &mut std::io::stdout(), |line| {
            reader.read(line);
            measured.extend(figures::figure(line));
        })
        .unwrap_or_else(|error| {
            println!("{error:#}");
            false
        });
        let sum = reader.finish(succeeded);
        println!("== {name}: {sum}, in {} s\n", started.elapsed().as_secs());
        sums.push((name, sum));
    }
    for missed in measured.iter().filter_map(|figure| figures::judge(&targets, figure).err()) {
        println!("a target is missed: {missed}");
    }
    let mut total = Tally::default();
    for (name, sum) in sums {
        if sum.failed > 0 {
            println!("failed: {name} ({sum}); again with: tests {name}");
        }
        total += sum;
    }
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What needs no cluster comes first; then each integration test there is, so that none is forgotten. Those share one
/// cluster: one test at a time.
fn suites() -> Result<Vec<Suite>> {
    let suite = |name: &str, command: String| Suite { name: name.to_owned(), command };
    let targets = tested()?;
    let of_kind = |kind: &str| targets.iter().filter(|(of, _)| of == kind).map(|(_, name)| name.clone()).collect::<BTreeSet<_>>();
    let bins: String = of_kind("bin").iter().map(|name| format!(" --bin {name}")).collect();
    let mut suites = vec![
        suite("unit", format!("{CARGO_TEST} --lib{} -- --show-output", bins)),
        suite("contracts", "env -C contracts node_modules/.native/forge test".to_owned()),
    ];
    let mut names: Vec<String> = of_kind("test").into_iter().collect();
    names.sort_by_key(|name| name == LAST);
    suites.extend(names.iter().map(|name| suite(name, format!("{CARGO_TEST} --test {name} -- --show-output --test-threads=1"))));
    Ok(suites)
}

/// The kind and name of each program and integration test of the workspace that has tests.
fn tested() -> Result<Vec<(String, String)>> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("reading what cargo metadata printed")?;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let targets = list(&metadata["packages"]).into_iter().flat_map(|package| list(&package["targets"]));
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Ok(targets
        .filter(|target| target["test"] == true)
        .filter_map(|target| Some((text(&target["kind"][0])?, text(&target["name"])?)))
        .collect())
}

fn wanted(suites: Vec<Suite>, names: Vec<String>) -> Result<Vec<Suite>> {
    let known: Vec<&str> = suites.iter().map(|suite| suite.name.as_str()).collect();
    for name in &names {
        ensure!(known.contains(&name.as_str()), "there is no suite {name:?}; there are: {}", known.join(", "));
    }
    Ok(suites.into_iter().filter(|suite| names.is_empty() || names.contains(&suite.name)).collect())
}

/// Runs a command, shows its lines as they come, and tells whether it succeeded.
fn run(command: &str, shown: &mut impl Write, mut each: impl FnMut(&str)) -> Result<bool> {
    let mut words = command.split_whitespace();
    let program = words.next().context("a suite has a command")?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let mut output = BufReader::new(child.stdout.take().context("the suite has an output")?);
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes).context("reading the suite's output")? > 0 {
        shown.write_all(&bytes).and_then(|()| shown.flush()).context("showing the suite's output")?;
        each(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    Ok(child.wait().context("waiting for the suite")?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Suite> {
        names.iter().map(|name| Suite { name: (*name).to_owned(), command: String::new() }).collect()
    }

    #[test]
    fn suites_can_be_named_and_run_in_the_runners_order() {
        let chosen = |names: &[&str]| -> Result<Vec<String>> {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(wanted(named(&["unit", "contracts", "cluster"]), names)?.into_iter().map(|suite| suite.name).collect())
        };
        assert_eq!(chosen(&[]).expect("all"), ["unit", "contracts", "cluster"]);
        assert_eq!(chosen(&["cluster", "unit"]).expect("two"), ["unit", "cluster"]);
        let error = chosen(&["clutser"]).expect_err("none is called so").to_string();
        assert_eq!(error, "there is no suite \"clutser\"; there are: unit, contracts, cluster");
    }

    #[test]
    fn lines_reach_the_reader_even_when_they_are_no_text() {
        let (mut shown, mut lines) = (Vec::new(), Vec::new());
        assert!(run("printf a\\n\\377\\nb", &mut shown, |line| lines.push(line.to_owned())).expect("printf starts"));
        assert_eq!(shown, b"a\n\xff\nb");
        assert_eq!(lines, ["a", "\u{fffd}", "b"]);
        assert!(!run("false", &mut shown, |_| ()).expect("false starts"));
        assert!(run("no-such-program", &mut shown, |_| ()).is_err());
    }
}
