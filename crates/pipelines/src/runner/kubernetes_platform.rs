//! What the Kubernetes platform's settings of a task (`kfp-kubernetes`) mean for its Pod.
//!
//! Texts come resolved: a `…Parameter` or `…Json` field holds the value itself.

use engine::render;
use serde_json::{Map, Value, json};

/// A Pod that is being put together.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The container of the step.
    pub(super) main: Value,
    pub(super) init: Vec<Value>,
    pub(super) volumes: Vec<Value>,
    /// Other fields of the Pod's spec.
    pub(super) spec: Map<String, Value>,
    /// `labels` and `annotations`.
    pub(super) metadata: Value,
}

impl Draft {
    /// Adds a volume and answers its name. An equal one is shared.
    fn volume(&mut self, wanted: &str, source: Value) -> String {
        let mut name = dns_label(wanted);
        let mut count = 1;
        loop {
            let mut volume = source.clone();
            volume["name"] = json!(name);
            match self.volumes.iter().find(|v| v["name"] == name) {
                Some(there) if *there == volume => return name,
                Some(_) => {
                    count += 1;
                    name = format!("{}-{count}", dns_label(wanted));
                }
                None => {
                    self.volumes.push(volume);
                    return name;
                }
            }
        }
    }

    fn mount(&mut self, volume: &str, path: &str, sub_path: Option<&str>) {
        let mut mount = json!({"name": volume, "mountPath": path});
        if let Some(sub_path) = sub_path.filter(|path| !path.is_empty()) {
            mount["subPath"] = json!(sub_path);
        }
        push(&mut self.main, "volumeMounts", mount);
    }

    fn env(&mut self, name: &str, from: &Value) {
        push(
            &mut self.main,
            "env",
            json!({"name": name, "valueFrom": from}),
        );
    }
}

/// Mounts a claim.
pub(super) fn mount_claim(draft: &mut Draft, claim: &str, path: &str, sub_path: Option<&str>) {
    let source = json!({"persistentVolumeClaim": {"claimName": claim}});
    let name = draft.volume(claim, source);
    draft.mount(&name, path, sub_path);
}

/// Applies the settings; the error names the setting.
pub(super) fn apply(config: &Value, draft: &mut Draft) -> Result<(), String> {
    files(config, draft)?;
    variables(config, draft)?;
    claims(config, draft)?;
    scratch(config, draft)?;
    placement(config, draft)?;
    pod(config, draft)?;
    init_containers(config, draft)
}

/// The names of the claims that the settings mount.
pub(super) fn claim_names(config: &Value) -> Vec<String> {
    let mounts = items(config, "pvcMount").into_iter();
    mounts
        .filter_map(|mount| name_of(mount, "pvcNameParameter", "constant"))
        .collect()
}

fn files(config: &Value, draft: &mut Draft) -> Result<(), String> {
    let kinds = [
        ("secretAsVolume", "secret", "secretName", "secretName"),
        ("configMapAsVolume", "configMap", "configMapName", "name"),
    ];
    for (key, source, name_key, field) in kinds {
        for item in items(config, key) {
            let Some(name) = name_of(item, &format!("{name_key}Parameter"), name_key) else {
                continue;
            };
            let mut about = json!({field: name});
            if let Some(optional) = item.get("optional").and_then(Value::as_bool) {
                about["optional"] = json!(optional);
            }
            let volume = draft.volume(&name, json!({source: about}));
            draft.mount(&volume, required(item, "mountPath", key)?, None);
        }
    }
    Ok(())
}

fn variables(config: &Value, draft: &mut Draft) -> Result<(), String> {
    let kinds = [
        ("secretAsEnv", "secretKeyRef", "secretName", "secretKey"),
        (
            "configMapAsEnv",
            "configMapKeyRef",
            "configMapName",
            "configMapKey",
        ),
    ];
    for (key, reference, name_key, key_key) in kinds {
        for item in items(config, key) {
            let Some(name) = name_of(item, &format!("{name_key}Parameter"), name_key) else {
                continue;
            };
            for pair in items(item, "keyToEnv") {
                let mut about = json!({"name": name, "key": required(pair, key_key, key)?});
                if let Some(optional) = item.get("optional").and_then(Value::as_bool) {
                    about["optional"] = json!(optional);
                }
                draft.env(required(pair, "envVar", key)?, &json!({reference: about}));
            }
        }
    }
    for item in items(config, "fieldPathAsEnv") {
        let path = required(item, "fieldPath", "fieldPathAsEnv")?;
        let name = required(item, "name", "fieldPathAsEnv")?;
        draft.env(name, &json!({"fieldRef": {"fieldPath": path}}));
    }
    Ok(())
}

fn claims(config: &Value, draft: &mut Draft) -> Result<(), String> {
    for item in items(config, "pvcMount") {
        let Some(claim) = name_of(item, "pvcNameParameter", "constant") else {
            continue;
        };
        let path = required(item, "mountPath", "pvcMount")?.to_owned();
        let sub_path = item.get("subPath").and_then(Value::as_str);
        mount_claim(draft, &claim, &path, sub_path);
    }
    for item in items(config, "genericEphemeralVolume") {
        const KEY: &str = "genericEphemeralVolume";
        let mut spec = json!({
            "accessModes": item.get("accessModes").cloned().unwrap_or_else(|| json!([])),
            "resources": {"requests": {"storage": required(item, "size", KEY)?}},
        });
        let class = item.get("storageClassName").and_then(Value::as_str);
        if item.get("defaultStorageClass").and_then(Value::as_bool) != Some(true)
            && let Some(class) = class
        {
            spec["storageClassName"] = json!(class);
        }
        let mut template = json!({"spec": spec});
        if let Some(metadata) = item.get("metadata").filter(|m| m.is_object()) {
            template["metadata"] = metadata.clone();
        }
        let source = json!({"ephemeral": {"volumeClaimTemplate": template}});
        let name = draft.volume(required(item, "volumeName", KEY)?, source);
        draft.mount(&name, required(item, "mountPath", KEY)?, None);
    }
    Ok(())
}

fn scratch(config: &Value, draft: &mut Draft) -> Result<(), String> {
    for item in items(config, "emptyDirMounts") {
        const KEY: &str = "emptyDirMounts";
        let source = json!({"emptyDir": empty_dir(item, "medium", "sizeLimit")});
        let name = draft.volume(required(item, "volumeName", KEY)?, source);
        draft.mount(&name, required(item, "mountPath", KEY)?, None);
    }
    if let Some(shared) = config.get("enabledSharedMemory").filter(|s| s.is_object()) {
        let mut about = empty_dir(shared, "", "size");
        about["medium"] = json!("Memory");
        let name = shared.get("volumeName").and_then(Value::as_str);
        let name = name.filter(|name| !name.is_empty()).unwrap_or("shm");
        let name = draft.volume(name, json!({"emptyDir": about}));
        draft.mount(&name, "/dev/shm", None);
    }
    Ok(())
}

fn empty_dir(item: &Value, medium: &str, size: &str) -> Value {
    let mut about = json!({});
    for (from, to) in [(medium, "medium"), (size, "sizeLimit")] {
        let text = item.get(from).and_then(Value::as_str);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            about[to] = json!(text);
        }
    }
    about
}

fn placement(config: &Value, draft: &mut Draft) -> Result<(), String> {
    if let Some(selector) = config.get("nodeSelector") {
        let labels = given(selector, "nodeSelectorJson").or_else(|| selector.get("labels"));
        let labels: Map<String, Value> = labels
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), json!(render(value))))
            .collect();
        if !labels.is_empty() {
            draft
                .spec
                .insert("nodeSelector".to_owned(), Value::Object(labels));
        }
    }
    let mut tolerations = Vec::new();
    for item in items(config, "tolerations") {
        if item.get("tolerationJson").is_some() {
            match given(item, "tolerationJson") {
                Some(Value::Array(list)) => tolerations.extend(list.iter().map(toleration)),
                Some(one) => tolerations.push(toleration(one)),
                None => {}
            }
        } else {
            tolerations.push(toleration(item));
        }
    }
    tolerations.retain(|one| one.as_object().is_some_and(|fields| !fields.is_empty()));
    if !tolerations.is_empty() {
        draft
            .spec
            .insert("tolerations".to_owned(), Value::Array(tolerations));
    }
    let mut affinity = json!({});
    for item in items(config, "nodeAffinity") {
        node_affinity(item, &mut affinity);
    }
    for item in items(config, "podAffinity") {
        pod_affinity(item, &mut affinity)?;
    }
    if affinity
        .as_object()
        .is_some_and(|fields| !fields.is_empty())
    {
        draft.spec.insert("affinity".to_owned(), affinity);
    }
    Ok(())
}

fn toleration(item: &Value) -> Value {
    let mut toleration = json!({});
    for key in ["key", "operator", "value", "effect"] {
        let text = item.get(key).filter(|v| !v.is_null()).map(render);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            toleration[key] = json!(text);
        }
    }
    if let Some(seconds) = item.get("tolerationSeconds").and_then(integer) {
        toleration["tolerationSeconds"] = json!(seconds);
    }
    toleration
}

fn node_affinity(item: &Value, affinity: &mut Value) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let into = &mut affinity["nodeAffinity"];
    if item.get("nodeAffinityJson").is_some() {
        let whole = given(item, "nodeAffinityJson")
            .map(whole_numbers)
            .unwrap_or_default();
        for term in items(&whole[REQUIRED], "nodeSelectorTerms") {
            push(&mut into[REQUIRED], "nodeSelectorTerms", term.clone());
        }
        for term in items(&whole, PREFERRED) {
            push(into, PREFERRED, term.clone());
        }
    } else {
        let mut term = json!({});
        for key in ["matchExpressions", "matchFields"] {
            let list = items(item, key);
            if !list.is_empty() {
                term[key] = json!(list);
            }
        }
        if term.as_object().is_some_and(|fields| !fields.is_empty()) {
            match item.get("weight").and_then(integer) {
                Some(weight) => push(
                    into,
                    PREFERRED,
                    json!({"weight": weight, "preference": term}),
                ),
                None => push(&mut into[REQUIRED], "nodeSelectorTerms", term),
            }
        }
    }
    if into.is_null()
        && let Some(fields) = affinity.as_object_mut()
    {
        fields.remove("nodeAffinity");
    }
}

fn pod_affinity(item: &Value, affinity: &mut Value) -> Result<(), String> {
    let anti = item.get("anti").and_then(Value::as_bool) == Some(true);
    let kind = if anti {
        "podAntiAffinity"
    } else {
        "podAffinity"
    };
    let selector = |expressions: &str, labels: &str| {
        let mut selector = json!({});
        let list = items(item, expressions);
        if !list.is_empty() {
            selector["matchExpressions"] = json!(list);
        }
        let labels = item.get(labels).and_then(Value::as_object);
        if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
            selector["matchLabels"] = json!(labels);
        }
        selector
    };
    let mut term = json!({
        "labelSelector": selector("matchPodExpressions", "matchPodLabels"),
        "topologyKey": required(item, "topologyKey", "podAffinity")?,
    });
    let namespaces = selector("matchNamespaceExpressions", "matchNamespaceLabels");
    if namespaces
        .as_object()
        .is_some_and(|fields| !fields.is_empty())
    {
        term["namespaceSelector"] = namespaces;
    }
    let named = items(item, "namespaces");
    if !named.is_empty() {
        term["namespaces"] = json!(named);
    }
    match item.get("weight").and_then(integer) {
        Some(weight) => push(
            &mut affinity[kind],
            "preferredDuringSchedulingIgnoredDuringExecution",
            json!({"weight": weight, "podAffinityTerm": term}),
        ),
        None => push(
            &mut affinity[kind],
            "requiredDuringSchedulingIgnoredDuringExecution",
            term,
        ),
    }
    Ok(())
}

fn pod(config: &Value, draft: &mut Draft) -> Result<(), String> {
    if let Some(metadata) = config.get("podMetadata").filter(|m| m.is_object()) {
        draft.metadata = metadata.clone();
    }
    let secrets = items(config, "imagePullSecret").into_iter();
    let secrets: Vec<Value> = secrets
        .filter_map(|item| name_of(item, "secretNameParameter", "secretName"))
        .map(|name| json!({"name": name}))
        .collect();
    if !secrets.is_empty() {
        draft
            .spec
            .insert("imagePullSecrets".to_owned(), Value::Array(secrets));
    }
    let policy = config.get("imagePullPolicy").and_then(Value::as_str);
    match policy.filter(|policy| !policy.is_empty()) {
        None => {}
        Some(policy @ ("Always" | "Never" | "IfNotPresent")) => {
            draft.main["imagePullPolicy"] = json!(policy);
        }
        Some(other) => {
            return Err(format!(
                "imagePullPolicy {other:?} is none of Always, Never, IfNotPresent"
            ));
        }
    }
    let deadline = config.get("activeDeadlineSeconds").and_then(integer);
    if let Some(seconds) = deadline.filter(|seconds| *seconds > 0) {
        draft
            .spec
            .insert("activeDeadlineSeconds".to_owned(), json!(seconds));
    }
    if let Some(security) = config.get("securityContext").filter(|s| s.is_object()) {
        let mut context = json!({});
        for key in ["runAsUser", "runAsGroup"] {
            if let Some(id) = security.get(key).and_then(integer) {
                context[key] = json!(id);
            }
        }
        if let Some(flag) = security.get("runAsNonRoot").and_then(Value::as_bool) {
            context["runAsNonRoot"] = json!(flag);
        }
        draft.main["securityContext"] = context;
    }
    Ok(())
}

fn init_containers(config: &Value, draft: &mut Draft) -> Result<(), String> {
    for (index, item) in items(config, "initContainers").into_iter().enumerate() {
        let mut container = whole_numbers(item);
        if container
            .get("name")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            container["name"] = json!(format!("init-{index}"));
        }
        match container.get("restartPolicy").and_then(Value::as_str) {
            None | Some("Always") => {}
            Some("") => {
                if let Some(fields) = container.as_object_mut() {
                    fields.remove("restartPolicy");
                }
            }
            Some(other) => {
                return Err(format!(
                    "initContainers: restartPolicy {other:?} is not Always, the only one allowed"
                ));
            }
        }
        for mount in items(item, "volumeMounts") {
            let name = required(mount, "name", "initContainers.volumeMounts")?;
            // The step's own volumes; one that it does not mount is made for both.
            if !draft.volumes.iter().any(|volume| volume["name"] == name) {
                draft.volume(name, json!({"emptyDir": {}}));
            }
        }
        draft.init.push(container);
    }
    Ok(())
}

fn items<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    let list = value.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter(|item| !item.is_null())
        .collect()
}

/// A field that was a reference to a value.
fn given<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    let value = item.get(key)?;
    let value = value.pointer("/runtimeValue/constant").unwrap_or(value);
    (!value.is_null()).then_some(value)
}

/// A name, from the reference or from the older plain field.
fn name_of(item: &Value, parameter: &str, plain: &str) -> Option<String> {
    let value = given(item, parameter).or_else(|| {
        let plain = item.get(plain)?;
        (!plain.is_null()).then_some(plain)
    });
    value.map(render).filter(|name| !name.is_empty())
}

fn required<'a>(item: &'a Value, key: &str, of: &str) -> Result<&'a str, String> {
    let text = item.get(key).and_then(Value::as_str);
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| format!("{of}: {key} is missing in {item}"))
}

/// A whole number, also as the text that 64-bit numbers are in JSON.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => whole_numbers(value).as_i64(),
    }
}

/// Numbers without a fraction become integers: structs of protocol buffers know only doubles.
fn whole_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = engine::ParameterType::Integer.accept(Value::Number(number.clone()));
            whole.unwrap_or_else(|mismatch| mismatch.given)
        }
        Value::Array(items) => items.iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), whole_numbers(value)))
            .collect(),
        other => other.clone(),
    }
}

pub(super) fn push(value: &mut Value, key: &str, item: Value) {
    if value.is_null() {
        *value = json!({});
    }
    match value.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => value[key] = json!([item]),
    }
}

/// A name as a volume may have it.
fn dns_label(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let label: String = lower
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(55)
        .collect();
    let label = label.trim_matches('-');
    if label.is_empty() {
        "volume".to_owned()
    } else {
        label.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(config: &Value) -> Draft {
        let mut draft = Draft::default();
        apply(config, &mut draft).unwrap();
        draft
    }

    #[test]
    fn objects_become_files_and_variables() {
        let draft = applied(&json!({
            "secretAsVolume": [{"secretNameParameter": "a.b", "mountPath": "/s", "optional": true}],
            "configMapAsEnv": [{"configMapName": "c", "keyToEnv": [
                {"configMapKey": "k", "envVar": "V"}]}],
            "fieldPathAsEnv": [{"name": "N", "fieldPath": "metadata.name"}],
            "secretAsEnv": [{"secretNameParameter": null, "keyToEnv": []}],
        }));
        assert_eq!(
            json!(draft.volumes),
            json!([{"name": "a-b", "secret": {"secretName": "a.b", "optional": true}}])
        );
        assert_eq!(
            draft.main,
            json!({
                "volumeMounts": [{"name": "a-b", "mountPath": "/s"}],
                "env": [
                    {"name": "V", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
            })
        );
    }

    #[test]
    fn volumes_of_one_name_are_kept_apart() {
        let draft = applied(&json!({
            "secretAsVolume": [{"secretName": "x", "mountPath": "/s"}],
            "configMapAsVolume": [{"configMapName": "x", "mountPath": "/c"}],
            "pvcMount": [{"pvcNameParameter": "claim", "mountPath": "/p", "subPath": "q"},
                {"constant": "claim", "mountPath": "/r"}],
        }));
        let names: Vec<_> = draft.volumes.iter().map(|v| v["name"].clone()).collect();
        assert_eq!(json!(names), json!(["x", "x-2", "claim"]));
        assert_eq!(draft.main["volumeMounts"][2]["subPath"], "q");
    }

    #[test]
    fn placement_is_merged_and_numbers_are_whole() {
        let draft = applied(&json!({
            "nodeSelector": {"labels": {"disk": "ssd"}},
            "tolerations": [{"key": "k", "operator": "Equal", "tolerationSeconds": "10"},
                {"tolerationJson": [{"key": "l"}, {"key": "m"}]}, {"tolerationJson": null}],
            "nodeAffinity": [{"nodeAffinityJson": {}},
                {"nodeAffinityJson": {"preferredDuringSchedulingIgnoredDuringExecution":
                    [{"weight": 100.0, "preference": {}}]}},
                {"matchExpressions": [{"key": "z", "operator": "Exists"}]}],
            "podAffinity": [{"topologyKey": "h", "anti": true, "matchPodLabels": {"a": "b"}}],
        }));
        assert_eq!(
            Value::Object(draft.spec),
            json!({
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "k", "operator": "Equal", "tolerationSeconds": 10},
                    {"key": "l"}, {"key": "m"}],
                "affinity": {
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution":
                            [{"weight": 100, "preference": {}}],
                        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "z", "operator": "Exists"}]}]},
                    },
                    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "h", "labelSelector": {"matchLabels": {"a": "b"}}}]},
                },
            })
        );
        let empty = applied(&json!({"nodeAffinity": [{"nodeAffinityJson": {}}]}));
        assert!(empty.spec.is_empty());
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let mut draft = Draft::default();
        for (config, word) in [
            (json!({"imagePullPolicy": "Sometimes"}), "Sometimes"),
            (
                json!({"secretAsVolume": [{"secretName": "x"}]}),
                "mountPath",
            ),
        ] {
            let error = apply(&config, &mut draft).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
