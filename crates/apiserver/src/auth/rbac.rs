//! Role-based access control, evaluated from the cache.
//!
//! Roles and bindings are indexed by subject; the index is rebuilt when one of the four resources
//! has changed, which a comparison of four numbers tells.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use kinds::selector::LabelSelector;
use kinds::tree;
use serde_json::Value;

use super::{MASTERS, UserInfo};
use crate::storage::{Cache, Store};

/// The API group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Set for paths outside the resource API; the rest is then empty.
    pub(crate) path: Option<&'a str>,
}

impl Attributes<'_> {
    /// Why not, in upstream's words.
    pub(crate) fn refusal(&self, user: &UserInfo) -> String {
        let who = kinds::field::quote(&user.name);
        if let Some(path) = self.path {
            return format!(
                "User {who} cannot {} path {}",
                self.verb,
                kinds::field::quote(path)
            );
        }
        let resource = if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", self.namespace)
        };
        format!(
            "User {who} cannot {} resource \"{resource}\" in API group \"{}\" {place}",
            self.verb, self.group
        )
    }
}

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) resource_names: Vec<String>,
    pub(crate) urls: Vec<String>,
}

impl Rule {
    pub(crate) fn read(value: &Value) -> Self {
        let words = |path| {
            tree::words(value, path)
                .into_iter()
                .map(ToOwned::to_owned)
                .collect()
        };
        Self {
            verbs: words("verbs"),
            api_groups: words("apiGroups"),
            resources: words("resources"),
            resource_names: words("resourceNames"),
            urls: words("nonResourceURLs"),
        }
    }

    fn allows(&self, wanted: &Attributes<'_>) -> bool {
        if !has(&self.verbs, wanted.verb) {
            return false;
        }
        if let Some(path) = wanted.path {
            return self.urls.iter().any(|url| url_covers(url, path));
        }
        has(&self.api_groups, wanted.group)
            && self
                .resources
                .iter()
                .any(|r| resource_covers(r, wanted.resource, wanted.subresource))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == wanted.name))
    }

    /// As upstream prints a rule in messages.
    fn describe(&self) -> String {
        let list = |name: &str, values: &[String]| {
            (!values.is_empty()).then(|| {
                let quoted: Vec<String> = values.iter().map(|v| kinds::field::quote(v)).collect();
                format!("{name}:[{}]", quoted.join(" "))
            })
        };
        let parts: Vec<String> = [
            list("APIGroups", &self.api_groups),
            list("Resources", &self.resources),
            list("ResourceNames", &self.resource_names),
            list("NonResourceURLs", &self.urls),
            list("Verbs", &self.verbs),
        ]
        .into_iter()
        .flatten()
        .collect();
        format!("{{{}}}", parts.join(", "))
    }

    /// The rule as rules that each name one thing.
    fn parts(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for url in &self.urls {
                parts.push(Self {
                    verbs: vec![verb.clone()],
                    urls: vec![url.clone()],
                    ..Self::default()
                });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let part = Self {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    parts.extend(self.resource_names.iter().map(|name| Self {
                        resource_names: vec![name.clone()],
                        ..part.clone()
                    }));
                }
            }
        }
        parts
    }

    /// Whether this rule grants all of `part`, one of [`Rule::parts`].
    fn covers(&self, part: &Self) -> bool {
        let all = |mine: &[String], theirs: &[String]| theirs.iter().all(|t| has(mine, t));
        if !all(&self.verbs, &part.verbs) {
            return false;
        }
        if let Some(url) = part.urls.first() {
            return self.urls.iter().any(|mine| url_covers(mine, url));
        }
        let resource = part
            .resources
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        let (name, sub) = resource.split_once('/').unwrap_or((resource, ""));
        all(&self.api_groups, &part.api_groups)
            && self
                .resources
                .iter()
                .any(|r| r == resource || resource_covers(r, name, sub))
            && (self.resource_names.is_empty()
                || (!part.resource_names.is_empty()
                    && part
                        .resource_names
                        .iter()
                        .all(|n| self.resource_names.contains(n))))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn url_covers(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

fn resource_covers(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        Some((name, sub)) => sub == subresource && (name == "*" || name == resource),
        None => subresource.is_empty() && rule == resource,
    }
}

/// A grant: the rules, and the namespace they are limited to.
#[derive(Debug, Clone)]
struct Grant {
    namespace: Option<String>,
    rules: Arc<[Rule]>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

#[derive(Debug, Default)]
struct Index {
    built_from: [u64; 4],
    grants: HashMap<Subject, Vec<Grant>>,
}

/// Decides who may do what.
#[derive(Debug)]
pub(crate) struct Authorizer {
    store: Arc<Store>,
    caches: [Arc<Cache>; 4],
    index: RwLock<Arc<Index>>,
}

const RESOURCES: [&str; 4] = [
    "clusterroles",
    "clusterrolebindings",
    "roles",
    "rolebindings",
];

impl Authorizer {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let caches = RESOURCES.map(|r| store.cache(&crate::storage::resource_key(GROUP, r)));
        Self {
            store,
            caches,
            index: RwLock::default(),
        }
    }

    pub(crate) fn allows(&self, user: &UserInfo, wanted: &Attributes<'_>) -> bool {
        if user.in_group(MASTERS) {
            return true;
        }
        let index = self.index();
        index
            .grants(user)
            .filter(|grant| {
                grant
                    .namespace
                    .as_deref()
                    .is_none_or(|ns| ns == wanted.namespace)
            })
            .flat_map(|grant| grant.rules.iter())
            .any(|rule| rule.allows(wanted))
    }

    /// The rules a user has in a namespace, or cluster-wide when it is empty.
    pub(crate) fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let index = self.index();
        let mut rules: Vec<Rule> = index
            .grants(user)
            .filter(|grant| grant.namespace.as_deref().is_none_or(|ns| ns == namespace))
            .flat_map(|grant| grant.rules.iter().cloned())
            .collect();
        if user.in_group(MASTERS) {
            let any = || vec!["*".to_owned()];
            rules.push(Rule {
                verbs: any(),
                api_groups: any(),
                resources: any(),
                ..Rule::default()
            });
            rules.push(Rule {
                verbs: any(),
                urls: any(),
                ..Rule::default()
            });
        }
        rules
    }

    /// Nobody may hand out more than they have: the message if `granted` goes beyond.
    pub(crate) fn escalates(
        &self,
        user: &UserInfo,
        namespace: &str,
        granted: &[Rule],
    ) -> Option<String> {
        let held = self.rules(user, namespace);
        let missing: Vec<String> = granted
            .iter()
            .flat_map(Rule::parts)
            .filter(|part| !held.iter().any(|rule| rule.covers(part)))
            .map(|part| part.describe())
            .collect();
        if missing.is_empty() {
            return None;
        }
        let groups: Vec<String> = user.groups.iter().map(|g| kinds::field::quote(g)).collect();
        Some(format!(
            "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            kinds::field::quote(&user.name),
            groups.join(" "),
            missing.join("\n")
        ))
    }

    /// The rules that a binding in `namespace` would hand out.
    pub(crate) fn rules_of_ref(&self, role_ref: &Value, namespace: &str) -> Option<Arc<[Rule]>> {
        let name = tree::text(role_ref, "name");
        let roles = if tree::text(role_ref, "kind") == "ClusterRole" {
            0
        } else {
            2
        };
        let namespace = if roles == 0 { "" } else { namespace };
        let role = self.caches[roles].get(namespace, name)?;
        Some(self.rules_of(role.value()))
    }

    fn rules_of(&self, role: &Value) -> Arc<[Rule]> {
        let mut rules: Vec<Rule> = tree::list(role, "rules").iter().map(Rule::read).collect();
        // An aggregating role is the union of the roles it selects.
        for selector in tree::list(role, "aggregationRule.clusterRoleSelectors") {
            let Ok(selector) = LabelSelector::from_object(Some(selector)) else {
                continue;
            };
            for other in &self.caches[0].snapshot("", self.store.position()).objects {
                if selector.matches_object(other.value()) {
                    rules.extend(tree::list(other.value(), "rules").iter().map(Rule::read));
                }
            }
        }
        rules.into()
    }

    fn index(&self) -> Arc<Index> {
        let now = self.caches.each_ref().map(|cache| cache.last());
        {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            if index.built_from == now {
                return Arc::clone(&index);
            }
        }
        let mut slot = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if slot.built_from != now {
            *slot = Arc::new(self.build(now));
        }
        Arc::clone(&slot)
    }

    fn build(&self, built_from: [u64; 4]) -> Index {
        let mut index = Index {
            built_from,
            ..Index::default()
        };
        for bindings in [1, 3] {
            for binding in &self.caches[bindings]
                .snapshot("", self.store.position())
                .objects
            {
                let value = binding.value();
                let namespace = (bindings == 3).then(|| binding.namespace.to_string());
                let role_ref = value.get("roleRef").unwrap_or(&Value::Null);
                let Some(rules) = self.rules_of_ref(role_ref, &binding.namespace) else {
                    continue;
                };
                for subject in tree::list(value, "subjects") {
                    let name = tree::text(subject, "name");
                    let key = match tree::text(subject, "kind") {
                        "User" => Subject::User(name.to_owned()),
                        "Group" => Subject::Group(name.to_owned()),
                        // A RoleBinding may leave out its own namespace.
                        "ServiceAccount" => {
                            let own = tree::text(subject, "namespace");
                            let binding = namespace.as_deref().unwrap_or_default();
                            let own = if own.is_empty() { binding } else { own };
                            Subject::User(format!("system:serviceaccount:{own}:{name}"))
                        }
                        _ => continue,
                    };
                    let grant = Grant {
                        namespace: namespace.clone(),
                        rules: Arc::clone(&rules),
                    };
                    index.grants.entry(key).or_default().push(grant);
                }
            }
        }
        index
    }
}

impl Index {
    fn grants<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().map(|g| Subject::Group(g.clone())))
            .filter_map(|subject| self.grants.get(&subject))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, group: &str, resource: &str, names: &[&str]) -> Rule {
        Rule {
            verbs: vec![verbs.to_owned()],
            api_groups: vec![group.to_owned()],
            resources: vec![resource.to_owned()],
            resource_names: names.iter().map(|&n| n.to_owned()).collect(),
            urls: Vec::new(),
        }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_no_more() {
        let pods = |subresource, name| Attributes {
            verb: "get",
            resource: "pods",
            subresource,
            name,
            ..Attributes::default()
        };
        assert!(rule("get", "", "pods", &[]).allows(&pods("", "a")));
        assert!(!rule("get", "", "pods", &[]).allows(&pods("log", "a")));
        assert!(rule("get", "", "pods/log", &[]).allows(&pods("log", "a")));
        assert!(rule("*", "*", "*", &[]).allows(&pods("log", "a")));
        assert!(rule("get", "", "*/log", &[]).allows(&pods("log", "a")));
        assert!(!rule("get", "apps", "pods", &[]).allows(&pods("", "a")));
        assert!(rule("get", "", "pods", &["a"]).allows(&pods("", "a")));
        assert!(!rule("get", "", "pods", &["a"]).allows(&pods("", "b")));
        let list = Attributes {
            verb: "list",
            resource: "pods",
            ..Attributes::default()
        };
        assert!(!rule("list", "", "pods", &["a"]).allows(&list));
    }

    #[test]
    fn a_rule_covers_only_narrower_ones() {
        let secrets = rule("get", "", "secrets", &[]);
        assert!(rule("*", "*", "*", &[]).covers(&secrets));
        assert!(secrets.covers(&rule("get", "", "secrets", &["one"])));
        assert!(!rule("get", "", "secrets", &["one"]).covers(&secrets));
        assert!(!secrets.covers(&rule("*", "", "secrets", &[])));
    }

    #[test]
    fn url_rules_match_by_prefix_only_with_a_star() {
        assert!(url_covers("/healthz/*", "/healthz/ping"));
        assert!(url_covers("*", "/metrics"));
        assert!(!url_covers("/healthz", "/healthz/ping"));
    }
}
