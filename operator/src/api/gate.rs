//! Who asks, and what they may read: the cluster's own answer, asked anew for each request.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;
use supercargo_crds::Escrow;
use supercargo_crds::names::GROUP;
use tokio::sync::Semaphore;

/// The API server is asked for so many at a time, and so long.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

/// The API server could not be asked: that is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("too many are asking")]
    Busy,
    #[error("the API server does not answer in time")]
    Silent,
    #[error("{doing}: {source}")]
    Kubernetes { doing: &'static str, source: kube::Error },
}

/// One of our objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// As the API calls it: `escrows`, `computetasks`.
    pub resource: &'static str,
    pub namespace: String,
    pub name: String,
}

/// What is asked of the cluster.
pub trait Gate: Clone + Send + Sync + 'static {
    /// Whose token this is, if it is one for this API.
    fn who(&self, token: &str) -> impl Future<Output = Result<Option<UserInfo>, GateError>> + Send;
    /// Whether somebody may `get` an object.
    fn may_get(&self, who: &UserInfo, thing: &Thing) -> impl Future<Output = Result<bool, GateError>> + Send;
    fn escrow(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<Escrow>, GateError>> + Send;
}

/// The cluster that the operator runs in.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Whom tokens have to be made for: one that is made for the API server itself is not taken, so that nobody sends it
    /// about.
    audience: String,
    room: Arc<Semaphore>,
}

impl Cluster {
    pub fn new(client: Client, audience: String) -> Self {
        Self { client, audience, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn ask<T>(&self, doing: &'static str, question: impl Future<Output = Result<T, kube::Error>>) -> Result<T, GateError> {
        let _place = self.room.try_acquire().map_err(|_| GateError::Busy)?;
        let answer = tokio::time::timeout(PATIENCE, question).await.map_err(|_| GateError::Silent)?;
        answer.map_err(|source| GateError::Kubernetes { doing, source })
    }
}

impl Gate for Cluster {
    async fn who(&self, token: &str) -> Result<Option<UserInfo>, GateError> {
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: Some(token.to_owned()) };
        let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
        let answer = self.ask("asking whose token it is", api.create(&PostParams::default(), &review)).await?;
        let status = answer.status.unwrap_or_default();
        // Who knows nothing of audiences answers with none: then the token may have been made for anybody.
        let ours = status.audiences.iter().flatten().any(|audience| *audience == self.audience);
        Ok(status.user.filter(|_| ours && status.authenticated == Some(true)))
    }

    async fn may_get(&self, who: &UserInfo, thing: &Thing) -> Result<bool, GateError> {
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let spec = SubjectAccessReviewSpec {
            user: who.username.clone(),
            groups: who.groups.clone(),
            uid: who.uid.clone(),
            extra: who.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                resource: Some(thing.resource.to_owned()),
                verb: Some("get".to_owned()),
                namespace: Some(thing.namespace.clone()),
                name: Some(thing.name.clone()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        };
        let review = SubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
        let answer = self.ask("asking who may read", api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }

    async fn escrow(&self, namespace: &str, name: &str) -> Result<Option<Escrow>, GateError> {
        let api: Api<Escrow> = Api::namespaced(self.client.clone(), namespace);
        self.ask("reading an Escrow", api.get_opt(name)).await
    }
}
