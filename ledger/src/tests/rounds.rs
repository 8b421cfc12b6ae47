//! An account that owes more payees than one post has rows for.

use super::*;
use crate::Post;

/// Each with a payee of its own, besides whoever gets the fee.
const WORKS: u64 = 150;
const FEE_PAYEE: u32 = 1;

fn name(work: u64) -> String {
    format!("w{work}")
}

/// Each work costs something else, and more the second time.
fn charges(index: u32, works: std::ops::Range<u64>) -> Vec<Posting> {
    let own = |work: u64| {
        let Posting::Charge(charge) = charge(&name(work), index, 100 + 200 * u64::from(index) + work) else {
            unreachable!("it is a charge")
        };
        Posting::Charge(Charge { payee: Some(10 + u32::try_from(work).expect("is small")), ..charge })
    };
    works.map(own).collect()
}

/// Books in which every work was charged once.
async fn owing(place: &Place) -> (Ledger, Fence) {
    let (ledger, fence) = place.books().await;
    let mut postings = vec![fund(1_000_000)];
    postings.extend((0..WORKS).map(|work| reserve(&name(work), 1_000)));
    postings.extend(charges(0, 0..WORKS));
    ledger.commit(fence, &postings).await.expect("commits");
    (ledger, fence)
}

async fn plans(ledger: &Ledger, fence: Fence) -> Post {
    ledger.plan_post(fence, &account(), 0).await.expect("plans").expect("something is owed")
}

async fn books(ledger: &Ledger, fence: Fence, post: &Post, block: u64) {
    ledger.book_final(fence, &post.id, &format!("0x{block}"), block, &[]).await.expect("books");
}

async fn settled(ledger: &Ledger, work: u64) -> u64 {
    ledger.work(&WorkId::task(name(work))).await.expect("reads").settled.units()
}

fn payees(post: &Post) -> Vec<u32> {
    post.rows.iter().map(|(payee, _)| *payee).collect()
}

on_both! {
    async fn who_is_not_known_to_the_contract_ends_no_round_and_has_its_turn_when_it_is(place: Place) {
        let (ledger, fence) = owing(&place).await;
        let plan = async |unknown: std::ops::Range<u32>| {
            let room = crate::Room { unknown: unknown.collect(), ..crate::Room::from(Amount::MAX) };
            ledger.plan_post_within(fence, &account(), room, 0).await.expect("plans")
        };
        // Those with least to credit would be first.
        let first = plan(10..40).await.expect("something is owed");
        assert_eq!((payees(&first), first.lines_root), ((40..140).collect(), [0; 32]));
        books(&ledger, fence, &first, 1).await;
        // In the middle of it some are registered.
        let second = plan(30..40).await.expect("something is owed");
        assert_eq!(payees(&second), std::iter::once(FEE_PAYEE).chain(10..30).chain(140..160).collect::<Vec<_>>());
        books(&ledger, fence, &second, 2).await;
        assert_ne!((settled(&ledger, 0).await, settled(&ledger, 149).await), (0, 0));
        assert_eq!(settled(&ledger, 25).await, 0, "its provider is not known yet");
        assert_eq!(plan(30..40).await, None);
        let third = plan(0..0).await.expect("something is owed");
        assert_eq!(payees(&third), (30..40).collect::<Vec<_>>());
        books(&ledger, fence, &third, 3).await;
        assert_ne!(settled(&ledger, 25).await, 0);
    }

    async fn who_is_owed_has_a_turn_in_each_round_and_is_settled_with_its_last_post(place: Place) {
        let (ledger, fence) = owing(&place).await;
        let first = plans(&ledger, fence).await;
        assert_eq!((payees(&first), first.lines_root), ((10..110).collect(), [0; 32]), "no usage line is posted before all of them are");
        books(&ledger, fence, &first, 1).await;
        assert_eq!(settled(&ledger, 0).await, 0, "the fee is not posted yet");
        // The lanes that were posted grow again, and have to wait.
        ledger.commit(fence, &charges(1, 0..120)).await.expect("commits");
        let second = plans(&ledger, fence).await;
        assert_eq!(payees(&second), std::iter::once(FEE_PAYEE).chain(110..160).collect::<Vec<_>>());
        assert_ne!(second.lines_root, [0; 32]);
        // What is given up is planned again, as it was.
        ledger.void_post(fence, &second.id).await.expect("gives up");
        let again = plans(&ledger, fence).await;
        assert_eq!((&again.id, again.lines_root), (&second.id, second.lines_root));
        books(&ledger, fence, &again, 2).await;
        for work in 0..WORKS {
            assert_eq!(settled(&ledger, work).await, 100 + work, "of work {work} what it was charged when the round began");
        }
        let balance = ledger.funding(&account()).await.expect("reads").expect("known");
        assert_eq!(balance.posted.units(), (0..WORKS).map(|work| 100 + work).sum::<u64>());

        let mut posts = Vec::new();
        while let Some(post) = ledger.plan_post(fence, &account(), 0).await.expect("plans") {
            books(&ledger, fence, &post, 3 + posts.len() as u64).await;
            posts.push(post.rows.len());
        }
        assert_eq!(posts, [100, 21]);
        for work in 0..WORKS {
            let balance = ledger.work(&WorkId::task(name(work))).await.expect("reads");
            assert_eq!(balance.settled, balance.charged, "all of work {work}");
            ledger.receipt(&WorkId::task(name(work))).await.expect("its lines lead to the roots");
        }
        assert!(ledger.unsettled().await.expect("reads").is_empty());
        ledger.verify().await.expect("verifies");
    }

    async fn what_has_no_room_in_a_round_keeps_the_usage_lines_waiting(place: Place) {
        let (ledger, fence) = owing(&place).await;
        let first = plans(&ledger, fence).await;
        books(&ledger, fence, &first, 1).await;
        let owed = ledger.funding(&account()).await.expect("reads").expect("known").owed;
        let post = ledger.plan_post_within(fence, &account(), owed.saturating_sub(units(1)), 0).await.expect("plans").expect("has room");
        assert_eq!((post.amount, post.lines_root), (owed.saturating_sub(units(1)), [0; 32]));
        books(&ledger, fence, &post, 2).await;
        assert_eq!(settled(&ledger, WORKS - 1).await, 0);
        let last = plans(&ledger, fence).await;
        assert_eq!(last.amount, units(1));
        books(&ledger, fence, &last, 3).await;
        assert_eq!(settled(&ledger, WORKS - 1).await, 99 + WORKS);
    }
}
