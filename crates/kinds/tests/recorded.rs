//! Replays recorded requests of a real Kubernetes API server against the rows: an in-memory server
//! of a few lines that decodes nothing, stores in a map, and calls the rows in the documented
//! order. The recordings lie beside the repository; without them the test says so and ends.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use kinds::core::pod::admission;
use kinds::core::service::allocation;
use kinds::selector::{FieldSelector, LabelSelector};
use kinds::{Ctx, Kind};
use serde_json::{Map, Value, json};

/// Groups of recordings that hang on the rows and not on the server around them.
const REPLAYED: [&str; 18] = [
    "apps/deployment-",
    "apps/generation",
    "apps/statefulset-",
    "batch/cronjob-",
    "batch/job-defaults",
    "crud/data-key",
    "crud/labels-invalid",
    "errors/name",
    "events/",
    "list/",
    "namespaces/",
    "nodes/",
    "pods/",
    "rbac/invalid",
    "secrets/",
    "services/",
    "storage/pv",
    "table/",
];

fn recordings() -> Option<Vec<Value>> {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.extend(["..", "..", "..", "shared", "kube-conformance", "cases.json"]);
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).expect("the recordings are JSON"))
}

struct Server {
    ctx: Ctx,
    namespace: String,
    objects: BTreeMap<(String, String), Value>,
    made: u32,
}

struct Target {
    kind: &'static Kind,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    query: String,
}

/// What the little server does not do; the step is not replayed.
struct Beyond;

impl Server {
    fn target(&self, path: &str) -> Result<Target, Beyond> {
        let path = path.replace("${ns}", &self.namespace);
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let mut parts = path.trim_start_matches('/').split('/');
        let (group, version) = match parts.next() {
            Some("api") => ("", parts.next().ok_or(Beyond)?),
            Some("apis") => (parts.next().ok_or(Beyond)?, parts.next().ok_or(Beyond)?),
            _ => return Err(Beyond),
        };
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let kind = kinds::find(group, version, rest.first().ok_or(Beyond)?).ok_or(Beyond)?;
        let own = |at: usize| rest.get(at).map(|part| (*part).to_owned());
        Ok(Target {
            kind,
            namespace,
            name: own(1),
            subresource: own(2),
            query: query.to_owned(),
        })
    }

    fn answer(&mut self, step: &Value) -> Result<(u64, Value), Beyond> {
        let target = self.target(step["path"].as_str().unwrap())?;
        let body = fill(&step["body"], &self.namespace);
        match step["method"].as_str().unwrap() {
            "POST" if target.name.is_none() => self.create(&target, body),
            "PATCH" => self.patch(&target, &body),
            "GET" => self.get(&target, step),
            _ => Err(Beyond),
        }
    }

    fn create(&mut self, target: &Target, body: Value) -> Result<(u64, Value), Beyond> {
        let (kind, mut object) = (target.kind, body);
        if !object.is_object() || step_is_typed_wrongly(&object) {
            return Err(Beyond);
        }
        kind.default(&mut object);
        let mut again = object.clone();
        kind.default(&mut again);
        assert_eq!(
            again,
            object,
            "defaults of {} are not final",
            kind.group_kind()
        );
        let metadata = &mut object["metadata"];
        if let Some(namespace) = &target.namespace {
            metadata["namespace"] = json!(namespace);
        }
        self.made += 1;
        metadata["uid"] = json!(format!("00000000-0000-0000-0000-{:012}", self.made));
        metadata["creationTimestamp"] = json!(self.ctx.now_text());
        kind.prepare_create(&self.ctx, &mut object);
        if kind.plural == "pods" {
            let account = admission::service_account(&mut object);
            if account != "default" {
                return Err(Beyond);
            }
            admission::apply_service_account(&mut object, &json!({}), "x7k2p");
            admission::default_tolerations(&mut object);
            admission::apply_priority(&mut object, None);
        }
        let errors = kind.validate_create(&self.ctx, &object);
        if !errors.is_empty() {
            return Ok((422, invalid(kind, &object, &errors)));
        }
        allocate(&mut object, None);
        object["metadata"]["resourceVersion"] = json!(self.made.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects
            .insert((kind.group_resource(), name), object.clone());
        Ok((201, object))
    }

    fn patch(&mut self, target: &Target, body: &Value) -> Result<(u64, Value), Beyond> {
        let kind = target.kind;
        let key = (kind.group_resource(), target.name.clone().ok_or(Beyond)?);
        let old = self.objects.get(&key).ok_or(Beyond)?.clone();
        let mut new = old.clone();
        merge(&mut new, body);
        kind.default(&mut new);
        let errors = match target.subresource.as_deref() {
            None => {
                kind.prepare_update(&self.ctx, &mut new, &old);
                kind.validate_update(&self.ctx, &new, &old)
            }
            Some("status") => {
                kind.prepare_status_update(&self.ctx, &mut new, &old);
                kind.validate_status_update(&self.ctx, &new, &old)
            }
            Some(_) => return Err(Beyond),
        };
        if !errors.is_empty() {
            return Ok((422, invalid(kind, &new, &errors)));
        }
        allocate(&mut new, Some(&old));
        self.objects.insert(key, new.clone());
        Ok((200, new))
    }

    fn get(&self, target: &Target, step: &Value) -> Result<(u64, Value), Beyond> {
        let kind = target.kind;
        let resource = match kind.storage() {
            ("", _) => kind.plural.to_string(),
            (group, _) => format!("{}.{group}", kind.plural),
        };
        let table = step["headers"]["Accept"]
            .as_str()
            .is_some_and(|a| a.contains("as=Table"));
        if step["headers"]["Accept"].is_string() && !table || target.subresource.is_some() {
            return Err(Beyond);
        }
        if let Some(name) = &target.name {
            let object = self.objects.get(&(resource, name.clone())).ok_or(Beyond)?;
            let answer = if table {
                self.table(kind, [object])
            } else {
                object.clone()
            };
            return Ok((200, answer));
        }
        let (mut labels, mut fields) = (String::new(), String::new());
        for pair in target.query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or(Beyond)?;
            match key {
                "labelSelector" => labels = unescape(value),
                "fieldSelector" => fields = unescape(value),
                "limit" if table => {}
                _ => return Err(Beyond),
            }
        }
        let bad = |text: String| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": text, "reason": "BadRequest", "code": 400});
            Ok((400, status))
        };
        let labels = match LabelSelector::parse(&labels) {
            Ok(labels) => labels,
            Err(error) => return bad(error.to_string()),
        };
        let fields = match FieldSelector::parse(&fields, kind.strategy.fields) {
            Ok(fields) => fields,
            Err(error) => return bad(error.to_string()),
        };
        let found = self
            .objects
            .iter()
            .filter(|((of, _), _)| *of == resource)
            .map(|(_, object)| object)
            .filter(|object| labels.matches_object(object))
            .filter(|object| fields.matches(object, kind.strategy.fields));
        if table {
            return Ok((200, self.table(kind, found)));
        }
        let mut items: Vec<Value> = found.cloned().collect();
        for item in &mut items {
            kinds::convert::from_storage(kind, item);
        }
        let list = json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": "1"}, "items": items});
        Ok((200, list))
    }

    fn table<'a>(&self, kind: &Kind, objects: impl IntoIterator<Item = &'a Value>) -> Value {
        let columns: Vec<Value> = kind
            .columns()
            .iter()
            .map(|column| {
                let mut column = column.to_json();
                column.as_object_mut().unwrap().remove("description");
                column
            })
            .collect();
        let rows: Vec<Value> = objects
            .into_iter()
            .map(|object| json!({"cells": kind.row(&self.ctx, object)}))
            .collect();
        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": columns, "rows": rows})
    }
}

/// Wrong types are found by the schemas, before the rows see an object.
fn step_is_typed_wrongly(object: &Value) -> bool {
    let quantity = |value: &Value| value.as_str().is_some_and(|text| text == "ten");
    object["data"]
        .as_object()
        .is_some_and(|data| data.values().any(|v| v == "not base64!"))
        || quantity(&object["spec"]["capacity"]["storage"])
}

fn allocate(object: &mut Value, old: Option<&Value>) {
    if object["kind"] != "Service" {
        return;
    }
    let needs = allocation::needs(object, old);
    if needs.any_cluster_ip {
        allocation::set_cluster_ip(object, "10.0.0.7");
    }
    for (i, need) in needs.node_ports.iter().enumerate() {
        allocation::set_node_port(object, need.index, need.wanted.unwrap_or(30_100 + i as u16));
    }
}

fn invalid(kind: &Kind, object: &Value, errors: &kinds::ErrorList) -> Value {
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    let mut details = json!({"kind": *kind.kind, "causes": errors.causes()});
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    if !kind.group.is_empty() {
        details["group"] = json!(*kind.group);
    }
    let message = format!(
        "{} \"{name}\" is invalid: {}",
        kind.group_kind(),
        errors.message()
    );
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Invalid", "details": details, "code": 422})
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let map = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn fill(value: &Value, namespace: &str) -> Value {
    let text = value.to_string().replace("${ns}", namespace);
    serde_json::from_str(&text).unwrap()
}

fn unescape(text: &str) -> String {
    [("%3D", "="), ("%20", " "), ("%2C", ",")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The named parts of a body, as the recorder picks them.
fn select(body: &Value, paths: &[Value]) -> Value {
    let mut picked = Map::new();
    for path in paths.iter().filter_map(Value::as_str) {
        let mut at = Some(body);
        for part in path.split('/') {
            at = match (at, part.split_once('=')) {
                (Some(Value::Array(list)), Some((key, wanted))) => {
                    list.iter().find(|element| element[key] == wanted)
                }
                (Some(Value::Array(list)), None) => {
                    part.parse::<usize>().ok().and_then(|index| list.get(index))
                }
                (Some(other), _) => other.get(part),
                (None, _) => None,
            };
        }
        picked.insert(
            path.to_owned(),
            at.cloned().unwrap_or_else(|| json!("<absent>")),
        );
    }
    Value::Object(picked)
}

/// Replaces what differs from server to server, as the recorder does.
fn normalise(key: &str, value: &Value, names: (&str, &str)) -> Value {
    let placeholder = match key {
        "uid" => Some("<uid>"),
        "resourceVersion" => Some("<rv>"),
        "clusterIP" => Some("<ip>"),
        "nodePort" => Some("<port>"),
        "creationTimestamp" | "lastPhaseTransitionTime" => Some("<time>"),
        _ => None,
    };
    match (placeholder, value) {
        (Some(placeholder), Value::String(text)) if !text.is_empty() && text != "None" => {
            return json!(placeholder);
        }
        (Some(placeholder), Value::Number(_)) => return json!(placeholder),
        _ => {}
    }
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (k.clone(), normalise(k, v, names)))
            .collect(),
        Value::Array(list)
            if key == "clusterIPs" && list.first().is_some_and(|ip| ip != "None") =>
        {
            json!(["<ip>"])
        }
        Value::Array(list) => list.iter().map(|v| normalise("", v, names)).collect(),
        Value::String(text) => {
            let uid = text.starts_with("00000000-0000-");
            let text = text
                .replace(names.0, names.1)
                .replace("kube-api-access-x7k2p", "kube-api-access-<generated>");
            json!(if uid { "<uid>".to_owned() } else { text })
        }
        other => other.clone(),
    }
}

fn without(body: &Value, ignored: &[&str]) -> Value {
    let mut body = body.clone();
    for path in ignored {
        let (parent, key) = path.rsplit_once('/').unwrap_or(("", path));
        let pointer = if parent.is_empty() {
            String::new()
        } else {
            format!("/{parent}")
        };
        if let Some(map) = body.pointer_mut(&pointer).and_then(Value::as_object_mut) {
            map.remove(key);
        }
    }
    body
}

/// Cells that depend on time or address are compared by column name only.
fn blur_table(body: &mut Value) {
    let names: Vec<String> = body["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| column["name"].as_str().unwrap_or("").to_owned())
        .collect();
    if body["kind"] != "Table" || body["rows"].is_null() {
        return;
    }
    for row in body["rows"].as_array_mut().into_iter().flatten() {
        row.as_object_mut().unwrap().remove("object");
        for (name, cell) in names
            .iter()
            .zip(row["cells"].as_array_mut().into_iter().flatten())
        {
            let shown = !["<none>", "<unknown>", "None"]
                .iter()
                .any(|fixed| cell == fixed);
            if ["Age", "Last Seen", "First Seen", "Created At"].contains(&name.as_str()) && shown {
                *cell = json!(format!("<{name}>"));
            }
        }
    }
    body.as_object_mut().unwrap().remove("metadata");
}

#[test]
fn recorded_answers() {
    let Some(cases) = recordings() else {
        println!("skipped: there are no recordings beside the repository");
        return;
    };
    let (mut compared, mut differences) = (0, Vec::new());
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        if !REPLAYED.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let plain = case["ns"].as_str().unwrap();
        let namespace = format!("{plain}-z");
        let generated = format!("{plain}<generated>");
        let mut server = Server {
            ctx: Ctx::new("2026-01-01T00:00:00Z".parse().unwrap()),
            namespace: namespace.clone(),
            objects: BTreeMap::new(),
            made: 0,
        };
        if !name.starts_with("table/") {
            let root = json!({"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}});
            server.objects.insert(
                ("configmaps".to_owned(), "kube-root-ca.crt".to_owned()),
                root,
            );
        }
        for (i, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let Ok((status, body)) = server.answer(step) else {
                // What a write beyond this server did cannot be seen afterwards.
                if step["method"] == "GET" {
                    continue;
                }
                break;
            };
            let picks = step["pick"].as_array().cloned().unwrap_or_default();
            let mut expected = step["expect"]["body"].clone();
            let mut ignored = vec!["metadata/managedFields", "status/lastPhaseTransitionTime"];
            let listed = step["ignore"].as_array().into_iter().flatten();
            ignored.extend(listed.filter_map(Value::as_str));
            let mut body = without(&body, &ignored);
            expected = without(&expected, &ignored);
            blur_table(&mut expected);
            blur_table(&mut body);
            if !picks.is_empty() {
                body = select(&body, &picks);
            }
            let body = normalise("", &body, (&namespace, &generated));
            compared += 1;
            if step["expect"]["status"] != status || expected != body {
                differences.push(format!(
                    "{name} step {i}:\n  expected {} {expected}\n  answered {status} {body}",
                    step["expect"]["status"]
                ));
            }
        }
    }
    assert!(compared > 100, "only {compared} answers were compared");
    assert!(
        differences.is_empty(),
        "{} of {compared}:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
