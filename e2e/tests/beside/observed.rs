//! What can be seen of tasks from outside the operator: metrics, the devices inside a container, and limits that are real.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use supercargo_e2e::cluster::GPU_EXPORTER_PORT;
use supercargo_e2e::journey::{Journey, condition_of, journey};
use supercargo_e2e::{http, install, kubectl, wait};

const OPERATOR: &str = "/usr/local/bin/supercargo-operator";

#[tokio::test]
async fn prometheus_reaches_every_target_that_it_is_told_of() {
    journey("targets", |journey| async move {
        let info = &journey.stage.info;
        let nodes = info.nodes.len();
        let expected = BTreeMap::from([("cadvisor", nodes), ("gate", 1), ("gpus", nodes), ("kubelet", nodes), ("operator", 1)]);
        let client = http::client()?;
        wait::until("all of Prometheus's targets to be up", Duration::from_secs(60), || async {
            let page = client.get(format!("{}/api/v1/targets?state=active", info.prometheus_url)).send().await?.text().await?;
            let page: Value = serde_json::from_str(&page)?;
            let mut up: BTreeMap<&str, usize> = BTreeMap::new();
            for target in page["data"]["activeTargets"].as_array().context("targets")? {
                ensure!(target["health"] == "up", "{} is {}: {}", target["scrapeUrl"], target["health"], target["lastError"]);
                *up.entry(target["labels"]["job"].as_str().context("a job")?).or_default() += 1;
            }
            ensure!(up == expected, "there are {up:?}");
            Ok(Some(()))
        })
        .await
    })
    .await;
}

/// The address of the node that a task's pod runs on, and the pod's name.
async fn place(journey: &Journey, task: &str) -> Result<(String, String)> {
    let listed: Value =
        serde_json::from_str(&journey.kubectl(&["get", "pods", "-l", &format!("supercargo.dev/task={task}"), "-o", "json"]).await?)?;
    let pod = &listed["items"][0];
    let node = pod["spec"]["nodeName"].as_str().context("the pod has a node")?;
    let index = journey.stage.info.nodes.iter().position(|known| known == node).context("the node is one of ours")?;
    let name = pod["metadata"]["name"].as_str().context("the pod has a name")?;
    Ok((journey.stage.info.subnet.node(index).to_string(), name.to_owned()))
}

#[tokio::test]
async fn the_gpu_that_a_container_sees_is_the_one_that_the_exporter_says_its_pod_has() {
    journey("sees", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("looks", &["--for", "30"], json!({})).await?;
        journey.until("looks", "Started", "True", Duration::from_secs(60)).await?;
        let (address, pod) = place(&journey, "looks").await?;
        let seen = wait::until("the container to say what it sees", Duration::from_secs(20), || async {
            let said = journey.kubectl(&["logs", &pod]).await?;
            Ok(said.lines().find_map(|line| line.strip_prefix("task looks sees ").map(str::to_owned)))
        })
        .await?;
        ensure!(seen.starts_with("GPU-"), "NVIDIA_VISIBLE_DEVICES is {seen:?}");
        let client = http::client()?;
        let has = |page: &str, device: &str| {
            let holder = format!("namespace=\"{}\",pod=\"{pod}\"}} 90", journey.namespace);
            page.lines().any(|line| {
                line.starts_with("DCGM_FI_DEV_GPU_UTIL{") && line.contains(&format!("UUID=\"{device}\"")) && line.ends_with(&holder)
            })
        };
        wait::until("the exporter to say so", Duration::from_secs(20), || async {
            let page = client.get(format!("http://{address}:{GPU_EXPORTER_PORT}/metrics")).send().await?.text().await?;
            ensure!(
                page.lines().filter(|line| line.contains(&format!("pod=\"{pod}\""))).all(|line| line.contains(&seen)),
                "another has it"
            );
            Ok(has(&page, &seen).then_some(()))
        })
        .await?;
        journey.kubectl(&["delete", "computetask", "looks", "--wait=false"]).await.map(drop)
    })
    .await;
}

/// A device is busy for 90 % while anybody has it, by its exporter.
#[tokio::test]
async fn what_a_container_used_is_read_from_prometheus_and_stands_in_the_status_and_on_the_receipt() {
    journey("used", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        // Some scrapes long, for one comes every five seconds.
        journey.task("busy", &["--for", "25"], json!({})).await?;
        let task = journey.until("busy", "Finished", "True", Duration::from_secs(120)).await?;
        let status = &task["status"];
        ensure!(status["usage"]["gpuUtilizationPercent"] == 90, "{}", status["usage"]);
        let uid = task["metadata"]["uid"].as_str().context("a UID")?;
        let write = ["-n", install::NAMESPACE, "exec", "deploy/supercargo-operator", "--", OPERATOR, "books", "receipt", uid];
        let receipt: Value = serde_json::from_str(&kubectl::run(&journey.stage.layout, &write).await?)?;
        ensure!(receipt["digest"] == status["receipt"]["digest"], "{} and {}", receipt["digest"], status["receipt"]);
        let metered = &receipt["body"]["charges"][0]["metered"];
        ensure!(metered["used"]["shows"] != "Nothing" && metered["anomalies"].is_null(), "{metered}");
        let ids = metered["devices"]["ids"].as_array().context("its devices are named")?;
        ensure!(ids.len() == 1 && ids[0].as_str().is_some_and(|id| id.starts_with("GPU-")), "{metered}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_closes_a_namespace_is_as_it_was_seconds_after_somebody_took_it_away_or_opened_it() {
    journey("closed", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("runs", &["--for", "60"], json!({})).await?;
        journey.until("runs", "Started", "True", Duration::from_secs(60)).await?;
        let policy = ["networkpolicy", "supercargo-tasks"];
        let open = json!({ "spec": { "egress": [{}], "ingress": [{}] } }).to_string();
        let meddles = [["delete", policy[0], policy[1]].to_vec(), ["patch", policy[0], policy[1], "--type=merge", "-p", &open].to_vec()];
        for meddle in meddles {
            journey.kubectl(&meddle).await?;
            wait::until(format!("what closes the namespace to be there after a {}", meddle[0]), Duration::from_secs(10), || async {
                let spec = journey.get(policy[0], policy[1]).await?["spec"].take();
                ensure!(spec["egress"].is_null() && spec["ingress"].is_null(), "{spec}");
                ensure!(spec["policyTypes"] == json!(["Ingress", "Egress"]), "{spec}");
                Ok(Some(()))
            })
            .await?;
        }
        journey.kubectl(&["delete", "computetask", "runs", "--wait=false"]).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_task_that_outgrows_its_disk_is_evicted_and_that_is_its_own_fault() {
    journey("fills", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let small = json!({ "resources": { "ephemeralStorage": "64Mi", "memory": "128Mi" } });
        journey.task("greedy", &["--fill", "200000000", "--for", "200"], small).await?;
        let task = journey.until("greedy", "Finished", "True", Duration::from_secs(150)).await?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(attempts.len() == 1, "whose fault it is gets no further attempt: {attempts:?}");
        ensure!(attempts[0]["outcome"] == "Failed", "{}", attempts[0]);
        let succeeded = condition_of(&task, "Succeeded").context("Succeeded")?;
        ensure!(succeeded["status"] == "False", "{succeeded}");
        let events = journey.kubectl(&["get", "events", "-o", "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}"]).await?;
        ensure!(events.lines().any(|line| line.starts_with("Evicted") && line.contains("ephemeral")), "the kubelet evicted it: {events}");
        Ok(())
    })
    .await;
}
