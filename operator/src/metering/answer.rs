//! What a Prometheus answers: which of its series are of the container that was asked for, and what they say.

use super::MeteringError;
use super::query::{CPU, GPU, MEMORY};
use crate::plan::usage::Asked;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_market::usage::{Container, Sample, Series};

pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    result: Vec<Found>,
}

/// A series, with its samples as they were told.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    pub metric: Labels,
    #[serde(default)]
    pub values: Vec<(f64, String)>,
}

/// Reads an answer: the series that it has, or why it has none.
pub fn read(body: &[u8]) -> Result<Vec<Found>, MeteringError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| MeteringError::Answer(error.to_string()))?;
    if answer.status == "success" { Ok(answer.data.result) } else { Err(MeteringError::Answer(answer.error)) }
}

/// Whether a series can be of that very container, and not of one of the same name elsewhere: its labels are those of our
/// cluster, and where it has a cgroup's path that names the pod's UID.
pub fn is_ours(metric: &Labels, asked: &Asked, match_labels: &Labels) -> bool {
    let here = match_labels.iter().all(|(label, value)| metric.get(label) == Some(value));
    // With systemd the path has the UID with other dashes.
    let path = metric.get("id").filter(|path| path.contains("pod")).map(|path| path.replace('_', "-"));
    let whole = metric.get("cpu").is_none_or(|cpu| cpu == "total" || cpu.is_empty());
    here && whole && path.is_none_or(|path| path.contains(&asked.uid))
}

/// The series of one container, gathered from the pieces of its life.
#[derive(Debug, Default)]
pub struct Gathered(BTreeMap<Labels, Vec<(f64, String)>>);

impl Gathered {
    /// Takes in what is of that container. How many series were not.
    pub fn take(&mut self, found: Vec<Found>, asked: &Asked, match_labels: &Labels) -> u64 {
        let mut refused = 0;
        for series in found {
            if is_ours(&series.metric, asked, match_labels) {
                self.0.entry(series.metric).or_default().extend(series.values);
            } else {
                refused += 1;
            }
        }
        refused
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they say of the container. One thing that two scrapes tell of counts once: as who tells most often has it.
    pub fn container(&self) -> Container {
        let mut devices: BTreeMap<String, Vec<&Labels>> = BTreeMap::new();
        for labels in self.named(GPU) {
            devices.entry(device(labels)).or_default().push(labels);
        }
        Container {
            cpu: self.fullest(self.named(CPU), 1e6),
            memory: self.fullest(self.named(MEMORY), 1.0),
            devices: devices.into_values().map(|same| self.fullest(same.into_iter(), 100.0)).collect(),
        }
    }

    pub fn devices(&self) -> BTreeSet<String> {
        self.named(GPU).map(device).filter(|device| !device.is_empty()).collect()
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Labels> {
        self.0.keys().filter(move |labels| labels.get("__name__").is_some_and(|known| known == name))
    }

    fn fullest<'a>(&self, series: impl Iterator<Item = &'a Labels>, parts_per_unit: f64) -> Series {
        let read = |labels: &Labels| {
            let values = self.0.get(labels).into_iter().flatten();
            Series::of(values.filter_map(|(at, text)| Sample::read(*at, text, parts_per_unit)).collect())
        };
        // Of those that tell as often the first by its labels: the same answer is always read alike.
        series.map(read).reduce(|first, next| if next.len() > first.len() { next } else { first }).unwrap_or_default()
    }
}

/// A device's name: a slice is its GPU's with the number of its instance.
fn device(labels: &Labels) -> String {
    let uuid = labels.get("UUID").cloned().unwrap_or_default();
    match labels.get("GPU_I_ID").filter(|instance| !instance.is_empty()) {
        Some(instance) => format!("{uuid}/{instance}"),
        None => uuid,
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::tests::asked;
    use super::*;
    use serde_json::json;

    fn labels(extra: serde_json::Value) -> Labels {
        let mut labels = json!({ "namespace": "team", "pod": "train-0-0", "container": "task" });
        labels.as_object_mut().expect("an object").extend(extra.as_object().cloned().expect("an object"));
        serde_json::from_value(labels).expect("labels")
    }

    #[test]
    fn a_series_of_another_cluster_or_another_pod_of_that_name_is_refused() {
        let ours: Labels = [("cluster".to_owned(), "a".to_owned())].into();
        let uid = asked().uid;
        let systemd = uid.replace('-', "_");
        let cases = [
            ("ours", json!({ "cluster": "a" }), true),
            ("another cluster's", json!({ "cluster": "b" }), false),
            ("nobody says of which cluster", json!({}), false),
            ("with our UID", json!({ "cluster": "a", "id": format!("/kubepods/pod{uid}/c1") }), true),
            (
                "with our UID as systemd writes it",
                json!({ "cluster": "a", "id": format!("/kubepods.slice/kubepods-pod{systemd}.slice/c1.scope") }),
                true,
            ),
            ("with another's", json!({ "cluster": "a", "id": "/kubepods/pod9ab3c1d0-0000-4000-8000-000000000001/c1" }), false),
            ("of one core alone", json!({ "cluster": "a", "cpu": "cpu07" }), false),
            ("of all cores", json!({ "cluster": "a", "cpu": "total" }), true),
        ];
        for (name, extra, expected) in cases {
            assert_eq!(is_ours(&labels(extra), &asked(), &ours), expected, "{name}");
        }
    }

    #[test]
    fn what_two_scrapes_tell_of_counts_once() {
        let series = |job: &str, values: &[(f64, &str)]| Found {
            metric: labels(json!({ "__name__": CPU, "job": job })),
            values: values.iter().map(|(at, text)| (*at, (*text).to_owned())).collect(),
        };
        let mut gathered = Gathered::default();
        let found =
            vec![series("a", &[(10.0, "1"), (20.0, "NaN"), (30.0, "3")]), series("b", &[(11.0, "1.1"), (21.0, "2.1"), (31.0, "3.1")])];
        assert_eq!(gathered.take(found, &asked(), &Labels::new()), 0);
        // A later piece of the first one's life brings it level, and it comes first by its labels.
        gathered.take(vec![series("a", &[(40.0, "4")])], &asked(), &Labels::new());
        let cpu = gathered.container().cpu;
        assert_eq!((cpu.len(), cpu.span_millis()), (3, 30_000));
    }

    #[test]
    fn devices_are_named_by_their_uuids_and_slices_by_their_instance_too() {
        let gpu = |uuid: &str, instance: &str| Found {
            metric: labels(json!({ "__name__": GPU, "UUID": uuid, "GPU_I_ID": instance })),
            values: vec![(10.0, "90".to_owned()), (20.0, "90".to_owned())],
        };
        let mut gathered = Gathered::default();
        gathered.take(vec![gpu("GPU-a", ""), gpu("GPU-b", "2"), gpu("GPU-b", "3")], &asked(), &Labels::new());
        assert_eq!(gathered.devices().into_iter().collect::<Vec<_>>(), ["GPU-a", "GPU-b/2", "GPU-b/3"]);
        assert_eq!(gathered.container().devices.len(), 3);
    }

    #[test]
    fn an_answer_that_is_none_says_why() {
        let failed = |text: &str| read(text.as_bytes()).expect_err("it is none").to_string();
        assert_eq!(failed(r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#), "it answers: query timed out");
        assert!(failed("<html>").starts_with("it answers: expected value"), "{}", failed("<html>"));
        assert_eq!(read(br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#).expect("an answer").len(), 0);
    }
}
