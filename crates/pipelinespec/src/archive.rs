//! From an uploaded file to the text inside it.

use std::io::Read;

use crate::Error;

/// No package, and nothing in one, is larger.
pub const MAX_BYTES: usize = 32 << 20;

const PREFERRED: &str = "pipeline.yaml";

/// The pipeline's text: the file itself by its name's ending, else what the archive holds.
pub(crate) fn text(name: &str, bytes: &[u8]) -> Result<String, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge { limit: MAX_BYTES });
    }
    let content = if is_raw(name) {
        bytes.to_vec()
    } else if bytes.starts_with(b"PK") {
        from_zip(bytes)?
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        from_tarball(bytes)?
    } else {
        return Err(Error::Format {
            name: name.to_owned(),
        });
    };
    String::from_utf8(content).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::Yaml(format!("the text is not UTF-8 (byte {at})"))
    })
}

fn is_raw(name: &str) -> bool {
    is_yaml(name) || has_ending(name, &["json"])
}

fn is_yaml(name: &str) -> bool {
    has_ending(name, &["yaml", "yml"])
}

fn has_ending(name: &str, endings: &[&str]) -> bool {
    let found = std::path::Path::new(name)
        .extension()
        .and_then(|ending| ending.to_str());
    found.is_some_and(|found| {
        endings
            .iter()
            .any(|ending| found.eq_ignore_ascii_case(ending))
    })
}

fn from_tarball(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |message: String| Error::Archive {
        kind: "tarball",
        message,
    };
    let broken = |error: std::io::Error| failed(format!("not a valid tarball file: {error}"));
    // The archive may be far larger than its compressed form; `limited` stops reading in time.
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(bytes));
    let mut first = None;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let preferred = name.trim_start_matches("./") == PREFERRED;
        if preferred || first.is_none() {
            let content = if preferred || is_yaml(&name) {
                limited(&mut entry).map_err(|error| error.unwrap_or_else_broken(&broken))?
            } else {
                Vec::new()
            };
            if preferred {
                return Ok(content);
            }
            first = Some((name, content));
        }
    }
    chosen(first, &failed)
}

fn from_zip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |message: String| Error::Archive {
        kind: "zip",
        message,
    };
    let broken = |error: std::io::Error| failed(format!("not a valid zip file: {error}"));
    let invalid = |error: zip::result::ZipError| failed(format!("not a valid zip file: {error}"));
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(invalid)?;
    let mut pick = None;
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(invalid)?;
        if file.name() == PREFERRED {
            pick = Some(index);
            break;
        }
        if pick.is_none() && file.is_file() {
            pick = Some(index);
        }
    }
    let Some(index) = pick else {
        return chosen(None, &failed);
    };
    let mut file = archive.by_index(index).map_err(invalid)?;
    let name = file.name().to_owned();
    let content = if is_yaml(&name) {
        limited(&mut file).map_err(|error| error.unwrap_or_else_broken(&broken))?
    } else {
        Vec::new()
    };
    chosen(Some((name, content)), &failed)
}

fn chosen(
    member: Option<(String, Vec<u8>)>,
    failed: &dyn Fn(String) -> Error,
) -> Result<Vec<u8>, Error> {
    match member {
        Some((name, content)) if is_yaml(&name) => Ok(content),
        Some((name, _)) => Err(failed(format!(
            "expected a file {PREFERRED} or a first file that ends in .yaml or .yml, got {name:?}"
        ))),
        None => Err(failed("it is empty".to_owned())),
    }
}

enum Reading {
    TooLarge,
    Io(std::io::Error),
}

impl Reading {
    fn unwrap_or_else_broken(self, broken: &dyn Fn(std::io::Error) -> Error) -> Error {
        match self {
            Self::TooLarge => Error::TooLarge { limit: MAX_BYTES },
            Self::Io(error) => broken(error),
        }
    }
}

fn limited(reader: &mut dyn Read) -> Result<Vec<u8>, Reading> {
    let mut content = Vec::new();
    reader
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut content)
        .map_err(Reading::Io)?;
    if content.len() > MAX_BYTES {
        return Err(Reading::TooLarge);
    }
    Ok(content)
}
