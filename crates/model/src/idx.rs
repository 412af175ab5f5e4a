//! The IDX format of the MNIST files: a magic number, big-endian sizes, then bytes. Plain or
//! gzipped, told apart by content. Nothing here knows what the numbers mean.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// The magic number of unsigned bytes in three dimensions.
pub const IMAGES_MAGIC: u32 = 0x0803;
/// The magic number of unsigned bytes in one dimension.
pub const LABELS_MAGIC: u32 = 0x0801;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// None of the names under which the file may lie is there.
    #[error("no file {0} and no {0}.gz", path.display())]
    Missing {
        /// The path without `.gz`.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file's content is not what its name promises.
    #[error("{name} is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// The file.
        name: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// A decoded file: its sizes, slowest first, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// The elements.
    pub bytes: Vec<u8>,
}

/// Reads `dir/name`, else `dir/name.gz`.
pub fn read_file(dir: &Path, name: &str, magic: u32) -> Result<Array, Error> {
    let plain = dir.join(name);
    let zipped = dir.join(format!("{name}.gz"));
    for path in [&plain, &zipped] {
        match std::fs::read(path) {
            Ok(bytes) => return decode(&path.display().to_string(), &bytes, magic),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::Read {
                    path: path.clone(),
                    source,
                });
            }
        }
    }
    Err(Error::Missing { path: plain })
}

/// Decodes the content of a file, unzipping it first if it is gzipped. `name` is for messages.
pub fn decode(name: &str, content: &[u8], magic: u32) -> Result<Array, Error> {
    if !content.starts_with(&[0x1f, 0x8b]) {
        return parse(name, content, content.len(), magic).map(|(sizes, start)| Array {
            sizes,
            bytes: content[start..].to_vec(),
        });
    }
    let mut unzipped = Vec::with_capacity(gzip_size_hint(content));
    if let Err(error) = GzDecoder::new(content).read_to_end(&mut unzipped) {
        return Err(corrupt(
            name,
            "a complete gzip stream",
            format!("{error} after {} unzipped bytes", unzipped.len()),
        ));
    }
    let (sizes, start) = parse(name, &unzipped, unzipped.len(), magic)?;
    unzipped.drain(..start);
    Ok(Array {
        sizes,
        bytes: unzipped,
    })
}

/// A gzip file ends with its unzipped size; a wrong one costs only a reallocation.
fn gzip_size_hint(content: &[u8]) -> usize {
    let Some(tail) = content.last_chunk::<4>() else {
        return 0;
    };
    // No real stream shrinks more than about a thousandfold.
    (u32::from_le_bytes(*tail) as usize).min(content.len().saturating_mul(1032))
}

/// Checks header and length; answers the sizes and where the elements start.
fn parse(name: &str, bytes: &[u8], len: usize, magic: u32) -> Result<(Vec<usize>, usize), Error> {
    let dimensions = (magic & 0xff) as usize;
    let header = 4 + 4 * dimensions;
    let word = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|w| w.try_into().ok())
            .map(u32::from_be_bytes)
    };
    let Some(found) = word(0) else {
        return Err(corrupt(
            name,
            format!("a header of {header} bytes"),
            format!("{len} bytes"),
        ));
    };
    if found != magic {
        return Err(corrupt(
            name,
            format!("the magic number {magic:#010x} (unsigned bytes, {dimensions} dimensions)"),
            format!("{found:#010x}"),
        ));
    }
    if len < header {
        return Err(corrupt(
            name,
            format!("a header of {header} bytes"),
            format!("{len} bytes"),
        ));
    }
    let sizes: Vec<usize> = (0..dimensions)
        .filter_map(|d| word(4 + 4 * d))
        .map(|size| size as usize)
        .collect();
    let elements = sizes
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size));
    let shape = sizes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" x ");
    match elements.and_then(|n| n.checked_add(header)) {
        Some(expected) if expected == len => Ok((sizes, header)),
        Some(expected) => Err(corrupt(
            name,
            format!("{expected} bytes for {shape}"),
            format!("{len} bytes"),
        )),
        None => Err(corrupt(name, "sizes that fit into memory", shape)),
    }
}

pub(crate) fn corrupt(name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Corrupt {
        name: name.to_owned(),
        expected: expected.into(),
        found: found.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn labels(values: &[u8]) -> Vec<u8> {
        let mut file = LABELS_MAGIC.to_be_bytes().to_vec();
        file.extend((values.len() as u32).to_be_bytes());
        file.extend(values);
        file
    }

    fn zip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_gzipped_files_decode_alike() {
        let file = labels(&[3, 1, 4]);
        let expected = Array {
            sizes: vec![3],
            bytes: vec![3, 1, 4],
        };
        assert_eq!(decode("l", &file, LABELS_MAGIC).unwrap(), expected);
        assert_eq!(decode("l", &zip(&file), LABELS_MAGIC).unwrap(), expected);
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let check = |content: &[u8], parts: &[&str]| {
            let text = decode("t10k-labels", content, LABELS_MAGIC)
                .unwrap_err()
                .to_string();
            for part in ["t10k-labels"].iter().chain(parts) {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        };
        let file = labels(&[3, 1, 4]);
        check(&file[..10], &["expected 11 bytes for 3", "found 10 bytes"]);
        check(&file[..6], &["header of 8 bytes", "found 6 bytes"]);
        check(b"", &["header of 8 bytes", "found 0 bytes"]);
        check(
            b"<html><body>404</body>",
            &["0x00000801", "found 0x3c68746d"],
        );
        let zipped = zip(&file);
        check(&zipped[..zipped.len() - 9], &["complete gzip stream"]);
        let mut flipped = zip(&file);
        let crc = flipped.len() - 8;
        flipped[crc] ^= 1;
        check(&flipped, &["complete gzip stream"]);
    }

    #[test]
    fn sizes_that_overflow_are_an_error_and_allocate_nothing() {
        let mut file = IMAGES_MAGIC.to_be_bytes().to_vec();
        file.extend([0xff; 12]);
        let text = decode("images", &file, IMAGES_MAGIC)
            .unwrap_err()
            .to_string();
        assert!(text.contains("corrupt"), "{text}");
    }

    #[test]
    fn a_file_is_found_under_both_names_or_missed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = read_file(dir.path(), "labels", LABELS_MAGIC).unwrap_err();
        assert!(error.to_string().contains("labels.gz"), "{error}");
        std::fs::write(dir.path().join("labels.gz"), zip(&labels(&[7]))).unwrap();
        assert_eq!(
            read_file(dir.path(), "labels", LABELS_MAGIC).unwrap().bytes,
            [7]
        );
        std::fs::write(dir.path().join("labels"), labels(&[8])).unwrap();
        assert_eq!(
            read_file(dir.path(), "labels", LABELS_MAGIC).unwrap().bytes,
            [8]
        );
    }
}
