//! kubectl, as a person would use it: the binary that the cluster was built with, as the cluster's admin.

use crate::cluster::Layout;
use anyhow::{Context, Result, bail};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longer than anything that is asked of it here: `wait` and `delete` have limits of their own.
const PATIENCE: Duration = Duration::from_secs(150);

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
    command.envs(crate::http::direct()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has a standard input")?;
    let talk = async {
        // A kubectl that ended without reading says why below.
        let written = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.context("waiting for kubectl")?;
        if output.status.success() {
            written.context("writing to kubectl")?;
        }
        anyhow::Ok(output)
    };
    let output = tokio::time::timeout(PATIENCE, talk)
        .await
        .with_context(|| format!("kubectl {}: no answer in {} s", args.join(" "), PATIENCE.as_secs()))??;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
