//! Reading usage from a Prometheus of a few lines.

use super::query::tests::asked;
use super::*;
use prometheus::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use supercargo_market::usage::{Anomaly, Shows};
use warp::Filter;
use warp::http::StatusCode;

type Queries = Arc<Mutex<Vec<String>>>;

/// Answers each query with what `answer` makes of it, and keeps what it was asked.
async fn source(
    match_labels: &[(&str, &str)],
    answer: impl Fn(&str) -> (u16, Value) + Clone + Send + Sync + 'static,
) -> (Prometheus, Queries) {
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let queries = Queries::default();
    let kept = queries.clone();
    let parts = warp::path!("api" / "v1" / "query").and(warp::query::<BTreeMap<String, String>>());
    let page = parts.map(move |query: BTreeMap<String, String>| {
        let (code, body) = answer(&query["query"]);
        kept.lock().expect("nobody panics with it").push(query["query"].clone());
        warp::reply::with_status(warp::reply::json(&body), StatusCode::from_u16(code).expect("a code"))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(warp::serve(page).incoming(listener).run());
    (read_from(&url, match_labels), queries)
}

fn read_from(url: &str, match_labels: &[(&str, &str)]) -> Prometheus {
    let match_labels = match_labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    let config = PrometheusConfig { url: url.to_owned(), match_labels, ..serde_json::from_value(json!({ "url": url })).expect("defaults") };
    Prometheus::new(&config, UsageMetrics::new(&Registry::new()).expect("new ones")).expect("a client")
}

fn matrix(series: &[Value]) -> (u16, Value) {
    (200, json!({ "status": "success", "data": { "resultType": "matrix", "result": series } }))
}

/// Every 15 s of the life that is asked for: what a value is then.
fn values(value: impl Fn(i64) -> String) -> Vec<Value> {
    (0..=6).map(|n| n * 15).map(|at| json!([1_800_000_010 + at, value(at)])).collect()
}

/// A core in use, 512 MiB, and a device that is busy for 87 %.
fn busy(query: &str, device_labels: &str) -> Vec<Value> {
    if query.contains("DCGM") {
        let told = query.contains(device_labels);
        let series = json!({ "metric": { "__name__": "DCGM_FI_DEV_GPU_UTIL", "UUID": "GPU-a" }, "values": values(|_| "87".into()) });
        return if told { vec![series] } else { Vec::new() };
    }
    let id = format!("/kubepods/pod{}/c", asked().uid);
    vec![
        json!({ "metric": { "__name__": "container_cpu_usage_seconds_total", "id": id, "cpu": "total" }, "values": values(|at| at.to_string()) }),
        json!({ "metric": { "__name__": "container_memory_working_set_bytes", "id": id }, "values": values(|_| (512 << 20).to_string()) }),
    ]
}

async fn one(prometheus: &Prometheus) -> Result<Usage, String> {
    let read = prometheus.read(&[asked()], asked().until + 30).await;
    read.map(|mut read| read.remove(&asked().uid).expect("of each that is asked for")).map_err(|error| error.to_string())
}

#[tokio::test]
async fn usage_is_read_under_each_spelling_of_a_devices_pod() {
    for spelling in ["exported_pod=\"train-0-0\"", ",pod=\"train-0-0\"", "pod_name=\"train-0-0\""] {
        let (prometheus, _) = source(&[], move |query| matrix(&busy(query, spelling))).await;
        let Usage { used, devices, anomalies } = one(&prometheus).await.expect("an answer");
        let used = used.expect("read");
        assert_eq!((used.cpu_milli_seconds, used.cpu_seconds_shown), (90_000, 90));
        assert_eq!((used.memory_mib_seconds, used.shows), (512 * 90, Shows::Whole));
        assert_eq!((used.gpu_percent, used.gpu_seconds_shown), (Some(87), 90), "{spelling}");
        assert_eq!((devices.into_iter().collect::<Vec<_>>(), anomalies), (vec!["GPU-a".to_owned()], vec![]));
    }
}

#[tokio::test]
async fn another_clusters_series_are_refused() {
    let (prometheus, queries) = source(&[("cluster", "a")], |query| {
        let mut series = busy(query, "exported_pod");
        series.iter_mut().for_each(|series| series["metric"]["cluster"] = "b".into());
        matrix(&series)
    })
    .await;
    let usage = one(&prometheus).await.expect("an answer");
    assert_eq!((usage.used.expect("read").shows, usage.devices.len()), (Shows::Nothing, 0));
    assert!(prometheus.metrics.refused.get() >= 3, "{}", prometheus.metrics.refused.get());
    assert!(queries.lock().expect("nobody panics with it").iter().all(|query| query.contains("cluster=\"a\"")));
}

#[tokio::test]
async fn samples_that_go_on_after_the_record_ends_are_an_anomaly() {
    let (prometheus, _) = source(&[], |query| matrix(&busy(query, "exported_pod"))).await;
    let short = Asked { ran_seconds: 10, until: asked().from + 10, ..asked() };
    let read = prometheus.read(std::slice::from_ref(&short), short.until + 300).await.expect("an answer");
    assert_eq!(read[&short.uid].anomalies, [Anomaly::SampledLonger]);
}

#[tokio::test]
async fn what_is_no_number_is_left_out() {
    let (prometheus, _) = source(&[], |query| {
        let mut series = busy(query, "exported_pod");
        series.iter_mut().for_each(|series| series["values"][3][1] = "NaN".into());
        matrix(&series)
    })
    .await;
    let used = one(&prometheus).await.expect("an answer").used.expect("read");
    assert_eq!((used.cpu_milli_seconds, used.memory_mib_seconds), (90_000, 512 * 90));
}

#[tokio::test]
async fn a_prometheus_that_fails_is_an_error_and_never_nothing_used() {
    let (broken, _) = source(&[], |_| (500, json!({ "status": "error", "error": "out of memory" }))).await;
    assert_eq!(one(&broken).await.expect_err("it fails"), "Prometheus answers with 500 Internal Server Error");
    let (refuses, _) = source(&[], |_| (200, json!({ "status": "error", "error": "query timed out" }))).await;
    assert_eq!(one(&refuses).await.expect_err("it fails"), "it answers: query timed out");
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let away = one(&read_from(&format!("http://{nobody}"), &[])).await.expect_err("nobody is there");
    assert!(away.starts_with("asking Prometheus: it does not answer: "), "{away}");
    assert_eq!(broken.metrics.reads.with_label_values(&["failed"]).get(), 1);
}

#[tokio::test]
async fn a_task_without_devices_asks_for_none() {
    let (prometheus, queries) = source(&[], |query| matrix(&busy(query, "exported_pod"))).await;
    let plain = Asked { devices: 0, ..asked() };
    let read = prometheus.read(&[plain], asked().until + 30).await.expect("an answer");
    assert_eq!(read[&asked().uid].used.expect("read").gpu_percent, None);
    assert_eq!(queries.lock().expect("nobody panics with it").len(), 1);
}
