//! Logs outlive Pods: when a step ends its log is copied into the store, compressed and cut at a size.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use artifacts::Uri;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::pod::MAIN;
use super::store::{self, Place};
use super::{Error, Shared};

/// As much of a log as is kept.
const MAX_LOG: usize = 32 << 20;
/// What follows a log that was cut.
const CUT: &str = "\n… the log is longer; the rest was not kept\n";
/// As much as a kept log may have when it is packed.
const MAX_PACKED: u64 = 64 << 20;

fn uri(run: &str, pod: &str) -> Result<Uri, String> {
    store::default_uri(None, &format!("logs/{run}/{pod}.log.gz"))
}

/// Copies the log of a Pod that has ended. A log that is gone is no reason to stop anything.
pub(super) async fn keep(shared: Arc<Shared>, run: String, pod: String) {
    let Ok(_slot) = shared.log_slots.acquire().await else {
        return;
    };
    if let Err(problem) = copy(&shared, &run, &pod).await {
        tracing::debug!(run_id = run, pod, "keep the step's log: {problem}");
    }
}

async fn copy(shared: &Shared, run: &str, pod: &str) -> Result<(), String> {
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.options.namespace);
    let params = LogParams {
        container: Some(MAIN.to_owned()),
        ..LogParams::default()
    };
    let described = |error: &dyn std::error::Error| stdx::error::chain(error);
    let mut stream = pods
        .log_stream(pod, &params)
        .await
        .map_err(|error| described(&error))?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    let mut chunk = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let read = stream
            .read(&mut chunk)
            .await
            .map_err(|error| described(&error))?;
        if read == 0 {
            break;
        }
        let room = MAX_LOG - total;
        total += read.min(room);
        let wrote = packed.write_all(&chunk[..read.min(room)]).and_then(|()| {
            if read > room {
                packed.write_all(CUT.as_bytes())?;
            }
            Ok(())
        });
        wrote.map_err(|error| described(&error))?;
        if read > room {
            break;
        }
    }
    if total == 0 {
        return Ok(());
    }
    let bytes = packed.finish().map_err(|error| described(&error))?;
    let place = Place::of(shared);
    let stored = place.stores.put(&uri(run, pod)?, bytes).await;
    stored.map_err(|error| described(&error))
}

/// The kept log of a Pod; none if there is none.
pub(super) async fn read(shared: &Shared, run: &str, pod: &str) -> Result<Option<Vec<u8>>, Error> {
    let place = Place::of(shared);
    let uri = uri(run, pod).map_err(Error::State)?;
    let packed = match place.stores.get(&uri, MAX_PACKED).await {
        Ok(packed) => packed,
        Err(artifacts::Error::NotFound(_) | artifacts::Error::NoStore { .. }) => return Ok(None),
        Err(error) => return Err(Error::Artifact(error)),
    };
    let mut text = Vec::new();
    let limit = (MAX_LOG + CUT.len()) as u64;
    GzDecoder::new(packed.as_slice())
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|error| Error::State(format!("the log {uri} cannot be unpacked: {error}")))?;
    Ok(Some(text))
}
