//! Images in the nodes, without a registry: each archive is imported once, and again when its digest has changed.

use super::{ClusterInfo, Layout, shell};
use crate::image::Written;
use anyhow::{Context, Result};

/// The tag under which this very build can be named: another build has another.
pub fn build_tag(written: &Written) -> String {
    written.digest.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Puts the images into every node's container runtime.
pub fn ensure(layout: &Layout, info: &ClusterInfo, images: &[Written]) -> Result<()> {
    for node in &info.nodes {
        for image in images {
            let mark = layout.node(node).join("images").join(image.name.replace('/', "_"));
            if std::fs::read_to_string(&mark).is_ok_and(|known| known == image.digest) {
                continue;
            }
            import(layout, node, image)?;
            std::fs::create_dir_all(mark.parent().context("a mark lies in a folder")?).context("making the folder of marks")?;
            std::fs::write(&mark, &image.digest).with_context(|| format!("writing {}", mark.display()))?;
        }
    }
    Ok(())
}

fn import(layout: &Layout, node: &str, image: &Written) -> Result<()> {
    let socket = layout.containerd_socket(node).display().to_string();
    let ctr = layout.bin("ctr").display().to_string();
    let archive = image.path.display().to_string();
    let images = ["--address", socket.as_str(), "--namespace", "k8s.io", "images"];
    shell::run(&ctr, images.iter().copied().chain(["import", "--local", "--snapshotter", "overlayfs", &archive]))
        .with_context(|| format!("putting {} into {node}", image.name))?;
    let by_build = format!("{}:{}", image.name.split(':').next().unwrap_or(image.name), build_tag(image));
    shell::run(&ctr, images.iter().copied().chain(["tag", "--force", image.name, &by_build]))
        .with_context(|| format!("naming {by_build} in {node}"))?;
    Ok(())
}
