//! Volumes whose files come from objects: which files they hold (pure), and how a directory takes
//! them on without anyone seeing half of it.
//!
//! As with a kubelet, the files lie in a directory named by the time of writing, `..data` links to
//! it, and the names a program opens link through `..data`; an update swaps that one link.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileData {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// The files of a volume, by relative path.
pub(crate) type Payload = BTreeMap<PathBuf, FileData>;

/// The data of a ConfigMap, text and binary.
pub(crate) fn config_map_data(map: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map
        .data
        .into_iter()
        .flatten()
        .map(|(k, v)| (k, v.into_bytes()));
    let binary = map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0));
    text.chain(binary).collect()
}

/// The data of a Secret.
pub(crate) fn secret_data(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    secret
        .data
        .into_iter()
        .flatten()
        .map(|(k, ByteString(v))| (k, v))
        .collect()
}

/// The files that an object's data becomes. `what` names the object for messages.
pub(crate) fn select(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: u32,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            payload.insert(
                PathBuf::from(key),
                FileData {
                    bytes,
                    mode: default_mode,
                },
            );
        }
        return Ok(payload);
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                let mode = item.mode.map_or(default_mode, |m| m as u32 & 0o777);
                payload.insert(
                    relative(&item.path)?,
                    FileData {
                        bytes: bytes.clone(),
                        mode,
                    },
                );
            }
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(payload)
}

/// A path inside a volume; it must not lead out of it.
pub(crate) fn relative(path: &str) -> Result<PathBuf, String> {
    let inside = Path::new(path);
    let ok = !path.is_empty()
        && inside
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if ok && !path.starts_with("..") {
        Ok(inside
            .components()
            .filter(|c| *c != Component::CurDir)
            .collect())
    } else {
        Err(format!(
            "invalid path {path:?}: must be relative and without `..`"
        ))
    }
}

/// Who a volume's files belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// Makes `dir` hold exactly `payload`. The answer is whether anything changed.
pub(crate) fn write(
    dir: &Path,
    payload: &Payload,
    owner: Owner,
    now: Timestamp,
) -> io::Result<bool> {
    std::fs::create_dir_all(dir)?;
    let data_link = dir.join("..data");
    let old = std::fs::read_link(&data_link).ok();
    if let Some(old) = &old
        && holds(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let stamp = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S%.9f")).replace("%.", ".");
    let mut fresh = PathBuf::from(&stamp);
    let mut attempt = 0;
    while dir.join(&fresh).exists() {
        attempt += 1;
        fresh = PathBuf::from(format!("{stamp}.{attempt}"));
    }
    let target = dir.join(&fresh);
    std::fs::create_dir(&target)?;
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let path = target.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.bytes)?;
        let mut mode = file.mode;
        if owner.group.is_some() {
            // The group that the Pod asked for may read what the owner may read.
            mode |= (mode & 0o400) >> 3;
        }
        if owner != Owner::default() {
            chown(&path, owner)?;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    let link = dir.join("..data_tmp");
    let _ = std::fs::remove_file(&link);
    symlink(&fresh, &link)?;
    std::fs::rename(&link, &data_link)?;
    let wanted: std::collections::BTreeSet<_> = payload
        .keys()
        .filter_map(|p| p.components().next())
        .map(|c| c.as_os_str().to_owned())
        .collect();
    for name in &wanted {
        let visible = dir.join(name);
        if std::fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new("..data").join(name), visible)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b"..") && !wanted.contains(&name) {
            std::fs::remove_file(dir.join(name))?;
        }
    }
    if let Some(old) = old {
        std::fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

/// Changes owner and group; without the right to, the files stay the server's own, which is also
/// who the Pod runs as then.
pub(crate) fn chown(path: &Path, owner: Owner) -> io::Result<()> {
    match std::os::unix::fs::chown(path, owner.user, owner.group) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

fn holds(dir: &Path, payload: &Payload) -> bool {
    let mut count = 0;
    let mut stack = vec![dir.to_owned()];
    while let Some(next) = stack.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            return false;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => stack.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count == payload.len()
        && payload.iter().all(|(path, file)| {
            std::fs::read(dir.join(path)).is_ok_and(|bytes| bytes == file.bytes)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, text)| {
                (
                    PathBuf::from(path),
                    FileData {
                        bytes: text.as_bytes().to_vec(),
                        mode: 0o640,
                    },
                )
            })
            .collect()
    }

    #[test]
    fn an_update_swaps_all_files_at_once_and_removes_the_old_ones() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("v");
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        let now = Timestamp::UNIX_EPOCH;
        assert!(
            write(
                &dir,
                &payload(&[("a", "1"), ("sub/b", "2")]),
                Owner::default(),
                now
            )
            .unwrap()
        );
        assert_eq!(
            (read("a"), read("sub/b")),
            (Some("1".into()), Some("2".into()))
        );
        let mode = std::fs::metadata(dir.join("a"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        let first = std::fs::read_link(dir.join("..data")).unwrap();
        assert!(
            !write(
                &dir,
                &payload(&[("a", "1"), ("sub/b", "2")]),
                Owner::default(),
                now
            )
            .unwrap()
        );
        assert!(
            write(
                &dir,
                &payload(&[("a", "3"), ("c", "4")]),
                Owner::default(),
                now
            )
            .unwrap()
        );
        assert_eq!(
            (read("a"), read("sub/b"), read("c")),
            (Some("3".into()), None, Some("4".into()))
        );
        assert_ne!(std::fs::read_link(dir.join("..data")).unwrap(), first);
        assert!(!dir.join(first).exists());
        assert!(!dir.join("sub").exists());
        assert!(write(&dir, &payload(&[]), Owner::default(), now).unwrap());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn items_choose_keys_and_a_missing_key_is_named() {
        let data = || BTreeMap::from([("k".to_owned(), b"v".to_vec())]);
        let item = |key: &str| {
            vec![KeyToPath {
                key: key.into(),
                path: "dir/file".into(),
                mode: Some(0o400),
            }]
        };
        let chosen = select(data(), Some(&item("k")), false, 0o644).unwrap();
        assert_eq!(chosen[Path::new("dir/file")].mode, 0o400);
        let error = select(data(), Some(&item("x")), false, 0o644).unwrap_err();
        assert_eq!(error, "references non-existent config key: x");
        assert!(
            select(data(), Some(&item("x")), true, 0o644)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_path_must_stay_inside_the_volume() {
        for bad in ["", "/etc/passwd", "../x", "a/../../b", "..data"] {
            assert!(relative(bad).is_err(), "{bad}");
        }
        assert_eq!(relative("a/./b").unwrap(), PathBuf::from("a/b"));
    }
}
