//! Many rows in few statements: a group of a thousand postings costs little more of them than one posting does. The number
//! of rows of a statement is one of six, so that a database has seen each statement before.

use crate::{LedgerError, Result};
use futures::future::join;
use serde_json::Value;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

/// So many rows or keys one statement has.
const SIZES: [usize; 6] = [512, 128, 32, 8, 2, 1];

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
        Number("payee"),
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
    keys: 3,
    columns: &[
        Text("funding"),
        Number("payee"),
        Number("total"),
        Number("step"),
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

pub(crate) const KIN: Table = Table { name: "kin", keys: 1, columns: &[Text("work"), Text("parent"), Number("lent"), Number("below")] };

/// Every table, each after those that it refers to. A backup names them by their numbers here: a new one comes last.
pub(crate) const TABLES: [&Table; 15] = [
    &FACTS,
    &FUNDINGS,
    &RESERVATIONS,
    &POSTS,
    &CHARGES,
    &LANES,
    &ATTEMPTS,
    &JOURNAL,
    &RECORDS,
    &VOUCHERS,
    &CARDS,
    &HOLDS,
    &DAYS,
    &CASES,
    &KIN,
];

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

    /// While the database is busy with one statement, the next one is made.
    async fn run(&self, transaction: &mut Transaction<'_, Any>, cells: Vec<Cell>, conflict: &str, doing: &'static str) -> Result<()> {
        let numbered = numbered(transaction);
        let mut cells = cells.into_iter();
        let mut next = self.statement(&mut cells, conflict, numbered);
        while let Some(statement) = next {
            let following = async { self.statement(&mut cells, conflict, numbered) };
            let (done, made) = join(statement.execute(&mut **transaction), following).await;
            done.map_err(LedgerError::database(doing))?;
            next = made;
        }
        Ok(())
    }

    /// The next of the statements that add rows. `None`: all cells are in one.
    fn statement(&self, cells: &mut std::vec::IntoIter<Cell>, conflict: &str, numbered: bool) -> Option<Statement> {
        let width = self.columns.len();
        let rows = SIZES.into_iter().find(|size| *size <= cells.len() / width)?;
        let text = format!("INSERT INTO {} ({}) VALUES {} {conflict}", self.name, self.names(), places(numbered, rows, width));
        let columns = self.columns.iter().cycle();
        let cells = columns.zip(cells.take(rows * width));
        Some(cells.fold(sqlx::query(AssertSqlSafe(text)), |statement, (column, cell)| column.bind(statement, cell)))
    }

    /// The rows that have these keys, with all columns.
    pub(crate) async fn find(
        &self,
        transaction: &mut Transaction<'_, Any>,
        keys: impl ExactSizeIterator<Item = &String>,
        doing: &'static str,
    ) -> Result<Vec<AnyRow>> {
        let mut found = Vec::new();
        let begin = format!("SELECT {} FROM", self.names());
        for statement in self.of_keys(&begin, numbered(transaction), keys) {
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
        for statement in self.of_keys("DELETE FROM", numbered(transaction), keys) {
            statement.execute(&mut **transaction).await.map_err(LedgerError::database(doing))?;
        }
        Ok(())
    }

    /// Statements for all keys. The last one has its last key as often as it has places left: that finds it once.
    fn of_keys<'a>(&self, begin: &str, numbered: bool, keys: impl ExactSizeIterator<Item = &'a String>) -> impl Iterator<Item = Statement> {
        let keys: Vec<String> = keys.cloned().collect();
        let begin = format!("{begin} {} WHERE {} IN", self.name, self.columns[0].name());
        let statements: Vec<Statement> = keys
            .chunks(SIZES[0])
            .map(|keys| {
                let size = SIZES.into_iter().rev().find(|size| *size >= keys.len()).unwrap_or(keys.len());
                let text = format!("{begin} {}", places(numbered, 1, size));
                let rest = keys.last().into_iter().cycle().take(size - keys.len());
                keys.iter().chain(rest).cloned().fold(sqlx::query(AssertSqlSafe(text)), Query::bind)
            })
            .collect();
        statements.into_iter()
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
