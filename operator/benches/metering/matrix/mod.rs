//! The fault matrix of the books: ten thousand containers a row against the real planner, evidence, rating and ledger, while
//! everything around them fails. Only the API server, the kubelets and time are simulated. Truth is what the simulation itself
//! did, to the nanosecond. A third of the containers is billed for the CPU and memory that Prometheus can show.

mod books;
mod cluster;
pub mod faults;
mod kubelet;
mod officer;
mod peers;
mod play;
mod prometheus;
pub mod report;
pub mod trace;
pub mod used;
pub mod verdict;

use faults::Faults;
use play::Play;
use used::UsedVerdict;
use verdict::Verdict;

/// What became of one row.
pub struct Row {
    pub faults: Faults,
    pub verdict: Verdict,
    pub used: UsedVerdict,
    /// Everything came to an end.
    pub ended: bool,
    /// How often the operator died, at how many different moments, and how often somebody who no longer led was refused.
    pub deaths: usize,
    pub moments: usize,
    pub fenced: usize,
    /// Accounts that are still told that something runs.
    pub held: usize,
}

pub async fn row(faults: &Faults, containers: usize, seed: u64) -> Row {
    let mut play = Play::new(seed, faults, containers).await;
    let ended = play.run().await;
    let verdict = verdict::judge(&play).await;
    let used = used::judge(&play);
    let (deaths, moments) = (play.died.values().sum(), play.died.len());
    let held = play.books.ledger.held().await.expect("can be read").len();
    Row { faults: faults.clone(), verdict, used, ended, deaths, moments, fenced: play.books.fenced, held }
}
