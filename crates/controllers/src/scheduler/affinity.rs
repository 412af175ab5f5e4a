//! Node selectors, node affinity and the required affinities between Pods. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, Pod, PodAffinityTerm, PodSpec,
};
use kube::ResourceExt as _;
use kube::core::Selector;

use crate::meta;

/// Whether any term of the selector holds for the node.
pub(crate) fn node_selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    let name = node.name_any();
    let fields = BTreeMap::from([("metadata.name".to_owned(), name)]);
    selector.node_selector_terms.iter().any(|term| {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let by_field = term.match_fields.as_deref().unwrap_or_default();
        // An empty term selects nothing.
        !(labels.is_empty() && by_field.is_empty())
            && labels
                .iter()
                .all(|requirement| holds(requirement, node.labels()))
            && by_field
                .iter()
                .all(|requirement| holds(requirement, &fields))
    })
}

fn holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let has = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &String| text.parse::<i64>().ok();
    match requirement.operator.as_str() {
        "In" => has.is_some_and(|value| values.contains(value)),
        "NotIn" => has.is_none_or(|value| !values.contains(value)),
        "Exists" => has.is_some(),
        "DoesNotExist" => has.is_none(),
        operator @ ("Gt" | "Lt") => match (has.and_then(number), values.first().and_then(number)) {
            (Some(has), Some(bound)) if operator == "Gt" => has > bound,
            (Some(has), Some(bound)) => has < bound,
            _ => false,
        },
        _ => false,
    }
}

/// `nodeSelector` and the required part of node affinity.
pub(crate) fn required_affinity_matches(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected && required.is_none_or(|required| node_selector_matches(required, node))
}

/// What stands between a Pod and a node on behalf of other Pods.
pub(super) fn against_pods(
    pod: &Pod,
    node: &Node,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
) -> Option<&'static str> {
    let affinity = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.affinity.clone());
    let own = affinity(pod).unwrap_or_default();
    let required = own
        .pod_affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution)
        .unwrap_or_default();
    let repelled = own
        .pod_anti_affinity
        .and_then(|a| a.required_during_scheduling_ignored_during_execution)
        .unwrap_or_default();
    let placed: Vec<_> = pods
        .iter()
        .filter(|other| !meta::is_terminal(other) && other.uid() != pod.uid())
        .filter_map(|other| {
            let name = meta::node_name(other)?;
            Some((other, nodes.iter().find(|node| node.name_any() == name)?))
        })
        .collect();
    for term in &required {
        let domain = node.labels().get(&term.topology_key);
        let near = placed.iter().any(|(other, at)| {
            domain.is_some()
                && at.labels().get(&term.topology_key) == domain
                && selects(term, pod, other)
        });
        // The first of a group that wants to be together has nobody to be with.
        let first = selects(term, pod, pod) && !placed.iter().any(|(o, _)| selects(term, pod, o));
        if !(near || first && domain.is_some()) {
            return Some("node(s) didn't match pod affinity rules");
        }
    }
    let shares = |term: &PodAffinityTerm, at: &Node| {
        let domain = node.labels().get(&term.topology_key);
        domain.is_some() && at.labels().get(&term.topology_key) == domain
    };
    for term in &repelled {
        if placed
            .iter()
            .any(|(other, at)| shares(term, at) && selects(term, pod, other))
        {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
    }
    for (other, at) in &placed {
        let terms = affinity(other)
            .and_then(|a| a.pod_anti_affinity)
            .and_then(|a| a.required_during_scheduling_ignored_during_execution);
        if terms
            .iter()
            .flatten()
            .any(|term| shares(term, at) && selects(term, other, pod))
        {
            return Some("node(s) didn't satisfy existing pods anti-affinity rules");
        }
    }
    None
}

/// Whether a term of `owner` selects `candidate`.
fn selects(term: &PodAffinityTerm, owner: &Pod, candidate: &Pod) -> bool {
    let namespace = candidate.namespace().unwrap_or_default();
    let named = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = if named.is_empty() && term.namespace_selector.is_none() {
        owner.namespace().unwrap_or_default() == namespace
    } else {
        // A namespace selector would need the namespaces' labels; an empty one selects all.
        named.contains(&namespace)
            || term.namespace_selector.as_ref().is_some_and(|selector| {
                selector.match_labels.is_none() && selector.match_expressions.is_none()
            })
    };
    let selector = term.label_selector.clone().map(Selector::try_from);
    in_namespace
        && matches!(selector, Some(Ok(selector)) if meta::selects(&selector, &candidate.metadata))
}
