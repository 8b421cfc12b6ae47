//! What buyers and providers do for themselves with `kubectl supercargo`: nothing is sent that was not shown, money comes out
//! only as the contract lets it, and what was earned can be claimed when the operator is gone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use supercargo_contracts::{AccountState, B256, BlockId, Chain, Vouchers};
use supercargo_e2e::bill::amount;
use supercargo_e2e::chain_setup::Person;
use supercargo_e2e::journey::{Journey, Stage, condition_of, journey};
use supercargo_e2e::people::{self, printed};
use supercargo_e2e::{http, install, kubectl, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The buyer's key, with a password and a cost that would not do outside of a test.
const KEYSTORE: &str = r#"{"crypto": {"cipher": "aes-128-ctr", "cipherparams": {"iv": "000102030405060708090a0b0c0d0e0f"},
"ciphertext": "726a05ef0dd970feb5b49ffa498d09c2ac4016a8f7263620fc86fde49f46870b", "kdf": "scrypt", "kdfparams": {"dklen": 32, "n": 1024,
"p": 1, "r": 8, "salt": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
"mac": "3cf75aeaf20969c5d64c176559cb4b257afffc1370af1a5e81b5aa34b6b64a2d"}, "id": "00000000-0000-4000-8000-000000000001", "version": 3}"#;

/// What the chain says of an account now.
async fn account(stage: &Stage, account: B256) -> Result<AccountState> {
    Ok(Chain::connect(&stage.info.chain_url)?.account(stage.market.addresses.escrow, account, BlockId::latest()).await?)
}

/// A command about the journey's Escrow.
async fn escrow(journey: &Journey, words: &str, signed: &[&str]) -> Result<String> {
    let Stage { info, market, .. } = &journey.stage;
    let namespace = journey.namespace.as_str();
    let which = ["-n", namespace, "--salt", namespace, "--rpc", &info.chain_url];
    people::command(info, market, &[&words.split_whitespace().collect::<Vec<_>>(), &which[..], signed].concat()).await
}

#[tokio::test]
async fn a_command_shows_its_transaction_and_sends_it_only_when_asked_to() {
    journey("shown", |journey| async move {
        let id = journey.funded(5).await?;
        let had = account(&journey.stage, id).await?.allowance_units;
        let buyer = Person::Buyer.signer().address().to_string();
        let shown = escrow(&journey, "escrow raise default --allowance 60", &["--from", &buyer]).await?;
        ensure!(shown.contains("not sent"), "{shown}");
        ensure!(account(&journey.stage, id).await?.allowance_units == had, "what was only shown changed something");

        let folder = tempfile::tempdir()?;
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).map(|()| file.display().to_string())
        };
        let keystore = write("keystore.json", KEYSTORE)?;
        let (right, wrong) = (write("password", "a password\n")?, write("wrong", "another\n")?);
        let signed = |password| ["--keystore", keystore.as_str(), "--password-file", password, "--send"];
        let refused = escrow(&journey, "escrow raise default --allowance 60", &signed(&wrong)).await.err().context("a wrong password")?;
        ensure!(format!("{refused:#}").contains("keystore.json"), "{refused:#}");
        let sent = escrow(&journey, "escrow raise default --allowance 60", &signed(&right)).await?;
        ensure!(printed(&shown, "  data")? == printed(&sent, "  data")?, "what is sent is what was shown:\n{shown}\n{sent}");
        ensure!(account(&journey.stage, id).await?.allowance_units == 60_000_000);
        let lower = escrow(&journey, "escrow raise default --allowance 1", &signed(&right)).await.err().context("a lower allowance")?;
        ensure!(format!("{lower:#}").contains("would lower what is allowed now"), "{lower:#}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_thaws_is_offered_to_no_task_and_comes_out_when_it_has_thawed() {
    journey("thaws", |journey| async move {
        let id = journey.funded(5).await?;
        let key = Person::Buyer.key_file(&journey.stage.layout).display().to_string();
        let signed = ["--key-file", key.as_str(), "--send"];
        escrow(&journey, "escrow thaw 2 default", &signed).await?;
        wait::until("the Escrow to tell of the thaw", Duration::from_secs(60), || async {
            let escrow = journey.get("escrow", "default").await?;
            let leaving = condition_of(&escrow, "Leaving").context("the condition Leaving")?;
            ensure!(leaving["status"] == "True", "{leaving}");
            let status = &escrow["status"];
            Ok((status["thawing"] == "2.00" && status["available"] == "3.00").then_some(()))
        })
        .await?;
        let shown = escrow(&journey, "escrow show default", &["--from", &Person::Buyer.signer().address().to_string()]).await?;
        ensure!(printed(&shown, "thawing")? == "2.00" && printed(&shown, "balance")? == "5.00", "{shown}");
        let early = escrow(&journey, "escrow withdraw default", &signed).await.err().context("it thaws for days")?;
        ensure!(format!("{early:#}").contains("thaws until"), "{early:#}");
        ensure!(account(&journey.stage, id).await?.balance_units == 5_000_000);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_was_earned_is_claimed_by_voucher_when_the_operator_is_gone_and_paid_once() {
    journey("claims", |journey| async move {
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
