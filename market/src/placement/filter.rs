//! What speaks against an offer, in the order in which a person would want to hear it. One reason an offer: the first.

use super::{Closed, DEDICATED, EXCLUSIVE, Offer, PRIVATE, Request, Tenant, held_on, price};
use crate::money::Amount;
use crate::rate_card::model_matches;
use crate::rating::Held;

/// Why an offer does not fit. The order is the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    ResourceNotSold,
    NodeNotReady,
    NodeCordoned,
    NodeDraining,
    NodeClosed,
    NodeTainted,
    NodeQuarantined,
    ModelNotWanted,
    DeviceMemoryTooSmall,
    TokenNotAccepted,
    FundingNotAccepted,
    ProviderNotAllowed,
    RegionNotWanted,
    DataClassNotAllowed,
    IsolationTooWeak,
    TenancyNotOffered,
    ReputationTooLow,
    NodeTooSmall,
    PriceTooHigh,
    SelectorDoesNotMatch,
    FailedThereBefore,
    VolumeElsewhere,
    DevicesInUse,
    OccupiedByOthers,
    CpuInUse,
    MemoryInUse,
    StorageInUse,
    PodsInUse,
    KeptForGang,
    GangIncomplete,
}

impl Reason {
    /// Whether the node would have the task as soon as others leave it: what `capacity` says, and what is kept for others.
    pub fn may_pass(self) -> bool {
        let in_use = matches!(self, Self::DevicesInUse | Self::CpuInUse | Self::MemoryInUse | Self::StorageInUse | Self::PodsInUse);
        in_use || matches!(self, Self::OccupiedByOthers | Self::KeptForGang)
    }

    /// A word for conditions and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResourceNotSold => "ResourceNotSold",
            Self::NodeNotReady => "NodeNotReady",
            Self::NodeCordoned => "NodeCordoned",
            Self::NodeDraining => "NodeDraining",
            Self::NodeClosed => "NodeClosed",
            Self::NodeTainted => "NodeTainted",
            Self::NodeQuarantined => "NodeQuarantined",
            Self::ModelNotWanted => "ModelNotWanted",
            Self::DeviceMemoryTooSmall => "DeviceMemoryTooSmall",
            Self::TokenNotAccepted => "TokenNotAccepted",
            Self::FundingNotAccepted => "FundingNotAccepted",
            Self::ProviderNotAllowed => "ProviderNotAllowed",
            Self::RegionNotWanted => "RegionNotWanted",
            Self::SelectorDoesNotMatch => "SelectorDoesNotMatch",
            Self::DataClassNotAllowed => "DataClassNotAllowed",
            Self::IsolationTooWeak => "IsolationTooWeak",
            Self::TenancyNotOffered => "TenancyNotOffered",
            Self::ReputationTooLow => "ReputationTooLow",
            Self::NodeTooSmall => "NodeTooSmall",
            Self::PriceTooHigh => "PriceTooHigh",
            Self::FailedThereBefore => "FailedThereBefore",
            Self::VolumeElsewhere => "VolumeElsewhere",
            Self::OccupiedByOthers => "OccupiedByOthers",
            Self::KeptForGang => "KeptForGang",
            Self::GangIncomplete => "GangIncomplete",
            Self::DevicesInUse => "DevicesInUse",
            Self::CpuInUse => "CpuInUse",
            Self::MemoryInUse => "MemoryInUse",
            Self::StorageInUse => "StorageInUse",
            Self::PodsInUse => "PodsInUse",
        }
    }
}

type Refusal = (Reason, String);

/// What the worker would hold here and what that costs an hour, or the first thing that speaks against it.
pub(super) fn check(offer: &Offer, request: &Request) -> Result<(Held, Amount), Refusal> {
    sold(offer, request)?;
    let no = |reason: Reason, detail: &str| Err((reason, format!("{}: {detail}", offer.node)));
    if let Some((reason, detail)) = offer.closed.map(closed) {
        return no(reason, detail);
    }
    let (held, asked) = agreed(offer, request)?;
    named(offer, request)?;
    capacity(offer, request, &held)?;
    Ok((held, asked))
}

pub(super) fn closed(why: Closed) -> (Reason, &'static str) {
    match why {
        Closed::NotReady => (Reason::NodeNotReady, "the node is not ready"),
        Closed::Cordoned => (Reason::NodeCordoned, "the node is cordoned"),
        Closed::Draining => (Reason::NodeDraining, "the node is draining"),
        Closed::ClosedByProvider => (Reason::NodeClosed, "its provider has closed it"),
        Closed::Tainted => (Reason::NodeTainted, "the node has a taint that tasks do not tolerate"),
        Closed::Quarantined => (Reason::NodeQuarantined, "attempts kept failing there for reasons of the node's own"),
    }
}

/// Whether the offer is of the resource at all.
pub(super) fn sold(offer: &Offer, request: &Request) -> Result<(), Refusal> {
    if request.devices > 0 && request.resource_name != offer.resource_name {
        return Err((Reason::ResourceNotSold, format!("{}: sells no {}", offer.node, request.resource_name)));
    }
    Ok(())
}

/// What would be held and what it costs, when both sides' terms allow it: the same for every node on the same terms.
pub(super) fn agreed(offer: &Offer, request: &Request) -> Result<(Held, Amount), Refusal> {
    let no = |detail: String| Err((Reason::PriceTooHigh, format!("{}: {detail}", offer.node)));
    terms(offer, request)?;
    let held = held_on(offer, request);
    if held.devices > offer.total_devices {
        let example = format!("{}: sells {} in all, and {} are asked for", offer.node, offer.total_devices, held.devices);
        return Err((Reason::NodeTooSmall, example));
    }
    let Some(asked) = price(&held) else { return no("costs more than can be paid".into()) };
    if request.max_price_per_hour.is_some_and(|most| asked > most) {
        return no(format!("asks {asked} an hour"));
    }
    Ok((held, asked))
}

/// What speaks for or against this very node.
fn named(offer: &Offer, request: &Request) -> Result<(), Refusal> {
    let no = |reason: Reason, detail: String| Err((reason, format!("{}: {detail}", offer.node)));
    if let Some((key, value)) = request.node_selector.iter().find(|(key, value)| offer.labels.get(*key) != Some(value)) {
        return no(Reason::SelectorDoesNotMatch, format!("has no label {key}={value}"));
    }
    if request.excluded_nodes.contains(&offer.node) {
        return no(Reason::FailedThereBefore, "an attempt failed there for reasons of the node's own".into());
    }
    if request.only_nodes.as_ref().is_some_and(|only| !only.contains(&offer.node)) {
        return no(Reason::VolumeElsewhere, "a volume can't be reached from there".into());
    }
    Ok(())
}

/// What does not change while others come and go.
fn terms(offer: &Offer, request: &Request) -> Result<(), Refusal> {
    let no = |reason: Reason, detail: String| Err((reason, format!("{}: {detail}", offer.node)));
    if request.devices > 0 {
        if !request.models.is_empty() && !request.models.iter().any(|wanted| model_matches(wanted, &offer.model)) {
            return no(Reason::ModelNotWanted, format!("has {}", if offer.model.is_empty() { "an unnamed model" } else { &offer.model }));
        }
        if offer.device_memory_bytes < request.device_memory_bytes {
            return no(Reason::DeviceMemoryTooSmall, format!("has {} MiB a device", offer.device_memory_bytes >> 20));
        }
    }
    if offer.token != request.token {
        return no(Reason::TokenNotAccepted, format!("is paid in {}", offer.token));
    }
    let accepted = if request.chain.is_some() { offer.accepts_chain && offer.chain == request.chain } else { offer.accepts_internal };
    if !accepted {
        let kind = request.chain.as_ref().map_or("internal credit".to_owned(), |chain| format!("payment on chain {chain:?}"));
        return no(Reason::FundingNotAccepted, format!("does not take {kind}"));
    }
    let allowed = request.allow_providers.is_empty() || request.allow_providers.contains(&offer.provider);
    if !allowed || request.deny_providers.contains(&offer.provider) {
        return no(Reason::ProviderNotAllowed, format!("belongs to {}", offer.provider));
    }
    if !request.regions.is_empty() && !offer.region.as_ref().is_some_and(|region| request.regions.contains(region)) {
        return no(Reason::RegionNotWanted, format!("is in {}", offer.region.as_deref().unwrap_or("no named region")));
    }
    if !offer.data_classes.contains(&request.data_class) {
        return no(Reason::DataClassNotAllowed, format!("is not vouched for {} data", request.data_class));
    }
    if request.data_class == PRIVATE && request.own_provider.as_ref() != Some(&offer.provider) {
        return no(Reason::DataClassNotAllowed, "is not of the escrow's own provider, and Private data stays there".into());
    }
    if !offer.isolation_levels.iter().any(|&level| level >= request.isolation_level) {
        return no(Reason::IsolationTooWeak, "offers no isolation as strong".into());
    }
    if !offer.tenancies.contains(&request.tenancy) {
        return no(Reason::TenancyNotOffered, format!("does not offer {} tenancy", request.tenancy));
    }
    if offer.reputation < request.min_reputation {
        return no(Reason::ReputationTooLow, format!("has a reputation of {}", offer.reputation));
    }
    Ok(())
}

/// What may be there in a minute.
fn capacity(offer: &Offer, request: &Request, held: &Held) -> Result<(), Refusal> {
    let no = |reason: Reason, detail: String| Err((reason, format!("{}: {detail}", offer.node)));
    if offer.free_devices < held.devices {
        return no(Reason::DevicesInUse, format!("{} of {} are free", offer.free_devices, offer.total_devices));
    }
    if request.tenancy == EXCLUSIVE && offer.beside.in_use {
        return no(Reason::DevicesInUse, "others have devices there, and this one wants the node alone".into());
    }
    if let Some(why) = neighbours(offer, request) {
        return no(Reason::OccupiedByOthers, why.into());
    }
    if offer.free_cpu_millis < held.cpu_millis {
        return no(Reason::CpuInUse, format!("{} of {} thousandths of a core are free", offer.free_cpu_millis, held.cpu_millis));
    }
    if offer.free_memory_bytes < held.memory_bytes {
        return no(Reason::MemoryInUse, format!("{} of {} MiB are free", offer.free_memory_bytes >> 20, held.memory_bytes >> 20));
    }
    if offer.free_storage_bytes < request.storage_bytes {
        return no(Reason::StorageInUse, format!("{} of {} MiB are free", offer.free_storage_bytes >> 20, request.storage_bytes >> 20));
    }
    if offer.free_pods == 0 {
        return no(Reason::PodsInUse, "the node runs as many pods as it may".into());
    }
    Ok(())
}

/// Which neighbour the task may not have, or which may not have it.
fn neighbours(offer: &Offer, request: &Request) -> Option<&'static str> {
    let ours = |tenant: &Tenant| tenant.funding == request.funding;
    if request.tenancy == EXCLUSIVE && !offer.tenants.is_empty() {
        return Some("other tasks run there and this one wants the node alone");
    }
    if offer.tenants.iter().any(|tenant| tenant.tenancy == EXCLUSIVE) {
        return Some("a task has the node alone");
    }
    if request.tenancy == DEDICATED && !offer.tenants.iter().all(ours) {
        return Some("tasks of other escrows, or pods of nobody's task that have devices, run there");
    }
    if offer.tenants.iter().any(|tenant| tenant.tenancy == DEDICATED && !ours(tenant)) {
        return Some("another escrow has the node for itself");
    }
    if request.devices > 0 && offer.replicas_per_device > 1 && offer.tenants.iter().any(|tenant| tenant.namespace != request.namespace) {
        return Some("its devices are shared, and another namespace has some");
    }
    None
}
