//! Where Pods go and what is said when they cannot.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::plan::{Decision, Observed, plan};

fn node(name: &str, spec: Value) -> Arc<Node> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"disk": "ssd", "kubernetes.io/hostname": name}},
            "spec": spec,
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"}},
        }))
        .unwrap(),
    )
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let mut all = json!({"containers": [{"name": "c"}]});
    all.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}},
            "spec": all,
        }))
        .unwrap(),
    )
}

fn observed(pod: Arc<Pod>) -> Observed {
    Observed {
        pod,
        pods: vec![],
        nodes: vec![node("one", json!({}))],
        claims: vec![],
        volumes: vec![],
        classes: vec![],
    }
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

fn refusal(observed: &Observed) -> String {
    let (reasons, _) = refusal_and_hope(observed);
    reasons
}

/// What speaks against the nodes, and whether it would help if other Pods went.
fn refusal_and_hope(observed: &Observed) -> (String, String) {
    match plan(observed) {
        Decision::Unschedulable(message) => match message.split_once(" preemption: ") {
            Some((reasons, hope)) => (reasons.to_owned(), hope.to_owned()),
            None => (message, String::new()),
        },
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_refusal_says_whether_room_could_be_made() {
    let mut placed = pod("old", cpu("1500m")).as_ref().clone();
    placed.spec.as_mut().unwrap().node_name = Some("one".to_owned());
    let mut observed = observed(pod("p", cpu("600m")));
    observed.pods = vec![Arc::new(placed)];
    let hope = |observed: &Observed| refusal_and_hope(observed).1;
    assert_eq!(
        hope(&observed),
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
    observed
        .nodes
        .push(node("two", json!({"unschedulable": true})));
    assert_eq!(
        hope(&observed),
        "0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is \
         not helpful for scheduling."
    );
    observed.pod = pod("p", cpu("100"));
    assert_eq!(
        hope(&observed),
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_pod_that_fits_is_bound() {
    assert_eq!(
        plan(&observed(pod("p", cpu("2")))),
        Decision::Bind("one".to_owned())
    );
}

#[test]
fn what_runs_there_counts_and_what_has_finished_does_not() {
    let mut placed = pod("old", cpu("1500m")).as_ref().clone();
    placed.spec.as_mut().unwrap().node_name = Some("one".to_owned());
    let mut observed = observed(pod("p", cpu("600m")));
    observed.pods = vec![Arc::new(placed.clone())];
    assert_eq!(
        refusal(&observed),
        "0/1 nodes are available: 1 Insufficient cpu."
    );
    placed.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    observed.pods = vec![Arc::new(placed)];
    assert_eq!(plan(&observed), Decision::Bind("one".to_owned()));
}

#[test]
fn every_reason_is_counted_over_the_nodes() {
    let mut observed = observed(pod("p", cpu("3")));
    observed
        .nodes
        .push(node("two", json!({"unschedulable": true})));
    observed.nodes.push(node(
        "three",
        json!({"taints": [
        {"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}),
    ));
    assert_eq!(
        refusal(&observed),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {gpu: yes}, \
         1 node(s) were unschedulable."
    );
    observed.nodes.clear();
    assert_eq!(refusal(&observed), "no nodes available to schedule pods");
}

#[test]
fn a_toleration_opens_a_tainted_node() {
    let tolerations = json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]});
    let mut observed = observed(pod("p", tolerations));
    observed.nodes = vec![node(
        "g",
        json!({"taints": [{"key": "gpu", "effect": "NoExecute"}]}),
    )];
    assert_eq!(plan(&observed), Decision::Bind("g".to_owned()));
}

#[test]
fn selectors_and_affinity_must_hold() {
    for spec in [
        json!({"nodeSelector": {"disk": "tape"}}),
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": ["two"]}]}]}}}}),
    ] {
        assert_eq!(
            refusal(&observed(pod("p", spec))),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        );
    }
}

#[test]
fn a_taken_host_port_is_not_given_twice() {
    let ports = json!({"containers": [{"name": "c", "ports": [
        {"containerPort": 80, "hostPort": 8080}]}]});
    let mut taken = pod("old", ports.clone()).as_ref().clone();
    taken.spec.as_mut().unwrap().node_name = Some("one".to_owned());
    let mut observed = observed(pod("p", ports));
    observed.pods = vec![Arc::new(taken)];
    assert_eq!(
        refusal(&observed),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
}

#[test]
fn the_emptier_node_is_taken() {
    let mut busy = pod("old", cpu("1")).as_ref().clone();
    busy.spec.as_mut().unwrap().node_name = Some("one".to_owned());
    let mut observed = observed(pod("p", cpu("500m")));
    observed.pods = vec![Arc::new(busy)];
    observed.nodes.push(node("two", json!({})));
    assert_eq!(plan(&observed), Decision::Bind("two".to_owned()));
}

#[test]
fn pods_that_repel_each_other_do_not_share_a_node() {
    let apart = json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "a"}}}]}}});
    let mut first = pod("old", json!({})).as_ref().clone();
    first.spec.as_mut().unwrap().node_name = Some("one".to_owned());
    let mut observed = observed(pod("p", apart));
    observed.pods = vec![Arc::new(first)];
    assert_eq!(
        refusal(&observed),
        "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."
    );
}

fn claim(name: &str, class: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "annotations": annotations},
        "spec": {"storageClassName": class},
        "status": {"phase": "Pending"},
    })
}

#[test]
fn claims_are_waited_for() {
    let uses = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]});
    let mut observed = observed(pod("p", uses));
    assert_eq!(
        refusal(&observed),
        "0/1 nodes are available: persistentvolumeclaim \"c\" not found."
    );
    let set = |value: Value| vec![Arc::new(serde_json::from_value(value).unwrap())];
    observed.claims = set(claim("c", "manual", json!({})));
    assert_eq!(
        refusal(&observed),
        "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    );
    observed.classes = vec![Arc::new(
        serde_json::from_value(json!({"metadata": {"name": "late"}, "provisioner": "x",
            "volumeBindingMode": "WaitForFirstConsumer"}))
        .unwrap(),
    )];
    observed.claims = set(claim("c", "late", json!({})));
    let claims = observed.claims.clone();
    assert_eq!(
        plan(&observed),
        Decision::SelectNode {
            claims,
            node: "one".to_owned()
        }
    );
    observed.claims = set(claim(
        "c",
        "late",
        json!({crate::volume::SELECTED_NODE: "one"}),
    ));
    assert_eq!(plan(&observed), Decision::Wait);
    let mut bound = claim("c", "late", json!({crate::volume::BIND_COMPLETED: "yes"}));
    bound["spec"]["volumeName"] = json!("pv");
    observed.claims = set(bound);
    assert_eq!(plan(&observed), Decision::Bind("one".to_owned()));
}
