//! The rail: the few things that the outbox asks of a chain, and how they are asked of several endpoints. The EVM's is the
//! only one so far; the tests have another that crashes, forgets, undoes and lies.

use super::SettlementError;
use super::agree::{self, Agreed, Answer, Known, NoAgreement, Said, Terms};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use std::sync::atomic::{AtomicUsize, Ordering};
use supercargo_contracts::{Finality, Finalized};
use supercargo_ledger::{Attempt, Post};

/// A transaction that is in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    pub block: u64,
    pub succeeded: bool,
    pub skipped: Vec<usize>,
    pub gas_used: u64,
    /// Fewer endpoints than are needed say so, of a final block: the others may have forgotten it.
    pub by_few: bool,
}

/// Which of a post's rows the contract would credit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    All,
    /// The others' lanes are closed for so long after each of their credits.
    Some {
        window_seconds: u64,
    },
    Nothing,
}

impl Takes {
    /// By the rows whose lanes are open, and the others.
    pub fn of(open: usize, closed: usize, window_seconds: u64) -> Self {
        match (open, closed) {
            (_, 0) => Self::All,
            (0, _) => Self::Nothing,
            _ => Self::Some { window_seconds },
        }
    }
}

/// What a post would use, and what is offered for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub gas: u64,
    pub max_fee_wei: u128,
    pub priority_fee_wei: u128,
}

/// What the outbox asks of a chain. Every answer may be late or never come; none is read as "no".
pub trait Rail {
    fn signer(&self) -> String;
    /// The highest block that can't be undone.
    fn finalized_block(&self) -> u64;
    /// How many transactions of the signer are in the newest block's state.
    async fn latest_nonce(&self) -> Result<u64, SettlementError>;
    /// The same of the finalized block's state.
    async fn final_nonce(&self) -> Result<u64, SettlementError>;
    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError>;
    /// Which of a post's rows would be credited now: a row is skipped while what its lane has still matures.
    async fn takes(&self, post: &Post) -> Result<Takes, SettlementError>;
    /// Whether the final block's lanes have all that the post's rows say, by whichever transactions.
    async fn is_credited(&self, post: &Post) -> Result<bool, SettlementError>;
    /// The post, signed with this nonce; the fee is at least `least_fee`.
    async fn sign(&self, post: &Post, nonce: u64, least_fee: u128) -> Result<Attempt, SettlementError>;
    /// What was signed for the post before, for at least this fee: all but the offer is the same, and only one of both can ever be
    /// included.
    async fn replace(&self, post: &Post, signed: &Attempt, least_fee: u128) -> Result<Attempt, SettlementError>;
    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError>;
}

/// What fewer endpoints than are needed remember of a transaction is held to what all of them say now: its nonce is used for good,
/// and the lanes have what it posted. Where they have not, nobody is to say that it succeeded: its rows are planned anew, which
/// pays nothing twice, since a row is a total.
pub async fn borne_out<R: Rail>(rail: &R, post: &Post, attempt: &Attempt, found: &Included) -> Result<Included, SettlementError> {
    if !found.by_few {
        return Ok(found.clone());
    }
    if attempt.signer == rail.signer() && rail.final_nonce().await? <= attempt.nonce {
        let hash = &attempt.hash;
        return Err(SettlementError::Waiting(format!("an endpoint says that {hash} is final, and its nonce is not used there")));
    }
    let succeeded = found.succeeded && rail.is_credited(post).await?;
    Ok(Included { succeeded, skipped: Vec::new(), ..found.clone() })
}

/// One endpoint of a chain: it may be away, be behind, or lie.
pub trait Node {
    async fn chain_id(&self) -> Result<u64, SettlementError>;
    /// The newest block that it calls final.
    async fn last_final(&self) -> Result<Finalized, SettlementError>;
    /// The newest block that it has, asked for where nothing is called final.
    async fn height(&self) -> Result<u64, SettlementError> {
        Err(SettlementError::Waiting("does not tell its height".to_owned()))
    }
    async fn block(&self, number: u64) -> Result<Option<Finality>, SettlementError>;
    async fn latest_nonce(&self) -> Result<u64, SettlementError>;
    async fn nonce_at(&self, block: u64) -> Result<u64, SettlementError>;
    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError>;
    async fn takes(&self, post: &Post) -> Result<Takes, SettlementError>;
    async fn is_credited_at(&self, post: &Post, block: u64) -> Result<bool, SettlementError>;
    async fn price(&self, post: &Post) -> Result<Price, SettlementError>;
    /// What the signer has left for gas.
    async fn gas_balance_wei(&self) -> Result<u128, SettlementError>;
    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError>;
}

/// The settler's hot key, or what stands for it in tests.
pub trait Pen {
    fn signer(&self) -> String;
    /// More than this is never offered for a unit of gas.
    fn most_fee_wei(&self) -> Option<u128> {
        None
    }
    /// The same post, nonce and price give the same bytes.
    fn sign(&self, post: &Post, nonce: u64, price: Price) -> Result<Attempt, SettlementError>;
    /// The same call with the same nonce as in these bytes, whatever their post says by now, at another price.
    fn replace(&self, signed: &Attempt, price: Price) -> Result<Attempt, SettlementError>;
}

/// The endpoints of one chain, in the order of the configuration.
#[derive(Debug)]
pub struct Endpoints<N> {
    nodes: Vec<N>,
    /// Who is sent to first, the next time.
    turn: AtomicUsize,
    /// On a chain that calls no block final: so many above one make it that.
    confirmations: Option<u64>,
}

impl<N: Node> Endpoints<N> {
    pub fn new(nodes: Vec<N>) -> Self {
        Self { nodes, turn: AtomicUsize::new(0), confirmations: None }
    }

    /// Where an endpoint doesn't know what a final block is, one with so many above it counts as that.
    #[must_use]
    pub fn confirmed_by(self, confirmations: Option<u64>) -> Self {
        Self { confirmations, ..self }
    }

    pub fn needed(&self) -> usize {
        agree::needed(self.nodes.len())
    }

    /// What the endpoints agree to be final now.
    pub async fn look(&self, terms: Terms) -> Result<Agreed, NoAgreement> {
        let said = join_all(self.nodes.iter().map(|node| first_words(node, self.confirmations))).await;
        let lasts: Vec<u64> = said.iter().flatten().map(|said| said.last.number).collect();
        let heights = agree::heights(&lasts, self.needed());
        let answers = join_all(said.into_iter().zip(&self.nodes).map(|(said, node)| compared(node, said, &heights))).await;
        agree::agree(&answers, terms)
    }
}

async fn first_words<N: Node>(node: &N, confirmations: Option<u64>) -> Answer {
    let (chain_id, last) = futures::future::join(node.chain_id(), node.last_final()).await;
    let chain_id = chain_id.map_err(|error| error.briefly())?;
    let last = match (last.map_err(|error| error.briefly())?, confirmations) {
        (Finalized::NoTag, Some(confirmations)) => confirmed(node, confirmations).await.map_err(|error| error.briefly())?,
        (last, _) => last.block(),
    };
    let last = last.ok_or_else(|| "knows no final block".to_owned())?;
    Ok(Said { chain_id, last, blocks: Vec::new() })
}

async fn confirmed<N: Node>(node: &N, confirmations: u64) -> Result<Option<Finality>, SettlementError> {
    match node.height().await?.checked_sub(confirmations) {
        Some(height) => node.block(height).await,
        None => Ok(None),
    }
}

/// The same endpoint's blocks at the heights below its last one.
async fn compared<N: Node>(node: &N, said: Answer, heights: &[u64]) -> Answer {
    let mut said = said?;
    for height in heights.iter().filter(|height| **height < said.last.number) {
        let block = node.block(*height).await.map_err(|error| error.briefly())?;
        said.blocks.push(block.ok_or_else(|| format!("has no block {height}, and calls a later one final"))?);
    }
    Ok(said)
}

/// One look at a chain. Everything is asked of the endpoints that agree, and an answer is what enough of them say.
pub struct Seen<'a, N, P> {
    pub endpoints: &'a Endpoints<N>,
    pub agreed: &'a Agreed,
    pub pen: &'a P,
}

impl<N: Node, P> Seen<'_, N, P> {
    /// Those whom everything is asked of.
    pub fn agreeing(&self) -> impl Iterator<Item = &N> {
        self.agreed.by.iter().map(|number| &self.endpoints.nodes[*number])
    }

    pub async fn majority<T, F>(&self, what: &'static str, asked: impl Iterator<Item = F>) -> Result<T, SettlementError>
    where
        T: PartialEq,
        F: Future<Output = Result<T, SettlementError>>,
    {
        agree::majority(what, self.answers(asked).await, self.endpoints.needed())
    }

    /// One that hangs is not waited for when enough others have said the same.
    async fn answers<T, F>(&self, asked: impl Iterator<Item = F>) -> Vec<Result<T, SettlementError>>
    where
        T: PartialEq,
        F: Future<Output = Result<T, SettlementError>>,
    {
        let (mut asked, mut answers): (FuturesUnordered<F>, Vec<_>) = (asked.collect(), Vec::new());
        while let Some(answer) = asked.next().await {
            let same = |value: &T| answers.iter().flatten().filter(|other| *other == value).count() + 1;
            let enough = answer.as_ref().is_ok_and(|value| same(value) >= self.endpoints.needed());
            answers.push(answer);
            if enough {
                break;
            }
        }
        answers
    }

    pub async fn enough<T, F: Future<Output = Result<T, SettlementError>>>(
        &self,
        asked: impl Iterator<Item = F>,
    ) -> Result<Vec<T>, SettlementError> {
        agree::enough(join_all(asked).await, self.endpoints.needed())
    }

    pub async fn gas_balance_wei(&self) -> Result<u128, SettlementError> {
        let balances = self.enough(self.agreeing().map(Node::gas_balance_wei)).await?;
        Ok(agree::low_middle(balances).unwrap_or_default())
    }

    /// What is offered for a post, as far as the configuration and the signer's balance let it.
    async fn offer(&self, post: &Post, least_fee: u128) -> Result<Price, SettlementError>
    where
        P: Pen,
    {
        let price = self.price(post).await?;
        let max_fee_wei = price.max_fee_wei.max(least_fee);
        if let Some(most) = self.pen.most_fee_wei().filter(|most| max_fee_wei > *most) {
            let most = most / 1_000_000_000;
            // What it would be moves with every block, and is no news.
            return Err(SettlementError::FeeHigh(format!(
                "a post would have to offer more than {most} gwei for gas (chains[].maxFeeGwei): it waits until gas is cheaper"
            )));
        }
        // Nodes want both fees of a replacement raised, and what was offered before is not known here.
        let priority_fee_wei = if least_fee > 0 { max_fee_wei } else { price.priority_fee_wei };
        let price = Price { gas: price.gas.saturating_add(price.gas / 4), max_fee_wei, priority_fee_wei };
        let (most, left) = (price.max_fee_wei.saturating_mul(price.gas.into()), self.gas_balance_wei().await?);
        if left < most {
            let signer = self.pen.signer();
            return Err(SettlementError::NoGas(format!("{signer} has {left} wei for gas and a post may cost {most}: send it some")));
        }
        Ok(price)
    }

    /// What most of them take the post for. One that refuses alone is not heard: it may be behind.
    async fn price(&self, post: &Post) -> Result<Price, SettlementError> {
        let answers = join_all(self.agreeing().map(|node| node.price(post))).await;
        let refusals = || answers.iter().filter_map(|answer| answer.as_ref().err().and_then(SettlementError::refusal));
        if refusals().count() >= self.endpoints.needed() {
            return Err(SettlementError::Refused(refusals().next().unwrap_or_default().to_owned()));
        }
        let alone = |error: SettlementError| match error.refusal() {
            Some(words) => SettlementError::Waiting(format!("too few endpoints say that the contract refuses a post: {words}")),
            None => error,
        };
        let answers = answers.into_iter().map(|answer| answer.map_err(alone)).collect();
        let prices = agree::enough(answers, self.endpoints.needed())?;
        let of = |part: fn(&Price) -> u128| prices.iter().map(part).collect();
        Ok(Price {
            gas: agree::high_middle(prices.iter().map(|price| price.gas).collect()).unwrap_or_default(),
            max_fee_wei: agree::low_middle(of(|price| price.max_fee_wei)).unwrap_or_default(),
            priority_fee_wei: agree::low_middle(of(|price| price.priority_fee_wei)).unwrap_or_default(),
        })
    }
}

impl<N: Node, P: Pen> Rail for Seen<'_, N, P> {
    fn signer(&self) -> String {
        self.pen.signer()
    }

    fn finalized_block(&self) -> u64 {
        self.agreed.block.number
    }

    async fn latest_nonce(&self) -> Result<u64, SettlementError> {
        let nonces = self.enough(self.agreeing().map(Node::latest_nonce)).await?;
        Ok(agree::reached(nonces, self.endpoints.needed()).unwrap_or_default())
    }

    async fn final_nonce(&self) -> Result<u64, SettlementError> {
        self.majority("a nonce", self.agreeing().map(|node| node.nonce_at(self.agreed.block.number))).await
    }

    async fn included(&self, hash: &str) -> Result<Option<Included>, SettlementError> {
        let answers = self.answers(self.agreeing().map(|node| node.included(hash))).await;
        // All who are asked have the final block under the same hash, and so all that was before it.
        let is_past = |found: &Included| found.block <= self.agreed.block.number;
        Ok(match agree::remembered("a receipt", answers, self.endpoints.needed(), is_past)? {
            Known::ByEnough(found) => found,
            Known::ByFew(found) => Some(Included { by_few: true, ..found }),
        })
    }

    async fn takes(&self, post: &Post) -> Result<Takes, SettlementError> {
        self.majority("a lane", self.agreeing().map(|node| node.takes(post))).await
    }

    async fn is_credited(&self, post: &Post) -> Result<bool, SettlementError> {
        let at = self.agreed.block.number;
        self.majority("a lane", self.agreeing().map(|node| node.is_credited_at(post, at))).await
    }

    async fn sign(&self, post: &Post, nonce: u64, least_fee: u128) -> Result<Attempt, SettlementError> {
        self.pen.sign(post, nonce, self.offer(post, least_fee).await?)
    }

    async fn replace(&self, post: &Post, signed: &Attempt, least_fee: u128) -> Result<Attempt, SettlementError> {
        self.pen.replace(signed, self.offer(post, least_fee).await?)
    }

    /// To one of them, and to the next when it fails: the same bytes, so that they count once. Who keeps them to itself is
    /// not asked first the next time.
    async fn send(&self, raw: &[u8]) -> Result<(), SettlementError> {
        let begin = self.endpoints.turn.fetch_add(1, Ordering::Relaxed);
        let mut failure = None;
        for step in 0..self.agreed.by.len() {
            let number = self.agreed.by[(begin + step) % self.agreed.by.len()];
            match self.endpoints.nodes[number].send(raw).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| SettlementError::Waiting("there is no endpoint to send to".to_owned())))
    }
}
