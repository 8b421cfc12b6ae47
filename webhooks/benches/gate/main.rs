//! How fast and how small the gate is: the program itself, alone on one core, asked over TLS by clients on the others.
//! Prints each figure as `figure <name> <value> <unit>`; beside the times, those of a bare echo over TLS in the same place.

mod client;
mod echo;
mod process;
#[path = "../../src/samples.rs"]
mod samples;

use client::Target;
use process::Running;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "gate.test.svc";
const OFFERED_PER_SECOND: u32 = 5_000;
const CONNECTIONS: u32 = 20;
const PHASE: Duration = Duration::from_secs(8);
const PEER_PHASE: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let [_, role, certificate, key] = arguments.as_slice()
        && role == "echo"
    {
        return echo::serve(Path::new(certificate), Path::new(key));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let trusted = process::write_pair(&certificate, &key);
    let echo = Running::start(Command::new(std::env::current_exe().expect("a path")).arg("echo").arg(&certificate).arg(&key));
    let gate = Running::start(
        Command::new(std::env::var_os("CARGO_BIN_EXE_supercargo-gate").expect("cargo says where it is"))
            .args(["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"])
            .arg("--certificate-file")
            .arg(&certificate)
            .arg("--key-file")
            .arg(&key),
    );
    process::leave_the_first_core();
    measure(&gate, &echo, &trusted);
}

fn measure(gate: &Running, echo: &Running, trusted: &str) {
    let questions = samples::reviews().into_iter().map(|(review, right)| client::question(&review, Some(right)));
    let target = Target::new(gate.address, trusted, questions.collect());
    // The echo gives back what it was sent: nothing is to be found in it but the same length.
    let questions = samples::reviews().into_iter().map(|(review, _)| client::question(&review, None));
    let peer = Target::new(echo.address, trusted, questions.collect());
    println!("reviews of {} B on average, both right and wrong, on {CONNECTIONS} connections that are kept", target.mean_bytes());

    target.flat_out(CONNECTIONS, Duration::from_secs(1));
    let used = gate.cpu_seconds();
    let started = Instant::now();
    let asked = target.flat_out(CONNECTIONS, PHASE);
    let (used, wall) = (gate.cpu_seconds() - used, started.elapsed().as_secs_f64());
    let before = echo.cpu_seconds();
    let echoed = peer.flat_out(CONNECTIONS, PEER_PHASE) / (echo.cpu_seconds() - before);
    println!("figure gate.reviews_rate {:.0} 1/s", asked / used);
    println!(
        "  for each second of its core's time; the clients and all else left it {:.0} % of the core; by the clock on the wall:",
        100.0 * used / wall
    );
    println!("figure gate.reviews_rate_wall {:.0} 1/s", asked / wall);
    println!("  peer: a bare echo of the same bytes over TLS, in each second of the core's time, {echoed:.0}");

    let paced = target.paced(CONNECTIONS, OFFERED_PER_SECOND, PHASE);
    let echoed = peer.paced(CONNECTIONS, OFFERED_PER_SECOND, PEER_PHASE);
    let seconds = paced.latency_of_seconds(99.0);
    println!("figure gate.review_p99 {:.3} ms", seconds[seconds.len() / 2]);
    println!(
        "  in the median second of {}, with {OFFERED_PER_SECOND}/s offered, each from when it was due; p99 of the best second {:.3} ms, of the worst {:.3} ms",
        seconds.len(),
        seconds[0],
        seconds[seconds.len() - 1]
    );
    println!("figure gate.review_p99_all {:.3} ms", paced.latency(99.0));
    println!("  over all of them at once, the worst second's too; p50 {:.3} ms, p90 {:.3} ms", paced.latency(50.0), paced.latency(90.0));
    println!("  of which the clients were late by themselves: p50 {:.3} ms, p99 {:.3} ms", paced.lateness(50.0), paced.lateness(99.0));
    let seconds = echoed.latency_of_seconds(99.0);
    println!(
        "  peer: the echo at the same pace, p50 {:.3} ms, p99 of its median second {:.3} ms",
        echoed.latency(50.0),
        seconds[seconds.len() / 2]
    );

    let large = Target::new(gate.address, trusted, vec![largest()]);
    let answered = large.flat_out(4, Duration::from_secs(2));
    println!("figure gate.memory {:.1} MiB", gate.peak_mib());
    println!(
        "  its peak after {:.0} reviews, {answered:.0} of them of {} KiB, four at a time",
        asked + paced.count(),
        large.mean_bytes() >> 10
    );
}

/// A change of a task about as large as an API server stores one.
fn largest() -> client::Question {
    let mut old = samples::stored(samples::tasks().remove(0));
    old["spec"]["args"] = (0..512).map(|_| json!("x".repeat(2_500))).collect();
    let mut new = old.clone();
    new["spec"]["budget"] = json!("9.00");
    client::question(&samples::review("5d3f4a92-9c1e-4d5b-8a7e-000000000000", &new, Some(&old)), Some(true))
}
