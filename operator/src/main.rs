//! `supercargo-operator`: reads its configuration, joins the rooms together and runs until it is told to stop.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use supercargo_crds::validate::Range;
use supercargo_ledger::Ledger;
use supercargo_operator::api::{self, Api, Cluster};
use supercargo_operator::books;
use supercargo_operator::effect::Hands;
use supercargo_operator::engine::{self, Joints};
use supercargo_operator::metering::Prometheus;
use supercargo_operator::plan::network::NetworkTerms;
use supercargo_operator::plan::usage::UsageTerms;
use supercargo_operator::plan::{ChainTerms, Terms};
use supercargo_operator::runtime::config::ChainConfig;
use supercargo_operator::runtime::{self, Config, lease, telemetry};
use supercargo_operator::settlement::{self, Owners, Settler};
use supercargo_operator::watch;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(version, about = "Places, meters and pays ComputeTasks")]
struct Arguments {
    /// The configuration file
    #[arg(long, default_value = "/etc/supercargo/config.yaml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Checks, copies and restores the books
    Books {
        /// Where the books are; the configuration's by default
        #[arg(long)]
        url: Option<String>,
        #[command(subcommand)]
        command: books::Command,
    },
}

fn main() -> ExitCode {
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    telemetry::logs();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Arguments { config, command } = arguments;
    let done = runtime.block_on(async {
        match command {
            None => run(&config).await,
            Some(Command::Books { url, command }) => books::run(&config, url, command).await.map(|told| println!("{told}")),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Path) -> Result<()> {
    let config = Config::read(config)?;
    let metrics = telemetry::Metrics::new().context("making metrics")?;
    let ledger = match config.database.key()? {
        Some(key) => Ledger::open_signed(&config.database.url, key).await?,
        None => {
            tracing::warn!("nobody signs the journal: database.keyFile is not given");
            Ledger::open(&config.database.url).await?
        }
    };
    let api_server = kube::Config::infer().await.context("finding the API server")?;
    let client = runtime::client(api_server).context("reaching the API server")?;
    let identity = identity();
    let stop = CancellationToken::new();

    let server = tokio::spawn(telemetry::serve(config.listen, metrics.clone(), stop.clone()));
    let (leads_out, leads) = channel::channel(false);
    let leader = tokio::spawn(lease::run(client.clone(), config.lease.clone(), identity.clone(), leads_out, stop.clone()));
    let (news_out, news) = mpsc::channel(4_096);
    watch::start(&client, &news_out);
    let (fence_out, fence) = channel::channel(None);
    let (accounts_out, accounts) = channel::channel(Vec::new());
    let owners = Owners::default();
    let mut desks = JoinSet::new();
    for chain in &config.chains {
        let settler = Settler {
            ledger: ledger.clone(),
            settings: config.settlement.clone(),
            fence: fence.clone(),
            accounts: accounts.clone(),
            news: news_out.clone(),
            owners: owners.clone(),
            fee_payees: config.fees.shares.iter().filter(|_| config.fees.basis_points > 0).map(|share| share.payee).collect(),
            metrics: metrics.clone(),
        };
        desks.spawn(settlement::run(settler, chain.clone(), stop.clone()));
    }
    if let Some(settings) = &config.api {
        let listener = tokio::net::TcpListener::bind(settings.listen).await;
        let listener = listener.with_context(|| format!("listening on {}", settings.listen))?;
        let gate = Cluster::new(client.clone(), settings.audience.clone());
        let api = Api { ledger: ledger.clone(), owners, chains: api_chains(&config), gate, now: watch::now };
        tokio::spawn(api::serve(listener, api, stop.clone()));
    }
    let usage = config.prometheus.as_ref().map(|source| Prometheus::new(source, metrics.usage.clone())).transpose()?;
    let hands = Hands { client, ledger, usage };
    let joints = Joints { news, leads, fence: fence_out, accounts: accounts_out, hands, identity, terms: terms(&config), metrics };
    let loops = tokio::spawn(engine::run(joints, stop.clone()));

    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to stop"),
        _ = interrupt.recv() => tracing::info!("told to stop"),
        served = server => served.context("serving metrics")?.with_context(|| format!("listening on {}", config.listen))?,
        ended = loops => ended.context("the engine ended")?,
        // Another process begins anew: a chain on which nobody pays any more would be noticed by nobody.
        Some(ended) = desks.join_next() => ended.context("paying on a chain ended")?,
    }
    stop.cancel();
    leader.await.context("giving the lease back")
}

/// Unique to this process: a pod's name alone would be the same after its container was restarted.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{host}_{since:x}_{}", std::process::id())
}

/// The chains whose vouchers are served. One whose contract is no address says so where it is settled.
fn api_chains(config: &Config) -> Arc<[api::Chain]> {
    let chain = |chain: &ChainConfig| {
        let contract = chain.contract.parse().ok()?;
        Some(api::Chain { name: chain.name.clone(), chain_id: chain.chain_id, contract })
    };
    config.chains.iter().filter_map(chain).collect()
}

fn terms(config: &Config) -> Terms {
    let chain = |chain: &ChainConfig| ChainTerms {
        name: chain.name.clone(),
        chain_id: chain.chain_id,
        contract: chain.contract.clone(),
        token: chain.token.clone(),
        settler: chain.settler,
        endpoints: chain.rpcs.len(),
    };
    Terms {
        fees: config.fees.clone(),
        tokens: config.tokens.iter().map(|token| token.symbol.clone()).collect(),
        chains: config.chains.iter().map(chain).collect(),
        data_classes: config.data_classes.clone(),
        taints_nodes: config.taint_nodes,
        user_namespaces: config.user_namespaces,
        usage: config.prometheus.as_ref().map(|source| UsageTerms { settle_seconds: source.settle_seconds.cast_signed() }),
        network: NetworkTerms {
            // Read once before, when the configuration was checked.
            cluster: config.network.cluster_ranges.iter().filter_map(|range| Range::read(range)).collect(),
            dns_namespace: config.network.dns_namespace.clone(),
            dns_labels: config.network.dns_labels.clone(),
        },
    }
}
