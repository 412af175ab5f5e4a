//! Random plans.

use engine::{Plan, TaskSpec};
use serde_json::json;

use super::*;

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// A random plan: nested DAGs, conditions, loops, retries, recursion, limits, deadlines, exit
/// handler; half of them with typed values.
pub(crate) fn random_plan(dice: &mut Dice) -> Plan {
    let mut steps = vec![work("step", &[]), work("say", &["x"]), work("sure", &[])];
    if dice.chance(50) {
        steps[0].retry = Some(retry(dice.roll(3) as u32, dice.chance(50).then_some(3)));
    }
    if dice.chance(30) {
        steps[1].timeout_seconds = Some(text(&(1 + dice.roll(40)).to_string()));
        steps[1].retry = dice.chance(50).then(|| retry(1, None));
    }
    let inner = random_dag(dice, "inner", &["step", "say", "loop-only"]);
    let graph = dag(
        "graph",
        &[],
        vec![
            task("flip", "sure", &[]),
            task("again", "graph", &["flip"]).when("<out:flip:out>", "heads"),
        ],
    );
    let main = random_dag(dice, "main", &["step", "say", "inner", "graph"]);
    let mut templates = vec![main, inner, graph];
    templates.append(&mut steps);
    let mut plan = plan(templates);
    plan.typed = dice.chance(50);
    for name in ["main", "inner"] {
        let template = plan.templates.get_mut(name).unwrap();
        if dice.chance(25) {
            template.parallelism = Some(dice.roll(3) as u32);
        }
        if dice.chance(10) {
            template.timeout_seconds = Some(text(&(20 + dice.roll(200)).to_string()));
        }
    }
    if dice.chance(25) {
        plan.parallelism = Some(1 + dice.roll(2) as u32);
    }
    if dice.chance(15) {
        plan.deadline_seconds = Some(20 + dice.roll(200));
    }
    if dice.chance(40) {
        plan.on_exit = Some((if dice.chance(50) { "step" } else { "inner" }).to_owned());
    }
    plan
}

fn random_dag(dice: &mut Dice, name: &str, templates: &[&str]) -> engine::Template {
    let mut tasks: Vec<TaskSpec> = Vec::new();
    for index in 0..=dice.roll(5) {
        let mut called = templates[dice.roll(templates.len() as u64) as usize];
        let looped = called == "loop-only" || dice.chance(20);
        if called == "loop-only" {
            called = "say";
        }
        let mut dependencies: Vec<String> = Vec::new();
        for earlier in &tasks {
            if dice.chance(40) {
                dependencies.push(earlier.name.clone());
            }
        }
        let produces = |name: &str| {
            tasks.iter().any(|t| {
                t.name == name && t.each.is_none() && t.template != "inner" && t.template != "graph"
            })
        };
        let source = dependencies.iter().find(|name| produces(name)).cloned();
        let names: Vec<&str> = dependencies.iter().map(String::as_str).collect();
        let mut spec = task(&format!("t{index}"), called, &names);
        if called == "say" {
            spec = spec.with("x", if looped { "<item>" } else { "x" });
        }
        if let Some(source) = &source
            && dice.chance(40)
        {
            spec = if dice.chance(50) {
                spec.when(&format!("<out:{source}:out>"), "heads")
            } else {
                spec.holds(source, "heads")
            };
        }
        if called == "say" && !looped && dice.chance(30) {
            // What it was given decides, and it may have been given nothing.
            if let Some(source) = &source {
                spec.arguments.clear();
                spec = spec.given("x", source);
            }
            spec = spec.unless_given("x", "tails");
        }
        if looped {
            spec = match dice.roll(10) {
                0 => spec.each(json!([])),
                1 => spec.each_of("<run:name>"),
                items => spec.each((0..=items % 3).collect()),
            };
            spec.parallelism = dice.chance(40).then(|| dice.roll(3) as u32);
        }
        spec.trigger = match dice.roll(8) {
            0 => engine::Trigger::Succeeded,
            1 => engine::Trigger::Completed,
            _ => engine::Trigger::SucceededOrSkipped,
        };
        tasks.push(spec);
    }
    let mut dag = dag(name, &[], tasks);
    if dice.chance(20)
        && let engine::Body::Dag(body) = &mut dag.body
    {
        body.fail_fast = false;
    }
    dag
}
