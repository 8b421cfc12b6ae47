//! What a manifest says of a task's life is so: its limit, its end, its memory and its image.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use supercargo_e2e::bill::{amount, records};
use supercargo_e2e::journey::{condition_of, journey, succeeded};
use supercargo_e2e::sights::{self, Sight, Watch};
use supercargo_e2e::wait;

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether it is this task, or a pod of it.
fn is_of(sight: &Sight, task: &str) -> bool {
    let labels = &sight.object["metadata"]["labels"];
    sight.object["metadata"]["name"] == task || labels["supercargo.dev/task"] == task
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_ends_at_its_limit_is_tidied_in_its_time_and_has_the_memory_and_the_image_that_it_says() {
    journey("lives", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        let mut tasks = Watch::begin(&client, "ComputeTask", Some(&journey.namespace)).await?;
        let shared = json!({ "resources": { "memory": "64Mi", "sharedMemory": "16Mi" } });
        let all = [
            journey.task_object("limit", &["--for", "200"], json!({ "timeLimitSeconds": 3 })),
            journey.task_object("shared", &["--shm", "yes", "--exit", "3"], shared),
            journey.task_object("tidy", &["--for", "1"], json!({ "ttlSecondsAfterFinished": 2 })),
        ];
        journey.apply(json!({ "apiVersion": "v1", "kind": "List", "items": all })).await?;
        let tidied = tidied(&mut tasks).await?;
        let limited = journey.finished("limit").await?;
        let shared = journey.finished("shared").await?;

        // After three that it may run a kubelet takes two more to kill it, and there are whole seconds at both ends.
        let attempt = &limited["status"]["attempts"][0];
        ensure!(condition_of(&limited, "Succeeded").is_some_and(|told| told["reason"] == "TimeLimit"), "{}", limited["status"]);
        ensure!(attempt["outcome"] == "TimeLimit" && (3..=9).contains(&attempt["billedSeconds"].as_u64().unwrap_or_default()), "{attempt}");
        let record = &records(&mut pods)?["limit"][0];
        ensure!(record.seconds.abs_diff(attempt["billedSeconds"].as_u64().context("seconds")?) <= 1, "{record:?} of {attempt}");

        let attempt = &shared["status"]["attempts"][0];
        let said = attempt["message"].as_str().context("what it wrote")?;
        ensure!(said.contains("tmpfs /dev/shm ") && said.contains("size=16384k"), "{said}");
        let pod = journey.pods("shared").await?.pop().context("its pod")?;
        let image = &pod["status"]["containerStatuses"][0]["imageID"];
        ensure!(image.as_str().is_some_and(|image| image.contains("sha256:")), "its node has resolved the image to {image}");
        ensure!(attempt["imageDigest"] == *image && shared["status"]["resolved"]["image"] == *image, "{}", shared["status"]);

        // What is tidied away was paid for, and stays so.
        let mut charged = 0;
        for task in [&limited, &shared, &tidied] {
            charged += amount(&task["status"]["cost"]["charged"])?.units();
        }
        wait::until("the Escrow to add up", PATIENCE, || async {
            let status = journey.get("escrow", "default").await?["status"].take();
            ensure!(status["reserved"] == "0.00" && amount(&status["charged"])?.units() == charged, "{charged} are charged: {status}");
            Ok(Some(()))
        })
        .await
    })
    .await;
}

/// The task as it was last seen: it goes two seconds after its end, and its pod with it.
async fn tidied(tasks: &mut Watch) -> Result<Value> {
    let mut finished = None;
    let (gone, task) = tasks
        .until("the task to be tidied away", PATIENCE, |sight| {
            if is_of(sight, "tidy") && condition_of(&sight.object, "Finished").is_some() {
                finished.get_or_insert(sight.at);
            }
            (is_of(sight, "tidy") && sight.gone).then(|| (sight.at, sight.object.clone()))
        })
        .await?;
    // Whole seconds: the first of them may be nearly over when it is told.
    let kept = gone.saturating_duration_since(finished.context("it was seen to have finished")?);
    ensure!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&kept), "it was kept for {kept:?}");
    ensure!(succeeded(&task), "{}", task["status"]);
    Ok(task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_within_two_seconds_costs_three_writes() {
    journey("quick", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        // On a busy machine a kubelet may be slow to tell of an end: then it took longer, and may have cost one more.
        for turn in 0..3 {
            let task = format!("quick-{turn}");
            journey.task(&task, &[], json!({})).await?;
            let took = took(&mut pods, &task).await?;
            journey.finished(&task).await?;
            journey.freed(&task).await?;
            let writes = journey.operator_writes(&task)?;
            println!("{took:?} from its start to its end: {writes:?}");
            ensure!(writes.len() <= 4, "the operator wrote {writes:?}");
            ensure!(writes.len() == 3 || took > Duration::from_secs(2), "it ended after {took:?}, and the operator wrote {writes:?}");
            if took <= Duration::from_secs(2) {
                println!("figure task.writes_quick {} writes", writes.len());
            }
            if writes.len() == 3 {
                return Ok(());
            }
        }
        anyhow::bail!("none of three ended so soon after its start that three writes told of it")
    })
    .await;
}

/// How long a task's pod was seen to run.
async fn took(pods: &mut Watch, task: &str) -> Result<Duration> {
    let mut begun: Option<Instant> = None;
    pods.until("its container to end", PATIENCE, |sight| {
        let phase = sight.object["status"]["phase"].as_str().filter(|_| is_of(sight, task))?;
        match phase {
            "Running" => {
                begun.get_or_insert(sight.at);
                None
            }
            "Succeeded" => Some(begun.map_or(Duration::ZERO, |begun| sight.at - begun)),
            _ => None,
        }
    })
    .await
}
