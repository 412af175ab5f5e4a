//! The source: which versions lie in the base path.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use model::saved_model::FILE_NAME;

/// A version's directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) number: i64,
    pub(crate) path: PathBuf,
    /// Size and time of the model file: a version that did not load is tried again once they
    /// change. `None` if the file cannot be looked at.
    pub(crate) file: Option<(u64, Option<SystemTime>)>,
}

/// The versions of a base path, lowest first. A directory without a model file is not one yet:
/// somebody is still copying it.
pub(crate) fn scan(base: &Path) -> io::Result<Vec<Version>> {
    let mut versions = Vec::new();
    for entry in std::fs::read_dir(base)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse::<i64>().ok());
        let Some(number) = number.filter(|number| *number >= 0) else {
            continue;
        };
        let path = entry.path();
        match std::fs::metadata(path.join(FILE_NAME)) {
            Ok(meta) => {
                let file = Some((meta.len(), meta.modified().ok()));
                versions.push(Version { number, path, file });
            }
            Err(error) if is_absent(&error) => {}
            // Loading it will say what is wrong.
            Err(_) => versions.push(Version {
                number,
                path,
                file: None,
            }),
        }
    }
    versions.sort();
    Ok(versions)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_directories_with_a_model_are_versions() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["2", "10", "3", "-1", "temp-7", ".export-8-1"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(FILE_NAME), name).unwrap();
        }
        std::fs::create_dir(dir.path().join("99")).unwrap();
        std::fs::write(dir.path().join("100"), "a file").unwrap();
        let found = scan(dir.path()).unwrap();
        assert_eq!(
            found
                .iter()
                .map(|version| version.number)
                .collect::<Vec<_>>(),
            [2, 3, 10]
        );
        assert_eq!(found[2].file.unwrap().0, 2);
        assert!(scan(&dir.path().join("missing")).is_err());
    }
}
