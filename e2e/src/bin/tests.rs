//! `tests [SUITE...]`: runs the suites, all of them when none is named, shows what each prints, and closes with the sum over
//! all. What needs the cluster runs one suite after the other; what doesn't runs beside it, until the suites that need a quiet
//! machine begin.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Instant;
use supercargo_e2e::harness::figures::{self, Figure};
use supercargo_e2e::harness::tally::{Reader, Tally};

/// Always the whole workspace: a narrower selection would unify features differently and compile everything again.
const CARGO_TEST: &str = "cargo test --workspace --locked --no-fail-fast";
const CARGO_BUILD: &str = "cargo test --workspace --locked --no-run --quiet --tests";
/// The package whose tests need the cluster, and share it.
const CLUSTER: &str = "supercargo-e2e";
/// What is in it may go side by side.
const SIDE_BY_SIDE: &str = "beside";
/// These print figures of time, or need all of the machine: nothing runs beside them, and what is in them runs one by one. What
/// holds a limit of seconds with room to spare is elsewhere. The last kills the cluster's processes one after the other, and
/// takes it down.
const QUIET: [&str; 5] = ["image", "demo", "times", "truth", "cluster"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Needs no cluster.
    Apart,
    Cluster,
    Quiet,
}

struct Suite {
    name: String,
    command: String,
    place: Place,
}

/// What became of a suite.
struct Ran {
    name: String,
    command: String,
    sum: Tally,
    measured: Vec<Figure>,
}

fn main() -> Result<ExitCode> {
    let targets = figures::read_targets()?;
    let suites = wanted(suites()?, std::env::args().skip(1).collect())?;
    if suites.len() > 1 {
        // All at once: one after the other, each would leave a processor idle.
        ensure!(run(CARGO_BUILD, &mut std::io::stdout(), |_| ())?, "the tests don't compile");
    }
    let all = run_all(&suites, &mut std::io::stdout())?;
    for missed in all.iter().flat_map(|ran| &ran.measured).filter_map(|figure| figures::judge(&targets, figure).err()) {
        println!("a target is missed: {missed}");
    }
    let mut total = Tally::default();
    for Ran { name, sum, command, .. } in all {
        if sum.failed > 0 {
            println!("failed: {name} ({sum}); again with: {command}");
        }
        total += sum;
    }
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The output of what runs beside others is shown whole, between theirs.
fn run_all(suites: &[Suite], shown: &mut impl Write) -> Result<Vec<Ran>> {
    if suites.iter().all(|suite| suite.place == Place::Apart) {
        return suites.iter().map(|suite| run_suite(suite, shown)).collect();
    }
    let of = |place: Place| suites.iter().filter(move |suite| suite.place == place);
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let (ended, apart) = mpsc::sync_channel(suites.len());
        scope.spawn(move || {
            for suite in of(Place::Apart) {
                let mut shown = Vec::new();
                let ran = run_suite(suite, &mut shown);
                // Nobody listens any more when the others could not be shown: then neither can this.
                let _ = ended.send((shown, ran));
            }
        });
        for suite in of(Place::Apart) {
            writeln!(shown, "beside the others, shown when it is over: {}", suite.name)?;
        }
        for suite in of(Place::Cluster) {
            all.push(run_suite(suite, shown)?);
            show(apart.try_iter(), shown, &mut all)?;
        }
        show(apart.iter(), shown, &mut all)?;
        for suite in of(Place::Quiet) {
            all.push(run_suite(suite, shown)?);
        }
        Ok(all)
    })
}

fn show(ended: impl Iterator<Item = (Vec<u8>, Result<Ran>)>, shown: &mut impl Write, all: &mut Vec<Ran>) -> Result<()> {
    for (output, ran) in ended {
        shown.write_all(&output).context("showing a suite's output")?;
        all.push(ran?);
    }
    Ok(())
}

fn run_suite(suite: &Suite, shown: &mut impl Write) -> Result<Ran> {
    let Suite { name, command, .. } = suite;
    writeln!(shown, "== {name}: {command}")?;
    let started = Instant::now();
    let (mut reader, mut measured) = (Reader::default(), Vec::new());
    let went = run(command, shown, |line| {
        reader.read(line);
        measured.extend(figures::figure(line));
    });
    let succeeded = match went {
        Ok(succeeded) => succeeded,
        Err(error) => {
            writeln!(shown, "{error:#}")?;
            false
        }
    };
    let sum = reader.finish(succeeded);
    writeln!(shown, "== {name}: {sum}, in {} s\n", started.elapsed().as_secs())?;
    Ok(Ran { name: name.clone(), command: command.clone(), sum, measured })
}

/// Each integration test that there is, so that none is forgotten, beside the units and the contracts.
fn suites() -> Result<Vec<Suite>> {
    // What waits for something in the cluster is to be answered soon: what runs beside it is not as important.
    let apart = |name: &str, command: &str| Suite { name: name.to_owned(), command: format!("nice -n 5 {command}"), place: Place::Apart };
    let targets = tested()?;
    let bins: BTreeSet<&str> = targets.iter().filter(|target| target.kind == "bin").map(|target| target.name.as_str()).collect();
    let bins: String = bins.iter().map(|name| format!(" --bin {name}")).collect();
    let mut suites = vec![
        apart("unit", &format!("{CARGO_TEST} --lib{bins} -- --show-output")),
        apart("contracts", "env -C contracts node_modules/.native/forge test"),
    ];
    for Target { name, package, .. } in targets.iter().filter(|target| target.kind == "test") {
        let test = |threads: u8| format!("{CARGO_TEST} --test {name} -- --show-output --test-threads={threads}");
        suites.push(if package != CLUSTER {
            apart(name, &test(1))
        } else if QUIET.contains(&name.as_str()) {
            Suite { name: name.clone(), command: test(1), place: Place::Quiet }
        } else {
            // Mostly journeys wait.
            let threads = if name == SIDE_BY_SIDE { 3 } else { 1 };
            Suite { name: name.clone(), command: test(threads), place: Place::Cluster }
        });
    }
    for quiet in QUIET {
        ensure!(suites.iter().any(|suite| suite.name == quiet), "there is no suite {quiet}, which is to run alone");
    }
    let place_among_quiet = |name: &str| QUIET.iter().position(|quiet| *quiet == name);
    suites[2..].sort_by_key(|suite| (suite.place, place_among_quiet(&suite.name), suite.name.clone()));
    Ok(suites)
}

struct Target {
    kind: String,
    name: String,
    package: String,
}

/// The kind and name of each program and integration test of the workspace that has tests.
fn tested() -> Result<Vec<Target>> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("reading what cargo metadata printed")?;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let of_package = |package: serde_json::Value| {
        let tested = list(&package["targets"]).into_iter().filter(|target| target["test"] == true);
        tested
            .filter_map(|target| {
                Some(Target { kind: text(&target["kind"][0])?, name: text(&target["name"])?, package: text(&package["name"])? })
            })
            .collect::<Vec<_>>()
    };
    Ok(list(&metadata["packages"]).into_iter().flat_map(of_package).collect())
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

    fn suite(name: &str, place: Place, command: &str) -> Suite {
        Suite { name: name.to_owned(), command: command.to_owned(), place }
    }

    fn named(names: &[&str]) -> Vec<Suite> {
        names.iter().map(|name| suite(name, Place::Cluster, "")).collect()
    }

    #[test]
    fn what_runs_beside_others_is_shown_whole_and_over_before_anything_is_measured() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe").display().to_string();
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo starts").success());
        let script = |name: &str, command: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, format!("{command} && echo 'test result: ok. 1 passed; 0 failed'\n")).expect("a script is written");
            format!("sh {}", file.display())
        };
        // Neither comes to its end unless both are there at once.
        let suites = [
            suite("apart", Place::Apart, &script("reads", &format!("timeout 20 cat {pipe}"))),
            suite("cluster", Place::Cluster, &script("writes", &format!("timeout 20 tee {pipe}"))),
            suite("quiet", Place::Quiet, &script("says", "true")),
        ];
        let mut shown = Vec::new();
        let all = run_all(&suites, &mut shown).expect("all are shown");
        let names: Vec<&str> = all.iter().map(|ran| ran.name.as_str()).collect();
        assert_eq!(names, ["cluster", "apart", "quiet"]);
        assert!(all.iter().all(|ran| (ran.sum.passed, ran.sum.failed) == (1, 0)), "{}", String::from_utf8_lossy(&shown));
        let shown = String::from_utf8(shown).expect("text");
        let headings: Vec<&str> =
            shown.lines().filter_map(|line| line.strip_prefix("== ")?.split_once(':')).map(|(name, _)| name).collect();
        assert_eq!(headings, ["cluster", "cluster", "apart", "apart", "quiet", "quiet"]);
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

    /// Cargo finds each file in `tests`, but nobody a file in a folder there that its `main.rs` does not name.
    #[test]
    fn no_journey_is_forgotten_by_its_program() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut journeys = 0;
        for program in ["beside", "alone"].map(|name| folder.join(name)) {
            let named = std::fs::read_to_string(program.join("main.rs")).expect("the program is there");
            for file in std::fs::read_dir(&program).expect("its folder is there") {
                let file = file.expect("an entry").path();
                let name = file.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
                if file.extension().is_some_and(|kind| kind == "rs") && name != "main" {
                    journeys += 1;
                    assert!(named.lines().any(|line| line == format!("mod {name};")), "{} is never run", file.display());
                }
            }
        }
        assert!(journeys > 10, "{journeys} files were found");
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
