//! `kubectl supercargo receipt`: checks a receipt with nothing but itself, and against a chain when it is asked to.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::path::{Path, PathBuf};
use supercargo_contracts::{Address, B256, Chain};
use supercargo_market::journal::Hash;
use supercargo_market::metering::{Cut, CutBy};
use supercargo_market::receipt::{self, Anchor, Checked, Expected, Receipt};
use supercargo_market::usage::Anomaly;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Checks that every charge follows from its card, that they add up, and that the journal and the posted roots hold them
    Verify {
        /// The receipt; `-` reads it from the standard input
        file: PathBuf,
        /// Its digest, as the task's status says it
        #[arg(long)]
        digest: Option<B256>,
        /// A root of usage lines, as a post on the chain shows it: every charge has to stand under a root, and one is this
        #[arg(long)]
        root: Option<B256>,
        /// The public key that signs the operator's journal: every charge has to be signed by it
        #[arg(long)]
        signer: Option<B256>,
        #[command(flatten)]
        on_chain: OnChain,
    },
}

/// Where the roots are looked up.
#[derive(Debug, Clone, Args)]
pub struct OnChain {
    /// An endpoint of the chain: its posts have to show the receipt's roots
    #[arg(long, requires = "contract")]
    rpc: Option<String>,
    /// The escrow contract's address: any other contract can say anything
    #[arg(long, env = "SUPERCARGO_CONTRACT")]
    contract: Option<Address>,
}

pub async fn run(command: Command) -> Result<()> {
    let Command::Verify { file, digest, root, signer, on_chain } = command;
    let text = read(&file)?;
    let expected = Expected { digest: digest.map(Into::into), root: root.map(Into::into), signer: signer.map(Into::into) };
    let checked = receipt::verify(&text, &expected, &is_signed)?;
    // It was read just before.
    let receipt: Receipt = serde_json::from_str(&text)?;
    print!("{}", words(&receipt, &checked));
    if let Some((rpc, contract)) = on_chain.rpc.zip(on_chain.contract) {
        ensure!(checked.anchored == checked.charges, "{} of {} charges stand under a root", checked.anchored, checked.charges);
        let chain = Chain::connect(&rpc)?;
        for anchor in &receipt.anchors {
            println!("  {}", look_up(&chain, contract, anchor).await?);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("reading the standard input");
    }
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

fn is_signed(signer: &Hash, hash: &Hash, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, signer).verify(hash, signature).is_ok()
}

/// What a receipt that holds says, in a few lines.
fn words(receipt: &Receipt, checked: &Checked) -> String {
    let body = &receipt.body;
    let named = body.charges.iter().find_map(|charge| charge.metered.as_ref()).map_or(&body.work, |metered| &metered.task);
    let mut lines = vec![format!("the receipt of {named} holds: {} {} charged", body.charged, body.token)];
    for charge in &body.charges {
        let place = charge.metered.as_ref().map(|metered| format!(" on {} of {}", metered.node, metered.provider)).unwrap_or_default();
        let seconds = charge.seconds;
        lines.push(format!("  {}: {seconds} s{place}, by {:?}: {}", charge.segment, charge.evidence, charge.amount));
        if let Some(added) = charge.metered.as_ref().map(|metered| metered.added_seconds).filter(|added| *added > 0) {
            lines.push(format!("    {added} s of them are added, up to its card's minimum"));
        }
        lines.extend(charge.metered.as_ref().and_then(|metered| metered.cut).map(shorter));
        for anomaly in charge.metered.iter().flat_map(|metered| &metered.anomalies) {
            lines.push(match anomaly {
                Anomaly::UseNotShown => "    nobody could show what CPU and memory it used: they are not charged".to_owned(),
                anomaly => format!("    two sources disagree: {anomaly:?}"),
            });
        }
    }
    if !body.absorbed.is_zero() {
        lines.push(format!("  the operator bears {}: it was not held back", body.absorbed));
    }
    let of =
        |part: usize| if part == checked.charges { "every charge".to_owned() } else { format!("{part} of {} charges", checked.charges) };
    lines.push(match checked.unrated {
        0 => "  every charge follows from its card".to_owned(),
        unrated => format!("  {} can't be calculated again: too little was kept of them", of(unrated)),
    });
    let by: Vec<String> = checked.signers.iter().map(|signer| B256::from(*signer).to_string()).collect();
    let by = if by.is_empty() { String::new() } else { format!(", {} is signed, by {}", of(checked.signed), by.join(" and ")) };
    lines.push(format!("  {} is in the journal{by}", of(checked.entered)));
    lines.push(format!("  {} stands under a root", of(checked.anchored)));
    lines.push(format!("  digest {}", receipt.digest));
    lines.join("\n") + "\n"
}

/// Why less is charged than a record says.
fn shorter(Cut { by, seconds }: Cut) -> String {
    let longer = match by {
        CutBy::OurClock => "than passed from its binding to its end, by the operator's clock",
        CutBy::NodeClock => "than can have passed, for its node's clock was set forward while it ran",
    };
    format!("    its record says {seconds} s more: that is longer {longer}")
}

/// Holds an anchor to what its post says on the chain.
async fn look_up(chain: &Chain, contract: Address, anchor: &Anchor) -> Result<String> {
    let root: B256 = anchor.root.parse().context("reading a root")?;
    let Some(transaction) = &anchor.transaction else { bail!("root {root} is not final on a chain yet") };
    let hash: B256 = transaction.parse().context("reading a transaction's hash")?;
    let found = chain.receipt(hash).await?.with_context(|| format!("the chain has no transaction {hash}"))?;
    let posted = found.posted.filter(|_| found.succeeded).with_context(|| format!("{hash} posted nothing"))?;
    ensure!(posted.contract == contract, "{hash} is a post of another contract, {}", posted.contract);
    ensure!(posted.lines_root == root, "{hash} posted the root {}, and the receipt says {root}", posted.lines_root);
    let head: B256 = anchor.journal_head.parse().context("reading a journal's head")?;
    ensure!(posted.journal_head == head, "{hash} posted the head {}, and the receipt says {head}", posted.journal_head);
    let is_final = chain.finalized().await?.block().is_some_and(|last| last.number >= found.block_number);
    let state = if is_final { "final" } else { "not final yet" };
    Ok(format!("root {root} was posted by {hash} in block {}: {state}", found.block_number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn receipt() -> Receipt {
        let charge = |worker: u32, metered: bool| {
            let metered = metered.then(|| {
                json!({
                    "task": "team/train", "worker": worker, "provider": "acme", "node": "n1", "from": 1, "until": 62, "card": "00",
                    "devices": { "resourceName": "nvidia.com/gpu", "model": "H100", "count": 1, "source": "Count" },
                    "cpuMillis": 1, "memoryBytes": 1, "addedSeconds": 29, "anomalies": ["OtherDevices"],
                })
            });
            json!({ "segment": format!("pod/p{worker}/0/0"), "attempt": 0, "seconds": 61, "evidence": "Record", "amount": "0.035", "entry": 5, "metered": metered })
        };
        let body = json!({
            "format": "supercargo.receipt.v1", "work": "task:u", "funding": "internal:e", "token": "USDC", "open": false,
            "charges": [charge(0, true), charge(1, false)], "cards": {}, "charged": "0.07", "absorbed": "0.01", "provider": "0",
        });
        serde_json::from_value(json!({ "body": body, "digest": "ab", "journal": { "name": "books", "stretches": [] }, "anchors": [] }))
            .expect("a receipt")
    }

    fn checked() -> Checked {
        Checked {
            digest: [0; 32],
            charged: "0.07".parse().expect("an amount"),
            charges: 2,
            anchored: 1,
            entered: 2,
            signed: 2,
            signers: [[7; 32]].into(),
            unrated: 1,
        }
    }

    #[test]
    fn a_receipt_that_holds_is_told_in_words() {
        let told = words(&receipt(), &checked());
        assert_eq!(
            told,
            format!(
                "the receipt of team/train holds: 0.07 USDC charged\n  pod/p0/0/0: 61 s on n1 of acme, by Record: 0.035\n    29 s of them are added, up to its card's minimum\n    \
                 two sources disagree: OtherDevices\n  pod/p1/0/0: 61 s, by Record: 0.035\n  the operator bears 0.01: it was not held back\n  \
                 1 of 2 charges can't be calculated again: too little was kept of them\n  every charge is in the journal, every charge \
                 is signed, by 0x{}\n  1 of 2 charges stands under a root\n  digest ab\n",
                "07".repeat(32)
            )
        );
    }

    #[test]
    fn what_a_record_was_cut_by_is_told_in_words() {
        let mut receipt = receipt();
        receipt.body.charges[0].metered.as_mut().expect("is kept").cut = Some(Cut { by: CutBy::OurClock, seconds: 833 });
        let told = words(&receipt, &checked());
        let line = "\n    its record says 833 s more: that is longer than passed from its binding to its end, by the operator's clock\n";
        assert!(told.contains(line), "{told}");
    }

    #[test]
    fn what_nobody_could_show_is_told_in_words_and_is_no_disagreement() {
        let mut receipt = receipt();
        receipt.body.charges[0].metered.as_mut().expect("is kept").anomalies = vec![Anomaly::UseNotShown];
        let told = words(&receipt, &checked());
        assert!(told.contains("\n    nobody could show what CPU and memory it used: they are not charged\n"), "{told}");
        assert!(!told.contains("disagree"), "{told}");
    }

    #[test]
    fn a_file_that_is_no_receipt_is_refused() {
        let error = receipt::verify("{}", &Expected::default(), &is_signed).expect_err("it is none");
        assert!(error.to_string().starts_with("this is no receipt: missing field"), "{error}");
    }
}
