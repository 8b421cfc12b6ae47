//! `supercargo-operator books`: checks, copies and restores the books, beside an operator that runs or without one.

use crate::runtime::Config;
use crate::runtime::config::Database;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use supercargo_ledger::{Expect, Reader, Verified, restore, sibling, verify_export};
use supercargo_market::work::WorkId;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes the journal into a file that anyone can verify
    Export {
        file: PathBuf,
        #[command(flatten)]
        expected: Expected,
    },
    /// Reads every entry of the journal once, and finds what was changed, left out or moved
    Verify {
        /// An exported journal; the books themselves when it is not given
        file: Option<PathBuf>,
        #[command(flatten)]
        expected: Expected,
    },
    /// Writes the receipt of a task, which its buyer checks with `kubectl supercargo receipt verify`
    Receipt {
        /// The task's UID
        uid: String,
        /// Where to; the standard output when it is not given
        file: Option<PathBuf>,
    },
    /// Copies all the books into a file, as they are at one moment
    Backup { file: PathBuf },
    /// Reads a backup into empty books, of either kind of database
    Restore {
        file: PathBuf,
        #[command(flatten)]
        expected: Expected,
    },
}

/// What must be true of the journal besides.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Expected {
    /// The public key that signed it, up to its last entry
    #[arg(long, value_parser = hash)]
    signer: Option<[u8; 32]>,
    /// The hash of one of its entries, as a post on the chain shows it
    #[arg(long, value_parser = hash)]
    head: Option<[u8; 32]>,
}

impl From<Expected> for Expect {
    fn from(Expected { signer, head }: Expected) -> Self {
        Self { signer, head }
    }
}

fn hash(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text.trim_start_matches("0x")).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "64 hexadecimal digits are wanted".to_owned())
}

/// Does what is asked for, and tells what came of it.
pub async fn run(config: &Path, url: Option<String>, command: Command) -> Result<String> {
    if let Command::Verify { file: Some(file), expected } = &command {
        let verified = verify_export(BufReader::new(open(file)?), (*expected).into())?;
        return Ok(format!("{}: {}", file.display(), told(&verified)));
    }
    let database = match url {
        Some(url) => Database { url, key_file: None },
        None => Config::read(config)?.database,
    };
    match command {
        Command::Verify { expected, .. } => Ok(told(&Reader::open(&database.url).await?.verify(expected.into()).await?)),
        Command::Export { file, expected } => {
            let reader = Reader::open(&database.url).await?;
            let mut out = Whole::create(&file)?;
            let verified = reader.export(&mut out.writer, expected.into()).await?;
            out.keep()?;
            Ok(format!("{}: {}", file.display(), told(&verified)))
        }
        Command::Receipt { uid, file } => {
            let found = Reader::open(&database.url).await?.receipt(&WorkId::task(uid.as_str())).await?;
            let receipt = found.with_context(|| format!("nothing was charged for a task with UID {uid}"))?;
            let Some(file) = file else { return Ok(receipt.text()) };
            let mut out = Whole::create(&file)?;
            writeln!(out.writer, "{}", receipt.text()).with_context(|| format!("writing {}", file.display()))?;
            out.keep()?;
            Ok(format!("{}: {} charges, digest {}", file.display(), receipt.body.charges.len(), receipt.digest))
        }
        Command::Backup { file } => {
            let reader = Reader::open(&database.url).await?;
            let mut out = Whole::create(&file)?;
            let copied = reader.backup(&mut out.writer).await?;
            out.keep()?;
            Ok(format!("{}: {} rows, digest {}", file.display(), copied.rows, copied.digest))
        }
        Command::Restore { file, expected } => {
            let from = BufReader::new(open(&file)?);
            let verified = restore(&database.url, database.key()?, from, expected.into()).await?;
            Ok(format!("restored: {}", told(&verified)))
        }
    }
}

fn open(file: &Path) -> Result<File> {
    File::open(file).with_context(|| format!("opening {}", file.display()))
}

fn told(verified: &Verified) -> String {
    let signed = match &verified.signer {
        Some(signer) => format!("signed up to {} by {}", verified.signed, hex::encode(signer)),
        None => "signed by nobody".to_owned(),
    };
    format!("journal {} is whole: {} entries, head {}, {signed}", verified.journal, verified.entries, hex::encode(verified.head))
}

/// A file that is there with all that belongs into it, or not at all.
struct Whole {
    file: PathBuf,
    partial: PathBuf,
    writer: BufWriter<File>,
}

impl Whole {
    fn create(file: &Path) -> Result<Self> {
        let partial = sibling(file, "partial");
        let writer = BufWriter::new(File::create(&partial).with_context(|| format!("writing {}", partial.display()))?);
        Ok(Self { file: file.to_owned(), partial, writer })
    }

    fn keep(mut self) -> Result<()> {
        let written = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        let kept = written.and_then(|()| std::fs::rename(&self.partial, &self.file));
        kept.with_context(|| format!("writing {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supercargo_ledger::{Charge, Ledger, Posting};
    use supercargo_market::fees::FeeSchedule;
    use supercargo_market::metering::Evidence;
    use supercargo_market::money::Amount;
    use supercargo_market::rating::{self, Held};
    use supercargo_market::receipt;
    use supercargo_market::work::{FundingId, SegmentId};

    #[tokio::test]
    async fn a_receipt_is_written_for_who_was_charged() {
        let folder = tempfile::tempdir().expect("a folder");
        let (url, file) = (format!("sqlite://{}", folder.path().join("books.db").display()), folder.path().join("receipt"));
        let ledger = Ledger::open(&url).await.expect("opens");
        let fence = ledger.take_lead("test").await.expect("leads");
        let (work, funding) = (WorkId::task("u"), FundingId::internal("e"));
        let (deposited, amount) = (Amount::from_units(1_000), Amount::from_units(500));
        let held = Held { devices: 1, device_price: "0.0036".parse().expect("a price"), ..Held::default() };
        let charge = Charge {
            work: work.clone(),
            attempt: 0,
            segment: SegmentId::of_pod("p", 0),
            seconds: 61,
            evidence: Evidence::Record,
            place: "acme/n1".into(),
            fault: false,
            cost: rating::cost(&held, 61).expect("fits"),
            payee: None,
            fees: FeeSchedule::default(),
            metered: None,
            day: 0,
        };
        let postings = [
            Posting::Fund {
                asset: supercargo_market::asset::Asset::of(&funding, "USDC"),
                funding: funding.clone(),
                deposited,
                withdrawn: Amount::ZERO,
            },
            Posting::Reserve {
                work: work.clone(),
                asset: supercargo_market::asset::Asset::of(&funding, "USDC"),
                funding,
                amount,
                detail: "{}".into(),
                parent: None,
            },
            Posting::Charge(charge),
            Posting::Release { work },
        ];
        ledger.commit(fence, &postings).await.expect("commits");
        let of = |uid: &str, file| run(Path::new("/no/configuration"), Some(url.clone()), Command::Receipt { uid: uid.into(), file });
        let error = of("v", None).await.expect_err("it was not charged").to_string();
        assert_eq!(error, "nothing was charged for a task with UID v");
        let told = of("u", Some(file.clone())).await.expect("is written");
        let text = of("u", None).await.expect("is written");
        assert_eq!(std::fs::read_to_string(&file).expect("is there"), format!("{text}\n"));
        let checked = receipt::verify(&text, &receipt::Expected::default(), &|_, _, _| false).expect("it holds");
        assert!(told.ends_with(&format!("1 charges, digest {}", hex::encode(checked.digest))), "{told}");
    }

    #[tokio::test]
    async fn the_books_are_copied_checked_and_restored_by_command() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let url = |name: &str| Some(format!("sqlite://{}", at(name).display()));
        let database = Database { url: url("books.db").expect("is given"), key_file: None };
        let key = database.key().expect("is made").expect("is beside the file");
        let expected = Expected { signer: Some(key.signer()), head: None };
        let ledger = Ledger::open_signed(&database.url, key).await.expect("opens");
        ledger.take_lead("test").await.expect("leads");
        let none = Path::new("/no/configuration");
        let tell = async |from: &str, command: Command| run(none, url(from), command).await.expect("is done");

        // The operator still has them open.
        let here = tell("books.db", Command::Verify { file: None, expected }).await;
        assert!(here.contains("is whole: 1 entries") && here.contains("signed up to 1 by"), "{here}");
        tell("books.db", Command::Export { file: at("journal"), expected }).await;
        let offline = run(none, None, Command::Verify { file: Some(at("journal")), expected }).await.expect("needs no books");
        assert!(offline.ends_with(&here), "{offline}");
        tell("books.db", Command::Backup { file: at("backup") }).await;
        assert_eq!(tell("again.db", Command::Restore { file: at("backup"), expected }).await, format!("restored: {here}"));
        let again = tell("again.db", Command::Verify { file: None, expected: Expected::default() }).await;
        assert!(again.contains("is whole: 2 entries"), "{again}");
        assert!(!at("journal.partial").exists() && !at("backup.partial").exists());
    }
}
