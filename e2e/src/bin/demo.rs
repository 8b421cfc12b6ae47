//! `demo`: one task from apply to payment, in the local cluster.

use std::process::ExitCode;
use supercargo_e2e::cluster::Layout;
use supercargo_e2e::{demo, http};

#[tokio::main]
async fn main() -> ExitCode {
    http::install_tls();
    let layout = match Layout::here() {
        Ok(layout) => layout,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match demo::run(&layout).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
