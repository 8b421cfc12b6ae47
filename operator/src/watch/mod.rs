//! Watches: what the API server says becomes events for the world. A watch that ends is resumed at once; an object that
//! can't be read is one warning and never a stopped watch.

mod raw;

use crate::runtime::pauses::{Pauses, nanos};
use crate::world::convert::{
    claim, escrow, hindrance, limits, namespace, node, pod, policy, pool, provider_node, storage_class, task, volume,
};

use crate::world::Event;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as Told, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ApiResource;
use kube::runtime::watcher::{self, Event as Watched};
use kube::{Api, Client, Resource};
use raw::Raw;
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use supercargo_crds::names::{LABEL_MANAGED, MANAGED_BY};
use supercargo_crds::{ComputeTask, Escrow, ProviderNode, ProviderPool};
use tokio::sync::mpsc;

/// An event, or the news that one kind has been listed whole.
#[derive(Debug)]
pub enum News {
    Event(Event),
    Listed(&'static str),
}

/// Kinds that must be listed before anything may be decided.
pub const KINDS: [&str; 11] = [
    "ComputeTask",
    "Pod",
    "Node",
    "ProviderPool",
    "ProviderNode",
    "Escrow",
    "Namespace",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "StorageClass",
    "LimitRange",
];

/// Starts every watch.
pub fn start(client: &Client, news: &mpsc::Sender<News>) {
    spawn::<ComputeTask>(
        "ComputeTask",
        client,
        news,
        |object| task(object).map(|task| Event::Task(Box::new(task))),
        |_, key| Some(Event::TaskGone(key)),
    );
    spawn::<Pod>(
        "Pod",
        client,
        news,
        |object| pod(object, now()).map(|pod| Event::Pod(Box::new(pod))),
        |uid, _| Some(Event::PodGone { uid, at: now() }),
    );
    spawn::<Node>(
        "Node",
        client,
        news,
        |object| node(object, now()).map(|node| Event::Node(Box::new(node))),
        |_, key| Some(Event::NodeGone(key.1)),
    );
    spawn::<ProviderPool>(
        "ProviderPool",
        client,
        news,
        |object| pool(object).map(|pool| Event::Pool(Box::new(pool))),
        |_, key| Some(Event::PoolGone(key.1)),
    );
    spawn::<ProviderNode>(
        "ProviderNode",
        client,
        news,
        |object| provider_node(object).map(|node| Event::ProviderNode(Box::new(node))),
        |_, key| Some(Event::ProviderNodeGone(key.1)),
    );
    spawn::<Escrow>(
        "Escrow",
        client,
        news,
        |object| escrow(object).map(|escrow| Event::Escrow(Box::new(escrow))),
        |_, key| Some(Event::EscrowGone(key)),
    );
    spawn::<Namespace>(
        "Namespace",
        client,
        news,
        |object| namespace(object).map(Event::Namespace),
        |_, key| Some(Event::NamespaceGone(key.1)),
    );
    spawn::<PersistentVolumeClaim>(
        "PersistentVolumeClaim",
        client,
        news,
        |object| claim(object).map(Event::Claim),
        |_, key| Some(Event::ClaimGone(key)),
    );
    spawn::<PersistentVolume>(
        "PersistentVolume",
        client,
        news,
        |object| volume(object).map(|volume| Event::Volume(Box::new(volume))),
        |_, key| Some(Event::VolumeGone(key.1)),
    );
    spawn::<StorageClass>(
        "StorageClass",
        client,
        news,
        |object| storage_class(object).map(Event::StorageClass),
        |_, key| Some(Event::StorageClassGone(key.1)),
    );
    spawn::<LimitRange>("LimitRange", client, news, |object| limits(object).map(Event::Limits), |_, key| Some(Event::LimitsGone(key)));
    // One that is changed or taken away is made again. Nothing waits for their list: what is there of them nobody knows before
    // it was made.
    follow::<NetworkPolicy>(
        "NetworkPolicy",
        client,
        watcher::Config::default().labels(&format!("{LABEL_MANAGED}={MANAGED_BY}")),
        news,
        |object| policy(object).map(Event::Policy),
        |uid, key| Some(Event::PolicyGone { uid, key }),
    );
    // Of all Events only those of what a pod's status does not say: volumes, and the sandbox that containers are made in. One
    // watch of warnings without the most frequent of them costs the API server less than one of each reason. Nothing waits for
    // their list.
    follow::<Told>(
        "Event",
        client,
        watcher::Config::default()
            .fields("involvedObject.kind=Pod,type=Warning,reason!=BackOff,reason!=Failed,reason!=FailedScheduling,reason!=Unhealthy"),
        news,
        hindrance,
        |_, _| None,
    );
}

/// Between tries of a watch that fails: an API server that comes back has every watch again within the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub fn now() -> i64 {
    Timestamp::now().as_second()
}

type Gone = fn(String, (String, String)) -> Option<Event>;

fn spawn<K>(kind: &'static str, client: &Client, news: &mpsc::Sender<News>, read: fn(&K) -> Option<Event>, gone: Gone)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + 'static,
{
    follow(kind, client, watcher::Config::default(), news, read, gone);
}

fn follow<K>(
    kind: &'static str,
    client: &Client,
    which: watcher::Config,
    news: &mpsc::Sender<News>,
    read: fn(&K) -> Option<Event>,
    gone: Gone,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + 'static,
{
    let api = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    run(kind, api, which, news, Box::new(move |raw| raw.read().map(|object| read(&object))), gone);
}

/// What an object has to say, or why it can't be read.
type Read = Box<dyn Fn(&Raw) -> Result<Option<Event>, serde_json::Error> + Send + Sync>;

/// Follows one kind for ever. A listing that no longer has an object says that it is gone.
fn run(kind: &'static str, api: Api<Raw>, which: watcher::Config, news: &mpsc::Sender<News>, read: Read, gone: Gone) {
    let news = news.clone();
    tokio::spawn(async move {
        let mut known: HashMap<String, (String, String)> = HashMap::new();
        let mut listing: Option<HashMap<String, (String, String)>> = None;
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut stream = watcher::watcher(api, which).boxed();
        while let Some(next) = stream.next().await {
            let mut out = Vec::new();
            match next {
                Ok(Watched::Init) => listing = Some(HashMap::new()),
                Ok(Watched::InitApply(object) | Watched::Apply(object)) => {
                    let identity = identify(&object);
                    let place = listing.as_mut().unwrap_or(&mut known);
                    place.insert(identity.0.clone(), identity.1.clone());
                    match read(&object) {
                        Ok(event) => out.extend(event.map(News::Event)),
                        Err(error) => tracing::warn!(kind, %error, name = identity.1.1, "an object can't be read"),
                    }
                }
                Ok(Watched::InitDone) => {
                    let listed = listing.take().unwrap_or_default();
                    let names: HashSet<&(String, String)> = listed.values().collect();
                    let lost = known.into_iter().filter(|(uid, _)| !listed.contains_key(uid));
                    // Pods are known by their UIDs; anything else that has the name now has taken the place already.
                    let lost = lost.filter(|(_, key)| kind == "Pod" || !names.contains(key));
                    out.extend(lost.filter_map(|(uid, key)| gone(uid, key).map(News::Event)));
                    known = listed;
                    if KINDS.contains(&kind) {
                        out.push(News::Listed(kind));
                    }
                }
                Ok(Watched::Delete(object)) => {
                    let (uid, key) = identify(&object);
                    known.remove(&uid);
                    out.extend(gone(uid, key).map(News::Event));
                }
                Err(error) => {
                    // The watcher resumes by itself; it must not do so in a tight circle.
                    let pause = pauses.next(Instant::now(), nanos());
                    tracing::debug!(kind, %error, pause_milliseconds = pause.as_millis(), "a watch was interrupted");
                    tokio::time::sleep(pause).await;
                }
            }
            for item in out {
                if news.send(item).await.is_err() {
                    return;
                }
            }
        }
    });
}

fn identify(object: &Raw) -> (String, (String, String)) {
    let meta = object.meta();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&meta.uid), (text(&meta.namespace), text(&meta.name)))
}
