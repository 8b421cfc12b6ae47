//! What the API server shows, by the clock of whoever watches: a delay is the time between two sights of it, and not between
//! two questions.

use crate::cluster::ClusterInfo;
use crate::http;
use anyhow::{Context, Result};
use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The cluster's admin.
pub async fn client(info: &ClusterInfo) -> Result<Client> {
    http::install_tls();
    let file = Kubeconfig::read_from(&info.kubeconfig).context("reading the kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context("understanding the kubeconfig")?;
    // The cluster is on this machine, whatever proxy there is for the rest of the world.
    config.proxy_url = None;
    Client::try_from(config).context("making a client")
}

/// The objects of a kind, of Kubernetes' own or ours; all of them without a namespace.
pub fn objects(client: &Client, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = if ["Pod", "Node"].contains(&kind) { ("", "v1") } else { ("supercargo.dev", "v1alpha1") };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// An object as it was seen, or its last version when it was seen to be gone.
#[derive(Debug, Clone)]
pub struct Sight {
    pub at: Instant,
    pub object: Value,
    pub gone: bool,
}

/// Everything that is seen of one kind, in order; what was there at the beginning comes first.
#[derive(Debug)]
pub struct Watch {
    seen: mpsc::UnboundedReceiver<Sight>,
}

impl Watch {
    /// Returns when it has begun: nothing that happens from then on is missed.
    pub async fn begin(client: &Client, kind: &str, namespace: Option<&str>) -> Result<Self> {
        let (sender, seen) = mpsc::unbounded_channel();
        let (begun, begins) = oneshot::channel();
        tokio::spawn(follow(objects(client, kind, namespace), sender, begun));
        let listed = tokio::time::timeout(Duration::from_secs(30), begins).await;
        listed.with_context(|| format!("waited 30 s for a first listing of {kind}"))?.context("the watch ended")?;
        Ok(Self { seen })
    }

    /// The first sight that `pick` takes; those before it are let go.
    pub async fn until<T>(&mut self, what: impl Into<String>, deadline: Duration, mut pick: impl FnMut(&Sight) -> Option<T>) -> Result<T> {
        let picked = async {
            loop {
                let sight = self.seen.recv().await.context("the watch ended")?;
                if let Some(picked) = pick(&sight) {
                    return Ok(picked);
                }
            }
        };
        tokio::time::timeout(deadline, picked).await.with_context(|| format!("waited {} s for {}", deadline.as_secs(), what.into()))?
    }

    /// What has been seen and not been asked for yet.
    pub fn rest(&mut self) -> Vec<Sight> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

/// Follows for as long as somebody wants to know. What a new listing lacks is gone.
async fn follow(api: Api<DynamicObject>, seen: mpsc::UnboundedSender<Sight>, begun: oneshot::Sender<()>) {
    let mut begun = Some(begun);
    let (mut known, mut listing) = (BTreeMap::new(), BTreeMap::new());
    let mut stream = watcher::watcher(api, watcher::Config::default()).boxed();
    while let Some(next) = stream.next().await {
        let at = Instant::now();
        let uid = |object: &DynamicObject| object.metadata.uid.clone().unwrap_or_default();
        let show = |object: &DynamicObject, gone: bool| {
            // A type that was read from JSON can be written as such; nobody listening any more is seen below.
            let object = serde_json::to_value(object).unwrap_or_default();
            let _ = seen.send(Sight { at, object, gone });
        };
        match next {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => {
                show(&object, false);
                listing.insert(uid(&object), object);
            }
            Ok(Event::Apply(object)) => {
                show(&object, false);
                known.insert(uid(&object), object);
            }
            Ok(Event::Delete(object)) => {
                show(&object, true);
                known.remove(&uid(&object));
            }
            Ok(Event::InitDone) => {
                let before = std::mem::replace(&mut known, std::mem::take(&mut listing));
                before.iter().filter(|(uid, _)| !known.contains_key(*uid)).for_each(|(_, object)| show(object, true));
                if let Some(begun) = begun.take() {
                    let _ = begun.send(());
                }
            }
            // The next call resumes it: at once, but not in a tight circle while the API server is away.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        if seen.is_closed() {
            return;
        }
    }
}
