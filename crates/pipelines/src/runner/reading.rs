//! What a run left, read back: artifacts of its nodes, logs of its steps; and all of it deleted.

use artifacts::{Reader, Uri};
use engine::{Run, Task};
use serde_json::Value;

use super::pod::{Names, node_id};
use super::store::{BUCKET, Place};
use super::{Error, Runner, Shared, cache, step_log, workspace};
use crate::journal::Record;

/// An artifact that is being read.
#[derive(Debug)]
pub struct ReadArtifact {
    /// Where it is.
    pub uri: String,
    /// Its content as it is stored: v1 artifacts are `.tgz`.
    pub content: Reader,
}

impl Runner {
    /// An output artifact of a node of `status.nodes` (by the node's id or its Pod's name), or of the
    /// task at a path; none if there is no such node or artifact.
    pub async fn read_artifact(
        &self,
        run: &str,
        node: &str,
        name: &str,
    ) -> Result<Option<ReadArtifact>, Error> {
        let (node, name) = (node.to_owned(), name.to_owned());
        let found = self
            .inspect(run, move |run, record, _| {
                let task = task_of(run, record, &node)?;
                task.output_artifacts.get(&name).cloned()
            })
            .await?;
        let Some(value) = found else { return Ok(None) };
        let first = value.get(0).unwrap_or(&value);
        let Some(uri) = first.get("uri").and_then(Value::as_str) else {
            return Ok(None);
        };
        match self.open_artifact(uri).await {
            Ok(content) => Ok(Some(ReadArtifact {
                uri: uri.to_owned(),
                content,
            })),
            // The step did not write what it declared, or it was deleted.
            Err(Error::Artifact(artifacts::Error::NotFound(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens what a URI names, in the stores of the runs' namespace.
    pub async fn open_artifact(&self, uri: &str) -> Result<Reader, Error> {
        let uri = Uri::parse(uri).map_err(Error::Artifact)?;
        let place = Place::configured(&self.shared)
            .await
            .map_err(Error::State)?;
        place.stores.open(&uri).await.map_err(Error::Artifact)
    }

    /// The kept log of a node's step; none if there is none.
    pub async fn read_step_log(&self, run: &str, node: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.pod_of(run, node).await? {
            Some(pod) => step_log::read(&self.shared, run, &pod.name).await,
            None => Ok(None),
        }
    }
}

fn task_of<'a>(run: &'a Run, record: &Record, node: &str) -> Option<&'a Task> {
    run.tasks().iter().find(|task| {
        if task.path.as_str() == node
            || node_id(
                &record.workflow,
                &format!("{}{}", record.workflow, task.path),
            ) == node
        {
            return true;
        }
        let Some(work) = task.work() else {
            return false;
        };
        let template = run.created().plan.templates.get(&task.template);
        let retried = template.is_some_and(|t| t.retry.is_some());
        (0..work.attempts.len()).any(|place| {
            let number = work.number(place);
            let names = Names::of(
                &record.workflow,
                &task.path,
                &task.template,
                number,
                retried,
            );
            names.id == node || names.pod == node
        })
    })
}

/// Deletes what a run left in stores, in the cache and as claims. What cannot be deleted is logged:
/// the run itself is gone already.
pub(super) async fn delete_everything(shared: &Shared, record: &Record, settings: &Value) {
    cache::forget(&shared.db, &record.run).await;
    if settings.pointer("/pipelineConfig/workspace").is_some() {
        workspace::delete(shared, record).await;
    }
    let of_default = [
        format!("minio://{BUCKET}/logs/{}", record.run),
        format!("minio://{BUCKET}/artifacts/{}", record.workflow),
    ];
    let place = Place::of(shared);
    for uri in of_default.iter().filter_map(|uri| Uri::parse(uri).ok()) {
        if place.stores.is_local(&uri) {
            delete(&place, &uri, record).await;
        }
    }
    match Place::configured(shared).await {
        Ok(place) => match place.folder_of_run(record, settings) {
            Ok(uri) if place.stores.is_local(&uri) => delete(&place, &uri, record).await,
            Ok(_) => {}
            Err(problem) => tracing::debug!(run_id = record.run, "{problem}"),
        },
        Err(problem) => tracing::warn!(run_id = record.run, "delete artifacts: {problem}"),
    }
}

async fn delete(place: &Place, uri: &Uri, record: &Record) {
    if let Err(error) = place.stores.delete(uri).await {
        tracing::warn!(
            run_id = record.run,
            "delete artifacts: {}",
            stdx::error::chain(&error)
        );
    }
}
