//! Values, conditions, triggers, exit tasks, retries and settings.

use engine::{Outcome, Phase, RunPhase, StartWork, WorkKind};
use serde_json::{Value, json};

use crate::world::{World, component, done, failed, pipeline, step, tasks};

#[test]
fn values_keep_their_types_and_texts_take_everything() {
    let all = json!({"s": "STRING", "i": "NUMBER_INTEGER", "d": "NUMBER_DOUBLE", "b": "BOOLEAN",
        "l": "LIST", "m": "STRUCT"});
    let texts = json!({"i": "STRING", "d": "STRING", "b": "STRING", "l": "STRING", "m": "STRING"});
    let given = json!({"s": "$in.s", "i": "$in.i", "d": "$in.d", "b": "$in.b", "l": "$in.l",
        "m": "$in.m"});
    let mut as_texts = given.clone();
    as_texts.as_object_mut().unwrap().remove("s");
    let package = pipeline(
        &all,
        &json!({"typed": step("typed", &json!({"in": all})),
            "texts": step("texts", &json!({"in": texts}))}),
        &json!({"a": {"call": "typed", "with": given}, "b": {"call": "texts", "with": as_texts}}),
    );
    let parameters =
        json!({"s": "1", "i": 2.0, "d": 2.5, "b": false, "l": [1.0, "x"], "m": {"k": null}});
    let mut world = World::new(&package, &parameters);
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!(
        world.inputs(".a"),
        json!({"s": "1", "i": 2, "d": 2.5, "b": false, "l": [1, "x"], "m": {"k": null}})
    );
    assert_eq!(
        world.inputs(".b"),
        json!({"i": "2", "d": "2.5", "b": "false", "l": "[1,\"x\"]", "m": "{\"k\":null}"})
    );
}

#[test]
fn a_value_of_the_wrong_type_is_an_error_of_the_task_that_takes_it() {
    let package = pipeline(
        &json!({}),
        &json!({"give": step("give", &json!({"out": {"o": "STRING"}})),
            "take": step("take", &json!({"in": {"n": "NUMBER_INTEGER"}}))}),
        &json!({"a": {"call": "give"}, "b": {"call": "take", "with": {"n": "$a.o"}}}),
    );
    let mut world = World::new(&package, &json!({}));
    let phase = world.run(&mut |start| done(start, &json!({"o": "three"})));
    assert_eq!(phase, RunPhase::Error);
    assert_eq!(
        world.message(".b"),
        "input parameter \"n\": expected NUMBER_INTEGER, got STRING \"three\""
    );
}

#[test]
fn optional_inputs_are_absent_or_have_their_default() {
    let inner = json!({"in": {"x?": "STRING",
        "y": {"parameterType": "STRING", "defaultValue": "y", "isOptional": true}}});
    let mut sub = component("sub", &inner, &json!({}));
    sub["dag"] = tasks(&json!({"s": {"call": "say", "with": {"x": "$in.x", "y": "$in.y"}}}));
    let package = pipeline(
        &json!({"given?": "STRING"}),
        &json!({"sub": sub, "say": step("say", &inner)}),
        &json!({"none": {"call": "sub"}, "null": {"call": "sub", "with": {"x": null, "y": null}},
            "root": {"call": "sub", "with": {"x": "$in.given"}}}),
    );
    let mut world = World::new(&package, &json!({"given": null}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!(world.inputs(".none.s"), json!({"y": "y"}));
    assert_eq!(world.inputs(".null.s"), json!({"y": "y"}));
    assert_eq!(world.inputs(".root.s"), json!({"y": "y"}));
    let mut world = World::new(&package, &json!({"given": "g"}));
    world.succeed();
    assert_eq!(world.inputs(".root.s"), json!({"x": "g", "y": "y"}));
}

#[test]
fn constants_may_name_other_inputs_and_the_run() {
    let package = pipeline(
        &json!({"name": "STRING"}),
        &json!({"say": step("say", &json!({"in": {"text": "STRING", "m": "STRUCT"}}))}),
        &json!({"a": {"call": "say", "taskInfo": {"name": "Say it"}, "with": {
            "channel": "$in.name",
            "text": "Hello {{$.inputs.parameters['channel']}} of {{$.pipeline_job_name}}, \
                     {{$.pipeline_task_name}}! {{$.pipeline_google_cloud_location}}",
            "m": {"{{$.workspace_path}}/k": ["{{$.inputs.parameters['channel']}}"]},
        }}}),
    );
    let mut world = World::new(&package, &json!({"name": "World"}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    let inputs = world.inputs(".a");
    assert_eq!(
        inputs["text"],
        "Hello World of My run, Say it! {{$.pipeline_google_cloud_location}}"
    );
    assert_eq!(inputs["m"], json!({"/kfp-workspace/k": ["World"]}));
    assert_eq!(inputs["channel"], "World");
    assert_eq!(world.task(".a").display_name, "Say it");
}

fn branches() -> Value {
    let mut branch = component(
        "branch",
        &json!({"in": {"flip": "STRING"},
        "out": {"said": "STRING"}, "out-artifacts": ["data"]}),
        &json!({}),
    );
    branch["dag"] = tasks(&json!({"say": {"call": "say", "with": {"x": "$in.flip"}}}));
    branch["dag"]["outputs"] = json!({
        "parameters": {"said": {"valueFromParameter":
            {"producerSubtask": "say", "outputParameterKey": "o"}}},
        "artifacts": {"data": {"artifactSelectors":
            [{"producerSubtask": "say", "outputArtifactKey": "d"}]}},
    });
    let selector = |task: &str, key: &str, name: &str| json!({"producerSubtask": task, key: name});
    let mut both = component(
        "both",
        &json!({"in": {"flip": "STRING"},
        "out": {"said": "STRING"}, "out-artifacts": ["data"]}),
        &json!({}),
    );
    both["dag"] = tasks(&json!({
        "heads": {"call": "branch", "with": {"flip": "$in.flip"},
            "when": "inputs.parameter_values['flip'] == 'heads'"},
        "tails": {"call": "branch", "with": {"flip": "$in.flip"},
            "when": "!(inputs.parameter_values['flip'] == 'heads') && inputs.parameter_values['flip'] == 'tails'"},
        "after-heads": {"call": "say", "with": {"x": "after"}, "after": ["heads"]},
    }));
    both["dag"]["outputs"] = json!({
        "parameters": {"said": {"valueFromOneof": {"parameterSelectors": [
            selector("heads", "outputParameterKey", "said"),
            selector("tails", "outputParameterKey", "said")]}}},
        "artifacts": {"data": {"artifactSelectors": [
            selector("heads", "outputArtifactKey", "data"),
            selector("tails", "outputArtifactKey", "data")]}},
    });
    pipeline(
        &json!({"flip": "STRING"}),
        &json!({"branch": branch, "both": both,
            "say": step("say", &json!({"in": {"x": "STRING"}, "out": {"o": "STRING"},
                "out-artifacts": ["d"]})),
            "use": step("use", &json!({"in": {"x": "STRING"}, "in-artifacts": ["d"]}))}),
        &json!({"both": {"call": "both", "with": {"flip": "$in.flip"}},
            "use": {"call": "use", "with": {"x": "$both.said"}, "artifacts": {"d": "$both.data"}}}),
    )
}

#[test]
fn one_branch_runs_its_outputs_count_and_what_follows_the_other_is_omitted() {
    let mut world = World::new(&branches(), &json!({"flip": "tails"}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!(world.phase(".both.heads"), Phase::Skipped);
    assert_eq!(world.phase(".both.after-heads"), Phase::Omitted);
    assert_eq!(world.phase(".both.tails"), Phase::Succeeded);
    assert_eq!(world.inputs(".use"), json!({"x": ".both.tails.say:o"}));
    let used = world.started.last().unwrap();
    assert_eq!(used.artifacts[0].2[0]["uri"], "minio://.both.tails.say/d");
    let mut world = World::new(&branches(), &json!({"flip": "heads"}));
    world.succeed();
    assert_eq!(world.inputs(".use"), json!({"x": ".both.heads.say:o"}));
    assert_eq!(world.phase(".both.after-heads"), Phase::Succeeded);
}

#[test]
fn an_output_that_no_branch_gave_is_an_error_where_it_is_needed() {
    let mut world = World::new(&branches(), &json!({"flip": "edge"}));
    assert_eq!(world.succeed(), RunPhase::Error);
    assert_eq!(world.phase(".both"), Phase::Succeeded);
    assert_eq!(
        world.message(".use"),
        "input parameter \"x\" has no value: output \"said\" of task \"both\" has none"
    );
}

#[test]
fn a_condition_that_cannot_be_evaluated_is_an_error_of_its_task() {
    let package = pipeline(
        &json!({"n": "STRING"}),
        &json!({"say": step("say", &json!({"in": {"n": "STRING"}}))}),
        &json!({"a": {"call": "say", "with": {"n": "$in.n"},
            "when": "int(inputs.parameter_values['n']) > 3"}}),
    );
    let mut world = World::new(&package, &json!({"n": "four"}));
    assert_eq!(world.succeed(), RunPhase::Error);
    assert!(
        world.message(".a").contains("int(\"four\")"),
        "{}",
        world.message(".a")
    );
    let mut world = World::new(&package, &json!({"n": "4"}));
    world.succeed();
    assert_eq!(world.phase(".a"), Phase::Succeeded);
    let mut world = World::new(&package, &json!({"n": "3"}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!(world.phase(".a"), Phase::Skipped);
}

fn guarded() -> Value {
    let mut part = component("part", &json!({}), &json!({}));
    part["dag"] = tasks(&json!({"a": {"call": "work"}, "b": {"call": "work", "after": ["a"]}}));
    let mut exit = component("exit", &json!({"in": {"state": "STRUCT"}}), &json!({}));
    exit["dag"] = tasks(&json!({"say": {"call": "say", "with": {"state": "$in.state"}}}));
    let status = json!({"spec": {"taskFinalStatus": {"producerTask": "part"}}});
    pipeline(
        &json!({}),
        &json!({"part": part, "exit": exit, "work": step("work", &json!({})),
            "tell": step("tell", &json!({"in": {"status": "TASK_FINAL_STATUS"}})),
            "say": step("say", &json!({"in": {"state": "STRUCT"}}))}),
        &json!({"part": {"call": "part"},
            "tell": {"call": "tell", "with": {"status": status}, "after": ["part"], "always": true},
            "exit": {"call": "exit", "with": {"state": status}, "after": ["part"], "always": true},
            "after-tell": {"call": "work", "after": ["tell"]},
            "beside": {"call": "work"}}),
    )
}

#[test]
fn exit_tasks_learn_how_their_part_ended_and_do_not_save_the_run() {
    let mut world = World::new(&guarded(), &json!({}));
    let phase = world.run(&mut |start| match start.task.as_str() {
        ".part.a" => failed("no luck"),
        _ => done(start, &json!({})),
    });
    assert_eq!(phase, RunPhase::Failed);
    assert_eq!(world.phase(".part.b"), Phase::Omitted);
    let status = world.inputs(".tell")["status"].clone();
    assert_eq!(status["state"], "FAILED");
    assert_eq!(status["pipelineTaskName"], "part");
    assert_eq!(status["pipelineJobResourceName"], "p-abcde");
    assert!(
        status["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no luck")
    );
    assert_eq!(world.inputs(".exit.say")["state"]["state"], "FAILED");
    // A failure stops only what depends on it.
    assert_eq!(world.phase(".after-tell"), Phase::Succeeded);
    assert_eq!(world.phase(".beside"), Phase::Succeeded);
}

#[test]
fn the_final_status_tells_success_and_caching() {
    let mut world = World::new(&guarded(), &json!({}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    let status = world.inputs(".tell")["status"].clone();
    assert_eq!(
        (&status["state"], &status["error"]),
        (&json!("COMPLETE"), &json!({}))
    );

    let status = json!({"spec": {"taskFinalStatus": {"producerTask": "a"}}});
    let package = pipeline(
        &json!({}),
        &json!({"work": step("work", &json!({})),
            "tell": step("tell", &json!({"in": {"status": "TASK_FINAL_STATUS"}}))}),
        &json!({"a": {"call": "work"},
            "tell": {"call": "tell", "with": {"status": status}, "always": true}}),
    );
    let mut world = World::new(&package, &json!({}));
    world.run(&mut |start| {
        let mut outcome = done(start, &json!({}));
        if let (Outcome::Succeeded(outputs), ".a") = (&mut outcome, start.task.as_str()) {
            outputs.cached_from = Some("other/.a".to_owned());
        }
        outcome
    });
    assert_eq!(world.task(".a").cached_from.as_deref(), Some("other/.a"));
    assert_eq!(world.inputs(".tell")["status"]["state"], "CACHED");
}

#[test]
fn failures_are_tried_again_as_often_as_the_task_says() {
    let package = pipeline(
        &json!({}),
        &json!({"work": step("work", &json!({}))}),
        &json!({"a": {"call": "work", "retryPolicy": {"maxRetryCount": 2,
            "backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "3600s"}}}),
    );
    let mut world = World::new(&package, &json!({}));
    assert_eq!(world.run(&mut |_| failed("again")), RunPhase::Failed);
    let attempts: Vec<u32> = world.started.iter().map(|s| s.attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
    let mut world = World::new(&package, &json!({}));
    let phase = world.run(&mut |start| match start.attempt {
        0 => failed("again"),
        _ => done(start, &json!({})),
    });
    assert_eq!(phase, RunPhase::Succeeded);
}

#[test]
fn a_failed_run_is_retried_where_it_failed() {
    let mut world = World::new(&guarded(), &json!({}));
    world.run(&mut |start| match start.task.as_str() {
        ".part.a" => failed("no luck"),
        _ => done(start, &json!({})),
    });
    let before = world.started.len();
    world.retry();
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    let again: Vec<&str> = world.paths()[before..].to_vec();
    assert!(
        again.contains(&".part.a") && again.contains(&".part.b"),
        "{again:?}"
    );
    assert!(!again.contains(&".beside"), "{again:?}");
}

fn only<'a>(world: &'a World, path: &str) -> &'a StartWork {
    world
        .started
        .iter()
        .find(|s| s.task.as_str() == path)
        .unwrap()
}

#[test]
fn a_container_is_passed_on_with_what_the_runner_needs() {
    let mut package = pipeline(
        &json!({}),
        &json!({"work": step("work", &json!({"in": {"n?": "NUMBER_INTEGER"},
            "out": {"o": "STRING"}, "in-artifacts": ["i?"], "out-artifacts": ["d"]}))}),
        &json!({"a": {"call": "work", "cachingOptions": {"enableCache": true, "cacheKey": "k"}}}),
    );
    package["deploymentSpec"]["executors"]["exec-work"] = json!({"container": {
        "image": "python:3.11",
        "command": ["run", "{{$.outputs.artifacts['d'].path}}", "{{$.pipeline_job_uuid}}"],
        "args": [{"IfPresent": {"InputName": "n", "Then": ["--n", "{{$.inputs.parameters['n']}}"]}}],
        "env": [{"name": "A", "value": "b"}],
    }});
    let mut world = World::new(&package, &json!({}));
    world.succeed();
    let start = only(&world, ".a");
    assert_eq!(
        (start.kind, start.template.as_str()),
        (WorkKind::Container, "a")
    );
    let spec = &start.spec["v2"];
    assert_eq!(
        spec["container"],
        json!({"image": "python:3.11",
            "command": ["run", "{{$.outputs.artifacts['d'].path}}", "2f6c"],
            "args": [{"IfPresent": {"InputName": "n", "Then": ["--n", "{{$.inputs.parameters['n']}}"]}}],
            "env": [{"name": "A", "value": "b"}]})
    );
    assert_eq!(
        (&spec["component"], &spec["task"]),
        (&json!("work"), &json!("a"))
    );
    assert_eq!(spec["cache"], json!({"enable": true, "key": "k"}));
    assert_eq!(spec["kubernetes"], Value::Null);
    assert_eq!(
        spec["inputs"]["parameters"],
        json!({"n": {"parameterType": "NUMBER_INTEGER", "isOptional": true}})
    );
    assert_eq!(
        spec["outputs"]["parameters"]["o"]["parameterType"],
        "STRING"
    );
    let wanted = engine::WantedParameter::File {
        name: "o".to_owned(),
        path: "/tmp/kfp/outputs/o".to_owned(),
        default: None,
    };
    assert_eq!(start.output_parameters, [wanted]);
    assert_eq!(start.output_artifacts[0].name, "d");
    assert!(start.artifacts.is_empty());
}

#[test]
fn settings_of_the_platform_are_resolved_where_the_task_is_called() {
    let package = pipeline(
        &json!({"secret": "STRING", "missing?": "STRING"}),
        &json!({"work": step("work", &json!({})),
            "claim": step("claim", &json!({"out": {"name": "STRING"}}))}),
        &json!({"a": {"call": "work"}, "claim": {"call": "claim"}}),
    );
    let of = |name: &str| json!({"componentInputParameter": name});
    let output = json!({"producerTask": "claim", "outputParameterKey": "name"});
    let executors = json!({"exec-work": {
        "secretAsEnv": [
            {"secretNameParameter": of("secret"), "keyToEnv": [{"secretKey": "k", "envVar": "E"}]},
            {"secretNameParameter": of("missing"), "keyToEnv": []},
        ],
        "pvcMount": [
            {"mountPath": "/a", "pvcNameParameter": {"taskOutputParameter": output},
                "taskOutputParameter": output},
            {"mountPath": "/b", "constant": "fixed"},
        ],
        "tolerations": [{"tolerationJson": {"runtimeValue": {"constant": {"key": "t"}}}}],
        "nodeSelector": {"labels": {"constant": "kept"}},
        "activeDeadlineSeconds": "20",
    }});
    let config = json!({"workspace": {"size": "1Gi"}, "activeDeadlineSeconds": 600});
    let both = json!({"pipeline_spec": package, "platform_spec": {"platforms": {"kubernetes": {
        "deploymentSpec": {"executors": executors}, "pipelineConfig": config}}}});
    let mut world = World::new(&both, &json!({"secret": "s"}));
    let phase = world.run(&mut |start| done(start, &json!({"name": "claim-1"})));
    assert_eq!(phase, RunPhase::Succeeded, "{:?}", world.run.message());
    assert_eq!(world.run.settings()["pipelineConfig"], config);
    assert_eq!(world.run.settings()["pipelineName"], "p");
    assert_eq!(world.run.created().plan.deadline_seconds, Some(600));
    assert_eq!(only(&world, ".a").timeout_seconds, Some(20));
    assert_eq!(
        only(&world, ".a").spec["v2"]["kubernetes"],
        json!({
            "secretAsEnv": [
                {"secretNameParameter": "s", "keyToEnv": [{"secretKey": "k", "envVar": "E"}]},
            ],
            "pvcMount": [
                {"mountPath": "/a", "pvcNameParameter": "claim-1"},
                {"mountPath": "/b", "pvcNameParameter": "fixed"},
            ],
            "tolerations": [{"tolerationJson": {"key": "t"}}],
            "nodeSelector": {"labels": {"constant": "kept"}},
            "activeDeadlineSeconds": "20",
        })
    );
    // The claim has to be there first.
    assert_eq!(world.paths(), [".claim", ".a"]);
}

#[test]
fn claims_are_objects_of_the_cluster_and_imports_are_no_containers() {
    let create = json!({"in": {"access_modes": "LIST", "size": "STRING", "pvc_name?": "STRING",
        "pvc_name_suffix?": "STRING", "storage_class_name?": "STRING", "annotations?": "STRUCT"},
        "out": {"name": "STRING"}});
    let mut package = pipeline(
        &json!({}),
        &json!({"create": step("create", &create),
            "delete": step("delete", &json!({"in": {"pvc_name": "STRING"}})),
            "import": step("import", &json!({"in": {"uri": "STRING", "m": "STRING"},
                "out-artifacts": ["artifact"]})),
            "use": step("use", &json!({"in-artifacts": ["i"]}))}),
        &json!({
            "create": {"call": "create", "with": {"access_modes": ["ReadWriteOnce"], "size": "5Mi",
                "pvc_name_suffix": "-my-pvc"}},
            "named": {"call": "create", "with": {"access_modes": ["ReadWriteOnce"], "size": "5Mi",
                "pvc_name": "fixed", "storage_class_name": "", "annotations": {"a": "b"}}},
            "delete": {"call": "delete", "with": {"pvc_name": "$create.name"}},
            "import": {"call": "import", "with": {"uri": "gs://a/b", "m": "v"}},
            "use": {"call": "use", "artifacts": {"i": "$import.artifact"}},
        }),
    );
    let executors = &mut package["deploymentSpec"]["executors"];
    executors["exec-create"]["container"] = json!({"image": "argostub/createpvc"});
    executors["exec-delete"]["container"] = json!({"image": "argostub/deletepvc"});
    executors["exec-import"] = json!({"importer": {
        "artifactUri": {"runtimeParameter": "uri"},
        "typeSchema": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"},
        "metadata": {"{{$.inputs.parameters['m']}}": "x-{{$.inputs.parameters['m']}}"},
    }});
    let mut world = World::new(&package, &json!({}));
    let phase = world.run(&mut |start| done(start, &json!({"name": "made"})));
    assert_eq!(phase, RunPhase::Succeeded);
    let create = only(&world, ".create");
    assert_eq!(create.kind, WorkKind::Resource);
    let manifest = &create.spec["resource"]["manifest"];
    let name = manifest["metadata"]["name"].as_str().unwrap();
    assert!(name.ends_with("-my-pvc") && name.len() == 36 + 7, "{name}");
    assert_eq!(
        manifest["spec"],
        json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
            "resources": {"requests": {"storage": "5Mi"}}})
    );
    let named = &only(&world, ".named").spec["resource"]["manifest"];
    assert_eq!(
        named["metadata"],
        json!({"name": "fixed", "annotations": {"a": "b"}})
    );
    assert_eq!(named["spec"]["storageClassName"], "");
    let delete = &only(&world, ".delete").spec["resource"];
    assert_eq!(delete["action"], "delete");
    assert_eq!(delete["manifest"]["metadata"]["name"], "made");
    let import = only(&world, ".import");
    assert_eq!(import.kind, WorkKind::Import);
    assert_eq!(import.spec["artifactUri"], "gs://a/b");
    assert_eq!(import.spec["metadata"], json!({"v": "x-v"}));
    assert_eq!(import.spec["reimport"], false);
    assert_eq!(only(&world, ".use").artifacts[0].2[0]["name"], "artifact");
}
