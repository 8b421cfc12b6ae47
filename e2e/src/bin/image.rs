//! `image`: writes the container images from the binaries beside it, and prints each one's digest.

use anyhow::Result;
use std::process::ExitCode;
use supercargo_e2e::cluster::Layout;
use supercargo_e2e::image;

fn main() -> ExitCode {
    if let Err(error) = run() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run() -> Result<()> {
    let layout = Layout::here()?;
    image::refuse_strays(&layout)?;
    for written in image::write_all(&layout)? {
        println!("{:<40} {} {}", written.name, written.digest, written.path.display());
        if written.name == image::OPERATOR.name {
            // Megabytes, and a tenth of one is as exact as anybody needs.
            println!("figure bedrock.image_size {}.{} MB", written.bytes / 1_000_000, written.bytes % 1_000_000 / 100_000);
        }
    }
    Ok(())
}
