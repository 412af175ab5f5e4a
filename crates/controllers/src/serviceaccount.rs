//! What every namespace is born with: the ServiceAccount `default` and the ConfigMap with the
//! cluster's certificate bundle. Both come back when they are deleted or changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, ResourceExt as _};

use crate::Error;
use crate::runtime::informers::ROOT_CA_MAP;
use crate::runtime::{Handle, Informers, Key, Queue, Starter};

const BUNDLE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

pub(crate) fn start(
    accounts_client: &Client,
    bundle_client: &Client,
    informers: &Informers,
    starter: &Starter,
    root_ca_pem: String,
) {
    let namespaces = Handle::new(accounts_client, &informers.namespaces);
    start_accounts(namespaces.clone(), accounts_client, informers, starter);
    start_bundles(namespaces, bundle_client, informers, starter, root_ca_pem);
}

fn is_alive(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// A queue of namespaces, fed by the namespaces themselves.
fn queue_of_namespaces(informers: &Informers) -> Arc<Queue<Key>> {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.namespaces.on_change(move |change| {
        if let Some(namespace) = change.new.filter(|namespace| is_alive(namespace)) {
            keys.add(Key::of(namespace.as_ref()));
        }
    });
    queue
}

fn start_accounts(
    namespaces: Handle<Namespace>,
    client: &Client,
    informers: &Informers,
    starter: &Starter,
) {
    let queue = queue_of_namespaces(informers);
    let keys = queue.clone();
    informers.service_accounts.on_change(move |change| {
        if let (Some(old), None) = (change.old, change.new) {
            if old.name_any() == "default" {
                keys.add(Key::new("", old.namespace().unwrap_or_default()));
            }
        }
    });
    let accounts: Handle<ServiceAccount> = Handle::new(client, &informers.service_accounts);
    let synced = vec![
        informers.namespaces.synced().boxed(),
        informers.service_accounts.synced().boxed(),
    ];
    starter.run("service account", queue, synced, move |key| {
        let (namespaces, accounts) = (namespaces.clone(), accounts.clone());
        async move {
            let wanted = Key::new(&key.name, "default");
            let missing = accounts.get(&wanted).is_none();
            if namespaces
                .get(&key)
                .is_some_and(|namespace| is_alive(&namespace))
                && missing
            {
                let account = ServiceAccount {
                    metadata: named(&wanted),
                    ..Default::default()
                };
                exists_is_fine(accounts.create(&account).await)?;
            }
            Ok(None)
        }
    });
}

fn start_bundles(
    namespaces: Handle<Namespace>,
    client: &Client,
    informers: &Informers,
    starter: &Starter,
    root_ca_pem: String,
) {
    let queue = queue_of_namespaces(informers);
    let keys = queue.clone();
    informers.root_ca_maps.on_change(move |change| {
        if let Some(map) = change.latest() {
            keys.add(Key::new("", map.namespace().unwrap_or_default()));
        }
    });
    let maps: Handle<ConfigMap> = Handle::new(client, &informers.root_ca_maps);
    let bundle = Arc::new(BTreeMap::from([(BUNDLE.to_owned(), root_ca_pem)]));
    let synced = vec![
        informers.namespaces.synced().boxed(),
        informers.root_ca_maps.synced().boxed(),
    ];
    starter.run("root certificate", queue, synced, move |key| {
        let (namespaces, maps, bundle) = (namespaces.clone(), maps.clone(), bundle.clone());
        async move {
            if namespaces
                .get(&key)
                .is_some_and(|namespace| is_alive(&namespace))
            {
                publish(&key, &maps, &bundle).await?;
            }
            Ok(None)
        }
    });
}

async fn publish(
    namespace: &Key,
    maps: &Handle<ConfigMap>,
    bundle: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let wanted = Key::new(&namespace.name, ROOT_CA_MAP);
    match maps.get(&wanted) {
        Some(map) if map.data.as_ref() == Some(bundle) => Ok(()),
        Some(map) => {
            let mut updated = map.as_ref().clone();
            updated.data = Some(bundle.clone());
            updated.binary_data = None;
            maps.replace(&updated).await.map(drop)
        }
        None => {
            let description =
                "The certificates by which Pods know the API server's inner addresses.";
            let mut metadata = named(&wanted);
            metadata.annotations = Some(BTreeMap::from([(
                DESCRIPTION.to_owned(),
                description.to_owned(),
            )]));
            let map = ConfigMap {
                metadata,
                data: Some(bundle.clone()),
                ..ConfigMap::default()
            };
            exists_is_fine(maps.create(&map).await)
        }
    }
}

fn named(key: &Key) -> ObjectMeta {
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        ..ObjectMeta::default()
    }
}

fn exists_is_fine<K>(result: Result<K, Error>) -> Result<(), Error> {
    match result {
        Err(error)
            if error.is_already_exists()
                || error.is_namespace_terminating()
                || error.is_not_found() =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}
