//! Service endpoints: EndpointSlices, and Endpoints for those who still read them, of every Service
//! with a selector. Services without one are left to whoever writes their endpoints.

mod legacy;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};

use crate::Error;
use crate::meta;
use crate::runtime::{self, Handle, Informers, Key, Queue, Starter};

/// The label that says a Service has no cluster IP.
const HEADLESS: &str = "service.kubernetes.io/headless";

struct Controller {
    services: Handle<Service>,
    pods: Handle<Pod>,
    nodes: Handle<Node>,
    slices: Handle<EndpointSlice>,
    endpoints: Handle<Endpoints>,
}

/// What a Service's endpoints depend on.
struct Observed {
    service: Arc<Service>,
    /// The Pods of the namespace that the selector names.
    pods: Vec<Arc<Pod>>,
    /// Zones of the nodes, by name.
    zones: BTreeMap<String, String>,
    slices: Vec<Arc<EndpointSlice>>,
    endpoints: Option<Arc<Endpoints>>,
}

#[derive(Debug)]
enum Change {
    CreateSlice(Box<EndpointSlice>),
    ReplaceSlice(Box<EndpointSlice>),
    DeleteSlice(Arc<EndpointSlice>),
    CreateEndpoints(Box<Endpoints>),
    ReplaceEndpoints(Box<Endpoints>),
}

/// `slices_client` writes EndpointSlices, `endpoints_client` Endpoints.
pub(crate) fn start(
    slices_client: &Client,
    endpoints_client: &Client,
    informers: &Informers,
    starter: &Starter,
) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.services.on_change(move |change| {
        if let Some(service) = change.latest() {
            keys.add(Key::of(service.as_ref()));
        }
    });
    let (keys, services) = (queue.clone(), informers.services.clone());
    informers.pods.on_change(move |change| {
        let Some(namespace) = change.latest().and_then(|pod| pod.namespace()) else {
            return;
        };
        for service in services.list(&namespace) {
            if change.sides().any(|pod| is_selected(&service, pod)) {
                keys.add(Key::of(service.as_ref()));
            }
        }
    });
    let keys = queue.clone();
    informers.endpoint_slices.on_change(move |change| {
        for slice in change.sides().filter(|slice| slices::is_managed(slice)) {
            if let Some(service) = slice.labels().get(slices::SERVICE_NAME) {
                keys.add(Key::new(slice.namespace().unwrap_or_default(), service));
            }
        }
    });
    let keys = queue.clone();
    informers.endpoints.on_change(move |change| {
        if let Some(endpoints) = change.latest() {
            keys.add(Key::of(endpoints.as_ref()));
        }
    });
    let controller = Arc::new(Controller {
        services: Handle::new(slices_client, &informers.services),
        pods: Handle::new(slices_client, &informers.pods),
        nodes: Handle::new(slices_client, &informers.nodes),
        slices: Handle::new(slices_client, &informers.endpoint_slices),
        endpoints: Handle::new(endpoints_client, &informers.endpoints),
    });
    let synced = vec![
        informers.services.synced().boxed(),
        informers.pods.synced().boxed(),
        informers.nodes.synced().boxed(),
        informers.endpoint_slices.synced().boxed(),
        informers.endpoints.synced().boxed(),
    ];
    starter.run("endpoints", queue, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> runtime::Outcome {
        let endpoints = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            // Slices go with their owner; Endpoints have none, so ours are told by their label.
            if let Some(endpoints) = endpoints.filter(|endpoints| legacy::is_managed(endpoints)) {
                self.endpoints
                    .delete(&endpoints, DeleteParams::default())
                    .await?;
            }
            return Ok(None);
        };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods = self.pods.list(&key.namespace);
        let observed = Observed {
            pods: pods
                .into_iter()
                .filter(|pod| is_selected(&service, pod))
                .collect(),
            zones: zones(&self.nodes.all()),
            slices: self
                .slices
                .list(&key.namespace)
                .into_iter()
                .filter(|slice| {
                    slices::is_managed(slice)
                        && slice.labels().get(slices::SERVICE_NAME) == Some(&key.name)
                        && slice.metadata.deletion_timestamp.is_none()
                })
                .collect(),
            endpoints,
            service,
        };
        for change in plan(&observed) {
            match self.apply(change).await {
                Err(error) if error.is_namespace_terminating() => return Ok(None),
                other => other?,
            }
        }
        Ok(None)
    }

    async fn apply(&self, change: Change) -> Result<(), Error> {
        match change {
            Change::CreateSlice(slice) => drop(self.slices.create(&slice).await?),
            Change::ReplaceSlice(slice) => drop(self.slices.replace(&slice).await?),
            Change::DeleteSlice(slice) => {
                self.slices.delete(&slice, DeleteParams::default()).await?;
            }
            Change::CreateEndpoints(endpoints) => drop(self.endpoints.create(&endpoints).await?),
            Change::ReplaceEndpoints(endpoints) => drop(self.endpoints.replace(&endpoints).await?),
        }
        Ok(())
    }
}

fn plan(observed: &Observed) -> Vec<Change> {
    let mut changes = slices::plan(observed);
    changes.extend(legacy::plan(observed));
    changes
}

fn zones(nodes: &[Arc<Node>]) -> BTreeMap<String, String> {
    nodes
        .iter()
        .filter_map(|node| {
            let zone = node.labels().get("topology.kubernetes.io/zone")?;
            Some((node.name_any(), zone.clone()))
        })
        .collect()
}

/// The selector of a Service whose endpoints are ours to write.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

fn is_selected(service: &Service, pod: &Pod) -> bool {
    selector(service).is_some_and(|selector| {
        selector
            .iter()
            .all(|(key, value)| pod.labels().get(key) == Some(value))
    })
}

fn is_headless(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
}

fn publishes_not_ready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        == Some(true)
}

/// The Pod's address, unless it has finished or has none yet.
fn address(pod: &Pod) -> Option<String> {
    if meta::is_terminal(pod) {
        return None;
    }
    pod.status
        .as_ref()?
        .pod_ip
        .clone()
        .filter(|ip| !ip.is_empty())
}

/// The number of the port on this Pod that a Service's port leads to.
fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            sidecars
                .chain(&spec.containers)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|candidate| {
                    candidate.name.as_deref() == Some(name)
                        && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|found| found.container_port)
        }
    }
}

/// The host name under which a Pod of a headless Service is found, if it asks for one.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain.as_deref() == service.metadata.name.as_deref()
        && pod.namespace() == service.namespace())
    .then_some(hostname)
}
