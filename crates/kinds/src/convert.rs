//! Kinds served in two versions: apps/v1beta2, which today's Kubernetes no longer serves and old
//! manifests still use, and events.k8s.io/v1, which is core/v1's Event under other names.
//!
//! Objects are stored in one version ([`storage`]); the server decodes and defaults what a client
//! sends with the row of the version it names, calls [`to_storage`], goes on with the stored
//! version's row, and answers with [`from_storage`].

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::tree;

/// Old name, new name, and the value that the old one must show when the new one is missing.
const EVENT_NAMES: [(&str, &str); 9] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
    ("related", "related"),
    ("reportingInstance", "reportingInstance"),
];

/// The warning that apps/v1beta2 kinds carry.
pub(crate) const V1BETA2_WARNINGS: [(&str, &str); 4] = [
    (
        "DaemonSet",
        "apps/v1beta2 DaemonSet is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 DaemonSet",
    ),
    (
        "Deployment",
        "apps/v1beta2 Deployment is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 Deployment",
    ),
    (
        "ReplicaSet",
        "apps/v1beta2 ReplicaSet is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 ReplicaSet",
    ),
    (
        "StatefulSet",
        "apps/v1beta2 StatefulSet is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 StatefulSet",
    ),
];

/// Group and version that a kind is stored under, if not its own.
pub fn storage(kind: &Kind) -> Option<(&'static str, &'static str)> {
    match (&*kind.group, &*kind.version) {
        ("apps", "v1beta2") => Some(("apps", "v1")),
        ("events.k8s.io", "v1") => Some(("", "v1")),
        _ => None,
    }
}

/// Rewrites an object of `kind` to the version it is stored in.
pub fn to_storage(kind: &Kind, object: &mut Value) {
    let Some((group, version)) = storage(kind) else {
        return;
    };
    if kind.group == "events.k8s.io" {
        rename(object, |(old, new)| (new, old));
        for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            tree::object(object).entry(key).or_insert(Value::Null);
        }
        tree::child(object, "involvedObject");
        tree::child(object, "source");
        for key in ["reportingComponent", "reportingInstance"] {
            tree::set_default(object, key, "");
        }
    }
    object["apiVersion"] = json!(api_version(group, version));
}

/// Rewrites a stored object to the version of `kind`.
pub fn from_storage(kind: &Kind, object: &mut Value) {
    if storage(kind).is_none() {
        return;
    }
    if kind.group == "events.k8s.io" {
        rename(object, |pair| pair);
        for key in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
            tree::object(object).entry(key).or_insert(Value::Null);
        }
        for key in ["reportingController", "reportingInstance"] {
            if tree::text(object, key).is_empty() {
                tree::remove(object, key);
            }
        }
    }
    object["apiVersion"] = json!(kind.api_version());
}

fn rename(
    object: &mut Value,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let map = tree::object(object);
    for pair in EVENT_NAMES {
        let (from, to) = direction(pair);
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;

    #[test]
    fn events_keep_their_content_under_either_name() {
        let kind = find("events.k8s.io", "v1", "events").unwrap();
        let stored = json!({"apiVersion": "v1", "kind": "Event", "message": "m",
            "involvedObject": {"name": "p"}, "source": {}, "reportingComponent": "",
            "reportingInstance": "", "firstTimestamp": null, "lastTimestamp": null, "eventTime": null});
        let mut event = stored.clone();
        from_storage(kind, &mut event);
        assert_eq!(event["note"], "m");
        assert_eq!(event["regarding"]["name"], "p");
        assert_eq!(event["apiVersion"], "events.k8s.io/v1");
        to_storage(kind, &mut event);
        assert_eq!(event, stored);
    }

    #[test]
    fn old_workloads_become_new_ones() {
        let kind = find("apps", "v1beta2", "deployments").unwrap();
        let mut object = json!({"apiVersion": "apps/v1beta2", "kind": "Deployment"});
        to_storage(kind, &mut object);
        assert_eq!(object["apiVersion"], "apps/v1");
    }
}
