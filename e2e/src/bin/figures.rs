//! `figures`: reads a log on standard input and holds each figure in it against the repository's targets.

use anyhow::{Context, Result};
use std::process::ExitCode;
use supercargo_e2e::harness::figures;

fn main() -> Result<ExitCode> {
    let targets = figures::targets(&std::fs::read_to_string("figures.tsv").context("reading figures.tsv")?)?;
    let mut missed = 0;
    for line in std::io::stdin().lines() {
        let Some(figure) = figures::figure(&line.context("reading standard input")?) else { continue };
        match figures::judge(&targets, &figure) {
            Ok(()) => println!("met     {} {} {}", figure.name, figure.value, figure.unit),
            Err(words) => {
                missed += 1;
                println!("missed  {words}");
            }
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
