//! The configuration file: what the command line is too narrow for. `config.yaml` of the data
//! directory, or the file that `--config` names.

use std::path::Path;

use kubelet::runtime::catalogue::Entry;
use serde::Deserialize;

use crate::failure::{Failure, Result};
use crate::instance::DataDir;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Settings {
    /// Further images that can run here; they come before the ones that are known anyway.
    pub(crate) images: Vec<Entry>,
}

const EXAMPLE: &str = "images:\n  - pattern: registry.example.com/team/*\n    kind: {kind: python, program: \
                       \"3.11\"}   # or {kind: host}\n    cmd: [python3]";

impl Settings {
    /// Reads the file that was given, else the data directory's, which need not be there.
    pub(crate) fn read(given: Option<&Path>, data: &DataDir) -> Result<Self> {
        let path = given.map_or_else(|| data.config(), Path::to_owned);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|problem| {
                Failure::usage(format!("configuration {}: {problem}", path.display()))
                    .hint(format!("it looks like this:\n{EXAMPLE}"))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() => {
                Ok(Self::default())
            }
            Err(error) => Err(Failure::environment(format!(
                "read configuration {}: {error}",
                path.display()
            ))),
        }
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        // A file of nothing but comments is no mapping.
        let empty = text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---"
        });
        if empty {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use kubelet::runtime::ImageKind;

    use super::*;

    #[test]
    fn the_example_is_understood() {
        let settings = Settings::parse(EXAMPLE).unwrap();
        let [entry] = settings.images.as_slice() else {
            panic!("{settings:?}")
        };
        assert_eq!(entry.pattern, "registry.example.com/team/*");
        assert_eq!(entry.kind, ImageKind::Python("3.11".to_owned()));
        assert_eq!(entry.cmd, ["python3"]);
    }

    #[test]
    fn a_file_of_comments_says_nothing_and_an_unknown_word_is_refused() {
        assert_eq!(Settings::parse("# later\n\n").unwrap(), Settings::default());
        let problem = Settings::parse("imagez: []\n").unwrap_err();
        assert!(problem.contains("imagez"), "{problem}");
        let problem = Settings::parse("images:\n- pattern: x\n  kind: {kind: wasm}\n").unwrap_err();
        assert!(problem.contains("wasm"), "{problem}");
    }
}
