//! Pods: the object of an attempt, with the floor that no task gets below; and taking the finalizer off when the books
//! have the facts.

use super::{Effect, Plan, Terms, attempt, budget, gang, place};
use crate::world::World;
use crate::world::free::isolation_rank;
use crate::world::records::{Placement, Task};
use crate::world::taints::TOLERATED;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;
use supercargo_crds::names::{
    ANNOTATION_BOUND, ANNOTATION_BUDGET_NOTICE, EGRESS_INTERNET, EGRESS_NONE, ENV_NOTICE, FINALIZER_EVIDENCE, FOLDER_OURS, LABEL_ATTEMPT,
    LABEL_EGRESS, LABEL_MANAGED, LABEL_TASK, LABEL_TASK_UID, LABEL_TOGETHER, LABEL_WORKER, MANAGED_BY, NOTICE_FILE, PRIORITY_CLASS,
    SERVICE_WORKERS, VOLUME_OURS,
};
use supercargo_crds::pool::{Binding, ProviderPoolSpec};
use supercargo_crds::task::{Egress, Volume};
use supercargo_market::work::WorkId;

/// The finalizer goes when the books have the attempt's facts, and the task, if it is still there, has been told. A pod
/// that nothing is held back for does not run on.
pub fn plan(world: &mut World, work: &WorkId, task: Option<&Task>, plan: &mut Plan) {
    let mut told = Vec::new();
    for pod in world.pods_of(work) {
        let Some(ours) = &pod.ours else { continue };
        let held = world.reservations.get(work).is_some_and(|reservation| reservation.placement.attempt == ours.attempt);
        let charged = world.is_charged(work, ours.attempt);
        if !held && (pod.parting.lost || !pod.is_over()) {
            plan.effects.extend(attempt::delete(pod, Some(0), None));
        }
        if pod.is_over() && (charged || !held) && task.is_none_or(|task| task.deleting || !charged || task.was_told(ours.attempt)) {
            told.push(pod.clone());
        }
    }
    for pod in told {
        if pod.gone {
            world.forget_pod(&pod);
        } else if pod.has_finalizer {
            plan.effects.push(Effect::FreePod { namespace: pod.namespace, name: pod.name, uid: pod.uid });
        }
    }
}

/// What the place of a worker means for its pod.
pub struct Site {
    pub sold_under: ProviderPoolSpec,
    /// Its node can give pods users of their own.
    pub user_namespaces: bool,
    /// One of its volumes has to be found by kube-scheduler first.
    pub unbound_volumes: bool,
    /// It may come to a mark of its budget, and has a file where it reads of that. Others start sooner without a volume.
    pub marked: bool,
}

impl Site {
    /// None while nobody knows under which terms the node is sold.
    pub fn of(world: &World, terms: &Terms, task: &Task, node: &str) -> Option<Self> {
        Some(Self {
            sold_under: world.terms_of(world.provider_node_of(node)?)?,
            user_namespaces: terms.user_namespaces && world.nodes.get(node)?.user_namespaces,
            unbound_volumes: world.reach_of(task).is_ok_and(|reach| reach.unbound),
            marked: budget::may_be_marked(world, task),
        })
    }
}

pub fn build(task: &Task, placement: &Placement, worker: u32, site: &Site) -> core::Pod {
    let place = &placement.workers[worker as usize];
    let together = placement.workers.len() > 1;
    let runtime_class_name = runtime_class(task, &site.sold_under);
    // A volume that others use too may not know whose files are whose then; and a runtime class has its own ways.
    let own_users = site.user_namespaces && runtime_class_name.is_none() && World::claims_of(task).next().is_none();
    let mut spec = core::PodSpec {
        containers: vec![container(task, placement, worker, site.marked)],
        volumes: Some(volumes(task, site.marked)).filter(|volumes| !volumes.is_empty()),
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        hostname: together.then(|| place.pod.clone()),
        subdomain: together.then(|| SERVICE_WORKERS.to_owned()),
        termination_grace_period_seconds: Some(task.spec.grace_period_seconds),
        active_deadline_seconds: Some(place::start_timeout_seconds(task) + task.spec.time_limit_seconds),
        priority_class_name: Some(PRIORITY_CLASS.to_owned()),
        runtime_class_name,
        host_users: own_users.then_some(false),
        tolerations: Some(tolerations()),
        image_pull_secrets: Some(
            task.spec.image_pull_secrets.iter().map(|secret| core::LocalObjectReference { name: secret.name.clone() }).collect::<Vec<_>>(),
        )
        .filter(|secrets| !secrets.is_empty()),
        security_context: Some(pod_security(task)),
        ..core::PodSpec::default()
    };
    match site.sold_under.binding {
        Binding::Direct if !site.unbound_volumes => spec.node_name = Some(place.node.clone()),
        Binding::Direct | Binding::Scheduler => spec.affinity = Some(only_on(&place.node)),
    }
    core::Pod { metadata: metadata(task, placement, worker), spec: Some(spec), status: None }
}

fn metadata(task: &Task, placement: &Placement, worker: u32) -> ObjectMeta {
    let egress = match task.spec.network.egress {
        Egress::None => EGRESS_NONE,
        Egress::Internet => EGRESS_INTERNET,
    };
    let together = (placement.workers.len() > 1).then(|| (LABEL_TOGETHER, "true".to_owned()));
    let labels = [
        (LABEL_MANAGED, MANAGED_BY.to_owned()),
        (LABEL_TASK, task.name.clone()),
        (LABEL_TASK_UID, task.uid.to_string()),
        (LABEL_ATTEMPT, placement.attempt.to_string()),
        (LABEL_WORKER, worker.to_string()),
        (LABEL_EGRESS, egress.to_owned()),
    ];
    let annotations = [
        (ANNOTATION_BOUND, placement.bound.to_string()),
        // The autoscalers' ways of saying: leave it alone.
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false".to_owned()),
        ("karpenter.sh/do-not-disrupt", "true".to_owned()),
    ];
    let owned =
        |pairs: &[(&str, String)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>();
    ObjectMeta {
        name: Some(placement.workers[worker as usize].pod.clone()),
        namespace: Some(task.namespace.clone()),
        labels: Some(owned(&labels.into_iter().chain(together).collect::<Vec<_>>())),
        annotations: Some(owned(&annotations)),
        finalizers: Some(vec![FINALIZER_EVIDENCE.to_owned()]),
        owner_references: Some(vec![owner(task)]),
        ..ObjectMeta::default()
    }
}

/// Whatever is made for a task goes with it.
pub fn owner(task: &Task) -> OwnerReference {
    OwnerReference {
        api_version: "supercargo.dev/v1alpha1".to_owned(),
        kind: "ComputeTask".to_owned(),
        name: task.name.clone(),
        uid: task.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }
}

fn container(task: &Task, placement: &Placement, worker: u32, marked: bool) -> core::Container {
    let spec = &task.spec;
    let list = |words: &[String]| Some(words.to_vec()).filter(|words| !words.is_empty());
    core::Container {
        name: "task".to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: list(&spec.command),
        args: list(&spec.args),
        working_dir: spec.working_dir.clone(),
        env: Some(env(task, placement, worker, marked)),
        ports: Some(
            spec.network
                .ports
                .iter()
                .map(|port| core::ContainerPort {
                    name: Some(port.name.clone()),
                    container_port: port.port,
                    ..core::ContainerPort::default()
                })
                .collect::<Vec<_>>(),
        )
        .filter(|ports| !ports.is_empty()),
        resources: Some(resources(task, placement, worker)),
        volume_mounts: Some(mounts(task, marked)).filter(|mounts| !mounts.is_empty()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(core::SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            capabilities: Some(core::Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..core::SecurityContext::default()
        }),
        ..core::Container::default()
    }
}

fn env(task: &Task, placement: &Placement, worker: u32, marked: bool) -> Vec<core::EnvVar> {
    let value = |name: &str, value: String| core::EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let mut all = vec![value("SUPERCARGO_TASK", task.name.clone()), value("SUPERCARGO_ATTEMPT", placement.attempt.to_string())];
    if marked {
        all.push(value(ENV_NOTICE, format!("{FOLDER_OURS}/{NOTICE_FILE}")));
    }
    if task.spec.resources.gpu.count == 0 {
        // Images ask for all GPUs of a node by themselves, and some runtimes would give them.
        all.push(value("NVIDIA_VISIBLE_DEVICES", "void".to_owned()));
    }
    if placement.workers.len() > 1 {
        all.extend(gang::env(task, placement, worker).into_iter().map(|(name, text)| value(name, text)));
    }
    all.extend(task.spec.env.iter().map(|variable| {
        let source = variable.value_from.as_ref().map(|from| core::EnvVarSource {
            secret_key_ref: from.secret_key_ref.as_ref().map(|key| core::SecretKeySelector {
                name: key.name.clone(),
                key: key.key.clone(),
                optional: None,
            }),
            config_map_key_ref: from.config_map_key_ref.as_ref().map(|key| core::ConfigMapKeySelector {
                name: key.name.clone(),
                key: key.key.clone(),
                optional: None,
            }),
            ..core::EnvVarSource::default()
        });
        core::EnvVar { name: variable.name.clone(), value: variable.value.clone(), value_from: source }
    }));
    all
}

/// Requests are limits: what is paid for is what is had.
fn resources(task: &Task, placement: &Placement, worker: u32) -> core::ResourceRequirements {
    let place = &placement.workers[worker as usize];
    let mut all = BTreeMap::from([
        ("cpu".to_owned(), Quantity(format!("{}m", place.cpu_millis))),
        ("memory".to_owned(), Quantity(place.memory_bytes.to_string())),
        ("ephemeral-storage".to_owned(), Quantity(place.storage_bytes.to_string())),
    ]);
    // Who asked for no device and has the node alone pays for all of them, and still sees none.
    if place.devices > 0 && task.spec.resources.gpu.count > 0 {
        all.insert(placement.resource_name.clone(), Quantity(place.devices.to_string()));
    }
    core::ResourceRequirements { requests: Some(all.clone()), limits: Some(all), claims: None }
}

fn volumes(task: &Task, marked: bool) -> Vec<core::Volume> {
    let mut all: Vec<core::Volume> = task.spec.volumes.iter().map(volume).collect();
    if let Some(size) = &task.spec.resources.shared_memory {
        let memory = core::EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: Some(Quantity(size.to_string())) };
        all.push(core::Volume { name: "shm".to_owned(), empty_dir: Some(memory), ..core::Volume::default() });
    }
    if marked {
        let notice =
            core::ObjectFieldSelector { field_path: format!("metadata.annotations['{ANNOTATION_BUDGET_NOTICE}']"), api_version: None };
        let file = core::DownwardAPIVolumeFile { path: NOTICE_FILE.to_owned(), field_ref: Some(notice), ..Default::default() };
        let ours = core::DownwardAPIVolumeSource { items: Some(vec![file]), default_mode: None };
        all.push(core::Volume { name: VOLUME_OURS.to_owned(), downward_api: Some(ours), ..core::Volume::default() });
    }
    all
}

fn volume(volume: &Volume) -> core::Volume {
    let mut made = core::Volume { name: volume.name.clone(), ..core::Volume::default() };
    if let Some(scratch) = &volume.scratch {
        made.empty_dir = Some(core::EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(scratch.size.to_string())) });
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        made.persistent_volume_claim =
            Some(core::PersistentVolumeClaimVolumeSource { claim_name: claim.claim_name.clone(), read_only: Some(volume.read_only) });
    }
    if let Some(secret) = &volume.secret {
        made.secret = Some(core::SecretVolumeSource { secret_name: Some(secret.name.clone()), ..core::SecretVolumeSource::default() });
    }
    if let Some(map) = &volume.config_map {
        made.config_map = Some(core::ConfigMapVolumeSource { name: map.name.clone(), ..core::ConfigMapVolumeSource::default() });
    }
    made
}

fn mounts(task: &Task, marked: bool) -> Vec<core::VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| core::VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..core::VolumeMount::default()
    };
    let mut all: Vec<_> = task
        .spec
        .volumes
        .iter()
        .map(|volume| mount(&volume.name, &volume.mount_path, volume.read_only || volume.secret.is_some() || volume.config_map.is_some()))
        .collect();
    if task.spec.resources.shared_memory.is_some() {
        all.push(mount("shm", "/dev/shm", false));
    }
    if marked {
        all.push(mount(VOLUME_OURS, FOLDER_OURS, true));
    }
    all
}

/// Kubernetes itself must not end paid work because a node is silent for a while.
fn tolerations() -> Vec<core::Toleration> {
    let tolerate = |key: &str| core::Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..core::Toleration::default()
    };
    let silent = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(tolerate);
    let always = TOLERATED.map(|key| core::Toleration { effect: None, ..tolerate(key) });
    silent.into_iter().chain(always).collect()
}

/// The weakest isolation of the pool that is as strong as was asked.
fn runtime_class(task: &Task, pool: &ProviderPoolSpec) -> Option<String> {
    let wanted = isolation_rank(task.spec.placement.isolation);
    let levels = pool.isolation.iter().filter(|isolation| isolation_rank(isolation.level) >= wanted);
    levels.min_by_key(|isolation| isolation_rank(isolation.level))?.runtime_class_name.clone()
}

fn pod_security(task: &Task) -> core::PodSecurityContext {
    let asked = task.spec.security.as_ref();
    core::PodSecurityContext {
        run_as_user: asked.and_then(|security| security.run_as_user),
        run_as_group: asked.and_then(|security| security.run_as_group),
        fs_group: asked.and_then(|security| security.fs_group),
        seccomp_profile: Some(core::SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..core::PodSecurityContext::default()
    }
}

fn only_on(node: &str) -> core::Affinity {
    let field =
        core::NodeSelectorRequirement { key: "metadata.name".to_owned(), operator: "In".to_owned(), values: Some(vec![node.to_owned()]) };
    let term = core::NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
    let required = core::NodeSelector { node_selector_terms: vec![term] };
    let affinity =
        core::NodeAffinity { required_during_scheduling_ignored_during_execution: Some(required), ..core::NodeAffinity::default() };
    core::Affinity { node_affinity: Some(affinity), ..core::Affinity::default() }
}
