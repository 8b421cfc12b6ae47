//! People at the command line: `kubectl supercargo` as the buyer or the provider would run it.

use crate::chain_setup::{Market, Person};
use crate::cluster::{ClusterInfo, Layout};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use tokio::process::Command;

/// The people's command, from the same build as the image.
fn program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("finding this program")?;
    let folder = this.parent().context("this program lies in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.join("kubectl-supercargo"))
}

/// Runs a command that sends a transaction, and gives back what it printed.
pub async fn send(layout: &Layout, info: &ClusterInfo, market: &Market, person: Person, args: &[&str]) -> Result<String> {
    let output = Command::new(program()?)
        .args(args)
        .args(["--rpc", &info.chain_url, "--send", "--key-file", &person.key_file(layout).display().to_string()])
        .env("KUBECONFIG", &info.kubeconfig)
        .env("SUPERCARGO_CONTRACT", market.addresses.escrow.to_string())
        .output()
        .await
        .context("starting kubectl-supercargo")?;
    if !output.status.success() {
        bail!("kubectl supercargo {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The word after `name` at the start of a line.
pub fn printed<'a>(output: &'a str, name: &str) -> Result<&'a str> {
    let line =
        output.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no line begins with {name:?} in:\n{output}"))?;
    Ok(line.trim())
}
