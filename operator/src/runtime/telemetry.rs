//! Logs, metrics and health. No metric is labelled with an object's name or an error's text.

use super::payment::PaymentMetrics;
use crate::metering::metrics::UsageMetrics;
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use warp::Filter;
use warp::http::StatusCode;

/// Logs to standard error: JSON, or lines for people with `SUPERCARGO_LOG_FORMAT=text`.
pub fn logs() {
    let filter = EnvFilter::try_from_env("SUPERCARGO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var("SUPERCARGO_LOG_FORMAT").is_ok_and(|format| format == "text") {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
}

/// What the operator counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    pub leads: IntGauge,
    pub synced: IntGauge,
    pub tasks: IntGauge,
    pub effects: IntCounterVec,
    pub pass_seconds: Histogram,
    pub payment: PaymentMetrics,
    pub usage: UsageMetrics,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            leads: IntGauge::new("supercargo_leads", "1 while this replica leads")?,
            synced: IntGauge::new("supercargo_synced", "1 once every watch has listed what is there")?,
            tasks: IntGauge::new("supercargo_tasks", "Tasks that are not finished")?,
            effects: IntCounterVec::new(
                Opts::new("supercargo_effects_total", "Effects carried out, by kind and outcome"),
                &["kind", "outcome"],
            )?,
            pass_seconds: Histogram::with_opts(
                HistogramOpts::new("supercargo_plan_pass_seconds", "How long a pass of the planner takes")
                    .buckets(vec![0.0001, 0.001, 0.01, 0.05, 0.1, 1.0]),
            )?,
            payment: PaymentMetrics::new(&registry)?,
            usage: UsageMetrics::new(&registry)?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.leads.clone()))?;
        metrics.registry.register(Box::new(metrics.synced.clone()))?;
        metrics.registry.register(Box::new(metrics.tasks.clone()))?;
        metrics.registry.register(Box::new(metrics.effects.clone()))?;
        metrics.registry.register(Box::new(metrics.pass_seconds.clone()))?;
        Ok(metrics)
    }

    fn text(&self) -> String {
        let mut buffer = Vec::new();
        // Writing to a vector can't fail; an empty page would show in a test.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut buffer);
        String::from_utf8(buffer).unwrap_or_default()
    }
}

/// Serves /metrics, /healthz (the process lives) and /readyz (the watches have listed what is there).
pub async fn serve(address: SocketAddr, metrics: Metrics, stop: CancellationToken) -> std::io::Result<()> {
    let shared = Arc::new(metrics);
    let with = move || {
        let shared = shared.clone();
        warp::any().map(move || shared.clone())
    };
    let page = warp::path!("metrics").and(with()).map(|metrics: Arc<Metrics>| metrics.text());
    let health = warp::path!("healthz").map(|| "alive\n".to_owned());
    let ready = warp::path!("readyz").and(with()).map(|metrics: Arc<Metrics>| match metrics.synced.get() {
        1 => warp::reply::with_status("ready\n".to_owned(), StatusCode::OK),
        _ => warp::reply::with_status("still listing what is there\n".to_owned(), StatusCode::SERVICE_UNAVAILABLE),
    });
    let listener = tokio::net::TcpListener::bind(address).await?;
    let server = warp::serve(warp::get().and(page.or(health).or(ready))).incoming(listener);
    server.graceful(stop.cancelled_owned()).run().await;
    Ok(())
}
