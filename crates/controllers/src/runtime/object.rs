//! Reading a kind from its cache and writing it through one controller's client.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Cache, Key};
use crate::Error;

/// A kind the controllers work with.
pub(crate) trait Object:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The API of this kind; `namespace` is ignored for cluster-scoped kinds.
    fn api(client: Client, namespace: &str) -> Api<Self>;
}

macro_rules! objects {
    (namespaced: $($namespaced:ty),*; cluster: $($cluster:ty),*;) => {
        $(impl Object for $namespaced {
            fn api(client: Client, namespace: &str) -> Api<Self> {
                Api::namespaced(client, namespace)
            }
        })*
        $(impl Object for $cluster {
            fn api(client: Client, _namespace: &str) -> Api<Self> {
                Api::all(client)
            }
        })*
    };
}
objects! {
    namespaced: ConfigMap, ControllerRevision, DaemonSet, Deployment, EndpointSlice, Endpoints, Job,
        PersistentVolumeClaim, Pod, ReplicaSet, Service, ServiceAccount, StatefulSet;
    cluster: Namespace, Node, PersistentVolume, StorageClass;
}

/// One kind as one controller sees and writes it.
#[derive(Clone)]
pub(crate) struct Handle<K> {
    client: Client,
    cache: Arc<Cache<K>>,
}

impl<K: Object> Handle<K> {
    pub(crate) fn new(client: &Client, cache: &Arc<Cache<K>>) -> Self {
        Self {
            client: client.clone(),
            cache: cache.clone(),
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.cache.get(key)
    }

    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        self.cache.list(namespace)
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.cache.all()
    }

    /// The object as the server has it now.
    pub(crate) async fn live(&self, key: &Key) -> Result<Option<K>, Error> {
        let api = K::api(self.client.clone(), &key.namespace);
        api.get_opt(&key.name)
            .await
            .map_err(|source| failed::<K>("get", key, source))
    }

    pub(crate) async fn create(&self, object: &K) -> Result<K, Error> {
        let key = Key::of(object);
        let created = K::api(self.client.clone(), &key.namespace)
            .create(&PostParams::default(), object)
            .await
            .map_err(|source| failed::<K>("create", &key, source))?;
        self.cache.observe(created.clone());
        Ok(created)
    }

    /// Replaces the object; its resourceVersion guards against changes in between.
    pub(crate) async fn replace(&self, object: &K) -> Result<K, Error> {
        let key = Key::of(object);
        let replaced = K::api(self.client.clone(), &key.namespace)
            .replace(&key.name, &PostParams::default(), object)
            .await
            .map_err(|source| failed::<K>("update", &key, source))?;
        self.cache.observe(replaced.clone());
        Ok(replaced)
    }

    pub(crate) async fn replace_status(&self, object: &K) -> Result<K, Error> {
        let key = Key::of(object);
        let replaced = K::api(self.client.clone(), &key.namespace)
            .replace_status(&key.name, &PostParams::default(), object)
            .await
            .map_err(|source| failed::<K>("update the status of", &key, source))?;
        self.cache.observe(replaced.clone());
        Ok(replaced)
    }

    /// A JSON merge patch.
    pub(crate) async fn patch(&self, key: &Key, patch: Value) -> Result<K, Error> {
        let patched = K::api(self.client.clone(), &key.namespace)
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(|source| failed::<K>("patch", key, source))?;
        self.cache.observe(patched.clone());
        Ok(patched)
    }

    /// A strategic merge patch of the status.
    pub(crate) async fn patch_status(&self, key: &Key, patch: Value) -> Result<K, Error> {
        let patched = K::api(self.client.clone(), &key.namespace)
            .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .map_err(|source| failed::<K>("patch the status of", key, source))?;
        self.cache.observe(patched.clone());
        Ok(patched)
    }

    /// Deletes this very object (by uid); one that is gone already is no error.
    pub(crate) async fn delete(&self, object: &K, mut params: DeleteParams) -> Result<(), Error> {
        let key = Key::of(object);
        let uid = object.uid().unwrap_or_default();
        params
            .preconditions
            .get_or_insert(Preconditions {
                resource_version: None,
                uid: None,
            })
            .uid
            .get_or_insert_with(|| uid.clone());
        let api = K::api(self.client.clone(), &key.namespace);
        match api.delete(&key.name, &params).await {
            Ok(answer) => match answer.left().filter(remains) {
                Some(left) => self.cache.observe(left),
                None => self.cache.forget(&key, &uid),
            },
            Err(source) => {
                let error = failed::<K>("delete", &key, source);
                if !error.is_not_found() {
                    return Err(error);
                }
                self.cache.forget(&key, &uid);
            }
        }
        Ok(())
    }
}

/// Whether the object in the answer to a delete still exists, waiting for its end.
fn remains<K: Resource>(object: &K) -> bool {
    let meta = object.meta();
    let finalizers = meta.finalizers.as_ref().is_some_and(|f| !f.is_empty());
    meta.deletion_timestamp.is_some()
        && (finalizers || meta.deletion_grace_period_seconds.unwrap_or(0) > 0)
}

fn failed<K: Object>(verb: &'static str, key: &Key, source: kube::Error) -> Error {
    Error::Api {
        verb,
        kind: K::kind(&()).into_owned(),
        object: key.to_string(),
        source: Box::new(source),
    }
}
