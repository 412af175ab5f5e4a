//! After the command: what it wrote becomes a [`Document`], and that reaches the server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use artifacts::{Stores, Uri, archive};
use serde_json::Value;

use crate::paths::Paths;
use crate::{Archive, Document, Failure, Handover, Job, StoredArtifact};

/// The largest output parameter: it goes through the server's memory and journal.
const MAX_PARAMETER: u64 = 16 << 20;

/// Makes the folders that outputs are written to. Where that is not possible the step will say so.
pub(crate) fn prepare(job: &Job, paths: &Paths) {
    let files = job.parameters.iter().map(|parameter| &parameter.path);
    let files = files.chain(job.artifacts.iter().map(|artifact| &artifact.path));
    for file in files.chain(&job.executor_output) {
        if let Some(parent) = paths.real(Path::new(file)).parent() {
            drop(fs::create_dir_all(parent));
        }
    }
}

/// Reads parameters and stores artifacts.
pub(crate) async fn collect(
    job: &Job,
    stores: &Stores,
    paths: &Paths,
) -> Result<Document, Failure> {
    let mut document = Document::default();
    for parameter in &job.parameters {
        let path = paths.real(Path::new(&parameter.path));
        let read = read_text(&path)
            .map_err(|why| Failure::new(format!("output parameter {:?}: {why}", parameter.name)))?;
        if let Some(text) = read {
            document.parameters.insert(parameter.name.clone(), text);
        }
    }
    if let Some(file) = &job.executor_output {
        let path = paths.real(Path::new(file));
        let read = read_text(&path)
            .map_err(|why| Failure::new(format!("the component's output file: {why}")))?;
        if let Some(text) = read.filter(|text| !text.trim().is_empty()) {
            let output: Value = serde_json::from_str(&text).map_err(|error| {
                Failure::new(format!(
                    "the component's output file {file} is not JSON: {error}"
                ))
            })?;
            document.executor_output = Some(output);
        }
    }
    for wanted in &job.artifacts {
        let named = |why: &artifacts::Error| {
            let why = stdx::error::chain(why);
            Failure::new(format!("output artifact {:?}: {why}", wanted.name))
        };
        let (uri, custom) = told(document.executor_output.as_ref(), &wanted.name);
        let named_itself = uri.filter(|text| *text != wanted.uri.to_string());
        let (uri, path) = match (named_itself, custom) {
            (None, custom) => (
                wanted.uri.clone(),
                custom.unwrap_or_else(|| wanted.path.clone()),
            ),
            (Some(text), custom) => {
                // It may be in no store at all; then there is nothing to be done.
                let Ok(uri) = Uri::parse(&text) else { continue };
                let own = uri.pod_path().filter(|_| is_beside(&uri, &wanted.uri));
                match custom.or_else(|| own.map(|path| path.display().to_string())) {
                    Some(path) => (uri, path),
                    None => continue,
                }
            }
        };
        let path = paths.real(Path::new(&path));
        if !path.exists() {
            continue;
        }
        let stored = match wanted.archive {
            Archive::None => stores.upload(&path, &uri).await,
            Archive::Tgz => pack(&path, &wanted.path, &uri, stores).await,
        };
        stored.map_err(|error| named(&error))?;
        let archive = wanted.archive;
        document
            .artifacts
            .insert(wanted.name.clone(), StoredArtifact { uri, archive });
    }
    Ok(document)
}

/// Whether a URI is in the attempt's own folder.
fn is_beside(uri: &Uri, provisioned: &Uri) -> bool {
    let folder = provisioned
        .key()
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder);
    let below = uri.key().strip_prefix(folder);
    (uri.scheme(), uri.bucket()) == (provisioned.scheme(), provisioned.bucket())
        && below.is_some_and(|rest| rest.starts_with('/'))
}

/// Packs into the store itself where it is a folder here, else through a file beside the artifact.
async fn pack(path: &Path, name: &str, uri: &Uri, stores: &Stores) -> artifacts::Result<()> {
    // As Argo names it: by the last part of the path the step knows.
    let name = Path::new(name).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    if let Some(to) = stores.local_path(uri) {
        return archive::pack(path, &name, &to);
    }
    let packed = std::env::temp_dir().join(format!(".{name}.{}.tgz", std::process::id()));
    archive::pack(path, &name, &packed)?;
    let stored = stores.upload(&packed, uri).await;
    drop(fs::remove_file(&packed));
    stored
}

/// What the component says of an artifact: its URI, and where its content is.
fn told(output: Option<&Value>, name: &str) -> (Option<String>, Option<String>) {
    let first = output.and_then(|output| {
        output
            .pointer("/artifacts")?
            .get(name)?
            .get("artifacts")?
            .get(0)
    });
    let text = |key: &str| {
        let text = first?.get(key)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    (
        text("uri"),
        text("customPath").or_else(|| text("custom_path")),
    )
}

fn read_text(path: &PathBuf) -> Result<Option<String>, String> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| format!("read {}: {error}", path.display()))?,
    };
    if found.len() > MAX_PARAMETER {
        return Err(format!(
            "{} has {} bytes, which is more than the {MAX_PARAMETER} a parameter may have; make it an \
             artifact",
            path.display(),
            found.len()
        ));
    }
    let bytes = fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    String::from_utf8(bytes).map(Some).map_err(|_| {
        format!(
            "{} is not text (UTF-8); make it an artifact",
            path.display()
        )
    })
}

/// Puts the document into the message, or into the store with the message saying where.
pub(crate) async fn hand_over(
    job: &Job,
    document: &Document,
    stores: &Stores,
    message: &Path,
) -> Result<(), Failure> {
    let inline = Handover::Inline(document.clone());
    let handover = if inline.fits(message) {
        inline
    } else {
        let uri = job.document.clone().ok_or_else(|| {
            Failure::new("the outputs are larger than a termination message, and there is no store")
        })?;
        let bytes = serde_json::to_vec(document).expect("invariant: a document is JSON");
        stores
            .put(&uri, bytes)
            .await
            .map_err(|error| Failure::of(&error))?;
        Handover::At(uri)
    };
    let wrote = handover.write(message);
    wrote.map_err(|error| Failure::new(format!("write {}: {error}", message.display())))
}
