//! Bringing books to this version's form: each step once, in its own transaction.

use crate::{LedgerError, Result};
use sqlx::{Row, SqlitePool};

const STEPS: [&str; 1] = [include_str!("../migrations/0001_books.sql")];

pub(crate) async fn run(pool: &SqlitePool) -> Result<()> {
    let failed = LedgerError::database("bringing the books to this version's form");
    let done: i64 = sqlx::query("PRAGMA user_version").fetch_one(pool).await.map_err(&failed)?.get(0);
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > STEPS.len() {
        return Err(LedgerError::Newer { theirs: done, ours: STEPS.len() });
    }
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(&failed)?;
        // A PRAGMA takes no parameters; the number is the loop's own.
        let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", index + 1));
        sqlx::query(version).execute(&mut *transaction).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
    }
    Ok(())
}
