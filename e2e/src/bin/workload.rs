//! `workload`: what tasks of the tests and the demo run. `--for SECONDS` works that long, `--exit CODE` ends with it,
//! `--say TEXT` writes it, `--fill BYTES` writes a file of that size, `--shm yes` writes what /dev/shm is, `--heed yes` works no longer than until
//! it is told of its budget, and writes that. With `--worker NUMBER` all but `--for` is that worker's.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How /dev/shm is mounted, with its size, by the kernel's own list: of two mounts there the later counts.
fn shared_memory() -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_else(|error| format!("reading the mounts: {error}"));
    let there = mounts.lines().rfind(|line| line.split_whitespace().nth(1) == Some("/dev/shm"));
    there.unwrap_or("nothing is mounted at /dev/shm").to_owned()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let ours = given("--worker").is_none_or(|worker| std::env::var("SUPERCARGO_WORKER").as_ref() == Ok(worker));
    let value = |name: &str| given(name).filter(|_| ours || name == "--for");
    let gpus = std::env::var("NVIDIA_VISIBLE_DEVICES").unwrap_or_else(|_| "no GPU".to_owned());
    println!("task {} sees {gpus}", std::env::var("SUPERCARGO_TASK").unwrap_or_default());
    if let Some(text) = value("--say") {
        println!("{text}");
    }
    if value("--shm").is_some() {
        println!("{}", shared_memory());
    }
    if let Some(bytes) = value("--fill").and_then(|bytes| bytes.parse::<usize>().ok()) {
        let block = vec![1_u8; 1 << 20];
        let mut file = match std::fs::File::create("/tmp/fill") {
            Ok(file) => file,
            Err(error) => {
                println!("making a file: {error}");
                return ExitCode::from(2);
            }
        };
        for _ in 0..bytes.div_ceil(block.len()) {
            if let Err(error) = file.write_all(&block) {
                println!("writing: {error}");
                return ExitCode::from(2);
            }
        }
    }
    let seconds = value("--for").and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or_default();
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let heeded = value("--heed").and_then(|_| std::env::var_os("SUPERCARGO_NOTICE"));
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let notice = heeded.as_ref().map(|file| std::fs::read_to_string(file).unwrap_or_else(|error| format!("reading it: {error}")));
        if let Some(notice) = notice.filter(|notice| !notice.is_empty()) {
            println!("{notice}");
            break;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    println!("done");
    ExitCode::from(value("--exit").and_then(|code| code.parse().ok()).unwrap_or(0))
}
