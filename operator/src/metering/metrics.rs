//! What is counted of metering. No metric is labelled with an object's name.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use supercargo_market::usage::{Anomaly, Shows};

#[derive(Debug, Clone)]
pub struct UsageMetrics {
    pub reads: IntCounterVec,
    pub refused: IntCounter,
    pub shown: IntCounterVec,
    pub anomalies: IntCounterVec,
}

impl UsageMetrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let refused = IntCounter::new("supercargo_usage_series_refused_total", "Series of another cluster or pod that were not believed")?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            reads: counters("supercargo_usage_reads_total", "Times that what containers used was read, by outcome", "outcome")?,
            refused,
            shown: counters("supercargo_usage_shown_total", "Containers by how much of their use samples show", "shows")?,
            anomalies: counters(
                "supercargo_evidence_anomalies_total",
                "Charges for which two sources did not say the same, or the one that is needed said nothing, by what about",
                "anomaly",
            )?,
        })
    }

    pub fn count(&self, anomaly: Anomaly) {
        let name = match anomaly {
            Anomaly::SampledLonger => "sampled_longer",
            Anomaly::MoreCpuThanItHad => "more_cpu_than_it_had",
            Anomaly::OtherDevices => "other_devices",
            Anomaly::UseNotShown => "use_not_shown",
        };
        self.anomalies.with_label_values(&[name]).inc();
    }
}

pub fn shows(shows: Shows) -> &'static str {
    match shows {
        Shows::Whole => "whole",
        Shows::Part => "part",
        Shows::Nothing => "nothing",
    }
}
