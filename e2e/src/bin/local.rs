//! `local`: the local cluster from the command line.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use supercargo_e2e::cluster::{self, Layout};

#[derive(Parser)]
#[command(about = "A real Kubernetes cluster on this machine, for this checkout")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the cluster up, or heal what of it is gone
    Up,
    /// Take it down and leave nothing behind
    Down,
    /// Say what runs
    Status,
    /// Say why it could not come up, if it could not
    Check,
}

#[tokio::main]
async fn main() -> ExitCode {
    supercargo_e2e::http::install_tls();
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let layout = Layout::here()?;
    match arguments.command {
        Command::Up => {
            let info = cluster::up(&layout).await?;
            println!("the cluster is up: export KUBECONFIG={}", info.kubeconfig.display());
        }
        Command::Down => {
            cluster::down(&layout).await?;
            // A test that was cut off leaves its own cluster there.
            let second = layout.second();
            if second.exists() {
                cluster::down(&Layout::of(&second)?).await?;
                std::fs::remove_dir_all(&second).with_context(|| format!("removing {}", second.display()))?;
            }
            println!("the cluster is down");
        }
        Command::Check => cluster::check(&layout)?,
        Command::Status => {
            let status = cluster::status(&layout)?;
            if status.is_empty() {
                println!("no cluster is up");
            }
            for (name, pid) in &status {
                println!("{name:<22} {}", pid.map_or("gone: `make up` heals it".to_owned(), |pid| format!("runs as {pid}")));
            }
            return Ok(if !status.is_empty() && status.iter().all(|(_, pid)| pid.is_some()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}
