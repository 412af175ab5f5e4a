//! Whether a schema is structural: every part of it says what type it is.

use serde_json::Value;

use crate::status::Cause;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// The problems of the schema at `field`.
pub(super) fn check(schema: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = schema["type"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "object") {
        let message = format!("Invalid value: \"{kind}\": must be object at the root");
        causes.push(Cause::new(
            "FieldValueInvalid",
            &format!("{field}.type"),
            message,
        ));
    }
    walk(schema, field, "at the root", &mut causes);
    causes
}

fn walk(schema: &Value, field: &str, place: &str, causes: &mut Vec<Cause>) {
    let flag = |name: &str| schema[name] == true;
    let typed = format!("{field}.type");
    match schema["type"].as_str().unwrap_or_default() {
        "" if flag("x-kubernetes-int-or-string")
            || flag("x-kubernetes-preserve-unknown-fields") => {}
        "" => {
            let message = format!("Required value: must not be empty {place}");
            causes.push(Cause::new("FieldValueRequired", &typed, message));
        }
        kind if !TYPES.contains(&kind) => {
            let types: Vec<String> = TYPES.iter().map(|t| format!("\"{t}\"")).collect();
            let message = format!(
                "Unsupported value: \"{kind}\": supported values: {}",
                types.join(", ")
            );
            causes.push(Cause::new("FieldValueNotSupported", &typed, message));
        }
        _ => {}
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let field = format!("{field}.properties[{name}]");
        walk(property, &field, "for specified object fields", causes);
    }
    if schema["items"].is_object() {
        let field = format!("{field}.items");
        walk(
            &schema["items"],
            &field,
            "for specified array items",
            causes,
        );
    }
    if schema["additionalProperties"].is_object() {
        let field = format!("{field}.additionalProperties");
        walk(
            &schema["additionalProperties"],
            &field,
            "for specified object fields",
            causes,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_part_must_have_a_type() {
        let good = json!({
            "type": "object",
            "properties": {
                "a": {"x-kubernetes-int-or-string": true},
                "b": {"type": "array", "items": {"type": "string"}},
            },
        });
        assert!(check(&good, "s").is_empty());
        let bad = json!({
            "type": "object",
            "properties": {"a": {}, "b": {"type": "array", "items": {"type": "strange"}}},
        });
        let fields: Vec<String> = check(&bad, "s").into_iter().map(|c| c.field).collect();
        assert_eq!(
            fields,
            ["s.properties[a].type", "s.properties[b].items.type"]
        );
    }
}
