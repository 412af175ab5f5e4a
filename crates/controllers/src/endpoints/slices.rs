//! The EndpointSlices of a Service. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::{Change, HEADLESS, Observed};
use crate::meta;

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// Most endpoints in one slice.
const CAPACITY: usize = 100;

pub(super) fn is_managed(slice: &EndpointSlice) -> bool {
    slice
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == MANAGER)
}

/// A slice's content: every endpoint of a slice has the same ports.
struct Content {
    ports: Option<Vec<EndpointPort>>,
    endpoints: Vec<Endpoint>,
}

pub(super) fn plan(observed: &Observed) -> Vec<Change> {
    let labels = labels(observed);
    let mut existing = observed.slices.clone();
    let mut changes = Vec::new();
    for content in contents(observed) {
        // The slice that has these ports already, else any that is left over.
        let position = existing
            .iter()
            .position(|slice| slice.ports == content.ports)
            .or_else(|| (!existing.is_empty()).then_some(0));
        match position.map(|position| existing.remove(position)) {
            Some(slice) => {
                let mut updated = slice.as_ref().clone();
                updated.metadata.labels = Some(labels.clone());
                updated.ports = content.ports;
                updated.endpoints = content.endpoints;
                if updated != *slice {
                    changes.push(Change::ReplaceSlice(Box::new(updated)));
                }
            }
            None => changes.push(Change::CreateSlice(Box::new(EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{}-", observed.service.name_any())),
                    namespace: observed.service.namespace(),
                    labels: Some(labels.clone()),
                    owner_references: Some(vec![meta::controller_ref(observed.service.as_ref())]),
                    ..ObjectMeta::default()
                },
                address_type: "IPv4".to_owned(),
                ports: content.ports,
                endpoints: content.endpoints,
            }))),
        }
    }
    changes.extend(existing.into_iter().map(Change::DeleteSlice));
    changes
}

fn labels(observed: &Observed) -> BTreeMap<String, String> {
    let mut labels = observed.service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), observed.service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if super::is_headless(&observed.service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn contents(observed: &Observed) -> Vec<Content> {
    let mut groups: BTreeMap<String, Content> = BTreeMap::new();
    for pod in &observed.pods {
        let Some(address) = super::address(pod) else {
            continue;
        };
        if address.contains(':') {
            // Only IPv4 Services exist here.
            continue;
        }
        let ports = ports(observed, pod);
        let identity = format!("{ports:?}");
        groups
            .entry(identity)
            .or_insert_with(|| Content {
                ports: Some(ports),
                endpoints: Vec::new(),
            })
            .endpoints
            .push(endpoint(observed, pod, address));
    }
    let mut contents = Vec::new();
    for mut group in groups.into_values() {
        while !group.endpoints.is_empty() {
            let rest = group
                .endpoints
                .split_off(CAPACITY.min(group.endpoints.len()));
            let endpoints = std::mem::replace(&mut group.endpoints, rest);
            contents.push(Content {
                ports: group.ports.clone(),
                endpoints,
            });
        }
    }
    if contents.is_empty() {
        // An empty slice says that the Service was looked at.
        contents.push(Content {
            ports: None,
            endpoints: Vec::new(),
        });
    }
    contents
}

fn ports(observed: &Observed, pod: &Pod) -> Vec<EndpointPort> {
    let ports = observed
        .service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(super::target_port(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn endpoint(observed: &Observed, pod: &Pod, address: String) -> Endpoint {
    let serving = meta::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = super::publishes_not_ready(&observed.service) || (serving && !terminating);
    let node = meta::node_name(pod).map(str::to_owned);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: super::hostname(&observed.service, pod),
        zone: node
            .as_ref()
            .and_then(|node| observed.zones.get(node))
            .cloned(),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}
