//! Many rows in few statements: a group of a thousand postings costs little more of them than one posting does. The number
//! of rows of a statement is one of three, so that a database has seen each statement before.

use crate::{LedgerError, Result};
use serde_json::Value;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

/// So many rows or keys one statement has.
const SIZES: [usize; 3] = [100, 10, 1];

/// A column, and what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    Text(&'static str),
    Number(&'static str),
    Bytes(&'static str),
}
use Column::{Bytes, Number, Text};

/// What stands in a column of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
    Null,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&[u8]> for Cell {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

type Statement = Query<'static, Any, AnyArguments>;

impl Column {
    fn name(self) -> &'static str {
        match self {
            Text(name) | Number(name) | Bytes(name) => name,
        }
    }

    /// A database wants to know of which kind even a NULL is.
    fn bind(self, statement: Statement, cell: Cell) -> Statement {
        match (self, cell) {
            (_, Cell::Text(text)) => statement.bind(text),
            (_, Cell::Number(number)) => statement.bind(number),
            (_, Cell::Bytes(bytes)) => statement.bind(bytes),
            (Text(_), Cell::Null) => statement.bind(None::<String>),
            (Number(_), Cell::Null) => statement.bind(None::<i64>),
            (Bytes(_), Cell::Null) => statement.bind(None::<Vec<u8>>),
        }
    }

    /// A row's value as it stands in a file.
    fn read(self, row: &AnyRow, index: usize) -> Value {
        match self {
            Text(_) => row.get::<Option<String>, _>(index).into(),
            Number(_) => row.get::<Option<i64>, _>(index).into(),
            Bytes(_) => row.get::<Option<Vec<u8>>, _>(index).map(hex::encode).into(),
        }
    }

    /// What `read` made; `None` when it is of another kind.
    fn write(self, value: &Value) -> Option<Cell> {
        match (self, value) {
            (_, Value::Null) => Some(Cell::Null),
            (Text(_), Value::String(text)) => Some(Cell::Text(text.clone())),
            (Number(_), Value::Number(number)) => number.as_i64().map(Cell::Number),
            (Bytes(_), Value::String(digits)) => hex::decode(digits).ok().map(Cell::Bytes),
            _ => None,
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
        Number("held"),
        Number("shortfall"),
        Number("absorbed"),
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
        Text("metered"),
        Number("entry"),
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

pub(crate) const RECORDS: Table =
    Table { name: "records", keys: 1, columns: &[Text("place"), Number("served_seconds"), Number("faults"), Number("disagreements")] };

pub(crate) const VOUCHERS: Table = Table {
    name: "vouchers",
    keys: 2,
    columns: &[
        Text("funding"),
        Number("payee"),
        Number("total"),
        Number("chain_id"),
        Text("contract"),
        Text("signer"),
        Bytes("signature"),
        Number("signed_at"),
    ],
};

pub(crate) const CARDS: Table = Table { name: "cards", keys: 1, columns: &[Text("hash"), Text("card")] };

pub(crate) const HOLDS: Table = Table { name: "holds", keys: 1, columns: &[Text("work"), Number("used"), Number("seen")] };
pub(crate) const DAYS: Table = Table { name: "days", keys: 2, columns: &[Text("funding"), Number("day"), Number("charged")] };

pub(crate) const CASES: Table =
    Table { name: "cases", keys: 2, columns: &[Text("funding"), Number("payee"), Number("clawback"), Number("fees")] };

/// Every table, each after those that it refers to. A backup names them by their numbers here: a new one comes last.
pub(crate) const TABLES: [&Table; 14] =
    [&FACTS, &FUNDINGS, &RESERVATIONS, &POSTS, &CHARGES, &LANES, &ATTEMPTS, &JOURNAL, &RECORDS, &VOUCHERS, &CARDS, &HOLDS, &DAYS, &CASES];

impl Table {
    fn names(&self) -> String {
        self.columns.iter().map(|column| column.name()).collect::<Vec<_>>().join(", ")
    }

    fn key_names(&self) -> String {
        self.columns[..self.keys].iter().map(|column| column.name()).collect::<Vec<_>>().join(", ")
    }

    /// Adds rows: the cells of one after the other.
    pub(crate) async fn insert(&self, transaction: &mut Transaction<'_, Any>, cells: Vec<Cell>, doing: &'static str) -> Result<()> {
        self.run(transaction, cells, "", doing).await
    }

    /// Adds rows, and puts them in the place of those that have their keys.
    pub(crate) async fn put(&self, transaction: &mut Transaction<'_, Any>, cells: Vec<Cell>, doing: &'static str) -> Result<()> {
        let others = self.columns[self.keys..].iter().map(|column| format!("{0} = excluded.{0}", column.name()));
        let conflict = format!("ON CONFLICT ({}) DO UPDATE SET {}", self.key_names(), others.collect::<Vec<_>>().join(", "));
        self.run(transaction, cells, &conflict, doing).await
    }

    /// Adds rows; where there is one of that key, its `growing` columns grow by theirs.
    pub(crate) async fn grow(
        &self,
        transaction: &mut Transaction<'_, Any>,
        growing: &[&str],
        cells: Vec<Cell>,
        doing: &'static str,
    ) -> Result<()> {
        let grown = growing.iter().map(|column| format!("{column} = {}.{column} + excluded.{column}", self.name));
        let conflict = format!("ON CONFLICT ({}) DO UPDATE SET {}", self.key_names(), grown.collect::<Vec<_>>().join(", "));
        self.run(transaction, cells, &conflict, doing).await
    }

    async fn run(&self, transaction: &mut Transaction<'_, Any>, cells: Vec<Cell>, conflict: &str, doing: &'static str) -> Result<()> {
        let width = self.columns.len();
        let (mut left, mut cells) = (cells.len() / width, cells.into_iter());
        let numbered = numbered(transaction);
        while left > 0 {
            let rows = largest(left);
            left -= rows;
            let text = format!("INSERT INTO {} ({}) VALUES {} {conflict}", self.name, self.names(), places(numbered, rows, width));
            let columns = self.columns.iter().cycle();
            let statement = columns
                .zip(cells.by_ref().take(rows * width))
                .fold(sqlx::query(AssertSqlSafe(text)), |statement, (column, cell)| column.bind(statement, cell));
            statement.execute(&mut **transaction).await.map_err(LedgerError::database(doing))?;
        }
        Ok(())
    }

    /// The rows that have these keys, with all columns.
    pub(crate) async fn find(
        &self,
        transaction: &mut Transaction<'_, Any>,
        keys: impl ExactSizeIterator<Item = &String>,
        doing: &'static str,
    ) -> Result<Vec<AnyRow>> {
        let mut found = Vec::new();
        let (mut left, mut keys) = (keys.len(), keys.cloned());
        let numbered = numbered(transaction);
        while left > 0 {
            let rows = largest(left);
            left -= rows;
            let key = self.columns[0].name();
            let text = format!("SELECT {} FROM {} WHERE {key} IN {}", self.names(), self.name, places(numbered, 1, rows));
            let statement = keys.by_ref().take(rows).fold(sqlx::query(AssertSqlSafe(text)), Query::bind);
            found.extend(statement.fetch_all(&mut **transaction).await.map_err(LedgerError::database(doing))?);
        }
        Ok(found)
    }

    /// Takes the rows away that have these keys.
    pub(crate) async fn remove(
        &self,
        transaction: &mut Transaction<'_, Any>,
        keys: impl ExactSizeIterator<Item = &String>,
        doing: &'static str,
    ) -> Result<()> {
        let (mut left, mut keys) = (keys.len(), keys.cloned());
        let numbered = numbered(transaction);
        while left > 0 {
            let rows = largest(left);
            left -= rows;
            let key = self.columns[0].name();
            let text = format!("DELETE FROM {} WHERE {key} IN {}", self.name, places(numbered, 1, rows));
            let statement = keys.by_ref().take(rows).fold(sqlx::query(AssertSqlSafe(text)), Query::bind);
            statement.execute(&mut **transaction).await.map_err(LedgerError::database(doing))?;
        }
        Ok(())
    }

    /// A query of all rows in the order of their keys.
    pub(crate) fn select_all(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("SELECT {} FROM {} ORDER BY {}", self.names(), self.name, self.key_names()))
    }

    /// A row as it stands in a file.
    pub(crate) fn read(&self, row: &AnyRow) -> Value {
        self.columns.iter().enumerate().map(|(index, column)| column.read(row, index)).collect::<Vec<_>>().into()
    }

    /// What `read` made; `None` when it is no row of this table.
    pub(crate) fn write(&self, row: &Value) -> Option<Vec<Cell>> {
        let values = row.as_array().filter(|values| values.len() == self.columns.len())?;
        self.columns.iter().zip(values).map(|(column, value)| column.write(value)).collect()
    }
}

fn largest(rows: usize) -> usize {
    SIZES.into_iter().find(|size| *size <= rows).unwrap_or(1)
}

/// PostgreSQL wants the places of values numbered. SQLite takes that too, but looks each number up among all of them.
fn numbered(transaction: &Transaction<'_, Any>) -> bool {
    transaction.backend_name() != "SQLite"
}

/// `(?, ?), (?, ?)`: so many rows of so many places.
fn places(numbered: bool, rows: usize, width: usize) -> String {
    if !numbered {
        let row = format!("({})", ["?"].repeat(width).join(", "));
        return [row.as_str()].repeat(rows).join(", ");
    }
    let mut text = String::with_capacity(rows * width * 7);
    for place in 0..rows * width {
        text.push_str(match (place % width, place) {
            (0, 0) => "($",
            (0, _) => "), ($",
            _ => ", $",
        });
        text.push_str(&(place + 1).to_string());
    }
    text.push(')');
    text
}
