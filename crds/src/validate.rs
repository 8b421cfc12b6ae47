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
const OUR_PATHS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/supercargo", "/run/secrets", "/var/run/secrets"];
/// The schema's bounds. Who gets past it, for no API server let it through, is still judged in bounded time.
const MOST_ENV: usize = 256;
const MOST_VOLUMES: usize = 32;
const MOST_RULES: usize = 32;
const MOST_GPUS: usize = 16;
const MOST_RATES: usize = 64;

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
            findings.push(finding(field("mountPath"), "must not contain \"..\""));
        }
        if path == "/" {
            findings.push(finding(field("mountPath"), "must not be the root: it would hide the image"));
        } else if let Some(ours) = OUR_PATHS.iter().find(|ours| inside(&path, ours)) {
            findings.push(finding(field("mountPath"), format!("{path} is inside {ours}, which is the system's")));
        }
        if let Some((other, name)) = mounted.iter().find(|(other, _)| inside(&path, other) || inside(other, &path)) {
            findings.push(finding(field("mountPath"), format!("{path} overlaps {other} of volume {name}")));
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
    // A sum past what can be counted is past every node too; it must not wrap around to a small one.
    let mut sizes = spec.volumes.iter().take(MOST_VOLUMES).filter_map(|volume| volume.scratch.as_ref());
    let scratch = sizes.try_fold(0_u64, |sum, scratch| Some(sum.saturating_add(scratch.size.units().ok()?)));
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
    for (index, rule) in spec.network.rules.iter().enumerate().take(MOST_RULES) {
        if let Err(why) = cidr(&rule.cidr) {
            findings.push(finding(format!("spec.network.rules[{index}].cidr"), why));
        }
    }
}

/// An address, a slash, and how many of its bits count; the others must be 0.
fn cidr(text: &str) -> Result<(), String> {
    let malformed = || format!("{text:?} is not an address range such as \"203.0.113.0/24\"");
    let (address, digits) = text.split_once('/').ok_or_else(malformed)?;
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    // Rust reads `+8` and `08` as 8; Kubernetes does not.
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let bits: u32 = digits.parse().ok().filter(|_| plain).ok_or_else(malformed)?;
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
    match reserved(address, bits) {
        Some(why) => Err(format!("{text:?} is {why}")),
        None => Ok(()),
    }
}

/// Ranges in which nothing but the node, its neighbours on the link and the cloud's metadata answers.
fn reserved(address: IpAddr, bits: u32) -> Option<&'static str> {
    match address {
        IpAddr::V4(four) if bits >= 8 && four.is_loopback() => Some("the node itself, which no task may reach"),
        IpAddr::V4(four) if bits >= 8 && four.octets()[0] == 0 => Some("the node itself, which no task may reach"),
        IpAddr::V4(four) if bits >= 16 && four.is_link_local() => {
            Some("link-local, where the cloud's metadata is, which no task may reach")
        }
        IpAddr::V6(six) if bits == 128 && (six.is_loopback() || six.is_unspecified()) => Some("the node itself, which no task may reach"),
        IpAddr::V6(six) if bits >= 10 && six.is_unicast_link_local() => {
            Some("link-local, where the cloud's metadata is, which no task may reach")
        }
        IpAddr::V6(six) if bits >= 96 && six.to_ipv4_mapped().is_some() => Some("an IPv4 range in IPv6's spelling: write it as IPv4"),
        _ => None,
    }
}

/// Everything that is wrong with a pool.
pub fn pool(pool: &ProviderPool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut card = pool.spec.pricing.card();
    card.resources.truncate(MOST_RATES);
    for (index, facts) in pool.spec.gpus.iter().enumerate().take(MOST_GPUS) {
        bounded(&format!("spec.gpus[{index}].memory"), &facts.memory, Quantity::units, MOST_BYTES, &mut findings);
        if let Err(error) = card.price_of(&facts.resource_name, &facts.model) {
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
            (
                "  volumes: [{name: a, mountPath: //./proc/./x/, scratch: {size: 1Gi}}]",
                "spec.volumes[0].mountPath: /proc/x is inside /proc, which is the system's",
            ),
            (
                "  volumes: [{name: a, mountPath: //, scratch: {size: 1Gi}}]",
                "spec.volumes[0].mountPath: must not be the root: it would hide the image",
            ),
            ("  volumes: [{name: a, mountPath: /a/../b, scratch: {size: 1Gi}}]", "spec.volumes[0].mountPath: must not contain \"..\""),
            (
                "  volumes: [{name: a, mountPath: /a, scratch: {size: 1Gi}}, {name: b, mountPath: /a/b, scratch: {size: 1Gi}}]",
                "spec.volumes[1].mountPath: /a/b overlaps /a of volume a",
            ),
            (
                "  volumes: [{name: a, mountPath: /a//b/, scratch: {size: 1Gi}}, {name: b, mountPath: /./a, scratch: {size: 1Gi}}]",
                "spec.volumes[1].mountPath: /a overlaps /a/b of volume a",
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
            (
                "  network: {rules: [{cidr: 169.254.169.254/32}]}",
                "spec.network.rules[0].cidr: \"169.254.169.254/32\" is link-local, where the cloud's metadata is, which no task may reach",
            ),
            (
                "  network: {rules: [{cidr: \"::ffff:10.0.0.0/104\"}]}",
                "spec.network.rules[0].cidr: \"::ffff:10.0.0.0/104\" is an IPv4 range in IPv6's spelling: write it as IPv4",
            ),
        ];
        for (change, message) in cases {
            assert_eq!(findings(change), [message], "{change}");
        }
    }

    #[test]
    fn sizes_that_add_up_to_more_than_can_be_counted_are_too_much_and_not_little() {
        let found = findings(
            "  resources: {ephemeralStorage: 1Gi}\n  volumes: [{name: a, mountPath: /a, scratch: {size: 15Ei}}, {name: b, mountPath: /b, scratch: {size: 15Ei}}]",
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[2].starts_with("spec.resources.ephemeralStorage: is less than the scratch volumes"), "{found:?}");
    }

    #[test]
    fn lists_far_beyond_the_schema_are_judged_as_far_as_it_goes() {
        let volumes: Vec<String> = (0..20_000).map(|_| "{name: shm, mountPath: /a}".to_owned()).collect();
        assert!(findings(&format!("  volumes: [{}]", volumes.join(","))).len() <= 3 * MOST_VOLUMES);
    }

    #[test]
    fn ranges_of_both_families_are_read() {
        for good in ["0.0.0.0/0", "203.0.113.7/32", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            assert_eq!(cidr(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/",
            "1.2.3.4/33",
            "::/129",
            "::1/64",
            "a/8",
            "1.2.3.4/x",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "0.0.0.0/00",
            "127.0.0.0/8",
            "::1/128",
        ] {
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
