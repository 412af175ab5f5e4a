//! Validating a custom resource, with the messages of upstream's OpenAPI validator. CEL rules
//! (`x-kubernetes-validations`) are not evaluated.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{FieldError, Rules};
use crate::arena::Relation;
use crate::scalar;

/// What OpenAPI calls the type of a value.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number)
            if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) =>
        {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn error(path: &str, reason: &'static str, message: String) -> FieldError {
    FieldError {
        field: if path.is_empty() {
            "<nil>".to_owned()
        } else {
            path.to_owned()
        },
        reason,
        message,
    }
}

fn invalid(path: &str, value: &Value, detail: &str) -> FieldError {
    error(
        path,
        "FieldValueInvalid",
        format!("Invalid value: {value}: {detail}"),
    )
}

/// Appends what is wrong with `value` to `errors`.
pub(super) fn value(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && rules.nullable {
        return;
    }
    if !type_fits(rules, value, path, errors) {
        return;
    }
    if !rules.allowed.is_empty() && !rules.allowed.contains(value) {
        let supported: Vec<String> = rules
            .allowed
            .iter()
            .map(|allowed| match allowed {
                Value::String(text) => format!("{text:?}"),
                other => format!("\"{other}\""),
            })
            .collect();
        errors.push(error(
            path,
            "FieldValueNotSupported",
            format!(
                "Unsupported value: {value}: supported values: {}",
                supported.join(", ")
            ),
        ));
    }
    match value {
        Value::Number(_) => number(rules, value, path, errors),
        Value::String(text) => string(rules, value, text, path, errors),
        Value::Array(items) => list(rules, value, items, path, errors),
        Value::Object(map) => object(rules, value, map, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    composites(rules, value, path, errors);
}

fn type_fits(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let found = type_of(value);
    let (fits, want) = if rules.int_or_string {
        (matches!(found, "integer" | "string"), "integer,string")
    } else {
        match rules.kind.as_deref() {
            None => return true,
            Some("number") => (matches!(found, "integer" | "number"), "number"),
            Some(want) => (found == want, want),
        }
    };
    if !fits {
        errors.push(error(
            path,
            "FieldValueTypeInvalid",
            format!(
                "Invalid value: \"{found}\": {path} in body must be of type {want}: \"{found}\""
            ),
        ));
    }
    fits
}

fn number(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let given = value.as_f64().unwrap_or_default();
    if let Some((limit, exclusive)) = &rules.minimum {
        let bound = limit.as_f64().unwrap_or(f64::MIN);
        if given < bound || (*exclusive && given <= bound) {
            let or_equal = if *exclusive { "" } else { " or equal to" };
            let detail = format!("{path} in body should be greater than{or_equal} {limit}");
            errors.push(invalid(path, value, &detail));
        }
    }
    if let Some((limit, exclusive)) = &rules.maximum {
        let bound = limit.as_f64().unwrap_or(f64::MAX);
        if given > bound || (*exclusive && given >= bound) {
            let or_equal = if *exclusive { "" } else { " or equal to" };
            let detail = format!("{path} in body should be less than{or_equal} {limit}");
            errors.push(invalid(path, value, &detail));
        }
    }
    if let Some(factor) = &rules.multiple_of {
        let quotient = given / factor.as_f64().unwrap_or(1.0);
        if (quotient - quotient.round()).abs() > 1e-9 {
            let detail = format!("{path} in body should be a multiple of {factor}");
            errors.push(invalid(path, value, &detail));
        }
    }
    let narrow = rules.format.as_deref() == Some("int32");
    if narrow
        && value
            .as_i64()
            .is_none_or(|given| i32::try_from(given).is_err())
    {
        let detail = format!("{path} in body must be of type int32: \"{value}\"");
        errors.push(invalid(path, value, &detail));
    }
}

fn string(rules: &Rules, value: &Value, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    if let Some(max) = rules.max_length.filter(|max| length > *max) {
        errors.push(error(
            path,
            "FieldValueTooLong",
            format!("Too long: may not be more than {max} bytes"),
        ));
    }
    if let Some(min) = rules.min_length.filter(|min| length < *min) {
        let detail = format!("{path} in body should be at least {min} chars long");
        errors.push(invalid(path, value, &detail));
    }
    if let Some(pattern) = rules
        .pattern
        .as_ref()
        .filter(|pattern| !pattern.is_match(text))
    {
        let detail = format!("{path} in body should match '{pattern}'");
        errors.push(invalid(path, value, &detail));
    }
    if let Some(format) = rules
        .format
        .as_deref()
        .filter(|format| !format_fits(format, text))
    {
        let detail = format!("{path} in body must be of type {format}: {value}");
        errors.push(invalid(path, value, &detail));
    }
}

fn format_fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => scalar::time(text, false).is_ok(),
        "date" => scalar::time(&format!("{text}T00:00:00Z"), false).is_ok(),
        "byte" => scalar::base64(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(address, bits)| {
            let most = match address.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(_)) => 32,
                Ok(std::net::IpAddr::V6(_)) => 128,
                Err(_) => return false,
            };
            bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        }),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            let parts: Vec<usize> = text.split('-').map(str::len).collect();
            parts == [8, 4, 4, 4, 12] && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
        }
        // Formats that are unknown are no validation, as upstream.
        _ => true,
    }
}

fn list(rules: &Rules, whole: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let count = items.len() as u64;
    if let Some(max) = rules.max_items.filter(|max| count > *max) {
        errors.push(error(
            path,
            "FieldValueTooMany",
            format!("Too many: {count}: must have at most {max} items"),
        ));
    }
    if let Some(min) = rules.min_items.filter(|min| count < *min) {
        let detail = format!("{path} in body should have at least {min} items");
        errors.push(invalid(path, whole, &detail));
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if let Some(below) = &rules.items {
            value(below, item, &path, errors);
        }
        if let Some(identity) = identity(rules, item) {
            let identity = identity.to_string();
            if seen.contains(&identity) {
                errors.push(error(
                    &path,
                    "FieldValueDuplicate",
                    format!("Duplicate value: {identity}"),
                ));
            }
            seen.insert(identity);
        }
    }
}

/// What makes an item unique in its list.
fn identity(rules: &Rules, item: &Value) -> Option<Value> {
    match &rules.list {
        Relation::Set => Some(item.clone()),
        Relation::Keyed(keys) => {
            let mut identity = Map::new();
            for key in keys.iter() {
                let default = rules
                    .items
                    .as_ref()
                    .and_then(|below| below.properties.get::<str>(key))
                    .and_then(|below| below.default.as_ref());
                if let Some(value) = item.get::<&str>(key).or(default) {
                    identity.insert(key.to_string(), value.clone());
                }
            }
            Some(Value::Object(identity))
        }
        _ if rules.unique_items => Some(item.clone()),
        _ => None,
    }
}

fn object(
    rules: &Rules,
    whole: &Value,
    map: &Map<String, Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let count = map.len() as u64;
    if let Some(max) = rules.max_properties.filter(|max| count > *max) {
        errors.push(error(
            path,
            "FieldValueTooMany",
            format!("Too many: {count}: must have at most {max} items"),
        ));
    }
    if let Some(min) = rules.min_properties.filter(|min| count < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        errors.push(invalid(path, whole, &detail));
    }
    for name in &rules.required {
        if !map.contains_key(name) {
            errors.push(error(
                &child(path, name),
                "FieldValueRequired",
                "Required value".to_owned(),
            ));
        }
    }
    for (name, entry) in map {
        let below = rules.properties.get(name).or(rules.additional.as_deref());
        if let Some(below) = below {
            value(below, entry, &child(path, name), errors);
        }
    }
}

fn composites(rules: &Rules, given: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fits = |rules: &Rules| {
        let mut found = Vec::new();
        value(rules, given, path, &mut found);
        found.is_empty()
    };
    for below in &rules.all_of {
        value(below, given, path, errors);
    }
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(fits) {
        let detail = format!("\"{path}\" must validate at least one schema (anyOf)");
        errors.push(invalid(path, given, &detail));
    }
    if !rules.one_of.is_empty() {
        let count = rules.one_of.iter().filter(|rules| fits(rules)).count();
        if count != 1 {
            let found = match count {
                0 => "Found none valid".to_owned(),
                count => format!("Found {count} valid alternatives"),
            };
            let detail =
                format!("\"{path}\" must validate one and only one schema (oneOf). {found}");
            errors.push(invalid(path, given, &detail));
        }
    }
    if rules.not.as_deref().is_some_and(fits) {
        let detail = format!("\"{path}\" must not validate the schema (not)");
        errors.push(invalid(path, given, &detail));
    }
}
