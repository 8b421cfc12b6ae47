//! The order of what a look does with posts: one for every desk, and for the simulated operators that die in it.

use super::SettlementError;

pub trait Steps {
    /// Final posts, looked at again. Gives back what kept some of them from it.
    async fn recheck(&mut self) -> Result<Option<SettlementError>, SettlementError>;
    /// One step of each open post. Gives back what kept the rest from one.
    async fn pay(&mut self) -> Result<Option<SettlementError>, SettlementError>;
    /// Plans posts. `false`: nothing can be due yet.
    async fn plan(&mut self) -> Result<bool, SettlementError>;
}

/// What can't be said of some posts keeps no other from its step. What was final can wait for the next time: what is under way and
/// what is owed can't, and what is planned is signed at once.
pub async fn take(steps: &mut impl Steps) -> Result<(), SettlementError> {
    let mut failed = steps.recheck().await.unwrap_or_else(Some);
    failed = steps.pay().await?.or(failed);
    if steps.plan().await? {
        failed = steps.pay().await?.or(failed);
    }
    failed.map_or(Ok(()), Err)
}
