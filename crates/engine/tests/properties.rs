//! What holds for every run, whatever order news comes in.

mod support;

use engine::{Effect, Run, TaskPath};
use proptest::prelude::*;
use support::*;

/// A DAG of `n` tasks in which task `i` waits for the tasks that `edges[i]` has bits for.
fn graph(edges: &[u64]) -> engine::Plan {
    let names: Vec<String> = (0..edges.len()).map(|i| format!("t{i}")).collect();
    let tasks = edges
        .iter()
        .enumerate()
        .map(|(i, bits)| {
            let dependencies: Vec<&str> = (0..i)
                .filter(|d| bits & (1 << d) != 0)
                .map(|d| names[d].as_str())
                .collect();
            task(&names[i], "step", &dependencies)
        })
        .collect();
    plan(vec![dag("main", &[], tasks), work("step", &[])])
}

proptest! {
    #[test]
    fn every_task_starts_once_after_its_dependencies_in_any_order(
        edges in prop::collection::vec(any::<u64>(), 1..30),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 30),
    ) {
        let (mut run, effects) = Run::new(created(graph(&edges))).unwrap();
        let started = |effects: &[Effect]| -> Vec<TaskPath> {
            effects
                .iter()
                .filter_map(|effect| match effect {
                    Effect::StartWork(start) => Some(start.task.clone()),
                    _ => None,
                })
                .collect()
        };
        let mut open = started(&effects);
        let mut done: Vec<TaskPath> = Vec::new();
        let mut picks = picks.into_iter();
        while !open.is_empty() {
            let path = open.remove(picks.next().unwrap().index(open.len()));
            let effects = run.apply(&finish(path.as_str(), 0, 1, succeeded(""))).unwrap();
            done.push(path);
            for path in started(&effects) {
                let index: usize = path.as_str()[2..].parse().unwrap();
                for dependency in (0..index).filter(|d| edges[index] & (1 << d) != 0) {
                    let dependency = TaskPath::from(format!(".t{dependency}").as_str());
                    prop_assert!(done.contains(&dependency));
                }
                prop_assert!(!done.contains(&path) && !open.contains(&path));
                open.push(path);
            }
        }
        prop_assert_eq!(done.len(), edges.len());
        prop_assert!(run.phase().finished());
    }

    #[test]
    fn durations_never_panic(text in "\\PC*") {
        let _ = engine::parse_duration(&text);
    }
}
