//! What the books must do, said again in another way: by plain sums.

use super::{History, PARENTS, Step};

fn above(number: u8) -> impl Iterator<Item = u8> {
    std::iter::successors(PARENTS[usize::from(number)], |above| PARENTS[usize::from(*above)])
}

impl History<'_> {
    /// How much of it goes: what was taken out of a grant is no part of it any more.
    pub(super) fn lost(&self, less: u64) -> u64 {
        less.min(self.put_in).min(self.deposited() - self.withdrawn)
    }

    /// What the step does to the model, and whether the books must apply it.
    pub(super) fn expect(&mut self, step: &Step) -> bool {
        let available = self.available();
        match *step {
            Step::Fund(more) => {
                self.put_in += more;
                self.funded |= more > 0;
                more > 0
            }
            Step::Lose(less) => {
                let lost = self.lost(less);
                if self.granted {
                    self.withdrawn += lost;
                } else {
                    self.put_in -= lost;
                }
                lost > 0
            }
            Step::Hold(ref works) => {
                let mut grown = false;
                for (number, used) in works {
                    let Some(work) = self.works.get_mut(number).filter(|work| work.open) else { continue };
                    let used = (*used).min(work.reserved);
                    grown |= used > work.held;
                    work.held = work.held.max(used);
                }
                grown
            }
            Step::Reserve(number, amount) => {
                let known = self.works.get(&number).copied();
                let (held, lent) = known.map_or((0, 0), |work| (work.reserved, work.lent));
                let Some(own) = amount.checked_sub(lent).filter(|_| self.funded) else { return false };
                if known.is_some_and(|work| work.open && held == own) {
                    return false;
                }
                match PARENTS[usize::from(number)] {
                    None if own > available + held => return false,
                    None => {}
                    // There is one, and it has as much of its own that it hasn't used.
                    Some(above) => {
                        let Some(parent) = self.works.get(&above).copied() else { return false };
                        let free = if parent.open { parent.reserved - parent.held } else { 0 };
                        if own > held + free {
                            return false;
                        }
                        if own < held {
                            self.hand_up(number, held - own);
                        } else {
                            let parent = self.works.get_mut(&above).expect("it is there");
                            (parent.reserved, parent.lent) = (parent.reserved - (own - held), parent.lent + (own - held));
                        }
                    }
                }
                let work = self.works.entry(number).or_default();
                (work.open, work.reserved, work.held) = (true, own, work.held.min(own));
                self.approved.insert(number, work.charged + work.below + amount);
                true
            }
            Step::Charge { work: number, segment, seconds, dear } => {
                let Some(work) = self.works.get_mut(&number) else { return false };
                if !self.segments.insert((number, segment)) {
                    return false;
                }
                work.seconds += seconds;
                let exact = self.exact.entry(number).or_default();
                *exact += seconds * if dear { 70 } else { 25 };
                // All seconds together, rounded down once.
                let due = *exact / 36 - work.charged - work.absorbed;
                let taken = due.min(work.reserved);
                (work.reserved, work.held) = (work.reserved - taken, 0);
                work.charged += taken;
                work.absorbed += due - taken;
                for above in above(number) {
                    let work = self.works.get_mut(&above).expect("it is there");
                    (work.lent, work.below) = (work.lent - taken, work.below + taken);
                }
                true
            }
            Step::Release(number) => match self.works.get_mut(&number) {
                Some(work) if work.open => {
                    let rest = std::mem::take(&mut work.reserved);
                    (work.open, work.held) = (false, 0);
                    self.hand_up(number, rest);
                    true
                }
                _ => false,
            },
            _ => unreachable!("only these are postings"),
        }
    }

    /// What a work gives up is its nearest parent's that is not over; without one it is free.
    fn hand_up(&mut self, number: u8, rest: u64) {
        for above in above(number) {
            let work = self.works.get_mut(&above).expect("it is there");
            work.lent -= rest;
            if work.open {
                work.reserved += rest;
                return;
            }
        }
    }
}
