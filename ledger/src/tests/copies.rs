//! The journal's proof, and the books' copies.

use super::*;
use crate::{Expect, JournalKey, LedgerError, Reader, migrate, restore, verify_export};

fn key(seed: u8) -> JournalKey {
    JournalKey::from_seed(&[seed; 32]).expect("a key")
}

/// Signed books with seven entries, of which each transaction's last is signed.
async fn signed_books(place: &Place) -> (Ledger, Fence) {
    let ledger = Ledger::open_signed(&place.url, key(1)).await.expect("opens");
    let fence = ledger.take_lead("test").await.expect("leads");
    ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
    ledger.commit(fence, &[charge("a", 1, 50), release("a")]).await.expect("commits");
    ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
    (ledger, fence)
}

fn exactly() -> Expect {
    Expect { signer: Some(key(1).signer()), head: None }
}

/// What an attacker does who may change the database's schema.
async fn tamper(place: &Place, ledger: &Ledger, statements: &[&str]) {
    let triggers: &[&str] = if place.is_sqlite() {
        &["DROP TRIGGER journal_is_append_only_update", "DROP TRIGGER journal_is_append_only_delete"]
    } else {
        &["DROP TRIGGER journal_is_append_only ON journal"]
    };
    for statement in triggers.iter().chain(statements) {
        sqlx::query(sqlx::AssertSqlSafe(*statement)).execute(ledger.pool()).await.expect(statement);
    }
}

async fn found(place: &Place, statements: &[&str]) -> String {
    let (ledger, _) = signed_books(place).await;
    tamper(place, &ledger, statements).await;
    let error = Reader::open(&place.url).await.expect("opens").verify(exactly()).await.expect_err("is found").to_string();
    error.strip_prefix("the books contradict themselves: ").expect("a contradiction").to_owned()
}

async fn exported(place: &Place) -> Vec<String> {
    let mut text = Vec::new();
    Reader::open(&place.url).await.expect("opens").export(&mut text, exactly()).await.expect("exports");
    String::from_utf8(text).expect("is text").lines().map(str::to_owned).collect()
}

fn check(lines: &[String], expect: Expect) -> Result<crate::Verified, LedgerError> {
    verify_export((lines.join("\n") + "\n").as_bytes(), expect)
}

async fn copy(place: &Place) -> Vec<u8> {
    let mut text = Vec::new();
    Reader::open(&place.url).await.expect("opens").backup(&mut text).await.expect("copies");
    text
}

/// Books of one kind in those of the other.
async fn other(place: &Place) -> Place {
    if place.is_sqlite() { Place::postgres().await.unwrap_or_else(Place::sqlite) } else { Place::sqlite() }
}

on_both! {
    async fn the_journal_can_not_be_changed_by_a_slip(place: Place) {
        let (ledger, _) = signed_books(&place).await;
        let instead = "INSERT INTO journal SELECT sequence, hash, kind, '{}', signer, signature FROM journal WHERE sequence = 2";
        let instead = if place.is_sqlite() {
            instead.replace("INSERT", "INSERT OR REPLACE")
        } else {
            format!("{instead} ON CONFLICT (sequence) DO UPDATE SET payload = excluded.payload")
        };
        for slip in ["UPDATE journal SET payload = '{}' WHERE sequence = 2", "DELETE FROM journal WHERE sequence = 2", &instead] {
            let refused = sqlx::query(sqlx::AssertSqlSafe(slip)).execute(ledger.pool()).await.expect_err(slip);
            assert!(refused.to_string().contains("the journal is append-only"), "{refused}");
        }
    }

    async fn the_last_entry_of_each_transaction_is_signed_and_covers_those_before(place: Place) {
        let (ledger, _) = signed_books(&place).await;
        let rows = sqlx::query("SELECT sequence FROM journal WHERE signature IS NOT NULL ORDER BY sequence").fetch_all(ledger.pool()).await;
        let signed: Vec<i64> = rows.expect("reads").iter().map(|row| sqlx::Row::get(row, 0)).collect();
        assert_eq!(signed, [1, 4, 6, 7]);
        let verified = ledger.verify().await.expect("verifies");
        assert_eq!((verified.entries, verified.signed, verified.signer), (7, 7, Some(key(1).signer())));
    }

    async fn a_changed_entry_is_found(place: Place) {
        let error = found(&place, &["UPDATE journal SET payload = '{}' WHERE sequence = 2"]).await;
        assert_eq!(error, "entry 2 of the journal was changed after it was written");
    }

    async fn an_entry_of_another_kind_is_found(place: Place) {
        let error = found(&place, &["UPDATE journal SET kind = 'lead' WHERE sequence = 6"]).await;
        assert_eq!(error, "entry 6 of the journal was changed after it was written");
    }

    async fn a_missing_entry_is_found(place: Place) {
        let error = found(&place, &["DELETE FROM journal WHERE sequence = 3"]).await;
        assert_eq!(error, "entry 3 of the journal is missing: entry 4 stands there");
    }

    async fn a_missing_last_entry_is_found(place: Place) {
        let error = found(&place, &["DELETE FROM journal WHERE sequence = 7"]).await;
        assert_eq!(error, "entry 7 of the journal is missing: it has 7 entries");
    }

    async fn reordered_entries_are_found(place: Place) {
        let swap = ["UPDATE journal SET sequence = 99 WHERE sequence = 2", "UPDATE journal SET sequence = 2 WHERE sequence = 3",
            "UPDATE journal SET sequence = 3 WHERE sequence = 99"];
        assert_eq!(found(&place, &swap).await, "entry 2 of the journal was changed after it was written");
    }

    async fn an_entry_that_was_added_is_found(place: Place) {
        let add = "INSERT INTO journal (sequence, hash, kind, payload) SELECT 8, hash, kind, payload FROM journal WHERE sequence = 7";
        assert_eq!(found(&place, &[add]).await, "entry 8 of the journal was changed after it was written");
    }

    async fn a_false_signature_is_found(place: Place) {
        let forge = "UPDATE journal SET signature = (SELECT signature FROM journal WHERE sequence = 1) WHERE sequence = 4";
        assert_eq!(found(&place, &[forge]).await, "entry 4 of the journal has a false signature");
    }

    async fn a_journal_that_is_hashed_anew_has_nobodys_signature(place: Place) {
        let (ledger, _) = signed_books(&place).await;
        // Who rewrites all entries has everything but the key.
        let forged = Ledger::open(&Place::sqlite().url).await.expect("opens");
        assert_eq!(forged.verify().await.expect("verifies").signer, None);
        tamper(&place, &ledger, &["DELETE FROM journal", "UPDATE facts SET value = '0:' || substr(value, 3, 0) || '0000000000000000000000000000000000000000000000000000000000000000' WHERE name = 'head'"]).await;
        drop(ledger);
        let unsigned = Ledger::open(&place.url).await.expect("opens");
        unsigned.take_lead("an impostor").await.expect("leads");
        let reader = Reader::open(&place.url).await.expect("opens");
        let error = reader.verify(exactly()).await.expect_err("is found").to_string();
        assert_eq!(error, "the books contradict themselves: nobody signed entries 1 to 1 of the journal");
    }

    async fn an_exported_journal_is_checked_without_the_books(place: Place) {
        let (ledger, _) = signed_books(&place).await;
        let lines = exported(&place).await;
        let verified = ledger.verify().await.expect("verifies");
        assert_eq!(check(&lines, exactly()).expect("verifies"), verified);
        assert_eq!(check(&lines, Expect { head: Some(verified.head), ..exactly() }).expect("verifies"), verified);
        let error = check(&lines, Expect { head: Some([9; 32]), signer: None }).expect_err("goes not so far").to_string();
        assert!(error.contains("no entry of the journal has the hash 0909"), "{error}");
        let error = check(&lines, Expect { signer: Some(key(2).signer()), head: None }).expect_err("is another's").to_string();
        assert!(error.contains("entry 1 of the journal is signed by"), "{error}");
    }

    async fn whatever_is_done_to_an_exported_journal_is_found(place: Place) {
        signed_books(&place).await;
        let lines = exported(&place).await;
        assert_eq!(lines.len(), 9);
        for index in 0..lines.len() {
            let mut less = lines.clone();
            less.remove(index);
            check(&less, exactly()).expect_err("a line is missing");
            let mut twice = lines.clone();
            twice.insert(index, lines[index].clone());
            check(&twice, exactly()).expect_err("a line is there twice");
            check(&lines[..index], exactly()).expect_err("it was cut off");
            for later in index + 1..lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(index, later);
                check(&swapped, exactly()).expect_err("lines changed places");
            }
        }
    }

    async fn every_changed_character_of_an_exported_journal_is_found(place: Place) {
        signed_books(&place).await;
        let lines = exported(&place).await;
        let text = lines.join("\n") + "\n";
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at].is_ascii_alphanumeric()) {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            let verified = verify_export(changed.as_slice(), exactly());
            assert!(verified.is_err(), "byte {at}: {}", &text[at.saturating_sub(30)..at + 1]);
        }
    }

    async fn a_backup_is_restored_with_everything_into_books_of_either_kind(place: Place) {
        let (ledger, _) = signed_books(&place).await;
        let backup = copy(&place).await;
        let other = other(&place).await;
        let verified = restore(&other.url, Some(key(1)), backup.as_slice(), exactly()).await.expect("restores");
        assert_eq!(verified, ledger.verify().await.expect("verifies"));

        let restored = Ledger::open_signed(&other.url, key(1)).await.expect("opens");
        assert_eq!(restored.funding(&account()).await.expect("reads"), ledger.funding(&account()).await.expect("reads"));
        assert_eq!(restored.lanes(&account()).await.expect("reads"), ledger.lanes(&account()).await.expect("reads"));
        assert_eq!(restored.open_posts().await.expect("reads"), ledger.open_posts().await.expect("reads"));
        assert_eq!(restored.work(&WorkId::task("a")).await.expect("reads"), ledger.work(&WorkId::task("a")).await.expect("reads"));
        // It goes on: what was charged is charged once here too, and the journal says that it was restored.
        let fence = restored.take_lead("after").await.expect("leads");
        assert_eq!(fence.number(), 2);
        let outcomes = restored.commit(fence, &[charge("a", 1, 50)]).await.expect("commits");
        assert_eq!(outcomes, [crate::Outcome::Already]);
        assert_eq!(restored.verify().await.expect("verifies").entries, verified.entries + 2);
    }

    async fn a_backup_that_was_changed_is_refused_and_leaves_empty_books(place: Place) {
        signed_books(&place).await;
        let backup = String::from_utf8(copy(&place).await).expect("is text");
        let lines: Vec<&str> = backup.lines().collect();
        let richer = backup.replacen(r#"/USDC/6",1000"#, r#"/USDC/6",1001"#, 1).replacen("850,0,150", "851,0,150", 1);
        assert_ne!(richer, backup);
        let form = |form: usize| format!(r#""form":{form}"#);
        let newer = backup.replacen(&form(migrate::FORM), &form(migrate::FORM + 1), 1);
        let older = backup.replacen(&form(migrate::FORM), &form(migrate::FORM - 1), 1);
        let target = Place::sqlite();
        for (changed, words) in [
            (richer, "the backup was changed after it was written: its digest is another"),
            (lines[..lines.len() - 1].join("\n"), "the file ends before the backup does: it was cut off here"),
            (lines[1..].join("\n"), "this is no backup of books: the first line does not say so"),
            (newer, "they were written by a newer one, which has to open them"),
            (
                older,
                "restore it with the version that wrote it, and open what was restored with this one, which brings it up to date",
            ),
        ] {
            let error = restore(&target.url, None, changed.as_bytes(), Expect::default()).await.expect_err(words).to_string();
            assert!(error.ends_with(words), "{error}");
        }
        restore(&target.url, None, backup.as_bytes(), Expect::default()).await.expect("the target is still empty");
        let error = restore(&target.url, None, backup.as_bytes(), Expect::default()).await.expect_err("is full").to_string();
        assert!(error.ends_with("a backup is restored into empty books, and these have entries"), "{error}");
    }

    async fn a_backup_is_of_one_moment_while_postings_go_on(place: Place) {
        let (ledger, fence) = signed_books(&place).await;
        let writing = async {
            for index in 2..40 {
                ledger.commit(fence, &[reserve("a", 300), charge("a", index, 1)]).await.expect("commits");
            }
        };
        let copying = async {
            for _ in 0..3 {
                let target = Place::sqlite();
                restore(&target.url, None, copy(&place).await.as_slice(), exactly()).await.expect("every copy is whole");
            }
        };
        tokio::join!(writing, copying);
    }
}
