//! `supercargo-gate`: the admission server's program.

use anyhow::{Context, Result};
use clap::Parser;
use kube::Client;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use supercargo_webhooks::authority;
use supercargo_webhooks::certificate::{self, Authority, LEAF_LIFE, Served};
use supercargo_webhooks::connection::Limits;
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
        served = certificate(arguments) => served?,
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
async fn certificate(arguments: Arguments) -> Result<Arc<Served>> {
    if let (Some(certificate), Some(key)) = (arguments.certificate_file.clone(), arguments.key_file.clone()) {
        let read = move || -> Result<_> {
            let text = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
            Ok(certificate::read(&text(&certificate)?, &text(&key)?)?)
        };
        let served = Arc::new(Served::new(read()?));
        tokio::spawn(again_and_again(served.clone(), Duration::from_secs(arguments.certificate_interval_seconds), read));
        return Ok(served);
    }
    let client = Client::try_default().await.context("reaching the API server")?;
    let (authority, names) = (authority::ensure(&client, &arguments.namespace, &arguments.secret).await?, names(&arguments));
    authority::announce(&client, &arguments.webhook, &authority).await?;
    let served = Arc::new(Served::new(certificate::new_leaf(&authority, &names, SystemTime::now())?));
    tokio::spawn(keep_own(client, arguments, names, authority, served.clone()));
    Ok(served)
}

fn names(arguments: &Arguments) -> Vec<String> {
    let short = format!("{}.{}.svc", arguments.service, arguments.namespace);
    vec![format!("{short}.cluster.local"), short]
}

/// Swaps the certificate at intervals. One that can't be had leaves the last one in place.
async fn again_and_again(served: Arc<Served>, pause: Duration, make: impl Fn() -> Result<Arc<rustls::sign::CertifiedKey>>) {
    loop {
        tokio::time::sleep(pause).await;
        match make() {
            Ok(next) => served.swap(next),
            Err(error) => tracing::warn!("renewing the certificate: {error:#}"),
        }
    }
}

/// At intervals: an authority that was replaced, or a leaf that is getting old, gives another leaf; and whoever wrote the
/// configuration anew took the bundle away, so it is put back.
async fn keep_own(client: Client, arguments: Arguments, names: Vec<String>, mut authority: Authority, served: Arc<Served>) {
    let mut made = SystemTime::now();
    loop {
        tokio::time::sleep(Duration::from_secs(arguments.certificate_interval_seconds)).await;
        if let Err(error) = look_after(&client, &arguments, &names, &mut authority, &mut made, &served).await {
            tracing::warn!("looking after the certificate: {error:#}");
        }
    }
}

async fn look_after(
    client: &Client,
    arguments: &Arguments,
    names: &[String],
    authority: &mut Authority,
    made: &mut SystemTime,
    served: &Served,
) -> Result<()> {
    let current = authority::ensure(client, &arguments.namespace, &arguments.secret).await?;
    let old = made.elapsed().is_ok_and(|age| age >= LEAF_LIFE * 2 / 3);
    if current != *authority || old {
        served.swap(certificate::new_leaf(&current, names, SystemTime::now())?);
        (*authority, *made) = (current, SystemTime::now());
    }
    Ok(authority::announce(client, &arguments.webhook, authority).await?)
}
