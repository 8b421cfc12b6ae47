//! `supercargo-gate`: the admission server's program.

use anyhow::{Context, Result};
use clap::Parser;
use kube::Client;
use rustls::sign::CertifiedKey;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use supercargo_webhooks::authority;
use supercargo_webhooks::certificate::{self, Served};
use supercargo_webhooks::connection::Limits;
use supercargo_webhooks::rotation::Keeper;
use supercargo_webhooks::server::{self, Counters};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(version, about = "Says what is wrong with a manifest while its author still looks at it")]
struct Arguments {
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    #[arg(long, default_value = "0.0.0.0:8081")]
    health: SocketAddr,
    /// The namespace and the Service that it is reached by
    #[arg(long, default_value = "supercargo")]
    namespace: String,
    #[arg(long, default_value = "supercargo-gate")]
    service: String,
    /// The Secret in which it keeps its own authority
    #[arg(long, default_value = "supercargo-gate-ca")]
    secret: String,
    /// The ValidatingWebhookConfiguration that is told of the authority
    #[arg(long, default_value = "supercargo-gate")]
    webhook: String,
    /// A certificate that somebody else makes and renews, such as cert-manager; then no authority is made
    #[arg(long, requires = "key_file")]
    certificate_file: Option<PathBuf>,
    #[arg(long, requires = "certificate_file")]
    key_file: Option<PathBuf>,
    /// How often the certificate is looked at
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    certificate_interval_seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let counters = Arc::new(Counters::default());
    let (listener, health) = (listen(arguments.listen).await?, listen(arguments.health).await?);
    let served = tokio::select! {
        served = certificate(arguments, counters.clone()) => served?,
        _ = terminate.recv() => return Ok(()),
    };
    tracing::info!(listen = %listener.local_addr()?, health = %health.local_addr()?, "serving");
    let stop = async {
        terminate.recv().await;
        tracing::info!("stopping: what is under way may end");
    };
    tokio::select! {
        ended = server::serve(listener, served, counters.clone(), Limits::default(), stop) => {
            tracing::info!(all_ended = ended, "stopped");
            Ok(())
        }
        () = server::health(health, counters) => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

/// The first certificate, and a task that renews it.
async fn certificate(arguments: Arguments, counters: Arc<Counters>) -> Result<Arc<Served>> {
    let pause = Duration::from_secs(arguments.certificate_interval_seconds);
    if let (Some(certificate), Some(key)) = (arguments.certificate_file.clone(), arguments.key_file.clone()) {
        let read = move || -> Result<_> {
            let text = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
            Ok(certificate::read(&text(&certificate)?, &text(&key)?)?)
        };
        let first = read()?;
        counters.taken_up(SystemTime::now());
        let served = Arc::new(Served::new(first.clone()));
        tokio::spawn(again_and_again(served.clone(), first, pause, counters, read));
        return Ok(served);
    }
    let client = Client::try_default().await.context("reaching the API server")?;
    let mut own = Own { names: names(&arguments), client, arguments, keeper: Keeper::default(), counters };
    let first = own.look().await?.context("a first look has a leaf")?;
    let served = Arc::new(Served::new(first));
    tokio::spawn(own.again_and_again(served.clone(), pause));
    Ok(served)
}

fn names(arguments: &Arguments) -> Vec<String> {
    let short = format!("{}.{}.svc", arguments.service, arguments.namespace);
    vec![format!("{short}.cluster.local"), short]
}

fn failed(counters: &Counters, doing: &str, error: &anyhow::Error) {
    counters.certificate_failures.fetch_add(1, Ordering::Relaxed);
    tracing::warn!("{doing}: {error:#}");
}

/// Swaps the certificate when its file has another. One that can't be had leaves the last one in place.
async fn again_and_again(
    served: Arc<Served>,
    mut last: Arc<CertifiedKey>,
    pause: Duration,
    counters: Arc<Counters>,
    make: impl Fn() -> Result<Arc<CertifiedKey>>,
) {
    loop {
        tokio::time::sleep(pause).await;
        match make() {
            Ok(next) if next.cert == last.cert => {}
            Ok(next) => {
                counters.taken_up(SystemTime::now());
                served.swap(next.clone());
                last = next;
            }
            Err(error) => failed(&counters, "renewing the certificate", &error),
        }
    }
}

/// An authority of our own, and what it takes to look after it.
struct Own {
    client: Client,
    arguments: Arguments,
    names: Vec<String>,
    keeper: Keeper,
    counters: Arc<Counters>,
}

impl Own {
    /// At intervals: an authority that was replaced, or a leaf that is getting old, gives another leaf; and whoever wrote
    /// the configuration anew took the bundle away, so it is put back.
    async fn again_and_again(mut self, served: Arc<Served>, pause: Duration) {
        loop {
            tokio::time::sleep(pause).await;
            match self.look().await {
                Ok(next) => next.into_iter().for_each(|next| served.swap(next)),
                Err(error) => failed(&self.counters, "looking after the certificate", &error),
            }
        }
    }

    /// Announces what is to be announced, and gives a leaf when another one is due.
    async fn look(&mut self) -> Result<Option<Arc<CertifiedKey>>> {
        let authority = authority::ensure(&self.client, &self.arguments.namespace, &self.arguments.secret).await?;
        let bundle = authority::announced(&self.client, &self.arguments.webhook).await?;
        let now = SystemTime::now();
        let due = self.keeper.look(&authority, &bundle, now);
        if let Some(bundle) = &due.bundle
            && let Err(error) = authority::announce(&self.client, &self.arguments.webhook, bundle).await
        {
            // A leaf of an authority that is known already is not held up by this.
            failed(&self.counters, "announcing the authority", &error.into());
        }
        let Some(issuer) = due.leaf else { return Ok(None) };
        let leaf = certificate::new_leaf(&issuer, &self.names, now)?;
        self.keeper.served(issuer, now);
        self.counters.taken_up(now);
        Ok(Some(leaf))
    }
}
