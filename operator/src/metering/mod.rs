//! Metering: what containers used, from a Prometheus's raw samples. It only reads; what the samples are worth is `market`'s,
//! and what becomes of it the planner's.

pub mod answer;
pub mod metrics;
pub mod query;

use crate::plan::usage::Asked;
use crate::runtime::config::PrometheusConfig;
use crate::world::Usage;
use answer::{Found, Gathered};
use futures::future::try_join_all;
use metrics::UsageMetrics;
use query::{Piece, SPELLINGS, of_container, of_devices, pieces};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use supercargo_market::usage::{self, Window};
use tokio::sync::Semaphore;

/// No answer that we ask for is larger: one that is would fill the memory.
const LARGEST_ANSWER_BYTES: usize = 64 << 20;
/// So many containers are read of at once.
const AT_ONCE: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum MeteringError {
    #[error("making an HTTP client for Prometheus: {0}")]
    Client(#[source] reqwest::Error),
    #[error("asking Prometheus: {}", without_address(.0))]
    Asking(#[source] reqwest::Error),
    #[error("Prometheus answers with {0}")]
    Status(reqwest::StatusCode),
    #[error("it answers: {0}")]
    Answer(String),
    #[error("Prometheus did not answer in time")]
    Late,
    #[error("its answer is longer than {LARGEST_ANSWER_BYTES} bytes")]
    TooLong,
}

/// There may be a password in an address.
fn without_address(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() { "it does not answer in time" } else { "it does not answer" };
    std::error::Error::source(error).map_or_else(|| what.to_owned(), |source| format!("{what}: {source}"))
}

/// Where usage is read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prometheus {
    client: reqwest::Client,
    address: String,
    match_labels: BTreeMap<String, String>,
    longest_step_millis: u64,
    places: Arc<Semaphore>,
    metrics: UsageMetrics,
}

impl Prometheus {
    pub fn new(config: &PrometheusConfig, metrics: UsageMetrics) -> Result<Self, MeteringError> {
        let timeout = Duration::from_secs(config.timeout_seconds);
        let client = reqwest::Client::builder().timeout(timeout).build().map_err(MeteringError::Client)?;
        Ok(Self {
            client,
            address: format!("{}/api/v1/query", config.url.trim_end_matches('/')),
            match_labels: config.match_labels.clone(),
            longest_step_millis: config.gap_seconds.saturating_mul(1_000),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            metrics,
        })
    }

    /// What containers used, by their pods' UIDs: of all of them, or an error.
    pub async fn read(&self, asked: &[Asked], now: i64) -> Result<BTreeMap<String, Usage>, MeteringError> {
        let read = try_join_all(asked.iter().map(|asked| self.container(asked, now))).await;
        self.metrics.reads.with_label_values(&[if read.is_ok() { "done" } else { "failed" }]).inc();
        Ok(read?.into_iter().collect())
    }

    async fn container(&self, asked: &Asked, now: i64) -> Result<(String, Usage), MeteringError> {
        // It is never closed.
        let _place = self.places.acquire().await.map_err(|_| MeteringError::Answer("the process ends".to_owned()))?;
        let mut gathered = Gathered::default();
        let pieces = pieces(asked, now);
        for piece in &pieces {
            self.take(&mut gathered, asked, &of_container(asked, &self.match_labels, *piece), *piece).await?;
        }
        let mut devices = Gathered::default();
        // The first spelling that anybody uses: another one may be of the exporter's own pod.
        for spelling in SPELLINGS.iter().filter(|_| asked.devices > 0) {
            for piece in &pieces {
                self.take(&mut devices, asked, &of_devices(asked, *spelling, &self.match_labels, *piece), *piece).await?;
            }
            if !devices.is_empty() {
                break;
            }
        }
        let usage = told(asked, &gathered, &devices, self.longest_step_millis);
        usage.used.into_iter().for_each(|used| self.metrics.shown.with_label_values(&[metrics::shows(used.shows)]).inc());
        Ok((asked.uid.clone(), usage))
    }

    async fn take(&self, gathered: &mut Gathered, asked: &Asked, query: &str, piece: Piece) -> Result<(), MeteringError> {
        let refused = gathered.take(self.ask(query, piece).await?, asked, &self.match_labels);
        self.metrics.refused.inc_by(refused);
        Ok(())
    }

    async fn ask(&self, query: &str, piece: Piece) -> Result<Vec<Found>, MeteringError> {
        let time = piece.until.to_string();
        let request = self.client.get(&self.address).query(&[("query", query), ("time", time.as_str())]);
        let mut response = request.send().await.map_err(MeteringError::Asking)?;
        if !response.status().is_success() {
            return Err(MeteringError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(MeteringError::Asking)? {
            if body.len() + chunk.len() > LARGEST_ANSWER_BYTES {
                return Err(MeteringError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        answer::read(&body)
    }
}

/// What the series of a container, and those of its devices, tell of it.
pub fn told(asked: &Asked, gathered: &Gathered, devices: &Gathered, longest_step_millis: u64) -> Usage {
    let mut container = gathered.container();
    container.devices = devices.container().devices;
    let window = Window { from: asked.from, until: asked.until, from_start: asked.from_start, to_end: true, longest_step_millis };
    let anomalies = usage::disagreements(&container, &window, asked.ran_seconds, asked.cpu_millis);
    Usage { used: Some(usage::used(&container, &window)), devices: devices.devices(), anomalies }
}

#[cfg(test)]
mod tests;
