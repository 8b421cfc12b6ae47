//! The demo, as anybody runs it: what it says has happened is held against the cluster, the container's record, containerd's own
//! times and the chain.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use supercargo_contracts::{BlockId, Chain, account_id, keccak256};
use supercargo_e2e::bill::{Share, amount, seconds};
use supercargo_e2e::chain_setup::Person;
use supercargo_e2e::demo::NAMESPACE;
use supercargo_e2e::explain::explained;
use supercargo_e2e::journey::{Stage, succeeded};
use supercargo_e2e::people::printed;
use supercargo_e2e::truth::Truth;
use supercargo_e2e::{http, install, kubectl, people};
use supercargo_market::money::Amount;
use tokio::process::Command;

const OPERATOR: &str = "/usr/local/bin/supercargo-operator";
const PATIENCE: Duration = Duration::from_secs(300);
/// What e2e/examples/task.yaml asks for.
const SHARE: Share = Share { gpus: 1, cpu_millis: 100, memory_mebibytes: 64 };
/// In the order in which they are told, each with the time that it took.
const STAGES: [&str; 10] = [
    "images are written",
    "a cluster of two nodes is up",
    "the nodes have the images",
    "the contract is on the chain, and every node has simulated GPUs",
    "the chart is installed",
    "a provider sells its nodes",
    "a buyer has put money into escrow",
    "a task has run",
    "its provider is paid on the chain",
    "the provider has collected",
];

#[tokio::test]
async fn the_demo_tells_what_happened_and_it_is_so() {
    let stage = Stage::ready().await.expect("the cluster comes up");
    explained(&stage.layout, &[NAMESPACE], told_and_so(&stage)).await.expect("the demo is right");
}

async fn told_and_so(stage: &Stage) -> Result<()> {
    // Before its task starts.
    let truth = Truth::begin(&stage.layout, &stage.info).await?;
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).current_dir(&stage.layout.root).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.context("waited 300 s for the demo")?.context("starting the demo")?;
    let (told, took) = (String::from_utf8_lossy(&output.stdout).into_owned(), begun.elapsed());
    ensure!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    holds(stage, &told, took, &truth).await.with_context(|| format!("the demo said:\n{told}"))
}

async fn holds(stage: &Stage, told: &str, took: Duration, truth: &Truth) -> Result<()> {
    stages_take_no_longer_than_all(told, took)?;
    ensure!(told.lines().any(|line| line.starts_with("figure bedrock.demo_")), "how long it took is a figure");
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    let told = lines.join("\n");

    let get = |kind: &'static str, name: String| async move {
        let text = kubectl::run(&stage.layout, &["-n", NAMESPACE, "get", kind, &name, "-o", "json"]).await?;
        Ok::<Value, anyhow::Error>(serde_json::from_str(&text)?)
    };
    let task = get("computetask", "hello-gpu".to_owned()).await?;
    let status = &task["status"];
    let place = &status["assignments"][0];
    let pod = get("pod", place["pod"].as_str().context("it has a pod")?.to_owned()).await?;
    let record = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(succeeded(&task) && record["exitCode"] == 0, "{status}");

    let (node, because) = (pod["spec"]["nodeName"].as_str().context("a node")?, place["because"].as_str().context("a reason")?);
    ensure!(!because.is_empty(), "it says why the task went there");
    ensure!(printed(&told, "hello-gpu ran on ")? == format!("{node} of acme: {because}."), "it ran on {node}, since {because}");

    let ran = seconds(record)?;
    ensure!(ran >= 8, "it was to run for eight seconds, and ran for {ran}");
    ensure!(
        printed(&told, "It used ")?.starts_with(&format!("{ran} GPU seconds (Succeeded);")),
        "its container ran for {ran} s on one GPU"
    );

    let (cost, rest) = printed(&told, "It cost ")?.split_once(' ').context("a cost")?;
    ensure!(rest == "of its budget of 0.50 USDC.", "{rest}");
    let charged = amount(&json!(cost))?.units();
    ensure!(charged.abs_diff(SHARE.units(ran)) <= 1, "{ran} s cost {} millionths, and it says {cost}", SHARE.units(ran));
    // By another way than the kubelet's record: by what containerd itself saw of it.
    let life = truth.of(&pod["status"]["containerStatuses"][0]["containerID"]).await?;
    let due = SHARE.units_to_the_nanosecond(life.nanoseconds()?);
    ensure!(charged.abs_diff(due) <= SHARE.units(1) + 1, "{life:?} costs {due} millionths, and it says {cost}");
    ensure!(status["cost"]["settled"] == cost, "what it cost is what was settled: {}", status["cost"]);

    let transaction = printed(&told, "Its provider was paid by transaction ")?.trim_end_matches('.');
    is_on_the_chain(stage, transaction).await?;
    its_receipt_holds(stage, &task, transaction).await?;
    let lane = printed(&told, "The provider's lane stands at ")?;
    let posted: Amount = lane.split_once(' ').context("a total")?.0.parse()?;
    is_the_lanes_total(stage, posted).await
}

/// Each stage is told once, in order, and together they are no longer than the whole.
fn stages_take_no_longer_than_all(told: &str, took: Duration) -> Result<()> {
    let staged = |line: &str| -> Option<(f64, &'static str)> {
        let (time, what) = line.split_once(" s  ")?;
        let stage = STAGES.into_iter().find(|stage| *stage == what)?;
        Some((time.trim().parse().ok()?, stage))
    };
    let found: Vec<(f64, &str)> = told.lines().filter_map(staged).collect();
    let names: Vec<&str> = found.iter().map(|(_, stage)| *stage).collect();
    ensure!(names == STAGES, "these stages were told: {names:?}");
    let sum: f64 = found.iter().map(|(seconds, _)| seconds).sum();
    // Each is told to a tenth of a second.
    ensure!(sum <= took.as_secs_f64() + 0.5, "stages of {sum:.1} s in {:.1} s", took.as_secs_f64());
    let of = |stage: &str| found.iter().find(|(_, name)| *name == stage).map_or(0.0, |(seconds, _)| *seconds);
    ensure!(of("a task has run") >= 8.0, "a task of eight seconds ran in {:.1} s", of("a task has run"));
    Ok(())
}

/// The chain itself is asked, and not by the crate that sent the transaction.
async fn is_on_the_chain(stage: &Stage, transaction: &str) -> Result<()> {
    let digits = transaction.strip_prefix("0x").context("a hash begins with 0x")?;
    ensure!(digits.len() == 64 && digits.chars().all(|digit| digit.is_ascii_hexdigit()), "{transaction} is no hash");
    let receipt = http::rpc(&stage.info.chain_url, "eth_getTransactionReceipt", json!([transaction])).await?;
    ensure!(receipt["status"] == "0x1", "the transaction went through: {receipt}");
    let contract = stage.market.addresses.escrow.to_string();
    ensure!(receipt["to"].as_str().is_some_and(|to| to.eq_ignore_ascii_case(&contract)), "it went to {contract}: {receipt}");
    Ok(())
}

/// The operator writes it, and the buyer's own command checks it: by itself, against the status and on the chain.
async fn its_receipt_holds(stage: &Stage, task: &Value, transaction: &str) -> Result<()> {
    let told = &task["status"]["receipt"];
    ensure!(told["transaction"] == transaction, "the status says where it is on the chain: {told}");
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"));
    let (uid, digest, root) = (text(&task["metadata"]["uid"])?, text(&told["digest"])?, text(&told["root"])?);
    let write = ["-n", install::NAMESPACE, "exec", "deploy/supercargo-operator", "--", OPERATOR, "books", "receipt", &uid];
    let receipt = kubectl::run(&stage.layout, &write).await?;
    let checked = people::check(&stage.info, &stage.market, &receipt, &["--digest", &digest, "--root", &root]).await?;
    let lines = ["every charge follows from its card", "every charge is in the journal, every charge is signed, by 0x"];
    let posted = format!("root {root} was posted by {transaction} in block ");
    for line in lines.into_iter().chain([posted.as_str()]) {
        ensure!(checked.lines().any(|printed| printed.trim().starts_with(line)), "{line:?} is missing in:\n{checked}");
    }
    Ok(())
}

async fn is_the_lanes_total(stage: &Stage, posted: Amount) -> Result<()> {
    let (info, contract) = (&stage.info, stage.market.addresses.escrow);
    let payee = people::provider(&stage.layout, info, &stage.market).await?;
    let account = account_id(info.chain_id, contract, Person::Buyer.signer().address(), keccak256(NAMESPACE.as_bytes()));
    let lane = Chain::connect(&info.chain_url)?.lane(contract, account, payee, BlockId::latest()).await?;
    ensure!(lane.posted_units == u128::from(posted.units()), "{} is on the lane, and it says {posted}", lane.posted_units);
    ensure!(
        lane.withdrawn_units == lane.posted_units,
        "the provider has collected all of it: {} of {}",
        lane.withdrawn_units,
        lane.posted_units
    );
    Ok(())
}
