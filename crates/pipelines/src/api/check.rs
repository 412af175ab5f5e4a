//! What names and tags may be, the same for every way in.

use std::collections::BTreeMap;

use super::wire::{Failure, Result};

pub(super) const PIPELINE_NAME: usize = 128;
pub(super) const EXPERIMENT_NAME: usize = 128;
pub(super) const VERSION_NAME: usize = 127;
const TAGS: usize = 20;
const TAG: usize = 63;

/// Checks the length of a name.
pub(super) fn name(what: &str, name: &str, most: usize) -> Result<()> {
    let length = name.chars().count();
    if (1..=most).contains(&length) {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "{what} has {length} characters (allowed: 1 to {most})"
    )))
}

/// Checks tags.
pub(super) fn tags(tags: &BTreeMap<String, String>) -> Result<()> {
    if tags.len() > TAGS {
        return Err(Failure::invalid(format!(
            "tags: there are {} (allowed: up to {TAGS})",
            tags.len()
        )));
    }
    for (key, value) in tags {
        if key.is_empty() || key.contains('.') {
            return Err(Failure::invalid(format!(
                "tags: key {key:?} is empty or contains a dot"
            )));
        }
        for (part, text) in [("key", key), ("value", value)] {
            let length = text.chars().count();
            if length > TAG {
                return Err(Failure::invalid(format!(
                    "tags: {part} {text:?} has {length} characters (allowed: up to {TAG})"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_limits() {
        let of = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(tags(&of("team", "a")).is_ok());
        assert!(tags(&of("", "a")).is_err());
        assert!(tags(&of("a.b", "a")).is_err());
        assert!(tags(&of("a", &"é".repeat(63))).is_ok());
        assert!(tags(&of("a", &"é".repeat(64))).is_err());
        let many = (0..21).map(|n| (n.to_string(), String::new())).collect();
        assert!(tags(&many).is_err());
    }

    #[test]
    fn names_are_counted_in_characters() {
        assert!(name("pipeline name", &"é".repeat(128), PIPELINE_NAME).is_ok());
        assert!(name("pipeline name", "", PIPELINE_NAME).is_err());
        assert!(name("version name", &"v".repeat(128), VERSION_NAME).is_err());
    }
}
