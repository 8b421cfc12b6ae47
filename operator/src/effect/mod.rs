//! Carrying effects out: one in flight per key, a bounded number in all, and failures that wait longer each time.
//! Results come back as events; nothing is decided here.

mod books;
mod kubernetes;

pub use books::{book, load, load_work};

use crate::metering::{MeteringError, Prometheus};
use crate::plan::Effect;
use crate::plan::usage::Asked;
use crate::runtime::pauses;
use crate::runtime::telemetry::Metrics;
use crate::watch::now;
use crate::world::{Event, Usage};
use kube::Client;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};
use supercargo_ledger::{Fence, Ledger, LedgerError};
use supercargo_market::work::WorkId;
use tokio::sync::mpsc;

const MOST_IN_FLIGHT: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// A pause that was over so long ago has nothing to grow from.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
/// What is not answered by then is asked again: a connection may be dead without a word.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    #[error("{doing}: {source}")]
    Kubernetes { doing: &'static str, source: kube::Error },
    #[error("{source}")]
    Refused { work: WorkId, pod: String, source: Box<EffectError> },
    #[error("{source}")]
    Unfit { namespace: String, source: Box<EffectError> },
    #[error("there is a pod {0} already, and it is none of this task's")]
    Taken(String),
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("reading what containers used: {0}")]
    Usage(#[from] MeteringError),
    #[error("booking: {0}")]
    Ledger(#[from] LedgerError),
}

impl EffectError {
    /// A write that can't succeed as it is: nobody helps by trying again soon.
    fn needs_a_person(&self) -> bool {
        let refused = |status: &kube::core::Status| matches!(status.code, 400 | 403 | 422);
        match self {
            Self::Kubernetes { source: kube::Error::Api(status), .. } => refused(status),
            Self::Refused { .. } | Self::Unfit { .. } | Self::Taken(_) => true,
            _ => false,
        }
    }

    /// How long the API server asks to be left alone. What it says of that with a bare 429 stands in a header that is not kept
    /// for us: it is a second then.
    fn asked_pause(&self) -> Option<Duration> {
        let Self::Kubernetes { source: kube::Error::Api(status), .. } = self else { return None };
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let seconds = if status.code == 429 { seconds.max(1) } else { seconds };
        (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(LONGEST_PAUSE))
    }

    /// How long to wait before the next try, when the pauses have grown to this.
    fn pause(&self, grown: Duration, nanos: u32) -> Duration {
        if self.needs_a_person() {
            return grown.max(REFUSED_PAUSE);
        }
        let by_ourselves = pauses::spread(grown, nanos);
        // Not before it wants us, and not all of us at once.
        self.asked_pause().map_or(by_ourselves, |asked| by_ourselves.max(asked + pauses::some_of(asked, nanos)))
    }

    /// What the world should know of it.
    fn event(self) -> Option<Event> {
        match self {
            Self::Refused { work, pod, source } => {
                let why = match *source {
                    Self::Kubernetes { source: kube::Error::Api(status), .. } => status.message.clone(),
                    other => other.to_string(),
                };
                Some(Event::Unmade { work, pod, why })
            }
            Self::Unfit { namespace, source } => {
                let why = match *source {
                    Self::Kubernetes { doing, source: kube::Error::Api(status) } => format!("{doing}: {}", status.message),
                    other => other.to_string(),
                };
                Some(Event::Unfit { namespace, why })
            }
            Self::Usage(_) => Some(Event::UsageAway { at: now() }),
            _ => None,
        }
    }
}

/// What came of one effect.
#[derive(Debug)]
pub struct Done {
    pub key: String,
    pub kind: &'static str,
    pub result: Result<Vec<Event>, EffectError>,
}

/// What effects are carried out with.
#[derive(Clone)]
pub struct Hands {
    pub client: Client,
    pub ledger: Ledger,
    /// Where what containers use is read, where there is such a place.
    pub usage: Option<Prometheus>,
}

/// Which effects are under way, and which have to wait.
pub struct Executor {
    hands: Hands,
    done: mpsc::Sender<Done>,
    metrics: Metrics,
    in_flight: HashSet<String>,
    paused: HashMap<String, (Instant, Duration)>,
}

impl Executor {
    pub fn new(hands: Hands, done: mpsc::Sender<Done>, metrics: Metrics) -> Self {
        Self { hands, done, metrics, in_flight: HashSet::new(), paused: HashMap::new() }
    }

    /// Starts what may start. What may not is planned again by the next pass.
    pub fn start(&mut self, effects: Vec<Effect>, fence: Fence) {
        for effect in effects {
            let key = effect.key();
            let waits = self.paused.get(&key).is_some_and(|(until, _)| Instant::now() < *until);
            // The books are reached another way: an API server that answers nobody keeps nothing from being written there.
            let full = self.in_flight.len() >= MOST_IN_FLIGHT && !matches!(effect, Effect::Book(_));
            if waits || full || !self.in_flight.insert(key.clone()) {
                continue;
            }
            tracing::debug!(effect = %effect, "begins");
            let (hands, done, usage_metrics) = (self.hands.clone(), self.done.clone(), self.metrics.usage.clone());
            tokio::spawn(async move {
                let kind = effect.kind();
                let result = match effect {
                    Effect::Book(bookings) => {
                        let mut anomalies = Vec::new();
                        let booked = books::book(&hands.ledger, fence, bookings, &mut anomalies).await.map_err(EffectError::from);
                        anomalies.into_iter().for_each(|anomaly| usage_metrics.count(anomaly));
                        booked
                    }
                    Effect::ReadUsage { work, attempt, asked } => {
                        read_usage(hands.usage.as_ref(), &asked).await.map(|used| vec![Event::Used { work, attempt, used }])
                    }
                    other => {
                        let answered = tokio::time::timeout(PATIENCE, kubernetes::carry_out(&hands.client, other)).await;
                        answered.unwrap_or(Err(EffectError::Late))
                    }
                };
                // The engine is gone only when the process ends.
                let _ = done.send(Done { key, kind, result }).await;
            });
        }
    }

    /// Takes a result in and gives back what the world should know of it.
    pub fn finish(&mut self, done: Done) -> Vec<Event> {
        self.in_flight.remove(&done.key);
        match done.result {
            Ok(events) => {
                self.paused.remove(&done.key);
                self.metrics.effects.with_label_values(&[done.kind, "done"]).inc();
                events
            }
            Err(error) => {
                self.metrics.effects.with_label_values(&[done.kind, "failed"]).inc();
                let before = self.paused.get(&done.key).map(|(_, pause)| *pause);
                let grown = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
                let pause = error.pause(grown, pauses::nanos());
                // What nobody asks for again is not waited for for ever: each attempt's pods have names of their own.
                self.paused.retain(|_, (until, _)| until.elapsed() < FORGOTTEN_AFTER);
                self.paused.insert(done.key.clone(), (Instant::now() + pause, pause));
                tracing::warn!(key = done.key, %error, pause_milliseconds = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "an effect failed");
                error.event().into_iter().collect()
            }
        }
    }

    /// When the next paused effect may be tried.
    pub fn next_try(&self) -> Option<Instant> {
        self.paused.values().map(|(until, _)| *until).filter(|until| *until > Instant::now()).min()
    }
}

async fn read_usage(prometheus: Option<&Prometheus>, asked: &[Asked]) -> Result<BTreeMap<String, Usage>, EffectError> {
    let Some(prometheus) = prometheus else { return Ok(BTreeMap::new()) };
    let read = tokio::time::timeout(PATIENCE, prometheus.read(asked, now())).await;
    Ok(read.unwrap_or(Err(MeteringError::Late))?)
}

#[cfg(test)]
mod anomaly_tests;
#[cfg(test)]
mod tests;
