//! The Endpoints object of a Service, for clients from before EndpointSlices. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::{Change, HEADLESS, Observed};
use crate::meta;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// Most addresses in one object; the rest is cut off and said so in an annotation.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

pub(super) fn is_managed(endpoints: &Endpoints) -> bool {
    endpoints
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == MANAGER)
}

pub(super) fn plan(observed: &Observed) -> Option<Change> {
    let mut labels = observed.service.labels().clone();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if super::is_headless(&observed.service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let (subsets, cut) = subsets(observed);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    match &observed.endpoints {
        None => {
            let annotations =
                cut.then(|| BTreeMap::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())]));
            Some(Change::CreateEndpoints(Box::new(Endpoints {
                metadata: ObjectMeta {
                    name: observed.service.metadata.name.clone(),
                    namespace: observed.service.namespace(),
                    labels: Some(labels),
                    annotations,
                    ..ObjectMeta::default()
                },
                subsets,
            })))
        }
        Some(existing) => {
            let mut updated = existing.as_ref().clone();
            updated.metadata.labels = Some(labels);
            updated.subsets = subsets;
            if cut {
                updated
                    .annotations_mut()
                    .insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
            } else if updated.annotations().contains_key(OVER_CAPACITY) {
                updated.annotations_mut().remove(OVER_CAPACITY);
            }
            (updated != **existing).then(|| Change::ReplaceEndpoints(Box::new(updated)))
        }
    }
}

fn subsets(observed: &Observed) -> (Vec<EndpointSubset>, bool) {
    let service = &observed.service;
    let everything = super::publishes_not_ready(service);
    // Addresses with the same ports share a subset.
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let (mut count, mut cut) = (0, false);
    for pod in &observed.pods {
        let Some(ip) = super::address(pod) else {
            continue;
        };
        if pod.metadata.deletion_timestamp.is_some() && !everything {
            continue;
        }
        let Some(ports) = ports(observed, pod) else {
            continue;
        };
        if count == CAPACITY {
            cut = true;
            break;
        }
        count += 1;
        let address = EndpointAddress {
            ip,
            hostname: super::hostname(service, pod),
            node_name: meta::node_name(pod).map(str::to_owned),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: pod.namespace(),
                name: Some(pod.name_any()),
                uid: pod.uid(),
                ..ObjectReference::default()
            }),
        };
        let subset = groups.entry(format!("{ports:?}")).or_default();
        subset.ports = (!ports.is_empty()).then_some(ports);
        let list = if everything || meta::is_ready(pod) {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<_> = groups.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses]
            .into_iter()
            .flatten()
        {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
    }
    (subsets, cut)
}

/// The Pod's ports; `None` when it has none of the Service's.
fn ports(observed: &Observed, pod: &Pod) -> Option<Vec<EndpointPort>> {
    let wanted = observed
        .service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.clone());
    let wanted = wanted.unwrap_or_default();
    let ports: Vec<EndpointPort> = wanted
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: super::target_port(port, pod)?,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    (!ports.is_empty() || (wanted.is_empty() && super::is_headless(&observed.service)))
        .then_some(ports)
}
