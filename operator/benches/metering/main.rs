//! The fault matrix of the books: prints a table, and each figure as `figure <name> <value> <unit>`. Beside the books stand
//! a poller and samplers that measure the same containers.

mod matrix;

use matrix::faults;
use matrix::report::{self, Whole};

/// So many a row at least.
const CONTAINERS: usize = 10_000;

fn main() {
    let containers = std::env::var("SUPERCARGO_METERING_CONTAINERS").ok().and_then(|text| text.parse().ok()).unwrap_or(CONTAINERS);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| unreachable!("a runtime: {error}"));
    println!("{}", report::head());
    let mut rows = Vec::new();
    for (seed, faults) in (1..).zip(faults::rows()) {
        let row = runtime.block_on(matrix::row(&faults, containers, seed));
        report::lines(&row).iter().for_each(|line| println!("{line}"));
        rows.push(row);
    }
    tell(&Whole::of(&rows));
}

fn tell(whole: &Whole) {
    println!("figure metering.containers {} containers", whole.containers);
    println!("figure metering.error_max {:.3} s", whole.errors.most());
    println!("figure metering.bias {:.4} s", whole.errors.mean().abs());
    println!("figure metering.missed {} pods", whole.missed);
    println!("figure metering.double_billed {:.3} s", whole.double_seconds);
    println!("beside metering.gpu_billed_max {:.4} x", whole.busiest);
    println!("beside metering.unrecorded_over_max {:.3} s", whole.incomplete_over);
    println!("beside metering.two_clocks_error_p99 {:.3} s", whole.together.within(990));
    println!("beside metering.two_clocks_error_max {:.3} s", whole.together.most());
    println!("beside metering.set_clock_over_max {:.3} s", whole.set.over());
    println!("beside metering.false_faults {} pods", whole.false_faults);
    println!("beside metering.used_over_max {:.3} s", whole.used_over);
    println!("beside metering.used_wrong {} containers", whole.used_wrong);
    println!("beside metering.used_unsaid_max {:.3} s", whole.used_unsaid);
}
