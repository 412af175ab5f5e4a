//! The paths of `jsonPath` outputs and of conditions: `{}`, `{.metadata.name}`, `status.items[0].x`.

use serde_json::Value;

/// The text that a path selects; `{}` is the whole object.
pub(super) fn select(object: &Value, path: &str) -> Option<String> {
    let inner = path
        .trim()
        .strip_prefix('{')
        .and_then(|p| p.strip_suffix('}'))?;
    if inner.trim().is_empty() {
        return Some(object.to_string());
    }
    lookup(object, inner)
        .filter(|value| !value.is_null())
        .map(engine::render)
}

/// The value at a path. A name with dots in it stands in brackets or has them escaped: `a\.b`.
pub(super) fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.trim();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut value = object;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (key, after) = after.split_once(']')?;
            let name = key.trim_matches(['\'', '"']);
            value = match key.parse::<usize>() {
                Ok(index) => value.get(index)?,
                Err(_) => value.get(name)?,
            };
            rest = after;
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                _ => name.push(c),
            }
        }
        if name.is_empty() {
            return None;
        }
        value = value.get(&name)?;
        rest = &rest[end..];
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_select_what_kubectl_selects() {
        let object = json!({
            "metadata": {"name": "a", "labels": {"x.y/z": "l"}},
            "status": {"capacity": {"storage": "1Gi"}, "items": [{"n": 3}], "ready": true},
        });
        let check = |path: &str, expect: Option<&str>| {
            assert_eq!(select(&object, path).as_deref(), expect, "{path}");
        };
        check("{.metadata.name}", Some("a"));
        check("{.status.capacity.storage}", Some("1Gi"));
        check("{.status.items[0].n}", Some("3"));
        check("{.status.ready}", Some("true"));
        check(r"{.metadata.labels.x\.y/z}", Some("l"));
        check("{.metadata.labels['x.y/z']}", Some("l"));
        check("{.status.nothing}", None);
        check("{.status.items[7]}", None);
        check("no braces", None);
        assert_eq!(select(&object, "{}"), Some(object.to_string()));
    }
}
