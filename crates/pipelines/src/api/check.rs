//! What names and tags may be, the same for every way in.

use std::collections::BTreeMap;

use serde_json::Value;

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

/// One parameter of a run may have so many bytes as JSON, and all together so many: they travel in
/// the run's record and in Pods, which have limits of this size.
const PARAMETER: usize = 1 << 20;
const PARAMETERS: usize = 2 << 20;

/// Checks how large parameters are.
pub(super) fn parameters(given: &[(String, Value)]) -> Result<()> {
    let mut total = 0;
    for (name, value) in given {
        let size = size(value);
        if size > PARAMETER {
            return Err(Failure::invalid(format!(
                "parameter {name:?} has {size} bytes (allowed: up to {PARAMETER}); put large data \
                 into an artifact and give its URI"
            )));
        }
        total += size;
    }
    if total > PARAMETERS {
        return Err(Failure::invalid(format!(
            "the {} parameters have {total} bytes together (allowed: up to {PARAMETERS}); put \
             large data into artifacts and give their URIs",
            given.len()
        )));
    }
    Ok(())
}

/// The bytes of a value: a text's own, anything else's as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        other => other.to_string().len(),
    }
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
    fn parameters_have_limits() {
        let of = |sizes: &[usize]| -> Vec<(String, Value)> {
            let value = |size: &usize| ("p".to_owned(), Value::from("x".repeat(*size)));
            sizes.iter().map(value).collect()
        };
        assert!(parameters(&of(&[PARAMETER, PARAMETER])).is_ok());
        let error = parameters(&of(&[10 << 20])).unwrap_err().message;
        assert!(
            error.contains("10485760 bytes (allowed: up to 1048576)"),
            "{error}"
        );
        let error = parameters(&of(&[PARAMETER, PARAMETER, 1]))
            .unwrap_err()
            .message;
        assert!(error.contains("the 3 parameters"), "{error}");
    }

    #[test]
    fn names_are_counted_in_characters() {
        assert!(name("pipeline name", &"é".repeat(128), PIPELINE_NAME).is_ok());
        assert!(name("pipeline name", "", PIPELINE_NAME).is_err());
        assert!(name("version name", &"v".repeat(128), VERSION_NAME).is_err());
    }
}
