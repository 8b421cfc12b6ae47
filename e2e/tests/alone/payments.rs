//! What a provider has earned is paid once: when the operator is killed again and again, and when it is gone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use supercargo_contracts::{B256, BlockId, Chain, Vouchers};
use supercargo_e2e::bill::amount;
use supercargo_e2e::chain_setup::Person;
use supercargo_e2e::journey::{Journey, Stage, alone, condition_of};
use supercargo_e2e::people;
use supercargo_e2e::{http, install, kubectl, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

#[tokio::test]
async fn a_task_is_paid_on_the_chain_once_though_the_operator_is_killed_again_and_again() {
    alone("pays", |journey| async move {
        let payee = journey.pool().await?;
        let account = journey.funded(20).await?;
        journey.task("paid", &["--for", "6"], json!({})).await?;
        let kill = || async {
            kubectl::run(
                &journey.stage.layout,
                &["-n", "supercargo", "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--grace-period=0", "--force"],
            )
            .await
        };
        journey.until("paid", "Started", "True", Duration::from_secs(60)).await?;
        kill().await?;
        journey.container("paid").await?;
        kill().await?;
        let task = journey.finished("paid").await?;
        kill().await?;
        let task_cost = amount(&task["status"]["cost"]["charged"])?;
        let settled = until_settled(&journey, "paid").await?;
        ensure!(amount(&settled["status"]["cost"]["settled"])? == task_cost, "what was charged is what was settled");

        let chain = Chain::connect(&journey.stage.info.chain_url)?;
        let contract = journey.stage.market.addresses.escrow;
        let mut credited = 0;
        for payee in journey.stage.market.fee_payees.iter().chain([&payee]) {
            credited += chain.lane(contract, account, *payee, BlockId::latest()).await?.posted_units;
        }
        ensure!(credited == u128::from(task_cost.units()), "the lanes say {credited}, and {} were charged", task_cost.units());
        let left = chain.account(contract, account, BlockId::latest()).await?.balance_units;
        ensure!(left == 20_000_000 - credited, "the account has {left} left");

        // Of one that is left alone: its pod and its finalizer, its start and its end, and one write more for the payment.
        journey.task("alone", &["--for", "6"], json!({})).await?;
        journey.finished("alone").await?;
        journey.freed("alone").await?;
        until_settled(&journey, "alone").await?;
        let writes = journey.operator_writes("alone")?;
        let told = writes.iter().filter(|write| *write == "patch computetasks/status").count();
        ensure!(told <= 3 && writes.len() <= 5, "the operator wrote {writes:?}");
        Ok(())
    })
    .await;
}

/// The task, when its status says that its cost is paid, and by which transaction.
async fn until_settled(journey: &Journey, task: &str) -> Result<Value> {
    wait::until(format!("the cost of {task} to be settled"), Duration::from_secs(120), || async {
        let task = journey.get("computetask", task).await?;
        let cost = &task["status"]["cost"];
        Ok((cost["transaction"].is_string() && cost["settled"] == cost["charged"]).then_some(task))
    })
    .await
}

#[tokio::test]
async fn what_was_earned_is_claimed_by_voucher_when_the_operator_is_gone_and_paid_once() {
    alone("claims", |journey| async move {
        let payee = journey.pool().await?;
        let id = journey.funded(20).await?;
        journey.task("earned", &["--for", "5"], json!({})).await?;
        journey.until("earned", "Started", "True", Duration::from_secs(60)).await?;
        let went = without_gas(&journey, payee, id).await;
        // Whatever became of it, the next journey finds an operator that can pay.
        gas(&journey, "0x21e19e0c9bab2400000").await?;
        replicas(&journey, 1).await?;
        let claimed = went?;
        let task = wait::until("the rest to be settled", Duration::from_secs(120), || async {
            let task = journey.get("computetask", "earned").await?;
            let cost = &task["status"]["cost"];
            Ok((cost["charged"].is_string() && cost["settled"] == cost["charged"]).then_some(task))
        })
        .await?;
        let Stage { info, market, .. } = &journey.stage;
        let chain = Chain::connect(&info.chain_url)?;
        let lane = |payee| chain.lane(market.addresses.escrow, id, payee, BlockId::latest());
        ensure!(lane(payee).await?.posted_units == claimed, "the operator posted what was claimed once more");
        let mut paid = claimed;
        for fee in &market.fee_payees {
            paid += lane(*fee).await?.posted_units;
        }
        let charged = amount(&task["status"]["cost"]["charged"])?.units();
        ensure!(paid == u128::from(charged), "{paid} units were paid of {charged}");
        let escrow = journey.get("escrow", "default").await?;
        ensure!(condition_of(&escrow, "Stalled").is_none_or(|stalled| stalled["status"] == "False"), "{}", escrow["status"]);
        Ok(())
    })
    .await;
}

/// The settler's key has nothing left and the operator goes away: what is claimed then, in units.
async fn without_gas(journey: &Journey, payee: u32, id: B256) -> Result<u128> {
    let Stage { layout, info, market } = &journey.stage;
    gas(journey, "0x0").await?;
    let task = journey.finished("earned").await?;
    let charged = amount(&task["status"]["cost"]["charged"])?.units();
    wait::until("the Escrow to say that there is no gas", Duration::from_secs(60), || async {
        let escrow = journey.get("escrow", "default").await?;
        Ok(condition_of(&escrow, "Stalled").is_some_and(|stalled| stalled["reason"] == "NoGas").then_some(()))
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("vouchers.json").display().to_string();
    let (number, key) = (payee.to_string(), Person::Provider.key_file(layout).display().to_string());
    let signed = ["--rpc", &info.chain_url, "--key-file", &key];
    let (api, _forward) = forward(journey).await?;
    // All but the fee is the provider's.
    let earned = charged - charged / 40 - 3;
    let total = wait::until("the voucher for what was earned", Duration::from_secs(90), || async {
        let pull = ["voucher", "pull", &number, "--api", &api, "--file", &file];
        people::command(info, market, &[&pull[..], &signed].concat()).await?;
        let vouchers: Vouchers = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        let ours = vouchers.vouchers.iter().find(|voucher| voucher.account == id);
        Ok(ours.map(|voucher| voucher.total_units).filter(|total| *total >= earned))
    })
    .await?;
    replicas(journey, 0).await?;
    people::command(info, market, &[&["voucher", "claim", &file, "--send"], &signed[..]].concat()).await?;
    let chain = Chain::connect(&info.chain_url)?;
    let lane = chain.lane(market.addresses.escrow, id, payee, BlockId::latest()).await?;
    ensure!(lane.posted_units == u128::from(total), "{lane:?} after a claim of {total}");
    Ok(lane.posted_units)
}

/// What the settler's key has for gas.
async fn gas(journey: &Journey, wei: &str) -> Result<()> {
    let settler = Person::Settler.signer().address().to_string();
    http::rpc(&journey.stage.info.chain_url, "anvil_setBalance", json!([settler, wei])).await.map(drop)
}

async fn replicas(journey: &Journey, count: u8) -> Result<()> {
    let layout = &journey.stage.layout;
    let to = format!("--replicas={count}");
    kubectl::run(layout, &["-n", install::NAMESPACE, "scale", "deploy/supercargo-operator", &to]).await?;
    wait::until(format!("{count} operators"), Duration::from_secs(60), || async {
        let list = ["-n", install::NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/component=operator", "-o", "json"];
        let pods: Value = serde_json::from_str(&kubectl::run(layout, &list).await?)?;
        Ok(pods["items"].as_array().is_some_and(|pods| pods.len() == usize::from(count)).then_some(()))
    })
    .await
}

/// The operator's API on a port of this machine, for as long as the process is there.
async fn forward(journey: &Journey) -> Result<(String, Child)> {
    let layout = &journey.stage.layout;
    let mut child = Command::new(layout.bin("kube"))
        .args(["kubectl", "--kubeconfig", &layout.kubeconfig("admin").display().to_string()])
        .args(["-n", install::NAMESPACE, "port-forward", "service/supercargo-api", ":8081"])
        .envs(http::direct())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting kubectl port-forward")?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let first = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.context("no port in 20 s")??;
    let first = first.context("kubectl port-forward ended")?;
    let address = first.strip_prefix("Forwarding from ").and_then(|rest| rest.split(" ->").next()).with_context(|| first.clone())?;
    // It writes a line for each connection, and is not to wait for a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((format!("http://{address}"), child))
}
