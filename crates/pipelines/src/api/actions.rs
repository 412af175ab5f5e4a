//! What both versions of the API do with runs and experiments that exist.

use super::wire::{Code, Failure, Result};
use super::{Api, launch};
use crate::runner;
use crate::store::experiments;
use crate::store::page::{Page, Request};
use crate::store::runs::{self, Of, Record};

/// A page of runs. All runs are in one namespace, so another one's list is empty.
pub(super) async fn list(api: &Api, of: Of<'_>, request: &Request) -> Result<(Vec<Record>, Page)> {
    if !request.namespace.is_empty() && request.namespace != api.namespace {
        return Ok((Vec::new(), Page::default()));
    }
    Ok(runs::list(&api.db, &api.counts, of, request).await?)
}

/// Ends a run at once and forgets it.
pub(super) async fn delete(api: &Api, id: &str) -> Result<()> {
    let record = runs::get(&api.db, id).await?;
    api.runner.delete(id, Some(runs::remove(id))).await?;
    if !record.new.recurring_run.is_empty() {
        // Another firing may wait for it to be over.
        api.recurring.changed();
    }
    Ok(())
}

/// Asks a run to end.
pub(super) async fn terminate(api: &Api, id: &str) -> Result<()> {
    runs::get(&api.db, id).await?;
    Ok(api.runner.terminate(id).await?)
}

/// Tries what failed again; a run that has not failed is a conflict.
pub(super) async fn retry(api: &Api, id: &str) -> Result<()> {
    runs::get(&api.db, id).await?;
    api.runner.retry(id).await.map_err(|error| match error {
        runner::Error::State(why) => Failure::new(Code::Aborted, why),
        other => other.into(),
    })
}

/// Deletes an experiment, unless it is the one every run without one belongs to.
pub(super) async fn delete_experiment(api: &Api, id: &str) -> Result<()> {
    let found = experiments::get(&api.db, id).await?;
    if found.name == launch::DEFAULT {
        return Err(Failure::new(
            Code::Aborted,
            "the default experiment cannot be deleted",
        ));
    }
    Ok(experiments::delete(&api.db, id).await?)
}
