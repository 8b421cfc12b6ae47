//! Journeys of tasks through a real cluster: from apply to the end of the money.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_e2e::bill::{amount, records, second, seconds, units};
use supercargo_e2e::gpus::devices::Devices;
use supercargo_e2e::journey::{Journey, condition_of, holds, journey, succeeded};
use supercargo_e2e::sights::{self, Watch};
use supercargo_e2e::wait;
use supercargo_market::money::Amount;

#[tokio::test]
async fn a_task_is_placed_run_and_charged_for_what_its_container_ran() {
    journey("runs", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("train", &["--for", "5"], json!({})).await?;
        let task = journey.finished("train").await?;
        let record = journey.container("train").await?;
        ensure!(condition_of(&task, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "it succeeded");

        // By another way than the operator's: price times seconds, in millionths.
        let ran = seconds(&record)?;
        let expected = units(ran);
        let charged = amount(&task["status"]["cost"]["charged"])?;
        ensure!(charged.units().abs_diff(expected) <= 1, "{ran} s cost {expected} millionths, and {} were charged", charged.units());
        ensure!(task["status"]["usage"]["gpuSeconds"] == ran, "GPU seconds are {}", task["status"]["usage"]["gpuSeconds"]);
        ensure!(task["status"]["attempts"][0]["evidence"] == "Record", "the evidence is the container's record");
        ensure!(task["status"]["cost"]["settled"] == task["status"]["cost"]["charged"], "a grant is settled at once");

        journey.freed("train").await?;
        let writes = journey.operator_writes("train")?;
        println!("figure task.writes {} writes", writes.len());
        ensure!(writes.len() <= 4, "the operator wrote {writes:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_task_that_fails_tells_its_exit_code_and_what_it_said() {
    journey("fails", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.task("broken", &["--say", "no such dataset", "--exit", "3"], json!({ "retries": 1 })).await?;
        let task = journey.finished("broken").await?;
        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        ensure!(attempts.len() == 2, "one retry: {attempts:?}");
        for attempt in attempts {
            ensure!(attempt["exitCode"] == 3 && attempt["outcome"] == "Failed", "{attempt}");
            ensure!(attempt["message"].as_str().is_some_and(|words| words.contains("no such dataset")), "{attempt}");
        }
        holds(&condition_of(&task, "Succeeded").context("Succeeded")?["message"], "it ended with exit code 3")
    })
    .await;
}

#[tokio::test]
async fn a_task_is_told_in_a_file_that_half_of_its_budget_is_used_and_an_event_says_so() {
    journey("budget", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        // It pays for 60 s, and 55 may be needed: the time limit, a second of grace and ten to kill it. What the container wrote is shown of one that fails.
        let budget = Amount::from_units(units(60)).to_string();
        let change = json!({ "budget": budget, "timeLimitSeconds": 44 });
        journey.task("heeds", &["--for", "200", "--heed", "yes", "--exit", "3"], change).await?;
        let task = journey.finished("heeds").await?;
        let attempt = &task["status"]["attempts"][0];
        ensure!(attempt["exitCode"] == 3, "it ended by itself, told by the file: {attempt}");
        let message = attempt["message"].as_str().context("what it wrote")?;
        ensure!(message.contains("usedPercent=50\n") && message.contains(&format!("budget={budget}\n")), "{message}");
        let ran = attempt["billedSeconds"].as_i64().context("seconds")?;
        ensure!((30..44).contains(&ran), "half of the budget is used after 30 s, and it ran {ran} s");
        let charged = amount(&task["status"]["cost"]["charged"])?.units();
        ensure!(charged >= units(30) && charged <= units(60), "{charged} millionths were charged");

        let events: Value = serde_json::from_str(&journey.kubectl(&["get", "events", "-o", "json"]).await?)?;
        let marks: Vec<&Value> = events["items"].as_array().into_iter().flatten().filter(|event| event["reason"] == "BudgetMark").collect();
        ensure!(marks.len() == 1 && marks[0].to_string().contains("50 % of the budget is used"), "{marks:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_task_is_charged_for_what_it_ran_and_gives_the_rest_back() {
    journey("cancels", |journey| async move {
        journey.pool().await?;
        // 0.18 is held back for a task: what its time limit costs. So the grant is for one, and the second can't begin before
        // the first gives back what it did not use.
        journey.grant("0.30").await?;
        journey.task("long", &["--for", "200"], json!({})).await?;
        journey.until("long", "Started", "True", Duration::from_secs(60)).await?;
        journey.task("next", &["--for", "1"], json!({})).await?;
        wait::until("the second task to lack the money", Duration::from_secs(20), || async {
            Ok((journey.get("computetask", "next").await?["status"]["reason"] == "EscrowTooLow").then_some(()))
        })
        .await?;
        journey.kubectl(&["delete", "computetask", "long", "--wait=false"]).await?;
        let next = journey.finished("next").await?;
        ensure!(condition_of(&next, "Succeeded").is_some_and(|condition| condition["status"] == "True"), "{}", next["status"]);

        // The books show both: whatever is not free any more was charged, and not all of it to the second task.
        let money = |units: u64| Amount::from_units(units).to_string();
        let second = amount(&next["status"]["cost"]["charged"])?.units();
        let (charged, available) = wait::until("the Escrow to hold nothing back", Duration::from_secs(90), || async {
            let status = journey.get("escrow", "default").await?["status"].take();
            let units = |name: &str| -> Result<u64> { Ok(amount(&status[name]).with_context(|| format!("{name} in {status}"))?.units()) };
            let (reserved, charged) = (units("reserved")?, units("charged")?);
            // A status is written a moment after the books: the second task's charge may not be in it yet.
            Ok((reserved == 0 && charged > second).then_some((charged, units("available")?)))
        })
        .await?;
        ensure!(charged + available == 300_000, "{} charged and {} free are not the 0.30 granted", money(charged), money(available));
        // A GPU hour is 2.10: what ran for less than a minute can't have cost 0.05.
        ensure!(charged - second < 50_000, "the cancelled task was charged {}", money(charged - second));
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_task_costs_nothing_until_it_goes_on_in_another_attempt() {
    journey("rests", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let client = sights::client(&journey.stage.info).await?;
        let mut pods = Watch::begin(&client, "Pod", Some(&journey.namespace)).await?;
        journey.task("rests", &["--for", "8"], json!({})).await?;
        let task = journey.until("rests", "Started", "True", Duration::from_secs(60)).await?;
        let node = task["status"]["assignments"][0]["node"].as_str().context("a node")?.to_owned();
        journey.change("computetask", "rests", json!({ "suspend": true })).await?;
        let charged = rests(&journey).await?;
        // The next attempt can only begin so much later.
        journey.spoken(&node, jiff::Timestamp::now().as_second() + 3).await?;
        ensure!(rests(&journey).await? == charged, "it costs something while it rests");
        journey.change("computetask", "rests", json!({ "suspend": false })).await?;
        let task = journey.finished("rests").await?;

        let attempts = task["status"]["attempts"].as_array().context("attempts")?;
        let outcomes: Vec<&Value> = attempts.iter().map(|attempt| &attempt["outcome"]).collect();
        ensure!(succeeded(&task) && outcomes == ["Suspended", "Succeeded"], "{}", task["status"]);
        let records = records(&mut pods)?;
        let records = records.get("rests").map_or(&[][..], Vec::as_slice);
        let [before, after] = records else { anyhow::bail!("two pods left records: {records:?}") };
        ensure!(after.started - before.finished >= 3, "it was to rest for seconds: {records:?}");
        for (attempt, record) in attempts.iter().zip(records) {
            let billed = attempt["billedSeconds"].as_u64().context("seconds")?;
            ensure!(billed.abs_diff(record.seconds) <= 1, "{billed} s are billed of {record:?}");
        }
        let sum = attempts.iter().filter_map(|attempt| attempt["billedSeconds"].as_u64()).sum();
        let charged = amount(&task["status"]["cost"]["charged"])?.units();
        ensure!(charged.abs_diff(units(sum)) <= 1, "{charged} millionths are charged for {sum} s");
        ensure!(task["status"]["usage"]["seconds"] == sum, "{}", task["status"]["usage"]);
        Ok(())
    })
    .await;
}

/// Waits until nothing of the suspended task runs and nothing is held back for it; gives back what it has cost.
async fn rests(journey: &Journey) -> Result<Value> {
    wait::until("the task to rest", Duration::from_secs(30), || async {
        let task = journey.get("computetask", "rests").await?;
        ensure!(task["status"]["attempts"][0]["outcome"] == "Suspended" && task["status"]["phase"] == "Suspended", "{}", task["status"]);
        let mut escrow = journey.get("escrow", "default").await?["status"].take();
        ensure!(escrow["reserved"] == "0.00" && escrow["charged"] != "0.00", "{escrow}");
        ensure!(journey.pods("rests").await?.is_empty(), "a pod is left");
        Ok(Some(escrow["charged"].take()))
    })
    .await
}

#[tokio::test]
async fn a_task_that_finds_no_place_in_its_time_fails_in_words_and_costs_nothing() {
    journey("queues", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        let never = json!({ "queueTimeoutSeconds": 4, "resources": { "gpu": { "models": ["B200"] } } });
        journey.task("late", &[], never).await?;
        let task = journey.finished("late").await?;
        let told = condition_of(&task, "Succeeded").context("Succeeded")?;
        ensure!(told["status"] == "False" && told["reason"] == "QueueTimeout", "{told}");
        holds(&told["message"], "it found no place within 4 s")?;
        let finished = condition_of(&task, "Finished").context("Finished")?;
        let took = second(&finished["lastTransitionTime"])? - second(&task["metadata"]["creationTimestamp"])?;
        // Whole seconds, and a reason may take five to be told.
        ensure!((4..=9).contains(&took), "it was given up after {took} s");
        ensure!(task["status"]["attempts"][0].is_null() && journey.pods("late").await?.is_empty(), "{}", task["status"]);
        let escrow = journey.get("escrow", "default").await?["status"].take();
        ensure!(escrow["reserved"] == "0.00" && escrow["charged"] == "0.00", "{escrow}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_task_waits_for_a_limit_of_the_day_and_a_grant_falls_no_further_than_what_is_spent() {
    journey("limits", |journey| async move {
        journey.pool().await?;
        journey.grant("10").await?;
        journey.change("escrow", "default", json!({ "dailyLimit": "0.000001" })).await?;
        wait::until("the limit to be seen", Duration::from_secs(30), || async {
            let escrow = journey.get("escrow", "default").await?;
            Ok((escrow["status"]["observedGeneration"] == escrow["metadata"]["generation"]).then_some(()))
        })
        .await?;
        journey.task("limited", &["--for", "2"], json!({})).await?;
        wait::until("the task to wait for the limit", Duration::from_secs(30), || async {
            let waiting = journey.get("computetask", "limited").await?["status"]["waiting"][0].take();
            ensure!(waiting["reason"] == "DailyLimit", "{waiting}");
            let example = waiting["example"].as_str().context("an example")?;
            ensure!(example.contains("the Escrow's dailyLimit is 0.000001"), "{waiting}");
            Ok(Some(()))
        })
        .await?;
        journey.change("escrow", "default", json!({ "dailyLimit": null })).await?;
        let task = journey.finished("limited").await?;
        ensure!(succeeded(&task), "{}", task["status"]);

        journey.change("escrow", "default", json!({ "grant": "0" })).await?;
        let charged = &task["status"]["cost"]["charged"];
        wait::until("the grant to fall to what is spent", Duration::from_secs(30), || async {
            let status = journey.get("escrow", "default").await?["status"].take();
            ensure!(status["available"] == "0.00" && status["charged"] == *charged && status["deposited"] == "10.00", "{status}");
            let gone = amount(&status["withdrawn"])?.units() + amount(charged)?.units();
            ensure!(gone == 10_000_000, "{status}");
            Ok(Some(()))
        })
        .await
    })
    .await;
}

/// What the simulator claims of its devices, asked of the driver of a real one. Tasks on real GPUs need a node with NVIDIA's
/// own device plugin, and are not run here.
#[test]
fn this_machines_own_gpus_are_named_as_the_simulated_ones_are() {
    if !std::path::Path::new("/dev/nvidia0").exists() {
        println!("skipped: this machine has no NVIDIA GPU to compare the simulated ones with");
        return;
    }
    let query = ["--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"];
    let listed = std::process::Command::new("nvidia-smi").args(query).output().expect("nvidia-smi starts");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && !text.trim().is_empty(), "{text}{}", String::from_utf8_lossy(&listed.stderr));
    let shape =
        |uuid: &str| uuid.chars().map(|c| if c.is_ascii_hexdigit() && !c.is_ascii_uppercase() { 'x' } else { c }).collect::<String>();
    let simulated = &Devices::describe("node", "nvidia.com/gpu=1").expect("described").of("nvidia.com/gpu")[0];
    for line in text.lines() {
        let fields: Vec<&str> = line.split(", ").collect();
        let [uuid, name, memory] = fields.as_slice() else { panic!("{line:?} has three fields") };
        assert_eq!(shape(uuid), shape(&simulated.uuid), "{uuid} and {}", simulated.uuid);
        // GPU feature discovery puts the name on the node with dashes, and a pool asks for it in that form.
        let label = name.replace(' ', "-");
        assert!(label.starts_with("NVIDIA-") && label.len() <= 63, "{label}");
        assert!(memory.parse::<u64>().is_ok_and(|mebibytes| mebibytes > 1_000), "{memory} MiB");
    }
}
