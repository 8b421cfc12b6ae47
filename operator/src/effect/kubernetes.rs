//! The API server's side of effects. Names are the same every time, and deletions and patches carry the UID that they
//! mean, so doing one twice is doing it once.

use super::EffectError;
use crate::plan::note::Note;
use crate::plan::{Effect, Fitting};
use crate::watch::now;
use crate::world::{Event, convert};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, Taint};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use supercargo_crds::names::{ANNOTATION_BUDGET_NOTICE, FIELD_MANAGER, FINALIZER_EVIDENCE, TAINT_SOLD};
use supercargo_crds::task_status::ComputeTaskStatus;
use supercargo_crds::validate::Range;
use supercargo_crds::{ComputeTask, Escrow, ProviderNode, ProviderPool};
use supercargo_market::work::WorkId;

const API_VERSION: &str = "supercargo.dev/v1alpha1";

fn failed(doing: &'static str) -> impl FnOnce(kube::Error) -> EffectError {
    move |source| EffectError::Kubernetes { doing, source }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

pub async fn carry_out(client: &Client, effect: Effect) -> Result<Vec<Event>, EffectError> {
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    match effect {
        Effect::Book(_) | Effect::ReadUsage { .. } => Ok(Vec::new()),
        Effect::FitNamespace { namespace, fittings, closed } => fit_namespace(client, namespace, &fittings, closed).await,
        Effect::CreatePod { work, fitting, pod } => match make_pod(client, fitting.as_ref(), &pod).await {
            // Whoever reads the task's status can mend it: a quota, a limit, a name that is taken.
            Err(error) if error.needs_a_person() => match find_pod(client, &pod).await? {
                // It was made by an earlier request that nobody heard the answer of, and is what the quota is used up by.
                Some(made) => Ok(vec![made]),
                None => Err(EffectError::Refused { work, pod: pod.metadata.name.unwrap_or_default(), source: Box::new(error) }),
            },
            made => made,
        },
        Effect::FindPods { work, attempt, namespace, names, at } => find_pods(client, work, attempt, &namespace, &names, at).await,
        Effect::DeletePod { namespace, name, uid, grace_seconds, version } => {
            delete_pod(&Api::namespaced(client.clone(), &namespace), &name, uid, grace_seconds, version).await
        }
        Effect::MarkPod { namespace, name, uid, notice } => {
            let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            let patch = json!({ "metadata": { "uid": uid, "annotations": { ANNOTATION_BUDGET_NOTICE: notice } } });
            patch_pod(&api, &name, &uid, &patch, "telling a pod of its budget").await
        }
        Effect::FreePod { namespace, name, uid } => free_pod(client, &namespace, &name, &uid).await,
        Effect::WriteTask { namespace, name, uid, status, note } => {
            let api: Api<ComputeTask> = Api::namespaced(client.clone(), &namespace);
            let Some(written) = write_task(&api, &name, &uid, &status).await? else { return Ok(vec![Event::NoTask(uid.into())]) };
            tell(client, note).await;
            Ok(convert::task(&written).map(|task| Event::Task(Box::new(task))).into_iter().collect())
        }
        Effect::DeleteTask { namespace, name, uid } => {
            let api: Api<ComputeTask> = Api::namespaced(client.clone(), &namespace);
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                ..DeleteParams::background()
            };
            match api.delete(&name, &parameters).await {
                Err(error) if !is_code(&error, 404) => Err(failed("deleting a finished task")(error)),
                // It is known by its UID: somebody may have made another one of its name already.
                _ => Ok(vec![Event::NoTask(uid.into())]),
            }
        }
        Effect::ApplyNode { name, pool } => {
            let api: Api<ProviderNode> = Api::all(client.clone());
            let patch = json!({ "apiVersion": API_VERSION, "kind": "ProviderNode", "metadata": { "name": name }, "spec": { "nodeName": name, "pool": pool } });
            let object = api.patch(&name, &apply, &Patch::Apply(&patch)).await.map_err(failed("making a ProviderNode"))?;
            Ok(convert::provider_node(&object).map(|node| Event::ProviderNode(Box::new(node))).into_iter().collect())
        }
        Effect::TaintNode { name, sold } => taint(client, &name, sold).await,
        Effect::WriteNode { name, status, note } => {
            let api: Api<ProviderNode> = Api::all(client.clone());
            let written = replace_status(&api, &name, &*status, "writing a node's status").await?;
            tell(client, note).await;
            Ok(written
                .and_then(|object| convert::provider_node(&object))
                .map(|node| Event::ProviderNode(Box::new(node)))
                .into_iter()
                .collect())
        }
        Effect::WritePool { name, status } => {
            let api: Api<ProviderPool> = Api::all(client.clone());
            let written = replace_status(&api, &name, &*status, "writing a pool's status").await?;
            Ok(written.and_then(|object| convert::pool(&object)).map(|pool| Event::Pool(Box::new(pool))).into_iter().collect())
        }
        Effect::WriteEscrow { namespace, name, status, note } => {
            let api: Api<Escrow> = Api::namespaced(client.clone(), &namespace);
            let written = replace_status(&api, &name, &*status, "writing an escrow's status").await?;
            tell(client, note.filter(|_| written.is_some())).await;
            Ok(written.and_then(|object| convert::escrow(&object)).map(|escrow| Event::Escrow(Box::new(escrow))).into_iter().collect())
        }
    }
}

async fn fit_namespace(
    client: &Client,
    namespace: String,
    fittings: &[Fitting],
    closed: Arc<BTreeSet<Range>>,
) -> Result<Vec<Event>, EffectError> {
    let mut made = Vec::new();
    for fitting in fittings {
        match fit(client, fitting).await {
            Ok(event) => made.extend(event),
            Err(error) if error.needs_a_person() => return Err(EffectError::Unfit { namespace, source: Box::new(error) }),
            Err(error) => return Err(error),
        }
    }
    made.push(Event::Fitted { namespace, closed, at: now() });
    Ok(made)
}

/// The longest that an Event may hold up what comes next.
const TELL_PATIENCE: Duration = Duration::from_secs(5);

/// Events are for people: one that can't be written holds up nothing, for the status says the same.
async fn tell(client: &Client, note: Option<Box<Note>>) {
    let Some(note) = note else { return };
    let namespace = if note.namespace.is_empty() { "default".to_owned() } else { note.namespace.clone() };
    let regarding = ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(note.kind.to_owned()),
        namespace: Some(note.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(note.object.clone()),
        uid: Some(note.uid.clone()),
        ..ObjectReference::default()
    };
    let event = k8s_openapi::api::events::v1::Event {
        metadata: ObjectMeta { name: Some(note.name.clone()), namespace: Some(namespace.clone()), ..ObjectMeta::default() },
        action: Some(note.reason.clone()),
        reason: Some(note.reason.clone()),
        note: Some(note.message.clone()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        event_time: Some(MicroTime(jiff::Timestamp::now())),
        regarding: Some(regarding),
        reporting_controller: Some("supercargo.dev/operator".to_owned()),
        reporting_instance: Some("supercargo-operator".to_owned()),
        ..k8s_openapi::api::events::v1::Event::default()
    };
    let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client.clone(), &namespace);
    match tokio::time::timeout(TELL_PATIENCE, api.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if is_code(&error, 409) => {}
        Ok(Err(error)) => tracing::warn!(%error, event = note.name, "an event could not be written"),
        Err(_) => tracing::warn!(event = note.name, "the API server did not answer to an event"),
    }
}

/// Writes the status of the very task that it was made for. When an apply names a UID the API server does not look at it; it
/// does at a version: so the task is looked at first, and it is written only as it was then. What has been told of later than
/// that is not untold: whoever led before may be late with this.
async fn write_task(api: &Api<ComputeTask>, name: &str, uid: &str, status: &ComputeTaskStatus) -> Result<Option<ComputeTask>, EffectError> {
    let found = api.get_opt(name).await.map_err(failed("looking at a task"))?;
    let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(uid)) else { return Ok(None) };
    if found.status.as_ref().is_some_and(|told| told.progress() > status.progress()) {
        return Ok(Some(found));
    }
    let metadata = json!({ "name": name, "resourceVersion": found.metadata.resource_version });
    let patch = json!({ "apiVersion": API_VERSION, "kind": "ComputeTask", "metadata": metadata, "status": status });
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    gone_is_fine(api.patch_status(name, &apply, &Patch::Apply(&patch)).await, "writing a task's status")
}

/// Writes the whole of a status. What is applied leaves what a person wrote there by hand, also where that is then half an
/// object, which the API server refuses for ever.
async fn replace_status<K>(api: &Api<K>, name: &str, status: &impl Serialize, doing: &'static str) -> Result<Option<K>, EffectError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let replace = json!([{ "op": "add", "path": "/status", "value": status }]);
    let patch = Patch::Json::<()>(serde_json::from_value(replace).expect("it is one operation of a JSON patch"));
    let by_us = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    gone_is_fine(api.patch_status(name, &by_us, &patch).await, doing)
}

/// An object that was deleted meanwhile needs no status.
fn gone_is_fine<T>(written: Result<T, kube::Error>, doing: &'static str) -> Result<Option<T>, EffectError> {
    match written {
        Ok(object) => Ok(Some(object)),
        Err(error) if is_code(&error, 404) => Ok(None),
        Err(error) => Err(failed(doing)(error)),
    }
}

/// Puts our taint on a node or takes it off, and leaves what else it has: the list is one value to the API server, so it is
/// written only over the one that was read.
async fn taint(client: &Client, name: &str, sold: bool) -> Result<Vec<Event>, EffectError> {
    let api: Api<Node> = Api::all(client.clone());
    let Some(found) = api.get_opt(name).await.map_err(failed("reading a node"))? else { return Ok(Vec::new()) };
    let mut taints = found.spec.and_then(|spec| spec.taints).unwrap_or_default();
    taints.retain(|taint| taint.key != TAINT_SOLD);
    if sold {
        taints.push(Taint { key: TAINT_SOLD.to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() });
    }
    let patch = json!({ "metadata": { "resourceVersion": found.metadata.resource_version }, "spec": { "taints": taints } });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(object) => Ok(convert::node(&object, now()).map(|node| Event::Node(Box::new(node))).into_iter().collect()),
        Err(error) if is_code(&error, 404) => Ok(Vec::new()),
        Err(error) => Err(failed("tainting a node")(error)),
    }
}

/// Applied rather than created: one from before may be of other nodes, or somebody has changed it.
async fn fit(client: &Client, fitting: &Fitting) -> Result<Option<Event>, EffectError> {
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    match fitting {
        Fitting::Policy(policy) => {
            let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), policy.metadata.namespace.as_deref().unwrap_or_default());
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            let made = api.patch(name, &apply, &Patch::Apply(policy)).await.map_err(failed("applying a NetworkPolicy"))?;
            Ok(convert::policy(&made).map(Event::PolicyMade))
        }
        Fitting::Service(service) => {
            let api: Api<Service> = Api::namespaced(client.clone(), service.metadata.namespace.as_deref().unwrap_or_default());
            let name = service.metadata.name.as_deref().unwrap_or_default();
            api.patch(name, &apply, &Patch::Apply(service)).await.map(|_| None).map_err(failed("applying a Service"))
        }
    }
}

async fn make_pod(client: &Client, fitting: Option<&Fitting>, pod: &Pod) -> Result<Vec<Event>, EffectError> {
    let mut made = Vec::new();
    if let Some(fitting) = fitting {
        made.extend(fit(client, fitting).await?);
    }
    made.extend(create_pod(client, pod).await?);
    Ok(made)
}

/// A pod of this name that exists already is this pod, if it says that it is.
async fn create_pod(client: &Client, pod: &Pod) -> Result<Option<Event>, EffectError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let made = match api.create(&PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }, pod).await {
        Ok(made) => made,
        Err(error) if is_code(&error, 409) => match api.get_opt(name).await.map_err(failed("reading a pod"))? {
            Some(found) if is_called_as(&found.metadata, &pod.metadata) => found,
            Some(_) => return Err(EffectError::Taken(name.to_owned())),
            // A quota that others write at the same time conflicts too; or it is gone again.
            None => return Err(failed("creating a pod")(error)),
        },
        Err(error) => return Err(failed("creating a pod")(error)),
    };
    Ok(convert::pod(&made, now()).map(|pod| Event::Pod(Box::new(pod))))
}

/// The very pod, if it is there.
async fn find_pod(client: &Client, pod: &Pod) -> Result<Option<Event>, EffectError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let found = api.get_opt(pod.metadata.name.as_deref().unwrap_or_default()).await.map_err(failed("reading a pod"))?;
    let found = found.filter(|found| is_called_as(&found.metadata, &pod.metadata));
    Ok(found.and_then(|found| convert::pod(&found, now())).map(|pod| Event::Pod(Box::new(pod))))
}

async fn find_pods(
    client: &Client,
    work: WorkId,
    attempt: u32,
    namespace: &str,
    names: &[String],
    at: i64,
) -> Result<Vec<Event>, EffectError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    for name in names {
        found.extend(api.get_opt(name).await.map_err(failed("looking for a pod"))?.and_then(|pod| convert::pod(&pod, now())));
    }
    // Somebody else's pod may have the name: it is none of the attempt's.
    found.retain(|pod| pod.ours.as_ref().is_some_and(|ours| ours.work == work && ours.attempt == attempt));
    if found.is_empty() {
        return Ok(vec![Event::Absent { work, attempt, at }]);
    }
    Ok(found.into_iter().map(|pod| Event::Pod(Box::new(pod))).collect())
}

/// Takes our finalizer off, and only ours, only of this very pod.
async fn free_pod(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<Vec<Event>, EffectError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    // The list can only shrink, for nobody adds a finalizer to a pod that ends.
    let Some(found) =
        api.get_metadata_opt(name).await.map_err(failed("reading a pod"))?.filter(|found| found.metadata.uid.as_deref() == Some(uid))
    else {
        return Ok(vec![Event::PodGone { uid: uid.to_owned(), at: now() }]);
    };
    let rest: Vec<String> = found.metadata.finalizers.unwrap_or_default().into_iter().filter(|one| one != FINALIZER_EVIDENCE).collect();
    let patch = json!({ "metadata": { "uid": uid, "resourceVersion": found.metadata.resource_version, "finalizers": rest } });
    patch_pod(&api, name, uid, &patch, "taking the finalizer off a pod").await
}

async fn delete_pod(
    api: &Api<Pod>,
    name: &str,
    uid: String,
    grace_period_seconds: Option<u32>,
    version: Option<String>,
) -> Result<Vec<Event>, EffectError> {
    let seen_before = version.is_some();
    let preconditions = Some(Preconditions { uid: Some(uid.clone()), resource_version: version });
    let there = match api.delete(name, &DeleteParams { grace_period_seconds, preconditions, ..DeleteParams::default() }).await {
        // It is another one than was seen: whether it is to end is thought over.
        Err(error) if is_code(&error, 409) && seen_before => {
            let found = api.get_opt(name).await.map_err(failed("reading a pod"))?;
            found.filter(|found| found.metadata.uid.as_ref() == Some(&uid))
        }
        Err(error) if !is_code(&error, 404) => return Err(failed("deleting a pod")(error)),
        answer => answer.ok().and_then(|answer| answer.left()),
    };
    Ok(there.map_or_else(|| vec![Event::PodGone { uid: uid.clone(), at: now() }], |pod| seen(&pod, &uid)))
}

/// What an answer says of a pod. One that nothing holds any more goes with the answer: a watch may have told so already, and
/// will not tell it again.
fn seen(pod: &Pod, uid: &str) -> Vec<Event> {
    let meta = &pod.metadata;
    let held = meta.finalizers.as_ref().is_some_and(|all| !all.is_empty()) || meta.deletion_grace_period_seconds != Some(0);
    if meta.deletion_timestamp.is_some() && !held {
        return vec![Event::PodGone { uid: uid.to_owned(), at: now() }];
    }
    convert::pod(pod, now()).map(|pod| Event::Pod(Box::new(pod))).into_iter().collect()
}

/// Whether it has all labels of the other: some may be somebody else's.
fn is_called_as(found: &ObjectMeta, other: &ObjectMeta) -> bool {
    let has = |(name, value): (&String, &String)| found.labels.as_ref().is_some_and(|labels| labels.get(name) == Some(value));
    other.labels.iter().flatten().all(has)
}

/// A merge patch that names the UID is refused for another pod of the same name.
async fn patch_pod(api: &Api<Pod>, name: &str, uid: &str, patch: &Value, doing: &'static str) -> Result<Vec<Event>, EffectError> {
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(object) => Ok(seen(&object, uid)),
        Err(error) if is_code(&error, 404) => Ok(vec![Event::PodGone { uid: uid.to_owned(), at: now() }]),
        Err(error) => Err(failed(doing)(error)),
    }
}
