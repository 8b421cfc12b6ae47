//! Reviews and manifests that were tampered with, through the very functions that the gate answers with: none may panic,
//! none may cost memory without bound, and each review has a well-formed answer. Every run can be had again:
//!
//!     SUPERCARGO_FUZZ_SEED=7 SUPERCARGO_FUZZ_RUN=123 cargo test -p supercargo-webhooks --lib tampered -- --nocapture

mod mutate;

use crate::{review, samples};
use mutate::{Dice, mutate, tamper};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use supercargo_crds::validate::{self, Finding};
use supercargo_crds::{ComputeTask, Escrow, ProviderNode, ProviderPool};

/// Beside the request's own UID: the findings that are told, each character escaped.
const MOST_ANSWER_BYTES: usize = 128 << 10;
const MOST_GROWTH_KIB: u64 = 256 << 10;

const OTHERS: [&str; 4] = [
    include_str!("../../../crds/examples/provider-pool.yaml"),
    include_str!("../../../crds/examples/provider-node.yaml"),
    include_str!("../../../crds/examples/escrow.yaml"),
    include_str!("../../../crds/examples/escrow-internal.yaml"),
];

/// How the runs ended: a fuzz that only ever meets one end tests nothing.
#[derive(Debug, Default)]
struct Ends {
    allowed: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
    read: AtomicU64,
    unreadable: AtomicU64,
}

struct Corpus {
    manifests: Vec<Value>,
    reviews: Vec<Value>,
}

fn corpus() -> Corpus {
    let others = OTHERS.iter().map(|text| serde_yaml_ng::from_str::<Value>(text).expect("an example is YAML"));
    let manifests: Vec<Value> = samples::tasks().into_iter().chain(others).collect();
    // What is wrong comes more often: most changes of it leave something to be told.
    let often = |(review, right)| std::iter::repeat_n(review, if right { 1 } else { 4 });
    let mut reviews: Vec<Value> = samples::reviews().into_iter().flat_map(often).collect();
    reviews.extend(manifests.iter().cloned().map(samples::stored).map(|object| samples::review("u", &object, Some(&object))));
    Corpus { manifests, reviews }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What of the process is, or ever was, in memory.
fn memory_kib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let digits = status.lines().find_map(|text| text.strip_prefix(line)).expect("the line");
    digits.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn no_tampered_review_or_manifest_panics_or_goes_without_an_answer() {
    let (seed, runs) = (number("SUPERCARGO_FUZZ_SEED").unwrap_or(1), number("SUPERCARGO_FUZZ_RUNS").unwrap_or(20_000));
    let (corpus, ends, panics) = (corpus(), Ends::default(), AtomicU64::new(0));
    let attempt = |run: u64| {
        let result = catch_unwind(AssertUnwindSafe(|| one(&corpus, &ends, Dice::of(seed, run))));
        let wrong = result.unwrap_or_else(|_| {
            panics.fetch_add(1, Ordering::Relaxed);
            Err("panicked".to_owned())
        });
        wrong.map_err(|why| format!("SUPERCARGO_FUZZ_SEED={seed} SUPERCARGO_FUZZ_RUN={run}: {why}"))
    };
    if let Some(run) = number("SUPERCARGO_FUZZ_RUN") {
        return attempt(run).expect("this run is right");
    }
    let before = memory_kib("VmRSS:");
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let attempt = &attempt;
        let part = |first: u64| move || (first..runs).step_by(threads as usize).filter_map(|run| attempt(run).err()).take(10).collect();
        let parts: Vec<_> = (0..threads).map(|first| scope.spawn(part(first))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|_| vec!["a thread of runs ended".to_owned()])).collect()
    });
    println!("fuzz: {runs} reviews and manifests from seed {seed}: {ends:?}");
    println!("figure kinds.fuzz_panics {} panics", panics.load(Ordering::Relaxed));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let grown = memory_kib("VmHWM:").saturating_sub(before);
    assert!(grown < MOST_GROWTH_KIB, "{grown} KiB more than before");
    for end in [&ends.allowed, &ends.refused, &ends.malformed, &ends.read, &ends.unreadable] {
        assert!(end.load(Ordering::Relaxed) > runs / 50, "each end is met: {ends:?}");
    }
}

/// One run: three of four are reviews.
fn one(corpus: &Corpus, ends: &Ends, mut dice: Dice) -> Result<(), String> {
    if dice.one_in(4) {
        let mut manifest = dice.pick(&corpus.manifests).clone();
        mutate(&mut manifest, &mut dice, &corpus.manifests);
        let text =
            if dice.one_in(2) { manifest.to_string() } else { serde_yaml_ng::to_string(&manifest).map_err(|error| error.to_string())? };
        let bytes = tamper(text.into_bytes(), &mut dice);
        return manifest_is_read_or_refused(&String::from_utf8_lossy(&bytes), manifest["kind"].as_str().unwrap_or_default(), ends);
    }
    let mut review = dice.pick(&corpus.reviews).clone();
    let place = dice.pick(&["/request/object/spec", "/request/object/spec", "/request/object", "/request", ""]);
    mutate(review.pointer_mut(place).expect("every review has these"), &mut dice, &corpus.reviews);
    review_is_answered(&tamper(review.to_string().into_bytes(), &mut dice), ends)
}

fn review_is_answered(body: &[u8], ends: &Ends) -> Result<(), String> {
    let Ok((answer, verdict)) = review::answer(body) else {
        ends.malformed.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    };
    let allowed = verdict == review::Verdict::Allowed;
    (if allowed { &ends.allowed } else { &ends.refused }).fetch_add(1, Ordering::Relaxed);
    let (text, response) = (answer.to_string(), &answer["response"]);
    let uid = response["uid"].as_str().ok_or("the answer has no uid")?;
    if text.len() > MOST_ANSWER_BYTES + 6 * uid.len() {
        return Err(format!("the answer has {} bytes", text.len()));
    }
    if answer["apiVersion"] != "admission.k8s.io/v1" || answer["kind"] != "AdmissionReview" || response["allowed"] != json!(allowed) {
        return Err(format!("not a review's answer: {text}"));
    }
    if !allowed && (response["status"]["code"] != 422 || response["status"]["message"].as_str().is_none_or(str::is_empty)) {
        return Err(format!("refused without a word: {text}"));
    }
    // What is nested too deep for a generic reader has no UID to compare with. Ours takes a list for an object as well, in
    // the order of the fields that it knows.
    let asked = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let field = |value: &Value, name: &str, index: usize| value.get(name).or_else(|| value.get(index)).cloned().unwrap_or_default();
    let request = field(&asked, "request", 1);
    if !asked.is_null() && field(&request, "uid", 0) != uid {
        return Err(format!("answers {uid:?} and not {}", field(&request, "uid", 0)));
    }
    (serde_json::from_str::<Value>(&text).ok() == Some(answer)).then_some(()).ok_or_else(|| "the answer doesn't read back".to_owned())
}

fn manifest_is_read_or_refused(text: &str, kind: &str, ends: &Ends) -> Result<(), String> {
    let read = match kind {
        "ProviderPool" => reads_back::<ProviderPool>(text, validate::pool),
        "ProviderNode" => reads_back::<ProviderNode>(text, |_| Vec::new()),
        "Escrow" => reads_back::<Escrow>(text, |_| Vec::new()),
        _ => reads_back::<ComputeTask>(text, validate::task),
    }?;
    (if read { &ends.read } else { &ends.unreadable }).fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Whether the text can be read; what can be is judged, and is the same again when it is written and read.
fn reads_back<K: DeserializeOwned + Serialize + PartialEq + Debug>(text: &str, judge: fn(&K) -> Vec<Finding>) -> Result<bool, String> {
    let Some(object) = serde_json::from_str::<K>(text).ok().or_else(|| serde_yaml_ng::from_str(text).ok()) else { return Ok(false) };
    for finding in judge(&object) {
        if finding.field.is_empty() || finding.message.is_empty() {
            return Err(format!("a finding without a word: {finding:?}"));
        }
    }
    let written = serde_json::to_string(&object).map_err(|error| format!("can't be written: {error}"))?;
    let again: K = serde_json::from_str(&written).map_err(|error| format!("can't be read again: {error}: {written}"))?;
    if again == object { Ok(true) } else { Err(format!("is another one when it is read again: {written}")) }
}
