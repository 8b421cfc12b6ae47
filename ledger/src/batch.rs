//! Many rows in one statement: they travel as one JSON text, which both databases take apart again. So a group of a
//! thousand postings costs as many statements as one posting does.

use crate::{LedgerError, Result};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

/// A column, and how its value travels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    Text(&'static str),
    Number(&'static str),
    /// As hexadecimal digits.
    Bytes(&'static str),
}
use Column::{Bytes, Number, Text};

impl Column {
    fn name(self) -> &'static str {
        match self {
            Text(name) | Number(name) | Bytes(name) => name,
        }
    }

    fn taken_from(self, index: usize) -> String {
        match self {
            Text(_) => format!("value ->> {index}"),
            Number(_) => format!("CAST(value ->> {index} AS BIGINT)"),
            Bytes(_) => format!("unhex(value ->> {index})"),
        }
    }

    /// A row's value as it travels.
    fn read(self, row: &AnyRow, index: usize) -> Value {
        match self {
            Text(_) => row.get::<Option<String>, _>(index).into(),
            Number(_) => row.get::<Option<i64>, _>(index).into(),
            Bytes(_) => row.get::<Option<Vec<u8>>, _>(index).map(hex::encode).into(),
        }
    }
}

/// A table: its key comes first among its columns.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) keys: usize,
    pub(crate) columns: &'static [Column],
}

pub(crate) const FACTS: Table = Table { name: "facts", keys: 1, columns: &[Text("name"), Text("value")] };
pub(crate) const FUNDINGS: Table = Table {
    name: "fundings",
    keys: 1,
    columns: &[
        Text("id"),
        Text("asset"),
        Number("deposited"),
        Number("withdrawn"),
        Number("available"),
        Number("reserved"),
        Number("owed"),
        Number("posted"),
    ],
};
pub(crate) const RESERVATIONS: Table = Table {
    name: "reservations",
    keys: 1,
    columns: &[
        Text("work"),
        Text("funding"),
        Number("reserved"),
        Number("charged"),
        Text("exact"),
        Text("split"),
        Number("absorbed"),
        Number("open"),
        Text("detail"),
    ],
};
pub(crate) const CHARGES: Table = Table {
    name: "charges",
    keys: 1,
    columns: &[
        Text("segment"),
        Text("work"),
        Text("funding"),
        Number("attempt"),
        Number("seconds"),
        Text("evidence"),
        Number("amount"),
        Bytes("salt"),
        Text("post"),
    ],
};
pub(crate) const LANES: Table =
    Table { name: "lanes", keys: 2, columns: &[Text("funding"), Number("payee"), Number("total"), Number("planned"), Number("posted")] };
pub(crate) const POSTS: Table = Table {
    name: "posts",
    keys: 1,
    columns: &[
        Text("id"),
        Text("funding"),
        Text("state"),
        Text("rows"),
        Number("amount"),
        Bytes("lines_root"),
        Bytes("journal_head"),
        Text("winner"),
        Number("block"),
        Number("planned_at"),
    ],
};
pub(crate) const ATTEMPTS: Table = Table {
    name: "attempts",
    keys: 1,
    columns: &[
        Text("hash"),
        Text("post"),
        Text("signer"),
        Number("nonce"),
        Bytes("raw"),
        Text("max_fee"),
        Number("fence"),
        Number("signed_at"),
    ],
};
pub(crate) const JOURNAL: Table = Table {
    name: "journal",
    keys: 1,
    columns: &[Number("sequence"), Bytes("hash"), Text("kind"), Text("payload"), Bytes("signer"), Bytes("signature")],
};

/// Every table, each after those that it refers to.
pub(crate) const TABLES: [&Table; 8] = [&FACTS, &FUNDINGS, &RESERVATIONS, &POSTS, &CHARGES, &LANES, &ATTEMPTS, &JOURNAL];

impl Table {
    fn names(&self, separator: &str, of: impl Fn(&'static str) -> String) -> String {
        self.columns.iter().map(|column| of(column.name())).collect::<Vec<_>>().join(separator)
    }

    fn insert_text(&self, conflict: &str) -> String {
        let taken: Vec<_> = self.columns.iter().enumerate().map(|(index, column)| column.taken_from(index)).collect();
        let names = self.names(", ", str::to_owned);
        // Without a WHERE, SQLite would take the conflict's ON for a join's.
        format!("INSERT INTO {} ({names}) SELECT {} FROM json_each($1) WHERE true {conflict}", self.name, taken.join(", "))
    }

    fn key_names(&self) -> Vec<&'static str> {
        self.columns[..self.keys].iter().map(|column| column.name()).collect()
    }

    /// Adds rows, each an array of all columns.
    pub(crate) async fn insert(&self, transaction: &mut Transaction<'_, Any>, rows: &[Value], doing: &'static str) -> Result<()> {
        run(transaction, self.insert_text(""), rows, doing).await
    }

    /// Adds rows, and puts them in the place of those that have their keys.
    pub(crate) async fn put(&self, transaction: &mut Transaction<'_, Any>, rows: &[Value], doing: &'static str) -> Result<()> {
        let others = self.columns[self.keys..].iter().map(|column| format!("{0} = excluded.{0}", column.name()));
        let conflict = format!("ON CONFLICT ({}) DO UPDATE SET {}", self.key_names().join(", "), others.collect::<Vec<_>>().join(", "));
        run(transaction, self.insert_text(&conflict), rows, doing).await
    }

    /// Adds rows; where there is one of that key, its `column` grows by theirs.
    pub(crate) async fn grow(
        &self,
        transaction: &mut Transaction<'_, Any>,
        column: &str,
        rows: &[Value],
        doing: &'static str,
    ) -> Result<()> {
        let keys = self.key_names().join(", ");
        let conflict = format!("ON CONFLICT ({keys}) DO UPDATE SET {column} = {}.{column} + excluded.{column}", self.name);
        run(transaction, self.insert_text(&conflict), rows, doing).await
    }

    /// The rows that have these keys, with all columns.
    pub(crate) async fn find(&self, transaction: &mut Transaction<'_, Any>, keys: &[Value], doing: &'static str) -> Result<Vec<AnyRow>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let names = self.names(", ", |name| format!("{}.{name}", self.name));
        let key = self.columns[0].name();
        let text = format!("SELECT {names} FROM json_each($1) JOIN {0} ON {0}.{key} = value ->> 0", self.name);
        let query = sqlx::query(AssertSqlSafe(text)).bind(json(keys)?);
        query.fetch_all(&mut **transaction).await.map_err(LedgerError::database(doing))
    }

    /// A query of all rows in the order of their keys.
    pub(crate) fn select_all(&self) -> AssertSqlSafe<String> {
        let names = self.names(", ", str::to_owned);
        AssertSqlSafe(format!("SELECT {names} FROM {} ORDER BY {}", self.name, self.key_names().join(", ")))
    }

    /// A row as it travels.
    pub(crate) fn read(&self, row: &AnyRow) -> Value {
        self.columns.iter().enumerate().map(|(index, column)| column.read(row, index)).collect::<Vec<_>>().into()
    }
}

async fn run(transaction: &mut Transaction<'_, Any>, text: String, rows: &[Value], doing: &'static str) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(AssertSqlSafe(text)).bind(json(rows)?);
    query.execute(&mut **transaction).await.map(drop).map_err(LedgerError::database(doing))
}

fn json(rows: &[Value]) -> Result<String> {
    serde_json::to_string(rows).map_err(|error| LedgerError::Broken(format!("rows can't be written: {error}")))
}
