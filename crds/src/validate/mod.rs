//! What CEL can't say well, as pure functions: the gate calls them for good messages, and the plan calls them again for
//! safety. Each finding names its field and what would be right.

use crate::names::{FOLDER_OURS, VOLUME_OURS};
use crate::quantity::{Quantity, QuantityError};
use crate::task::{ComputeTaskSpec, Volume};
use crate::{ComputeTask, ProviderPool};
use std::fmt;
use supercargo_market::rate_card::{CardError, model_tokens};

mod network;

pub use network::Range;

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub field: String,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

/// As much as a person reads at once.
pub const MOST_FINDINGS: usize = 20;
const FINDING_LENGTH: usize = 512;

/// Findings as they are told, by the gate and in a status: few enough, and none endless.
pub fn told(findings: &[Finding]) -> String {
    let mut words: Vec<String> = findings.iter().take(MOST_FINDINGS).map(clipped).collect();
    if let Some(more) = findings.len().checked_sub(MOST_FINDINGS).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    words.join("; ")
}

fn clipped(finding: &Finding) -> String {
    let text = finding.to_string();
    match text.char_indices().nth(FINDING_LENGTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn finding(field: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { field: field.into(), message: message.into() }
}

/// More than any node has.
const MOST_CPU_MILLIS: u64 = 10_000_000;
const MOST_BYTES: u64 = 1 << 50;
/// More than any device has.
const MOST_GPU_BYTES: u64 = 1 << 42;
/// What a task without a GPU gets when it says nothing.
const DEFAULT_MEMORY: u64 = 1 << 30;
const NAME_LENGTH: usize = 52;
const OURS: [&str; 3] = ["SUPERCARGO_", "NVIDIA_", "PET_"];
const OUR_VOLUMES: [&str; 2] = ["shm", VOLUME_OURS];
const OUR_PATHS: [&str; 6] = ["/dev", "/proc", "/sys", FOLDER_OURS, "/run/secrets", "/var/run/secrets"];
/// The schema's bounds. Who gets past it, for no API server let it through, is still judged in bounded time.
const MOST_ENV: usize = 256;
const MOST_VOLUMES: usize = 32;
const MOST_RULES: usize = 32;
const MOST_GPUS: usize = 16;
const MOST_RATES: usize = 64;
const MOST_MODELS: usize = 16;
const MOST_LABELS: usize = 32;

/// Everything that is wrong with a task, in the order of its fields.
pub fn task(task: &ComputeTask) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = task.metadata.name.as_deref().unwrap_or_default();
    if name.len() > NAME_LENGTH {
        findings
            .push(finding("metadata.name", format!("has {} characters: at most {NAME_LENGTH} leave room in its pods' names", name.len())));
    }
    env(&task.spec, &mut findings);
    volumes(&task.spec.volumes, &mut findings);
    resources(&task.spec, &mut findings);
    placement(&task.spec, &mut findings);
    network::network(&task.spec, &mut findings);
    findings
}

fn env(spec: &ComputeTaskSpec, findings: &mut Vec<Finding>) {
    for (index, variable) in spec.env.iter().enumerate().take(MOST_ENV) {
        if let Some(prefix) = OURS.iter().find(|prefix| variable.name.starts_with(**prefix)) {
            findings.push(finding(
                format!("spec.env[{index}].name"),
                format!("{} begins with {prefix}, which is reserved: take another name", variable.name),
            ));
        }
    }
}

fn volumes(volumes: &[Volume], findings: &mut Vec<Finding>) {
    let mut mounted: Vec<(String, &str)> = Vec::new();
    for (index, volume) in volumes.iter().enumerate().take(MOST_VOLUMES) {
        let field = |name: &str| format!("spec.volumes[{index}].{name}");
        if OUR_VOLUMES.contains(&volume.name.as_str()) {
            findings.push(finding(field("name"), format!("{} is a volume of ours: take another name", volume.name)));
        }
        let path = plain(&volume.mount_path);
        if path.split('/').any(|part| part == "..") {
            findings.push(finding(field("mountPath"), "must not contain \"..\": write the path that it stands for"));
        }
        if path == "/" {
            findings.push(finding(field("mountPath"), "must not be the root: it would hide the image; take a folder"));
        } else if let Some(ours) = OUR_PATHS.iter().find(|ours| inside(&path, ours)) {
            findings.push(finding(field("mountPath"), format!("{path} is inside {ours}, which is the system's: take another folder")));
        }
        if let Some((other, name)) = mounted.iter().find(|(other, _)| inside(&path, other) || inside(other, &path)) {
            findings.push(finding(field("mountPath"), format!("{path} overlaps {other} of volume {name}: take folders beside each other")));
        }
        mounted.push((path, &volume.name));
        if let Some(scratch) = &volume.scratch {
            bounded(&field("scratch.size"), &scratch.size, Quantity::units, MOST_BYTES, findings);
        }
    }
}

/// The path as the container's runtime takes it: `//dev/.` is /dev.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

/// Whether one plain path is the other one or below it.
fn inside(path: &str, of: &str) -> bool {
    path == of || of == "/" || path.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'))
}

fn resources(spec: &ComputeTaskSpec, findings: &mut Vec<Finding>) {
    let resources = &spec.resources;
    if let Some(cpu) = &resources.cpu {
        bounded("spec.resources.cpu", cpu, Quantity::millis, MOST_CPU_MILLIS, findings);
    }
    let bytes =
        [("memory", &resources.memory), ("ephemeralStorage", &resources.ephemeral_storage), ("sharedMemory", &resources.shared_memory)];
    for (name, quantity) in bytes {
        if let Some(quantity) = quantity {
            bounded(&format!("spec.resources.{name}"), quantity, Quantity::units, MOST_BYTES, findings);
        }
    }
    if let Some(memory) = &resources.gpu.memory {
        bounded("spec.resources.gpu.memory", memory, Quantity::units, MOST_GPU_BYTES, findings);
    }
    for (index, model) in resources.gpu.models.iter().enumerate().take(MOST_MODELS).filter(|(_, model)| is_wordless(model)) {
        findings.push(finding(format!("spec.resources.gpu.models[{index}]"), wordless(model)));
    }
    let units = |quantity: &Option<Quantity>| quantity.as_ref().and_then(|quantity| quantity.units().ok());
    match (units(&resources.shared_memory), units(&resources.memory)) {
        (Some(shared), Some(memory)) if shared > memory => {
            let what = "is more than resources.memory, which it is a part of: raise that one, or lower this";
            findings.push(finding("spec.resources.sharedMemory", what));
        }
        (Some(shared), None) if resources.memory.is_none() && resources.gpu.count == 0 && shared > DEFAULT_MEMORY => {
            let what = "is more than the 1Gi of memory that a task without a GPU gets, and a part of it: give resources.memory";
            findings.push(finding("spec.resources.sharedMemory", what));
        }
        _ => {}
    }
    // A sum past what can be counted is past every node too; it must not wrap around to a small one.
    let mut sizes = spec.volumes.iter().take(MOST_VOLUMES).filter_map(|volume| volume.scratch.as_ref());
    let scratch = sizes.try_fold(0_u64, |sum, scratch| Some(sum.saturating_add(scratch.size.units().ok()?)));
    if let (Some(scratch), Some(storage)) = (scratch, units(&resources.ephemeral_storage))
        && scratch > storage
    {
        findings.push(finding(
            "spec.resources.ephemeralStorage",
            "is less than the scratch volumes, which are a part of it: raise it, or lower them",
        ));
    }
}

fn told_most(most: u64) -> String {
    if most == MOST_CPU_MILLIS { format!("{}", most / 1_000) } else { format!("{}Ti", most >> 40) }
}

/// Labels that are asked for: a key that can't be one is on no node.
fn placement(spec: &ComputeTaskSpec, findings: &mut Vec<Finding>) {
    for key in spec.placement.node_selector.keys().take(MOST_LABELS).filter(|key| !is_label_key(key)) {
        findings.push(finding("spec.placement.nodeSelector", no_label(key)));
    }
}

fn no_label(key: &str) -> String {
    let short: String = key.chars().take(80).collect();
    format!("{short:?} is not a label's name, such as \"example.com/rack\"")
}

/// A name of at most 63 characters, after a domain and a slash if there is one.
fn is_label_key(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let ends = |text: &str| {
        let alphanumeric = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        alphanumeric(text.bytes().next()) && alphanumeric(text.bytes().last())
    };
    let of = |text: &str, others: &[u8]| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte));
    let is_domain = |domain: &str| {
        domain.len() <= 253 && of(domain, b"-.") && !domain.bytes().any(|byte| byte.is_ascii_uppercase()) && domain.split('.').all(ends)
    };
    name.len() <= 63 && of(name, b"-_.") && ends(name) && domain.is_none_or(is_domain)
}

/// A model is matched by its words; one without any matches nothing.
fn is_wordless(model: &str) -> bool {
    model_tokens(model).is_empty()
}

fn wordless(model: &str) -> String {
    format!("{:?} has no word that a product's name could have: write one, such as \"H100\"", model.chars().take(40).collect::<String>())
}

type Reader = fn(&Quantity) -> Result<u64, QuantityError>;

fn bounded(field: &str, quantity: &Quantity, read: Reader, most: u64, findings: &mut Vec<Finding>) {
    match read(quantity) {
        Ok(0) => findings.push(finding(field, "must be more than 0; left out, it has its default")),
        Ok(value) if value <= most => {}
        Ok(_) | Err(QuantityError::TooLarge(_)) => {
            let quantity: String = quantity.to_string().chars().take(40).collect();
            let (what, most) = (if most == MOST_GPU_BYTES { "device" } else { "node" }, told_most(most));
            findings.push(finding(field, format!("{quantity} is more than any {what} has: at most {most}")));
        }
        Err(error) => findings.push(finding(field, error.to_string())),
    }
}

/// Everything that is wrong with a pool.
pub fn pool(pool: &ProviderPool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let spec = &pool.spec;
    for key in spec.selector.match_labels.keys().take(MOST_LABELS).filter(|key| !is_label_key(key)) {
        findings.push(finding("spec.selector.matchLabels", no_label(key)));
    }
    let mut card = spec.pricing.card();
    card.resources.truncate(MOST_RATES);
    for (index, rate) in card.resources.iter().enumerate() {
        if let Some(model) = rate.model.as_deref().filter(|model| is_wordless(model)) {
            findings.push(finding(format!("spec.pricing.resources[{index}].model"), wordless(model)));
        }
    }
    let tied = card.never_apart();
    if let Some((first, index)) = tied {
        let what = format!("is for the same resource and models as resources[{first}]: every node's price would be a tie; keep one");
        findings.push(finding(format!("spec.pricing.resources[{index}]"), what));
    }
    for (index, facts) in spec.gpus.iter().enumerate().take(MOST_GPUS) {
        bounded(&format!("spec.gpus[{index}].memory"), &facts.memory, Quantity::units, MOST_GPU_BYTES, &mut findings);
        match card.price_of(&facts.resource_name, &facts.model) {
            _ if is_wordless(&facts.model) => findings.push(finding(format!("spec.gpus[{index}].model"), wordless(&facts.model))),
            Err(CardError::Tie { .. }) if tied.is_some() => {}
            Err(error @ CardError::Tie { .. }) => {
                findings.push(finding("spec.pricing.resources", format!("{error}: give one of them another word of it")));
            }
            Err(error @ CardError::NoPrice { .. }) => findings.push(finding("spec.pricing.resources", format!("{error}: add one"))),
            Ok(_) => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests;
