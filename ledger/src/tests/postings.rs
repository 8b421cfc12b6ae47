//! What postings and posts do, on both databases.

use super::*;
use crate::{Attempt, LedgerError, Outcome, PostState, Room};
use supercargo_market::placement::Record;

on_both! {
    async fn every_posting_counts_once(place: Place) {
        let (ledger, fence) = place.books().await;
        let postings = [fund(1_000), reserve("a", 400), charge("a", 0, 100), release("a")];
        assert_eq!(ledger.commit(fence, &postings).await.expect("commits"), vec![Outcome::Applied; 4]);
        let before = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!(ledger.commit(fence, &[fund(1_000), charge("a", 0, 100), release("a")]).await.expect("commits"), vec![Outcome::Already; 3]);
        assert_eq!(ledger.funding(&account()).await.expect("reads"), Some(before.clone()));
        assert_eq!((before.available, before.reserved, before.owed), (units(900), units(0), units(100)));
    }

    async fn a_reservation_beyond_the_balance_is_refused_in_words_and_harms_no_other(place: Place) {
        let (ledger, fence) = place.books().await;
        let outcomes = ledger.commit(fence, &[fund(1_000_000), reserve("a", 2_000_000), reserve("b", 1_000_000)]).await.expect("commits");
        assert_eq!(outcomes, [Outcome::Applied, Outcome::Refused("2.00 is wanted and 1.00 is available".into()), Outcome::Applied]);
    }

    async fn what_the_reservation_does_not_cover_is_absorbed_and_never_the_buyers(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 50), charge("a", 0, 80)]).await.expect("commits");
        let work = ledger.work(&WorkId::task("a")).await.expect("reads");
        assert_eq!((work.charged, work.absorbed, work.reserved), (units(50), units(30), units(0)));
    }

    async fn what_was_absorbed_once_is_not_billed_to_the_next_attempt(place: Place) {
        let (ledger, fence) = place.books().await;
        let first = [fund(1_000), reserve("a", 50), charge("a", 0, 80), release("a")];
        ledger.commit(fence, &first).await.expect("commits");
        ledger.commit(fence, &[reserve("a", 500), charge("a", 1, 100)]).await.expect("commits");
        let work = ledger.work(&WorkId::task("a")).await.expect("reads");
        assert_eq!((work.charged, work.absorbed), (units(150), units(30)));
    }

    async fn a_places_record_grows_with_each_charge_once(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 300)]).await.expect("commits");
        let Posting::Charge(fault) = charge("a", 1, 90) else { unreachable!("it is a charge") };
        let wrong = Charge { segment: SegmentId::of_pod("pod-of-a", 2), evidence: Evidence::Clamped, place: "acme/n2".into(), ..fault.clone() };
        let charges = [charge("a", 0, 61), Posting::Charge(Charge { fault: true, ..fault }), Posting::Charge(wrong)];
        for _ in 0..2 {
            ledger.commit(fence, &charges).await.expect("commits");
        }
        let first = Record { served_seconds: 61, faults: 1, disagreements: 0 };
        let second = Record { served_seconds: 90, faults: 0, disagreements: 1 };
        assert_eq!(ledger.records().await.expect("reads"), [("acme/n1".to_owned(), first), ("acme/n2".to_owned(), second)]);
        assert_eq!(ledger.record("acme/n2").await.expect("reads"), second);
        assert_eq!(ledger.record("acme/n3").await.expect("reads"), Record::default());
    }

    async fn an_old_leader_can_not_write(place: Place) {
        let (ledger, old) = place.books().await;
        let new = ledger.take_lead("another").await.expect("leads");
        assert!(matches!(ledger.commit(old, &[fund(1)]).await, Err(LedgerError::Fenced { ours: 1, current: 2 })));
        assert_eq!(ledger.commit(new, &[fund(1)]).await.expect("commits"), [Outcome::Applied]);
    }

    async fn a_post_carries_totals_and_is_booked_once(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        assert_eq!((post.rows.as_slice(), post.amount), ([(1, 10), (7, 90)].as_slice(), units(100)));
        ledger.commit(fence, &[charge("a", 1, 50)]).await.expect("commits");
        assert_eq!(ledger.plan_post(fence, &account(), 0).await.expect("plans"), None, "one is under way");

        let attempt = Attempt { hash: "0x1".into(), signer: "0xs".into(), nonce: 0, raw: vec![1], max_fee: 5 };
        ledger.record_attempt(fence, &post.id, &attempt, 1).await.expect("records");
        ledger.record_attempt(fence, &post.id, &attempt, 1).await.expect("records once");
        assert_eq!(ledger.attempts(&post.id).await.expect("reads"), [attempt]);
        ledger.mark_mined(fence, &post.id, Some(("0x1", 9))).await.expect("marks");
        assert_eq!(ledger.open_posts().await.expect("reads")[0].state, PostState::Mined);
        assert!(ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books"));
        assert!(!ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books once"));

        let balance = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!((balance.posted, balance.owed), (units(100), units(50)));
        let work = ledger.work(&WorkId::task("a")).await.expect("reads");
        assert_eq!((work.settled, work.transaction.as_deref()), (units(100), Some("0x1")));
        assert_eq!(ledger.works_of(&post.id).await.expect("reads"), [(WorkId::task("a"), work)], "in one go as one by one");
        assert_eq!(ledger.unsettled().await.expect("reads").iter().map(|(_, lane)| lane.payee).collect::<Vec<_>>(), [1, 7]);
        assert_eq!(ledger.open_since(&account()).await.expect("reads"), None, "it is final");
        let next = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("more is owed");
        assert_eq!((next.rows.as_slice(), next.amount), ([(1, 15), (7, 135)].as_slice(), units(50)));
    }

    async fn a_row_that_the_chain_skipped_is_planned_again(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.book_final(fence, &post.id, "0x1", 9, &[0]).await.expect("books");
        let balance = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!((balance.posted, balance.owed), (units(90), units(10)));
        assert!(ledger.work(&WorkId::task("a")).await.expect("reads").settled.is_zero(), "not all of it is paid");
        let next = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("the skipped row");
        assert_eq!((next.rows.as_slice(), next.amount), ([(1, 10)].as_slice(), units(10)));
    }

    async fn what_an_account_does_not_let_through_waits_for_the_next_post_and_its_lines_with_it(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        assert_eq!(ledger.plan_post_within(fence, &account(), units(0), 0).await.expect("plans"), None, "there is no room");
        let post = ledger.plan_post_within(fence, &account(), units(40), 0).await.expect("plans").expect("something is owed");
        assert_eq!((post.rows.as_slice(), post.amount, post.lines_root), ([(1, 10), (7, 30)].as_slice(), units(40), [0; 32]));
        ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books");
        let balance = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!((balance.posted, balance.owed), (units(40), units(60)));
        assert!(ledger.work(&WorkId::task("a")).await.expect("reads").settled.is_zero(), "not all of it is paid");
        let rest = ledger.plan_post_within(fence, &account(), units(60), 0).await.expect("plans").expect("the rest");
        assert_eq!((rest.rows.as_slice(), rest.amount), ([(7, 90)].as_slice(), units(60)));
        assert_ne!(rest.lines_root, [0; 32]);
        ledger.book_final(fence, &rest.id, "0x2", 10, &[]).await.expect("books");
        assert_eq!(ledger.work(&WorkId::task("a")).await.expect("reads").settled, units(100));
    }

    async fn what_a_payee_has_claimed_leaves_its_room_to_others_and_is_booked_with_the_next_post(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        // All that is owed to one of the two is on the chain by its voucher, and what may leave now is the other's.
        let room = Room { credited: [(7, units(90))].into(), ..Room::from(units(10)) };
        assert_eq!(room.books(&ledger.lanes(&account()).await.expect("reads")), 100);
        let post = ledger.plan_post_within(fence, &account(), room.clone(), 0).await.expect("plans").expect("something is owed");
        assert_eq!((post.rows.as_slice(), post.amount), ([(1, 10), (7, 90)].as_slice(), units(100)));
        ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books");
        let balance = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!((balance.posted, balance.owed), (units(100), units(0)));
        assert_eq!(ledger.work(&WorkId::task("a")).await.expect("reads").settled, units(100), "its lines are on the chain, too");
        assert_eq!(ledger.plan_post_within(fence, &account(), room, 0).await.expect("plans"), None);
    }

    async fn what_is_owed_to_a_payee_that_the_contract_does_not_know_waits_with_its_lines_and_keeps_nobody_else_from_theirs(place: Place) {
        let (ledger, fence) = place.books().await;
        let of = |payee: u32, work: &str| {
            let Posting::Charge(charge) = charge(work, 0, 100) else { unreachable!("it is a charge") };
            Posting::Charge(Charge { payee: Some(payee), ..charge })
        };
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), reserve("b", 400), of(7, "a"), of(8, "b")]).await.expect("commits");
        let without = |payees: &[u32]| Room { unknown: payees.iter().copied().collect(), ..Room::from(Amount::MAX) };
        let settled = async |work: &str| ledger.work(&WorkId::task(work)).await.expect("reads").settled;
        let left = async |unknown: &[u32]| ledger.unposted_charges(&unknown.iter().copied().collect()).await.expect("reads");
        assert_eq!(left(&[]).await, [(account(), 2)].into());
        assert_eq!(left(&[8]).await, [(account(), 1)].into());
        assert_eq!(left(&[1]).await, [].into(), "each owes the fee");

        let post = ledger.plan_post_within(fence, &account(), without(&[8, 9]), 0).await.expect("plans").expect("something is owed");
        assert_eq!((post.rows.as_slice(), post.amount), ([(1, 20), (7, 90)].as_slice(), units(110)));
        assert_ne!(post.lines_root, [0; 32]);
        ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books");
        assert_eq!((settled("a").await, settled("b").await), (units(100), units(0)));
        assert_eq!(ledger.plan_post_within(fence, &account(), without(&[8, 9]), 0).await.expect("plans"), None);

        let rest = ledger.plan_post_within(fence, &account(), without(&[9]), 0).await.expect("plans").expect("it is registered");
        assert_eq!(rest.rows, [(8, 90)]);
        ledger.book_final(fence, &rest.id, "0x2", 10, &[]).await.expect("books");
        assert_eq!((settled("b").await, left(&[]).await), (units(100), [].into()));
    }

    async fn no_line_of_what_a_fee_waits_for_is_posted(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let room = |unknown: &[u32]| Room { unknown: unknown.iter().copied().collect(), ..Room::from(Amount::MAX) };
        let post = ledger.plan_post_within(fence, &account(), room(&[1]), 0).await.expect("plans").expect("something is owed");
        assert_eq!((post.rows.as_slice(), post.lines_root), ([(7, 90)].as_slice(), [0; 32]));
        ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books");
        let rest = ledger.plan_post_within(fence, &account(), room(&[]), 0).await.expect("plans").expect("the fee");
        ledger.book_final(fence, &rest.id, "0x2", 10, &[]).await.expect("books");
        assert_eq!(ledger.work(&WorkId::task("a")).await.expect("reads").settled, units(100));
    }

    async fn rows_that_the_chain_skips_time_and_again_are_planned_each_time(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let mut posts = std::collections::BTreeSet::new();
        for block in 0..4 {
            let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
            assert_eq!((post.rows.as_slice(), post.amount), ([(1, 10), (7, 90)].as_slice(), units(100)));
            ledger.book_final(fence, &post.id, "0x1", block, &[0, 1]).await.expect("books");
            assert!(posts.insert(post.id), "each is a post of its own");
        }
        let balance = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!((balance.posted, balance.owed), (units(0), units(100)));
    }

    async fn a_post_that_is_given_up_is_planned_again_with_all_its_lines(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.void_post(fence, &post.id).await.expect("gives up");
        let again = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        assert_eq!((again.id, again.rows, again.lines_root), (post.id, post.rows, post.lines_root));
    }

    async fn a_key_that_somebody_else_signs_with_is_known_by_chain_and_address_and_stays_so(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        let attempt = Attempt { hash: "0x1".into(), signer: "0xkey".into(), nonce: 5, raw: vec![1], max_fee: 1 };
        ledger.record_attempt(fence, &post.id, &attempt, 0).await.expect("is written down");
        ledger.note_foreign_nonce(fence, &post.id, "default", "0xkey", 5).await.expect("notes it");
        assert!(ledger.open_posts().await.expect("reads").is_empty(), "its post is given up");
        assert_eq!(ledger.signed_with("0xkey", 5).await.expect("reads"), ["0x1"], "what was signed stays known");
        // A second time changes nothing, nor does another nonce.
        let entries = ledger.verify().await.expect("verifies").entries;
        ledger.note_foreign_nonce(fence, &post.id, "default", "0xkey", 9).await.expect("knows it");
        assert_eq!(ledger.verify().await.expect("verifies").entries, entries);

        drop(ledger);
        let ledger = Ledger::open(&place.url).await.expect("opens");
        for (chain, signer, expected) in [("default", "0xkey", Some(5)), ("default", "0xother", None), ("other", "0xkey", None)] {
            assert_eq!(ledger.foreign_nonce(chain, signer).await.expect("reads"), expected, "{signer} on {chain}");
        }
        assert!(matches!(ledger.note_foreign_nonce(fence, "p", "other", "0xkey", 1).await, Ok(())), "the lead is still ours");
        ledger.take_lead("next").await.expect("leads");
        ledger.note_foreign_nonce(fence, "p", "third", "0xkey", 1).await.expect_err("only who leads may say so");
    }

    async fn what_the_chain_undid_beyond_finality_is_owed_again(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.book_final(fence, &post.id, "0x1", 9, &[]).await.expect("books");
        ledger.move_final(fence, &post.id, "0x2", 11).await.expect("notes");
        assert_eq!(ledger.last_final(&account()).await.expect("reads"), Some(("0x2".to_owned(), 11)));
        ledger.commit(fence, &[charge("a", 1, 50)]).await.expect("commits");
        let next = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("more is owed");
        assert!(!ledger.undo_final(fence, &post.id).await.expect("asks"), "one is under way");
        ledger.book_final(fence, &next.id, "0x3", 12, &[]).await.expect("books");
        let finals = ledger.newest_final("default", None, 5).await.expect("reads");
        assert_eq!(finals.iter().map(|post| post.block).collect::<Vec<_>>(), [Some(11), Some(12)]);
        assert_eq!(ledger.newest_final("default", finals.last(), 5).await.expect("reads"), finals[..1], "those before it");

        assert!(!ledger.undo_final(fence, &post.id).await.expect("asks"), "a later one says all of it");
        assert!(ledger.undo_final(fence, &next.id).await.expect("takes it back"));
        assert!(ledger.undo_final(fence, &next.id).await.expect("takes it back once"));
        let stands = async || {
            let balance = ledger.funding(&account()).await.expect("reads").expect("known");
            (balance.posted, balance.owed, ledger.work(&WorkId::task("a")).await.expect("reads").settled)
        };
        assert_eq!(stands().await, (units(100), units(50), units(100)), "the first is still there");
        assert!(ledger.undo_final(fence, &post.id).await.expect("takes it back"));
        assert_eq!(stands().await, (units(0), units(150), units(0)));
        let again = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("all of it is owed");
        assert_eq!((again.rows.as_slice(), again.amount), ([(1, 15), (7, 135)].as_slice(), units(150)));
        ledger.book_final(fence, &again.id, "0x4", 13, &[]).await.expect("books");
        let balance = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!((balance.posted, balance.owed), (units(150), units(0)));
        assert_eq!(ledger.work(&WorkId::task("a")).await.expect("reads").settled, units(150));
        ledger.verify().await.expect("the journal is whole");
    }

    async fn a_post_that_is_taken_back_leaves_what_others_have_credited_and_no_row_that_was_skipped(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 100)]).await.expect("commits");
        let first = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.book_final(fence, &first.id, "0x1", 9, &[1]).await.expect("books");
        let rest = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("a row was skipped");
        ledger.book_final(fence, &rest.id, "0x2", 10, &[]).await.expect("books");
        assert!(ledger.undo_final(fence, &rest.id).await.expect("takes it back"));
        let lanes = ledger.lanes(&account()).await.expect("reads").into_iter();
        assert_eq!(lanes.map(|lane| (lane.payee, lane.posted)).collect::<Vec<_>>(), [(1, units(10)), (7, units(0))]);
        let again = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("it is owed");
        assert_eq!((again.rows.as_slice(), again.amount), ([(7, 90)].as_slice(), units(90)));
    }

    async fn books_that_were_closed_are_found_as_they_were(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400)]).await.expect("commits");
        drop(ledger);
        let ledger = Ledger::open(&place.url).await.expect("opens");
        let open = ledger.open_reservations().await.expect("reads");
        assert_eq!((open.len(), open[0].reserved), (1, units(400)));
        assert_eq!(ledger.take_lead("two").await.expect("leads").number(), 2);
    }

    async fn callers_of_one_group_have_their_own_answers(place: Place) {
        let (ledger, old) = place.books().await;
        let fence = ledger.take_lead("another").await.expect("leads");
        ledger.commit(fence, &[fund(1_000)]).await.expect("commits");
        let before = ledger.verify().await.expect("verifies").entries;
        let postings = [reserve("a", 600), reserve("b", 600), reserve("c", 400)];
        let (one, two, three, four) = tokio::join!(
            ledger.commit(fence, &postings[..1]),
            ledger.commit(old, &postings[2..]),
            ledger.commit(fence, &postings[1..2]),
            ledger.commit(fence, &postings[2..]),
        );
        assert_eq!(one.expect("commits"), [Outcome::Applied]);
        assert!(matches!(two, Err(LedgerError::Fenced { .. })));
        assert!(matches!(three.expect("commits")[0], Outcome::Refused(_)));
        assert_eq!(four.expect("commits"), [Outcome::Applied]);
        assert_eq!(ledger.verify().await.expect("verifies").entries, before + 2);
    }

    async fn postings_that_the_database_refuses_harm_no_other_callers(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), reserve("b", 400)]).await.expect("commits");
        // Another hand makes work a's row say what can't be: the rules can't be applied to it.
        sqlx::query("UPDATE reservations SET exact = 'x' WHERE work = 'task:a'").execute(ledger.pool()).await.expect("a slip");
        // Whoever begins to lead reads the books again.
        let fence = ledger.take_lead("another").await.expect("leads");
        let postings = [charge("a", 0, 10), charge("b", 0, 10)];
        let (one, two) = tokio::join!(ledger.commit(fence, &postings[..1]), ledger.commit(fence, &postings[1..]));
        assert_eq!(one.expect_err("is broken").to_string(), "the books contradict themselves: task:a's exact cost can't be read");
        assert_eq!(two.expect("commits"), [Outcome::Applied]);
    }

    async fn what_others_write_between_is_seen_by_the_next_posting(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400), charge("a", 0, 300)]).await.expect("commits");
        // Booked by the outbox, past the desk that knows the account.
        let post = ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed");
        ledger.book_final(fence, &post.id, "0x1", 1, &[]).await.expect("books");
        assert_eq!(ledger.commit(fence, &[charge("a", 1, 50)]).await.expect("commits"), [Outcome::Applied]);
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!((balance.posted, balance.owed, balance.reserved), (units(300), units(50), units(50)));
    }

    async fn many_callers_on_the_same_works_get_the_same_as_one_after_the_other(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000_000)]).await.expect("commits");
        let one = |caller: u32| {
            let ledger = ledger.clone();
            async move {
                let work = format!("w{}", caller % 7);
                for round in 0..20 {
                    for posting in [reserve(&work, 500), charge(&work, caller * 100 + round, 3), charge(&work, round, 2), release(&work)] {
                        ledger.commit(fence, &[posting]).await.expect("commits");
                    }
                }
            }
        };
        futures::future::join_all((1..40).map(one)).await;
        ledger.verify().await.expect("the journal is whole");
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        // 39 callers' own 20 segments, and 20 that those of a work share; the works' absorbed part is the rest.
        let mut charged = Amount::ZERO;
        let mut cost = 0;
        for work in 0..7 {
            let work = ledger.work(&WorkId::task(format!("w{work}"))).await.expect("reads");
            charged = charged.checked_add(work.charged).expect("is small");
            cost += work.charged.units() + work.absorbed.units();
        }
        assert_eq!(cost, 39 * 20 * 3 + 7 * 20 * 2);
        assert_eq!((balance.owed, balance.reserved), (charged, Amount::ZERO));
    }

    async fn the_database_itself_holds_the_balances(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000), reserve("a", 400)]).await.expect("commits");
        for slip in [
            "UPDATE fundings SET available = -1, reserved = 1001",
            "UPDATE fundings SET available = 601",
            "UPDATE reservations SET reserved = -1",
            "UPDATE reservations SET open = 0",
            "INSERT INTO reservations (work, funding, reserved, open, detail) VALUES ('task:x', 'nobody', 0, 1, '')",
            "INSERT INTO lanes (funding, payee, total, planned) SELECT id, 1, 5, 6 FROM fundings",
        ] {
            sqlx::query(slip).execute(ledger.pool()).await.expect_err(slip);
        }
    }

    async fn more_than_the_books_can_hold_is_refused_in_words(place: Place) {
        let (ledger, fence) = place.books().await;
        let huge = Posting::Fund { funding: account(), asset: usdc(), deposited: units(u64::MAX), withdrawn: Amount::ZERO };
        let outcomes = ledger.commit(fence, &[huge]).await.expect("commits");
        assert_eq!(outcomes, [Outcome::Refused("chain:default:0xaa would hold more than the books can".into())]);
    }

    async fn two_assets_never_meet(place: Place) {
        let (ledger, fence) = place.books().await;
        ledger.commit(fence, &[fund(1_000)]).await.expect("commits");
        let asset = |text: &str| text.parse::<Asset>().expect("an asset");
        let fund_in = |text| Posting::Fund { funding: account(), asset: asset(text), deposited: units(2_000), withdrawn: Amount::ZERO };
        let reserve_in = |text| match reserve("a", 400) {
            Posting::Reserve { work, funding, amount, detail, .. } => Posting::Reserve { work, funding, asset: asset(text), amount, detail, parent: None },
            other => other,
        };
        for (posting, words) in [
            (fund_in("chain:default/EURC/6"), "chain:default:0xaa is in chain:default/USDC/6, not in chain:default/EURC/6"),
            (fund_in("chain:default/USDC/18"), "chain:default:0xaa is in chain:default/USDC/6, not in chain:default/USDC/18"),
            (fund_in("internal/USDC/6"), "chain:default:0xaa can't hold internal/USDC/6: that moves elsewhere"),
            (reserve_in("chain:default/EURC/6"), "task:a is priced in chain:default/EURC/6, and chain:default:0xaa is in chain:default/USDC/6"),
            (reserve_in("internal/USDC/6"), "task:a is priced in internal/USDC/6, and chain:default:0xaa is in chain:default/USDC/6"),
        ] {
            assert_eq!(ledger.commit(fence, &[posting]).await.expect("commits"), [Outcome::Refused(words.to_owned())]);
        }
        assert_eq!(ledger.reservation(&WorkId::task("a")).await.expect("reads"), None);
        assert_eq!(ledger.commit(fence, &[reserve("a", 400)]).await.expect("commits"), [Outcome::Applied]);
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!((balance.asset, balance.deposited, balance.available), (usdc(), units(1_000), units(600)));
        let row = sqlx::query("SELECT payload FROM journal WHERE payload LIKE '%fund%' ORDER BY sequence").fetch_one(ledger.pool()).await;
        let payload: String = sqlx::Row::get(&row.expect("reads"), 0);
        assert!(payload.contains(r#""asset":{"rail":"chain:default","id":"USDC","decimals":6}"#), "{payload}");
    }
}
