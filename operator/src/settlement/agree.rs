//! What several endpoints of a chain say together. A block is final when enough of them name the same one, and an answer
//! counts when enough of them give it: one endpoint that is old, broken or lies changes nothing. The rule is pure; its
//! tables are below.

use super::SettlementError;
use supercargo_contracts::Finality;

/// An endpoint that is further behind the others than this answers old state.
const MOST_BEHIND_SECONDS: u64 = 900;

/// What one endpoint said in one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub chain_id: u64,
    /// The newest block that it calls final.
    pub last: Finality,
    /// What it has at the heights that are compared.
    pub blocks: Vec<Finality>,
}

/// An endpoint's words, or why there are none.
pub type Answer = Result<Said, String>;

/// What an answer is held to.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub chain_id: u64,
    pub now: i64,
    /// A last final block that is older than this is old state, whoever else says it.
    pub oldest_seconds: i64,
}

/// The endpoints of a chain by their numbers: who agrees on which block, and who is left out, with the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    pub block: Finality,
    pub by: Vec<usize>,
    pub left_out: Vec<(usize, String)>,
}

/// Too few say the same: what each of them says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAgreement {
    pub said: Vec<(usize, String)>,
    /// Nobody serves the chain that is configured: waiting mends nothing.
    pub other_chain: bool,
}

impl Said {
    fn at(&self, height: u64) -> Option<Finality> {
        std::iter::once(&self.last).chain(&self.blocks).find(|block| block.number == height).copied()
    }
}

/// How many of so many endpoints have to say the same: one alone is believed, of two both, of three two.
pub fn needed(endpoints: usize) -> usize {
    endpoints / 2 + 1
}

/// The heights that enough endpoints call final, the highest first. There may be several: what an endpoint claims beyond
/// the others must not keep those from agreeing further down.
pub fn heights(lasts: &[u64], needed: usize) -> Vec<u64> {
    let mut sorted = lasts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let mut heights: Vec<u64> = sorted.into_iter().skip(needed - 1).collect();
    heights.dedup();
    heights
}

/// The newest block that enough of them have and call final.
pub fn agree(answers: &[Answer], terms: Terms) -> Result<Agreed, NoAgreement> {
    let needed = needed(answers.len());
    let mut left_out = Vec::new();
    let mut usable = Vec::new();
    for (number, answer) in answers.iter().enumerate() {
        match answer.as_ref().map_err(Clone::clone).and_then(|said| fitness(said, terms).map(|()| said)) {
            Ok(said) => usable.push((number, said)),
            Err(words) => left_out.push((number, words)),
        }
    }
    let lasts: Vec<u64> = usable.iter().map(|(_, said)| said.last.number).collect();
    for height in heights(&lasts, needed) {
        for block in usable.iter().filter_map(|(_, said)| said.at(height)) {
            let (with, without): (Vec<_>, Vec<_>) = usable.iter().partition(|(_, said)| said.at(height) == Some(block));
            if with.len() >= needed {
                let known: Vec<&Said> = with.iter().map(|(_, said)| *said).collect();
                left_out.extend(without.iter().filter_map(|(number, said)| Some((*number, fault(said, block, &known)?))));
                left_out.sort_by_key(|(number, _)| *number);
                return Ok(Agreed { block, by: with.iter().map(|(number, _)| *number).collect(), left_out });
            }
        }
    }
    let other_chain = !answers.is_empty() && answers.iter().all(|answer| answer.as_ref().is_ok_and(|said| said.chain_id != terms.chain_id));
    let mut said = left_out;
    said.extend(
        usable.iter().map(|(number, said)| (*number, format!("says that block {} is final as {}", said.last.number, said.last.hash))),
    );
    said.sort_by_key(|(number, _)| *number);
    Err(NoAgreement { said, other_chain })
}

/// What makes an answer useless whatever the others say.
fn fitness(said: &Said, terms: Terms) -> Result<(), String> {
    if said.chain_id != terms.chain_id {
        return Err(format!("serves chain id {}, and {} is configured", said.chain_id, terms.chain_id));
    }
    let age = terms.now.saturating_sub_unsigned(said.last.timestamp);
    if age > terms.oldest_seconds {
        return Err(format!("answers old state: its last final block {} is {age} s old", said.last.number));
    }
    Ok(())
}

/// Why an endpoint that is not among those that agree is left out; `None` when it is only a little behind.
fn fault(said: &Said, agreed: Finality, known: &[&Said]) -> Option<String> {
    let other = |block: &Finality| known.iter().find_map(|one| one.at(block.number)).filter(|theirs| theirs != block);
    for block in std::iter::once(&said.last).chain(&said.blocks) {
        if let Some(theirs) = other(block) {
            return Some(format!("says that block {} is {}, and the others that it is {}", block.number, block.hash, theirs.hash));
        }
    }
    let behind = agreed.timestamp.saturating_sub(said.last.timestamp);
    (behind > MOST_BEHIND_SECONDS)
        .then(|| format!("answers old state: its last final block {} is {behind} s behind the others'", said.last.number))
}

/// The answer that enough of those who were asked give. A failed read is no answer.
pub fn majority<T: PartialEq>(what: &'static str, answers: Vec<Result<T, SettlementError>>, needed: usize) -> Result<T, SettlementError> {
    let mut given = enough(answers, needed)?;
    let at = (0..given.len()).find(|&at| given.iter().filter(|other| **other == given[at]).count() >= needed);
    at.map(|at| given.swap_remove(at)).ok_or_else(|| SettlementError::Waiting(format!("the endpoints give different answers about {what}")))
}

/// What is known of something that endpoints forget after a while.
#[derive(Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// Enough of them say that it is so, or that there is nothing.
    ByEnough(Option<T>),
    /// It lies behind what they all call final, so who knows nothing of it may have forgotten it: then that is no answer. What
    /// the rest say is less than enough, and has to be borne out by something else.
    ByFew(T),
}

/// What enough of them say. Where neither side is enough, those that remember it are heard, as long as they all say the same of
/// something that everybody must have seen. That nobody remembers it is said by enough, or by too few.
pub fn remembered<T: PartialEq>(
    what: &'static str,
    answers: Vec<Result<Option<T>, SettlementError>>,
    needed: usize,
    is_past: impl Fn(&T) -> bool,
) -> Result<Known<T>, SettlementError> {
    let mut given = enough(answers, needed)?;
    if let Some(at) = (0..given.len()).find(|&at| given.iter().filter(|other| **other == given[at]).count() >= needed) {
        return Ok(Known::ByEnough(given.swap_remove(at)));
    }
    let mut known = given.into_iter().flatten();
    let first = known.next().filter(|first| is_past(first) && known.all(|other| other == *first));
    first.map(Known::ByFew).ok_or_else(|| SettlementError::Waiting(format!("the endpoints give different answers about {what}")))
}

/// All answers, when there are enough of them; else why not.
pub fn enough<T>(answers: Vec<Result<T, SettlementError>>, needed: usize) -> Result<Vec<T>, SettlementError> {
    let (mut given, mut failure) = (Vec::new(), None);
    for answer in answers {
        match answer {
            Ok(value) => given.push(value),
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    if given.len() >= needed {
        return Ok(given);
    }
    Err(failure.unwrap_or_else(|| SettlementError::Waiting("too few endpoints were asked".to_owned())))
}

/// What enough of them have reached: for what only rises and is not the same everywhere at once.
pub fn reached(mut values: Vec<u64>, needed: usize) -> Option<u64> {
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(needed - 1).copied()
}

/// The one in the middle, of two the lower: nobody alone can make it higher than an honest one says.
pub fn low_middle<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The one in the middle, of two the higher.
pub fn high_middle<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use supercargo_contracts::B256;

    const TERMS: Terms = Terms { chain_id: 1, now: 100_000, oldest_seconds: 3_600 };

    /// A block each ten seconds; the 10,000th is made now. `fork` tells one history from another.
    fn block(number: u64, fork: u8) -> Finality {
        Finality { number, hash: B256::repeat_byte(fork), timestamp: number * 10 }
    }

    /// An endpoint of a history, asked about these heights.
    fn says(last: u64, fork: u8, asked: &[u64]) -> Answer {
        let blocks = asked.iter().filter(|height| **height < last).map(|height| block(*height, fork)).collect();
        Ok(Said { chain_id: 1, last: block(last, fork), blocks })
    }

    fn silent() -> Answer {
        Err("does not answer".to_owned())
    }

    /// What came of it, as a line: the block, who agrees on it, and who is left out.
    fn outcome(answers: &[Answer]) -> String {
        let words = |said: &[(usize, String)]| said.iter().map(|(number, words)| format!("; {number} {words}")).collect::<String>();
        match agree(answers, TERMS) {
            Ok(agreed) => format!("{} by {:?}{}", agreed.block.number, agreed.by, words(&agreed.left_out)),
            Err(none) => format!("none{}", words(&none.said)),
        }
    }

    fn short(hash: u8) -> String {
        B256::repeat_byte(hash).to_string()
    }

    #[test]
    fn one_is_believed_alone_of_two_both_and_of_three_two() {
        assert_eq!([1, 2, 3, 4, 5].map(needed), [1, 2, 2, 3, 3]);
        for (answers, expected) in [
            (vec![says(9_990, 1, &[])], "9990 by [0]".to_owned()),
            (vec![says(9_990, 1, &[]), says(9_990, 1, &[])], "9990 by [0, 1]".to_owned()),
            (vec![says(9_990, 1, &[9_980]), says(9_980, 1, &[])], "9980 by [0, 1]".to_owned()),
            (vec![says(9_990, 1, &[]), silent(), says(9_990, 1, &[])], "9990 by [0, 2]; 1 does not answer".to_owned()),
            // The third is a little behind: it is not held against it.
            (vec![says(9_990, 1, &[9_985]), says(9_990, 1, &[9_985]), says(9_985, 1, &[])], "9990 by [0, 1]".to_owned()),
        ] {
            assert_eq!(outcome(&answers), expected);
        }
    }

    #[test]
    fn too_few_that_say_the_same_are_no_answer() {
        for (answers, expected) in [
            (vec![silent()], "none; 0 does not answer".to_owned()),
            (vec![says(9_990, 1, &[]), silent()], format!("none; 0 says that block 9990 is final as {}; 1 does not answer", short(1))),
            (
                vec![says(9_990, 1, &[]), says(9_990, 2, &[])],
                format!("none; 0 says that block 9990 is final as {}; 1 says that block 9990 is final as {}", short(1), short(2)),
            ),
            (
                vec![says(9_990, 1, &[]), says(9_990, 2, &[]), says(9_990, 3, &[])],
                format!(
                    "none; 0 says that block 9990 is final as {}; 1 says that block 9990 is final as {}; 2 says that block 9990 is final as {}",
                    short(1),
                    short(2),
                    short(3)
                ),
            ),
        ] {
            assert_eq!(outcome(&answers), expected);
        }
    }

    #[test]
    fn who_is_old_lies_or_serves_another_chain_is_left_out_with_words() {
        let elsewhere = |last: u64| says(last, 1, &[]).map(|said| Said { chain_id: 5, ..said });
        let lie = |height: u64| format!("says that block {height} is {}, and the others that it is {}", short(2), short(1));
        for (answers, expected) in [
            (
                vec![says(9_990, 1, &[]), elsewhere(9_990), says(9_990, 1, &[])],
                "9990 by [0, 2]; 1 serves chain id 5, and 1 is configured".to_owned(),
            ),
            (
                vec![says(9_990, 1, &[9_000]), says(9_990, 1, &[9_000]), says(9_000, 1, &[])],
                "9990 by [0, 1]; 2 answers old state: its last final block 9000 is 10000 s old".to_owned(),
            ),
            (
                vec![says(9_990, 1, &[9_880]), says(9_990, 1, &[9_880]), says(9_880, 1, &[])],
                "9990 by [0, 1]; 2 answers old state: its last final block 9880 is 1100 s behind the others'".to_owned(),
            ),
            (vec![says(9_000, 1, &[])], "none; 0 answers old state: its last final block 9000 is 10000 s old".to_owned()),
            (vec![says(9_990, 1, &[]), says(9_990, 1, &[]), says(9_990, 2, &[])], format!("9990 by [0, 1]; 2 {}", lie(9_990))),
            // It is ahead with another history: the others agree at a height of theirs, and one of them knows better above it too.
            (
                vec![says(9_999, 2, &[9_990, 9_985]), says(9_990, 1, &[9_985]), says(9_985, 1, &[])],
                format!("9985 by [1, 2]; 0 {}", lie(9_990)),
            ),
            // Another history that ends further down.
            (vec![says(9_990, 1, &[9_985]), says(9_990, 1, &[9_985]), says(9_985, 2, &[])], format!("9990 by [0, 1]; 2 {}", lie(9_985))),
        ] {
            assert_eq!(outcome(&answers), expected);
        }
    }

    #[test]
    fn only_a_chain_that_nobody_serves_is_a_fault_of_the_set_up() {
        let elsewhere = || says(9_990, 1, &[]).map(|said| Said { chain_id: 5, ..said });
        assert!(agree(&[elsewhere(), elsewhere()], TERMS).is_err_and(|none| none.other_chain));
        assert!(agree(&[elsewhere(), silent()], TERMS).is_err_and(|none| !none.other_chain));
    }

    #[test]
    fn heights_are_those_that_enough_call_final() {
        assert_eq!(heights(&[7], 1), [7]);
        assert_eq!(heights(&[7, 9], 2), [7]);
        assert_eq!(heights(&[7, 9, 9], 2), [9, 7]);
        assert_eq!(heights(&[1_000, 9, 7], 2), [9, 7]);
        assert_eq!(heights(&[7], 2), [0; 0]);
    }

    #[test]
    fn an_answer_counts_when_enough_give_it_and_a_failed_read_is_none() {
        let failed = || Err(SettlementError::Waiting("no".to_owned()));
        let told = |answers: Vec<Result<u8, SettlementError>>| majority("a thing", answers, 2).map_err(|error| error.to_string());
        assert_eq!(told(vec![Ok(1), Ok(2), Ok(1)]), Ok(1));
        assert_eq!(told(vec![Ok(2), Ok(1), failed()]), Err("the endpoints give different answers about a thing".to_owned()));
        assert_eq!(told(vec![Ok(1), failed(), failed()]), Err("no".to_owned()));
        assert_eq!(told(vec![]), Err("too few endpoints were asked".to_owned()));
    }

    #[test]
    fn who_knows_nothing_of_what_lies_behind_the_final_block_may_have_forgotten_it() {
        let failed = || Err(SettlementError::Waiting("no".to_owned()));
        // Up to 10 everybody has seen it.
        let told = |answers: Vec<Result<Option<u8>, SettlementError>>, needed| {
            remembered("a thing", answers, needed, |number| *number <= 10).map_err(|error| error.to_string())
        };
        let differ = || Err("the endpoints give different answers about a thing".to_owned());
        for (answers, needed, expected) in [
            (vec![Ok(Some(5))], 1, Ok(Known::ByEnough(Some(5)))),
            (vec![Ok(None)], 1, Ok(Known::ByEnough(None))),
            (vec![Ok(Some(5)), Ok(Some(5))], 2, Ok(Known::ByEnough(Some(5)))),
            (vec![Ok(Some(5)), Ok(None)], 2, Ok(Known::ByFew(5))),
            (vec![Ok(None), Ok(Some(10))], 2, Ok(Known::ByFew(10))),
            (vec![Ok(Some(11)), Ok(None)], 2, differ()),
            (vec![Ok(Some(5)), Ok(Some(6))], 2, differ()),
            (vec![Ok(None), Ok(None)], 2, Ok(Known::ByEnough(None))),
            // A failed read is neither.
            (vec![Ok(Some(5)), failed()], 2, Err("no".to_owned())),
            (vec![Ok(None), failed()], 2, Err("no".to_owned())),
            (vec![Ok(Some(5)), Ok(None), failed()], 2, Ok(Known::ByFew(5))),
            // One alone against enough says nothing.
            (vec![Ok(None), Ok(Some(5)), Ok(None)], 2, Ok(Known::ByEnough(None))),
            (vec![Ok(None), Ok(Some(5)), Ok(Some(5))], 2, Ok(Known::ByEnough(Some(5)))),
            (vec![Ok(None), Ok(Some(5)), Ok(Some(6))], 2, differ()),
            (vec![Ok(None), Ok(Some(5)), Ok(None), Ok(Some(5))], 3, Ok(Known::ByFew(5))),
        ] {
            let words = format!("{answers:?}");
            assert_eq!(told(answers, needed), expected, "{words}");
        }
    }

    #[test]
    fn one_alone_moves_neither_a_nonce_nor_a_price() {
        assert_eq!(
            [reached(vec![5, 1_000, 5], 2), reached(vec![5, 0, 5], 2), reached(vec![5], 1), reached(vec![5], 2)],
            [Some(5), Some(5), Some(5), None]
        );
        assert_eq!(
            [low_middle(vec![9, 1, 2]), low_middle(vec![9, 1]), low_middle(vec![9]), low_middle::<u8>(vec![])],
            [Some(2), Some(1), Some(9), None]
        );
        assert_eq!([high_middle(vec![9, 1, 2]), high_middle(vec![9, 1]), high_middle(vec![9])], [Some(2), Some(9), Some(9)]);
    }
}
