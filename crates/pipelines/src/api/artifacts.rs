//! Artifacts: of a run's node, and by bucket and key as the original's dashboard asks for them.
//! Contents are streamed, whatever their size.

use std::io;
use std::pin::pin;

use artifacts::Reader;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use self::first_file::FirstFile;
use super::Api;
use super::route::{Route, get};
use super::wire::{Failure, Result};

mod first_file;

const CHUNK: usize = 48 << 10;

pub(super) fn routes() -> Vec<Route> {
    let of_node = "Read an artifact of a run's node, in base64";
    vec![
        get(
            "/apis/v1beta1/runs/{run_id}/nodes/{node_id}/artifacts/{artifact_name}:read",
            of_node,
            read,
        ),
        get(
            "/apis/v2beta1/runs/{run_id}/nodes/{node_id}/artifacts/{artifact_name}:read",
            of_node,
            read,
        ),
        get(
            "/artifacts/get",
            "Read an artifact; of a packed one its first file",
            shown,
        )
        .query(&["source", "bucket", "key", "peek", "namespace"]),
        get(
            "/artifacts/{source}/{bucket}/{*key}",
            "Read an artifact as it is stored",
            stored,
        ),
    ]
}

/// Chunks of what is read, each but the last of a whole number of three bytes.
fn chunks(reader: Reader) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(reader, |mut reader| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut limited = pin!((&mut reader).take(CHUNK as u64));
        limited.read_to_end(&mut chunk).await?;
        Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), reader)))
    })
}

fn bytes(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

async fn read(
    State(api): State<Api>,
    Path((run, node, name)): Path<(String, String, String)>,
) -> Result<Response> {
    let Some(found) = api.runner.read_artifact(&run, &node, &name).await? else {
        return Err(Failure::not_found(format!(
            "run {run} has no artifact {name:?} of a node {node:?}"
        )));
    };
    let part = |text: &'static str| {
        stream::once(async move { Ok::<_, io::Error>(Bytes::from_static(text.as_bytes())) })
    };
    let content = chunks(found.content).map(|chunk| Ok(Bytes::from(STANDARD.encode(chunk?))));
    let body = part("{\"data\":\"").chain(content).chain(part("\"}"));
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(body),
    )
        .into_response())
}

async fn open(api: &Api, source: &str, bucket: &str, key: &str) -> Result<Reader> {
    let scheme = match source {
        "minio" | "s3" => source,
        "gcs" | "gs" => "gs",
        other => {
            return Err(Failure::invalid(format!(
                "source {other:?} is none of minio, s3, gcs"
            )));
        }
    };
    if bucket.is_empty() || key.is_empty() {
        return Err(Failure::invalid("bucket and key: name both"));
    }
    let uri = format!("{scheme}://{bucket}/{key}");
    match api.runner.open_artifact(&uri).await {
        Ok(reader) => Ok(reader),
        Err(crate::runner::Error::Artifact(error @ artifacts::Error::NotFound(_))) => {
            Err(Failure::not_found(error.to_string()))
        }
        Err(crate::runner::Error::Artifact(error @ artifacts::Error::Uri { .. })) => {
            Err(Failure::invalid(error.to_string()))
        }
        Err(other) => Err(other.into()),
    }
}

async fn stored(
    State(api): State<Api>,
    Path((source, bucket, key)): Path<(String, String, String)>,
) -> Result<Response> {
    let reader = open(&api, &source, &bucket, &key).await?;
    Ok(bytes(Body::from_stream(chunks(reader))))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    source: String,
    bucket: String,
    key: String,
    /// So many bytes are enough.
    peek: Option<usize>,
}

async fn shown(State(api): State<Api>, Query(wanted): Query<Wanted>) -> Result<Response> {
    let reader = open(&api, &wanted.source, &wanted.bucket, &wanted.key).await?;
    let peek = wanted.peek.filter(|peek| *peek > 0).unwrap_or(usize::MAX);
    let content = Box::pin(chunks(reader));
    let unpacked = stream::try_unfold(
        (content, FirstFile::default(), peek),
        |(mut content, mut file, left)| async move {
            while left > 0 && !file.done() {
                let Some(chunk) = content.next().await else {
                    break;
                };
                let mut part = file.feed(&chunk?)?;
                if part.is_empty() {
                    continue;
                }
                part.truncate(left);
                let left = left - part.len();
                return Ok::<_, io::Error>(Some((Bytes::from(part), (content, file, left))));
            }
            Ok(None)
        },
    );
    Ok(bytes(Body::from_stream(unpacked)))
}
