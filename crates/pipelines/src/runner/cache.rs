//! Doing nothing twice: the outputs of a task that succeeded before, found by what went into it.
//!
//! The fingerprint is that of Kubeflow Pipelines' v2 caching: inputs, declared outputs, image, command,
//! arguments and claims, within a pipeline and a namespace; a component's own cache key replaces all
//! of it. Variables, resources and other settings of the Pod are no part of it. The newest success
//! counts, and deleting a run takes its entries away.

use db::{Db, Migration, SqliteConnection, WriteFuture, sqlx};
use engine::{Outputs, StartWork};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::store::pipeline_name;
use super::{Shared, executor_input, kubernetes_platform};
use crate::journal::Record;

/// The table.
pub(crate) const MIGRATION: Migration = Migration {
    version: 10,
    name: "cache of tasks",
    sql: "
        CREATE TABLE task_cache (
            fingerprint TEXT NOT NULL,
            run TEXT NOT NULL,
            task TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            outputs TEXT NOT NULL,
            PRIMARY KEY (fingerprint, run, task)
        );
        CREATE INDEX task_cache_newest ON task_cache (fingerprint, created_at);
        CREATE INDEX task_cache_run ON task_cache (run);
    ",
};

/// The fingerprint of a task, if it may be cached.
pub(super) fn key(
    shared: &Shared,
    record: &Record,
    settings: &Value,
    start: &StartWork,
) -> Option<String> {
    let component = start.spec.get("v2")?;
    let enabled = component.pointer("/cache/enable").and_then(Value::as_bool);
    if !shared.options.cache || enabled == Some(false) {
        return None;
    }
    let pipeline = pipeline_name(record, settings);
    let scope = [shared.options.namespace.as_str(), &pipeline];
    Some(fingerprint(scope, component, start))
}

fn fingerprint(scope: [&str; 2], component: &Value, start: &StartWork) -> String {
    let text = |pointer: &str| component.pointer(pointer).and_then(Value::as_str);
    let what = match text("/cache/key").filter(|key| !key.is_empty()) {
        Some(key) => format!("{}\0{key}", text("/component").unwrap_or_default()),
        None => content(component, start).to_string(),
    };
    let hash = Sha256::digest(format!("{}\0{}\0{what}", scope[0], scope[1]));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What goes into a task. The members of objects are in the order of their names.
fn content(component: &Value, start: &StartWork) -> Value {
    let mut artifacts: Map<String, Value> = Map::new();
    for (name, artifact) in executor_input::inputs(start) {
        let uri = artifact.get("uri").cloned().unwrap_or_default();
        let list = artifacts.entry(name.clone()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(uri);
        }
    }
    let types: Map<String, Value> = executor_input::declared(component, "parameters")
        .map(|(name, definition)| {
            let kind = definition.get("parameterType").cloned();
            (name.clone(), kind.unwrap_or_default())
        })
        .collect();
    let produced: Map<String, Value> = executor_input::declared(component, "artifacts")
        .map(|(name, definition)| (name.clone(), definition.clone()))
        .collect();
    let container = &component["container"];
    let words = ["command", "args"].into_iter().flat_map(|key| {
        container
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    });
    let words: Vec<&Value> = words.collect();
    let mut claims = kubernetes_platform::claim_names(&component["kubernetes"]);
    claims.sort();
    sorted(&json!({
        "inputArtifactNames": artifacts,
        "inputParameterValues": start.inputs,
        "outputArtifactsSpec": produced,
        "outputParametersSpec": types,
        "containerSpec": {
            "image": container.get("image"),
            "cmdArgs": words,
            "pvcNames": claims,
        },
    }))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut entries: Vec<_> = fields.iter().collect();
            entries.sort_by_key(|(name, _)| name.as_str());
            entries
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The newest outputs under a fingerprint. A cache that cannot be read has nothing.
pub(super) async fn find(shared: &Shared, key: &str) -> Option<Outputs> {
    let query = sqlx::query(
        "SELECT run, task, outputs FROM task_cache WHERE fingerprint = $1
         ORDER BY created_at DESC LIMIT 1",
    );
    let row = match query.bind(key).fetch_optional(shared.db.reader()).await {
        Ok(row) => row?,
        Err(error) => {
            tracing::warn!(
                "look into the cache of tasks: {}",
                stdx::error::chain(&error)
            );
            return None;
        }
    };
    let text = |index: usize| row.try_get::<String, _>(index).ok();
    let (run, task, outputs) = (text(0)?, text(1)?, text(2)?);
    let outputs: Outputs = serde_json::from_str(&outputs).ok()?;
    Some(Outputs {
        cached_from: Some(format!("{run}{task}")),
        ..outputs
    })
}

/// Remembers the outputs of a task.
pub(super) async fn remember(
    db: Db,
    key: String,
    run: String,
    task: String,
    created_at: i64,
    outputs: Outputs,
) {
    let outputs = serde_json::to_string(&outputs).expect("invariant: outputs are JSON");
    let job = job(move |connection| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO task_cache (fingerprint, run, task, created_at, outputs)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(key)
            .bind(run)
            .bind(task)
            .bind(created_at)
            .bind(outputs)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    if let Err(error) = db.write(job).await {
        tracing::warn!("write the cache of tasks: {}", stdx::error::chain(&error));
    }
}

/// Forgets what a run left.
pub(super) async fn forget(db: &Db, run: &str) {
    let run = run.to_owned();
    let job = job(move |connection| {
        Box::pin(async move {
            sqlx::query("DELETE FROM task_cache WHERE run = $1")
                .bind(run)
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    if let Err(error) = db.write(job).await {
        tracing::warn!("clear the cache of tasks: {}", stdx::error::chain(&error));
    }
}

/// Lets a closure be general over the connection's lifetime.
fn job<F>(job: F) -> F
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> WriteFuture<'c, ()> + Send,
{
    job
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use engine::{TaskPath, WorkKind};

    use super::*;

    fn start(inputs: &[(&str, Value)]) -> StartWork {
        StartWork {
            task: TaskPath::from("/a"),
            attempt: 0,
            template: "t".to_owned(),
            display_name: "a".to_owned(),
            kind: WorkKind::Container,
            spec: Value::Null,
            inputs: inputs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect::<BTreeMap<_, _>>(),
            artifacts: Vec::new(),
            output_parameters: Vec::new(),
            output_artifacts: Vec::new(),
            timeout_seconds: None,
        }
    }

    #[test]
    fn a_fingerprint_is_of_what_goes_in_and_nothing_else() {
        let component = json!({"component": "c", "container": {"image": "i", "args": ["x"],
            "env": [{"name": "A", "value": "1"}]}});
        let base = fingerprint(["ns", "p"], &component, &start(&[("n", json!(1))]));
        let same = |component: &Value, scope, inputs: &[(&str, Value)]| {
            fingerprint(scope, component, &start(inputs)) == base
        };
        let mut other_env = component.clone();
        other_env["container"]["env"] = json!([]);
        assert!(same(&other_env, ["ns", "p"], &[("n", json!(1))]));
        assert!(!same(&component, ["ns", "p"], &[("n", json!("1"))]));
        assert!(!same(&component, ["ns", "q"], &[("n", json!(1))]));
        let mut other_image = component.clone();
        other_image["container"]["image"] = json!("j");
        assert!(!same(&other_image, ["ns", "p"], &[("n", json!(1))]));
    }

    #[test]
    fn a_component_key_replaces_everything_else() {
        let keyed = |image: &str, key: &str| json!({"component": "c", "cache": {"key": key}, "container": {"image": image}});
        let of = |component: Value, value: i32| {
            fingerprint(["ns", "p"], &component, &start(&[("n", json!(value))]))
        };
        assert_eq!(of(keyed("i", "k"), 1), of(keyed("j", "k"), 2));
        assert_ne!(of(keyed("i", "k"), 1), of(keyed("i", "l"), 1));
    }
}
