//! `image`: writes the container images from the binaries beside it, and prints each one's digest.

use anyhow::Result;
use supercargo_e2e::cluster::Layout;
use supercargo_e2e::image;

fn main() -> Result<()> {
    for written in image::write_all(&Layout::here()?)? {
        println!("{:<40} {} {}", written.name, written.digest, written.path.display());
        if written.name == image::OPERATOR.name {
            // Megabytes, and a tenth of one is as exact as anybody needs.
            println!("figure bedrock.image_size {}.{} MB", written.bytes / 1_000_000, written.bytes % 1_000_000 / 100_000);
        }
    }
    Ok(())
}
