//! Bad databases: each is one clear error that says what to do, and nothing is lost.

use super::*;
use crate::migrate;
use crate::store::{Access, Store};
use crate::{Expect, LedgerError, Reader};
use sqlx::Connection;

async fn raw(url: &str) -> sqlx::AnyConnection {
    sqlx::any::install_default_drivers();
    sqlx::AnyConnection::connect(url).await.expect("connects")
}

async fn opened(url: &str) -> String {
    Ledger::open(url).await.expect_err("is refused").to_string()
}

on_both! {
    async fn books_of_a_newer_operator_are_left_alone(place: Place) {
        drop(place.books().await);
        let newer = if place.is_sqlite() { "PRAGMA user_version = 99" } else { "UPDATE facts SET value = '99' WHERE name = 'form'" };
        raw(&place.url).await.execute(newer).await.expect("is set");
        let ours = migrate::FORM;
        let words = format!("the books have form 99 and this operator knows {ours}: they were written by a newer one, which has to open them");
        assert_eq!(opened(&place.url).await, words);
        assert_eq!(Reader::open(&place.url).await.expect_err("is refused").to_string(), words);
    }

    async fn books_of_an_older_operator_are_brought_up_to_date_with_all_that_they_hold(place: Place) {
        let (pool, dialect) = Store::connect(&place.url, Access::Write).await.expect("connects");
        migrate::run_to(&pool, dialect, 1).await.expect("makes the first form");
        for statement in [
            "INSERT INTO facts (name, value) VALUES ('journal', 'j'), ('fence', '4')",
            "INSERT INTO fundings (id, asset, deposited, available, owed) VALUES ('chain:default:0xaa', 'USDC', 9, 7, 2), ('internal:u', 'USDC', 0, 0, 0)",
            "INSERT INTO reservations (work, funding, reserved, charged, absorbed, open, detail) \
             VALUES ('task:a', 'chain:default:0xaa', 0, 2, 5, 0, '{}')",
        ] {
            sqlx::query(statement).execute(&pool).await.expect(statement);
        }
        let (kind, payload) = ("lead", r#"{"holder":"h","fence":4}"#);
        let (previous, signer) = (supercargo_market::journal::GENESIS, None);
        let envelope =
            supercargo_market::journal::Envelope { journal: "j", sequence: 1, previous, kind, payload: payload.as_bytes(), signer };
        let insert = "INSERT INTO journal (sequence, hash, kind, payload) VALUES (1, $1, $2, $3)";
        let insert = sqlx::query(insert).bind(envelope.hash().to_vec()).bind(kind).bind(payload);
        insert.execute(&pool).await.expect("an old entry");
        let ours = migrate::FORM;
        let words = format!("the books have form 1 and this program reads {ours}: start this version's operator once, it brings them up to date");
        assert_eq!(Reader::open(&place.url).await.expect_err("is refused").to_string(), words);
        pool.close().await;

        let ledger = Ledger::open(&place.url).await.expect("opens");
        assert_eq!(ledger.take_lead("new").await.expect("leads").number(), 5);
        assert_eq!(ledger.verify().await.expect("verifies").entries, 2);
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!((balance.available, balance.absorbed), (units(7), units(5)));
        assert_eq!(balance.asset, usdc());
        let grant = ledger.funding(&FundingId::internal("u")).await.expect("reads").expect("is there");
        assert_eq!(grant.asset.to_string(), "internal/USDC/6");
    }

    async fn read_only_books_say_so(place: Place) {
        drop(place.books().await);
        let option = if place.is_sqlite() { "?mode=ro" } else { "&options[default_transaction_read_only]=on" };
        let error = match Ledger::open(&format!("{}{option}", place.url)).await {
            Ok(ledger) => ledger.take_lead("test").await.expect_err("can't be written").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.ends_with("the books are read-only. Mount their volume writable, or name the primary server; nothing of this was written"), "{error}");
        Reader::open(&place.url).await.expect("opens").verify(Expect::default()).await.expect("can be read");
    }

    async fn books_that_another_program_locks_say_so_and_go_on_afterwards(place: Place) {
        let (ledger, fence) = place.books().await;
        if place.is_sqlite() {
            // Only so that the test need not wait for as long as an operator does.
            ledger.pool().execute("PRAGMA busy_timeout = 50").await.expect("is set");
        }
        let mut other = raw(&place.url).await;
        let lock = if place.is_sqlite() { "BEGIN EXCLUSIVE" } else { "BEGIN; LOCK TABLE facts IN ACCESS EXCLUSIVE MODE" };
        other.execute(sqlx::raw_sql(lock)).await.expect("locks");
        let error = ledger.commit(fence, &[fund(1)]).await.expect_err("is locked").to_string();
        assert!(error.contains("another program holds the books locked"), "{error}");
        other.execute("ROLLBACK").await.expect("unlocks");
        assert_eq!(ledger.commit(fence, &[fund(1)]).await.expect("commits"), [crate::Outcome::Applied]);
    }

    async fn two_operators_do_not_write_the_same_books(place: Place) {
        let (first, fence) = place.books().await;
        if place.is_sqlite() {
            let path = place.folder.path().join("books.db");
            let words = format!(
                "the books at {} are open in another operator: one SQLite file has one operator. Stop the other one, or use PostgreSQL",
                path.display()
            );
            assert_eq!(opened(&place.url).await, words);
            drop(first);
            Ledger::open(&place.url).await.expect("opens once the first is gone");
        } else {
            let second = Ledger::open(&place.url).await.expect("replicas share a server");
            second.take_lead("second").await.expect("leads");
            let error = first.commit(fence, &[fund(1)]).await.expect_err("is fenced").to_string();
            assert_eq!(error, "another replica leads: its fence is 2 and ours was 1");
        }
    }

    async fn an_operator_that_dies_in_a_transaction_leaves_nothing_of_it(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000)]).await.expect("commits");
        let mut writing = ledger.store.begin(fence).await.expect("begins");
        sqlx::query("UPDATE fundings SET available = 1, reserved = 999").execute(&mut *writing.transaction).await.expect("writes");
        drop(writing);
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!((balance.available, balance.reserved), (units(1_000), units(0)));
    }
}

#[tokio::test]
async fn a_full_volume_is_an_error_that_says_so_and_loses_nothing() {
    let place = Place::sqlite();
    let (ledger, fence) = place.books().await;
    ledger.commit(fence, &[fund(1_000_000)]).await.expect("commits");
    ledger.pool().execute("PRAGMA max_page_count = 1").await.expect("no page can be added");
    let detail = "x".repeat(100_000);
    let large = Posting::Reserve { work: WorkId::task("a"), funding: account(), asset: usdc(), amount: units(5), detail, parent: None };
    let error = ledger.commit(fence, std::slice::from_ref(&large)).await.expect_err("is full").to_string();
    let words =
        "writing reservations: the books' volume is full. Make it larger or free space; nothing of this was written, and it is tried again";
    assert_eq!(error, words);
    assert!(ledger.open_reservations().await.expect("reads").is_empty());
    ledger.pool().execute("PRAGMA max_page_count = 1000000").await.expect("there is room again");
    assert_eq!(ledger.commit(fence, &[large]).await.expect("commits"), [crate::Outcome::Applied]);
    ledger.verify().await.expect("the journal is whole");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_as_such() {
    let place = Place::sqlite();
    std::fs::write(place.folder.path().join("books.db"), "nothing of ours".repeat(1_000)).expect("writes");
    let error = opened(&place.url).await;
    assert!(error.starts_with("opening the books: this is no database of ours, or it is damaged"), "{error}");
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_refused_without_their_password() {
    let error = opened("mysql://u:secret@host/books").await;
    assert_eq!(
        error,
        "the books' address \"mysql://u@host/books\" is not one: use sqlite:///path/to/books.db or postgres://user@host/database"
    );
    let error = opened("postgres://u:secret@127.0.0.1:1/books").await;
    assert!(error.starts_with("opening the books at postgres://u@127.0.0.1:1/books: ") && !error.contains("secret"), "{error}");
    assert!(matches!(Ledger::open("sqlite:///no/such/folder/books.db").await, Err(LedgerError::LockFile { .. })));
}
