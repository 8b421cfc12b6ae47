//! Works below works: they draw on what their parent holds, and a tree never costs more than was held back for its root.

use super::*;
use crate::read::Family;
use crate::{Expect, Outcome, Reader, restore};

fn below(parent: &str, work: &str, amount: u64) -> Posting {
    match reserve(work, amount) {
        Posting::Reserve { work, funding, asset, amount, detail, .. } => {
            Posting::Reserve { work, funding, asset, amount, detail, parent: Some(WorkId::task(parent)) }
        }
        other => other,
    }
}

fn release(work: &str) -> Posting {
    Posting::Release { work: WorkId::task(work) }
}

/// What a work holds itself, what it was charged, and both of those below it.
async fn stands(ledger: &Ledger, work: &str) -> [u64; 4] {
    let (own, family) = (ledger.work(&WorkId::task(work)).await.expect("reads"), ledger.family(&WorkId::task(work)).await.expect("reads"));
    [own.reserved, own.charged, family.held_below, family.charged_below].map(Amount::units)
}

async fn applied(ledger: &Ledger, fence: Fence, postings: &[Posting]) {
    let outcomes = ledger.commit(fence, postings).await.expect("commits");
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "{outcomes:?}");
}

on_both! {
    async fn what_is_below_a_work_draws_on_what_that_one_holds_and_gives_back_to_it(place: Place) {
        let (ledger, fence) = place.books().await;
        applied(&ledger, fence, &[fund(1_000), reserve("session", 600), below("session", "agent", 400), below("agent", "step", 150)]).await;
        assert_eq!(stands(&ledger, "session").await, [200, 0, 400, 0]);
        assert_eq!(stands(&ledger, "agent").await, [250, 0, 150, 0]);
        let family = ledger.family(&WorkId::task("step")).await.expect("reads");
        assert_eq!(family, Family { parent: Some(WorkId::task("agent")), ..Family::default() });
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!((balance.reserved.units(), balance.available.units()), (600, 400), "it is held back once");

        // Each charge counts for all above; what is not used goes back one step.
        applied(&ledger, fence, &[charge("step", 0, 100), release("step"), charge("agent", 0, 30)]).await;
        assert_eq!(stands(&ledger, "step").await, [0, 100, 0, 0]);
        assert_eq!(stands(&ledger, "agent").await, [270, 30, 0, 100]);
        assert_eq!(stands(&ledger, "session").await, [200, 0, 270, 130]);
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!([balance.reserved, balance.owed, balance.available].map(Amount::units), [470, 130, 400]);
        // The same again changes nothing, and a second attempt draws again.
        let again = ledger.commit(fence, &[below("agent", "step", 0), charge("step", 0, 100), release("agent"), release("agent")]).await;
        let expected = [Outcome::Applied, Outcome::Already, Outcome::Applied, Outcome::Already];
        assert_eq!(again.expect("commits"), expected);
        assert_eq!(stands(&ledger, "session").await, [470, 0, 0, 130]);
    }

    async fn what_is_left_below_a_work_that_is_over_goes_to_the_next_above_or_to_the_funding(place: Place) {
        let (ledger, fence) = place.books().await;
        let postings = [fund(1_000), reserve("session", 600), below("session", "agent", 400), below("agent", "step", 150), release("agent")];
        applied(&ledger, fence, &postings).await;
        assert_eq!(stands(&ledger, "agent").await, [0, 0, 150, 0]);
        assert_eq!(stands(&ledger, "session").await, [450, 0, 150, 0]);
        // Less for it: the rest goes past the one that is over.
        applied(&ledger, fence, &[below("agent", "step", 120)]).await;
        assert_eq!(stands(&ledger, "session").await, [480, 0, 120, 0]);
        applied(&ledger, fence, &[release("session"), charge("step", 0, 20)]).await;
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!([balance.reserved, balance.owed, balance.available].map(Amount::units), [100, 20, 880]);
        applied(&ledger, fence, &[release("step")]).await;
        let balance = ledger.funding(&account()).await.expect("reads").expect("is there");
        assert_eq!([balance.reserved, balance.owed, balance.available].map(Amount::units), [0, 20, 980]);
        for work in ["session", "agent"] {
            assert_eq!(stands(&ledger, work).await, [0, 0, 0, 20], "{work}");
        }
    }

    async fn what_a_tree_does_not_allow_is_refused_in_words_and_changes_nothing(place: Place) {
        let (ledger, fence) = place.books().await;
        applied(&ledger, fence, &[fund(1_000), reserve("root", 500), below("root", "child", 300), reserve("lone", 50)]).await;
        applied(&ledger, fence, &[Posting::Hold { at: 60, works: vec![(WorkId::task("root"), units(150))] }]).await;
        let elsewhere = match below("root", "x", 1) {
            Posting::Reserve { work, asset, amount, detail, parent, .. } => {
                Posting::Reserve { work, funding: FundingId::chain("default", "0xbb"), asset, amount, detail, parent }
            }
            other => other,
        };
        applied(&ledger, fence, &[Posting::Fund { funding: FundingId::chain("default", "0xbb"), asset: usdc(), deposited: units(9), withdrawn: Amount::ZERO }]).await;
        for (posting, words) in [
            // 500 are held back: 300 are lent, and 150 of the rest are used.
            (below("root", "x", 51), "0.000051 is wanted and 0.00005 is left of task:root"),
            (below("root", "child", 351), "0.000051 is wanted and 0.00005 is left of task:root"),
            (below("nobody", "x", 1), "nothing was ever held back for task:nobody"),
            (below("x", "x", 1), "nothing was ever held back for task:x"),
            (reserve("root", 299), "0.000299 is wanted for task:root, and works below it hold 0.0003"),
            (below("lone", "child", 300), "task:child is below task:root and can't come below task:lone"),
            (reserve("child", 300), "task:child is below task:root and can't come below nothing"),
            (below("child", "lone", 50), "task:lone is below nothing and can't come below task:child"),
            (elsewhere, "task:root is paid from chain:default:0xaa, and what is below it can't be paid from chain:default:0xbb"),
        ] {
            assert_eq!(ledger.commit(fence, &[posting]).await.expect("commits"), [Outcome::Refused(words.to_owned())]);
        }
        applied(&ledger, fence, &[release("root")]).await;
        let late = ledger.commit(fence, &[below("root", "late", 1), below("root", "child", 301)]).await.expect("commits");
        let over = Outcome::Refused("0.000001 is wanted, and nothing is held back for task:root any more".to_owned());
        assert_eq!(late, [over.clone(), over]);
        assert_eq!(stands(&ledger, "child").await, [300, 0, 0, 0]);
        assert_eq!(stands(&ledger, "root").await, [0, 0, 300, 0]);
    }

    async fn a_tree_has_eight_levels_and_a_new_leader_finds_all_of_them(place: Place) {
        let (ledger, fence) = place.books().await;
        applied(&ledger, fence, &[fund(1_000), reserve("0", 100)]).await;
        for level in 1..8 {
            applied(&ledger, fence, &[below(&(level - 1).to_string(), &level.to_string(), 100 - level)]).await;
        }
        let deeper = ledger.commit(fence, &[below("7", "8", 1)]).await.expect("commits");
        let words = "task:7 is the 8th of works one below the other, and nothing can be below it";
        assert_eq!(deeper, [Outcome::Refused(words.to_owned())]);
        drop(ledger);
        // Nothing of it is in memory any more.
        let (ledger, fence) = place.books().await;
        applied(&ledger, fence, &[charge("7", 0, 40), release("7"), release("3")]).await;
        assert_eq!(stands(&ledger, "0").await, [1, 0, 59, 40]);
        assert_eq!(stands(&ledger, "2").await, [2, 0, 56, 40], "it had lent all but one, and has one back");
        assert_eq!(ledger.open_reservations().await.expect("reads").len(), 6);
        // A copy has them too.
        let mut copy = Vec::new();
        Reader::open(&place.url).await.expect("opens").backup(&mut copy).await.expect("copies");
        let other = if place.is_sqlite() { Place::sqlite() } else { Place::postgres().await.expect("a schema") };
        restore(&other.url, None, copy.as_slice(), Expect::default()).await.expect("restores");
        let restored = Ledger::open(&other.url).await.expect("opens");
        for level in 0..8 {
            let level = level.to_string();
            assert_eq!(stands(&restored, &level).await, stands(&ledger, &level).await, "{level}");
        }
    }
}
