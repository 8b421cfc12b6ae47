//! `figures`: reads a log on standard input, holds each figure in it against the repository's targets, and exits with 1
//! when one is missed. `figures tell NAME VALUE UNIT` prints one figure, and whether its target is missed: a slow machine is
//! no error, so that exits with 0.

use anyhow::{Context, Result, bail};
use std::io::Read;
use std::process::ExitCode;
use supercargo_e2e::harness::figures::{self, Figure};

fn main() -> Result<ExitCode> {
    let targets = figures::read_targets()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [tell, words @ ..] = arguments.as_slice() {
        let figure = (tell == "tell").then(|| figures::figure(&format!("figure {}", words.join(" ")))).flatten();
        let Some(figure) = figure else { bail!("usage: figures < LOG, or figures tell NAME VALUE UNIT") };
        print!("{}", figures::tell(&targets, &figure));
        return Ok(ExitCode::SUCCESS);
    }
    let mut log = Vec::new();
    std::io::stdin().read_to_end(&mut log).context("reading the log on standard input")?;
    let measured: Vec<Figure> = String::from_utf8_lossy(&log).lines().filter_map(figures::figure).collect();
    let missed = measured.iter().filter(|figure| figures::judge(&targets, figure).is_err()).count();
    print!("{}", figures::table(&targets, &measured));
    println!("{} figures, {missed} missed", measured.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
