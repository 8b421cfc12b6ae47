//! Where a task's volumes let it run: where a bound claim's volume can be reached. A claim of a class that waits for pods
//! goes where a volume can be found for it, and kube-scheduler binds it there; any other has to be bound first.

use super::World;
use super::records::{Claim, Node, StorageClass, Task, Volume};
use std::collections::BTreeSet;

/// One of what a node has to fulfil, in Kubernetes' own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
    /// It is about the node's name, not about a label.
    pub of_name: bool,
}

/// What a task's claims come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// None: anywhere.
    pub only_nodes: Option<Vec<String>>,
    /// One of them has no volume yet: only kube-scheduler finds one.
    pub unbound: bool,
}

/// What a task's volumes lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// There is no claim of this name.
    Claim(String),
    /// The claim of this name has no volume yet.
    Volume(String),
}

impl World {
    /// The claims that a task names, by their keys.
    pub fn claims_of(task: &Task) -> impl Iterator<Item = super::Key> {
        let named = task.spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
        named.map(|claim| (task.namespace.clone(), claim.claim_name.clone()))
    }

    /// Where its volumes let a task run, or which of its claims it has to wait for.
    pub fn reach_of(&self, task: &Task) -> Result<Reach, Missing> {
        let mut reach = Reach::default();
        for key in Self::claims_of(task) {
            let Some(claim) = self.claims.get(&key) else { return Err(Missing::Claim(key.1)) };
            let volumes: Vec<&Volume> = match &claim.volume {
                Some(name) => self.volumes.get(name).into_iter().collect(),
                None => {
                    let class = self.storage_classes.get(&claim.class).filter(|class| class.waits_for_pods);
                    let Some(class) = class else { return Err(Missing::Volume(key.1)) };
                    reach.unbound = true;
                    if class.makes_volumes {
                        continue;
                    }
                    self.volumes.values().filter(|volume| volume.class == claim.class && !volume.claimed).collect()
                }
            };
            if volumes.is_empty() {
                return Err(Missing::Volume(key.1));
            }
            if volumes.iter().any(|volume| volume.terms.is_empty()) {
                continue;
            }
            let there = |node: &&Node| volumes.iter().any(|volume| volume.is_reached_from(node));
            let nodes: BTreeSet<String> = self.nodes.values().filter(there).map(|node| node.name.clone()).collect();
            reach.only_nodes = Some(match reach.only_nodes {
                Some(others) => others.into_iter().filter(|node| nodes.contains(node)).collect(),
                None => nodes.into_iter().collect(),
            });
        }
        Ok(reach)
    }

    pub(super) fn apply_storage_class(&mut self, class: StorageClass) {
        let name = class.name.clone();
        if self.storage_classes.insert(name, class.clone()).as_ref() != Some(&class) {
            self.nodes_moved();
        }
    }

    pub(super) fn apply_claim(&mut self, claim: Claim) {
        let key = (claim.namespace.clone(), claim.name.clone());
        if self.claims.insert(key.clone(), claim.clone()).as_ref() != Some(&claim) {
            self.claim_changed(&key);
        }
    }

    pub(super) fn claim_changed(&mut self, key: &super::Key) {
        for work in self.index.claimed_by.get(key).into_iter().flatten() {
            self.todo.works.push(work.clone());
        }
    }

    pub(super) fn apply_volume(&mut self, volume: Volume) {
        let (name, class) = (volume.name.clone(), volume.class.clone());
        if self.volumes.insert(name.clone(), volume.clone()).as_ref() == Some(&volume) {
            return;
        }
        self.volume_changed(&name, class.as_str());
    }

    pub(super) fn volume_gone(&mut self, name: &str) {
        if let Some(gone) = self.volumes.remove(name) {
            self.volume_changed(name, gone.class.as_str());
        }
    }

    /// Whoever claims it, or may be given it, looks again at where it could go.
    fn volume_changed(&mut self, name: &str, class: &str) {
        let of_it = |claim: &Claim| claim.volume.as_ref().map_or(claim.class == class, |volume| volume == name);
        let claims: Vec<super::Key> =
            self.index.claimed_by.keys().filter(|key| self.claims.get(*key).is_some_and(of_it)).cloned().collect();
        claims.iter().for_each(|key| self.claim_changed(key));
    }

    /// Volumes are reached from nodes by the nodes' labels.
    pub(super) fn nodes_moved(&mut self) {
        for work in self.index.claimed_by.values().flatten() {
            self.todo.works.push(work.clone());
        }
    }
}

impl Volume {
    /// One of its terms has to hold wholly.
    fn is_reached_from(&self, node: &Node) -> bool {
        self.terms.iter().any(|term| term.iter().all(|requirement| requirement.holds(node)))
    }
}

impl Requirement {
    fn holds(&self, node: &Node) -> bool {
        let found = if self.of_name { Some(&node.name) } else { node.labels.get(&self.key) };
        let number = |text: &String| text.parse::<i64>().ok();
        let compared = || Some((number(found?)?, number(self.values.first()?)?));
        match self.operator.as_str() {
            "In" => found.is_some_and(|value| self.values.contains(value)),
            "NotIn" => found.is_none_or(|value| !self.values.contains(value)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            "Gt" => compared().is_some_and(|(value, least)| value > least),
            "Lt" => compared().is_some_and(|(value, most)| value < most),
            // What we don't know we don't take for true.
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, labels: &[(&str, &str)]) -> Node {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Node { name: name.to_owned(), labels, ..Node::default() }
    }

    #[test]
    fn a_volumes_terms_are_read_as_kubernetes_reads_them() {
        let here = node("n1", &[("zone", "a"), ("slots", "8")]);
        let cases = [
            ("zone", "In", &["a", "b"][..], true),
            ("zone", "In", &["b"], false),
            ("rack", "In", &["a"], false),
            ("zone", "NotIn", &["b"], true),
            ("zone", "NotIn", &["a"], false),
            ("rack", "NotIn", &["a"], true),
            ("zone", "Exists", &[], true),
            ("rack", "Exists", &[], false),
            ("rack", "DoesNotExist", &[], true),
            ("zone", "DoesNotExist", &[], false),
            ("slots", "Gt", &["7"], true),
            ("slots", "Gt", &["8"], false),
            ("slots", "Lt", &["9"], true),
            ("zone", "Lt", &["9"], false),
            ("zone", "Like", &["a"], false),
        ];
        for (key, operator, values, holds) in cases {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let requirement = Requirement { key: key.to_owned(), operator: operator.to_owned(), values, of_name: false };
            assert_eq!(requirement.holds(&here), holds, "{requirement:?}");
        }
        let named =
            |name: &str| Requirement { key: "metadata.name".into(), operator: "In".into(), values: vec![name.into()], of_name: true };
        let volume = |terms| Volume { name: "v".into(), class: String::new(), claimed: false, terms };
        assert!(volume(vec![vec![named("n2")], vec![named("n1")]]).is_reached_from(&here), "one of several terms is enough");
        assert!(!volume(vec![vec![named("n1"), named("n2")]]).is_reached_from(&here), "all of one term have to hold");
    }
}
