//! What a run does, plan by plan.

mod support;

use engine::{Event, RunPhase, TaskPath, Timer};
use serde_json::json;
use support::*;

#[test]
fn a_chain_passes_values_and_succeeds() {
    let mut main = dag(
        "main",
        &["p"],
        vec![
            task("a", "step", &[]).with("x", "<in:p>"),
            task("b", "step", &["a"]).with("x", "got <out:a:out>"),
        ],
    );
    main.output_parameters = work("w", &[]).output_parameters;
    main.output_parameters[0].source = engine::OutputSource::Text(text("<out:b:out>"));
    let mut plan = plan(vec![main, work("step", &["x"])]);
    plan.parameters = vec![parameter("p", "1")];
    let (mut run, effects) = Driver::new(plan);
    assert_eq!(effects, ["start .a#0 1"]);
    assert_eq!(run.succeed(".a", "hello"), ["start .b#0 got hello"]);
    assert_eq!(run.succeed(".b", "end"), ["finished Succeeded"]);
    assert_eq!(run.run.tasks()[0].outputs["out"], json!("end"));
}

#[test]
fn a_diamond_joins_and_a_failure_omits_what_follows_and_what_has_not_begun() {
    let main = dag(
        "main",
        &[],
        vec![
            task("a", "step", &[]),
            task("b", "step", &["a"]),
            task("c", "step", &["a"]),
            task("d", "step", &["b", "c"]),
        ],
    );
    let (mut run, effects) = Driver::new(plan(vec![main, work("step", &[])]));
    assert_eq!(effects, ["start .a#0"]);
    assert_eq!(run.succeed(".a", ""), ["start .b#0", "start .c#0"]);
    assert!(run.fail(".b").is_empty());
    assert_eq!(run.succeed(".c", ""), ["finished Failed"]);
    assert_eq!(run.phase(".d"), "Omitted");
    assert_eq!(run.run.message(), Some("b: exit 1"));
}

#[test]
fn a_false_condition_skips_and_a_skipped_task_holds_up_nobody() {
    let main = dag(
        "main",
        &[],
        vec![
            task("flip", "step", &[]),
            task("heads", "branch", &["flip"]).when("<out:flip:out>", "heads"),
            task("tails", "step", &["flip"]).when("<out:flip:out>", "tails"),
            task("after", "say", &["heads"]).with("x", "<out:heads:out>"),
        ],
    );
    let mut branch = dag("branch", &[], vec![task("in", "step", &[])]);
    branch.output_parameters = work("w", &[]).output_parameters;
    branch.output_parameters[0].source = engine::OutputSource::Text(text("<out:in:out>"));
    let plan = plan(vec![main, branch, work("step", &[]), work("say", &["x"])]);
    let (mut run, _) = Driver::new(plan.clone());
    // As upstream: the output of a skipped task stays as it was written.
    assert_eq!(
        run.succeed(".flip", "tails"),
        ["start .tails#0", "start .after#0 <out:heads:out>"]
    );
    assert_eq!(run.phase(".heads"), "Skipped");
    let heads = run.run.task(&TaskPath::from(".heads")).unwrap();
    assert_eq!(
        heads.message.as_deref(),
        Some(r#"when '"tails" == "heads"' evaluated false"#)
    );
    run.succeed(".tails", "");
    assert_eq!(run.succeed(".after", ""), ["finished Succeeded"]);
    let (mut run, _) = Driver::new(plan);
    assert_eq!(run.succeed(".flip", "heads"), ["start .heads.in#0"]);
    assert_eq!(run.phase(".tails"), "Skipped");
    assert_eq!(run.succeed(".heads.in", "v"), ["start .after#0 v"]);
    assert_eq!(run.succeed(".after", ""), ["finished Succeeded"]);
}

#[test]
fn loops_expand_static_and_dynamic_items_nested_and_collect_outputs() {
    let main = dag(
        "main",
        &[],
        vec![
            task("list", "step", &[]),
            task("loop", "body", &["list"])
                .each_of("<out:list:out>")
                .with("a", "<item:a>"),
            task("after", "say", &["loop"]).with("x", "done"),
        ],
    );
    let body = dag(
        "body",
        &["a"],
        vec![
            task("in", "say", &[])
                .each(json!([10, 20]))
                .with("x", "<in:a>-<item>"),
        ],
    );
    let plan = plan(vec![main, body, work("step", &[]), work("say", &["x"])]);
    let (mut run, _) = Driver::new(plan);
    let started = run.succeed(".list", r#"[{"a": 1}, {"a": 2}]"#);
    assert_eq!(
        started,
        [
            "start .loop(0:a:1).in(0:10)#0 1-10",
            "start .loop(0:a:1).in(1:20)#0 1-20",
            "start .loop(1:a:2).in(0:10)#0 2-10",
            "start .loop(1:a:2).in(1:20)#0 2-20",
        ]
    );
    for path in [
        ".loop(1:a:2).in(1:20)",
        ".loop(0:a:1).in(0:10)",
        ".loop(0:a:1).in(1:20)",
    ] {
        assert!(run.succeed(path, "").is_empty());
    }
    assert_eq!(
        run.succeed(".loop(1:a:2).in(0:10)", ""),
        ["start .after#0 done"]
    );
}

#[test]
fn outputs_of_a_loop_are_one_list() {
    let main = dag(
        "main",
        &[],
        vec![
            task("loop", "say", &[])
                .each(json!(["a", "b"]))
                .with("x", "<item>"),
            task("all", "say", &["loop"]).with("x", "<out:loop:out>"),
        ],
    );
    let (mut run, _) = Driver::new(plan(vec![main, work("say", &["x"])]));
    run.succeed(".loop(1:b)", "two");
    assert_eq!(
        run.succeed(".loop(0:a)", "1"),
        [r#"start .all#0 [1,"two"]"#]
    );
}

#[test]
fn items_that_are_no_list_are_an_error_and_no_items_are_skipped() {
    let main = |value: &str| {
        let loop_ = task("loop", "say", &[])
            .each_of("<param:p>")
            .with("x", "<item>");
        let mut plan = plan(vec![dag("main", &[], vec![loop_]), work("say", &["x"])]);
        plan.parameters = vec![parameter("p", value)];
        Driver::new(plan)
    };
    let (run, effects) = main("not a list");
    assert_eq!(effects, ["finished Error"]);
    assert!(
        run.run
            .message()
            .unwrap()
            .contains("must be a JSON list, got \"not a list\"")
    );
    let (run, effects) = main("[]");
    assert_eq!(effects, ["finished Succeeded"]);
    assert_eq!(run.phase(".loop"), "Skipped");
}

#[test]
fn parallelism_bounds_a_dag_and_a_run() {
    let body = task("loop", "say", &[])
        .each(json!([1, 2, 3]))
        .with("x", "<item>");
    let mut main = dag("main", &[], vec![body]);
    main.parallelism = Some(1);
    let (mut run, effects) = Driver::new(plan(vec![main.clone(), work("say", &["x"])]));
    assert_eq!(effects, ["start .loop(0:1)#0 1"]);
    assert_eq!(run.succeed(".loop(0:1)", ""), ["start .loop(1:2)#0 2"]);
    assert_eq!(run.fail(".loop(1:2)"), ["finished Failed"]);
    assert_eq!(run.phase(".loop(2:3)"), "Omitted");

    main.parallelism = Some(0);
    let mut whole = plan(vec![main, work("say", &["x"])]);
    whole.parallelism = Some(2);
    let (mut run, effects) = Driver::new(whole);
    assert_eq!(effects, ["start .loop(0:1)#0 1", "start .loop(1:2)#0 2"]);
    assert_eq!(run.succeed(".loop(1:2)", ""), ["start .loop(2:3)#0 3"]);
}

#[test]
fn retries_are_bounded_and_wait_longer_each_time() {
    let mut step = work("step", &[]);
    step.retry = Some(retry(2, Some(5)));
    let main = dag("main", &[], vec![task("a", "step", &[])]);
    let (mut run, _) = Driver::new(plan(vec![main, step]));
    assert_eq!(run.fail(".a"), ["timer 6"]);
    let retry = |n| Timer::Retry(TaskPath::from(".a"), n);
    let fire = |n, seconds| Event::TimerFired {
        timer: retry(n),
        at: at(seconds),
    };
    assert_eq!(run.apply(fire(1, 3)), ["timer 6"], "too early");
    assert_eq!(run.apply(fire(1, 6)), ["start .a#1"]);
    assert!(run.apply(fire(1, 7)).is_empty(), "twice");
    assert!(
        run.apply(finish(".a", 0, 7, succeeded("late"))).is_empty(),
        "an earlier attempt"
    );
    assert_eq!(run.apply(finish(".a", 1, 7, failed())), ["timer 17"]);
    assert_eq!(run.apply(fire(2, 17)), ["start .a#2"]);
    assert_eq!(
        run.apply(finish(".a", 2, 18, failed())),
        ["finished Failed"]
    );
    assert_eq!(run.run.message(), Some("a: exit 1 (no more retries left)"));
}

#[test]
fn the_exit_handler_runs_however_the_run_ended() {
    let main = dag("main", &[], vec![task("a", "step", &[])]);
    let bye = dag(
        "bye",
        &[],
        vec![task("say", "say", &[]).with("x", "<run:status>")],
    );
    let mut plan = plan(vec![main, bye, work("step", &[]), work("say", &["x"])]);
    plan.on_exit = Some("bye".to_owned());
    let (mut run, _) = Driver::new(plan.clone());
    assert_eq!(run.succeed(".a", ""), ["start .onExit.say#0 Succeeded"]);
    assert_eq!(run.succeed(".onExit.say", ""), ["finished Succeeded"]);
    let (mut run, _) = Driver::new(plan.clone());
    assert_eq!(run.fail(".a"), ["start .onExit.say#0 Failed"]);
    assert_eq!(run.succeed(".onExit.say", ""), ["finished Failed"]);
    let (mut run, _) = Driver::new(plan);
    run.succeed(".a", "");
    assert_eq!(run.fail(".onExit.say"), ["finished Failed"]);
}

#[test]
fn a_run_that_is_terminated_stops_its_work_and_then_its_exit_handler() {
    let main = dag(
        "main",
        &[],
        vec![task("a", "step", &[]), task("b", "step", &["a"])],
    );
    let mut plan = plan(vec![main, work("step", &[])]);
    plan.on_exit = Some("step".to_owned());
    let (mut run, _) = Driver::new(plan);
    let terminate = || Event::TerminateRequested { at: at(2) };
    assert_eq!(run.apply(terminate()), ["stop .a#0", "start .onExit#0"]);
    assert!(run.run.terminating());
    assert!(run.apply(finish(".a", 0, 3, succeeded("late"))).is_empty());
    assert_eq!(
        run.apply(terminate()),
        ["stop .onExit#0", "finished Failed"]
    );
    assert_eq!(run.run.message(), Some("the run was terminated"));
    assert_eq!(
        lines(&run.run.outstanding()),
        ["stop .a#0", "stop .onExit#0", "finished Failed"]
    );
    assert!(run.run.apply(&terminate()).is_err());
}

#[test]
fn deadlines_end_an_attempt_a_dag_or_the_run() {
    let mut step = work("step", &[]);
    step.timeout_seconds = Some(text("10"));
    step.retry = Some(retry(1, None));
    let main = dag("main", &[], vec![task("a", "step", &[])]);
    let mut whole = plan(vec![main, step]);
    whole.deadline_seconds = Some(15);
    let (mut run, effects) = Driver::new(whole);
    assert_eq!(effects, ["timer 15", "start .a#0", "timer 10"]);
    let timer = Timer::Task(TaskPath::from(".a"), 0);
    let effects = run.apply(Event::TimerFired { timer, at: at(10) });
    assert_eq!(effects, ["stop .a#0", "start .a#1", "timer 20"]);
    let effects = run.apply(Event::TimerFired {
        timer: Timer::Run,
        at: at(15),
    });
    assert_eq!(effects, ["stop .a#1", "finished Failed"]);
    assert_eq!(
        run.run.message(),
        Some("the run exceeded its deadline of 15 s")
    );

    let mut main = dag("main", &[], vec![task("a", "step", &[])]);
    main.timeout_seconds = Some(text("<param:t>"));
    let mut whole = plan(vec![main, work("step", &[])]);
    whole.parameters = vec![parameter("t", "7")];
    let (mut run, effects) = Driver::new(whole);
    assert_eq!(effects, ["timer 7", "start .a#0"]);
    let timer = Timer::Task(TaskPath::from(""), 0);
    let effects = run.apply(Event::TimerFired { timer, at: at(7) });
    assert_eq!(effects, ["stop .a#0", "finished Failed"]);
}

#[test]
fn a_pipeline_may_call_itself_until_a_condition_ends_it() {
    let graph = dag(
        "graph",
        &[],
        vec![
            task("flip", "step", &[]),
            task("again", "graph", &["flip"]).when("<out:flip:out>", "heads"),
        ],
    );
    let (mut run, _) = Driver::new(plan(vec![graph, work("step", &[])]));
    let mut path = String::new();
    for _ in 0..20 {
        let started = run.succeed(&format!("{path}.flip"), "heads");
        path.push_str(".again");
        assert_eq!(started, [format!("start {path}.flip#0")]);
    }
    assert_eq!(
        run.succeed(&format!("{path}.flip"), "tails"),
        ["finished Succeeded"]
    );
}

#[test]
fn a_pipeline_that_only_calls_itself_is_an_error() {
    let graph = dag("graph", &[], vec![task("again", "graph", &[])]);
    let (run, effects) = Driver::new(plan(vec![graph]));
    assert_eq!(effects, ["finished Error"]);
    assert!(
        run.run.message().unwrap().contains("calls itself"),
        "{:?}",
        run.run.message()
    );
}

#[test]
fn a_failed_run_is_retried_from_what_failed() {
    let main = dag(
        "main",
        &[],
        vec![
            task("a", "step", &[]),
            task("loop", "say", &["a"])
                .each(json!([1, 2]))
                .with("x", "<item>"),
            task("sub", "sub", &["loop"]),
        ],
    );
    let sub = dag("sub", &[], vec![task("in", "step", &[])]);
    let mut plan = plan(vec![main, sub, work("step", &[]), work("say", &["x"])]);
    plan.on_exit = Some("step".to_owned());
    let (mut run, _) = Driver::new(plan);
    run.succeed(".a", "");
    run.succeed(".loop(0:1)", "");
    assert_eq!(run.fail(".loop(1:2)"), ["start .onExit#0"]);
    assert_eq!(run.succeed(".onExit", ""), ["finished Failed"]);
    assert_eq!(
        run.apply(Event::RetryRequested { at: at(5) }),
        ["start .loop(1:2)#1 2"]
    );
    assert_eq!(run.run.phase(), RunPhase::Running);
    assert_eq!(run.succeed(".loop(1:2)", ""), ["start .sub.in#0"]);
    assert_eq!(
        run.fail(".sub.in"),
        ["start .onExit#1"],
        "attempts are numbered on"
    );
    run.succeed(".onExit", "");
    assert_eq!(
        run.apply(Event::RetryRequested { at: at(9) }),
        ["start .sub.in#1"]
    );
    assert_eq!(run.succeed(".sub.in", ""), ["start .onExit#2"]);
    assert_eq!(run.succeed(".onExit", ""), ["finished Succeeded"]);
    assert!(
        run.run
            .apply(&Event::RetryRequested { at: at(10) })
            .is_err()
    );
}

#[test]
fn an_attempt_that_cannot_be_carried_out_is_stopped_and_an_error() {
    let main = dag("main", &[], vec![task("a", "step", &[])]);
    let (mut run, _) = Driver::new(plan(vec![main, work("step", &[])]));
    let outcome = engine::Outcome::Error {
        message: "no image".into(),
        transient: false,
        stop: true,
    };
    assert_eq!(
        run.apply(finish(".a", 0, 1, outcome)),
        ["stop .a#0", "finished Error"]
    );
}

#[test]
fn a_lost_attempt_is_made_again_and_is_none_of_the_retries() {
    let main = dag("main", &[], vec![task("a", "step", &[])]);
    let mut step = work("step", &[]);
    step.retry = Some(retry(1, None));
    let (mut run, _) = Driver::new(plan(vec![main, step]));
    let lost = || engine::Outcome::Lost {
        message: "node shutdown".into(),
    };
    assert_eq!(run.apply(finish(".a", 0, 1, lost())), ["start .a#1"]);
    assert_eq!(run.apply(finish(".a", 1, 2, lost())), ["start .a#2"]);
    assert_eq!(run.apply(finish(".a", 2, 3, failed())), ["start .a#3"]);
    assert_eq!(run.apply(finish(".a", 3, 4, failed())), ["finished Failed"]);
}

#[test]
fn a_lost_attempt_of_a_terminated_run_stays_lost() {
    let main = dag("main", &[], vec![task("a", "step", &[])]);
    let (mut run, _) = Driver::new(plan(vec![main, work("step", &[])]));
    run.apply(Event::TerminateRequested { at: at(1) });
    let lost = engine::Outcome::Lost {
        message: "node shutdown".into(),
    };
    assert!(run.apply(finish(".a", 0, 2, lost)).is_empty());
    assert_eq!(run.run.phase(), RunPhase::Failed);
}

#[test]
fn an_entrypoint_may_be_work() {
    let (mut run, effects) = Driver::new(plan(vec![work("step", &[])]));
    assert_eq!(effects, ["start #0"]);
    assert_eq!(run.succeed("", ""), ["finished Succeeded"]);
}

#[test]
fn a_plan_with_names_that_mean_nothing_is_refused_with_place_and_reason() {
    let check = |tasks, expect: &str| {
        let plan = plan(vec![
            dag("main", &["p"], tasks),
            work("step", &[]),
            work("say", &["x"]),
        ]);
        let mut plan = plan;
        plan.parameters = vec![parameter("p", "1")];
        assert_eq!(plan.check().unwrap_err().to_string(), expect);
    };
    let a = || task("a", "step", &[]);
    check(
        vec![task("a", "gone", &[])],
        "template \"main\", task \"a\": there is no template \"gone\"",
    );
    check(
        vec![task("a", "step", &["z"])],
        "template \"main\", task \"a\": it depends on \"z\", which is no task",
    );
    check(
        vec![a(), a()],
        "template \"main\": two tasks are called \"a\"",
    );
    check(
        vec![task("a", "step", &["b"]), task("b", "step", &["a"])],
        "template \"main\": these tasks wait for each other: a, b",
    );
    check(
        vec![task("a", "say", &[])],
        "template \"main\", task \"a\": template \"say\" needs the parameter \"x\"",
    );
    check(
        vec![a(), task("b", "say", &[]).with("x", "<out:a:out>")],
        "template \"main\", task \"b\": <out:a:out>: task \"a\" is not among the dependencies",
    );
    check(
        vec![a(), task("b", "say", &["a"]).with("x", "<out:a:nope>")],
        "template \"main\", task \"b\": <out:a:nope>: template \"step\" has no output parameter \"nope\"",
    );
    check(
        vec![task("b", "say", &[]).with("x", "<in:q>")],
        "template \"main\", task \"b\": <in:q>: the template has no input parameter \"q\"",
    );
    check(
        vec![task("b", "say", &[]).with("x", "<item>")],
        "template \"main\", task \"b\": <item>: there is no loop here",
    );
}
