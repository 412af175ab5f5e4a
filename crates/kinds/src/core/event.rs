//! Events of both groups: core/v1 (stored) and events.k8s.io/v1 (the same under other names).

use serde_json::{Value, json};

use crate::content;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::kind::Strategy;
use crate::selector::Fields;
use crate::{table, tree};

const FIELDS: Fields = Fields {
    alias: &[
        ("source", "source.component"),
        ("reportingComponent", "reportingComponent"),
    ],
    ..Fields::with(&[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
        "metadata.name",
        "metadata.namespace",
    ])
};

/// The fields of events.k8s.io/v1, whose values stand at core/v1's paths in the store.
const NEW_FIELDS: Fields = Fields {
    alias: &[
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        (
            "regarding.resourceVersion",
            "involvedObject.resourceVersion",
        ),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
    ],
    ..Fields::with(&["reason", "type", "metadata.name", "metadata.namespace"])
};

pub(crate) const STRATEGY: Strategy = Strategy {
    default: defaults,
    validate: |_, event| validate(event),
    validate_update: |_, new, _| validate(new),
    row: Some(table::core::event),
    fields: &FIELDS,
    create_on_update: true,
    ..Strategy::GENERIC
};

pub(crate) const NEW_STRATEGY: Strategy = Strategy {
    default: |event| {
        tree::child(event, "metadata");
        tree::object(event)
            .entry("eventTime")
            .or_insert(Value::Null);
    },
    validate: |_, _| ErrorList::new(),
    validate_update: |_: &Ctx, _, _| ErrorList::new(),
    fields: &NEW_FIELDS,
    ..STRATEGY
};

fn defaults(event: &mut Value) {
    for key in ["involvedObject", "source"] {
        tree::child(event, key);
    }
    let map = tree::object(event);
    for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        map.entry(key).or_insert(Value::Null);
    }
    for key in ["reportingComponent", "reportingInstance"] {
        map.entry(key).or_insert(json!(""));
    }
}

fn validate(event: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let namespace = tree::text(event, "metadata.namespace");
    let involved = tree::text(event, "involvedObject.namespace");
    let matches = match involved {
        "" => namespace == "default",
        other => other == namespace,
    };
    let at = Path::new("involvedObject.namespace");
    if !matches {
        errors.push(Error::invalid(
            &at,
            involved,
            "does not match event.namespace",
        ));
    }
    if !involved.is_empty() {
        for message in content::dns1123_label(namespace) {
            errors.push(Error::invalid(&Path::new("namespace"), namespace, message));
        }
    }
    if tree::get(event, "eventTime").is_none() {
        return errors;
    }
    let controller = tree::text(event, "reportingComponent");
    if controller.is_empty() {
        errors.push(Error::required(&Path::new("reportingController"), ""));
    } else {
        for message in content::qualified_name(controller) {
            errors.push(Error::invalid(
                &Path::new("reportingController"),
                controller,
                message,
            ));
        }
    }
    for (key, limit) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let value = tree::text(event, key);
        if value.is_empty() {
            errors.push(Error::required(&Path::new(key), ""));
        } else if value.len() > limit {
            let detail = format!("can have at most {limit} characters");
            errors.push(Error::invalid(&Path::new(key), value, detail));
        }
    }
    let message = tree::text(event, "message");
    if message.len() > 1024 {
        let detail = "can have at most 1024 characters";
        errors.push(Error::invalid(&Path::new("message"), message, detail));
    }
    errors
}
