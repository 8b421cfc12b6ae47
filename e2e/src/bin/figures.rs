//! `figures`: reads a log on standard input, holds each figure in it against the repository's targets, and exits with 1
//! when one is missed.

use anyhow::{Context, Result};
use std::io::Read;
use std::process::ExitCode;
use supercargo_e2e::harness::figures::{self, Figure};

fn main() -> Result<ExitCode> {
    let targets = figures::read_targets()?;
    let mut log = Vec::new();
    std::io::stdin().read_to_end(&mut log).context("reading the log on standard input")?;
    let measured: Vec<Figure> = String::from_utf8_lossy(&log).lines().filter_map(figures::figure).collect();
    let missed = measured.iter().filter(|figure| figures::judge(&targets, figure).is_err()).count();
    print!("{}", figures::table(&targets, &measured));
    println!("{} figures, {missed} missed", measured.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
