//! A payee's vouchers, for whoever proves to hold the key that registered it.

use super::gate::Gate;
use super::{Api, Chain, Refusal};
use serde::Deserialize;
use supercargo_contracts::{Address, B256, Bytes, PayeeRequest, Voucher, Vouchers};
use supercargo_market::money::Amount;
use supercargo_market::work::FundingId;

/// So many are answered at once; the rest is asked for.
const PAGE: usize = 200;
/// A request is good for so long before and after the time that it names. Who overhears one may repeat it until then, and is
/// given what can be claimed for that payee alone.
const GOOD_FOR_SECONDS: u64 = 120;

/// Which part is asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Page {
    /// The account of the last one that is known, and how much that one is for.
    after: Option<B256>,
    below: Option<u64>,
}

pub async fn of<G: Gate>(
    api: &Api<G>,
    chain: &str,
    payee: u32,
    page: Page,
    at: Option<String>,
    signature: Option<String>,
) -> Result<Vouchers, Refusal> {
    let known = api.chains.iter().find(|known| known.name == chain);
    let known = known.ok_or_else(|| Refusal::not_there("there is no chain of this name here"))?;
    must_be_owner(api, known, payee, at, signature)?;
    let after = page.after.map_or_else(|| FundingId::from_stored(""), |account| FundingId::chain(chain, &account.to_string()));
    let most = u32::try_from(PAGE + 1).unwrap_or(u32::MAX);
    let below = Amount::from_units(page.below.unwrap_or_default()).min(Amount::MAX);
    let found =
        api.ledger.vouchers_below(chain, payee, (&after, below), most).await.map_err(|error| Refusal::later("reading the books", error))?;
    let more = found.len() > PAGE;
    Ok(Vouchers { vouchers: found.iter().take(PAGE).filter_map(paper).collect(), more })
}

fn must_be_owner<G: Gate>(api: &Api<G>, chain: &Chain, payee: u32, at: Option<String>, signature: Option<String>) -> Result<(), Refusal> {
    let (Some(at), Some(signature)) = (at, signature) else {
        return Err(Refusal::no_proof("the payee's key has to sign the request: see `kubectl supercargo voucher pull`"));
    };
    let at: i64 = at.parse().map_err(|_| Refusal::no_proof("supercargo-at is not a time in Unix seconds"))?;
    if at.abs_diff((api.now)()) > GOOD_FOR_SECONDS {
        return Err(Refusal::no_proof("the request was signed at another time, or one of two clocks is wrong: sign it again"));
    }
    let path = format!("/v1/vouchers/{}/{payee}", chain.name);
    let request = PayeeRequest { chain_id: chain.chain_id, contract: chain.contract, payee, path: &path, at };
    // A signature has 65 bytes, written with two digits each.
    let signer = Some(signature).filter(|text| text.len() <= 132).and_then(|text| request.signer(&text.parse::<Bytes>().ok()?));
    let owner = api.owners.of(&chain.name, payee);
    match (signer, owner) {
        (Some(signer), Some(owner)) if signer == owner => Ok(()),
        (_, None) => Err(Refusal::not_there(
            "nothing is known to be owed to this payee on this chain, or the chain could not be asked yet who registered it",
        )),
        _ => Err(Refusal::no_proof("the request is not signed by the key that registered this payee")),
    }
}

/// As its payee claims with it. `None` for what no chain could know: it is not made.
fn paper(voucher: &supercargo_ledger::Voucher) -> Option<Voucher> {
    let (_, account) = voucher.funding.account()?;
    Some(Voucher {
        chain_id: voucher.terms.chain_id,
        contract: voucher.terms.contract.parse::<Address>().ok()?,
        account: account.parse().ok()?,
        payee: voucher.payee,
        total_units: voucher.total.units(),
        signer: voucher.terms.signer.parse().ok()?,
        signature: voucher.signature.clone().into(),
        signed_at: voucher.signed_at,
    })
}
