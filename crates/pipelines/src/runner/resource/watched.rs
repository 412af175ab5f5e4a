//! Waiting for one object to be, or to be gone.

use std::pin::pin;

use futures::{Stream, StreamExt as _};
use kube::api::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::request::Request;
use super::{Problem, tree};

/// One object and its changes.
pub(super) struct Watched {
    what: String,
    name: String,
    uid: Option<String>,
    api: Api<DynamicObject>,
}

impl Watched {
    pub(super) fn start(request: &Request, object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").unwrap_or_default().to_owned();
        Self {
            what: request.what(),
            name,
            uid: text("/metadata/uid").map(str::to_owned),
            api: request.api.clone(),
        }
    }

    fn changes(
        &self,
    ) -> impl Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + use<> {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        watcher(self.api.clone(), config).default_backoff()
    }

    /// The object once it is so; an error if it goes before.
    pub(super) async fn until(self, is_so: impl Fn(&Value) -> bool) -> Result<Value, Problem> {
        let gone = || Problem::Failed(format!("{}: {:?} was deleted", self.what, self.name));
        let mut changes = pin!(self.changes());
        let mut listed = false;
        while let Some(change) = changes.next().await {
            match change {
                Ok(watcher::Event::Init) => listed = false,
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    listed = true;
                    let object = tree(&object);
                    if is_so(&object) {
                        return Ok(object);
                    }
                }
                Ok(watcher::Event::InitDone) if listed => {}
                Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => return Err(gone()),
                Err(error) => self.broken(&error)?,
            }
        }
        Err(self.ended())
    }

    pub(super) async fn until_gone(self) -> Result<(), Problem> {
        let mut changes = pin!(self.changes());
        let mut listed = false;
        while let Some(change) = changes.next().await {
            match change {
                Ok(watcher::Event::Init) => listed = false,
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    // Another object of the same name is not the one that had to go.
                    if object.uid() != self.uid {
                        return Ok(());
                    }
                    listed = true;
                }
                Ok(watcher::Event::InitDone) if listed => {}
                Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => return Ok(()),
                Err(error) => self.broken(&error)?,
            }
        }
        Err(self.ended())
    }

    /// A watch that may not be is an end, any other problem passes.
    fn broken(&self, error: &watcher::Error) -> Result<(), Problem> {
        use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
        match error {
            InitialListFailed(source) | WatchStartFailed(source) | WatchFailed(source) if matches!(source, kube::Error::Api(status) if status.code == 403) => {
                Err(Problem::of(
                    &format!("watch what {} is about", self.what),
                    source,
                ))
            }
            error => {
                tracing::warn!("watch {}: {}", self.what, stdx::error::chain(error));
                Ok(())
            }
        }
    }

    fn ended(&self) -> Problem {
        Problem::Unreachable(format!("{}: the watch ended", self.what))
    }
}
