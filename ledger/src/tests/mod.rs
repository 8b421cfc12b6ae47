//! One suite for both databases. SQLite is always there; PostgreSQL when its programs are installed.

mod cases;
mod copies;
mod faults;
mod fences;
mod histories;
mod kin;
mod owners;
#[path = "../../../e2e/src/postgres.rs"]
#[allow(dead_code, reason = "its other half is for measuring")]
mod postgres;
mod postings;
mod receipts;
mod rounds;
mod silence;
mod standing;
mod vouchers;

use crate::{Charge, Fence, Ledger, Posting};
use postgres::Postgres;
use sqlx::Executor;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use supercargo_market::asset::Asset;
use supercargo_market::fees::{FeeSchedule, FeeShare};
use supercargo_market::metering::Evidence;
use supercargo_market::money::Amount;
use supercargo_market::rating::{self, Held};
use supercargo_market::work::{FundingId, SegmentId, WorkId};
use tempfile::TempDir;

/// Makes each function a test on each database.
macro_rules! on_both {
    ($(async fn $name:ident($place:ident: Place) $body:block)*) => {
        $(async fn $name($place: Place) $body)*
        mod on_sqlite {
            $(#[tokio::test] async fn $name() { super::$name(super::Place::sqlite()).await; })*
        }
        mod on_postgres {
            $(#[tokio::test] async fn $name() {
                if let Some(place) = super::Place::postgres().await { super::$name(place).await; }
            })*
        }
    };
}
use on_both;

/// Where a test's own books are.
struct Place {
    url: String,
    folder: TempDir,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { url: format!("sqlite://{}", folder.path().join("books.db").display()), folder }
    }

    /// A schema of the one server of this process; `None` when there is no server.
    async fn postgres() -> Option<Self> {
        static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
        static SCHEMAS: AtomicU32 = AtomicU32::new(0);
        let server = SERVER.get_or_init(|| Postgres::start().inspect_err(|error| println!("skipped: {error:#}")).ok()).as_ref()?;
        let schema = format!("books_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        sqlx::any::install_default_drivers();
        let mut connection = <sqlx::AnyConnection as sqlx::Connection>::connect(&server.url()).await.expect("connects");
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await.expect("makes a schema");
        let folder = tempfile::tempdir().expect("a folder");
        Some(Self { url: format!("{}&options[search_path]={schema}", server.url()), folder })
    }

    fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite")
    }

    async fn books(&self) -> (Ledger, Fence) {
        let ledger = Ledger::open(&self.url).await.expect("opens");
        let fence = ledger.take_lead("test").await.expect("leads");
        (ledger, fence)
    }
}

fn account() -> FundingId {
    FundingId::chain("default", "0xaa")
}

fn usdc() -> Asset {
    Asset::of(&account(), "USDC")
}

fn units(units: u64) -> Amount {
    Amount::from_units(units)
}

fn fund(deposited: u64) -> Posting {
    Posting::Fund { funding: account(), asset: usdc(), deposited: units(deposited), withdrawn: Amount::ZERO }
}

fn reserve(work: &str, amount: u64) -> Posting {
    Posting::Reserve {
        work: WorkId::task(work),
        funding: account(),
        asset: usdc(),
        amount: units(amount),
        detail: "{}".into(),
        parent: None,
    }
}

/// A charge of one base unit a second.
fn charge(work: &str, segment: u32, seconds: u64) -> Posting {
    let held = Held { devices: 1, device_price: "0.0036".parse().expect("a price"), ..Held::default() };
    Posting::Charge(Charge {
        work: WorkId::task(work),
        attempt: 0,
        segment: SegmentId::of_pod(format!("pod-of-{work}"), segment),
        seconds,
        evidence: Evidence::Record,
        place: "acme/n1".into(),
        fault: false,
        cost: rating::cost(&held, seconds).expect("fits"),
        payee: Some(7),
        fees: FeeSchedule { basis_points: 1_000, shares: vec![FeeShare { payee: 1, basis_points: 10_000 }] },
        metered: None,
        day: 0,
    })
}

fn release(work: &str) -> Posting {
    Posting::Release { work: WorkId::task(work) }
}
