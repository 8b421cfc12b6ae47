//! How fast the books are, durably, and how small: prints each figure as `figure <name> <value> <unit>`. Beside them stand,
//! of the same run, what the disk itself does and what committing one by one does.

#[path = "../../e2e/src/postgres.rs"]
#[allow(dead_code, unused_imports, reason = "its other half is for tests")]
mod postgres;

use anyhow::{Context, Result, ensure};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use supercargo_ledger::{Charge, Fence, JournalKey, Ledger, Outcome, Posting, Reader};
use supercargo_market::asset::Asset;
use supercargo_market::fees::{FeeSchedule, FeeShare};
use supercargo_market::journal::{Envelope, Hash};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::receipt::{DeviceSource, Devices, Ended, Metered};
use supercargo_market::work::{FundingId, SegmentId, WorkId};

/// So many wait for an answer at any time, twice as many as one transaction answers: while it is written, the others' postings
/// are made. Some of them share an account.
const CALLERS: u32 = 4_096;
const ACCOUNTS: u32 = 64;
/// So many reserve at once when one reservation's time is measured.
const RESERVING: u32 = 32;
const MEASURED: Duration = Duration::from_secs(10);
const ENTRIES: u64 = 10_000_000;
/// Filling the books ends then, with as many entries as there are.
const FILLING: Duration = Duration::from_secs(180);
const BATCH: u64 = 1_000;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    // Beside the build's own files: a folder for temporary ones may be in memory.
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    println!("beside ledger.disk_rate {:.0} 1/s", disk_rate(folder.path())?);

    let path = folder.path().join("books.db");
    let url = format!("sqlite://{}", path.display());
    let (ledger, fence) = open(&url).await?;
    println!("beside ledger.sqlite_rate_one_by_one {:.0} 1/s", rate(&ledger, fence, "sqlite", "one", 1).await?);
    println!("figure ledger.sqlite_rate {:.0} 1/s", rate(&ledger, fence, "sqlite", "many", CALLERS).await?);
    let (half, most) = reserving(&ledger, fence).await?;
    println!("beside ledger.reserve_p50 {half:.2} ms");
    println!("figure ledger.reserve_p99 {most:.2} ms");
    println!("beside ledger.hold_5000 {:.1} ms", holding(&ledger, fence).await?);
    drop(ledger);
    let mut raw = AnyConnection::connect(&url).await?;
    sizes(&mut raw).await?;
    let entries = fill(&mut raw).await?;
    raw.close().await?;
    balances(&url, entries).await?;

    match postgres::Postgres::start_durable() {
        Ok(server) => {
            let (ledger, fence) = open(&server.url()).await?;
            println!("beside ledger.postgres_rate_one_by_one {:.0} 1/s", rate(&ledger, fence, "postgres", "one", 1).await?);
            println!("figure ledger.postgres_rate {:.0} 1/s", rate(&ledger, fence, "postgres", "many", CALLERS).await?);
            let (half, most) = reserving(&ledger, fence).await?;
            println!("beside ledger.postgres_reserve_p50 {half:.2} ms");
            println!("beside ledger.postgres_reserve_p99 {most:.2} ms");
            println!("beside ledger.postgres_hold_5000 {:.1} ms", holding(&ledger, fence).await?);
        }
        Err(error) => println!("skipped: {error:#}"),
    }
    Ok(())
}

/// How often a second this disk takes 8 KiB for good: what a transaction alone costs at least.
fn disk_rate(folder: &Path) -> Result<f64> {
    let mut file = File::create(folder.join("probe"))?;
    let (begun, writes) = (Instant::now(), 300);
    for _ in 0..writes {
        file.write_all(&[7; 8_192])?;
        file.sync_data()?;
    }
    Ok(f64::from(writes) / begun.elapsed().as_secs_f64())
}

async fn open(url: &str) -> Result<(Ledger, Fence)> {
    let key = JournalKey::from_seed(&[7; 32]).context("a seed is a key")?;
    let ledger = Ledger::open_signed(url, key).await?;
    let fence = ledger.take_lead("bench").await?;
    let funds: Vec<Posting> = (0..ACCOUNTS).map(fund).collect();
    ledger.commit(fence, &funds).await?;
    Ok((ledger, fence))
}

/// As long as a real one: a chain's account is a number of 256 bits.
fn account(caller: u32) -> FundingId {
    FundingId::chain("default", &format!("0x{:064x}", caller % ACCOUNTS))
}

fn usdc(caller: u32) -> Asset {
    Asset::of(&account(caller), "USDC")
}

fn fund(caller: u32) -> Posting {
    let deposited = Amount::from_units(1_000_000_000_000);
    Posting::Fund { funding: account(caller), asset: usdc(caller), deposited, withdrawn: Amount::ZERO }
}

/// As long as a UID.
fn uid(name: &str, caller: u32, work: u32) -> String {
    format!("{name:0<8}-0000-4000-8000-{caller:04}{work:08}")
}

fn reserve(uid: &str, caller: u32) -> Posting {
    let detail = r#"{"attempt":0,"node":"node-000123","pool":"pool-a","pod":"task-0-0","card":"0123456789abcdef"}"#.to_owned();
    Posting::Reserve {
        work: WorkId::task(uid),
        funding: account(caller),
        asset: usdc(caller),
        amount: Amount::from_units(2_000_000),
        detail,
        parent: None,
    }
}

fn charge(uid: &str, index: u32) -> Posting {
    let held = Held { devices: 1, device_price: "2.10".parse().expect("a price"), cpu_millis: 8_000, ..Held::default() };
    let shares = vec![
        FeeShare { payee: 1, basis_points: 9_000 },
        FeeShare { payee: 2, basis_points: 700 },
        FeeShare { payee: 3, basis_points: 300 },
    ];
    Posting::Charge(Charge {
        work: WorkId::task(uid),
        attempt: 0,
        segment: SegmentId::of_pod(uid, index),
        seconds: 61,
        evidence: Evidence::Record,
        place: "acme/n1".into(),
        fault: false,
        cost: rating::cost(&held, 61).expect("fits"),
        payee: Some(7),
        fees: FeeSchedule { basis_points: 250, shares },
        metered: Some(Box::new(metered())),
        day: 20_000,
    })
}

/// As much as there is to say of a worker with one device.
fn metered() -> Metered {
    let (from, until) = (1_800_000_000, 1_800_000_061);
    let devices = Devices {
        resource_name: "nvidia.com/gpu".into(),
        model: "NVIDIA-H100-80GB-HBM3".into(),
        count: 1,
        ids: vec!["GPU-00000000-0000-4000-8000-000000000001".into()],
        source: DeviceSource::Kubelet,
    };
    Metered {
        task: "team-a/train-0001".into(),
        worker: 0,
        provider: "acme".into(),
        node: "node-000123".into(),
        from,
        until,
        card: "00".repeat(32),
        devices,
        cpu_millis: 8_000,
        memory_bytes: 64 << 30,
        beside_per_hour: Default::default(),
        cut: None,
        added_seconds: 0,
        used: None,
        anomalies: Vec::new(),
        ended: Ended {
            exit_code: Some(0),
            image: Some(format!("example.com/image@sha256:{}", "00".repeat(32))),
            words: None,
            by_provider: false,
        },
    }
}

/// Postings a second while so many callers each wait for the answer to one posting before they send the next: a work is
/// reserved, charged twice and released.
async fn rate(ledger: &Ledger, fence: Fence, database: &str, name: &'static str, callers: u32) -> Result<f64> {
    let (begun, used) = (Instant::now(), cpu_seconds()?);
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut done = 0_u32;
                for work in 0.. {
                    let uid = uid(name, caller, work);
                    let release = Posting::Release { work: WorkId::task(uid.as_str()) };
                    for posting in [reserve(&uid, caller), charge(&uid, 0), charge(&uid, 1), release] {
                        let outcomes = ledger.commit(fence, &[posting]).await?;
                        ensure!(outcomes == [Outcome::Applied], "{uid}: {outcomes:?}");
                        done += 1;
                    }
                    if begun.elapsed() >= MEASURED {
                        break;
                    }
                }
                Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    let (rate, used) = (f64::from(done) / begun.elapsed().as_secs_f64(), cpu_seconds()? - used);
    println!("beside ledger.{database}_{name}_cpu {:.1} us", used * 1e6 / f64::from(done));
    Ok(rate)
}

/// What this process has used of the processors: what is left of a rate's time, others used or the disk took.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // After the name in brackets: user and system time are the 12th and 13th, in hundredths of a second.
    let ticks = stat.rsplit_once(')').context("a process has a name")?.1.split_whitespace().skip(11).take(2);
    Ok(ticks.map(|ticks| ticks.parse::<f64>()).sum::<Result<f64, _>>()? / 100.0)
}

/// How long a reservation takes until it is durable, while others reserve too: the median and the 99th of 100.
async fn reserving(ledger: &Ledger, fence: Fence) -> Result<(f64, f64)> {
    let tasks: Vec<_> = (0..RESERVING)
        .map(|caller| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                for work in 0..200 {
                    let posting = reserve(&uid("reserve", caller, work), caller);
                    let begun = Instant::now();
                    ensure!(ledger.commit(fence, &[posting]).await? == [Outcome::Applied], "a reservation was refused");
                    times.push(begun.elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Ok((part_of(&mut times, 50), part_of(&mut times, 99)))
}

/// How long it takes to tell the books what five thousand works have used, of those that were reserved just before: what
/// happens once a minute while they run.
async fn holding(ledger: &Ledger, fence: Fence) -> Result<f64> {
    let works: Vec<WorkId> = (0..5_000).map(|work| WorkId::task(uid("reserve", work % RESERVING, work / RESERVING))).collect();
    let mut times = Vec::new();
    for minute in 1..=9 {
        let used = works.iter().map(|work| (work.clone(), Amount::from_units(minute * 1_000))).collect();
        let begun = Instant::now();
        let outcomes = ledger.commit(fence, &[Posting::Hold { at: minute.cast_signed() * 60, works: used }]).await?;
        ensure!(outcomes == [Outcome::Applied], "{outcomes:?}");
        times.push(begun.elapsed());
    }
    Ok(part_of(&mut times, 50))
}

/// In milliseconds.
fn part_of(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

async fn number(raw: &mut AnyConnection, query: &'static str) -> Result<u64> {
    Ok(sqlx::query(query).fetch_one(raw).await?.get::<i64, _>(0).unsigned_abs())
}

/// What the journal of a real load takes, all pages of its table counted.
async fn sizes(raw: &mut AnyConnection) -> Result<()> {
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    let entries = number(raw, "SELECT MAX(sequence) FROM journal").await?;
    let journal = number(raw, "SELECT SUM(pgsize) FROM dbstat WHERE name = 'journal'").await?;
    let all = number(raw, "SELECT SUM(pgsize) FROM dbstat").await?;
    println!("figure ledger.entry_size {} B", journal.div_ceil(entries));
    println!("beside ledger.books_size {} B", all.div_ceil(entries));
    Ok(())
}

/// Continues the journal with charges until it has ten million entries, or until it took too long.
async fn fill(raw: &mut AnyConnection) -> Result<u64> {
    raw.execute("PRAGMA synchronous = OFF").await?;
    let journal: String = sqlx::query("SELECT value FROM facts WHERE name = 'journal'").fetch_one(&mut *raw).await?.get(0);
    let row = sqlx::query("SELECT sequence, hash FROM journal ORDER BY sequence DESC LIMIT 1").fetch_one(&mut *raw).await?;
    let mut sequence = row.get::<i64, _>(0).unsigned_abs();
    let mut previous: Hash = row.get::<Vec<u8>, _>(1).as_slice().try_into()?;
    let begun = Instant::now();
    let places = ["(?, ?, 'posting', ?)"].repeat(usize::try_from(BATCH)?);
    let insert = format!("INSERT INTO journal (sequence, hash, kind, payload) VALUES {}", places.join(", "));
    while sequence < ENTRIES && begun.elapsed() < FILLING {
        let mut rows = sqlx::query(AssertSqlSafe(insert.as_str()));
        for _ in 0..BATCH {
            sequence += 1;
            let uid = uid("filled", 0, u32::try_from(sequence)?);
            let payload = format!(
                r#"{{"posting":"charge","work":"task:{uid}","segment":"pod/{uid}/0/0","attempt":0,"seconds":61,"evidence":"Record","amount":35583}}"#
            );
            let envelope = Envelope { journal: &journal, sequence, previous, kind: "posting", payload: payload.as_bytes(), signer: None };
            previous = envelope.hash();
            rows = rows.bind(sequence.cast_signed()).bind(previous.to_vec()).bind(payload);
        }
        rows.execute(&mut *raw).await?;
    }
    let head = format!("{sequence}:{}", hex::encode(previous));
    sqlx::query("UPDATE facts SET value = $1 WHERE name = 'head'").bind(head).execute(&mut *raw).await?;
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    println!("beside ledger.balance_entries {sequence} entries");
    Ok(sequence)
}

async fn balances(url: &str, entries: u64) -> Result<()> {
    let ledger = Ledger::open(url).await?;
    let mut times = Vec::new();
    for index in 0..5_000 {
        let funding = account(index * 7);
        let begun = Instant::now();
        ensure!(ledger.funding(&funding).await?.is_some(), "an account is missing");
        times.push(begun.elapsed());
    }
    println!("figure ledger.balance_time {:.3} ms", part_of(&mut times, 99));
    drop(ledger);
    let begun = Instant::now();
    let verified = Reader::open(url).await?.verify(Default::default()).await?;
    ensure!(verified.entries == entries, "{} of {entries} entries were verified", verified.entries);
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = entries as f64 / begun.elapsed().as_secs_f64();
    println!("beside ledger.verify_rate {rate:.0} 1/s");
    Ok(())
}
