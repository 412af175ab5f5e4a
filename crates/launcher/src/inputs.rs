//! Before the command: artifacts come to where the step expects them.

use std::fs;
use std::path::Path;

use artifacts::{Stores, archive};

use crate::paths::Paths;
use crate::{Archive, Failure, Input, Job, Source};

pub(crate) async fn bring(job: &Job, stores: &Stores, paths: &Paths) -> Result<(), Failure> {
    for input in &job.inputs {
        let path = paths.real(Path::new(&input.path));
        bring_one(input, stores, &path)
            .await
            .map_err(|why| Failure::new(format!("input artifact {:?}: {why}", input.name)))?;
    }
    Ok(())
}

async fn bring_one(input: &Input, stores: &Stores, path: &Path) -> Result<(), String> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .map_err(|error| format!("make folder {}: {error}", parent.display()))?;
    }
    let described = |error: artifacts::Error| stdx::error::chain(&error);
    let uri = match &input.source {
        Source::Raw(text) => {
            return fs::write(path, text)
                .map_err(|error| format!("write {}: {error}", path.display()));
        }
        Source::Uri(uri) => uri,
    };
    let brought = match (input.archive, stores.local_path(uri)) {
        // From where it is, without a copy.
        (Archive::Tgz, Some(there)) if there.exists() => archive::unpack(&there, path),
        (Archive::Tgz, _) => {
            let mut packed = path.as_os_str().to_owned();
            packed.push(".tgz");
            let packed = Path::new(&packed);
            let unpacked = match stores.download(uri, packed).await {
                Ok(()) => archive::unpack(packed, path),
                Err(error) => Err(error),
            };
            // Nothing is there if it was not brought.
            drop(fs::remove_file(packed));
            unpacked
        }
        (Archive::None, _) => stores.download(uri, path).await,
    };
    match brought {
        Err(artifacts::Error::NotFound(_)) if input.optional => Ok(()),
        brought => brought.map_err(described),
    }
}
