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
        &workflow("", "    podSpecPatch: '{}'"),
        "line 13: spec.templates[1].podSpecPatch: podSpecPatch is not supported: set the fields on the template",
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
        "steps templates are not supported",
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
        "unknown template format: expected an Argo Workflow (apiVersion argoproj.io/v1alpha1, kind Workflow); found a map with the keys a",
    );
    check("apiVersion: v1\nkind: Pod\n", "found v1 Pod");
    check("", "unknown template format");
    check("a: [1\n", "invalid YAML");
    let one = workflow("", "");
    check(
        &format!("{one}\n---\n{one}"),
        "the package has more than one Workflow",
    );
    check(
        "pipelineInfo: {name: p}\nschemaVersion: 2.1.0\nroot: {dag: {}}\n",
        "KFP v2 package (pipeline \"p\", schemaVersion \"2.1.0\")",
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
