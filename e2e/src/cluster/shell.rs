//! Runs the system's own tools (ip, mount, nsenter) and turns a failure into one line that says what was attempted.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::process::{Command, Output};

/// None of these takes longer: whoever does hangs.
const LIMIT_SECONDS: &str = "300";
/// What `timeout` ends with when it ended the program.
const TIMED_OUT: i32 = 124;

/// Runs a program to its end; an exit status other than 0 is an error with what it said.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_SECONDS, program]).args(args);
    let output = output(&mut command)?;
    ensure!(output.status.code() != Some(TIMED_OUT), "{}: it was ended after {LIMIT_SECONDS} s", words(&command));
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", words(&command), said.trim().lines().last().unwrap_or("failed without a word"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As `run`, split at spaces: for commands whose arguments have none.
pub fn sh(line: &str) -> Result<String> {
    let mut parts = line.split_whitespace();
    let program = parts.next().context("an empty command")?;
    run(program, parts)
}

/// Did the command end well? Only whether, not why: for asking "is it there?".
pub fn succeeds(line: &str) -> bool {
    let mut parts = line.split_whitespace();
    parts.next().is_some_and(|program| Command::new(program).args(parts).output().is_ok_and(|o| o.status.success()))
}

fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("starting {}", command.get_program().to_string_lossy()))
}

fn words(command: &Command) -> String {
    let words: Vec<_> = command.get_args().skip(2).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
