//! Loops: their items, their limits, and what they produce.

use engine::{Phase, RunPhase};
use serde_json::{Value, json};

use crate::world::{World, component, done, failed, pipeline, step, tasks};

fn loop_over(call: &str, item: &str, items: &Value, more: &Value) -> Value {
    let mut task = json!({"call": call, "parameterIterator": {"itemInput": item, "items": items}});
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

fn raw(items: &Value) -> Value {
    json!({"raw": items.to_string()})
}

fn shout() -> Value {
    step(
        "shout",
        &json!({"in": {"x": "STRING"}, "out": {"o": "STRING"}, "out-artifacts": ["d"]}),
    )
}

fn gather() -> Value {
    let mut gather = step(
        "gather",
        &json!({"in": {"all": "LIST"}, "in-artifacts": ["ds"]}),
    );
    gather["inputDefinitions"]["artifacts"]["ds"]["isArtifactList"] = json!(true);
    gather
}

/// A component with a DAG that passes outputs of its task `t` on as `o` and `d`.
fn around(inputs: &Value, task: &Value) -> Value {
    let mut around = component(
        "around",
        &json!({"in": inputs, "out": {"o": "LIST"},
        "out-artifacts": ["d"]}),
        &json!({}),
    );
    around["dag"] = tasks(&json!({"t": task}));
    around["dag"]["outputs"] = json!({
        "parameters": {"o": {"valueFromParameter":
            {"producerSubtask": "t", "outputParameterKey": "o"}}},
        "artifacts": {"d": {"artifactSelectors":
            [{"producerSubtask": "t", "outputArtifactKey": "d"}]}},
    });
    around
}

#[test]
fn a_container_is_called_for_each_item_and_its_outputs_are_a_list() {
    let package = pipeline(
        &json!({}),
        &json!({"shout": shout(), "gather": gather()}),
        &json!({
            "each": loop_over("shout", "x", &raw(&json!(["a", 2, {"k": 1}])), &json!({})),
            "gather": {"call": "gather", "with": {"all": "$each.o"}, "artifacts": {"ds": "$each.d"}},
        }),
    );
    let mut world = World::new(&package, &json!({}));
    let phase = world.run(&mut |start| {
        let shouted = format!(
            "{}!",
            start
                .inputs
                .get("x")
                .map(engine::render)
                .unwrap_or_default()
        );
        done(start, &json!({"o": shouted}))
    });
    assert_eq!(phase, RunPhase::Succeeded);
    assert_eq!(world.paths()[..3], [".each[0]", ".each[1]", ".each[2]"]);
    assert_eq!(world.task(".each[1]").display_name, "each[1]");
    assert_eq!(
        world.inputs(".gather"),
        json!({"all": ["a!", "2!", "{\"k\":1}!"]})
    );
    let list = &world.started.last().unwrap().artifacts[0].2;
    let uris: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["uri"].clone())
        .collect();
    assert_eq!(
        uris,
        [
            "minio://.each[0]/d",
            "minio://.each[1]/d",
            "minio://.each[2]/d"
        ]
    );
}

#[test]
fn nested_loops_give_lists_of_lists_of_parameters_and_one_list_of_artifacts() {
    let inner = around(
        &json!({"n": "NUMBER_INTEGER"}),
        &loop_over("shout", "x", &raw(&json!(["a", "b"])), &json!({})),
    );
    let package = pipeline(
        &json!({}),
        &json!({"shout": shout(), "gather": gather(), "inner": inner,
            "lists": step("lists", &json!({"in": {"n": "NUMBER_INTEGER"}, "out": {"o": "LIST"}})),
            "take": step("take", &json!({"in": {"all": "LIST"}}))}),
        &json!({
            "outer": loop_over("inner", "n", &raw(&json!([1, 2])), &json!({})),
            "gather": {"call": "gather", "with": {"all": "$outer.o"}, "artifacts": {"ds": "$outer.d"}},
            "lists": loop_over("lists", "n", &raw(&json!([1, 2])), &json!({})),
            "take": {"call": "take", "with": {"all": "$lists.o"}},
        }),
    );
    let mut world = World::new(&package, &json!({}));
    let phase = world.run(&mut |start| {
        let path = start.task.as_str();
        let lists = path.contains("lists");
        let output = if lists { json!([1, 2]) } else { json!(path) };
        done(start, &json!({"o": output}))
    });
    assert_eq!(phase, RunPhase::Succeeded);
    let nested = [
        [".outer[0].t[0]", ".outer[0].t[1]"],
        [".outer[1].t[0]", ".outer[1].t[1]"],
    ];
    assert_eq!(world.inputs(".gather")["all"], json!(nested));
    let gathered = world
        .started
        .iter()
        .find(|s| s.task.as_str() == ".gather")
        .unwrap();
    assert_eq!(gathered.artifacts[0].2.as_array().unwrap().len(), 4);
    assert_eq!(world.inputs(".take")["all"], json!([[1, 2], [1, 2]]));
}

#[test]
fn items_come_from_lists_and_from_texts_of_lists_and_parts_are_selected() {
    let mut sub = component(
        "sub",
        &json!({"in": {"item": "STRUCT", "all": "STRING"}}),
        &json!({}),
    );
    let select = |key: &str| {
        json!({"spec": {"componentInputParameter": "item",
        "parameterExpressionSelector": format!("parseJson(string_value)[\"{key}\"]")}})
    };
    sub["dag"] =
        tasks(&json!({"say": {"call": "say", "with": {"a": select("A"), "b": select("B")}}}));
    let from = json!({"inputParameter": "all"});
    let package = pipeline(
        &json!({"list": "LIST"}),
        &json!({"sub": sub, "make": step("make", &json!({"out": {"o": "STRING"}})),
            "say": step("say", &json!({"in": {"a": "STRING", "b": "LIST"}}))}),
        &json!({
            "make": {"call": "make"},
            "text": loop_over("sub", "item", &from, &json!({"with": {"all": "$make.o"}})),
            "list": loop_over("sub", "item", &from, &json!({"with": {"all": "$in.list"}})),
        }),
    );
    let items = json!([{"A": "x", "B": [1]}, {"A": 2, "B": []}]);
    let mut world = World::new(&package, &json!({"list": items}));
    let phase = world.run(&mut |start| done(start, &json!({"o": items.to_string()})));
    assert_eq!(phase, RunPhase::Succeeded, "{:?}", world.run.message());
    for name in ["text", "list"] {
        assert_eq!(
            world.inputs(&format!(".{name}[0].say")),
            json!({"a": "x", "b": [1]})
        );
        assert_eq!(
            world.inputs(&format!(".{name}[1].say")),
            json!({"a": "2", "b": []})
        );
    }
    let mut world = World::new(&package, &json!({"list": []}));
    let phase = world.run(&mut |start| done(start, &json!({"o": "no list"})));
    assert_eq!(phase, RunPhase::Error);
    assert!(
        world.message(".text").contains("must be a JSON list"),
        "{}",
        world.message(".text")
    );
    assert_eq!(world.phase(".list"), Phase::Succeeded);
}

#[test]
fn no_items_are_a_success_with_empty_lists() {
    let package = pipeline(
        &json!({}),
        &json!({"shout": shout(), "gather": gather()}),
        &json!({
            "each": loop_over("shout", "x", &raw(&json!([])), &json!({})),
            "gather": {"call": "gather", "with": {"all": "$each.o"}, "artifacts": {"ds": "$each.d"}},
        }),
    );
    let mut world = World::new(&package, &json!({}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!(world.phase(".each"), Phase::Succeeded);
    assert_eq!(world.inputs(".gather"), json!({"all": []}));
    assert_eq!(world.started[0].artifacts[0].2, json!([]));
}

#[test]
fn a_limit_bounds_the_iterations_of_its_loop_only() {
    let mut sub = component("sub", &json!({"in": {"x": "NUMBER_INTEGER"}}), &json!({}));
    sub["dag"] = tasks(&json!({"a": {"call": "work"}, "b": {"call": "work", "after": ["a"]}}));
    let items: Value = (0..6).collect();
    let limit = json!({"iteratorPolicy": {"parallelismLimit": 2}});
    let package = |more: &Value| {
        pipeline(
            &json!({}),
            &json!({"sub": sub, "work": step("work", &json!({}))}),
            &json!({"each": loop_over("sub", "x", &raw(&items), more)}),
        )
    };
    let mut world = World::new(&package(&limit), &json!({}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!((world.widest, world.started.len()), (2, 12));
    let mut world = World::new(&package(&json!({})), &json!({}));
    world.succeed();
    assert_eq!(world.widest, 6);
    // A failure frees its place like any other end.
    let mut world = World::new(&package(&limit), &json!({}));
    let phase = world.run(&mut |start| match start.task.as_str() {
        ".each[0].a" => failed("no"),
        _ => done(start, &json!({})),
    });
    assert_eq!(phase, RunPhase::Failed);
    assert_eq!(world.started.len(), 11);
    assert_eq!(world.widest, 2);
    world.retry();
    assert_eq!(world.succeed(), RunPhase::Succeeded);
}

#[test]
fn a_condition_inside_a_loop_leaves_gaps_in_what_is_collected() {
    let mut sub = component(
        "sub",
        &json!({"in": {"x": "NUMBER_INTEGER"}, "out": {"o": "STRING"}}),
        &json!({}),
    );
    sub["dag"] = tasks(&json!({"t": {"call": "shout", "with": {"x": "$in.x"},
        "when": "int(inputs.parameter_values['x']) != 2"}}));
    sub["dag"]["outputs"] = json!({"parameters": {"o": {"valueFromParameter":
        {"producerSubtask": "t", "outputParameterKey": "o"}}}});
    let package = pipeline(
        &json!({}),
        &json!({"sub": sub, "shout": shout(), "take": step("take", &json!({"in": {"all": "LIST"}}))}),
        &json!({"each": loop_over("sub", "x", &raw(&json!([1, 2, 3])), &json!({})),
            "take": {"call": "take", "with": {"all": "$each.o"}}}),
    );
    let mut world = World::new(&package, &json!({}));
    let phase = world.run(&mut |start| done(start, &json!({"o": start.inputs.get("x")})));
    assert_eq!(phase, RunPhase::Succeeded);
    assert_eq!(world.inputs(".take"), json!({"all": ["1", "3"]}));
}

#[test]
fn a_loop_can_have_a_condition_of_its_own() {
    let condition = "inputs.parameter_values['go'] == true";
    let package = pipeline(
        &json!({"go": "BOOLEAN"}),
        &json!({"work": step("work", &json!({"in": {"x": "NUMBER_INTEGER", "go": "BOOLEAN"}}))}),
        &json!({"each": loop_over("work", "x", &raw(&json!([1, 2])),
            &json!({"with": {"go": "$in.go"}, "when": condition}))}),
    );
    let mut world = World::new(&package, &json!({"go": false}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!(world.phase(".each"), Phase::Skipped);
    let mut world = World::new(&package, &json!({"go": true}));
    world.succeed();
    assert_eq!(world.started.len(), 2);
    // One that names the item is asked for each.
    let mut package = package;
    package["root"]["dag"]["tasks"]["each"]["triggerPolicy"]["condition"] =
        json!("inputs.parameter_values['x'] == 2");
    let mut world = World::new(&package, &json!({"go": true}));
    assert_eq!(world.succeed(), RunPhase::Succeeded);
    assert_eq!(world.paths(), [".each[1]"]);
}
