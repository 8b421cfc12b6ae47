//! A payer disputes one payee's lane: the others are paid all the same, and what the one earns meanwhile joins the case.

use super::chain::{self, Anvil, Market};
use super::folder;
use super::follows::{Office, until};
use super::officer::{FEE_PAYEE, charge};
use anyhow::{Context, Result, ensure};
use supercargo_contracts::calls;

/// Long enough to dispute a credit that was just seen, and short enough to wait for. A case is open for a week.
const WINDOW_SECONDS: u32 = 20;

pub async fn one_of_many() -> Result<()> {
    let Some(program) = chain::program() else { return Ok(()) };
    let folder = folder()?;
    let anvil = Anvil::start(&program, folder.path())?;
    let market = Market::with_window(&anvil, FEE_PAYEE, WINDOW_SECONDS).await?;
    let office = Office::open(&market, folder.path()).await?;
    // The first task is payee 1's, the second payee 2's, the sixth payee 1's again.
    charge(&office.ledger, office.fence, &office.funding, 0..1).await?;
    until("payee 1 is credited", async || Ok(market.lane(1).await?.posted_units > 0)).await?;
    market.execute("disputing", &market.payer, calls::dispute_call(market.account, 1)).await?;
    let disputed = market.lane(1).await?;
    ensure!(disputed.disputed_until > 0, "there is no case: {disputed:?}");
    charge(&office.ledger, office.fence, &office.funding, 1..2).await?;
    charge(&office.ledger, office.fence, &office.funding, 5..6).await?;
    // No time passes on the chain but what it takes.
    office.paid().await?;
    for payee in [1, 2, FEE_PAYEE] {
        let lanes = office.ledger.lanes(&office.funding).await?;
        let owed = lanes.iter().find(|lane| lane.payee == payee).with_context(|| format!("payee {payee} has earned something"))?.total;
        let lane = market.lane(payee).await?;
        ensure!(lane.posted_units == owed.units().into(), "payee {payee} is owed {owed:?}: {lane:?}");
    }
    let after = market.lane(1).await?;
    ensure!(after.posted_units > disputed.posted_units, "what was earned since is in the lane: {after:?}");
    ensure!(after.disputed_until == disputed.disputed_until && after.mature_units == disputed.mature_units, "the case is open: {after:?}");
    Ok(())
}
