//! What is found, word by word.

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
            "spec.volumes[0].mountPath: /dev/x is inside /dev, which is the system's: take another folder",
        ),
        (
            "  volumes: [{name: a, mountPath: //./proc/./x/, scratch: {size: 1Gi}}]",
            "spec.volumes[0].mountPath: /proc/x is inside /proc, which is the system's: take another folder",
        ),
        (
            "  volumes: [{name: a, mountPath: //, scratch: {size: 1Gi}}]",
            "spec.volumes[0].mountPath: must not be the root: it would hide the image; take a folder",
        ),
        (
            "  volumes: [{name: a, mountPath: /a/../b, scratch: {size: 1Gi}}]",
            "spec.volumes[0].mountPath: must not contain \"..\": write the path that it stands for",
        ),
        (
            "  volumes: [{name: a, mountPath: /a, scratch: {size: 1Gi}}, {name: b, mountPath: /a/b, scratch: {size: 1Gi}}]",
            "spec.volumes[1].mountPath: /a/b overlaps /a of volume a: take folders beside each other",
        ),
        (
            "  volumes: [{name: a, mountPath: /a//b/, scratch: {size: 1Gi}}, {name: b, mountPath: /./a, scratch: {size: 1Gi}}]",
            "spec.volumes[1].mountPath: /a overlaps /a/b of volume a: take folders beside each other",
        ),
        ("  resources: {cpu: \"99999\"}", "spec.resources.cpu: 99999 is more than any node has: at most 10000"),
        ("  resources: {memory: 0}", "spec.resources.memory: must be more than 0; left out, it has its default"),
        (
            "  resources: {memory: 1Gi, sharedMemory: 2Gi}",
            "spec.resources.sharedMemory: is more than resources.memory, which it is a part of: raise that one, or lower this",
        ),
        (
            "  resources: {ephemeralStorage: 1Gi}\n  volumes: [{name: a, mountPath: /a, scratch: {size: 2Gi}}]",
            "spec.resources.ephemeralStorage: is less than the scratch volumes, which are a part of it: raise it, or lower them",
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
            "spec.network.rules[0].cidr: \"169.254.169.254/32\" is link-local, where the cloud's metadata is, which no task may reach: name other addresses",
        ),
        (
            "  resources: {gpu: {count: 0}, sharedMemory: 2Gi}",
            "spec.resources.sharedMemory: is more than the 1Gi of memory that a task without a GPU gets, and a part of it: give resources.memory",
        ),
        ("  resources: {gpu: {memory: 5Ti}}", "spec.resources.gpu.memory: 5Ti is more than any device has: at most 4Ti"),
        (
            "  resources: {gpu: {models: [H100, \"-\"]}}",
            "spec.resources.gpu.models[1]: \"-\" has no word that a product's name could have: write one, such as \"H100\"",
        ),
        (
            "  placement: {nodeSelector: {\"a b\": c}}",
            "spec.placement.nodeSelector: \"a b\" is not a label's name, such as \"example.com/rack\"",
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

#[test]
fn what_is_told_is_short_enough_to_be_read() {
    let many: Vec<Finding> = (0..30).map(|index| finding(format!("spec.env[{index}]"), "x".repeat(1_000))).collect();
    let words = told(&many);
    assert!(words.ends_with("; and 10 more") && words.len() < 20 * 520, "{}", words.len());
    assert_eq!(told(&many[..0]), "");
}

fn pool_findings(change: &str) -> Vec<String> {
    let yaml = format!(
        "apiVersion: supercargo.dev/v1alpha1\nkind: ProviderPool\nmetadata: {{name: p}}\nspec:\n  provider: a\n  selector: {{matchLabels: {{a: b}}}}\n{change}"
    );
    pool(&serde_yaml_ng::from_str(&yaml).expect("a pool")).iter().map(ToString::to_string).collect()
}

#[test]
fn a_card_that_can_never_tell_its_prices_apart_is_refused_also_without_facts() {
    let rate = |model: &str| format!("{{resourceName: nvidia.com/gpu, perHour: \"1\"{model}}}");
    let found = |rates: &[String]| pool_findings(&format!("  pricing: {{token: USDC, resources: [{}]}}", rates.join(", ")));
    let tie = "spec.pricing.resources[1]: is for the same resource and models as resources[0]: every node's price would be a tie; keep one";
    assert_eq!(found(&[rate(""), rate("")]), [tie]);
    assert_eq!(found(&[rate(", model: nvidia h100"), rate(", model: H100-NVIDIA")]), [tie]);
    assert_eq!(found(&[rate(""), rate(", model: H100")]), [""; 0]);
    let wordless = "spec.pricing.resources[0].model: \"--\" has no word that a product's name could have: write one, such as \"H100\"";
    assert_eq!(found(&[rate(", model: --"), rate("")]), [wordless]);
}

#[test]
fn facts_of_a_pool_have_words_a_price_and_a_size() {
    let found = |gpus: &str| {
        pool_findings(&format!(
            "  gpus: [{{resourceName: nvidia.com/gpu, {gpus}}}]\n  pricing: {{token: USDC, resources: [{{resourceName: nvidia.com/gpu, model: H100, perHour: \"1\"}}]}}"
        ))
    };
    assert_eq!(found("model: H100, memory: 80Gi"), [""; 0]);
    assert_eq!(found("model: H100, memory: 80Ti"), ["spec.gpus[0].memory: 80Ti is more than any device has: at most 4Ti"]);
    assert_eq!(
        found("model: T4, memory: 80Gi"),
        ["spec.pricing.resources: the card has no price for nvidia.com/gpu of model \"T4\": add one"]
    );
    assert_eq!(
        found("model: --, memory: 80Gi"),
        ["spec.gpus[0].model: \"--\" has no word that a product's name could have: write one, such as \"H100\""]
    );
}

#[test]
fn a_label_is_a_name_after_a_domain_if_there_is_one() {
    for good in ["a", "nvidia.com/gpu.present", "kubernetes.io/hostname", "A_b.c"] {
        assert!(is_label_key(good), "{good}");
    }
    for bad in ["", "/", "a/", "/a", "-a", "a b", "Example.com/a", "a..b/c", "a/b/c"] {
        assert!(!is_label_key(bad), "{bad}");
    }
    let long = "x".repeat(64);
    assert!(!is_label_key(&long) && is_label_key(&long[..63]));
}

#[test]
fn the_texts_name_what_is_reserved() {
    let crd = serde_json::to_value(<ComputeTask as kube::CustomResourceExt>::crd()).expect("a CRD is plain data");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let text = |field: &serde_json::Value| field["description"].as_str().expect("a text").replace('\n', " ");
    let volume = &spec["volumes"]["items"]["properties"];
    let told = [(text(&volume["mountPath"]), &OUR_PATHS[..]), (text(&volume["name"]), &OUR_VOLUMES[..]), (text(&spec["env"]), &OURS[..])];
    for (text, words) in told {
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}
