//! The demo: one task from apply to payment, told in plain words.

use crate::chain_setup::{self, Market, Person};
use crate::cluster::{self, ClusterInfo, Layout};
use crate::harness::figures::{self, Figure};
use crate::people::{self, condition_of, printed};
use crate::{image, install, kubectl, wait};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};
use supercargo_contracts::{B256, BlockId, Chain};
use supercargo_market::money::Amount;

/// Where the demo leaves its task for whoever wants to look at it.
pub const NAMESPACE: &str = "demo";

/// Stages, each with its time.
struct Stages {
    begun: Instant,
    last: Instant,
    /// What `make demo` had to build first.
    built: Duration,
}

impl Stages {
    fn begin() -> Self {
        Self { begun: Instant::now(), last: Instant::now(), built: since_make_began() }
    }

    fn done(&mut self, what: &str) {
        line(self.last.elapsed(), what);
        self.last = Instant::now();
    }

    fn whole(&self) -> Duration {
        self.built + self.begun.elapsed()
    }
}

fn line(took: Duration, what: &str) {
    println!("{:>6.1} s  {what}", took.as_secs_f32());
}

/// Nothing, when it was not `make demo` that started this.
fn since_make_began() -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let began = std::env::var("DEMO_STARTED_NANOSECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_nanos);
    began.map_or(Duration::ZERO, |began| now.saturating_sub(began))
}

pub async fn run(layout: &Layout) -> Result<()> {
    let mut stages = Stages::begin();
    line(stages.built, "everything is built");
    let images = image::write_all(layout)?;
    stages.done("images are written");
    let info = cluster::up(layout).await?;
    stages.done("a cluster of two nodes is up");
    cluster::images::ensure(layout, &info, &images)?;
    stages.done("the nodes have the images");
    let (market, gpus) = tokio::join!(chain_setup::ensure(layout, &info), install::gpus(layout, &info));
    let market = market?;
    gpus?;
    stages.done("the contract is on the chain, and every node has simulated GPUs");
    install::chart(layout, &info, &market, &images[0]).await?;
    stages.done("the chart is installed");
    let payee = people::provider(layout, &info, &market).await?;
    stages.done("a provider sells its nodes");
    let account = buyer(layout, &info, &market).await?;
    stages.done("a buyer has put money into escrow");
    let task = task(layout).await?;
    stages.done("a task has run");
    let paid = wait_for_payment(layout).await?;
    stages.done("its provider is paid on the chain");
    let collected = collect(layout, &info, &market, payee, account).await?;
    stages.done("the provider has collected");
    tell(&task, &paid, &collected, &info)?;
    line(stages.whole(), "in all");
    let targets = std::fs::read_to_string(layout.root.join(figures::TARGETS_FILE)).context("reading the targets")?;
    print!("{}", figures::tell(&figures::targets(&targets)?, &figure(stages.whole())));
    Ok(())
}

/// From the moment that `make demo` began, when it says so.
fn figure(whole: Duration) -> Figure {
    let cold = std::env::var("DEMO_COLD").is_ok_and(|cold| cold == "1");
    let name = if cold { "bedrock.demo_cold" } else { "bedrock.demo_warm" };
    Figure { name: name.to_owned(), value: whole.as_secs() as f64, unit: "s".to_owned() }
}

fn example(layout: &Layout, name: &str) -> Result<String> {
    let path = layout.root.join("e2e/examples").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

async fn get(layout: &Layout, kind: &str, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&kubectl::run(layout, &["-n", NAMESPACE, "get", kind, name, "-o", "json"]).await?)?)
}

/// An account with money, for the Escrow that it applies.
async fn buyer(layout: &Layout, info: &ClusterInfo, market: &Market) -> Result<B256> {
    if get(layout, "escrow", "default").await.is_err() {
        kubectl::apply(layout, &example(layout, "escrow.yaml")?).await?;
    }
    people::account(layout, info, market, NAMESPACE, 25).await
}

/// Applies the task and follows it to its end.
async fn task(layout: &Layout) -> Result<Value> {
    kubectl::run(layout, &["-n", NAMESPACE, "delete", "computetask", "hello-gpu", "--ignore-not-found", "--wait", "--timeout=60s"]).await?;
    kubectl::apply(layout, &example(layout, "task.yaml")?).await?;
    println!("          applied e2e/examples/task.yaml");
    let told = std::cell::RefCell::new(String::new());
    let task = wait::until("the task to finish", Duration::from_secs(120), || async {
        let task = get(layout, "computetask", "hello-gpu").await?;
        let phase = task["status"]["phase"].as_str().unwrap_or("seen by nobody yet").to_owned();
        if *told.borrow() != phase {
            println!("          {phase}");
            told.replace(phase);
        }
        Ok(condition_of(&task, "Finished").is_some().then_some(task))
    })
    .await?;
    if condition_of(&task, "Succeeded").is_none_or(|condition| condition["status"] != "True") {
        bail!("the task did not succeed: {:#}", task["status"]);
    }
    Ok(task)
}

async fn wait_for_payment(layout: &Layout) -> Result<Value> {
    wait::until("the task's cost to be settled", Duration::from_secs(90), || async {
        let task = get(layout, "computetask", "hello-gpu").await?;
        let cost = &task["status"]["cost"];
        Ok((cost["transaction"].is_string() && cost["settled"] == cost["charged"]).then_some(task))
    })
    .await
}

/// What the lane says, and what the provider got out of it.
struct Collected {
    amount: String,
    posted: Amount,
}

async fn collect(layout: &Layout, info: &ClusterInfo, market: &Market, payee: u32, account: B256) -> Result<Collected> {
    let chain = Chain::connect(&info.chain_url)?;
    let lane = wait::until("the dispute window to pass", Duration::from_secs(60), || async {
        let lane = chain.lane(market.addresses.escrow, account, payee, BlockId::latest()).await?;
        Ok((lane.posted_units > 0 && lane.mature_units == lane.posted_units && lane.mature_units > lane.withdrawn_units).then_some(lane))
    })
    .await?;
    let output =
        people::send(layout, info, market, Person::Provider, &["payee", "collect", &payee.to_string(), &account.to_string()]).await?;
    let posted = u64::try_from(lane.posted_units).map(Amount::from_units).context("the lane's total fits an amount")?;
    Ok(Collected { amount: printed(&output, "collected ")?.to_owned(), posted })
}

fn tell(task: &Value, paid: &Value, collected: &Collected, info: &ClusterInfo) -> Result<()> {
    let status = &paid["status"];
    let place = &status["assignments"][0];
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    println!();
    println!("What happened");
    println!("  hello-gpu ran on {} of {}: {}.", text(&place["node"]), text(&place["provider"]), text(&place["because"]));
    println!(
        "  It used {} GPU seconds ({}); the evidence is the container's own record.",
        status["usage"]["gpuSeconds"],
        text(&task["status"]["attempts"][0]["outcome"])
    );
    println!(
        "  It cost {} of its budget of {} {}.",
        text(&status["cost"]["charged"]),
        text(&paid["spec"]["budget"]),
        text(&status["cost"]["token"])
    );
    println!("  Its provider was paid by transaction {}.", text(&status["cost"]["transaction"]));
    println!("  The provider's lane stands at {} in all; it has just collected {}.", collected.posted, collected.amount);
    println!();
    println!("The cluster is still up. Try next:");
    println!("  export KUBECONFIG={}", info.kubeconfig.display());
    println!("  .state/bin/kube kubectl get computetasks,escrows,providernodes -A -o wide");
    println!("  .state/bin/kube kubectl -n demo describe computetask hello-gpu");
    println!("  make down");
    Ok(())
}
