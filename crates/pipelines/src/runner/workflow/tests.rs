//! Nodes of runs that are driven by hand.

use std::collections::BTreeMap;

use engine::{Event, Outcome, Outputs, TaskPath};
use pipelinespec::Package;
use serde_json::Value;
use stdx::SeededRng;

use super::*;

const WORKFLOW: &str = "
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: nodes-, annotations: {a: b}}
spec:
  entrypoint: main
  onExit: step
  arguments: {parameters: [{name: p, value: '1'}]}
  templates:
  - name: main
    inputs: {parameters: [{name: p}]}
    dag:
      tasks:
      - {name: first, template: flaky}
      - name: loop
        template: say
        dependencies: [first]
        withItems: [a, b]
        arguments: {parameters: [{name: x, value: '{{item}}'}]}
      - {name: sub, template: sub, dependencies: [first]}
      - {name: never, template: step, dependencies: [first], when: '1 == 2'}
      - name: last
        template: say
        dependencies: [loop, sub]
        arguments: {parameters: [{name: x, value: '{{inputs.parameters.p}}'}]}
  - name: sub
    dag: {tasks: [{name: in, template: step}]}
  - {name: flaky, retryStrategy: {limit: 2}, container: {image: i}}
  - {name: step, container: {image: i}}
  - {name: say, inputs: {parameters: [{name: x}]}, container: {image: i}}
";

fn record() -> Record {
    let mut record = Record {
        run: "id".to_owned(),
        workflow: "nodes-x".to_owned(),
        display_name: "my run".to_owned(),
        service_account: "pipeline-runner".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        parameters: BTreeMap::from([("p".to_owned(), json!("2"))]),
        facts: BTreeMap::new(),
    };
    record.facts = facts(&record, &json!({}), "kubeflow");
    record
}

fn finish(run: &mut Run, path: &str, outcome: Outcome) {
    let task = TaskPath::from(path);
    let work = run.task(&task).expect("the task").work().expect("work");
    let attempt = work.latest().expect("an attempt").0;
    let at = Timestamp::from_second(60).expect("a time");
    run.apply(&Event::TaskFinished {
        task,
        attempt,
        at,
        outcome,
    })
    .expect("it applies");
}

fn by_name(workflow: &Value) -> BTreeMap<String, Value> {
    let nodes = workflow["status"]["nodes"].as_object().expect("nodes");
    nodes
        .values()
        .map(|n| (n["name"].as_str().expect("a name").to_owned(), n.clone()))
        .collect()
}

/// The names of a node's children.
fn children(nodes: &BTreeMap<String, Value>, name: &str) -> Vec<String> {
    let ids = nodes[name]["children"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let name_of = |id: &Value| {
        let (name, _) = nodes
            .iter()
            .find(|(_, n)| n["id"] == *id)
            .expect("the child is a node");
        name["nodes-x".len()..].to_owned()
    };
    ids.iter().map(name_of).collect()
}

#[test]
fn nodes_are_what_argo_shows() {
    let package = Package::from_text(WORKFLOW).expect("a package");
    let record = record();
    let (mut run, _) = Run::new(record.created(package.plan.clone())).expect("a run");
    let failed = Outcome::Failed {
        exit_code: Some(1),
        message: "Error (exit code 1)".to_owned(),
    };
    let done = || {
        Outcome::Succeeded(Outputs {
            exit_code: Some(0),
            ..Outputs::default()
        })
    };
    finish(&mut run, ".first", failed);
    finish(&mut run, ".first", done());
    for path in [".loop(0:a)", ".loop(1:b)", ".sub.in"] {
        finish(&mut run, path, done());
    }
    let live = render(&run, &record, &package.document, "kubeflow");
    assert_eq!(live["status"]["phase"], "Running");
    assert_eq!(live["status"]["progress"], "4/6");
    assert_eq!(live["metadata"]["name"], "nodes-x");
    assert_eq!(live["metadata"]["labels"]["pipeline/runid"], "id");
    assert_eq!(live["metadata"]["annotations"]["a"], "b");
    assert_eq!(
        live["spec"]["arguments"]["parameters"],
        json!([{"name": "p", "value": "2"}])
    );
    assert_eq!(live["status"]["finishedAt"], Value::Null);

    finish(&mut run, ".last", done());
    finish(&mut run, ".onExit", done());
    let workflow = render(&run, &record, &package.document, "kubeflow");
    assert_eq!(workflow["status"]["phase"], "Succeeded");
    assert_eq!(workflow["status"]["finishedAt"], "1970-01-01T00:01:00Z");
    let nodes = by_name(&workflow);
    let kinds: Vec<_> = nodes
        .iter()
        .map(|(name, node)| {
            let text = |key: &str| node[key].as_str().expect("text");
            format!(
                "{} {} {} {}",
                &name["nodes-x".len()..],
                text("displayName"),
                text("type"),
                text("phase")
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            " nodes-x DAG Succeeded",
            ".first first Retry Succeeded",
            ".first(0) first(0) Pod Failed",
            ".first(1) first(1) Pod Succeeded",
            ".last last Pod Succeeded",
            ".loop loop TaskGroup Succeeded",
            ".loop(0:a) loop(0:a) Pod Succeeded",
            ".loop(1:b) loop(1:b) Pod Succeeded",
            ".never never Skipped Skipped",
            ".onExit nodes-x.onExit Pod Succeeded",
            ".sub sub DAG Succeeded",
            ".sub.in in Pod Succeeded",
        ]
    );
    assert_eq!(children(&nodes, "nodes-x"), [".first"]);
    assert_eq!(
        children(&nodes, "nodes-x.first"),
        [".first(0)", ".first(1)"]
    );
    assert_eq!(
        children(&nodes, "nodes-x.first(1)"),
        [".loop", ".sub", ".never"]
    );
    assert_eq!(
        children(&nodes, "nodes-x.loop"),
        [".loop(0:a)", ".loop(1:b)"]
    );
    assert_eq!(children(&nodes, "nodes-x.loop(1:b)"), [".last"]);
    assert_eq!(children(&nodes, "nodes-x.sub"), [".sub.in"]);
    assert_eq!(children(&nodes, "nodes-x.sub.in"), [".last"]);
    let last = &nodes["nodes-x.last"];
    assert_eq!(
        last["inputs"]["parameters"],
        json!([{"name": "x", "value": "2"}])
    );
    assert_eq!(last["outputs"]["exitCode"], "0");
    assert_eq!(last["boundaryID"], "nodes-x");
    assert_eq!(last["templateScope"], "local/nodes-x");
    assert_eq!(
        nodes["nodes-x.never"]["message"],
        "when '1 == 2' evaluated false"
    );
    assert_eq!(nodes["nodes-x.first(0)"]["message"], "Error (exit code 1)");

    let pod = |node: &str| pod_of(&run, &record, "kubeflow", node).map(|pod| pod.name);
    let id = |name: &str| nodes[name]["id"].as_str().expect("an id").to_owned();
    let first = pod(&id("nodes-x.first(0)")).expect("a Pod");
    assert!(first.starts_with("nodes-x-flaky-"));
    assert_eq!(pod(&id("nodes-x.first")), pod(&id("nodes-x.first(1)")));
    assert_eq!(
        pod(&first),
        Some(first.clone()),
        "a Pod's name is as good as its node's id"
    );
    assert_eq!(pod("nope"), None);
}

#[test]
fn names_come_from_the_package_and_chance() {
    let rng = SeededRng::new(1);
    let named = |metadata: Value| name(&json!({"metadata": metadata}), &rng);
    let from_prefix = named(json!({"generateName": "mnist-"}));
    assert!(
        from_prefix.starts_with("mnist-") && from_prefix.len() == 11,
        "{from_prefix}"
    );
    assert!(named(json!({"name": "x"})).starts_with("x-"));
    assert!(named(json!({})).starts_with("workflow-"));
    assert_eq!(named(json!({"generateName": "l".repeat(300)})).len(), 63);
}

#[test]
fn every_time_format_that_a_package_may_name_has_a_value() {
    let at: jiff::Timestamp = "2026-02-03T04:05:06Z".parse().unwrap();
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    for letter in pipelinespec::TIME_FORMATS.chars() {
        let text = jiff::fmt::strtime::format(format!("%{letter}"), &at);
        assert!(text.is_ok_and(|text| !text.is_empty()), "%{letter}");
    }
}
