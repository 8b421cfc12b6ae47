//! People at the command line: `kubectl supercargo` as the buyer or the provider would run it.

use crate::chain_setup::{self, Market, Person, SENDING};
use crate::cluster::{ClusterInfo, Layout};
use crate::{image, kubectl, wait};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::Duration;
use supercargo_contracts::{Address, B256, BlockId, Chain, account_id, keccak256};
use tokio::process::Command;
use tokio::sync::Mutex;

/// Runs a command that sends a transaction, and gives back what it printed.
pub async fn send(layout: &Layout, info: &ClusterInfo, market: &Market, person: Person, args: &[&str]) -> Result<String> {
    let key = person.key_file(layout).display().to_string();
    command(info, market, &[args, &["--rpc", &info.chain_url, "--send", "--key-file", &key]].concat()).await
}

/// Has a receipt checked, by itself and against the chain, and gives back what was printed.
pub async fn check(info: &ClusterInfo, market: &Market, receipt: &str, args: &[&str]) -> Result<String> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let file = folder.path().join("receipt.json");
    std::fs::write(&file, receipt).with_context(|| format!("writing {}", file.display()))?;
    command(info, market, &[&["receipt", "verify", &file.display().to_string(), "--rpc", &info.chain_url], args].concat()).await
}

/// Runs a command as it is written, from the same build as the image.
pub async fn command(info: &ClusterInfo, market: &Market, args: &[&str]) -> Result<String> {
    let sends = args.contains(&"--send");
    let _one_at_a_time = if sends { Some(SENDING.lock().await) } else { None };
    let output = Command::new(image::beside()?.join("kubectl-supercargo"))
        .args(args)
        .envs(crate::http::direct())
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

static REGISTERING: Mutex<()> = Mutex::const_new(());

/// A provider that sells every node of the cluster, and the number that it is paid under. It registers once: the number is
/// written down, and believed while the chain says that it is the provider's.
pub async fn provider(layout: &Layout, info: &ClusterInfo, market: &Market) -> Result<u32> {
    let _one_at_a_time = REGISTERING.lock().await;
    let file = layout.cluster().join("payee");
    let known = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let chain = Chain::connect(&info.chain_url)?;
    let owned = match known {
        Some(payee) => chain.payee(market.addresses.escrow, payee).await?.0 == Person::Provider.signer().address(),
        None => false,
    };
    let payee = match known.filter(|_| owned) {
        Some(payee) => payee,
        None => {
            let output = send(layout, info, market, Person::Provider, &["payee", "register"]).await?;
            let payee = printed(&output, "payee ")?;
            std::fs::write(&file, payee).context("writing the payee's number down")?;
            payee.parse().context("reading the payee's number")?
        }
    };
    let example = layout.root.join("e2e/examples/provider.yaml");
    let manifest = std::fs::read_to_string(&example).with_context(|| format!("reading {}", example.display()))?;
    kubectl::apply(layout, &manifest.replace("payee: 4", &format!("payee: {payee}"))).await?;
    wait::until("both nodes to be on offer", Duration::from_secs(60), || async {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let listed = kubectl::run(layout, &["get", "providernodes", "-o", path]).await?;
        Ok((listed.split_whitespace().filter(|status| *status == "True").count() == info.nodes.len()).then_some(()))
    })
    .await?;
    Ok(payee)
}

/// Opens, binds and fills the buyer's account for the Escrow `default` of a namespace, and waits until it is Ready. Each step
/// is taken only if the chain says that it is not done yet, so that one that was cut off goes on where it stopped.
pub async fn account(layout: &Layout, info: &ClusterInfo, market: &Market, namespace: &str, deposit: u32) -> Result<B256> {
    let escrow = || async {
        let text = kubectl::run(layout, &["-n", namespace, "get", "escrow", "default", "-o", "json"]).await?;
        Ok::<Value, anyhow::Error>(serde_json::from_str(&text)?)
    };
    let named = wait::until("the Escrow to name its tenant", Duration::from_secs(30), || async {
        let escrow = escrow().await?;
        Ok((escrow["status"]["tenant"].is_string() && escrow["status"]["contract"].is_string()).then_some(escrow))
    })
    .await?;
    let chain = Chain::connect(&info.chain_url)?;
    let (contract, payer) = (market.addresses.escrow, Person::Buyer.signer().address());
    let account = account_id(info.chain_id, contract, payer, keccak256(namespace.as_bytes()));
    let buyer = |words: String| async move {
        let mut all: Vec<&str> = words.split_whitespace().collect();
        all.extend(["-n", namespace, "--salt", namespace]);
        send(layout, info, market, Person::Buyer, &all).await.map(drop)
    };
    let state = chain.account(contract, account, BlockId::latest()).await?;
    if state.payer == Address::ZERO {
        buyer("escrow open default --allowance 50 --burst 50 --per-hour 3600".to_owned()).await?;
    }
    if named["spec"]["accountId"].is_null() {
        let patch = json!({ "spec": { "accountId": account.to_string() } }).to_string();
        kubectl::run(layout, &["-n", namespace, "patch", "escrow", "default", "--type=merge", "-p", &patch]).await?;
    }
    if state.tenant == B256::ZERO {
        buyer("escrow bind default".to_owned()).await?;
    }
    if state.balance_units == 0 {
        chain_setup::mint(info, market, Person::Buyer, u64::from(deposit) * 1_000_000).await?;
        buyer(format!("escrow deposit {deposit} default")).await?;
    }
    wait::until("the Escrow to be Ready", Duration::from_secs(60), || async {
        Ok(condition_of(&escrow().await?, "Ready").is_some_and(|ready| ready["status"] == "True").then_some(()))
    })
    .await?;
    Ok(account)
}

/// A condition of an object's status.
pub fn condition_of<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
