//! Every node by its name, with a number to be known by and the ring of its offers; and all of them in the order of
//! their names, so that whoever goes through meets the first of a kind first. The order is kept in pages: a new name
//! moves no more than one page, and reading them all is reading memory from front to back.

use super::words::{NOTHING, Words};
use std::sync::Arc;

/// A page with more is split.
const PAGE: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    names: Words,
    /// By number: one slot of the node's ring.
    slots: Vec<u32>,
    /// Numbers, by name.
    pages: Vec<Vec<u32>>,
}

impl Nodes {
    /// The node's number, kept once more. A node may be named before it has an offer.
    pub(super) fn keep(&mut self, name: &str) -> u32 {
        let known = self.names.find(name).is_some();
        let number = self.names.keep(name);
        if !known {
            self.slots.resize(self.names.len(), NOTHING);
            let (page, place) = self.place(name);
            if self.pages.is_empty() {
                self.pages.push(Vec::new());
            }
            let numbers = &mut self.pages[page];
            numbers.insert(place, number);
            if numbers.len() > PAGE {
                // Names that come in order fill their pages.
                let rest = numbers.split_off(if place + 1 == numbers.len() { PAGE } else { PAGE / 2 });
                self.pages.insert(page + 1, rest);
            }
        }
        number
    }

    /// A number that is kept, kept once more.
    pub(super) fn keep_again(&mut self, number: u32) {
        self.names.keep_again(number);
    }

    /// Kept once less: a number that nobody keeps may be given to another node.
    pub(super) fn release(&mut self, number: u32) {
        let name = self.name(number).clone();
        self.names.release(number);
        if self.names.find(&name).is_none() {
            let (page, place) = self.place(&name);
            self.pages[page].remove(place);
            if self.pages[page].is_empty() {
                self.pages.remove(page);
            }
        }
    }

    /// Where a name is in the order, or would be.
    fn place(&self, name: &str) -> (usize, usize) {
        let before = |number: &u32| &**self.name(*number) < name;
        let page = self.pages.partition_point(|page| page.last().is_some_and(before)).min(self.pages.len().saturating_sub(1));
        (page, self.pages.get(page).map_or(0, |page| page.partition_point(before)))
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.names.find(name)
    }

    pub(super) fn name(&self, number: u32) -> &Arc<str> {
        self.names.text(number)
    }

    /// One slot of the node's ring, if it has an offer.
    pub(super) fn slot(&self, number: u32) -> Option<u32> {
        Some(self.slots[number as usize]).filter(|slot| *slot != NOTHING)
    }

    pub(super) fn set_slot(&mut self, number: u32, slot: Option<u32>) {
        self.slots[number as usize] = slot.unwrap_or(NOTHING);
    }

    /// One slot of each node that has one, by the nodes' names.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.pages.iter().flatten().filter_map(|number| self.slot(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn nodes_come_by_name_however_they_came_and_went(names in prop::collection::vec((0..3_000_u32, any::<bool>()), 0..3_000)) {
            let mut nodes = Nodes::default();
            let mut plain = BTreeMap::new();
            for (name, comes) in names {
                let name = name.to_string();
                if comes {
                    let number = nodes.keep(&name);
                    nodes.set_slot(number, Some(number));
                    plain.entry(name).or_insert((number, 0)).1 += 1;
                } else if let Some((number, users)) = plain.get_mut(&name) {
                    nodes.release(*number);
                    *users -= 1;
                    if *users == 0 {
                        plain.remove(&name);
                    }
                }
            }
            prop_assert_eq!(nodes.slots().collect::<Vec<_>>(), plain.values().map(|(number, _)| *number).collect::<Vec<_>>());
        }
    }
}
