//! Random histories against a model that is calculated in another way: what must always hold of the books holds all
//! along.

use super::*;
use crate::Outcome;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::Row;
use std::collections::{BTreeMap, BTreeSet};

mod chain;
mod model;

const HISTORIES: u32 = 10_000;
/// So many share one database.
const SHARED: u32 = 500;
/// Every step's outcome is compared, and after so many all of the books.
const LOOK_EVERY: usize = 3;
const WORKS: u8 = 5;
/// Whose part each of them is.
const PARENTS: [Option<u8>; WORKS as usize] = [None, None, None, Some(0), Some(3)];
const DAY: i64 = 20_000;
const PAYEE: u32 = 7;

#[derive(Debug, Clone)]
enum Step {
    Fund(u64),
    /// There is less of it than before, whatever is bound: the chain has less, or a grant was taken out.
    Lose(u64),
    /// So much comes back from a payee, and so much its case has cost.
    Cut(u64, u64),
    Reserve(u8, u64),
    Charge {
        work: u8,
        segment: u32,
        seconds: u64,
        dear: bool,
    },
    Release(u8),
    /// What works have used by now.
    Hold(Vec<(u8, u64)>),
    /// Several callers at once.
    Together(Vec<Step>),
    /// Of as much as there is room for.
    Plan(u64),
    Settle {
        skip_first: bool,
    },
    Void,
    /// The chain undoes what was final.
    Undo,
    Restart,
}

fn posting() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..5_000).prop_map(Step::Fund),
        (0..WORKS, 0_u64..2_000).prop_map(|(work, amount)| Step::Reserve(work, amount)),
        (0..WORKS, 0_u32..6, 0_u64..900, any::<bool>()).prop_map(|(work, segment, seconds, dear)| Step::Charge {
            work,
            segment,
            seconds,
            dear
        }),
        (0..WORKS).prop_map(Step::Release),
        prop::collection::vec((0..WORKS, 0_u64..1_500), 0..4).prop_map(Step::Hold),
        (0_u64..3_000).prop_map(Step::Lose),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => posting(),
        2 => prop::collection::vec(posting(), 2..5).prop_map(Step::Together),
        1 => prop_oneof![Just(u64::MAX), 0_u64..800].prop_map(Step::Plan),
        2 => any::<bool>().prop_map(|skip_first| Step::Settle { skip_first }),
        1 => Just(Step::Void),
        1 => Just(Step::Undo),
        2 => (0_u64..600, 0_u64..60).prop_map(|(back, fee)| Step::Cut(back, fee)),
        1 => Just(Step::Restart),
    ];
    // In half of them something is owed from the beginning: little of what posts do would be seen otherwise.
    let owing = [Step::Fund(4_000), Step::Reserve(0, 1_500), Step::Charge { work: 0, segment: 0, seconds: 600, dear: true }];
    let all = (any::<bool>(), prop::collection::vec(step, 1..25));
    all.prop_map(move |(owes, steps)| owing.iter().filter(|_| owes).cloned().chain(steps).collect())
}

/// What the books must say of a work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Work {
    open: bool,
    /// Of what it holds back, passed on to those below it, and what they were charged.
    lent: u64,
    below: u64,
    reserved: u64,
    held: u64,
    charged: u64,
    absorbed: u64,
    seconds: u64,
}

/// One history's own account and works, in books that it shares with others.
struct History<'a> {
    ledger: &'a Ledger,
    fence: Fence,
    name: String,
    /// A platform's grant: what is charged is paid in the books, and nobody has a lane.
    granted: bool,
    funded: bool,
    put_in: u64,
    withdrawn: u64,
    returned: u64,
    case_fees: u64,
    works: BTreeMap<u8, Work>,
    /// What each has cost exactly, in 36ths of a base unit, and the most that it and all below it may ever cost.
    exact: BTreeMap<u8, u64>,
    approved: BTreeMap<u8, u64>,
    segments: BTreeSet<(u8, u32)>,
    /// Committed just before, and to be committed again.
    last: Option<Posting>,
}

impl History<'_> {
    fn account(&self) -> FundingId {
        if self.granted { FundingId::internal(&self.name) } else { FundingId::chain("default", &self.name) }
    }

    fn work(&self, work: u8) -> WorkId {
        WorkId::task(format!("{}-{work}", self.name))
    }

    fn bound(&self) -> u64 {
        self.works.values().map(|work| work.reserved + work.charged).sum()
    }

    /// As the chain has it, or what was ever granted.
    fn deposited(&self) -> u64 {
        self.put_in + self.returned - self.case_fees
    }

    fn available(&self) -> u64 {
        (self.deposited() - self.withdrawn).saturating_sub(self.bound())
    }

    fn fund(&self, deposited: u64, withdrawn: u64) -> Posting {
        let (funding, asset) = (self.account(), Asset::of(&self.account(), "USDC"));
        Posting::Fund { funding, asset, deposited: units(deposited), withdrawn: units(withdrawn) }
    }

    /// The posting of a step, at 25/36 of a base unit a second, or 70/36.
    fn posting(&self, step: &Step) -> Posting {
        match *step {
            Step::Fund(more) => self.fund(self.deposited() + more, self.withdrawn),
            Step::Lose(less) if self.granted => self.fund(self.deposited(), self.withdrawn + self.lost(less)),
            Step::Lose(less) => self.fund(self.deposited() - self.lost(less), self.withdrawn),
            Step::Hold(ref works) => {
                Posting::Hold { at: 60, works: works.iter().map(|(work, used)| (self.work(*work), units(*used))).collect() }
            }
            Step::Reserve(work, amount) => Posting::Reserve {
                work: self.work(work),
                funding: self.account(),
                asset: Asset::of(&self.account(), "USDC"),
                amount: units(amount),
                detail: "{}".into(),
                parent: PARENTS[usize::from(work)].map(|parent| self.work(parent)),
            },
            Step::Charge { work, segment, seconds, dear } => {
                let device_price = if dear { "0.0070" } else { "0.0025" }.parse().expect("a price");
                let held = Held { devices: 1, device_price, ..Held::default() };
                let cost = rating::cost(&held, seconds).expect("fits");
                let (segment, work) = (SegmentId::of_pod(format!("{}-{work}", self.name), segment), self.work(work));
                let fees = FeeSchedule { basis_points: 1_000, shares: vec![FeeShare { payee: 1, basis_points: 10_000 }] };
                let (evidence, place) = (Evidence::Record, "acme/n1".to_owned());
                Posting::Charge(Charge {
                    work,
                    attempt: 0,
                    segment,
                    seconds,
                    evidence,
                    place,
                    fault: false,
                    cost,
                    payee: (!self.granted).then_some(PAYEE),
                    fees,
                    metered: None,
                    day: DAY,
                })
            }
            Step::Release(work) => Posting::Release { work: self.work(work) },
            _ => unreachable!("only these are postings"),
        }
    }

    async fn live(&mut self, step: &Step) {
        match step {
            Step::Plan(room) => drop(self.ledger.plan_post_within(self.fence, &self.account(), units(*room), 0).await.expect("plans")),
            Step::Undo => self.undo().await,
            Step::Cut(back, fee) => self.cut(*back, *fee).await,
            Step::Settle { skip_first } => {
                if self.posts(chain::OPEN).await.is_empty() {
                    self.ledger.plan_post(self.fence, &self.account(), 0).await.expect("plans");
                }
                for post in self.posts(chain::OPEN).await {
                    let skipped: &[usize] = if *skip_first { &[0] } else { &[] };
                    self.ledger.book_final(self.fence, &post, "0x1", 1, skipped).await.expect("books");
                    assert!(!self.ledger.book_final(self.fence, &post, "0x1", 1, &[]).await.expect("books once"));
                }
            }
            Step::Void => {
                for post in self.posts(chain::OPEN).await {
                    self.ledger.void_post(self.fence, &post).await.expect("gives up");
                }
            }
            Step::Restart => {
                let old = std::mem::replace(&mut self.fence, self.ledger.take_lead("again").await.expect("leads"));
                let late = self.posting(&Step::Fund(1_000_000));
                self.ledger.commit(old, &[late]).await.expect_err("an old leader can't write");
                self.finds_its_works().await;
            }
            Step::Together(steps) => {
                self.last = None;
                let mut expected = Vec::new();
                let mut postings = Vec::new();
                for step in steps {
                    postings.push(self.posting(step));
                    expected.push(self.expect(step));
                }
                let callers = postings.iter().map(|posting| self.ledger.commit(self.fence, std::slice::from_ref(posting)));
                let applied = join_all(callers).await.into_iter().map(|outcomes| outcomes.expect("commits") == [Outcome::Applied]);
                assert_eq!(applied.collect::<Vec<_>>(), expected, "{steps:?}");
            }
            step => {
                // The one before comes again with it: a second time changes nothing, whatever the first did.
                let again = self.last.take();
                let postings: Vec<Posting> = again.iter().cloned().chain([self.posting(step)]).collect();
                let expected = self.expect(step);
                let outcomes = self.ledger.commit(self.fence, &postings).await.expect("commits");
                assert_eq!(outcomes.last() == Some(&Outcome::Applied), expected, "{step:?}: {outcomes:?}");
                assert!(again.is_none() || outcomes[0] != Outcome::Applied, "{again:?} counted twice");
                self.last = postings.into_iter().next_back();
            }
        }
    }

    /// The books against the model, by another way than the database's own rules.
    async fn holds(&self) {
        let Some(balance) = self.ledger.funding(&self.account()).await.expect("reads") else { return };
        // Every unit stands somewhere, and where the model says.
        let (deposited, bound) = (self.deposited(), self.bound());
        let shortfall = (bound + self.withdrawn).saturating_sub(deposited);
        assert_eq!((balance.deposited.units(), balance.shortfall.units()), (deposited + shortfall, shortfall));
        let told = [balance.put_in(), balance.withdrawn, balance.returned, balance.case_fees].map(Amount::units);
        assert_eq!(told, [self.put_in, self.withdrawn, self.returned, self.case_fees]);
        let stands = [balance.available, balance.reserved, balance.owed, balance.posted, balance.withdrawn, balance.case_fees];
        let stands: u64 = stands.map(Amount::units).iter().sum();
        assert_eq!(self.put_in + self.returned + shortfall, stands, "what was put in and what came back is somewhere");
        assert_eq!(balance.absorbed.units(), self.works.values().map(|work| work.absorbed).sum::<u64>());
        assert_eq!(balance.held.units(), self.works.values().map(|work| work.held).sum::<u64>());
        assert_eq!(balance.available.units(), self.available());
        assert_eq!(balance.reserved.units(), self.works.values().map(|work| work.reserved).sum::<u64>());
        let charged = self.works.values().map(|work| work.charged).sum::<u64>();
        assert_eq!(balance.owed.units() + balance.posted.units(), charged, "what was charged is owed or posted");
        let on_its_day = self.ledger.last_day(&self.account(), DAY).await.expect("reads");
        assert_eq!(on_its_day, (charged > 0).then_some((DAY, units(charged))), "and counts on a day");
        for (number, work) in &self.works {
            assert!(work.charged + work.below <= self.approved[number], "{number} and what is below it cost more than was held back");
        }
        if self.granted {
            assert_eq!(balance.posted.units(), charged, "a grant is paid in the books");
        }
        // The lanes are what was charged, and no post carries more.
        let lanes = self.ledger.lanes(&self.account()).await.expect("reads");
        assert_eq!(lanes.iter().map(|lane| lane.total.units()).sum::<u64>(), if self.granted { 0 } else { charged });
        assert!(self.granted || lanes.iter().map(|lane| lane.posted.units()).sum::<u64>() == balance.posted.units());
        assert!(lanes.iter().all(|lane| lane.posted <= lane.planned && lane.planned <= lane.total));
        assert_eq!(self.read().await, self.works);
    }

    /// The works as the books hold them, each segment's seconds counted once.
    async fn read(&self) -> BTreeMap<u8, Work> {
        let query = "SELECT r.work, open, reserved, charged, absorbed, (SELECT CAST(COALESCE(SUM(seconds), 0) AS BIGINT) FROM charges c WHERE c.work = r.work), \
                     (SELECT CAST(COALESCE(SUM(used), 0) AS BIGINT) FROM holds h WHERE h.work = r.work), COALESCE(k.lent, 0), COALESCE(k.below, 0) \
                     FROM reservations r LEFT JOIN kin k ON k.work = r.work WHERE r.work IN ($1, $2, $3, $4, $5)";
        let ids: Vec<String> = (0..WORKS).map(|number| self.work(number).to_string()).collect();
        let rows =
            ids.iter().fold(sqlx::query(query), |query, id| query.bind(id.clone())).fetch_all(self.ledger.pool()).await.expect("reads");
        let number = |row: &sqlx::any::AnyRow, index: usize| row.get::<i64, _>(index).unsigned_abs();
        rows.iter()
            .map(|row| {
                let work = ids.iter().position(|id| *id == row.get::<String, _>(0)).expect("is one of ours");
                let open = row.get::<i64, _>(1) == 1;
                let (reserved, charged, absorbed, seconds) = (number(row, 2), number(row, 3), number(row, 4), number(row, 5));
                let (lent, below) = (number(row, 7), number(row, 8));
                (
                    u8::try_from(work).expect("is small"),
                    Work { open, lent, below, reserved, held: number(row, 6), charged, absorbed, seconds },
                )
            })
            .collect()
    }

    /// A new leader finds every work that holds something back: no pod is without its reservation.
    async fn finds_its_works(&self) {
        let open = self.ledger.open_reservations().await.expect("reads");
        let ours = open.iter().filter(|row| row.work.uid.starts_with(&format!("{}-", self.name)));
        let found: Vec<_> = ours.map(|row| (row.work.clone(), row.reserved.units())).collect();
        let expected = self.works.iter().filter(|(_, work)| work.open);
        assert_eq!(found, expected.map(|(number, work)| (self.work(*number), work.reserved)).collect::<Vec<_>>());
    }
}

async fn live(ledger: &Ledger, name: String, steps: &[Step]) {
    let fence = ledger.take_lead(&name).await.expect("leads");
    let mut history = History {
        ledger,
        fence,
        // Every third of them.
        granted: name.bytes().map(u32::from).sum::<u32>() % 3 == 0,
        name,
        funded: false,
        put_in: 0,
        withdrawn: 0,
        returned: 0,
        case_fees: 0,
        works: BTreeMap::new(),
        exact: BTreeMap::new(),
        approved: BTreeMap::new(),
        segments: BTreeSet::new(),
        last: None,
    };
    for (index, step) in steps.iter().enumerate() {
        history.live(step).await;
        if index % LOOK_EVERY == 0 {
            history.holds().await;
        }
    }
    // What is open would be found by every later history's leader.
    history.live(&Step::Together((0..WORKS).map(Step::Release).collect())).await;
    history.holds().await;
}

fn histories() -> u32 {
    std::env::var("SUPERCARGO_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES)
}

fn run(cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut left = cases;
    while left > 0 {
        let now = left.min(SHARED);
        left -= now;
        let ledger = runtime.block_on(Ledger::open("sqlite::memory:")).expect("opens");
        let number = AtomicU32::new(0);
        let result = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(now) }).run(&steps(), |steps| {
            let name = format!("h{}", number.fetch_add(1, Ordering::Relaxed));
            runtime.block_on(live(&ledger, name, &steps));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
        runtime.block_on(ledger.verify()).expect("the journal is whole");
    }
}

#[test]
fn random_histories_keep_the_books_balanced() {
    let threads = u32::try_from(std::thread::available_parallelism().map_or(1, usize::from)).expect("is small");
    let all = histories();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || run(all / threads + u32::from(thread < all % threads)));
        }
    });
    let rare = [&chain::CUTS, &chain::UNDONE].map(|times| times.load(Ordering::Relaxed));
    assert!(all < HISTORIES || rare.iter().all(|times| *times > all / 100), "what came back, and what was undone: {rare:?}");
    println!("{all} histories, none broken");
}

on_both! {
    async fn some_histories_on_a_real_file_or_server(place: Place) {
        let ledger = Ledger::open(&place.url).await.expect("opens");
        let mut runner = TestRunner::deterministic();
        for number in 0..25 {
            let steps = proptest::strategy::ValueTree::current(&steps().new_tree(&mut runner).expect("generates"));
            live(&ledger, format!("h{number}"), &steps).await;
        }
        ledger.verify().await.expect("the journal is whole");
    }
}
