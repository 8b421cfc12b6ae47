//! An object as the API server wrote it, with nothing read of it but whose it is. So all watches are one, whatever they
//! watch; and one object that can't be read stops none of them.

use kube::Resource;
use kube::api::{ApiResource, ObjectMeta};
use kube::core::DynamicResourceScope;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Debug, Clone)]
pub struct Raw {
    metadata: ObjectMeta,
    text: Box<RawValue>,
}

impl Raw {
    /// The whole of it.
    pub fn read<K: DeserializeOwned>(&self) -> Result<K, serde_json::Error> {
        serde_json::from_str(self.text.get())
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            metadata: ObjectMeta,
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let named: Named = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { metadata: named.metadata, text })
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::api::WatchEvent;
    use kube::core::ObjectList;

    #[test]
    fn what_can_not_be_read_is_still_known_by_its_name_beside_what_can() {
        let list = r#"{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[
            {"metadata":{"name":"good","uid":"1"},"status":{"phase":"Active"}},
            {"metadata":{"name":"odd","uid":"2"},"status":"what is this"}]}"#;
        let list: ObjectList<Raw> = serde_json::from_str(list).expect("a list");
        let names: Vec<_> = list.items.iter().map(|one| one.meta().name.clone().expect("a name")).collect();
        assert_eq!((names.join(" ").as_str(), list.metadata.resource_version.as_deref()), ("good odd", Some("7")));
        let read: Vec<bool> = list.items.iter().map(|one| one.read::<Namespace>().is_ok()).collect();
        assert_eq!(read, [true, false]);

        let event = r#"{"type":"MODIFIED","object":{"metadata":{"name":"odd","uid":"2"},"status":3}}"#;
        let WatchEvent::Modified(odd) = serde_json::from_str::<WatchEvent<Raw>>(event).expect("an event") else { panic!("it is modified") };
        assert_eq!((odd.meta().uid.as_deref(), odd.read::<Namespace>().is_ok()), (Some("2"), false));
    }
}
