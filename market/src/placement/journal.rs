//! What changed lately, slot by slot, as it was before. Whoever knows an answer as of a moment brings it up to date
//! from what changed since, and does not look at everything again.

use super::slot::Slot;
use foldhash::HashSet;
use std::collections::VecDeque;

/// More are not remembered: looking at everything is then as fast.
const REMEMBERED: usize = 2_048;

#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The moment of the first entry that is remembered.
    first: u64,
    /// The slot and what it was before; nothing when it is new.
    entries: VecDeque<(u32, Option<Slot>)>,
}

impl Journal {
    /// The moment, for `since`.
    pub(super) fn now(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn note(&mut self, slot: u32, was: Option<Slot>) {
        self.entries.push_back((slot, was));
        if self.entries.len() > REMEMBERED {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// Something changed that is not said slot by slot: no earlier answer can be brought up to date.
    pub(super) fn begin_anew(&mut self) {
        self.first = self.now() + 1;
        self.entries.clear();
    }

    /// Every slot that changed since a moment, once, as it was then. `None`: that is not remembered.
    pub(super) fn since(&self, moment: u64) -> Option<impl Iterator<Item = (u32, Option<&Slot>)>> {
        let skipped = usize::try_from(moment.checked_sub(self.first)?).ok()?;
        let mut seen = HashSet::default();
        Some(self.entries.iter().skip(skipped).filter(move |(slot, _)| seen.insert(*slot)).map(|(slot, was)| (*slot, was.as_ref())))
    }

    /// How many changes there were since.
    pub(super) fn distance(&self, moment: u64) -> u64 {
        self.now().saturating_sub(moment)
    }
}
