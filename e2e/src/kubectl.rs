//! kubectl, as a person would use it: the binary that the cluster was built with, as the cluster's admin.

use crate::cluster::Layout;
use anyhow::{Context, Result, bail};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs kubectl and returns what it printed; its complaint is the error.
pub async fn run(layout: &Layout, args: &[&str]) -> Result<String> {
    with_input(layout, args, "").await
}

/// Applies manifests given as text, server-side.
pub async fn apply(layout: &Layout, manifests: &str) -> Result<String> {
    with_input(layout, &["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests).await
}

/// As `run`, with something to read on standard input.
pub async fn with_input(layout: &Layout, args: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(layout.bin("kube"));
    command.arg("kubectl").arg("--kubeconfig").arg(layout.kubeconfig("admin")).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has a standard input")?;
    stdin.write_all(input.as_bytes()).await.context("writing to kubectl")?;
    drop(stdin);
    let output = child.wait_with_output().await.context("waiting for kubectl")?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
