//! `/containerLogs`: a container's log, whole or its end, once or for as long as it runs.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::response::Response;
use futures::{StreamExt as _, stream};
use http::header;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Parameters, Refusal, known};
use crate::logs::{self, Options};
use crate::pod::{Context, paths};

pub(super) async fn container_logs(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Refusal> {
    let parameters = Parameters::of(&uri);
    let options = options(&parameters, context.clock.now())?;
    let mut view = context
        .registry
        .get(&namespace, &pod)
        .ok_or_else(|| Refusal::not_found(format!("pod {namespace}/{pod} is not on this node")))?;
    let (pod_dir, found) = {
        let current = view.borrow();
        let found = current.containers.get(&container).cloned().ok_or_else(|| {
            Refusal::bad_request(format!(
                "container {container} is not valid for pod {pod} (known: {})",
                known(&current.containers)
            ))
        })?;
        (current.pod_dir.clone(), found)
    };
    let previous = parameters.flag(&["previous"]);
    let attempt = if previous {
        let older = found.attempt.and_then(|attempt| {
            // While it waits to be restarted, the one that ended last is the previous one too.
            if found.live.is_none() && found.waiting.is_some() {
                Some(attempt)
            } else {
                attempt.checked_sub(1)
            }
        });
        older.ok_or_else(|| {
            Refusal::bad_request(format!(
                "previous terminated container {container:?} in pod {pod:?} not found"
            ))
        })?
    } else {
        found.attempt.ok_or_else(|| {
            let why = match found.waiting.as_deref() {
                Some("ErrImagePull") => "image can't be pulled".to_owned(),
                Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
                Some(reason) => reason.to_owned(),
                None => "ContainerCreating".to_owned(),
            };
            Refusal::bad_request(format!(
                "container {container:?} in pod {pod:?} is waiting to start: {why}"
            ))
        })?
    };
    let path = paths::log(&pod_dir, &container, attempt);
    let ended = async move {
        let over = |view: &crate::pod::registry::PodView| {
            view.containers
                .get(&container)
                .is_none_or(|c| c.live.is_none() || c.attempt != Some(attempt))
        };
        // An error means that the Pod is gone, and its containers with it.
        drop(view.wait_for(over).await);
    };
    let (sender, receiver) = mpsc::channel(16);
    let reading = async move {
        if let Err(error) = logs::stream(path.clone(), options, ended, sender).await {
            tracing::warn!(path = %path.display(), "read a log: {error}");
        }
    };
    // The reader runs inside the body: it ends when the client goes.
    let reading = stream::once(reading).filter_map(|()| std::future::ready(None));
    let chunks = ReceiverStream::new(receiver);
    let body = stream::select(reading, chunks).map(Ok::<_, Infallible>);
    Response::builder()
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Body::from_stream(body))
        .map_err(|e| Refusal(http::StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// The options of a request, checked.
fn options(parameters: &Parameters, now: Timestamp) -> Result<Options, Refusal> {
    let since_seconds = parameters.number("sinceSeconds")?;
    let since_time = match parameters.get("sinceTime").filter(|t| !t.is_empty()) {
        Some(text) => Some(text.parse::<Timestamp>().map_err(|_| {
            Refusal::bad_request(format!(
                "invalid value {text:?} of sinceTime: must be RFC 3339"
            ))
        })?),
        None => None,
    };
    let since_seconds = since_seconds.and_then(|s| {
        now.checked_sub(SignedDuration::from_secs(i64::try_from(s).ok()?))
            .ok()
    });
    let stream = match parameters.get("stream") {
        Some("Stdout") => Some("stdout".to_owned()),
        Some("Stderr") => Some("stderr".to_owned()),
        _ => None,
    };
    Ok(Options {
        follow: parameters.flag(&["follow"]),
        timestamps: parameters.flag(&["timestamps"]),
        tail_lines: parameters.number("tailLines")?,
        since: since_time.or(since_seconds),
        limit_bytes: parameters.number("limitBytes")?,
        stream,
    })
}
