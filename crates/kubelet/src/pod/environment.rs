//! The environment of a container: `env`, `envFrom`, service variables, and `$(VAR)` in commands.
//!
//! Pure: ConfigMaps, Secrets and Services are handed in. Fetching them is the caller's work.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use super::downward::{self, Facts};

/// The search path of a container whose image and Pod set none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in order; setting a name again replaces its value in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    entries: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Environment {
    /// Sets a variable.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if let Some(&at) = self.index.get(&name) {
            self.entries[at].1 = value;
        } else {
            self.index.insert(name.clone(), self.entries.len());
            self.entries.push((name, value));
        }
    }

    /// Takes a variable away.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(at) = self.index.remove(name) {
            self.entries.remove(at);
            let later = self.index.values_mut().filter(|index| **index > at);
            later.for_each(|index| *index -= 1);
        }
    }

    /// Sets a variable unless it is set.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        if !self.index.contains_key(name) {
            self.set(name, value);
        }
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|&at| self.entries[at].1.as_str())
    }

    /// All of them, in order.
    pub(crate) fn into_entries(self) -> Vec<(String, String)> {
        self.entries
    }
}

/// Replaces `$(NAME)` by the variable's value. `$$` stands for `$`; a reference to an unknown
/// variable stays as it is.
pub(crate) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            if let Some(value) = lookup(name) {
                out.push_str(value);
            } else {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The objects that `env` and `envFrom` refer to, by name; `None` means it does not exist.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// ConfigMaps of the Pod's namespace.
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets of the Pod's namespace.
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
}

/// The names of the ConfigMaps and Secrets that a container's environment needs.
pub(crate) fn references(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|e| e.value_from.as_ref())
    {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// What [`build`] needs besides the container.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// The Pod.
    pub(crate) pod: &'a Pod,
    /// Addresses and the node's size.
    pub(crate) facts: &'a Facts,
    /// Referenced objects.
    pub(crate) sources: &'a Sources,
    /// Variables of the image.
    pub(crate) image: &'a [(String, String)],
    /// Variables of the services, see [`service_variables`].
    pub(crate) services: &'a [(String, String)],
    /// The container's host name.
    pub(crate) hostname: &'a str,
}

/// The whole environment of a container, or the message of its `CreateContainerConfigError`.
pub(crate) fn build(container: &Container, inputs: &Inputs<'_>) -> Result<Environment, String> {
    let mut env = Environment::default();
    env.set("PATH", DEFAULT_PATH);
    env.set("HOSTNAME", inputs.hostname);
    if container.tty == Some(true) {
        env.set("TERM", "xterm");
    }
    for (name, value) in inputs.image {
        env.set(name, value);
    }
    for (name, value) in inputs.services {
        env.set(name, value);
    }
    let namespace = inputs.pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match inputs
                .sources
                .config_maps
                .get(&reference.name)
                .and_then(Option::as_ref)
            {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        own.insert(format!("{prefix}{key}"), value.clone());
                        env.set(format!("{prefix}{key}"), value);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap {:?} not found", reference.name)),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match inputs
                .sources
                .secrets
                .get(&reference.name)
                .and_then(Option::as_ref)
            {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = String::from_utf8_lossy(&value.0).into_owned();
                        own.insert(format!("{prefix}{key}"), value.clone());
                        env.set(format!("{prefix}{key}"), value);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret {:?} not found", reference.name)),
            }
        }
    }
    let services: BTreeMap<&str, &str> = inputs
        .services
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => expand(variable.value.as_deref().unwrap_or_default(), |name| {
                own.get(name)
                    .map(String::as_str)
                    .or_else(|| services.get(name).copied())
            }),
            Some(source) => {
                if let Some(reference) = &source.field_ref {
                    downward::field(inputs.pod, &reference.field_path, inputs.facts)?
                } else if let Some(reference) = &source.resource_field_ref {
                    downward::resource(inputs.pod, Some(container), reference, inputs.facts)?
                } else if let Some(reference) = &source.config_map_key_ref {
                    let map = inputs.sources.config_maps.get(&reference.name);
                    let optional = reference.optional == Some(true);
                    let found = match map.and_then(Option::as_ref) {
                        Some(map) => map
                            .data
                            .as_ref()
                            .and_then(|d| d.get(&reference.key))
                            .cloned(),
                        None if optional => None,
                        None => return Err(format!("configmap {:?} not found", reference.name)),
                    };
                    match found {
                        Some(value) => value,
                        None if optional => continue,
                        None => {
                            return Err(format!(
                                "couldn't find key {} in ConfigMap {namespace}/{}",
                                reference.key, reference.name
                            ));
                        }
                    }
                } else if let Some(reference) = &source.secret_key_ref {
                    let secret = inputs.sources.secrets.get(&reference.name);
                    let optional = reference.optional == Some(true);
                    let found = match secret.and_then(Option::as_ref) {
                        Some(secret) => secret.data.as_ref().and_then(|d| d.get(&reference.key)),
                        None if optional => None,
                        None => return Err(format!("secret {:?} not found", reference.name)),
                    };
                    match found {
                        Some(value) => String::from_utf8_lossy(&value.0).into_owned(),
                        None if optional => continue,
                        None => {
                            return Err(format!(
                                "couldn't find key {} in Secret {namespace}/{}",
                                reference.key, reference.name
                            ));
                        }
                    }
                } else {
                    return Err(format!("variable {} has an unknown source", variable.name));
                }
            }
        };
        own.insert(variable.name.clone(), value.clone());
        env.set(&variable.name, value);
    }
    Ok(env)
}

/// The variables that tell a container where services are, in the form Docker's links had.
///
/// `services` are those of the Pod's own namespace (with links enabled); `api` is the address that
/// stands for the service `kubernetes`, which is told to every container.
pub(crate) fn service_variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    api: &(String, u16),
) -> Vec<(String, String)> {
    let mut env = Environment::default();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec
            .cluster_ip
            .as_deref()
            .filter(|ip| !ip.is_empty() && *ip != "None")
        else {
            continue;
        };
        let Some(name) = service.metadata.name.as_deref() else {
            continue;
        };
        let ports: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .map(|p| {
                (
                    p.name.as_deref(),
                    p.protocol.as_deref().unwrap_or("TCP"),
                    p.port,
                )
            })
            .collect();
        links(&mut env, name, ip, &ports);
    }
    links(
        &mut env,
        "kubernetes",
        &api.0,
        &[(Some("https"), "TCP", i32::from(api.1))],
    );
    env.into_entries()
}

fn links(env: &mut Environment, name: &str, ip: &str, ports: &[(Option<&str>, &str, i32)]) {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = upper(name);
    let Some((_, first_protocol, first_port)) = ports.first() else {
        return;
    };
    env.set(format!("{prefix}_SERVICE_HOST"), ip);
    env.set(format!("{prefix}_SERVICE_PORT"), first_port.to_string());
    for (port_name, _, port) in ports {
        if let Some(port_name) = port_name.filter(|n| !n.is_empty()) {
            env.set(
                format!("{prefix}_SERVICE_PORT_{}", upper(port_name)),
                port.to_string(),
            );
        }
    }
    let url = |protocol: &str, port: i32| format!("{}://{ip}:{port}", protocol.to_lowercase());
    env.set(format!("{prefix}_PORT"), url(first_protocol, *first_port));
    for (_, protocol, port) in ports {
        let base = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        env.set(base.clone(), url(protocol, *port));
        env.set(format!("{base}_PROTO"), protocol.to_lowercase());
        env.set(format!("{base}_PORT"), port.to_string());
        env.set(format!("{base}_ADDR"), ip);
    }
}

#[cfg(test)]
mod tests;
