//! What a pass has to look at: whatever something was said of since, or whose time has come. A pass over a world of which
//! nothing was said costs nothing, however large it is.

use foldhash::{HashMap, HashSet};
use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;

/// Things that wait for their turn, each once.
#[derive(Debug)]
pub struct Queue<T> {
    order: VecDeque<T>,
    queued: HashSet<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), queued: HashSet::default() }
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    pub fn push(&mut self, one: T) {
        if self.queued.insert(one.clone()) {
            self.order.push_back(one);
        }
    }

    pub fn pop(&mut self) -> Option<T> {
        let one = self.order.pop_front()?;
        self.queued.remove(&one);
        Some(one)
    }

    pub fn contains(&self, one: &T) -> bool {
        self.queued.contains(one)
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// When each thing is to be looked at again though nothing is said of it.
#[derive(Debug)]
pub struct Alarms<T> {
    order: BTreeSet<(i64, T)>,
    set: HashMap<T, i64>,
    /// When it was last asked what is due.
    asked: i64,
}

impl<T> Default for Alarms<T> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), set: HashMap::default(), asked: i64::MIN }
    }
}

impl<T: Clone + Ord + Hash> Alarms<T> {
    /// The earlier of two alarms for one thing counts: when it is looked at it sets the next.
    pub fn set(&mut self, at: i64, one: T) {
        if let Some(&known) = self.set.get(&one) {
            if known <= at {
                return;
            }
            self.order.remove(&(known, one.clone()));
        }
        self.set.insert(one.clone(), at);
        self.order.insert((at, one));
    }

    /// All of them are, once the clock was set back: by it they would come late.
    pub fn pop_due(&mut self, now: i64) -> Option<T> {
        if now < self.asked {
            self.set.values_mut().for_each(|at| *at = now);
            self.order = self.set.iter().map(|(one, at)| (*at, one.clone())).collect();
        }
        self.asked = now;
        self.order.first().filter(|(at, _)| *at <= now)?;
        let (_, one) = self.order.pop_first()?;
        self.set.remove(&one);
        Some(one)
    }

    pub fn next(&self) -> Option<i64> {
        self.order.first().map(|(at, _)| *at)
    }
}

/// So many a second; who comes later is told when to come again.
#[derive(Debug, Default)]
pub struct Pace {
    second: i64,
    taken: i64,
    refused: i64,
}

impl Pace {
    /// Takes one of this second's, or says after how many seconds to ask again.
    pub fn take(&mut self, now: i64, a_second: i64) -> Result<(), i64> {
        if now != self.second {
            *self = Self { second: now, ..Self::default() };
        }
        if self.taken < a_second {
            self.taken += 1;
            return Ok(());
        }
        self.refused += 1;
        Err(1 + self.refused / a_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_one_turn_however_often_it_is_named() {
        let mut queue = Queue::default();
        ["a", "b", "a"].into_iter().for_each(|one| queue.push(one));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some("a"), Some("b"), None));
    }

    #[test]
    fn who_comes_too_many_a_second_is_spread_over_the_next_ones() {
        let mut pace = Pace::default();
        let answers: Vec<_> = (0..6).map(|_| pace.take(5, 2)).collect();
        assert_eq!(answers, [Ok(()), Ok(()), Err(1), Err(2), Err(2), Err(3)]);
        assert_eq!(pace.take(6, 2), Ok(()));
        assert_eq!(pace.take(2, 2), Ok(()), "the clock was set back");
    }

    #[test]
    fn of_two_alarms_for_one_thing_the_earlier_counts_and_goes_off_once() {
        let mut alarms = Alarms::default();
        alarms.set(20, "a");
        alarms.set(10, "a");
        alarms.set(30, "a");
        alarms.set(15, "b");
        assert_eq!((alarms.next(), alarms.pop_due(9)), (Some(10), None));
        assert_eq!((alarms.pop_due(15), alarms.pop_due(15), alarms.pop_due(99)), (Some("a"), Some("b"), None));
    }

    #[test]
    fn when_the_clock_is_set_back_every_alarm_goes_off_and_is_set_by_it_anew() {
        let mut alarms = Alarms::default();
        alarms.set(1_000, "a");
        alarms.set(2_000, "b");
        assert_eq!(alarms.pop_due(900), None);
        assert_eq!((alarms.pop_due(600), alarms.pop_due(600), alarms.pop_due(600)), (Some("a"), Some("b"), None));
        alarms.set(700, "a");
        assert_eq!((alarms.pop_due(650), alarms.pop_due(700)), (None, Some("a")));
    }
}
