//! Discovery: which group-versions and resources there are, and the documents that say so
//! (`/api`, `/apis`, `/apis/<group>`, `/apis/<group>/<version>`, the aggregated form). Which
//! custom resources exist is told by the caller.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::builtin;

/// One resource or subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `pods`, or `pods/log` for a subresource.
    pub name: String,
    /// Empty for subresources.
    pub singular: String,
    pub namespaced: bool,
    pub kind: String,
    /// The group and version of the kind where they are not those of the resource
    /// (`deployments/scale` speaks `autoscaling/v1`).
    pub kind_group_version: Option<(String, String)>,
    pub verbs: Vec<String>,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
}

impl Resource {
    pub fn is_subresource(&self) -> bool {
        self.name.contains('/')
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// A group-version and its resources; of a group's versions the preferred comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupVersion {
    pub group: String,
    pub version: String,
    pub resources: Vec<Resource>,
}

impl GroupVersion {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// The groups in the order a server lists them; custom groups follow by name.
const ORDER: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// The built-in group-versions, `apps/v1beta2` among them, in the order of `/apis`.
pub fn builtin() -> Vec<GroupVersion> {
    let mut all: Vec<GroupVersion> = builtin::discovery()
        .iter()
        .map(|(api_version, resources)| {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            GroupVersion {
                group: group.to_owned(),
                version: version.to_owned(),
                resources: resources
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(read_resource)
                    .collect(),
            }
        })
        .collect();
    all.sort_by_key(|gv| ORDER.iter().position(|group| *group == gv.group));
    if let Some(at) = all.iter().position(|gv| gv.group == "apps") {
        let retired = GroupVersion {
            group: "apps".to_owned(),
            version: "v1beta2".to_owned(),
            resources: all[at]
                .resources
                .iter()
                .filter(|resource| {
                    resource.kind == "Scale"
                        || builtin::V1BETA2_KINDS.contains(&resource.kind.as_str())
                })
                .cloned()
                .collect(),
        };
        all.insert(at + 1, retired);
    }
    all
}

fn read_resource(value: &Value) -> Resource {
    let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
    let texts = |name: &str| -> Vec<String> {
        value[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    Resource {
        name: text("name"),
        singular: text("singularName"),
        namespaced: value["namespaced"].as_bool().unwrap_or(false),
        kind: text("kind"),
        kind_group_version: value
            .get("version")
            .and_then(Value::as_str)
            .map(|version| (text("group"), version.to_owned())),
        verbs: texts("verbs"),
        short_names: texts("shortNames"),
        categories: texts("categories"),
    }
}

/// `GET /api`.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}
        ],
    })
}

/// `GET /api/v1` and `GET /apis/<group>/<version>`.
pub fn resource_list(gv: &GroupVersion) -> Value {
    let resources: Vec<Value> = gv
        .resources
        .iter()
        .map(|resource| {
            let mut value = json!({
                "name": resource.name,
                "singularName": resource.singular,
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": resource.verbs,
            });
            if let Some((group, version)) = &resource.kind_group_version {
                if !group.is_empty() {
                    value["group"] = Value::from(group.as_str());
                }
                value["version"] = Value::from(version.as_str());
            }
            add_names(&mut value, resource);
            if resource.has_verb("watch") {
                let hash = storage_version_hash(&gv.group, storage_version(gv), &resource.kind);
                value["storageVersionHash"] = Value::from(hash);
            }
            value
        })
        .collect();
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": gv.api_version(),
        "resources": resources,
    });
    // The core group's list is the one without an apiVersion.
    if !gv.group.is_empty() {
        list["apiVersion"] = Value::from("v1");
    }
    list
}

fn storage_version(gv: &GroupVersion) -> &str {
    if gv.group == "apps" {
        "v1"
    } else {
        &gv.version
    }
}

fn add_names(value: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
}

/// What a kind is stored as, as a short hash that clients compare.
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    STANDARD.encode(&digest[..8])
}

/// `GET /apis/<group>`; `None` if no version of it is given.
pub fn group(all: &[GroupVersion], name: &str) -> Option<Value> {
    let mut value = group_entry(all, name)?;
    value["kind"] = Value::from("APIGroup");
    value["apiVersion"] = Value::from("v1");
    Some(value)
}

/// `GET /apis`.
pub fn group_list(all: &[GroupVersion]) -> Value {
    let groups: Vec<Value> = group_names(all)
        .into_iter()
        .filter(|name| !name.is_empty())
        .filter_map(|name| group_entry(all, name))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_names(all: &[GroupVersion]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for gv in all {
        if !names.contains(&gv.group.as_str()) {
            names.push(&gv.group);
        }
    }
    names
}

fn group_entry(all: &[GroupVersion], name: &str) -> Option<Value> {
    let versions: Vec<Value> = all
        .iter()
        .filter(|gv| gv.group == name)
        .map(|gv| json!({"groupVersion": gv.api_version(), "version": gv.version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

/// The forms of the aggregated document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    /// The `apiVersion`, which the answer's content type repeats.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V2 => "apidiscovery.k8s.io/v2",
            Self::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }

    /// What an `Accept` header asks for first, if it asks for this document before plain JSON.
    pub fn accepted(header: &str) -> Option<Self> {
        for part in header.split(',') {
            let mut parameters = part.split(';').map(str::trim);
            let media = parameters.next().unwrap_or("");
            let parameters: Vec<&str> = parameters.collect();
            if parameters.contains(&"as=APIGroupDiscoveryList") {
                if media == "application/json" && parameters.contains(&"g=apidiscovery.k8s.io") {
                    if parameters.contains(&"v=v2") {
                        return Some(Self::V2);
                    }
                    if parameters.contains(&"v=v2beta1") {
                        return Some(Self::V2Beta1);
                    }
                }
            } else if matches!(media, "application/json" | "*/*" | "application/*") {
                return None;
            }
        }
        None
    }
}

/// The aggregated document of `/api` (`core`) or `/apis`.
pub fn aggregated(all: &[GroupVersion], core: bool, form: Aggregated) -> Value {
    let items: Vec<Value> = group_names(all)
        .into_iter()
        .filter(|name| name.is_empty() == core)
        .map(|name| {
            let versions: Vec<Value> = all
                .iter()
                .filter(|gv| gv.group == name)
                .map(aggregated_version)
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !name.is_empty() {
                metadata["name"] = Value::from(name);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": form.api_version(),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_version(gv: &GroupVersion) -> Value {
    let subresources = |name: &str| -> Vec<Value> {
        gv.resources
            .iter()
            .filter_map(|sub| {
                let (parent, own) = sub.name.split_once('/')?;
                (parent == name).then(|| {
                    json!({
                        "subresource": own,
                        "responseKind": response_kind(gv, sub),
                        "verbs": sub.verbs,
                    })
                })
            })
            .collect()
    };
    let resources: Vec<Value> = gv
        .resources
        .iter()
        .filter(|resource| !resource.is_subresource())
        .map(|resource| {
            let mut value = json!({
                "resource": resource.name,
                "responseKind": response_kind(gv, resource),
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular,
                "verbs": resource.verbs,
            });
            add_names(&mut value, resource);
            let below = subresources(&resource.name);
            if !below.is_empty() {
                value["subresources"] = Value::Array(below);
            }
            value
        })
        .collect();
    json!({"version": gv.version, "freshness": "Current", "resources": resources})
}

fn response_kind(gv: &GroupVersion, resource: &Resource) -> Value {
    let (group, version) = match &resource.kind_group_version {
        Some((group, version)) => (group, version),
        None => (&gv.group, &gv.version),
    };
    json!({"group": group, "version": version, "kind": resource.kind})
}

#[cfg(test)]
mod tests {
    use super::{Aggregated, aggregated, builtin, group, group_list, resource_list};

    #[test]
    fn the_hash_is_the_one_real_servers_show() {
        assert_eq!(
            super::storage_version_hash("", "v1", "ConfigMap"),
            "qFsyl6wFWjQ="
        );
    }

    #[test]
    fn retired_versions_follow_their_successors() {
        let all = builtin();
        let apps = group(&all, "apps").unwrap();
        assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(apps["versions"][1]["version"], "v1beta2");
        assert!(group(&all, "nope").is_none());
        assert_eq!(
            group_list(&all)["groups"][0]["name"],
            "apiregistration.k8s.io"
        );
        let v1beta2 = all.iter().find(|gv| gv.version == "v1beta2").unwrap();
        let names: Vec<&str> = v1beta2.resources.iter().map(|r| r.name.as_str()).collect();
        assert!(names.contains(&"deployments/scale") && !names.contains(&"controllerrevisions"));
    }

    #[test]
    fn every_group_has_a_place_in_the_order() {
        assert_eq!(builtin()[0].api_version(), "v1");
        for gv in builtin() {
            assert!(super::ORDER.contains(&gv.group.as_str()), "{}", gv.group);
        }
    }

    #[test]
    fn lists_carry_names_and_subresources() {
        let all = builtin();
        let core = resource_list(&all[0]);
        let find = |name: &str| {
            core["resources"]
                .as_array()
                .unwrap()
                .iter()
                .find(|resource| resource["name"] == name)
                .unwrap()
                .clone()
        };
        assert_eq!(find("configmaps")["shortNames"][0], "cm");
        assert_eq!(find("pods/eviction")["group"], "policy");
        assert!(find("bindings").get("storageVersionHash").is_none());
        let document = aggregated(&all, true, Aggregated::V2);
        assert_eq!(document["items"].as_array().unwrap().len(), 1);
        assert_eq!(document["items"][0]["versions"][0]["freshness"], "Current");
    }

    #[test]
    fn accept_headers_choose_the_form() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(Aggregated::accepted(kubectl), Some(Aggregated::V2));
        assert_eq!(Aggregated::accepted("application/json"), None);
        assert_eq!(Aggregated::accepted("application/json, */*"), None);
        assert_eq!(Aggregated::accepted("*/*"), None);
    }
}
