//! The packages of the conformance set, where it is at hand.

use std::fs;
use std::path::{Path, PathBuf};

use engine::RunPhase;
use pipelinespec::Package;
use serde_json::{Value, json};

use crate::world::{World, done, failed};

fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/kfp-conformance");
    let path = root.join(path);
    path.exists().then_some(path)
}

fn load(path: &Path) -> Package {
    let name = path.file_name().unwrap().to_str().unwrap();
    Package::from_file(name, &fs::read(path).unwrap()).unwrap()
}

/// A value for every parameter that needs one.
fn some_values(package: &Package) -> Value {
    let needed = package.plan.parameters.iter();
    let needed = needed.filter(|p| p.default.is_none() && !p.optional);
    let values = needed.map(|p| {
        let value = match p.kind.unwrap().as_str() {
            "NUMBER_INTEGER" => json!(2),
            "NUMBER_DOUBLE" => json!(0.5),
            "BOOLEAN" => json!(true),
            "LIST" => json!([{"A_a": "heads", "B_b": ["1"]}]),
            "STRUCT" => json!({"a": 1}),
            _ => json!("text"),
        };
        (p.name.clone(), value)
    });
    Value::Object(values.collect())
}

#[test]
fn every_package_runs_to_its_end_when_its_steps_succeed() {
    let (mut count, mut problems) = (0, Vec::new());
    for folder in ["v2", "kubernetes"] {
        let Some(folder) = shared(folder) else {
            return;
        };
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let package = load(&path);
            let mut world = World::of(&package, &some_values(&package));
            let phase = world.run(&mut |start| {
                // Steps whose outputs others take apart give something to take apart.
                let outputs = start.output_parameters.iter().filter_map(|wanted| {
                    let engine::WantedParameter::File { name, .. } = wanted else {
                        return None;
                    };
                    let lists = ["LIST", "STRING"];
                    let kind = &start.spec["v2"]["outputs"]["parameters"][name]["parameterType"];
                    let items = start.display_name.contains("args-generator")
                        || start.display_name.contains("list-dict-maker");
                    (items && lists.contains(&kind.as_str()?)).then(|| {
                        let list = json!([{"A_a": "heads", "B_b": ["1"], "a": 1}]);
                        let text = kind == "STRING";
                        let value = if text { json!(list.to_string()) } else { list };
                        (name.clone(), value)
                    })
                });
                done(start, &Value::Object(outputs.collect()))
            });
            count += 1;
            if phase != RunPhase::Succeeded {
                let message = world.run.message().unwrap_or_default();
                problems.push(format!("{}: {message}", path.display()));
            }
        }
    }
    assert!(count >= 98, "only {count} packages");
    // Two take artifacts that nobody can give a run.
    problems.retain(|p| !p.contains("input artifact"));
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_guarded_part_that_fails_fails_the_run_after_its_exit_task() {
    let Some(path) = shared("v2/pipeline_with_multiple_exit_handlers.yaml") else {
        return;
    };
    let mut world = World::of(&load(&path), &json!({}));
    let phase = world.run(&mut |start| {
        if start.display_name.contains("fail-op") {
            failed("exit 1")
        } else {
            done(start, &json!({}))
        }
    });
    assert_eq!(phase, RunPhase::Failed);
    let exits = world.paths();
    let exits = exits.iter().filter(|p| p.contains("print-op"));
    assert!(exits.count() >= 3, "{:?}", world.paths());
}

#[test]
fn the_known_placeholders_are_filled_in() {
    let Some(path) = shared("v2/pipeline_with_placeholders.yaml") else {
        return;
    };
    let mut world = World::of(&load(&path), &json!({}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    let all: Vec<String> = world
        .started
        .iter()
        .map(|s| json!(s.inputs).to_string())
        .collect();
    let all = all.join(" ");
    for expect in ["2f6c", "My run", "p-abcde"] {
        assert!(all.contains(expect), "{expect} is not in {all}");
    }
    assert!(!all.contains("{{$"), "{all}");
}

#[test]
fn lists_of_artifacts_are_iterated_over_and_collected() {
    let Some(path) = shared("v2/pipeline_with_parallelfor_list_artifacts_GH-12033.yaml") else {
        return;
    };
    let mut world = World::of(&load(&path), &json!({}));
    assert_eq!(
        world.succeed(),
        RunPhase::Succeeded,
        "{:?}",
        world.run.message()
    );
    let iterated = world.started.iter().filter(|s| {
        s.task.as_str().starts_with(".for-loop-1[")
            && s.artifacts.iter().any(|(_, _, list)| {
                list.as_array()
                    .is_some_and(|list| list.len() == 1 && list[0]["uri"].is_string())
            })
    });
    assert_eq!(iterated.count(), 4, "{:?}", world.paths());
}
