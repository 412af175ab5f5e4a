//! The text of a Pod's hosts file (pure).

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// An address and the service names that belong to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceName {
    pub(crate) namespace: String,
    /// `web`, or `host.web` for an endpoint with a host name.
    pub(crate) name: String,
    pub(crate) address: String,
}

/// The names of all services: the cluster IP, or for a headless service its ready endpoints.
pub(crate) fn service_names<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Vec<ServiceName> {
    let mut names = Vec::new();
    let mut headless = std::collections::BTreeSet::new();
    for service in services {
        let (Some(name), Some(namespace)) = (&service.metadata.name, &service.metadata.namespace)
        else {
            continue;
        };
        let spec = service.spec.as_ref();
        match spec.and_then(|s| s.cluster_ip.as_deref()) {
            Some("None") => {
                let all = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
                headless.insert((namespace.clone(), name.clone(), all));
            }
            Some(ip) if !ip.is_empty() => names.push(ServiceName {
                namespace: namespace.clone(),
                name: name.clone(),
                address: ip.to_owned(),
            }),
            _ => {}
        }
    }
    for slice in slices {
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|l| l.get("kubernetes.io/service-name")) else {
            continue;
        };
        let with = |all: bool| headless.contains(&(namespace.clone(), service.clone(), all));
        let (ready_only, all) = (with(false), with(true));
        if !ready_only && !all {
            continue;
        }
        for endpoint in &slice.endpoints {
            let ready = endpoint
                .conditions
                .as_ref()
                .and_then(|c| c.ready)
                .unwrap_or(true);
            if !ready && !all {
                continue;
            }
            for address in &endpoint.addresses {
                let mut add = |name: String| {
                    names.push(ServiceName {
                        namespace: namespace.clone(),
                        name,
                        address: address.clone(),
                    });
                };
                add(service.clone());
                if let Some(host) = endpoint.hostname.as_deref().filter(|h| !h.is_empty()) {
                    add(format!("{host}.{service}"));
                }
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// The host name of a Pod: what it says, else its own name.
pub(crate) fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let chosen = spec
        .and_then(|s| s.hostname.clone())
        .filter(|h| !h.is_empty());
    let mut name = chosen
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The whole file for one Pod.
pub(crate) fn text(pod: &Pod, pod_ip: &str, names: &[ServiceName], domain: &str) -> String {
    let mut out = String::from(
        "# Written by the kubelet; changes are lost.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let host = hostname(pod);
    let subdomain = spec
        .and_then(|s| s.subdomain.as_deref())
        .filter(|s| !s.is_empty());
    // Writing to a String cannot fail.
    let _ = match subdomain {
        Some(sub) => {
            writeln!(
                out,
                "{pod_ip}\t{host}.{sub}.{namespace}.svc.{domain}\t{host}"
            )
        }
        None => writeln!(out, "{pod_ip}\t{host}"),
    };
    for ServiceName {
        namespace: of,
        name,
        address,
    } in names
    {
        let _ = write!(
            out,
            "{address}\t{name}.{of}.svc.{domain} {name}.{of}.svc {name}.{of}"
        );
        if of == namespace {
            let _ = write!(out, " {name}");
        }
        out.push('\n');
    }
    for alias in spec
        .into_iter()
        .flat_map(|s| s.host_aliases.iter().flatten())
    {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(out, "{}\t{names}", alias.ip);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_hosts_file_has_services_of_every_namespace_and_short_names_of_its_own() {
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "web", "namespace": "a"}, "spec": {"clusterIP": "127.96.0.3"}},
            {"metadata": {"name": "db", "namespace": "b"}, "spec": {"clusterIP": "None"}},
            {"metadata": {"name": "ext", "namespace": "b"}, "spec": {"type": "ExternalName"}}
        ]))
        .unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(json!([{
            "metadata": {"name": "db-x", "namespace": "b", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["127.97.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["127.97.0.6"], "conditions": {"ready": false}}
            ]
        }]))
        .unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {"containers": [], "hostAliases": [{"ip": "10.1.1.1", "hostnames": ["x", "y"]}]}
        }))
        .unwrap();
        let names = service_names(&services, &slices);
        let text = text(&pod, "127.97.0.9", &names, "cluster.local");
        let find = |name: &str| {
            let mut found: Vec<&str> = text
                .lines()
                .filter(|l| l.split_whitespace().skip(1).any(|n| n == name))
                .filter_map(|l| l.split_whitespace().next())
                .collect();
            found.sort_unstable();
            found
        };
        assert_eq!(find("web"), ["127.96.0.3"]);
        assert_eq!(find("web.a.svc.cluster.local"), ["127.96.0.3"]);
        assert_eq!(find("db"), [] as [&str; 0]);
        assert_eq!(find("db.b"), ["127.97.0.5"]);
        assert_eq!(find("db-0.db.b.svc"), ["127.97.0.5"]);
        assert_eq!(find("p"), ["127.97.0.9"]);
        assert_eq!(find("y"), ["10.1.1.1"]);
        assert_eq!(find("localhost"), ["127.0.0.1", "::1"]);
    }
}
