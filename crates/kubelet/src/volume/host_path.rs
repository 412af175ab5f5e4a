//! Paths of the host as volumes: the checks that the volume's type asks for.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// The path of a `hostPath` volume, made and checked as `kind` says; the error names the path.
pub(crate) fn prepare(path: &str, kind: Option<&str>) -> Result<PathBuf, String> {
    let host = PathBuf::from(path);
    if !host.is_absolute() {
        return Err(format!("hostPath {path:?} must be an absolute path"));
    }
    let kind = kind.unwrap_or_default();
    let existing = match std::fs::metadata(&host) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(describe("stat", path, &error)),
    };
    let is_not = |what: &str| Err(format!("hostPath type check failed: {path} is not {what}"));
    match (kind, existing.as_ref().map(std::fs::Metadata::file_type)) {
        // Without a type nothing is checked, and a container runtime makes what is missing.
        ("" | "DirectoryOrCreate", None) => std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&host)
            .map_err(|e| describe("mkdir", path, &e))?,
        ("FileOrCreate", None) => {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o644)
                .open(&host)
                .map_err(|e| describe("open", path, &e))?;
        }
        ("", Some(_)) => {}
        ("Directory" | "DirectoryOrCreate", Some(found)) if found.is_dir() => {}
        ("Directory" | "DirectoryOrCreate", _) => return is_not("a directory"),
        ("File" | "FileOrCreate", Some(found)) if found.is_file() => {}
        ("File" | "FileOrCreate", _) => return is_not("a file"),
        ("Socket", Some(found)) if found.is_socket() => {}
        ("Socket", _) => return is_not("a socket file"),
        ("CharDevice", Some(found)) if found.is_char_device() => {}
        ("CharDevice", _) => return is_not("a character device"),
        ("BlockDevice", Some(found)) if found.is_block_device() => {}
        ("BlockDevice", _) => return is_not("a block device"),
        (other, _) => return Err(format!("{other:?} is an invalid volume type")),
    }
    readable(&host)?;
    Ok(host)
}

/// Says early, and with the path, what a program would stumble over later.
pub(crate) fn readable(host: &Path) -> Result<(), String> {
    let directory = std::fs::metadata(host).is_ok_and(|m| m.is_dir());
    let access = if directory {
        Access::READ_OK | Access::EXEC_OK
    } else {
        Access::READ_OK
    };
    rustix::fs::access(host, access)
        .map_err(|e| describe("open", &host.display().to_string(), &e.into()))
}

fn describe(operation: &str, path: &str, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    };
    format!("{operation} {path}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_checked_and_missing_folders_are_made_only_where_asked() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("file"), "").unwrap();
        for (name, kind, made) in [
            ("new/deep", "", true),
            ("new2", "DirectoryOrCreate", true),
            ("new3", "FileOrCreate", true),
            ("file", "File", true),
            ("file", "", true),
            ("absent", "Directory", false),
            ("absent", "File", false),
            ("file", "Directory", false),
            ("file", "Socket", false),
            ("file", "Nonsense", false),
            ("file/below", "", false),
        ] {
            let result = prepare(&at(name), Some(kind));
            assert_eq!(result.is_ok(), made, "{name} {kind}: {result:?}");
            if let Err(message) = result {
                assert!(
                    message.contains(&at(name)) || kind == "Nonsense",
                    "{message}"
                );
            }
        }
        assert_eq!(
            prepare(&at("file"), Some("Directory")).unwrap_err(),
            format!(
                "hostPath type check failed: {} is not a directory",
                at("file")
            )
        );
        assert!(prepare("relative", None).is_err());
    }
}
