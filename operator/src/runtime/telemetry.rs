//! Logs, metrics and health. No metric is labelled with an object's name or an error's text.

use super::payment::PaymentMetrics;
use crate::metering::metrics::UsageMetrics;
use crate::plan::running::Running;
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use supercargo_market::money::Amount;
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
    pub clock_sets: IntCounter,
    pub running: RunningMetrics,
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
            clock_sets: IntCounter::new("supercargo_clock_sets_total", "Times that the machine's clock was set while this process ran")?,
            running: RunningMetrics::new(&registry)?,
            payment: PaymentMetrics::new(&registry)?,
            usage: UsageMetrics::new(&registry)?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.leads.clone()))?;
        metrics.registry.register(Box::new(metrics.synced.clone()))?;
        metrics.registry.register(Box::new(metrics.tasks.clone()))?;
        metrics.registry.register(Box::new(metrics.effects.clone()))?;
        metrics.registry.register(Box::new(metrics.pass_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.clock_sets.clone()))?;
        Ok(metrics)
    }

    fn text(&self) -> String {
        let mut buffer = Vec::new();
        // Writing to a vector can't fail; an empty page would show in a test.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut buffer);
        String::from_utf8(buffer).unwrap_or_default()
    }
}

/// What runs and is not charged yet, and what nobody was charged for, by tokens.
#[derive(Debug, Clone)]
pub struct RunningMetrics {
    used_units: IntGaugeVec,
    hour_units: IntGaugeVec,
    absorbed_units: IntGaugeVec,
}

impl RunningMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["token"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            used_units: gauge("supercargo_running_used_units", "What tasks that run have used so far, in the token's base units")?,
            hour_units: gauge("supercargo_running_hour_units", "What tasks that run cost an hour now, in the token's base units")?,
            absorbed_units: gauge(
                "supercargo_absorbed_units",
                "What tasks cost beyond what was held back for them, in the token's base units",
            )?,
        })
    }

    pub fn show(&self, tokens: &BTreeMap<String, Running>) {
        let units = |amount: Amount| i64::try_from(amount.units()).unwrap_or(i64::MAX);
        for (token, running) in tokens {
            self.used_units.with_label_values(&[token]).set(units(running.used));
            self.hour_units.with_label_values(&[token]).set(units(running.hour));
            self.absorbed_units.with_label_values(&[token]).set(units(running.absorbed));
        }
    }

    /// Whoever leads now counts what runs.
    pub fn forget(&self) {
        [&self.used_units, &self.hour_units, &self.absorbed_units].into_iter().for_each(IntGaugeVec::reset);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_on_the_page_by_tokens_and_gone_with_the_lead() {
        let metrics = Metrics::new().expect("no name is there twice");
        let units = Amount::from_units;
        let running = Running { used: units(7), hour: units(3_600), absorbed: units(2) };
        metrics.running.show(&[("USDC".to_owned(), running)].into());
        let page = metrics.text();
        for line in ["running_used_units{token=\"USDC\"} 7", "running_hour_units{token=\"USDC\"} 3600", "absorbed_units{token=\"USDC\"} 2"]
        {
            assert!(page.contains(&format!("\nsupercargo_{line}\n")), "{page}");
        }
        metrics.running.forget();
        assert!(!metrics.text().contains("USDC"));
    }
}
