//! ConfigMaps, Secrets and ServiceAccounts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::kind::Strategy;
use crate::selector::Fields;
use crate::{meta, table, tree};

const DATA_LIMIT: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub(crate) const CONFIG_MAP: Strategy = Strategy {
    default: config_map_defaults,
    validate: |_, object| validate_config_map(object),
    validate_update: |_, new, old| {
        let mut errors = validate_frozen(new, old, &["data", "binaryData"]);
        errors.extend(validate_config_map(new));
        errors
    },
    row: Some(table::config::config_map),
    ..Strategy::GENERIC
};

pub(crate) const SECRET: Strategy = Strategy {
    default: secret_defaults,
    validate: |_, object| validate_secret(object),
    validate_update: |_, new, old| {
        let mut errors = meta::immutable(new, old, "type");
        errors.extend(validate_frozen(new, old, &["data"]));
        errors.extend(validate_secret(new));
        errors
    },
    row: Some(table::config::secret),
    fields: &Fields::with(&["metadata.name", "metadata.namespace", "type"]),
    ..Strategy::GENERIC
};

pub(crate) const SERVICE_ACCOUNT: Strategy = Strategy {
    default: |account| drop_empty(account, &["secrets", "imagePullSecrets"]),
    row: Some(table::config::service_account),
    ..Strategy::GENERIC
};

fn config_map_defaults(object: &mut Value) {
    drop_empty(object, &["data", "binaryData"]);
}

fn drop_empty(object: &mut Value, keys: &[&str]) {
    for key in keys {
        let empty = match object.get(*key) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if empty {
            tree::remove(object, key);
        }
    }
}

fn secret_defaults(secret: &mut Value) {
    tree::set_default_text(secret, "type", "Opaque");
    let Some(Value::Object(plain)) = tree::object(secret).remove("stringData") else {
        drop_empty(secret, &["data"]);
        return;
    };
    let data = tree::child(secret, "data");
    for (key, value) in plain {
        data[key] = json!(STANDARD.encode(value.as_str().unwrap_or("")));
    }
    drop_empty(secret, &["data"]);
}

fn validate_keys(object: &Value, bag: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in tree::map(object, bag)
        .into_iter()
        .flat_map(serde_json::Map::keys)
    {
        for message in content::config_key(key) {
            errors.push(Error::invalid(
                &Path::new(bag).key(key),
                key.as_str(),
                message,
            ));
        }
    }
    errors
}

/// The bytes of a bag's values; base64 ones are counted decoded.
fn size(object: &Value, bag: &str, encoded: bool) -> usize {
    tree::strings(object, bag)
        .map(|(_, value)| {
            if encoded {
                value.len() / 4 * 3
            } else {
                value.len()
            }
        })
        .sum()
}

fn validate_config_map(object: &Value) -> ErrorList {
    let mut errors = validate_keys(object, "data");
    for key in tree::map(object, "data")
        .into_iter()
        .flat_map(serde_json::Map::keys)
    {
        if tree::map(object, "binaryData").is_some_and(|binary| binary.contains_key(key)) {
            let at = Path::new("data").key(key);
            errors.push(Error::invalid(
                &at,
                key.as_str(),
                "duplicate of key present in binaryData",
            ));
        }
    }
    errors.extend(validate_keys(object, "binaryData"));
    if size(object, "data", false) + size(object, "binaryData", true) > DATA_LIMIT {
        errors.push(Error::too_long(&Path::new(""), DATA_LIMIT));
    }
    errors
}

fn validate_frozen(new: &Value, old: &Value, bags: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    if !tree::truthy(old, "immutable") {
        return errors;
    }
    if !tree::truthy(new, "immutable") {
        errors.push(Error::forbidden(&Path::new("immutable"), IMMUTABLE));
    }
    for bag in bags {
        if !tree::same(new, old, bag) {
            errors.push(Error::forbidden(&Path::new(bag), IMMUTABLE));
        }
    }
    errors
}

fn validate_secret(secret: &Value) -> ErrorList {
    let mut errors = validate_keys(secret, "data");
    let path = Path::new("data");
    if size(secret, "data", true) > DATA_LIMIT {
        errors.push(Error::too_long(&path, DATA_LIMIT));
    }
    let data = tree::map(secret, "data");
    let has = |key: &str| data.is_some_and(|data| data.contains_key(key));
    let filled = |key: &str| {
        data.and_then(|data| data.get(key))
            .and_then(Value::as_str)
            .is_some_and(|v| !v.is_empty())
    };
    match tree::text(secret, "type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let named = tree::strings(secret, "metadata.annotations")
                .any(|(k, v)| k == key && !v.is_empty());
            if !named {
                let at = Path::new("metadata.annotations").key(key);
                errors.push(Error::required(&at, ""));
            }
        }
        "kubernetes.io/dockercfg" => errors.extend(docker_config(data, ".dockercfg", &path)),
        "kubernetes.io/dockerconfigjson" => {
            errors.extend(docker_config(data, ".dockerconfigjson", &path));
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.push(Error::required(&path.key("username"), ""));
            errors.push(Error::required(&path.key("password"), ""));
        }
        "kubernetes.io/ssh-auth" if !filled("ssh-privatekey") => {
            errors.push(Error::required(&path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    errors.push(Error::required(&path.key(key), ""));
                }
            }
        }
        _ => {}
    }
    errors
}

fn docker_config(
    data: Option<&serde_json::Map<String, Value>>,
    key: &str,
    path: &Path,
) -> ErrorList {
    let at = path.key(key);
    let Some(text) = data.and_then(|data| data.get(key)).and_then(Value::as_str) else {
        return Error::required(&at, "").into();
    };
    let decoded = STANDARD.decode(text).unwrap_or_default();
    if serde_json::from_slice::<Value>(&decoded).is_ok() {
        return ErrorList::new();
    }
    let detail = if decoded.is_empty() {
        "unexpected end of JSON input".to_owned()
    } else {
        "invalid JSON".to_owned()
    };
    Error::invalid(&at, "<secret contents redacted>", detail).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::Ctx;

    fn check_secret(secret: Value, expected: &str) {
        let ctx = Ctx::new(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!((SECRET.validate)(&ctx, &secret).message(), expected);
    }

    #[test]
    fn secret_types_require_their_keys() {
        check_secret(json!({"type": "Opaque"}), "");
        check_secret(
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {}}),
            "data[.dockerconfigjson]: Required value",
        );
        check_secret(
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        );
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"stringData": {"a": "b"}});
        secret_defaults(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "Yg=="}, "type": "Opaque"}));
    }
}
