//! Validation of Services, in upstream's order.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{has_cluster_ip, is_external, is_headless};
use crate::content;
use crate::core::endpoints::reachable_ip;
use crate::core::pod::container::port_number;
use crate::core::pod::probe::port_or_name;
use crate::core::pod::validate::one_of;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::{meta, tree};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(super) fn service(ctx: &Ctx, service: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let empty = json!({});
    let spec = tree::get(service, "spec").unwrap_or(&empty);
    let kind = tree::text(spec, "type");
    let headless = is_headless(service);
    let ports = tree::list(spec, "ports");
    let ports_path = path.child("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(Error::required(&ports_path, ""));
    }
    errors.extend(by_type(spec, kind, headless, &path));
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        errors.extend(service_port(
            port,
            ports.len() > 1,
            &mut names,
            &ports_path.index(i),
        ));
    }
    errors.extend(meta::labels(
        tree::get(spec, "selector"),
        &path.child("selector"),
    ));
    errors.extend(affinity(spec, &path));
    errors.extend(cluster_ips(service, spec, &path));
    for (i, ip) in tree::words(spec, "externalIPs").into_iter().enumerate() {
        let at = path.child("externalIPs").index(i);
        let complaints = content::ip_address(ip);
        if complaints.is_empty() {
            errors.extend(reachable_ip(ctx, ip, &at));
        }
        for message in complaints {
            errors.push(Error::invalid(&at, ip, message));
        }
    }
    if kind.is_empty() {
        errors.push(Error::required(&path.child("type"), ""));
    } else if !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
    }
    errors.extend(ports_together(ports, kind, &ports_path));
    errors.extend(load_balancer(spec, kind, &path));
    errors.extend(traffic(service, spec, &path));
    errors
}

fn by_type(spec: &Value, kind: &str, headless: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let ips = path.child("clusterIPs");
    match kind {
        "LoadBalancer" => {
            for (i, port) in tree::list(spec, "ports").iter().enumerate() {
                if tree::int(port, "port") == Some(10_250) {
                    let detail = "may not expose port 10250 externally since it is used by kubelet";
                    errors.push(Error::invalid(
                        &path.child("ports").index(i),
                        10_250,
                        detail,
                    ));
                }
            }
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if tree::get(spec, key).is_some() {
                    let detail = "may not be set for ExternalName services";
                    errors.push(Error::forbidden(&path.child(key), detail));
                }
            }
            let name = tree::text(spec, "externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            let at = path.child("externalName");
            if name.is_empty() {
                errors.push(Error::required(&at, ""));
            } else {
                for message in content::dns1123_subdomain(name) {
                    errors.push(Error::invalid(&at, name, message));
                }
            }
        }
        _ => {}
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(Error::invalid(&ips.index(0), "None", detail));
    }
    errors
}

fn service_port<'a>(
    port: &'a Value,
    named: bool,
    names: &mut BTreeSet<&'a str>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = tree::text(port, "name");
    let at = path.child("name");
    if name.is_empty() {
        if named {
            errors.push(Error::required(&at, ""));
        }
    } else {
        for message in content::dns1123_label(name) {
            errors.push(Error::invalid(&at, name, message));
        }
        if !names.insert(name) {
            errors.push(Error::duplicate(&at, name));
        }
    }
    let number = tree::int(port, "port").unwrap_or(0);
    errors.extend(port_number(number, &path.child("port")));
    errors.extend(one_of(port, "protocol", path, &["SCTP", "TCP", "UDP"]));
    errors.extend(port_or_name(
        tree::get(port, "targetPort"),
        &path.child("targetPort"),
    ));
    let protocol = tree::text(port, "appProtocol");
    if !protocol.is_empty() {
        for message in content::qualified_name(protocol) {
            errors.push(Error::invalid(
                &path.child("appProtocol"),
                protocol,
                message,
            ));
        }
    }
    errors
}

fn affinity(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = one_of(spec, "sessionAffinity", path, &["ClientIP", "None"]);
    if tree::text(spec, "sessionAffinity") == "ClientIP" {
        let seconds = tree::int(spec, "sessionAffinityConfig.clientIP.timeoutSeconds").unwrap_or(0);
        if !(1..=86_400).contains(&seconds) {
            let at = path
                .child("sessionAffinityConfig")
                .child("clientIP")
                .child("timeoutSeconds");
            let detail = "must be greater than 0 and less than 86400";
            errors.push(Error::invalid(&at, seconds, detail));
        }
    }
    errors
}

fn cluster_ips(service: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if !has_cluster_ip(service) {
        return errors;
    }
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    errors.extend(one_of(spec, "ipFamilyPolicy", path, &policies));
    for (i, family) in tree::words(spec, "ipFamilies").into_iter().enumerate() {
        if !["IPv4", "IPv6"].contains(&family) {
            let at = path.child("ipFamilies").index(i);
            errors.push(Error::not_supported(&at, family, &["IPv4", "IPv6"]));
        }
    }
    let at = path.child("clusterIPs");
    let ips = tree::words(spec, "clusterIPs");
    let one = tree::text(spec, "clusterIP");
    if !one.is_empty() && ips.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    if let Some(first) = ips.first() {
        if one != *first {
            let detail = "first value must match `clusterIP`";
            errors.push(Error::invalid(&at, ips.clone(), detail));
        }
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(
            &at,
            ips.clone(),
            "may only hold up to 2 values",
        ));
    }
    for (i, ip) in ips.iter().enumerate() {
        if *ip == "None" {
            if i > 0 || ips.len() > 1 {
                let detail = "'None' must be the first and only value";
                errors.push(Error::invalid(&at.index(i), *ip, detail));
            }
            continue;
        }
        for message in content::ip_address(ip) {
            errors.push(Error::invalid(&at.index(i), *ip, message));
        }
    }
    errors
}

fn ports_together(ports: &[Value], kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if kind == "ClusterIP" {
        for (i, port) in ports.iter().enumerate() {
            if tree::int(port, "nodePort").is_some_and(|number| number != 0) {
                let at = path.index(i).child("nodePort");
                errors.push(Error::forbidden(
                    &at,
                    "may not be used when `type` is 'ClusterIP'",
                ));
            }
        }
    }
    for key in ["nodePort", "port"] {
        let mut seen = BTreeSet::new();
        for (i, port) in ports.iter().enumerate() {
            let number = tree::int(port, key).unwrap_or(0);
            if number == 0 {
                continue;
            }
            let protocol = tree::text(port, "protocol");
            if !seen.insert((protocol, number)) {
                let at = if key == "port" {
                    path.index(i)
                } else {
                    path.index(i).child(key)
                };
                let value = if key == "port" {
                    json!({"protocol": protocol, "port": number})
                } else {
                    json!(number)
                };
                errors.push(Error::duplicate(&at, value));
            }
        }
    }
    errors
}

fn load_balancer(spec: &Value, kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if kind != "LoadBalancer" {
        for key in [
            "allocateLoadBalancerNodePorts",
            "loadBalancerClass",
            "loadBalancerSourceRanges",
        ] {
            if tree::get(spec, key).is_some() {
                let detail = "may only be used when `type` is 'LoadBalancer'";
                errors.push(Error::forbidden(&path.child(key), detail));
            }
        }
    }
    for (i, range) in tree::words(spec, "loadBalancerSourceRanges")
        .into_iter()
        .enumerate()
    {
        for message in content::cidr(range.trim()) {
            let at = path.child("loadBalancerSourceRanges").index(i);
            errors.push(Error::invalid(&at, range, message));
        }
    }
    errors
}

fn traffic(service: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let key = "externalTrafficPolicy";
    let policy = tree::text(spec, key);
    let at = path.child(key);
    if is_external(service) {
        if policy.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        errors.extend(one_of(spec, key, path, &["Cluster", "Local"]));
    } else if !policy.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(Error::invalid(&at, policy, detail));
    }
    errors.extend(one_of(
        spec,
        "internalTrafficPolicy",
        path,
        &["Cluster", "Local"],
    ));
    errors
}

pub(super) fn update(ctx: &Ctx, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if has_cluster_ip(new) && has_cluster_ip(old) {
        let (after, before) = (
            tree::words(new, "spec.clusterIPs"),
            tree::words(old, "spec.clusterIPs"),
        );
        let at = Path::new("spec.clusterIPs");
        if after.is_empty() && !before.is_empty() {
            let detail = "primary clusterIP can not be unset";
            errors.push(Error::invalid(&at.index(0), after, detail));
        } else {
            for (i, ip) in before.iter().enumerate() {
                if after.get(i).is_some_and(|other| other != ip) {
                    let detail = "may not change once set";
                    errors.push(Error::invalid(&at.index(i), after.clone(), detail));
                }
            }
        }
    }
    errors.extend(service(ctx, new));
    errors
}
