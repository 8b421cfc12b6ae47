//! Bringing books to this version's form: each step once, in its own transaction. The steps are written in SQLite's
//! words; the few that PostgreSQL has others for are exchanged here.

use crate::store::Dialect;
use crate::{LedgerError, Result};
use sqlx::{Any, AnyPool, AssertSqlSafe, Row, Transaction};

const STEPS: [&str; 13] = [
    include_str!("../migrations/0001_books.sql"),
    include_str!("../migrations/0002_signed_heads.sql"),
    include_str!("../migrations/0003_records.sql"),
    include_str!("../migrations/0005_vouchers.sql"),
    include_str!("../migrations/0006_receipts.sql"),
    include_str!("../migrations/0007_standing.sql"),
    include_str!("../migrations/0008_cases.sql"),
    include_str!("../migrations/0009_open.sql"),
    include_str!("../migrations/0010_assets.sql"),
    include_str!("../migrations/0011_kin.sql"),
    include_str!("../migrations/0012_replaced.sql"),
    include_str!("../migrations/0013_payees.sql"),
    include_str!("../migrations/0014_steps.sql"),
];
/// This version's form: how many steps lead to it.
pub(crate) const FORM: usize = STEPS.len();
/// What keeps the journal append-only in PostgreSQL.
const POSTGRES_TRIGGERS: &str = include_str!("../migrations/postgres_triggers.sql");
/// The number is arbitrary: replicas that start together wait for each other at it.
const WAIT_FOR_OTHERS: &str = "SELECT pg_advisory_xact_lock(7093240517)";

fn doing() -> impl Fn(sqlx::Error) -> LedgerError {
    LedgerError::database("bringing the books to this version's form")
}

pub(crate) async fn run(pool: &AnyPool, dialect: Dialect) -> Result<()> {
    run_to(pool, dialect, FORM).await
}

/// The first `until` steps.
pub(crate) async fn run_to(pool: &AnyPool, dialect: Dialect, until: usize) -> Result<()> {
    // Looking takes no lock: books that have the form already are opened also when they are read-only or in use.
    if form(pool, dialect).await? == until {
        return Ok(());
    }
    match dialect {
        Dialect::Sqlite => {
            let done = form(pool, dialect).await?;
            for (index, step) in STEPS.iter().enumerate().take(until).skip(done) {
                let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(doing())?;
                execute(&mut transaction, (*step).to_owned()).await?;
                execute(&mut transaction, format!("PRAGMA user_version = {}", index + 1)).await?;
                transaction.commit().await.map_err(doing())?;
            }
        }
        Dialect::Postgres => {
            let mut transaction = pool.begin().await.map_err(doing())?;
            execute(&mut transaction, WAIT_FOR_OTHERS.to_owned()).await?;
            let done = postgres_form(&mut transaction).await?;
            for step in &STEPS[done..until] {
                execute(&mut transaction, for_postgres(step)).await?;
            }
            execute(&mut transaction, POSTGRES_TRIGGERS.to_owned()).await?;
            let put = "INSERT INTO facts (name, value) VALUES ('form', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            sqlx::query(put).bind(until.to_string()).execute(&mut *transaction).await.map_err(doing())?;
            transaction.commit().await.map_err(doing())?;
        }
    }
    Ok(())
}

/// That books which are only read have this version's form.
pub(crate) async fn check(pool: &AnyPool, dialect: Dialect) -> Result<()> {
    let theirs = form(pool, dialect).await?;
    if theirs == FORM { Ok(()) } else { Err(LedgerError::Older { theirs, ours: FORM }) }
}

/// How many steps are done.
async fn form(pool: &AnyPool, dialect: Dialect) -> Result<usize> {
    let mut transaction = pool.begin().await.map_err(doing())?;
    let theirs = match dialect {
        Dialect::Sqlite => {
            let row = sqlx::query("PRAGMA user_version").fetch_one(&mut *transaction).await.map_err(doing())?;
            usize::try_from(row.get::<i64, _>(0)).unwrap_or(usize::MAX)
        }
        Dialect::Postgres => postgres_form(&mut transaction).await?,
    };
    if theirs > FORM { Err(LedgerError::Newer { theirs, ours: FORM }) } else { Ok(theirs) }
}

async fn postgres_form(transaction: &mut Transaction<'_, Any>) -> Result<usize> {
    let exists = "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'facts' AND schemaname = current_schema()";
    if sqlx::query(exists).fetch_one(&mut **transaction).await.map_err(doing())?.get::<i64, _>(0) == 0 {
        return Ok(0);
    }
    let row = sqlx::query("SELECT value FROM facts WHERE name = 'form'").fetch_optional(&mut **transaction).await.map_err(doing())?;
    let form: Option<String> = row.map(|row| row.get(0));
    form.and_then(|form| form.parse().ok()).ok_or_else(|| LedgerError::Broken("the table facts does not say the books' form".to_owned()))
}

async fn execute(transaction: &mut Transaction<'_, Any>, text: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut **transaction).await.map(drop).map_err(doing())
}

fn for_postgres(step: &str) -> String {
    let statements = step.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA").replace("lower(hex(hash))", "encode(hash, 'hex')");
    let statements = statements.replace("instr(", "strpos(").replace(") STRICT, WITHOUT ROWID;", ");").replace(") STRICT;", ");");
    // A trigger's body is another language there: they are in a file of their own.
    statements.lines().filter(|line| !line.starts_with("CREATE TRIGGER")).collect::<Vec<_>>().join("\n")
}
