//! The local chain: anvil, which writes what it knows to a file every few seconds. A chain that is killed comes back as it was
//! at the last write; a write that was cut off is made good by a copy of the one before.

use super::layout::{ClusterInfo, Layout};
use super::process::{Processes, Spec};
use crate::wait;
use anyhow::{Context, Result, bail};
use serde::de::IgnoredAny;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const CHAIN_ID: u64 = 31337;

/// How much a killed chain may forget. Each write is of all its blocks: about 150 MB after a day.
const WRITE_SECONDS: &str = "5";
/// Newest first.
const STATES: [&str; 3] = ["chain.json", "chain.json.kept", "chain.json.older"];

/// Keeps a second copy: only of a file that was not written meanwhile, and that ends as a whole one does. Still two, since
/// one alone might have been cut off just there.
const KEEPER: &str = "while sleep 5; do
  cp chain.json chain.json.half 2> /dev/null || continue
  cmp -s chain.json chain.json.half && [ \"$(tail -c 1 chain.json.half)\" = '}' ] || continue
  cmp -s chain.json.half chain.json.kept && continue
  [ ! -e chain.json.kept ] || mv -f chain.json.kept chain.json.older
  mv -f chain.json.half chain.json.kept
done";

/// A local chain with a block each second and finality after one epoch of one block.
pub async fn ensure(layout: &Layout, info: &ClusterInfo, processes: &Processes) -> Result<()> {
    if processes.alive("chain").is_none() {
        // Whatever is left of it must not write while the state is looked at.
        processes.end("chain").await?;
        restore(&layout.cluster())?;
    }
    let gateway = info.subnet.gateway().to_string();
    let args = [
        "--host",
        &gateway,
        "--port",
        &info.ports.chain.to_string(),
        "--chain-id",
        &CHAIN_ID.to_string(),
        "--block-time",
        "1",
        "--slots-in-an-epoch",
        "1",
        "--silent",
        "--state",
        &layout.cluster().join(STATES[0]).display().to_string(),
        "--state-interval",
        WRITE_SECONDS,
    ]
    .map(str::to_owned)
    .to_vec();
    let started = processes.ensure(&Spec::new("chain", layout.bin("anvil"), args)).await?;
    let keeper = vec!["-c".to_owned(), KEEPER.to_owned()];
    processes.ensure(&Spec::new("chain-keeper", PathBuf::from("sh"), keeper)).await?;
    if started {
        wait::until("the chain to answer", Duration::from_secs(20), || async {
            let ended = || wait::Hopeless(format!("the chain ended:\n{}", processes.last_words("chain")));
            anyhow::ensure!(processes.alive("chain").is_some(), ended());
            Ok(crate::http::rpc(&info.chain_url, "eth_chainId", serde_json::json!([])).await.ok().map(drop))
        })
        .await?;
    }
    Ok(())
}

/// Puts the newest state that is whole in place, so that anvil begins with it.
fn restore(folder: &Path) -> Result<()> {
    let mut broken = Vec::new();
    for name in STATES {
        let file = folder.join(name);
        let Ok(bytes) = std::fs::read(&file) else { continue };
        if serde_json::from_slice::<IgnoredAny>(&bytes).is_err() {
            broken.push(file);
            continue;
        }
        if name != STATES[0] {
            let (half, place) = (folder.join("chain.json.half"), folder.join(STATES[0]));
            std::fs::write(&half, bytes).with_context(|| format!("writing {}", half.display()))?;
            std::fs::rename(&half, &place).with_context(|| format!("putting {} in place", place.display()))?;
        }
        return Ok(());
    }
    if let Some(file) = broken.first() {
        bail!("the chain's state in {} is damaged, and so is every copy of it: run `make down`, then `make up`", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    #[test]
    fn a_state_that_was_cut_off_is_replaced_by_the_newest_whole_copy() {
        for (files, expected) in [
            (vec![("chain.json", "{\"a\": 3}"), ("chain.json.kept", "{\"a\": 2}")], "{\"a\": 3}"),
            (vec![("chain.json", "{\"a\": "), ("chain.json.kept", "{\"a\": 2}"), ("chain.json.older", "{}")], "{\"a\": 2}"),
            (vec![("chain.json", ""), ("chain.json.kept", "{\"a\": {}"), ("chain.json.older", "{\"a\": 1}")], "{\"a\": 1}"),
            (vec![("chain.json.older", "{\"a\": 1}")], "{\"a\": 1}"),
        ] {
            let folder = folder(&files);
            restore(folder.path()).unwrap();
            assert_eq!(std::fs::read_to_string(folder.path().join("chain.json")).unwrap(), expected);
        }
    }

    #[test]
    fn a_chain_begins_anew_only_where_there_was_none() {
        restore(folder(&[]).path()).unwrap();
        let said = restore(folder(&[("chain.json", "{\"a\"")]).path()).unwrap_err().to_string();
        assert!(said.contains("is damaged") && said.contains("`make down`"), "{said}");
    }
}
