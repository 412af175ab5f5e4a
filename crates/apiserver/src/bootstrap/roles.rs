//! The default ClusterRoles and their bindings, read from `roles.txt`.

use serde_json::{Value, json};

use crate::auth::rbac::GROUP;

/// The roles and bindings as objects.
pub(super) fn objects() -> Vec<Value> {
    let mut roles: Vec<(String, Vec<Value>, Vec<Value>)> = Vec::new();
    for line in include_str!("roles.txt").lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            if let Some((_, _, rules)) = roles.last_mut() {
                rules.push(rule(line));
            }
            continue;
        }
        let (name, subjects) = line.split_once(" -> ").unwrap_or((line, ""));
        let subjects = subjects.split_whitespace().map(subject).collect();
        roles.push((name.trim().to_owned(), subjects, Vec::new()));
    }
    let mut objects = Vec::new();
    for (name, subjects, rules) in roles {
        let metadata = json!({
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        });
        objects.push(json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata,
            "rules": rules,
        }));
        if !subjects.is_empty() {
            objects.push(json!({
                "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
                "subjects": subjects,
            }));
        }
    }
    objects
}

fn words(text: &str) -> Vec<&str> {
    text.trim()
        .split(',')
        .map(|word| if word == "core" { "" } else { word })
        .collect()
}

fn rule(line: &str) -> Value {
    let parts: Vec<&str> = line.split('|').collect();
    match parts.as_slice() {
        [urls, verbs] => json!({"nonResourceURLs": words(urls), "verbs": words(verbs)}),
        [groups, resources, verbs] => json!({
            "apiGroups": words(groups), "resources": words(resources), "verbs": words(verbs),
        }),
        [groups, resources, verbs, names] => json!({
            "apiGroups": words(groups), "resources": words(resources), "verbs": words(verbs),
            "resourceNames": words(names),
        }),
        _ => Value::Null,
    }
}

fn subject(text: &str) -> Value {
    match text.split_once(':') {
        Some(("ServiceAccount", name)) => {
            json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"})
        }
        Some((kind, name)) => json!({"kind": kind, "name": name, "apiGroup": GROUP}),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let objects = objects();
        assert!(objects.len() > 30);
        for object in &objects {
            assert!(!object.to_string().contains("null"), "{object}");
        }
        let admin = objects
            .iter()
            .find(|o| o["metadata"]["name"] == "cluster-admin")
            .unwrap();
        assert_eq!(
            admin["rules"][0],
            json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})
        );
        assert_eq!(
            admin["rules"][1],
            json!({"nonResourceURLs": ["*"], "verbs": ["*"]})
        );
    }
}
