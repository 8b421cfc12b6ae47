//! Where an operator dies: after so many rows that it has written into its books the database takes nothing more of it, and from
//! then on it sends nothing. What a transaction had written until then is not there, as if the process had ended.

use sqlx::{AnyConnection, Connection, Executor, Row};
use tokio::sync::Mutex;

/// What paying writes to.
const TABLES: [&str; 8] = ["facts", "journal", "posts", "attempts", "lanes", "fundings", "vouchers", "charges"];

/// Another connection to the books of an operator.
pub(super) struct Fuse(Mutex<AnyConnection>);

impl Fuse {
    pub(super) async fn of(url: &str) -> Self {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(url).await.expect("connects");
        let mut text = "CREATE TABLE fuse (rows_left INTEGER NOT NULL); INSERT INTO fuse VALUES (-1);".to_owned();
        for table in TABLES {
            for event in ["INSERT", "UPDATE", "DELETE"] {
                text += &format!(
                    "CREATE TRIGGER fuse_{table}_{event} BEFORE {event} ON {table} BEGIN \
                     SELECT RAISE(ABORT, 'simulated: it died') FROM fuse WHERE rows_left = 0; \
                     UPDATE fuse SET rows_left = rows_left - 1 WHERE rows_left > 0; END;"
                );
            }
        }
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(text))).await.expect("makes the fuse");
        Self(Mutex::new(connection))
    }

    /// From now on so many rows can be written. None: as many as anybody likes.
    pub(super) async fn lay(&self, rows: Option<u64>) {
        let rows = rows.map_or(-1, u64::cast_signed);
        let update = sqlx::query("UPDATE fuse SET rows_left = $1").bind(rows);
        update.execute(&mut *self.0.lock().await).await.expect("lays the fuse");
    }

    /// Whether all that could be written is written.
    pub(super) async fn is_burnt(&self) -> bool {
        let row = sqlx::query("SELECT rows_left FROM fuse").fetch_one(&mut *self.0.lock().await).await;
        row.expect("reads the fuse").get::<i64, _>(0) == 0
    }
}
