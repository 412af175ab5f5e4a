//! `TF_CONFIG`: which of several replicas this process is.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// What this process does in a training job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It trains and exports: the only process, or the chief of several.
    Chief {
        /// The name for logs.
        name: String,
    },
    /// It trains, and the chief exports.
    Worker {
        /// The name for logs.
        name: String,
    },
    /// It does not train: a parameter server or an evaluator.
    Idle {
        /// The name for logs.
        name: String,
    },
}

#[derive(Debug, Deserialize)]
struct TfConfig {
    #[serde(default)]
    cluster: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    task: Option<Task>,
}

#[derive(Debug, Deserialize)]
struct Task {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    index: Index,
}

/// Some writers make the index a string.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Index {
    Number(u64),
    Text(String),
}

impl Default for Index {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Role {
    /// The role that a `TF_CONFIG` gives; without one this is the only process.
    pub fn from_tf_config(text: Option<&str>) -> Result<Self, String> {
        let alone = || Self::Chief {
            name: "chief".to_owned(),
        };
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(alone());
        };
        let config: TfConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Some(task) = config.task.filter(|task| !task.kind.is_empty()) else {
            return Ok(alone());
        };
        let index = match task.index {
            Index::Number(index) => index,
            Index::Text(text) => text
                .parse()
                .map_err(|_| format!("task.index {text:?} is not a number"))?,
        };
        let name = format!("{} {index}", task.kind);
        match task.kind.as_str() {
            "chief" | "master" => Ok(Self::Chief { name }),
            // Where no chief is named, the first worker is it.
            "worker" => {
                let has_chief =
                    config.cluster.contains_key("chief") || config.cluster.contains_key("master");
                let chief = index == 0 && !has_chief;
                Ok(if chief {
                    Self::Chief { name }
                } else {
                    Self::Worker { name }
                })
            }
            "ps" | "evaluator" => Ok(Self::Idle { name }),
            other => Err(format!(
                "task.type {other:?} is not chief, master, worker, ps or evaluator"
            )),
        }
    }

    /// Whether this process writes checkpoints and the export.
    pub fn is_chief(&self) -> bool {
        matches!(self, Self::Chief { .. })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Chief { name } | Self::Worker { name } | Self::Idle { name }) = self;
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chief_is_found_however_the_cluster_is_written() {
        let chief = |text: &str| Role::from_tf_config(Some(text)).unwrap().is_chief();
        assert!(Role::from_tf_config(None).unwrap().is_chief());
        assert!(chief("") && chief("{}") && chief(r#"{"task": {}}"#));
        assert!(chief(r#"{"task": {"type": "master", "index": 0}}"#));
        let cluster = |task: &str| {
            format!(r#"{{"cluster": {{"chief": ["c:1"], "worker": ["w:1"]}}, "task": {task}}}"#)
        };
        assert!(chief(&cluster(r#"{"type": "chief", "index": 0}"#)));
        assert!(!chief(&cluster(r#"{"type": "worker", "index": "0"}"#)));
        let workers = |index: u8| {
            format!(
                r#"{{"cluster": {{"worker": ["a", "b"]}},
                     "task": {{"type": "worker", "index": {index}}}}}"#
            )
        };
        assert!(chief(&workers(0)) && !chief(&workers(1)));
        let ps = Role::from_tf_config(Some(r#"{"task": {"type": "ps", "index": 2}}"#)).unwrap();
        assert_eq!(
            ps,
            Role::Idle {
                name: "ps 2".to_owned()
            }
        );
    }

    #[test]
    fn a_broken_one_is_an_error_that_says_where() {
        let error = |text: &str| Role::from_tf_config(Some(text)).unwrap_err();
        assert!(error("{").contains("line 1"));
        assert!(error(r#"{"task": {"type": "boss"}}"#).contains("\"boss\""));
        assert!(error(r#"{"task": {"type": "worker", "index": "x"}}"#).contains("\"x\""));
    }
}
