//! What cannot be a v2 package, or its parameters, and what is said about it.

use pipelinespec::{Package, bind};
use serde_json::{Value, json};

use crate::world::{pipeline, step};

#[track_caller]
fn check(package: &Value, expect: &str) {
    let error = Package::from_json(package.clone()).unwrap_err().to_string();
    assert!(error.contains(expect), "got {error:?}, want {expect:?}");
}

fn good() -> Value {
    let work = step(
        "work",
        &json!({"in": {"n": "NUMBER_INTEGER"}, "out": {"o": "STRING"}}),
    );
    pipeline(
        &json!({"n": "NUMBER_INTEGER"}),
        &json!({"work": work}),
        &json!({"a": {"call": "work", "with": {"n": "$in.n"}},
            "b": {"call": "work", "with": {"n": 1}, "after": ["a"]}}),
    )
}

fn with(pointer: &str, value: Value) -> Value {
    let mut package = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    package.pointer_mut(parent).unwrap()[key] = value;
    package
}

#[test]
fn the_package_says_who_it_is() {
    let name = "/pipelineInfo/name";
    check(
        &with(name, json!("Big")),
        "pipelineInfo.name: pipeline name \"Big\" must start with",
    );
    check(
        &with(name, json!("a_b")),
        "lowercase letters, digits and '-'",
    );
    check(&with(name, json!("")), "pipelineInfo.name");
    check(
        &with(name, json!("a".repeat(129))),
        "has 129 characters; at most 128",
    );
    check(
        &with("/pipelineInfo", json!({})),
        "pipelineInfo: name is missing",
    );
    check(
        &with("/schemaVersion", json!("2.0.0")),
        "schemaVersion: schemaVersion \"2.0.0\" is not supported; allowed is \"2.1.0\"",
    );
    check(&with("/rot", json!({})), "unknown field \"rot\"");
    assert!(Package::from_json(with(name, json!("0-fine"))).is_ok());
}

#[test]
fn names_must_mean_something() {
    let a = concat!("/root", "/dag/tasks/a");
    check(
        &with(&format!("{a}/componentRef"), json!({"name": "gone"})),
        "root.dag.tasks.a.componentRef.name: there is no component \"gone\"",
    );
    check(
        &with(&format!("{a}/dependentTasks"), json!(["gone"])),
        "there is no task \"gone\"",
    );
    check(
        &with(&format!("{a}/dependentTasks"), json!(["b"])),
        "these tasks wait for each other: a, b",
    );
    check(
        &with(&format!("{a}/dependentTasks"), json!(["a"])),
        "waits for itself",
    );
    check(
        &with("/components/work/executorLabel", json!("gone")),
        "there is no executor \"gone\"",
    );
    let n = concat!("/root", "/dag/tasks/b/inputs/parameters/n");
    let output = |task: &str, key: &str| json!({"taskOutputParameter": {"producerTask": task, "outputParameterKey": key}});
    check(
        &with(n, output("gone", "o")),
        "there is no task \"gone\" in this DAG; its tasks are: a, b",
    );
    check(
        &with(n, output("a", "x")),
        "task \"a\" has no output parameter \"x\"; it has: o",
    );
    check(
        &with(n, json!({"componentInputParameter": "x"})),
        "no input parameter \"x\"; it has: n",
    );
    check(&with(n, json!({})), "needs one of componentInputParameter");
    check(
        &with(n, json!({"runtimeValue": {"constant": "one"}})),
        "input parameter \"n\": expected NUMBER_INTEGER, got STRING \"one\"",
    );
    check(
        &with(
            concat!("/root", "/dag/tasks/b/inputs/parameters"),
            json!({}),
        ),
        "task \"b\" does not pass the input parameter \"n\"",
    );
    check(
        &with(
            concat!("/root", "/dag/tasks/b/triggerPolicy"),
            json!({"condition": "inputs.parameter_values['q'] == 1"}),
        ),
        "triggerPolicy.condition: the task has no input parameter \"q\"",
    );
    check(
        &with(
            concat!("/root", "/dag/tasks/b/triggerPolicy"),
            json!({"condition": "1 =="}),
        ),
        "expected a value",
    );
    check(
        &with(
            concat!("/root", "/dag/tasks/b/triggerPolicy"),
            json!({"strategy": "ANY"}),
        ),
        "unknown strategy",
    );
    check(
        &with(
            concat!("/root", "/inputDefinitions/parameters/n"),
            json!({"parameterType": "INT"}),
        ),
        "unknown parameterType \"INT\"; known are NUMBER_DOUBLE",
    );
    check(
        &with(
            concat!("/root", "/inputDefinitions/parameters/n/defaultValue"),
            json!("x"),
        ),
        "defaultValue: expected NUMBER_INTEGER, got STRING",
    );
    check(
        &with(
            concat!("/root", "/dag/outputs"),
            json!({"parameters": {"z": {}}}),
        ),
        "does not declare",
    );
    let mut circle = good();
    circle["components"]["loop"] =
        json!({"dag": {"tasks": {"again": {"componentRef": {"name": "loop"}}}}});
    circle["root"]["dag"]["tasks"]["c"] = json!({"componentRef": {"name": "loop"}});
    check(
        &circle,
        "components.loop: these components call each other in a circle: loop",
    );
}

#[test]
fn what_is_not_supported_says_so() {
    let executor = "/deploymentSpec/executors/exec-work";
    check(
        &with(
            executor,
            json!({"resolver": {"outputArtifactQueries": {}, "x": 1}}),
        ),
        "resolver is not supported",
    );
    check(
        &with(executor, json!({"container": {"image": "a", "args": [1]}})),
        "expected a string",
    );
    let iterator = json!({"itemInput": "n", "items": {"raw": "{}"}});
    check(
        &with(concat!("/root", "/dag/tasks/b/parameterIterator"), iterator),
        "the items must be a JSON list",
    );
}

#[test]
fn lines_are_found_in_each_document() {
    let text = "\
# A comment.
pipelineInfo: {name: p}
schemaVersion: 2.1.0
root:
  dag:
    tasks:
      a: {componentRef: {name: work}}
components:
  work: {executorLabel: exec-work}
deploymentSpec: {executors: {exec-work: {container: {image: a}}}}
---
platforms:
  kubernetes:
    deploymentSpec:
      executors:
        exec-work:
          pvcMount:
          - mountPath: /a
            pvcNameParameter:
              componentInputParameter: gone
";
    let error = Package::from_text(text).unwrap_err().to_string();
    assert!(
        error.starts_with("line 20: platforms.kubernetes.deploymentSpec"),
        "{error}"
    );
    let error = Package::from_text(&text.replace("{name: work}", "{name: wok}")).unwrap_err();
    assert!(
        error.to_string().starts_with("line 7: root.dag.tasks.a"),
        "{error}"
    );
    let twice = format!("{text}---\n{text}");
    let error = Package::from_text(&twice).unwrap_err().to_string();
    assert!(error.contains("more than one"), "{error}");
}

#[test]
fn parameters_of_a_run_are_checked() {
    let mut package = good();
    package["root"]["inputDefinitions"]["parameters"] = json!({
        "n": {"parameterType": "NUMBER_INTEGER"},
        "mode": {"parameterType": "STRING", "defaultValue": "a", "literals": ["a", "b"]},
        "maybe": {"parameterType": "STRUCT", "isOptional": true},
        "end": {"parameterType": "TASK_FINAL_STATUS", "isOptional": true},
    });
    let plan = Package::from_json(package).unwrap().plan;
    let bound = |given: Value| {
        let given: Vec<_> = given.as_object().unwrap().clone().into_iter().collect();
        bind(&plan, &given).map_err(|error| error.to_string())
    };
    assert_eq!(
        json!(bound(json!({"n": 3.0, "maybe": null})).unwrap()),
        json!({"n": 3})
    );
    let refused = |given: Value, expect: &str| {
        let error = bound(given).unwrap_err();
        assert!(error.contains(expect), "got {error:?}, want {expect:?}");
    };
    refused(json!({}), "no default and were not given: n");
    refused(json!({"n": null}), "no default and were not given: n");
    refused(
        json!({"n": "3"}),
        "parameter \"n\": expected NUMBER_INTEGER, got STRING \"3\"",
    );
    refused(
        json!({"n": 3, "q": 1}),
        "unknown parameter \"q\"; the pipeline's parameters are: ",
    );
    refused(
        json!({"n": 3, "mode": "c"}),
        "parameter \"mode\" is \"c\"; allowed are: \"a\", \"b\"",
    );
    refused(
        json!({"n": 3, "end": {}}),
        "type TASK_FINAL_STATUS, which a run cannot be given",
    );
}
