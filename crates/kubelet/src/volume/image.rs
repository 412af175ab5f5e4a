//! Image volumes: the files of an image, read-only.
//!
//! A built-in image has one file, this program itself, under the name `coracle`: a second link to it
//! in the data directory where that can be made, so that an update of the program takes nothing away
//! from containers that run.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::ImageVolumeSource;

use crate::runtime::{ImageKind, ImageService};

/// The name of the program in a built-in image.
const PROGRAM: &str = "coracle";

/// The folder with the files of an image.
pub(crate) async fn prepare(
    source: &ImageVolumeSource,
    images: &dyn ImageService,
    programs: &Path,
) -> Result<PathBuf, String> {
    let reference = source.reference.as_deref().unwrap_or_default();
    if reference.is_empty() {
        return Err("an image volume needs a reference".to_owned());
    }
    let found = match source.pull_policy.as_deref() {
        Some("Never") => images.present(reference).map(|image| {
            image
                .ok_or_else(|| format!("image {reference:?} is not present with pull policy Never"))
        }),
        _ => images.pull(reference).await.map(Ok),
    };
    let image = found.map_err(|error| error.to_string())??;
    match image.kind {
        ImageKind::BuiltIn(_) => {
            let own = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
            link(&own, programs)
                .map_err(|e| format!("put {} into {}: {e}", own.display(), programs.display()))?;
            Ok(programs.to_owned())
        }
        ImageKind::Host | ImageKind::Python(_) => Err(format!(
            "image {reference:?} runs with the host's programs and has no files of its own to mount"
        )),
    }
}

/// Puts the program into the folder, unless it is there.
fn link(own: &Path, programs: &Path) -> io::Result<()> {
    let wanted = fs::metadata(own)?;
    let target = programs.join(PROGRAM);
    if let Ok(there) = fs::metadata(&target) {
        let same_file = (there.dev(), there.ino()) == (wanted.dev(), wanted.ino());
        let copied = there.len() == wanted.len() && there.modified()? == wanted.modified()?;
        if same_file || copied {
            return Ok(());
        }
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(programs)?;
    // Nobody sees half a program, also when two Pods start at once.
    let part = programs.join(format!(".{PROGRAM}.{:?}", std::thread::current().id()));
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if fs::hard_link(own, &part).is_err() {
        fs::copy(own, &part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        fs::File::options()
            .write(true)
            .open(&part)?
            .set_modified(wanted.modified()?)?;
    }
    fs::rename(&part, &target)?;
    // Renaming onto another link to the same file leaves both.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::catalogue::{Catalogue, Entry};

    #[tokio::test]
    async fn a_built_in_image_has_this_program() {
        let dir = tempfile::tempdir().unwrap();
        let programs = dir.path().join("programs");
        let images = Catalogue::with_host_images([Entry::built_in("coracle/launcher", "launcher")]);
        let of = async |reference: &str| {
            let source = ImageVolumeSource {
                reference: Some(reference.to_owned()),
                pull_policy: None,
            };
            prepare(&source, &images, &programs).await
        };
        for _ in 0..2 {
            assert_eq!(of("coracle/launcher").await.unwrap(), programs);
            let own = fs::metadata(std::env::current_exe().unwrap()).unwrap();
            let there = fs::metadata(programs.join(PROGRAM)).unwrap();
            assert_eq!(there.len(), own.len());
            assert_eq!(fs::read_dir(&programs).unwrap().count(), 1);
        }
        assert!(of("alpine").await.unwrap_err().contains("no files"));
        assert!(
            of("nobody/knows:it")
                .await
                .unwrap_err()
                .contains("nobody/knows")
        );
    }
}
