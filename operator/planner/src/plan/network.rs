//! What tasks may reach, as NetworkPolicies: a few that stand in each namespace where tasks run, and one of its own for a
//! task with workers that talk, ports or rules. They are there before the pod that they are for.

use super::{Fitting, Terms, place, pod};
use crate::world::World;
use crate::world::records::Task;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use supercargo_crds::names::{EGRESS_INTERNET, LABEL_EGRESS, LABEL_MANAGED, LABEL_TASK_UID, LABEL_TOGETHER, MANAGED_BY, SERVICE_WORKERS};
use supercargo_crds::validate::Range;

/// Where the cluster itself is, besides what its nodes say.
#[derive(Debug, Clone, Default)]
pub struct NetworkTerms {
    /// Ranges that no task may reach, whatever it asks for: the Services' and whatever else is the cluster's own.
    pub cluster: Vec<Range>,
    /// The pods that answer for DNS: their namespace and their labels.
    pub dns_namespace: String,
    pub dns_labels: BTreeMap<String, String>,
}

/// Addresses that are nobody's on the Internet: a rule can open them.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// What no task may reach: the cluster's own ranges, its nodes, and metadata.
pub fn closed(world: &World, terms: &Terms) -> BTreeSet<Range> {
    let nodes = world.nodes.values().flat_map(|node| node.addresses.iter().copied());
    nodes.chain(terms.network.cluster.iter().copied()).chain(Range::never()).collect()
}

/// Of those the ones that lie in a range, without the ones that lie in each other: what is cut out of it.
fn cut(range: Range, closed: &BTreeSet<Range>) -> Vec<String> {
    let inside: Vec<Range> = closed.iter().copied().filter(|one| range.holds(*one)).collect();
    let outermost = inside.iter().filter(|one| !inside.iter().any(|other| other != *one && other.holds(**one)));
    outermost.map(ToString::to_string).collect()
}

/// The policies that stand in every namespace where tasks run.
pub const STANDING: [&str; 2] = ["supercargo-tasks", "supercargo-internet"];

/// What stands in every namespace where tasks run: nothing may be reached, but what is opened beside it.
pub fn standing(terms: &Terms, namespace: &str, closed: &BTreeSet<Range>) -> Vec<Fitting> {
    let everywhere: BTreeSet<Range> = closed.iter().copied().chain(PRIVATE.iter().filter_map(|range| Range::read(range))).collect();
    let public = ["0.0.0.0/0", "::/0"].into_iter().filter_map(Range::read);
    let internet = public.map(|all| block(all, cut(all, &everywhere))).collect();
    let all = NetworkPolicySpec {
        pod_selector: Some(labelled(LABEL_MANAGED, MANAGED_BY)),
        policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        // Said, and not left out: what we leave out stays as somebody else may have put it there.
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
    };
    let reach = NetworkPolicySpec {
        pod_selector: Some(labelled(LABEL_EGRESS, EGRESS_INTERNET)),
        policy_types: Some(vec!["Egress".to_owned()]),
        egress: Some(vec![NetworkPolicyEgressRule { to: Some(internet), ports: None }, dns(terms)]),
        ..NetworkPolicySpec::default()
    };
    // Gangs find each other by name, also before they are ready.
    let workers = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        selector: Some([(LABEL_TOGETHER.to_owned(), "true".to_owned())].into()),
        publish_not_ready_addresses: Some(true),
        ..ServiceSpec::default()
    };
    let service = Service { metadata: meta(namespace, SERVICE_WORKERS), spec: Some(workers), status: None };
    let policy = |name: &str, spec| Fitting::Policy(Box::new(NetworkPolicy { metadata: meta(namespace, name), spec: Some(spec) }));
    vec![policy(STANDING[0], all), policy(STANDING[1], reach), Fitting::Service(Box::new(service))]
}

/// A task's own: its workers among themselves, its ports for its namespace, and its rules. `None` when it has none of these.
pub fn own(terms: &Terms, task: &Task, closed: &BTreeSet<Range>) -> Option<Fitting> {
    let network = &task.spec.network;
    let together = place::workers(task) > 1;
    if !together && network.rules.is_empty() && network.ports.is_empty() {
        return None;
    }
    let workers = NetworkPolicyPeer { pod_selector: Some(labelled(LABEL_TASK_UID, &task.uid)), ..NetworkPolicyPeer::default() };
    let (mut egress, mut ingress) = (Vec::new(), Vec::new());
    if together {
        egress.push(NetworkPolicyEgressRule { to: Some(vec![workers.clone()]), ports: None });
        egress.push(dns(terms));
        ingress.push(NetworkPolicyIngressRule { from: Some(vec![workers]), ports: None });
    }
    for rule in &network.rules {
        let Some(range) = Range::read(&rule.cidr).filter(|range| !closed.iter().any(|one| one.holds(*range))) else { continue };
        let ports = rule.ports.iter().flat_map(|number| ["TCP", "UDP"].map(|protocol| port(*number, protocol))).collect::<Vec<_>>();
        let to = Some(vec![block(range, cut(range, closed))]);
        egress.push(NetworkPolicyEgressRule { to, ports: Some(ports).filter(|ports| !ports.is_empty()) });
    }
    if !network.ports.is_empty() {
        // An empty selector without a namespace is every pod of this one.
        let here = NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
        let ports = network.ports.iter().map(|open| port(open.port, "TCP")).collect();
        ingress.push(NetworkPolicyIngressRule { from: Some(vec![here]), ports: Some(ports) });
    }
    let spec = NetworkPolicySpec {
        pod_selector: Some(labelled(LABEL_TASK_UID, &task.uid)),
        policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        ingress: Some(ingress),
        egress: Some(egress),
    };
    let metadata = ObjectMeta { owner_references: Some(vec![pod::owner(task)]), ..meta(&task.namespace, &place::stem(task)) };
    Some(Fitting::Policy(Box::new(NetworkPolicy { metadata, spec: Some(spec) })))
}

/// Rules of a task that open nothing, because the cluster itself is there.
pub fn findings(world: &World, terms: &Terms, task: &Task) -> Vec<String> {
    if task.spec.network.rules.is_empty() {
        return Vec::new();
    }
    let closed = closed(world, terms);
    let within = |rule: &str| Range::read(rule).and_then(|range| closed.iter().find(|one| one.holds(range)));
    let rules = task.spec.network.rules.iter().enumerate();
    let found = rules.filter_map(|(index, rule)| Some((index, &rule.cidr, within(&rule.cidr)?)));
    found
        .map(|(index, cidr, closed)| format!("spec.network.rules[{index}].cidr: {cidr} is in {closed}, where the cluster itself is"))
        .collect()
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some([(LABEL_MANAGED.to_owned(), MANAGED_BY.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn labelled(name: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(name.to_owned(), value.to_owned())].into()), match_expressions: None }
}

fn block(range: Range, except: Vec<String>) -> NetworkPolicyPeer {
    let except = Some(except).filter(|except| !except.is_empty());
    NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: range.to_string(), except }), ..NetworkPolicyPeer::default() }
}

fn port(number: i32, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(number)), protocol: Some(protocol.to_owned()), end_port: None }
}

fn dns(terms: &Terms) -> NetworkPolicyEgressRule {
    let peer = NetworkPolicyPeer {
        namespace_selector: Some(labelled("kubernetes.io/metadata.name", &terms.network.dns_namespace)),
        pod_selector: Some(LabelSelector { match_labels: Some(terms.network.dns_labels.clone()), match_expressions: None }),
        ip_block: None,
    };
    NetworkPolicyEgressRule { to: Some(vec![peer]), ports: Some(vec![port(53, "UDP"), port(53, "TCP")]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::simulation::gang;
    use serde_json::json;

    fn range(text: &str) -> Range {
        Range::read(text).expect("a range")
    }

    #[test]
    fn what_closes_a_namespace_says_itself_that_nothing_is_open() {
        let standing = standing(&Terms::default(), "n", &BTreeSet::new());
        let Fitting::Policy(policy) = &standing[0] else { panic!("it is a policy") };
        let written = serde_json::to_value(&policy.spec).expect("JSON");
        // A list that we don't name would be left as whoever put something there.
        assert_eq!((&written["ingress"], &written["egress"]), (&serde_json::json!([]), &serde_json::json!([])));
    }

    fn policy(fitting: &Fitting) -> serde_json::Value {
        let Fitting::Policy(policy) = fitting else { panic!("it is a policy") };
        serde_json::to_value(&policy.spec).expect("JSON")
    }

    #[test]
    fn the_internet_is_without_nodes_the_clusters_ranges_private_addresses_and_metadata() {
        let mut world = World::default();
        let node = crate::world::records::Node { name: "n".into(), addresses: vec![range("198.51.100.7/32")], ..Default::default() };
        world.apply(crate::world::Event::Node(Box::new(node)));
        let network = NetworkTerms { cluster: vec![range("203.0.113.0/24"), range("2001:db8::/48")], ..NetworkTerms::default() };
        let terms = Terms { network, ..Terms::default() };
        let internet = policy(&standing(&terms, "n", &closed(&world, &terms))[1]);
        assert_eq!(internet["podSelector"]["matchLabels"], json!({ "supercargo.dev/egress": "internet" }));
        assert_eq!((&internet["policyTypes"], &internet["ingress"]), (&json!(["Egress"]), &json!(null)));
        let cut_out = |index: usize| internet["egress"][0]["to"][index]["ipBlock"]["except"].as_array().cloned().unwrap_or_default();
        for (index, all, closed) in [
            (
                0,
                "0.0.0.0/0",
                "198.51.100.7/32 203.0.113.0/24 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16",
            ),
            (0, "0.0.0.0/0", "168.63.129.16/32 192.0.0.192/32"),
            (1, "::/0", "2001:db8::/48 fc00::/7 fe80::/10 ::1/128"),
        ] {
            assert_eq!(internet["egress"][0]["to"][index]["ipBlock"]["cidr"], all);
            closed.split(' ').for_each(|range| assert!(cut_out(index).contains(&json!(range)), "{range} of {:?}", cut_out(index)));
        }
        assert!(!cut_out(0).contains(&json!("100.100.100.200/32")), "it is within what is cut out already");
    }

    #[test]
    fn a_tasks_own_policy_opens_its_gang_its_ports_and_its_rules_and_nothing_else() {
        let closed = [range("10.96.0.0/12"), range("169.254.0.0/16")].into();
        let network =
            NetworkTerms { dns_namespace: "kube-system".into(), dns_labels: [("k8s-app".into(), "dns".into())].into(), cluster: vec![] };
        let terms = Terms { network, ..Terms::default() };
        let own = |workers: u32, network: serde_json::Value| {
            let mut task = gang("a", "1", 0, workers, "All");
            task.spec.network = serde_json::from_value(network).expect("a network");
            super::own(&terms, &task, &closed).map(|fitting| policy(&fitting))
        };
        let ours = json!({ "podSelector": { "matchLabels": { "supercargo.dev/task-uid": "uid-of-a" } } });
        let both = |port: i32| json!([{ "port": port, "protocol": "TCP" }, { "port": port, "protocol": "UDP" }]);
        let dns = json!({
            "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }],
            "to": [{
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
                "podSelector": { "matchLabels": { "k8s-app": "dns" } },
            }],
        });
        let rule = |cidr: &str| json!({ "rules": [{ "cidr": cidr, "ports": [443] }] });
        for (workers, network, ingress, egress) in [
            (2, json!({}), json!([{ "from": [ours] }]), json!([{ "to": [ours] }, dns])),
            (
                1,
                json!({ "ports": [{ "name": "web", "port": 80 }] }),
                json!([{ "from": [{ "podSelector": {} }], "ports": [both(80)[0]] }]),
                json!([]),
            ),
            (1, rule("203.0.113.0/24"), json!([]), json!([{ "to": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }], "ports": both(443) }])),
            (
                1,
                json!({ "rules": [{ "cidr": "10.0.0.0/8" }] }),
                json!([]),
                json!([{ "to": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.96.0.0/12"] } }] }]),
            ),
            (1, rule("10.96.0.0/24"), json!([]), json!([])),
        ] {
            let policy = own(workers, network.clone()).expect("a policy");
            assert_eq!((&policy["ingress"], &policy["egress"]), (&ingress, &egress), "{network}");
            assert_eq!(policy["podSelector"], ours["podSelector"], "it is this task's alone");
            assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        }
        assert_eq!(own(1, json!({ "egress": "Internet" })), None, "what stands there does");
    }

    #[test]
    fn what_is_cut_out_of_a_wide_rule_is_the_clusters_own_and_metadata() {
        let closed = [range("10.96.0.0/12"), range("10.96.0.1/32"), range("192.0.2.7/32"), range("169.254.0.0/16")].into();
        assert_eq!(cut(range("10.0.0.0/8"), &closed), ["10.96.0.0/12"]);
        assert_eq!(cut(range("0.0.0.0/0"), &closed), ["10.96.0.0/12", "169.254.0.0/16", "192.0.2.7/32"]);
        assert!(cut(range("198.51.100.0/24"), &closed).is_empty());
    }
}
