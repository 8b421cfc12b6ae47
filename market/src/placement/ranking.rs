//! How a wish ranks the classes: worked out once, and walked down by everyone who has the wish. Of few classes it has
//! all. Of many it has the best that had room when everything was looked at, and is good until somewhere there is more.

use super::catalog::Catalog;
use super::wish::{Agreed, Rank};

/// Where one way of finding out gives way to another: what is found is the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// So many classes are ranked all; of more, so many of the best.
    pub(super) few: usize,
    pub(super) best: usize,
    /// Rankings are all forgotten when they have so many entries together.
    pub(super) in_all: usize,
    /// A walk down a ranking looks at so many slots, then everything is looked at.
    pub(super) looks: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { few: 4_096, best: 1_024, in_all: 200_000, looks: 4_096 }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    pub(super) agreed: Agreed,
    pub(super) class: u32,
}

#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// As of which version of the classes; none: it is not known.
    version: Option<u64>,
    pub(super) classes: Vec<Ranked>,
    /// Classes are missing: all with no room, and of the others those that came after the last.
    pub(super) partial: bool,
    /// How many of the first classes have no devices left.
    pub(super) spent: usize,
    /// What `spent` and `partial` are true of.
    grown: u64,
}

impl Ranking {
    /// All were walked down and it says nothing about the rest.
    pub(super) fn end(&mut self) {
        self.version = None;
    }
}

impl Ranked {
    fn order(&self) -> (Rank, u32) {
        (self.agreed.rank, self.class)
    }
}

/// Gathers the best of many classes, in whatever order they come and however often. Those of one rank stay together:
/// between them the ranking does not decide.
#[derive(Debug)]
pub(super) struct Best {
    most: usize,
    best: Vec<(Rank, u32)>,
    /// By class: whether it came already.
    came: Vec<bool>,
    /// The rank of the last of the best so far.
    last: Option<Rank>,
    cut_at: usize,
}

impl Best {
    pub(super) fn of(most: usize, classes: usize) -> Self {
        Self { most, best: Vec::new(), came: vec![false; classes], last: None, cut_at: most * 2 }
    }

    /// Whether one of this rank is among the best so far.
    pub(super) fn has_place_for(&self, rank: Rank) -> bool {
        self.last.is_none_or(|last| rank <= last)
    }

    pub(super) fn add(&mut self, rank: Rank, class: u32) {
        if !self.has_place_for(rank) || std::mem::replace(&mut self.came[class as usize], true) {
            return;
        }
        self.best.push((rank, class));
        if self.best.len() >= self.cut_at {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.best.len() > self.most {
            let (_, (last, _), _) = self.best.select_nth_unstable(self.most - 1);
            let last = *last;
            self.best.retain(|(rank, _)| *rank <= last);
            self.last = Some(last);
        }
        self.cut_at = self.best.len().max(self.most) * 2;
    }
}

impl Catalog {
    /// A wish's ranking, if it is known as things stand; of few classes it is made when it is not.
    pub(super) fn take_ranking(&mut self, wish: u32) -> Option<Ranking> {
        let mut ranking = std::mem::take(&mut self.shapes.wished_mut(wish).ranking);
        let known = ranking.version == Some(self.shelves.version);
        if ranking.grown != self.grown {
            (ranking.spent, ranking.grown) = (0, self.grown);
            if ranking.partial {
                ranking.end();
            }
        }
        match ranking.version {
            Some(_) if known => Some(ranking),
            _ if self.shelves.classes.len() <= self.limits.few => Some(self.rank(wish)),
            _ => None,
        }
    }

    pub(super) fn put_ranking(&mut self, wish: u32, ranking: Ranking) {
        self.shapes.wished_mut(wish).ranking = ranking;
    }

    fn rank(&mut self, wish: u32) -> Ranking {
        if self.shapes.rankings().map(|ranking| ranking.classes.len()).sum::<usize>() > self.limits.in_all {
            self.shapes.forget_rankings();
        }
        let wish = &self.shapes.wished(wish).wish;
        let inhabited = self.shelves.classes.iter().zip(0..).filter(|(class, _)| !class.shelves.is_empty());
        let agreed = inhabited.filter_map(|(_, class)| Some(Ranked { agreed: wish.agrees(self.terms(class)).ok()?, class }));
        let mut classes: Vec<Ranked> = agreed.collect();
        classes.sort_unstable_by_key(Ranked::order);
        Ranking { version: Some(self.shelves.version), classes, partial: false, spent: 0, grown: self.grown }
    }

    /// What was gathered while everything was looked at becomes the wish's ranking.
    pub(super) fn put_best(&mut self, wish: u32, mut gathered: Best) {
        gathered.cut();
        gathered.best.sort_unstable();
        let wished = &self.shapes.wished(wish).wish;
        let agreed = |class: u32| Some(Ranked { agreed: wished.agrees(self.terms(class)).ok()?, class });
        let classes = gathered.best.into_iter().filter_map(|(_, class)| agreed(class)).collect();
        let ranking = Ranking { version: Some(self.shelves.version), classes, partial: true, spent: 0, grown: self.grown };
        self.put_ranking(wish, ranking);
    }
}
