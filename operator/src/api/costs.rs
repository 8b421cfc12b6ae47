//! What escrows and tasks have cost, as the books have it now.

use super::gate::{Gate, Thing};
use super::{Api, Refusal};
use crate::world::records;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde::Serialize;
use serde_json::value::RawValue;
use supercargo_crds::escrow::Funding;
use supercargo_crds::names::escrow_condition::BOUND;
use supercargo_market::money::Amount;
use supercargo_market::work::WorkId;

/// Names in Kubernetes are no longer.
const LONGEST_NAME: usize = 253;
/// Tokens are some kilobytes at most.
const LONGEST_TOKEN: usize = 12 << 10;

/// Where an Escrow's money stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EscrowCost {
    token: String,
    deposited: Amount,
    withdrawn: Amount,
    available: Amount,
    reserved: Amount,
    /// Of what is reserved: used by tasks that run, as it was at most a minute ago.
    held: Amount,
    owed: Amount,
    posted: Amount,
    /// What its tasks used beyond what was reserved, and it never pays.
    absorbed: Amount,
    /// Of what was deposited: gone, though it is reserved or charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    shortfall: Option<Amount>,
    /// What came back from payees, and what disputes have cost: where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    returned: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    case_fees: Option<Amount>,
}

/// What a task has cost.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskCost {
    namespace: String,
    name: String,
    token: String,
    reserved: Amount,
    /// Of what is reserved: what it has used while it runs, as it was at most a minute ago.
    held: Amount,
    charged: Amount,
    /// Of what was charged: paid for good.
    settled: Amount,
    /// Used, and not charged.
    absorbed: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<String>,
}

/// Who asks, if that is known.
async fn asker<G: Gate>(api: &Api<G>, authorization: Option<String>) -> Result<UserInfo, Refusal> {
    let said = authorization.as_deref().and_then(|said| said.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = said.map(|(_, token)| token.trim()).filter(|token| !token.is_empty() && token.len() <= LONGEST_TOKEN);
    let token =
        token.ok_or_else(|| Refusal::no_proof("a token of the cluster is needed, made for this API: Authorization: Bearer TOKEN"))?;
    let who = api.gate.who(token).await.map_err(|error| Refusal::later("asking whose token it is", error))?;
    who.ok_or_else(|| Refusal::no_proof("the cluster does not know this token, or it is not made for this API"))
}

/// Nobody is told whether what they may not read is there.
fn hidden() -> Refusal {
    Refusal::not_there("there is no such thing, or you may not read it")
}

async fn must_be_readable<G: Gate>(api: &Api<G>, who: &UserInfo, thing: &Thing) -> Result<(), Refusal> {
    let named = |text: &str| {
        let good = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-' || letter == b'.';
        !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(good)
    };
    if !named(&thing.namespace) || !named(&thing.name) {
        return Err(hidden());
    }
    let may = api.gate.may_get(who, thing).await.map_err(|error| Refusal::later("asking who may read", error))?;
    if may { Ok(()) } else { Err(hidden()) }
}

pub async fn of_escrow<G: Gate>(api: &Api<G>, namespace: &str, name: &str, authorization: Option<String>) -> Result<EscrowCost, Refusal> {
    let who = asker(api, authorization).await?;
    let thing = Thing { resource: "escrows", namespace: namespace.to_owned(), name: name.to_owned() };
    must_be_readable(api, &who, &thing).await?;
    let escrow = api.gate.escrow(namespace, name).await.map_err(|error| Refusal::later("reading an Escrow", error))?;
    let escrow = escrow.ok_or_else(hidden)?;
    let bound = |kind: &str| {
        let conditions = escrow.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    // Anybody can name anybody's account in a manifest.
    if escrow.spec.funding == Funding::Chain && !bound(BOUND) {
        return Err(Refusal::not_there("its account is not bound to this Escrow yet"));
    }
    let funding = records::Escrow::funding(escrow.metadata.uid.as_deref().unwrap_or_default(), &escrow.spec);
    let funding = funding.ok_or_else(|| Refusal::not_there("it names no account yet"))?;
    let balance = api.ledger.funding(&funding).await.map_err(|error| Refusal::later("reading the books", error))?;
    let balance = balance.ok_or_else(|| Refusal::not_there("it is not in the books yet"))?;
    Ok(EscrowCost {
        deposited: balance.put_in(),
        token: balance.asset.id.clone(),
        withdrawn: balance.withdrawn,
        available: balance.available,
        reserved: balance.reserved,
        held: balance.held,
        owed: balance.owed,
        posted: balance.posted,
        absorbed: balance.absorbed,
        shortfall: Some(balance.shortfall).filter(|units| !units.is_zero()),
        returned: Some(balance.returned).filter(|units| !units.is_zero()),
        case_fees: Some(balance.case_fees).filter(|units| !units.is_zero()),
    })
}

/// By UID: a task that is long gone has its cost in the books, under a name that another one may have by now.
async fn readable<G: Gate>(api: &Api<G>, uid: &str, authorization: Option<String>) -> Result<(WorkId, records::Placement), Refusal> {
    let who = asker(api, authorization).await?;
    let work = WorkId::task(uid);
    let row = api.ledger.reservation(&work).await.map_err(|error| Refusal::later("reading the books", error))?;
    let placement = row.and_then(|row| serde_json::from_str::<records::Placement>(&row.detail).ok()).ok_or_else(hidden)?;
    let thing = Thing { resource: "computetasks", namespace: placement.namespace.clone(), name: placement.task.clone() };
    must_be_readable(api, &who, &thing).await?;
    Ok((work, placement))
}

pub async fn of_task<G: Gate>(api: &Api<G>, uid: &str, authorization: Option<String>) -> Result<TaskCost, Refusal> {
    let (work, placement) = readable(api, uid, authorization).await?;
    let balance = api.ledger.work(&work).await.map_err(|error| Refusal::later("reading the books", error))?;
    Ok(TaskCost {
        namespace: placement.namespace,
        name: placement.task,
        token: placement.token,
        reserved: balance.reserved,
        held: balance.held,
        charged: balance.charged,
        settled: balance.settled,
        absorbed: balance.absorbed,
        transaction: balance.transaction,
    })
}

/// What `kubectl supercargo receipt verify` checks, to the byte.
pub async fn receipt<G: Gate>(api: &Api<G>, uid: &str, authorization: Option<String>) -> Result<Box<RawValue>, Refusal> {
    let (work, _) = readable(api, uid, authorization).await?;
    let receipt = api.ledger.receipt(&work).await.map_err(|error| Refusal::later("reading the books", error))?;
    let receipt = receipt.ok_or_else(|| Refusal::not_there("nothing was charged for it yet"))?;
    RawValue::from_string(receipt.text()).map_err(|error| Refusal::later("writing a receipt", error))
}
