//! What became of posts and is yet to be told to the world. It is kept until it is told, whatever ends a look in between: what is
//! told twice is told once, since it is what the books say by then.

use super::SettlementError;
use crate::world::Event;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_ledger::{Ledger, Post};
use supercargo_market::work::{FundingId, WorkId};

/// Of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    funding: FundingId,
    of: Of,
}

/// Whose charges it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    /// Those that a post carries.
    Post(String),
    /// Those of a post that carries them no more.
    Works(Vec<WorkId>),
}

#[derive(Debug, Default)]
pub struct Untold {
    /// Posts that were stepped in a look that has not come to their end: what became of them is in the books.
    stepped: BTreeMap<String, FundingId>,
    news: Vec<News>,
    /// Final posts that were found to be undone, and how many of them nobody has counted yet.
    undone: BTreeSet<String>,
    uncounted: u64,
}

impl Untold {
    /// A look takes steps of these. Of those that an earlier look had begun with and that are not open any more, it never said
    /// what became of them.
    pub fn begin(&mut self, open: &[Post]) {
        let before = std::mem::take(&mut self.stepped);
        self.stepped = open.iter().map(|post| (post.id.clone(), post.funding.clone())).collect();
        let gone = before.into_iter().filter(|(id, _)| !self.stepped.contains_key(id));
        self.news.extend(gone.map(|(id, funding)| News { funding, of: Of::Post(id) }));
    }

    /// All of them have had their step, and these are final now.
    pub fn end<'a>(&mut self, done: impl Iterator<Item = &'a Post>) {
        self.stepped.clear();
        done.for_each(|post| self.post(&post.funding, &post.id));
    }

    /// Something else is true of a post and of the charges that it carries.
    pub fn post(&mut self, funding: &FundingId, post: &str) {
        self.news.push(News { funding: funding.clone(), of: Of::Post(post.to_owned()) });
    }

    /// A post may be taken back in a moment: whose charges it carries is not known from then on.
    pub async fn taken_back(&mut self, ledger: &Ledger, post: &Post) -> Result<(), SettlementError> {
        let works = ledger.works_of(&post.id).await?.into_iter().map(|(work, _)| work).collect();
        self.news.push(News { funding: post.funding.clone(), of: Of::Works(works) });
        Ok(())
    }

    /// A final post is not where it was. Whether that is news: until it is there again it is looked at again and again.
    pub fn undone(&mut self, post: &str) -> bool {
        let is_new = self.undone.insert(post.to_owned());
        self.uncounted += u64::from(is_new);
        is_new
    }

    /// All that are missing by now.
    pub fn missing<'a>(&mut self, posts: impl Iterator<Item = &'a Post>) {
        let missing: BTreeSet<&str> = posts.map(|post| post.id.as_str()).collect();
        self.undone.retain(|post| missing.contains(post.as_str()));
    }

    /// How many were found to be undone since this was asked last.
    pub fn count_undone(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    pub fn is_empty(&self) -> bool {
        self.stepped.is_empty() && self.news.is_empty()
    }

    pub fn first(&self) -> Option<&News> {
        self.news.first()
    }

    /// The first is told.
    pub fn told(&mut self) {
        if !self.news.is_empty() {
            self.news.remove(0);
        }
    }
}

impl News {
    /// What the books say of it now.
    pub async fn read(&self, ledger: &Ledger) -> Result<Vec<Event>, SettlementError> {
        let mut events = Vec::new();
        if let Some(balance) = ledger.funding(&self.funding).await? {
            let last_post = ledger.last_final(&self.funding).await?;
            events.push(Event::Posted { funding: self.funding.clone(), balance, last_post });
        }
        match &self.of {
            Of::Post(post) => {
                let works = ledger.works_of(post).await?;
                events.extend(works.into_iter().map(|(work, balance)| Event::Settled { work, balance }));
            }
            Of::Works(works) => {
                for work in works {
                    events.push(Event::Settled { work: work.clone(), balance: ledger.work(work).await? });
                }
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::outbox_tests::{PLAIN, Told, books, is_included, step};
    use crate::settlement::simulation::account;
    use supercargo_ledger::Fence;

    /// What is told, in short; all of it, once.
    async fn told(untold: &mut Untold, ledger: &Ledger) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(news) = untold.first() {
            all.extend(news.read(ledger).await.expect("reads").into_iter().map(|event| match event {
                Event::Posted { funding, balance, last_post } => {
                    let number = (0..9).find(|number| account(*number) == funding).expect("one of these");
                    format!("{number}: {} owed, {} posted in {last_post:?}", balance.owed.units(), balance.posted.units())
                }
                Event::Settled { work, balance } => {
                    format!("{}: {} settled by {:?}", work.uid, balance.settled.units(), balance.transaction.is_some())
                }
                other => panic!("{other:?}"),
            }));
            untold.told();
        }
        all
    }

    async fn finished(ledger: &Ledger, fence: Fence) {
        step(ledger, fence, &PLAIN, &[account(1)]).await;
        step(ledger, fence, &Told { included: is_included("one", true), ..PLAIN }, &[account(1)]).await;
    }

    #[tokio::test]
    async fn what_a_look_that_was_given_up_has_booked_is_told_by_the_next_one() {
        let (ledger, fence) = books().await;
        let mut untold = Untold::default();
        untold.begin(&ledger.open_posts().await.expect("reads"));
        finished(&ledger, fence).await;
        // It never came to its end, and nobody heard of it.
        assert!(untold.first().is_none() && !untold.is_empty());
        untold.begin(&ledger.open_posts().await.expect("reads"));
        let all = told(&mut untold, &ledger).await;
        assert!(all[0].starts_with("0: 0 owed, 100 posted in Some"), "{all:?}");
        assert_eq!(all[1..], ["0: 100 settled by true"]);
        untold.begin(&ledger.open_posts().await.expect("reads"));
        assert_eq!(told(&mut untold, &ledger).await, [""; 0], "once");
        untold.end([].into_iter());
        assert!(untold.is_empty());
    }

    #[tokio::test]
    async fn what_a_post_that_is_taken_back_had_paid_is_told_to_be_owed_again() {
        let (ledger, fence) = books().await;
        finished(&ledger, fence).await;
        let post = ledger.newest_final("c", None, 1).await.expect("reads").remove(0);
        let mut untold = Untold::default();
        untold.taken_back(&ledger, &post).await.expect("reads");
        assert!(ledger.undo_final(fence, &post.id).await.expect("takes it back"));
        assert_eq!(told(&mut untold, &ledger).await, ["0: 100 owed, 0 posted in None", "0: 0 settled by false"]);
    }
}
