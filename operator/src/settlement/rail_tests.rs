//! Several endpoints behind one rail: who is asked, whose answer counts, and where bytes are sent to.

use super::SettlementError;
use super::agree::{Agreed, NoAgreement, Terms};
use super::rail::{Endpoints, Included, Node, Pen, Price, Rail, Seen, Takes};
use futures::FutureExt;
use std::sync::{Arc, Mutex};
use supercargo_contracts::{B256, Finality, Finalized};
use supercargo_ledger::{Attempt, Post, PostState};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// Bytes, and whom they were sent to.
type Sent = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// An endpoint whose every answer is written down.
#[derive(Clone)]
struct Scripted {
    number: usize,
    away: bool,
    chain_id: u64,
    last: u64,
    /// It knows what a final block is.
    finalizes: bool,
    /// Its newest block.
    height: u64,
    fork: u8,
    nonce: u64,
    receipt: Option<Included>,
    price: Result<Price, &'static str>,
    gas_wei: u128,
    sent: Sent,
}

fn endpoint(sent: &Sent, number: usize) -> Scripted {
    Scripted {
        number,
        away: false,
        chain_id: 1,
        last: 100,
        finalizes: true,
        height: 164,
        fork: 0,
        nonce: 5,
        receipt: None,
        price: Ok(Price { gas: 1_000, max_fee_wei: 10, priority_fee_wei: 1 }),
        gas_wei: 1_000_000,
        sent: Arc::clone(sent),
    }
}

impl Scripted {
    fn answers<T>(&self, value: T) -> Result<T, SettlementError> {
        if self.away { Err(SettlementError::Waiting("does not answer".to_owned())) } else { Ok(value) }
    }

    fn named(&self, number: u64) -> Finality {
        Finality { number, hash: B256::repeat_byte(self.fork), timestamp: number }
    }
}

impl Node for Scripted {
    async fn chain_id(&self) -> Result<u64, SettlementError> {
        self.answers(self.chain_id)
    }
    async fn last_final(&self) -> Result<Finalized, SettlementError> {
        self.answers(match self.finalizes {
            true if self.last == 0 => Finalized::NotYet,
            true => Finalized::Block(self.named(self.last)),
            false => Finalized::NoTag,
        })
    }
    async fn height(&self) -> Result<u64, SettlementError> {
        self.answers(self.height)
    }
    async fn block(&self, number: u64) -> Result<Option<Finality>, SettlementError> {
        self.answers(Some(self.named(number)))
    }
    async fn latest_nonce(&self) -> Result<u64, SettlementError> {
        self.answers(self.nonce)
    }
    async fn nonce_at(&self, _: u64) -> Result<u64, SettlementError> {
        self.answers(self.nonce)
    }
    async fn included(&self, _: &str) -> Result<Option<Included>, SettlementError> {
        self.answers(self.receipt.clone())
    }
    async fn takes(&self, _: &Post) -> Result<Takes, SettlementError> {
        self.answers(Takes::All)
    }
    async fn is_credited_at(&self, _: &Post, _: u64) -> Result<bool, SettlementError> {
        self.answers(true)
    }
    async fn price(&self, _: &Post) -> Result<Price, SettlementError> {
        self.answers(self.price)?.map_err(|words| SettlementError::Refused(words.to_owned()))
    }
    async fn gas_balance_wei(&self) -> Result<u128, SettlementError> {
        self.answers(self.gas_wei)
    }
    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError> {
        self.sent.lock().expect("one thread").push((self.number, raw.to_vec()));
        self.answers(())
    }
}

struct TestPen;

impl Pen for TestPen {
    fn signer(&self) -> String {
        "0xpen".to_owned()
    }
    fn sign(&self, _: &Post, nonce: u64, price: Price) -> Result<Attempt, SettlementError> {
        let raw = format!("{} {} {}", price.gas, price.max_fee_wei, price.priority_fee_wei).into_bytes();
        Ok(Attempt { hash: "h".to_owned(), signer: self.signer(), nonce, raw, max_fee: price.max_fee_wei })
    }
    fn replace(&self, signed: &Attempt, price: Price) -> Result<Attempt, SettlementError> {
        self.sign(&post(), signed.nonce, price)
    }
}

/// It offers ten gwei at most.
struct Thrifty;

impl Pen for Thrifty {
    fn signer(&self) -> String {
        TestPen.signer()
    }
    fn most_fee_wei(&self) -> Option<u128> {
        Some(10_000_000_000)
    }
    fn sign(&self, post: &Post, nonce: u64, price: Price) -> Result<Attempt, SettlementError> {
        TestPen.sign(post, nonce, price)
    }
    fn replace(&self, signed: &Attempt, price: Price) -> Result<Attempt, SettlementError> {
        TestPen.replace(signed, price)
    }
}

fn post() -> Post {
    Post {
        id: "p".to_owned(),
        funding: FundingId::chain("c", "0x1"),
        state: PostState::Planned,
        rows: vec![(7, 5)],
        amount: Amount::from_units(5),
        lines_root: [0; 32],
        journal_head: [0; 32],
        winner: None,
        block: None,
    }
}

/// So many endpoints, each changed as it is told here, and what is sent to them.
fn several(count: usize, change: impl Fn(&mut Scripted)) -> (Sent, Endpoints<Scripted>) {
    let sent = Sent::default();
    let nodes = (0..count).map(|number| {
        let mut node = endpoint(&sent, number);
        change(&mut node);
        node
    });
    let endpoints = Endpoints::new(nodes.collect());
    (sent, endpoints)
}

fn look(endpoints: &Endpoints<Scripted>) -> Result<Agreed, NoAgreement> {
    let look = endpoints.look(Terms { chain_id: 1, now: 0, oldest_seconds: 0 });
    look.now_or_never().expect("a script answers at once")
}

/// The rail as the endpoints agree on it, and what is done with it.
fn with<T>(endpoints: &Endpoints<Scripted>, act: impl AsyncFn(Seen<'_, Scripted, TestPen>) -> T) -> T {
    let agreed = look(endpoints).expect("they agree");
    act(Seen { endpoints, agreed: &agreed, pen: &TestPen }).now_or_never().expect("a script answers at once")
}

#[test]
fn where_nothing_is_called_final_a_block_with_enough_above_it_is() {
    let without = |confirmations| several(3, |node| node.finalizes = false).1.confirmed_by(confirmations);
    let said = |endpoints: &Endpoints<Scripted>| look(endpoints).map(|agreed| agreed.block.number).map_err(|none| none.said);
    assert_eq!(said(&without(Some(64))), Ok(100));
    assert_eq!(said(&without(Some(164))), Ok(0));
    let nothing = Err((0..3).map(|number| (number, "knows no final block".to_owned())).collect());
    assert_eq!(said(&without(Some(165))), nothing, "the chain is not that old");
    assert_eq!(said(&without(None)), nothing);
    // One alone that is ahead, or that has another history, makes nothing final.
    let (_, endpoints) = several(3, |node| {
        (node.finalizes, node.height) = (false, 164 + 1_000 * u64::from(node.number == 0));
    });
    assert_eq!(said(&endpoints.confirmed_by(Some(64))), Ok(100));
    let (_, endpoints) = several(3, |node| (node.finalizes, node.fork) = (false, u8::from(node.number == 0)));
    assert_eq!(look(&endpoints.confirmed_by(Some(64))).map(|agreed| agreed.by), Ok(vec![1, 2]));
}

#[test]
fn confirmations_change_nothing_where_endpoints_know_what_is_final() {
    let (_, endpoints) = several(3, |node| node.height = 1_000);
    assert_eq!(look(&endpoints.confirmed_by(Some(1))).map(|agreed| agreed.block.number), Ok(100));
    // One that has nothing final yet, and one that fails, is not one that doesn't know.
    let (_, endpoints) = several(3, |node| node.last = 0);
    assert!(look(&endpoints.confirmed_by(Some(1))).is_err());
    let (_, endpoints) = several(1, |node| (node.away, node.height) = (true, 1_000));
    assert!(look(&endpoints.confirmed_by(Some(1))).is_err());
}

#[test]
fn endpoints_that_are_away_elsewhere_or_on_a_fork_are_not_asked() {
    let (_, endpoints) = several(3, |node| node.fork = if node.number == 1 { 9 } else { 0 });
    let agreed = look(&endpoints).expect("two agree");
    assert_eq!((agreed.by, agreed.left_out.len()), (vec![0, 2], 1));
    let (_, endpoints) = several(3, |node| match node.number {
        0 => node.away = true,
        1 => node.chain_id = 5,
        _ => {}
    });
    let said = look(&endpoints).expect_err("one of three is not enough").said;
    let said: Vec<&str> = said.iter().map(|(_, words)| words.as_str()).collect();
    let final_words = format!("says that block 100 is final as {}", B256::ZERO);
    assert_eq!(said, ["does not answer", "serves chain id 5, and 1 is configured", final_words.as_str()]);
}

#[test]
fn bytes_go_to_one_endpoint_and_to_the_next_when_it_fails() {
    let (sent, endpoints) = several(3, |_| {});
    with(&endpoints, async |seen| {
        for _ in 0..3 {
            seen.send(b"raw").await.expect("one takes them");
        }
    });
    let whom: Vec<usize> = sent.lock().expect("one thread").iter().map(|(whom, _)| *whom).collect();
    assert_eq!(whom, [0, 1, 2], "who keeps bytes to itself is not asked first again");

    // Since the look some have gone away.
    let agreed = look(&endpoints).expect("they agree");
    let (sent, endpoints) = several(3, |node| node.away = node.number < 2);
    let seen = Seen { endpoints: &endpoints, agreed: &agreed, pen: &TestPen };
    seen.send(b"raw").now_or_never().expect("at once").expect("the third takes them");
    let all = [(0, b"raw".to_vec()), (1, b"raw".to_vec()), (2, b"raw".to_vec())];
    assert_eq!(*sent.lock().expect("one thread"), all, "the same bytes");
    let (_, endpoints) = several(3, |node| node.away = true);
    let seen = Seen { endpoints: &endpoints, agreed: &agreed, pen: &TestPen };
    assert!(seen.send(b"raw").now_or_never().expect("at once").is_err(), "that nobody took them is told");
}

#[test]
fn one_alone_neither_refuses_a_post_nor_raises_its_price() {
    let (_, endpoints) = several(3, |node| {
        if node.number == 0 {
            node.price = Err("it lies");
        }
    });
    with(&endpoints, async |seen| assert_eq!(seen.sign(&post(), 5, 0).await.expect("two take it").raw, b"1250 10 1"));
    let (_, endpoints) = several(3, |node| {
        if node.number == 0 {
            node.price = Ok(Price { gas: 1, max_fee_wei: 1_000_000, priority_fee_wei: 1_000_000 });
        }
    });
    with(&endpoints, async |seen| assert_eq!(seen.sign(&post(), 5, 0).await.expect("it is taken").raw, b"1250 10 1"));
    let (_, endpoints) = several(3, |node| {
        if node.number < 2 {
            node.price = Err("frozen");
        }
    });
    with(&endpoints, async |seen| {
        let refused = seen.sign(&post(), 5, 0).await.expect_err("two refuse");
        assert_eq!(refused.refusal(), Some("frozen"));
    });
    let (_, endpoints) = several(2, |node| {
        if node.number == 0 {
            node.price = Err("frozen");
        }
    });
    with(&endpoints, async |seen| {
        let split = seen.sign(&post(), 5, 0).await.expect_err("they don't say the same");
        assert!(matches!(split, SettlementError::Waiting(_)), "{split}");
    });
}

#[test]
fn a_replacement_offers_more_of_both_fees() {
    let (_, endpoints) = several(3, |_| {});
    // Less than what is asked for now is no offer.
    with(&endpoints, async |seen| assert_eq!(seen.sign(&post(), 5, 9).await.expect("it is taken").raw, b"1250 10 10"));
    with(&endpoints, async |seen| assert_eq!(seen.sign(&post(), 5, 40).await.expect("it is taken").raw, b"1250 40 40"));
}

#[test]
fn what_would_cost_more_than_may_be_paid_is_not_signed_and_says_so() {
    const GWEI: u128 = 1_000_000_000;
    for (asked, least_fee, signs) in [
        (10 * GWEI, 0, true),
        (10 * GWEI + 1, 0, false),
        // Of a replacement, too.
        (9 * GWEI, 10 * GWEI, true),
        (9 * GWEI, 10 * GWEI + 1, false),
    ] {
        let (_, endpoints) = several(3, |node| {
            node.price = Ok(Price { gas: 1_000, max_fee_wei: asked, priority_fee_wei: 1 });
            node.gas_wei = u128::MAX;
        });
        let agreed = look(&endpoints).expect("they agree");
        let seen = Seen { endpoints: &endpoints, agreed: &agreed, pen: &Thrifty };
        match seen.sign(&post(), 5, least_fee).now_or_never().expect("a script answers at once") {
            Ok(attempt) => assert!(signs && attempt.max_fee <= 10 * GWEI, "at {asked} wei"),
            Err(SettlementError::FeeHigh(words)) => assert!(!signs && words.contains("more than 10 gwei"), "{words}"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn an_endpoint_that_hangs_is_not_waited_for_when_the_others_say_the_same() {
    let (_, endpoints) = several(3, |_| {});
    with(&endpoints, async |seen| {
        let asked = |answer: Option<u64>| async move {
            match answer {
                Some(answer) => Ok(answer),
                None => std::future::pending().await,
            }
        };
        let said = seen.majority("a number", [None, Some(7), Some(7)].map(asked).into_iter()).await;
        assert_eq!(said.expect("two say it"), 7);
    });
}

#[test]
fn a_signer_that_cant_pay_signs_nothing_and_says_what_is_missing() {
    let (_, endpoints) = several(1, |node| node.gas_wei = 12_499);
    with(&endpoints, async |seen| {
        let empty = seen.sign(&post(), 5, 0).await.expect_err("1,250 gas at 10 wei");
        assert!(matches!(&empty, SettlementError::NoGas(words) if words.contains("12499 wei") && words.contains("12500")), "{empty}");
    });
}

#[test]
fn a_nonce_and_a_receipt_are_what_enough_endpoints_say() {
    let included = Included { block: 90, succeeded: true, skipped: vec![], gas_used: 1, by_few: false };
    let (_, endpoints) = several(3, |node| {
        if node.number == 0 {
            (node.nonce, node.receipt) = (1_000, Some(included.clone()));
        }
    });
    with(&endpoints, async |seen| {
        assert_eq!(seen.latest_nonce().await.expect("two say it"), 5);
        assert_eq!(seen.final_nonce().await.expect("two say it"), 5);
        assert_eq!(seen.included("h").await.expect("two say it"), None);
    });
}

#[test]
fn a_receipt_that_one_of_two_has_counts_only_of_a_final_block_and_as_one_that_few_remember() {
    let asked = |block, other: Option<u64>| {
        let receipt = |block| Included { block, succeeded: true, skipped: vec![], gas_used: 1, by_few: false };
        let (_, endpoints) = several(2, |node| node.receipt = if node.number == 0 { Some(receipt(block)) } else { other.map(receipt) });
        with(&endpoints, async |seen| seen.included("h").await.map(|found| found.map(|found| (found.block, found.by_few))).ok())
    };
    assert_eq!(asked(100, None), Some(Some((100, true))), "the other may have forgotten it");
    assert_eq!(asked(101, None), None, "the other may be behind: not knowing is not \"no\"");
    assert_eq!(asked(100, Some(99)), None);
    assert_eq!(asked(100, Some(100)), Some(Some((100, false))));
}
