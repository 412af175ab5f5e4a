//! Every form of placeholder, with what it must become.

use serde_json::json;

use super::*;

fn input() -> Value {
    json!({
        "inputs": {
            "parameterValues": {
                "text": "it's", "whole": 3, "also": 3.0, "part": 0.1, "tiny": 1e-7, "huge": 1e21,
                "yes": true, "none": null, "list": [1, "a"], "map": {"k": "v"},
            },
            "artifacts": {
                "data": {"artifacts": [{
                    "name": "data",
                    "uri": "minio://mlpipeline/v2/data",
                    "type": {"schemaTitle": "system.Dataset"},
                    "metadata": {"rows": 10, "split": "train"},
                }]},
                "model": {"artifacts": [{"uri": "oci://registry/a:1", "metadata": {}}]},
                "moved": {"artifacts": [{"uri": "gs://b/c", "customPath": "/tmp/there"}]},
                "empty": {"artifacts": []},
            },
        },
        "outputs": {
            "parameters": {"out": {"outputFile": "/tmp/kfp/outputs/out"}},
            "artifacts": {"made": {"artifacts": [{"uri": "s3://bucket/made", "metadata": {}}]}},
            "outputFile": "/tmp/kfp/outputs/output_metadata.json",
        },
    })
}

#[track_caller]
fn args(elements: &Value, expect: &Value) {
    let container = json!({"args": elements});
    let resolved = resolve(&container, &input()).unwrap();
    assert_eq!(resolved["args"], *expect);
}

#[track_caller]
fn text(source: &str, expect: &str) {
    args(&json!([source]), &json!([expect]));
}

#[test]
fn parameters_are_written_as_programs_read_them() {
    text("{{$.inputs.parameters['text']}}", "it's");
    text("n={{$.inputs.parameters['whole']}};", "n=3;");
    text("{{$.inputs.parameters[\"also\"]}}", "3");
    text("{{$.inputs.parameters['part']}}", "0.1");
    text("{{$.inputs.parameters['tiny']}}", "0.0000001");
    text("{{$.inputs.parameters['huge']}}", "1000000000000000000000");
    text("{{$.inputs.parameters['yes']}}", "true");
    text("{{$.inputs.parameters['list']}}", "[1,\"a\"]");
    text("{{$.inputs.parameters['map']}}", "{\"k\":\"v\"}");
    text(
        "{{$.inputs.parameters['whole']}}{{$.inputs.parameters['whole']}}",
        "33",
    );
}

#[test]
fn artifacts_have_places_and_metadata() {
    text(
        "{{$.inputs.artifacts['data'].uri}}",
        "minio://mlpipeline/v2/data",
    );
    text(
        "{{$.inputs.artifacts['data'].path}}",
        "/minio/mlpipeline/v2/data",
    );
    text(
        "{{$.inputs.artifacts['model'].path}}",
        "/oci/registry_a_1/models",
    );
    text("{{$.inputs.artifacts['moved'].path}}", "/tmp/there");
    text("{{$.inputs.artifacts['data'].metadata['rows']}}", "10");
    text(
        "{{$.inputs.artifacts['data'].metadata}}",
        "{\"rows\":10,\"split\":\"train\"}",
    );
    text("{{$.outputs.artifacts['made'].path}}", "/s3/bucket/made");
    text(
        "{{$.outputs.parameters['out'].output_file}}",
        "/tmp/kfp/outputs/out",
    );
}

#[test]
fn the_whole_input_is_json() {
    let resolved = resolve(&json!({"args": ["{{$}}"]}), &input()).unwrap();
    let parsed: Value = serde_json::from_str(resolved["args"][0].as_str().unwrap()).unwrap();
    assert_eq!(parsed, input());
}

#[test]
fn concatenations_and_conditions_become_none_to_many_arguments() {
    args(
        &json!([{"Concat": ["--n=", "{{$.inputs.parameters['whole']}}", "!"]}]),
        &json!(["--n=3!"]),
    );
    let if_present = |name: &str, or: Value| {
        json!([{"IfPresent": {
            "InputName": name, "Then": ["--x", "{{$.inputs.parameters['whole']}}"], "Else": or,
        }}])
    };
    args(&if_present("text", json!("no")), &json!(["--x", "3"]));
    args(&if_present("none", json!("no")), &json!(["no"]));
    args(&if_present("gone", json!(["a", "b"])), &json!(["a", "b"]));
    args(&if_present("gone", json!(null)), &json!([]));
    args(&if_present("data", json!(null)), &json!(["--x", "3"]));
    args(&if_present("empty", json!(null)), &json!([]));
    // Inside each other, also as JSON text, which is how compilers write them.
    let nested = json!({"Concat": ["a", {"IfPresent": {
        "InputName": "text", "Then": {"Concat": ["b", "{{$.inputs.parameters['text']}}"]},
    }}]});
    args(&json!([nested]), &json!(["abit's"]));
    args(&json!([nested.to_string()]), &json!(["abit's"]));
    args(
        &json!([
            "{\"IfPresent\": {\"InputName\": \"gone\", \"Then\": [\"x\"]}}",
            "y"
        ]),
        &json!(["y"]),
    );
}

#[test]
fn images_environment_and_keys_have_placeholders_too() {
    let container = json!({
        "image": "registry/{{$.inputs.parameters['whole']}}",
        "env": [{"name": "A", "value": "{{$.inputs.parameters['text']}}"}],
        "resources": {"cpuLimit": 2.0, "resourceCpuLimit": "{{$.inputs.parameters['whole']}}"},
        "{{$.inputs.parameters['text']}}": 1,
    });
    assert_eq!(
        resolve(&container, &input()).unwrap(),
        json!({
            "image": "registry/3",
            "env": [{"name": "A", "value": "it's"}],
            "resources": {"cpuLimit": 2.0, "resourceCpuLimit": "3"},
            "it's": 1,
        })
    );
}

#[test]
fn what_is_no_placeholder_stays() {
    for source in [
        "{{workflow.name}}",
        "{{$.pipeline_google_cloud_location}}",
        "{{$.inputs.parameters['open",
        "f'{{$' + x",
        "{\"a\": 1}",
        "{{$.inputs.parameters[0]}}",
    ] {
        text(source, source);
    }
}

#[test]
fn what_does_not_exist_is_named() {
    let error = |element: Value| {
        let error = resolve(&json!({"args": [element]}), &input()).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        error(json!("{{$.inputs.parameters['gone']}}")),
        "placeholder {{$.inputs.parameters['gone']}}: the input parameter \"gone\" has no value"
    );
    assert!(error(json!("{{$.inputs.artifacts['empty'].uri}}")).contains("is not there"));
    assert!(error(json!({"Join": []})).contains("known are Concat, IfPresent"));
    assert!(error(json!({"Concat": "a"})).contains("expects a list"));
    let mut deep = json!("x");
    for _ in 0..100 {
        deep = json!({"Concat": [deep]});
    }
    assert!(error(deep).contains("nested"));
}
