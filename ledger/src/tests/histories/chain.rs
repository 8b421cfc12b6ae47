//! What a chain does to an account and its posts.

use super::{History, PAYEE, units};
use crate::{LaneCases, Outcome, Posting};
use sqlx::Row;
use std::sync::atomic::{AtomicU32, Ordering};
use supercargo_market::money::Amount;

/// Posts that are under way.
pub(super) const OPEN: &str = "IN ('PLANNED', 'SIGNED', 'MINED')";

/// How often something came back of what was paid, and what was final was undone: in all histories together.
pub(super) static CUTS: AtomicU32 = AtomicU32::new(0);
pub(super) static UNDONE: AtomicU32 = AtomicU32::new(0);

impl History<'_> {
    /// Of what was paid to a payee some comes back, and the case has its price: the chain has it at once, in both of its sums.
    pub(super) async fn cut(&mut self, back: u64, fee: u64) {
        let lanes = self.ledger.lanes(&self.account()).await.expect("reads");
        let paid = lanes.iter().find(|lane| lane.payee == PAYEE).map_or(0, |lane| lane.posted.units());
        let (back, fee) = (back.min(paid.saturating_sub(self.returned)), fee.min(self.available()));
        if back + fee == 0 {
            return;
        }
        self.last = None;
        CUTS.fetch_add(u32::from(back > 0), Ordering::Relaxed);
        (self.returned, self.case_fees) = (self.returned + back, self.case_fees + fee);
        let lane = LaneCases { payee: PAYEE, clawback: units(self.returned), fees: units(self.case_fees) };
        let cases = Posting::Cases { funding: self.account(), lanes: vec![lane] };
        let said = [self.fund(self.deposited(), self.withdrawn), cases];
        // What came back may be just what the case has cost.
        let moved = if back == fee { Outcome::Already } else { Outcome::Applied };
        assert_eq!(self.ledger.commit(self.fence, &said).await.expect("commits"), [moved, Outcome::Applied]);
        assert_eq!(self.ledger.commit(self.fence, &said).await.expect("commits"), [Outcome::Already, Outcome::Already]);
    }

    /// What was final is no more. Another post of the account may have to go first.
    pub(super) async fn undo(&self) {
        let before = self.settled().await;
        for post in self.posts("= 'FINAL'").await {
            self.ledger.undo_final(self.fence, &post).await.expect("takes it back, or waits for another");
        }
        UNDONE.fetch_add(u32::from(self.settled().await < before), Ordering::Relaxed);
    }

    async fn settled(&self) -> Amount {
        self.ledger.funding(&self.account()).await.expect("reads").map_or(Amount::ZERO, |balance| balance.posted)
    }

    pub(super) async fn posts(&self, state: &'static str) -> Vec<String> {
        let query = sqlx::AssertSqlSafe(format!("SELECT id FROM posts WHERE funding = $1 AND state {state} ORDER BY id"));
        let rows = sqlx::query(query).bind(self.account().to_string()).fetch_all(self.ledger.pool()).await.expect("reads");
        rows.iter().map(|row| row.get(0)).collect()
    }
}
