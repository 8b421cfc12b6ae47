//! Posts that don't go out though nothing refuses them: gas is dear, endpoints take no transaction, nobody can say what a post
//! needs. When that lasts, an account says since when and why. It is over when a block has the post.

use super::told::SECONDS_BETWEEN_WORDS;
use crate::world::records::Stuck;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_ledger::{Post, PostState};
use supercargo_market::work::FundingId;

/// A post that is kept from a block for so long is told.
pub const LATE_SECONDS: i64 = 600;

/// What keeps what an account owes from the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Its bytes are in no block; in words what went wrong with sending or replacing them, where something did.
    Sent(Option<String>),
    /// Nothing can be signed for it.
    Unsigned(String),
    /// It waits for another account's post, which is signed with the same key.
    Behind,
    /// None is planned.
    Unplanned(String),
}

impl Obstacle {
    /// `before` is what keeps the post that it waits for.
    fn words(&self, before: Option<&Obstacle>) -> String {
        match (self, before) {
            (Self::Sent(Some(words)), _) => format!("a post is signed and in no block: {words}"),
            (Self::Sent(None), _) => "a post was sent and no block takes it: gas costs more than it offers, and the key can't or may not \
                                      offer more; or the endpoints pass no transactions on"
                .to_owned(),
            (Self::Unsigned(words) | Self::Unplanned(words), _) => words.clone(),
            (Self::Behind, Some(before)) => format!("its post waits for one before it: {}", before.words(None)),
            (Self::Behind, None) => "its post waits for those before it".to_owned(),
        }
    }
}

/// What keeps each open post of a chain. A post that waits for what is told elsewhere, or for a lane's window, is kept by nothing.
pub fn obstacles(open: &[Post], kept: &BTreeMap<FundingId, String>, waits: impl Fn(&FundingId) -> bool) -> BTreeMap<FundingId, Obstacle> {
    let of = |post: &Post| {
        let words = kept.get(&post.funding).cloned();
        match (post.state, words) {
            (PostState::Signed, words) => Some(Obstacle::Sent(words)),
            (PostState::Planned, Some(words)) => Some(Obstacle::Unsigned(words)),
            (PostState::Planned, None) if !waits(&post.funding) => Some(Obstacle::Behind),
            _ => None,
        }
    };
    open.iter().filter_map(|post| Some((post.funding.clone(), of(post)?))).collect()
}

#[derive(Debug)]
struct Kept {
    since: i64,
    by: Obstacle,
    /// When these words were taken.
    at: i64,
}

/// Since when what each account owes is kept from the chain, as far as this process knows.
#[derive(Debug, Default)]
pub struct Watch {
    posts: BTreeMap<FundingId, Kept>,
    unplanned: BTreeMap<FundingId, Kept>,
}

/// Takes a look in. What is kept by the same for long has its newest words now and then.
fn take(known: &mut BTreeMap<FundingId, Kept>, found: BTreeMap<FundingId, Obstacle>, since: impl Fn(&FundingId) -> i64, now: i64) {
    known.retain(|funding, _| found.contains_key(funding));
    for (funding, by) in found {
        let first = || Kept { since: since(&funding).min(now), by: by.clone(), at: now };
        let kept = known.entry(funding.clone()).or_insert_with(first);
        // A time that is yet to come was told by a clock that was wrong.
        kept.since = kept.since.min(now);
        if now < kept.at || now >= kept.at + SECONDS_BETWEEN_WORDS || std::mem::discriminant(&kept.by) != std::mem::discriminant(&by) {
            (kept.by, kept.at) = (by, now);
        }
    }
}

impl Watch {
    /// What keeps open posts now, each since it is seen; where it was not, since then.
    pub fn open(&mut self, found: BTreeMap<FundingId, Obstacle>, since: &BTreeMap<FundingId, i64>, now: i64) {
        take(&mut self.posts, found, |funding| since.get(funding).copied().unwrap_or(now), now);
    }

    /// Those whose post is signed and was not watched before: since when is in the books.
    pub fn unknown<'a>(&self, found: &'a BTreeMap<FundingId, Obstacle>) -> BTreeSet<&'a FundingId> {
        let sent = found.iter().filter(|(_, by)| matches!(by, Obstacle::Sent(_))).map(|(funding, _)| funding);
        sent.filter(|funding| !self.posts.contains_key(*funding)).collect()
    }

    /// For whom no post is planned though one would be due.
    pub fn unplanned(&mut self, found: BTreeMap<FundingId, String>, now: i64) {
        let found = found.into_iter().map(|(funding, words)| (funding, Obstacle::Unplanned(words))).collect();
        take(&mut self.unplanned, found, |_| now, now);
    }

    /// What to tell of an account now.
    pub fn tell(&self, funding: &FundingId, now: i64) -> Option<Stuck> {
        let is_late = |kept: &&Kept| now >= kept.since + LATE_SECONDS;
        let kept = self.posts.get(funding).or_else(|| self.unplanned.get(funding)).filter(is_late)?;
        let others = self.posts.values().filter(|other| other.by != Obstacle::Behind).filter(is_late);
        let before = others.min_by_key(|other| other.since).map(|other| &other.by);
        // Many that wait for each other are no news as long as each of them goes out.
        (kept.by != Obstacle::Behind || before.is_some()).then(|| Stuck { since: kept.since, why: kept.by.words(before) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::simulation::account;
    use supercargo_market::money::Amount;

    fn post(number: u64, state: PostState) -> Post {
        let (funding, id) = (account(number), number.to_string());
        let (lines_root, journal_head) = ([0; 32], [0; 32]);
        Post { id, funding, state, rows: Vec::new(), amount: Amount::ZERO, lines_root, journal_head, winner: None, block: None }
    }

    fn told(watch: &Watch, number: u64, now: i64) -> Option<(i64, String)> {
        watch.tell(&account(number), now).map(|stuck| (stuck.since, stuck.why))
    }

    #[test]
    fn what_keeps_a_post_is_known_by_its_state_and_by_what_went_wrong() {
        use PostState::{Mined, Planned, Signed};
        let posts: Vec<Post> = [Signed, Signed, Planned, Planned, Planned, Mined].into_iter().zip(0..).map(|(s, n)| post(n, s)).collect();
        let kept = [(account(1), "away".to_owned()), (account(2), "dear".to_owned())].into();
        let found = obstacles(&posts, &kept, |funding| *funding == account(3));
        let expected = [
            (account(0), Obstacle::Sent(None)),
            (account(1), Obstacle::Sent(Some("away".to_owned()))),
            (account(2), Obstacle::Unsigned("dear".to_owned())),
            (account(4), Obstacle::Behind),
        ];
        assert_eq!(found, expected.into(), "the window of 3 is open, and a block has 5");
    }

    #[test]
    fn a_post_that_no_block_takes_is_told_when_it_lasts_with_since_when_and_ends_by_itself() {
        let mut watch = Watch::default();
        let sent = || BTreeMap::from([(account(0), Obstacle::Sent(None))]);
        watch.open(sent(), &BTreeMap::new(), 100);
        assert_eq!(told(&watch, 0, 699), None);
        assert_eq!(told(&watch, 0, 700).map(|(since, _)| since), Some(100));
        watch.open(sent(), &BTreeMap::new(), 800);
        assert_eq!(told(&watch, 0, 800).map(|(since, _)| since), Some(100));
        assert_eq!(told(&watch, 1, 800), None, "that is another's");
        watch.open(BTreeMap::new(), &BTreeMap::new(), 900);
        assert_eq!(told(&watch, 0, 9_000), None, "a block has it");
        // Whoever leads next finds in the books when it was signed.
        assert_eq!(watch.unknown(&sent()), [&account(0)].into());
        watch.open(sent(), &[(account(0), 100)].into(), 1_000);
        assert_eq!(told(&watch, 0, 1_000).map(|(since, _)| since), Some(100));
        assert_eq!(watch.unknown(&sent()), [].into());
    }

    #[test]
    fn words_stay_for_a_while_and_change_at_once_with_what_they_are_about() {
        let mut watch = Watch::default();
        let mut at = |now, by| {
            watch.open([(account(0), by)].into(), &[(account(0), 0)].into(), now);
            told(&watch, 0, now).expect("it is late").1
        };
        let unsigned = |words: &str| Obstacle::Unsigned(words.to_owned());
        assert_eq!(at(1_000, unsigned("5 gwei")), "5 gwei");
        assert_eq!(at(1_299, unsigned("6 gwei")), "5 gwei");
        assert_eq!(at(1_300, unsigned("7 gwei")), "7 gwei");
        assert_eq!(at(1_301, Obstacle::Sent(Some("away".to_owned()))), "a post is signed and in no block: away");
        assert!(at(1_700, Obstacle::Sent(None)).starts_with("a post was sent and no block takes it"));
    }

    #[test]
    fn who_waits_for_anothers_post_is_told_only_if_that_one_does_not_go_out() {
        let mut watch = Watch::default();
        let both = |first: Obstacle| BTreeMap::from([(account(0), first), (account(1), Obstacle::Behind)]);
        watch.open(both(Obstacle::Behind), &BTreeMap::new(), 0);
        assert_eq!(told(&watch, 1, 5_000), None, "there are many");
        watch.open(both(Obstacle::Unsigned("it is dear".to_owned())), &BTreeMap::new(), 0);
        assert_eq!(told(&watch, 1, 600), Some((0, "its post waits for one before it: it is dear".to_owned())));
    }

    #[test]
    fn for_whom_no_post_is_planned_is_told_like_whose_post_is_kept() {
        let mut watch = Watch::default();
        watch.unplanned([(account(0), "too little".to_owned())].into(), 50);
        assert_eq!((told(&watch, 0, 649), told(&watch, 0, 650)), (None, Some((50, "too little".to_owned()))));
        // A look at open posts says nothing of it.
        watch.open(BTreeMap::new(), &BTreeMap::new(), 660);
        assert!(told(&watch, 0, 660).is_some());
        watch.unplanned(BTreeMap::new(), 670);
        assert_eq!(told(&watch, 0, 9_000), None);
        watch.unplanned([(account(0), "too little".to_owned())].into(), 9_000);
        watch.unplanned([(account(0), "too little".to_owned())].into(), 5_000);
        assert_eq!(told(&watch, 0, 5_600).map(|(since, _)| since), Some(5_000), "the clock was ahead, and is right again");
    }
}
