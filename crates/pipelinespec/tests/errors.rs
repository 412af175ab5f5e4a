//! What is said about packages and parameters that cannot be used.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;

use pipelinespec::{Package, bind};
use serde_json::json;

/// A Workflow with `task` as the only task and `step` as its template's extra lines.
fn workflow(task: &str, step: &str) -> String {
    format!(
        "apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {{generateName: x-}}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {{name: a, template: step{task}}}
  - name: step
    container: {{image: alpine, args: [x]}}
{step}"
    )
}

#[track_caller]
fn check(text: &str, expect: &str) {
    let error = Package::from_text(text).unwrap_err().to_string();
    assert!(error.contains(expect), "got {error:?}, want {expect:?}");
}

#[test]
fn a_field_is_named_with_its_line_and_the_reason() {
    check(
        &workflow("", "    memoize: {key: a}"),
        "line 13: spec.templates[1].memoize: memoize is not supported: kfp caches by itself",
    );
    check(
        &workflow("", "    podSpecPatch: '[]'"),
        "line 13: spec.templates[1].podSpecPatch: the patch is no object",
    );
    check(
        &workflow("", "    containr: {}"),
        "line 13: spec.templates[1].containr: unknown field \"containr\"; known are ",
    );
    check(
        &workflow(", depends: b", ""),
        "line 10: spec.templates[0].dag.tasks[0].depends: depends is not supported: use dependencies",
    );
    check(
        &workflow(", when: '1 ='", ""),
        "spec.templates[0].dag.tasks[0].when: expected an operator or the end at character 2, found \"=\"",
    );
    check(
        &workflow(", when: '\"a == 1'", ""),
        "expected a closing quote",
    );
    check(
        &workflow("", "    retryStrategy: {retryPolicy: Never}"),
        "\"Never\" is none of Always, OnError, OnFailure, OnTransientError",
    );
    check(
        &workflow("", "    retryStrategy: {backoff: {duration: soon}}"),
        "\"soon\" is not a duration such as 90, 30s, 5m or 1h30m",
    );
    check(
        &workflow("", "    activeDeadlineSeconds: []"),
        "expected a string or a number, found a list",
    );
    check(
        &workflow("", "    dag: {tasks: []}"),
        "a template has only one of container, dag",
    );
    check(
        &workflow("", "    outputs: {parameters: [{name: o}]}"),
        "an output parameter needs one of value, valueFrom",
    );
}

#[test]
fn references_that_mean_nothing_are_named() {
    check(
        &workflow(
            ", arguments: {parameters: [{name: x, value: '{{steps.a.x}}'}]}",
            "",
        ),
        "allowed after a task are outputs.parameters.NAME",
    );
    check(
        &workflow(
            ", arguments: {parameters: [{name: x, value: '{{=1+1}}'}]}",
            "",
        ),
        "expression tags are not supported",
    );
    check(
        &workflow(
            ", arguments: {parameters: [{name: x, value: '{{workflow.nope}}'}]}",
            "",
        ),
        "unknown reference {{workflow.nope}}; allowed after workflow are ",
    );
    check(
        &workflow(
            ", arguments: {parameters: [{name: x, value: '{{tasks.b.outputs.parameters.o}}'}]}",
            "",
        ),
        "template \"main\", task \"a\": {{tasks.b.outputs.parameters.o}}: there is no task \"b\"",
    );
    check(
        &workflow(
            ", arguments: {parameters: [{name: x, value: '{{inputs.parameters.q}}'}]}",
            "",
        ),
        "the template has no input parameter \"q\"",
    );
}

#[test]
fn a_text_without_a_pipeline_says_what_it_has() {
    check(
        "a: 1\n",
        "or an Argo Workflow (apiVersion argoproj.io/v1alpha1, kind Workflow); found a map with the keys a",
    );
    check("apiVersion: v1\nkind: Pod\n", "found v1 Pod");
    check("", "unknown template format");
    check("a: [1\n", "invalid YAML");
    let one = workflow("", "");
    check(
        &format!("{one}\n---\n{one}"),
        "the package has more than one Workflow",
    );
    // Other and empty documents do not count.
    assert!(Package::from_text(&format!("---\n{one}\n---\na: 1\n---\n")).is_ok());
}

fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        archive
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(content.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn archives_give_pipeline_yaml_or_their_first_file() {
    let text = workflow("", "");
    for pack in [tarball, zipped] {
        let check = |files: &[(&str, &str)], expect: Option<&str>| {
            let result = Package::from_file("p", &pack(files));
            match expect {
                None => assert!(result.is_ok(), "{result:?}"),
                Some(expect) => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(expect), "{error}");
                }
            }
        };
        check(&[("other.yml", &text)], None);
        check(&[("readme.md", "x"), ("pipeline.yaml", &text)], None);
        check(
            &[("readme.md", "x"), ("other.yaml", &text)],
            Some("got \"readme.md\""),
        );
        check(
            &[("a.yaml", "a: 1"), ("b.yaml", &text)],
            Some("unknown template format"),
        );
        check(&[], Some("it is empty"));
    }
}

#[test]
fn files_that_are_no_package_are_refused() {
    let check = |name: &str, bytes: &[u8], expect: &str| {
        let error = Package::from_file(name, bytes).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(
        "p.png",
        b"\x89PNG",
        "unexpected pipeline file format of \"p.png\"",
    );
    check("p", b"", "unexpected pipeline file format");
    check(
        "p.tar.gz",
        &[0x1f, 0x8b, 0, 0, 0],
        "not a valid tarball file",
    );
    check("p.zip", b"PK nonsense", "not a valid zip file");
    check("p.yaml", b"\xff\xfe", "not UTF-8");
    check(
        "p.yaml",
        &vec![b' '; pipelinespec::MAX_BYTES + 1],
        "file size too large",
    );
    // 64 MiB of nothing in a few kilobytes.
    let bomb = "#".repeat(2 * pipelinespec::MAX_BYTES);
    check(
        "p",
        &tarball(&[("pipeline.yaml", &bomb)]),
        "file size too large",
    );
    check(
        "p",
        &zipped(&[("pipeline.yaml", &bomb)]),
        "file size too large",
    );
}

#[test]
fn parameters_are_found_in_both_spellings_and_unknown_ones_list_the_known() {
    let text = workflow("", "").replace(
        "spec:\n",
        "spec:\n  arguments: {parameters: [{name: pvc_name, value: x}, {name: must}]}\n",
    );
    let plan = Package::from_text(&text).unwrap().plan;
    let given = |pairs: &[(&str, serde_json::Value)]| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.clone()))
            .collect();
        bind(&plan, &pairs).map_err(|error| error.to_string())
    };
    let bound = given(&[("pvc-name", json!("claim")), ("must", json!(3))]).unwrap();
    assert_eq!(
        (&bound["pvc_name"], &bound["must"]),
        (&json!("claim"), &json!("3"))
    );
    let error = |pairs: &[_]| given(pairs).unwrap_err();
    assert_eq!(
        error(&[("nope", json!(1))]),
        "unknown parameter \"nope\"; the pipeline's parameters are: pvc_name, must"
    );
    assert_eq!(
        error(&[
            ("pvc-name", json!(1)),
            ("pvc_name", json!(2)),
            ("must", json!(1))
        ]),
        "parameter \"pvc_name\" is given more than once"
    );
    assert_eq!(
        error(&[]),
        "these parameters have no default and were not given: must"
    );
}

/// A Workflow whose step has `lines` in its container.
fn container(lines: &str) -> String {
    workflow("", "").replace("{image: alpine, args: [x]}", lines)
}

#[test]
fn pieces_of_a_pod_that_kubernetes_would_not_know_are_named() {
    check(
        &container("{image: alpine, comand: [x]}"),
        "line 12: spec.templates[1].container.comand: unknown field \"comand\"; known are args, command",
    );
    check(
        &container("{image: alpine, command: sh}"),
        "spec.templates[1].container.command: expected a list, found a string",
    );
    check(
        &container("{image: alpine, args: [1]}"),
        "spec.templates[1].container.args[0]: expected a string, found a number",
    );
    check(
        &container("{image: alpine, env: [{name: A, value: 1}]}"),
        "container.env[0].value: expected a string, found a number",
    );
    check(
        &container("{image: alpine, volumeMounts: [{name: a}]}"),
        "container.volumeMounts[0]: mountPath is missing",
    );
    check(&container("{args: [x]}"), "container: image is missing");
    check(&container("{image: ''}"), "the image has no name");
    check(
        &workflow("", "    sidecars: [{name: main, image: a}]"),
        "sidecars[0].name: there is another container called \"main\"",
    );
    check(
        &workflow(
            "",
            "    initContainers: [{name: i, image: a, mirror: true}]",
        ),
        "initContainers[0].mirror: unknown field",
    );
    check(
        &workflow("", "    volumes: [{name: a, pvc: x}]"),
        "volumes[0].pvc: unknown field \"pvc\"",
    );
    check(
        &workflow("", "    volumes: [{name: a}, {name: a}]"),
        "there are two volumes called \"a\"",
    );
    check(
        &workflow("", "    nodeSelector: {a: 1}"),
        "nodeSelector.a: expected a string, found a number",
    );
}

/// A Workflow whose only template is a resource with these fields.
fn resource(fields: &str) -> String {
    workflow("", "").replace(
        "    container: {image: alpine, args: [x]}",
        &format!("    resource:\n{fields}"),
    )
}

#[test]
fn resource_templates_are_looked_at_before_they_run() {
    let map = "\n      manifest: '{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}'";
    let create = format!("      action: create{map}");
    let good = |text: &str| {
        let package = Package::from_text(text);
        assert!(package.is_ok(), "{package:?}");
    };
    good(&resource(&create));
    good(&resource(&format!(
        "{create}\n      successCondition: status.a == b, status.c in (d, e)"
    )));
    good(&resource(
        "      action: delete\n      flags: [pvc, a, --wait=false]",
    ));
    good(
        &resource("      action: create\n      manifest: '{{workflow.parameters.m}}'").replace(
            "  entrypoint",
            "  arguments: {parameters: [{name: m}]}\n  entrypoint",
        ),
    );
    good(&resource(
        "      action: patch\n      mergeStrategy: json\n      flags: [pod/a]\n      manifest: '[]'",
    ));
    let bad = |fields: &str, expect: &str| check(&resource(fields), expect);
    bad(
        "      action: make",
        "\"make\" is none of get, create, apply",
    );
    bad("      action: create", "create needs a manifest");
    bad("      action: delete", "delete needs a manifest");
    bad(
        "      action: create\n      manifest: 'kind: [a'",
        "resource.manifest: the manifest is not YAML",
    );
    bad(
        "      action: create\n      manifest: '{kind: ConfigMap}'",
        "the manifest has no apiVersion",
    );
    bad(
        "      action: apply\n      manifest: '{apiVersion: v1, kind: ConfigMap}'",
        "the manifest has no metadata.name",
    );
    bad(
        &format!("{create}\n      successCondition: it is ready"),
        "successCondition: \"it is ready\" is no requirement such as status.phase == Done",
    );
    bad(
        &format!("{create}\n      flags: [--recursive]"),
        "resource.flags: flag \"--recursive\" is not supported",
    );
    bad(
        &format!("{create}\n      mergeStrategy: hard"),
        "\"hard\" is none of json, merge, strategic",
    );
    bad(
        &format!(
            "{create}\n    outputs: {{parameters: [{{name: a, valueFrom: {{jsonPath: name}}}}]}}"
        ),
        "jsonPath: \"name\" is no path such as {.metadata.name}",
    );
}

#[test]
fn what_the_sdk_sets_for_a_whole_pipeline_is_taken() {
    let with = |lines: &str| workflow("", "").replace("spec:\n", &format!("spec:\n{lines}\n"));
    for lines in [
        "  ttlSecondsAfterFinished: 60",
        "  ttlStrategy: {secondsAfterCompletion: 60}",
        "  podDisruptionBudget: {minAvailable: 1}",
        "  dnsConfig: {nameservers: [1.2.3.4]}",
        "  parallelism: 0",
        "  podSpecPatch: '{\"nodeSelector\": {\"a\": \"b\"}}'",
        "  imagePullSecrets: [{name: s}]",
    ] {
        let package = Package::from_text(&with(lines));
        assert!(package.is_ok(), "{lines}: {package:?}");
    }
    check(
        &with("  ttlStrategy: {secondsAfterCompletion: soon}"),
        "ttlStrategy.secondsAfterCompletion: expected a whole number",
    );
    check(
        &workflow(
            ", arguments: {parameters: [{name: x, value: '{{workflow.creationTimestamp.Q}}'}]}",
            "",
        ),
        "allowed after creationTimestamp are RFC3339 and one of ",
    );
}

#[test]
fn tasks_that_cannot_be_ordered_are_named() {
    let tasks = |tasks: &str| workflow("", "").replace("      - {name: a, template: step}", tasks);
    check(
        &tasks(
            "      - {name: a, template: step, dependencies: [b]}\n      - {name: b, template: step, dependencies: [a]}\n      - {name: c, template: step}",
        ),
        "template \"main\": these tasks wait for each other: a, b",
    );
    check(
        &tasks("      - {name: a, template: step, dependencies: [a]}"),
        "these tasks wait for each other: a",
    );
    check(
        &tasks("      - {name: a, template: step, dependencies: [gone]}"),
        "task \"a\": it depends on \"gone\", which is no task",
    );
    check(
        &tasks("      - {name: a, template: gone}"),
        "task \"a\": there is no template \"gone\"",
    );
    check(
        &tasks("      - {name: a, template: step}\n      - {name: a, template: step}"),
        "two tasks are called \"a\"",
    );
}

#[test]
fn names_in_archives_lead_nowhere() {
    let text = workflow("", "");
    // Nothing is unpacked, so such a name is only a name.
    for name in ["../../etc/pipeline.yaml", "/etc/passwd.yaml"] {
        let result = Package::from_file("p", &zipped(&[(name, &text)]));
        assert!(result.is_ok(), "{result:?}");
    }
    let error = Package::from_file("p", &zipped(&[("../../etc/passwd", &text)]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("got \"../../etc/passwd\""), "{error}");
    let latin = tarball(&[("pipeline.yaml", "x")]);
    assert!(Package::from_file("p", &latin).is_err());
}

#[test]
fn several_pipelines_in_one_package_are_too_many() {
    let v1 = workflow("", "");
    let v2 = "pipelineInfo: {name: p}\nschemaVersion: 2.1.0\nroot: {dag: {}}\n";
    check(&format!("{v1}\n---\n{v2}"), "more than one pipeline");
    check(&format!("{v2}\n---\n{v2}"), "more than one pipeline spec");
}

#[test]
fn steps_wait_for_the_group_above_and_scripts_are_files() {
    let text = "apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: x-}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: a, template: say}
      - {name: b, template: say, when: '1 == 2'}
    - - {name: c, template: say, arguments: {parameters: [{name: w, value: '{{steps.a.outputs.parameters.o}}'}]}}
  - name: say
    inputs: {parameters: [{name: w, value: hi}]}
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
    script:
      image: alpine
      command: [sh, -e]
      source: echo {{inputs.parameters.w}} >/tmp/o
";
    let plan = Package::from_text(text).unwrap().plan;
    let engine::Body::Dag(dag) = &plan.templates["main"].body else {
        panic!("steps are a graph")
    };
    let waits: Vec<_> = dag.tasks.iter().map(|t| t.dependencies.join(",")).collect();
    assert_eq!(waits, ["", "", "a,b"]);
    let say = &plan.templates["say"];
    let script = &say.artifacts[0];
    let path = script.path.as_ref().map(engine::Text::source);
    assert_eq!(path.as_deref(), Some("/argo/staging/script"));
    let engine::Body::Work(work) = &say.body else {
        panic!("a script is work")
    };
    let engine::Shape::Map(spec) = &work.spec else {
        panic!("its specification has fields")
    };
    let engine::Shape::Plain(container) = &spec["container"] else {
        panic!("nothing in it depends on the run")
    };
    assert_eq!(
        *container,
        json!({"image": "alpine", "command": ["sh"], "args": ["-e", "/argo/staging/script"]})
    );
    check(
        &text.replace(
            "{name: a, template: say}",
            "{name: a, template: say, dependencies: [b]}",
        ),
        "line 9: spec.templates[0].steps[0][0].dependencies: a step waits for the steps above it",
    );
    check(
        &text.replace("      command: [sh, -e]\n", ""),
        "spec.templates[1].script: command is missing",
    );
    check(
        &text.replace("steps.a.outputs", "steps.z.outputs"),
        "there is no task \"z\"",
    );
}
