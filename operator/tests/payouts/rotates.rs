//! The settler's key is rotated while a post is on its way: the procedure of operator/README.md, on a real chain.

use super::chain::{self, Anvil, CHAIN, Market};
use super::folder;
use super::follows::{Office, until};
use super::officer::{FEE_PAYEE, charge};
use alloy::providers::Provider;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use supercargo_contracts::{B256, PrivateKeySigner, U256, calls};
use supercargo_crds::names::escrow_stall::CHAIN_SET_UP;
use supercargo_ledger::{Post, PostState};
use supercargo_market::work::FundingId;

pub async fn under_way() -> Result<()> {
    let Some(program) = chain::program() else { return Ok(()) };
    let folder = folder()?;
    let anvil = Anvil::start(&program, folder.path())?;
    let market = Market::open(&anvil, FEE_PAYEE).await?;
    let mut office = Office::open(&market, folder.path()).await?;
    // No block comes, so what is sent stays on its way.
    let _: Value = market.chain.provider().raw_request("evm_setIntervalMining".into(), (0,)).await?;
    charge(&office.ledger, office.fence, &office.funding, 0..1).await?;
    let signed = async || {
        Ok::<Option<Post>, anyhow::Error>(office.ledger.open_posts().await?.into_iter().find(|post| post.state == PostState::Signed))
    };
    until("a post is on its way", async || Ok(signed().await?.is_some())).await?;
    let first = signed().await?.context("it is on its way")?;

    let new = PrivateKeySigner::from_bytes(&B256::repeat_byte(3))?;
    let gas = (new.address(), U256::from(10).pow(U256::from(20)));
    let _: Value = market.chain.provider().raw_request("anvil_setBalance".into(), gas).await?;
    rotate(&market, &office, &first, &new).await?;
    office
        .told("of a chain whose settler has another key", |account| {
            account.stalled.as_ref().is_some_and(|stall| stall.reason == CHAIN_SET_UP)
        })
        .await?;
    // Meanwhile work goes on.
    charge(&office.ledger, office.fence, &office.funding, 1..2).await?;
    std::fs::write(folder.path().join("key"), new.to_bytes().to_string())?;
    chain::tick(&market.chain).await?;
    office.paid().await?;

    let ours = |signer: &str| [market.settler.address(), new.address()].iter().any(|key| key.to_string() == signer);
    let attempts = office.ledger.attempts(&first.id).await?;
    ensure!(attempts.iter().all(|attempt| ours(&attempt.signer)), "{attempts:?}");
    let last = office.ledger.newest_final(CHAIN, None, 1).await?.pop().context("a post is final")?;
    let signers: Vec<String> = office.ledger.attempts(&last.id).await?.into_iter().map(|attempt| attempt.signer).collect();
    ensure!(signers.contains(&new.address().to_string()), "the new key has posted: {signers:?}");
    for lane in office.ledger.lanes(&office.funding).await? {
        let credited = market.lane(lane.payee).await?.posted_units;
        ensure!(credited == u128::from(lane.total.units()), "payee {} has {credited} of {}", lane.payee, lane.total.units());
    }
    until("every voucher is the new key's", async || {
        let vouchers = office.ledger.vouchers(CHAIN, FEE_PAYEE, &FundingId::from_stored(""), 10).await?;
        Ok(!vouchers.is_empty() && vouchers.iter().all(|voucher| voucher.terms.signer == new.address().to_string()))
    })
    .await
}

/// By the cold key, in a block of its own: the post on its way is left out of it.
async fn rotate(market: &Market, office: &Office, post: &Post, new: &PrivateKeySigner) -> Result<()> {
    let call = calls::rotate_call(1, new.address(), false);
    let mined = async {
        until("the rotation waits for a block", async || {
            let pool: Value = market.chain.provider().raw_request("txpool_content".into(), ()).await?;
            let payer = market.payer.address().to_string();
            Ok(pool["pending"].as_object().is_some_and(|senders| senders.keys().any(|sender| sender.eq_ignore_ascii_case(&payer))))
        })
        .await?;
        for attempt in office.ledger.attempts(&post.id).await? {
            let _: Value = market.chain.provider().raw_request("anvil_dropTransaction".into(), (attempt.hash,)).await?;
        }
        let _: Value = market.chain.provider().raw_request("evm_mine".into(), ()).await?;
        Ok(())
    };
    let (rotated, mined) = tokio::join!(market.execute("rotating", &market.payer, call), mined);
    mined.and(rotated.map(drop))
}
