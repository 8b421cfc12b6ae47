//! What CEL can't say well, as pure functions: the gate calls them for good messages, and the plan calls them again for
//! safety. Each finding names its field and what would be right.

use crate::quantity::Quantity;
use crate::task::{ComputeTaskSpec, Volume};
use crate::{ComputeTask, ProviderPool};
use std::fmt;
use std::net::IpAddr;

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

fn finding(field: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { field: field.into(), message: message.into() }
}

/// More than any node has.
const MOST_CPU_MILLIS: u64 = 10_000_000;
const MOST_BYTES: u64 = 1 << 50;
const NAME_LENGTH: usize = 52;
const OURS: [&str; 3] = ["SUPERCARGO_", "NVIDIA_", "PET_"];
const OUR_VOLUMES: [&str; 2] = ["shm", "supercargo"];
const OUR_PATHS: [&str; 5] = ["/dev", "/proc", "/sys", "/etc/supercargo", "/var/run/secrets"];

/// Everything that is wrong with a task, in the order of its fields.
pub fn task(task: &ComputeTask) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = task.metadata.name.as_deref().unwrap_or_default();
    if name.len() > NAME_LENGTH {
        findings
            .push(finding("metadata.name", format!("has {} characters: at most {NAME_LENGTH} leave room for the pods' names", name.len())));
    }
    env(&task.spec, &mut findings);
    volumes(&task.spec.volumes, &mut findings);
    resources(&task.spec, &mut findings);
    network(&task.spec, &mut findings);
    findings
}

fn env(spec: &ComputeTaskSpec, findings: &mut Vec<Finding>) {
    for (index, variable) in spec.env.iter().enumerate() {
        if let Some(prefix) = OURS.iter().find(|prefix| variable.name.starts_with(**prefix)) {
            findings.push(finding(
                format!("spec.env[{index}].name"),
                format!("{} begins with {prefix}, which is reserved: take another name", variable.name),
            ));
        }
    }
}

fn volumes(volumes: &[Volume], findings: &mut Vec<Finding>) {
    let inside = |path: &str, of: &str| path == of || path.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'));
    for (index, volume) in volumes.iter().enumerate() {
        let field = |name: &str| format!("spec.volumes[{index}].{name}");
        if OUR_VOLUMES.contains(&volume.name.as_str()) {
            findings.push(finding(field("name"), format!("{} is a volume of ours: take another name", volume.name)));
        }
        let path = volume.mount_path.trim_end_matches('/');
        if path.split('/').any(|part| part == "..") {
            findings.push(finding(field("mountPath"), "must not contain \"..\""));
        }
        if let Some(ours) = OUR_PATHS.iter().find(|ours| inside(path, ours)) {
            findings.push(finding(field("mountPath"), format!("{path} is inside {ours}, which is the system's")));
        }
        let overlapping = volumes[..index].iter().find(|other| {
            let other = other.mount_path.trim_end_matches('/');
            inside(path, other) || inside(other, path)
        });
        if let Some(other) = overlapping {
            findings.push(finding(field("mountPath"), format!("{path} overlaps {} of volume {}", other.mount_path, other.name)));
        }
        if let Some(scratch) = &volume.scratch {
            bounded(&field("scratch.size"), &scratch.size, Quantity::units, MOST_BYTES, findings);
        }
    }
}

fn resources(spec: &ComputeTaskSpec, findings: &mut Vec<Finding>) {
    let resources = &spec.resources;
    if let Some(cpu) = &resources.cpu {
        bounded("spec.resources.cpu", cpu, Quantity::millis, MOST_CPU_MILLIS, findings);
    }
    let bytes = [
        ("memory", &resources.memory),
        ("ephemeralStorage", &resources.ephemeral_storage),
        ("sharedMemory", &resources.shared_memory),
        ("gpu.memory", &resources.gpu.memory),
    ];
    for (name, quantity) in bytes {
        if let Some(quantity) = quantity {
            bounded(&format!("spec.resources.{name}"), quantity, Quantity::units, MOST_BYTES, findings);
        }
    }
    let units = |quantity: &Option<Quantity>| quantity.as_ref().and_then(|quantity| quantity.units().ok());
    if let (Some(shared), Some(memory)) = (units(&resources.shared_memory), units(&resources.memory))
        && shared > memory
    {
        findings.push(finding("spec.resources.sharedMemory", "is more than resources.memory, which it is a part of"));
    }
    let scratch: Option<u64> =
        spec.volumes.iter().filter_map(|volume| volume.scratch.as_ref()).map(|scratch| scratch.size.units().ok()).sum();
    if let (Some(scratch), Some(storage)) = (scratch, units(&resources.ephemeral_storage))
        && scratch > storage
    {
        findings.push(finding("spec.resources.ephemeralStorage", "is less than the scratch volumes, which are a part of it"));
    }
}

type Reader = fn(&Quantity) -> Result<u64, crate::quantity::QuantityError>;

fn bounded(field: &str, quantity: &Quantity, read: Reader, most: u64, findings: &mut Vec<Finding>) {
    match read(quantity) {
        Ok(0) => findings.push(finding(field, "must be more than 0")),
        Ok(value) if value > most => findings.push(finding(field, format!("{quantity} is more than any node has"))),
        Ok(_) => {}
        Err(error) => findings.push(finding(field, error.to_string())),
    }
}

fn network(spec: &ComputeTaskSpec, findings: &mut Vec<Finding>) {
    for (index, rule) in spec.network.rules.iter().enumerate() {
        if let Err(why) = cidr(&rule.cidr) {
            findings.push(finding(format!("spec.network.rules[{index}].cidr"), why));
        }
    }
}

/// An address, a slash, and how many of its bits count; the others must be 0.
fn cidr(text: &str) -> Result<(), String> {
    let malformed = || format!("{text:?} is not an address range such as \"203.0.113.0/24\"");
    let (address, bits) = text.split_once('/').ok_or_else(malformed)?;
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    let bits: u32 = bits.parse().map_err(|_| malformed())?;
    let (value, width) = match address {
        IpAddr::V4(four) => (u128::from(u32::from(four)), 32),
        IpAddr::V6(six) => (u128::from(six), 128),
    };
    if bits > width {
        return Err(malformed());
    }
    let rest = if bits == 0 && width == 128 { u128::MAX } else { (1_u128 << (width - bits)) - 1 };
    if value & rest != 0 {
        return Err(format!("{text:?} has bits set after the first {bits}: write the range's first address"));
    }
    Ok(())
}

/// Everything that is wrong with a pool.
pub fn pool(pool: &ProviderPool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, facts) in pool.spec.gpus.iter().enumerate() {
        bounded(&format!("spec.gpus[{index}].memory"), &facts.memory, Quantity::units, MOST_BYTES, &mut findings);
        if let Err(error) = pool.spec.pricing.card().price_of(&facts.resource_name, &facts.model) {
            findings.push(finding("spec.pricing.resources", error.to_string()));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(change: &str) -> Vec<String> {
        let yaml = format!(
            "apiVersion: supercargo.dev/v1alpha1\nkind: ComputeTask\nmetadata: {{name: t}}\nspec:\n  budget: \"1\"\n  image: i\n{change}"
        );
        task(&serde_yaml_ng::from_str(&yaml).expect("a task")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_finding_names_its_field_and_what_would_be_right() {
        let cases = [
            (
                "  env: [{name: NVIDIA_VISIBLE_DEVICES, value: all}]",
                "spec.env[0].name: NVIDIA_VISIBLE_DEVICES begins with NVIDIA_, which is reserved: take another name",
            ),
            (
                "  volumes: [{name: shm, mountPath: /a, scratch: {size: 1Gi}}]",
                "spec.volumes[0].name: shm is a volume of ours: take another name",
            ),
            (
                "  volumes: [{name: a, mountPath: /dev/x, scratch: {size: 1Gi}}]",
                "spec.volumes[0].mountPath: /dev/x is inside /dev, which is the system's",
            ),
            ("  volumes: [{name: a, mountPath: /a/../b, scratch: {size: 1Gi}}]", "spec.volumes[0].mountPath: must not contain \"..\""),
            (
                "  volumes: [{name: a, mountPath: /a, scratch: {size: 1Gi}}, {name: b, mountPath: /a/b, scratch: {size: 1Gi}}]",
                "spec.volumes[1].mountPath: /a/b overlaps /a of volume a",
            ),
            ("  resources: {cpu: \"99999\"}", "spec.resources.cpu: 99999 is more than any node has"),
            ("  resources: {memory: 0}", "spec.resources.memory: must be more than 0"),
            (
                "  resources: {memory: 1Gi, sharedMemory: 2Gi}",
                "spec.resources.sharedMemory: is more than resources.memory, which it is a part of",
            ),
            (
                "  resources: {ephemeralStorage: 1Gi}\n  volumes: [{name: a, mountPath: /a, scratch: {size: 2Gi}}]",
                "spec.resources.ephemeralStorage: is less than the scratch volumes, which are a part of it",
            ),
            (
                "  network: {rules: [{cidr: 10.0.0.0}]}",
                "spec.network.rules[0].cidr: \"10.0.0.0\" is not an address range such as \"203.0.113.0/24\"",
            ),
            (
                "  network: {rules: [{cidr: 10.0.0.1/8}]}",
                "spec.network.rules[0].cidr: \"10.0.0.1/8\" has bits set after the first 8: write the range's first address",
            ),
        ];
        for (change, message) in cases {
            assert_eq!(findings(change), [message], "{change}");
        }
    }

    #[test]
    fn ranges_of_both_families_are_read() {
        for good in ["0.0.0.0/0", "203.0.113.7/32", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            assert_eq!(cidr(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "1.2.3.4/33", "::/129", "::1/64", "a/8", "1.2.3.4/x"] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_examples_have_nothing_wrong_with_them() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("the examples") {
            let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("readable");
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let value = <serde_yaml_ng::Value as serde::Deserialize>::deserialize(document).expect("YAML");
                let found = match value["kind"].as_str() {
                    Some("ComputeTask") => task(&serde_yaml_ng::from_value(value).expect("a task")),
                    Some("ProviderPool") => pool(&serde_yaml_ng::from_value(value).expect("a pool")),
                    Some("ProviderNode") => serde_yaml_ng::from_value::<crate::ProviderNode>(value).map(|_| vec![]).expect("a node"),
                    Some("Escrow") => serde_yaml_ng::from_value::<crate::Escrow>(value).map(|_| vec![]).expect("an escrow"),
                    _ => continue,
                };
                assert_eq!(found, [], "an example");
                seen += 1;
            }
        }
        assert_eq!(seen, 9, "every example was read");
    }
}
