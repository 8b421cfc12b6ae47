//! Numbers for texts that occur often: comparing two numbers costs nothing, and a label that 100,000 nodes carry is
//! kept once. A number lives for as long as somebody keeps it; then it may be given to another text.

use foldhash::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// No text has this number.
pub(super) const NOTHING: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Words {
    numbers: HashMap<Arc<str>, u32>,
    /// By number: the text, and by how many it is kept.
    texts: Vec<(Arc<str>, u32)>,
    vacant: Vec<u32>,
}

impl Words {
    /// The text's number, kept once more.
    pub(super) fn keep(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.numbers.get(text) {
            self.texts[known as usize].1 += 1;
            return known;
        }
        let text: Arc<str> = text.into();
        let number = self.vacant.pop().unwrap_or_else(|| u32::try_from(self.texts.len()).unwrap_or(NOTHING));
        match self.texts.get_mut(number as usize) {
            Some(place) => *place = (text.clone(), 1),
            None => self.texts.push((text.clone(), 1)),
        }
        self.numbers.insert(text, number);
        number
    }

    /// The text's number, kept for good.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        self.find(text).unwrap_or_else(|| self.keep(text))
    }

    /// A number that is kept, kept once more.
    pub(super) fn keep_again(&mut self, number: u32) {
        self.texts[number as usize].1 += 1;
    }

    /// Kept once less.
    pub(super) fn release(&mut self, number: u32) {
        let Some((text, users)) = self.texts.get_mut(number as usize) else { return };
        *users = users.saturating_sub(1);
        if *users == 0 && self.numbers.remove(text).is_some() {
            self.vacant.push(number);
        }
    }

    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The text of a number that is kept.
    pub(super) fn text(&self, number: u32) -> &Arc<str> {
        &self.texts[number as usize].0
    }

    /// How many numbers there ever were at a time: all are smaller than this.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Every number with its text.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|(text, _)| &**text)
    }

    /// Numbers of labels, sorted, so that one is found fast.
    pub(super) fn keep_labels(&mut self, labels: &BTreeMap<String, String>) -> Arc<[u32]> {
        let mut numbers: Vec<u32> = labels.iter().map(|(key, value)| self.keep(&label(key, value))).collect();
        numbers.sort_unstable();
        numbers.into()
    }
}

/// A label as one text: no key has the sign in it.
pub(super) fn label(key: &str, value: &str) -> String {
    format!("{key}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_away_only_when_nobody_keeps_it() {
        let mut words = Words::default();
        let (one, again, two) = (words.keep("one"), words.keep("one"), words.keep("two"));
        assert_eq!((one, &**words.text(two)), (again, "two"));
        words.release(one);
        assert_eq!(words.find("one"), Some(one));
        words.release(one);
        assert_eq!((words.find("one"), words.keep("three"), words.len()), (None, one, 2));
    }
}
