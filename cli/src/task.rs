//! `kubectl supercargo task`: where a task stands, why, and what it cost, in plain words.

use anyhow::{Context, Result};
use clap::Subcommand;
use kube::{Api, Client};
use supercargo_crds::ComputeTask;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Where it stands, why, and what it cost
    Show {
        name: String,
        #[arg(long, short)]
        namespace: Option<String>,
    },
}

pub async fn run(command: Command) -> Result<()> {
    let Command::Show { name, namespace } = command;
    let client = Client::try_default().await.context("reaching the cluster")?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let api: Api<ComputeTask> = Api::namespaced(client, &namespace);
    let task = api.get(&name).await.with_context(|| format!("reading ComputeTask {namespace}/{name}"))?;
    print!("{}", words(&task));
    Ok(())
}

/// The whole story of a task.
fn words(task: &ComputeTask) -> String {
    let status = task.status.clone().unwrap_or_default();
    let mut lines = vec![format!(
        "{} is {}",
        task.metadata.name.as_deref().unwrap_or_default(),
        status.phase.as_deref().unwrap_or("not seen yet by the operator")
    )];
    for condition in status.conditions.iter().filter(|condition| matches!(condition.type_.as_str(), "Stalled" | "Reconciling" | "Finished"))
    {
        lines.push(format!("  {}", condition.message));
    }
    for assignment in &status.assignments {
        lines.push(format!("  on {} of {}: {}", assignment.node, assignment.provider, assignment.because));
    }
    for attempt in &status.attempts {
        let code = attempt.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        lines.push(format!(
            "  attempt {} on {}: {}{code}, {} s billed",
            attempt.index, attempt.node, attempt.outcome, attempt.billed_seconds
        ));
    }
    if let Some(cost) = &status.cost {
        let paid = cost.transaction.as_ref().map(|hash| format!(" by {hash}")).unwrap_or_default();
        lines.push(format!("  cost {} {}: {} of it paid{paid}; budget {}", cost.charged.0, cost.token, cost.settled.0, task.spec.budget.0));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paid_task_tells_its_whole_story() {
        let task: ComputeTask = serde_json::from_value(serde_json::json!({
            "apiVersion": "supercargo.dev/v1alpha1", "kind": "ComputeTask", "metadata": { "name": "train" },
            "spec": { "budget": "1", "image": "i" },
            "status": {
                "observedGeneration": 1, "phase": "Succeeded",
                "conditions": [{ "type": "Finished", "status": "True", "reason": "Succeeded", "message": "it ended with exit code 0", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
                "assignments": [{ "worker": 0, "node": "n1", "pool": "p", "provider": "acme", "pod": "x", "because": "the cheapest of 2 that fit, at 2.10 an hour", "pricePerHour": "2.10", "cpu": "1", "memory": "1", "rateCard": "" }],
                "attempts": [{ "index": 0, "node": "n1", "outcome": "Succeeded", "exitCode": 0, "billedSeconds": 60, "evidence": "Record" }],
                "cost": { "token": "USDC", "reserved": "0", "charged": "0.035", "settled": "0.035", "transaction": "0xab" },
            },
        }))
        .expect("a task");
        assert_eq!(
            words(&task),
            "train is Succeeded\n  it ended with exit code 0\n  on n1 of acme: the cheapest of 2 that fit, at 2.10 an hour\n  attempt 0 on n1: Succeeded, exit code 0, 60 s billed\n  cost 0.035 USDC: 0.035 of it paid by 0xab; budget 1.00\n"
        );
    }
}
