//! The entries of `metadata.managedFields`: read into [`Managers`], written back in upstream's
//! order, kept to a bounded number.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::fieldset::FieldSet;

/// The manager that the oldest updates are merged into.
const ANCIENT: &str = "ancient-changes";
const MAX_UPDATES: usize = 10;

/// Identifies an entry of the managed fields, as upstream's manager identifier does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) manager: String,
    pub(super) operation: Operation,
    /// Empty for an applier: it stays the same one through versions.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) set: FieldSet,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
}

pub(super) type Managers = BTreeMap<Id, Entry>;

impl Id {
    /// How conflict messages name the manager.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        match self.operation {
            Operation::Apply => text,
            Operation::Update => format!("{text} using {}", self.api_version),
        }
    }
}

pub(super) fn managed_of(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

pub(super) fn take_managed(object: &mut Value) -> Vec<Value> {
    let taken = object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|metadata| metadata.remove("managedFields"));
    match taken {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

pub(super) fn live_or_new(live: &[Value], given: Vec<Value>, subresource: bool) -> Managers {
    if subresource {
        return decode(live);
    }
    if given.len() == 1 && given[0].as_object().is_some_and(Map::is_empty) {
        return Managers::new();
    }
    let managers = decode(&given);
    if managers.is_empty() {
        return decode(live);
    }
    managers
}

/// The entries that can be read; if one cannot, none, as upstream.
pub(super) fn decode(list: &[Value]) -> Managers {
    let mut managers = Managers::new();
    for value in list {
        let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
        let operation = match value["operation"].as_str() {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return Managers::new(),
        };
        let Ok(set) = FieldSet::from_fields_v1(&value["fieldsV1"]) else {
            return Managers::new();
        };
        let id = Id {
            manager: text("manager"),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => text("apiVersion"),
            },
            subresource: text("subresource"),
        };
        let entry = Entry {
            set,
            api_version: text("apiVersion"),
            time: value["time"].as_str().map(str::to_owned),
        };
        managers.insert(id, entry);
    }
    managers
}

pub(super) fn put_managed(object: &mut Value, managers: &Managers) {
    let mut entries: Vec<(&Id, &Entry)> = managers.iter().collect();
    entries.sort_by_key(|(id, entry)| {
        (
            id.operation,
            entry.time.clone().unwrap_or_default(),
            id.manager.clone(),
            entry.api_version.clone(),
            id.subresource.clone(),
        )
    });
    let list: Vec<Value> = entries
        .into_iter()
        .map(|(id, entry)| {
            let mut value = json!({
                "manager": id.manager,
                "operation": match id.operation {
                    Operation::Apply => "Apply",
                    Operation::Update => "Update",
                },
                "apiVersion": entry.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": entry.set.to_fields_v1(),
            });
            if let Some(time) = &entry.time {
                value["time"] = Value::from(time.as_str());
            }
            if !id.subresource.is_empty() {
                value["subresource"] = Value::from(id.subresource.as_str());
            }
            value
        })
        .collect();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    if list.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(list));
    }
}

/// Keeps the number of updating managers down by merging the oldest of a version into one.
pub(super) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<Id> = managers
        .keys()
        .filter(|id| id.operation == Operation::Update)
        .cloned()
        .collect();
    let mut count = updaters.len();
    if count <= MAX_UPDATES {
        return;
    }
    updaters.sort_by_key(|id| (managers[id].time.clone().unwrap_or_default(), id.clone()));
    let mut first_of_version: BTreeMap<String, Id> = BTreeMap::new();
    for id in updaters {
        if count <= MAX_UPDATES {
            break;
        }
        let bucket = Id {
            manager: ANCIENT.to_owned(),
            operation: Operation::Update,
            api_version: id.api_version.clone(),
            subresource: String::new(),
        };
        let Some(first) = first_of_version.get(&id.api_version) else {
            first_of_version.insert(id.api_version.clone(), id);
            continue;
        };
        if !managers.contains_key(&bucket) {
            if let Some(entry) = managers.remove(first) {
                managers.insert(bucket.clone(), entry);
            }
        }
        if id == bucket {
            continue;
        }
        if let Some(merged) = managers.remove(&id) {
            count -= 1;
            if let Some(entry) = managers.get_mut(&bucket) {
                entry.set = entry.set.union(&merged.set);
                entry.time = merged.time;
            }
        }
    }
}
