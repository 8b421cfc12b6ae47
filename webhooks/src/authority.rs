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
use std::time::SystemTime;

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
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
}

fn failed(doing: &'static str) -> impl FnOnce(kube::Error) -> AuthorityError {
    move |source| AuthorityError::Kubernetes { doing, source }
}

/// The authority of all replicas: whoever is first makes it.
pub async fn ensure(client: &Client, namespace: &str, secret: &str) -> Result<Authority, AuthorityError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if let Some(found) = api.get_opt(secret).await.map_err(failed("reading the authority's Secret"))? {
        return read(&found, secret);
    }
    let authority = certificate::new_authority(SystemTime::now())?;
    let data = BTreeMap::from([
        (CERTIFICATE.to_owned(), ByteString(authority.certificate.clone().into())),
        (KEY.to_owned(), ByteString(authority.key.clone().into())),
    ]);
    let object =
        Secret { metadata: ObjectMeta { name: Some(secret.to_owned()), ..ObjectMeta::default() }, data: Some(data), ..Secret::default() };
    match api.create(&PostParams::default(), &object).await {
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
    Ok(Authority { certificate: text(CERTIFICATE).ok_or_else(malformed)?, key: text(KEY).ok_or_else(malformed)? })
}

/// Tells the API server whom to trust.
pub async fn announce(client: &Client, configuration: &str, authority: &Authority) -> Result<(), AuthorityError> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let bundle = ByteString(authority.certificate.clone().into());
    let patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": { "name": configuration },
        "webhooks": [{ "name": WEBHOOK, "clientConfig": { "caBundle": bundle } }],
    });
    api.patch(configuration, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(failed("announcing the authority"))?;
    Ok(())
}
