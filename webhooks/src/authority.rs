//! Where the authority is kept, and how the API server learns of it: one Secret, and the CA bundle written under a field
//! manager of its own, so that whoever applies the chart sees no difference.

use crate::certificate::{self, Authority};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
/// When we made it, in Unix seconds. Who puts an authority of their own here leaves this out, and renews it.
const MADE: &str = "made";
const FIELD_MANAGER: &str = "supercargo-gate-ca";
/// The webhook in the chart's configuration.
const WEBHOOK: &str = "gate.supercargo.dev";

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{doing}: {source}")]
    Kubernetes { doing: &'static str, source: kube::Error },
    #[error(transparent)]
    Certificate(#[from] certificate::CertificateError),
    #[error("Secret {0} holds no authority: delete it, and another is made")]
    Malformed(String),
    #[error("Secret {name} holds an authority that can't be used: delete it, and another is made: {source}")]
    Unfit { name: String, source: certificate::CertificateError },
}

fn failed(doing: &'static str) -> impl FnOnce(kube::Error) -> AuthorityError {
    move |source| AuthorityError::Kubernetes { doing, source }
}

/// The authority of all replicas: whoever is first makes it, and whoever sees that it is ending makes the next.
pub async fn ensure(client: &Client, namespace: &str, secret: &str) -> Result<Authority, AuthorityError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(secret).await.map_err(failed("reading the authority's Secret"))?;
    let kept = match &found {
        Some(found) => Some(read(found, secret)?),
        None => None,
    };
    let now = SystemTime::now();
    match kept {
        Some(kept)
            if !certificate::is_ending(&kept, now).map_err(|source| AuthorityError::Unfit { name: secret.to_owned(), source })? =>
        {
            return Ok(kept);
        }
        _ => {}
    }
    // In whole seconds, as the Secret keeps it.
    let authority = certificate::new_authority(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds(now)))?;
    let data = BTreeMap::from([
        (CERTIFICATE.to_owned(), ByteString(authority.certificate.clone().into())),
        (KEY.to_owned(), ByteString(authority.key.clone().into())),
        (MADE.to_owned(), ByteString(seconds(now).to_string().into())),
    ]);
    // Its resource version comes along: of two replicas one replaces it.
    let metadata = found.map_or_else(|| ObjectMeta { name: Some(secret.to_owned()), ..ObjectMeta::default() }, |found| found.metadata);
    let exists = metadata.resource_version.is_some();
    let object = Secret { metadata, data: Some(data), ..Secret::default() };
    let written = match exists {
        true => api.replace(secret, &PostParams::default(), &object).await,
        false => api.create(&PostParams::default(), &object).await,
    };
    match written {
        Ok(_) => Ok(authority),
        // Another replica was faster: its authority is the one.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            read(&api.get(secret).await.map_err(failed("reading the authority's Secret"))?, secret)
        }
        Err(error) => Err(failed("keeping the authority in a Secret")(error)),
    }
}

fn read(secret: &Secret, name: &str) -> Result<Authority, AuthorityError> {
    let text = |key: &str| secret.data.as_ref()?.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    let malformed = || AuthorityError::Malformed(name.to_owned());
    let made = text(MADE).and_then(|made| made.trim().parse().ok());
    let made = made.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    Ok(Authority { certificate: text(CERTIFICATE).ok_or_else(malformed)?, key: text(KEY).ok_or_else(malformed)?, made })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whom the API server has been told to trust.
pub async fn announced(client: &Client, configuration: &str) -> Result<String, AuthorityError> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = api.get(configuration).await.map_err(failed("reading what is announced"))?;
    let ours = found.webhooks.into_iter().flatten().find(|webhook| webhook.name == WEBHOOK);
    let bundle = ours.and_then(|webhook| webhook.client_config.ca_bundle).map(|bundle| bundle.0).unwrap_or_default();
    Ok(String::from_utf8_lossy(&bundle).into_owned())
}

/// Tells the API server whom to trust.
pub async fn announce(client: &Client, configuration: &str, bundle: &str) -> Result<(), AuthorityError> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": { "name": configuration },
        "webhooks": [{ "name": WEBHOOK, "clientConfig": { "caBundle": ByteString(bundle.as_bytes().to_vec()) } }],
    });
    api.patch(configuration, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(failed("announcing the authority"))?;
    Ok(())
}
