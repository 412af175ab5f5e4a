//! What a step produced, and how that reaches the server: through the termination message.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use artifacts::Uri;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Archive;

/// What precedes the handover in a termination message.
const HEADER: &str = "coracle-outputs\n";
/// As much of a termination message as a kubelet keeps.
const LIMIT: usize = 4096;

/// What a step produced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Document {
    /// The content of each output parameter's file that exists.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Each output artifact that exists.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, StoredArtifact>,
    /// What the component wrote about its outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executor_output: Option<Value>,
}

/// An artifact that was stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredArtifact {
    /// Where it is.
    pub uri: Uri,
    /// How it is packed there.
    #[serde(default, skip_serializing_if = "Archive::is_none")]
    pub archive: Archive,
}

/// How the document reaches the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Handover {
    /// It is here.
    Inline(Document),
    /// It is in a store.
    At(Uri),
}

impl Handover {
    /// Reads a termination message; `None` if it has no handover.
    pub fn parse(message: &str) -> Option<Result<Self, serde_json::Error>> {
        let (_, text) = message.split_once(HEADER)?;
        Some(serde_json::from_str(text.trim_end()))
    }

    fn text(&self) -> String {
        let json = serde_json::to_string(self).expect("invariant: a handover is JSON");
        format!("{HEADER}{json}")
    }

    /// Whether the message at `path` has room for it.
    pub(crate) fn fits(&self, path: &Path) -> bool {
        // What the step wrote there itself stays.
        let there = std::fs::metadata(path).map_or(0, |found| found.len());
        let there = usize::try_from(there).unwrap_or(LIMIT);
        there.saturating_add(self.text().len()).saturating_add(1) <= LIMIT
    }

    /// Puts it into the message at `path`.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        append(path, &self.text())
    }
}

/// A termination message without the handover.
pub fn without_handover(message: &str) -> &str {
    message
        .find(HEADER)
        .map_or(message, |start| &message[..start])
}

/// Adds a line to the file of a termination message.
pub(crate) fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    // Its own line, and one write.
    let used = file.metadata()?.len() > 0;
    let text = format!("{}{text}", if used { "\n" } else { "" });
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_own_words_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "all well").unwrap();
        let document = Document {
            parameters: [("x".to_owned(), "a\n\"b\"".to_owned())].into(),
            ..Document::default()
        };
        let handover = Handover::Inline(document);
        assert!(handover.fits(&path));
        handover.write(&path).unwrap();
        let message = std::fs::read_to_string(&path).unwrap();
        assert_eq!(without_handover(&message).trim(), "all well");
        assert_eq!(Handover::parse(&message).unwrap().unwrap(), handover);
        assert!(Handover::parse("no outputs").is_none());
        std::fs::write(&path, vec![b'x'; LIMIT]).unwrap();
        assert!(!handover.fits(&path));
    }
}
