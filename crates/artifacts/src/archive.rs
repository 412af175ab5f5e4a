//! Artifacts as `.tgz`, as Argo keeps them: one entry for a file, a folder with what is in it else.
//!
//! Times and owners are left out, so that equal contents make equal archives.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::{Error, Result, local};

/// Packs the file or folder `from` into the archive `to`, under the name `name`.
pub fn pack(from: &Path, name: &str, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        local::make(parent)?;
    }
    let attempt = format!("pack {} into {}", from.display(), to.display());
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let pack = || -> io::Result<()> {
        let out = BufWriter::new(File::create(&part)?);
        let mut builder = Builder::new(GzEncoder::new(out, Compression::fast()));
        append(&mut builder, from, Path::new(name))?;
        builder.into_inner()?.finish()?.flush()?;
        fs::rename(&part, to)
    };
    pack().map_err(Error::io(attempt))
}

fn append(builder: &mut Builder<impl io::Write>, from: &Path, name: &Path) -> io::Result<()> {
    let found = fs::metadata(from)?;
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    if found.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty())?;
        let mut entries: Vec<_> = fs::read_dir(from)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            append(builder, &entry.path(), &name.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let mut file = File::open(from)?;
    header.set_mode(0o644);
    header.set_size(found.len());
    // A file that grows meanwhile must not spoil the archive.
    builder.append_data(&mut header, name, (&mut file).take(found.len()))
}

/// Unpacks an archive to `to`: what its one top-level entry is, `to` becomes. An archive with several
/// becomes a folder.
pub fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let attempt = || format!("unpack {} to {}", archive.display(), to.display());
    let file = File::open(archive).map_err(Error::io(attempt()))?;
    unpack_from(BufReader::new(file), to).map_err(Error::io(attempt()))
}

fn unpack_from(archive: impl Read, to: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let mut top: Option<PathBuf> = None;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => parts.push(name.to_owned()),
                Component::CurDir => {}
                _ => {
                    return Err(io::Error::other(format!(
                        "entry {} would leave the folder",
                        path.display()
                    )));
                }
            }
        }
        let Some((first, rest)) = parts.split_first() else {
            continue;
        };
        let first = PathBuf::from(first);
        if top.as_ref().is_some_and(|top| *top != first) {
            return Err(io::Error::other(format!(
                "it has several entries at its top, such as {} and {}",
                top.unwrap_or_default().display(),
                first.display()
            )));
        }
        top = Some(first);
        let target = rest
            .iter()
            .fold(to.to_owned(), |path, part| path.join(part));
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&target)?,
            EntryType::Regular | EntryType::Continuous => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                let mut out = File::create(&target)?;
                io::copy(&mut entry, &mut out)?;
            }
            // Links could lead anywhere, and packing follows them.
            other => {
                return Err(io::Error::other(format!(
                    "entry {} is a {other:?}, which is not unpacked",
                    path.display()
                )));
            }
        }
    }
    if top.is_none() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "one").unwrap();
        fs::create_dir_all(at("tree/empty")).unwrap();
        fs::create_dir_all(at("tree/deep")).unwrap();
        fs::write(at("tree/deep/x"), "two").unwrap();
        for name in ["file", "tree"] {
            pack(&at(name), name, &at("a/b.tgz")).unwrap();
            unpack(&at("a/b.tgz"), &at(&format!("out/{name}"))).unwrap();
        }
        assert_eq!(fs::read_to_string(at("out/file")).unwrap(), "one");
        assert_eq!(fs::read_to_string(at("out/tree/deep/x")).unwrap(), "two");
        assert!(at("out/tree/empty").is_dir());
    }

    #[test]
    fn an_archive_cannot_write_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evil.tgz");
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        let name = b"../evil";
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
        fs::write(&path, builder.into_inner().unwrap().finish().unwrap()).unwrap();
        let error = unpack(&path, &dir.path().join("to")).unwrap_err();
        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("leave")
        );
        assert!(!dir.path().join("evil").exists());
    }
}
