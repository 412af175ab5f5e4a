//! Endpoints and EndpointSlices, with the rule that no endpoint is on a loopback address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::pod::container::port_number;
use super::pod::validate::one_of;
use crate::content;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::{meta, table, tree};

pub(crate) const ENDPOINTS: Strategy = Strategy {
    default: endpoints_defaults,
    validate: validate_endpoints,
    validate_update: |ctx, new, _| validate_endpoints(ctx, new),
    row: Some(table::network::endpoints),
    create_on_update: true,
    deprecation: Some(
        "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
    ..Strategy::GENERIC
};

pub(crate) const ENDPOINT_SLICE: Strategy = Strategy {
    default: slice_defaults,
    validate: validate_slice,
    validate_update: |ctx, new, old| {
        let mut errors = validate_slice(ctx, new);
        errors.extend(meta::immutable(new, old, "addressType"));
        errors
    },
    row: Some(table::network::endpoint_slice),
    generation: Generation::Content,
    ..Strategy::GENERIC
};

fn endpoints_defaults(endpoints: &mut Value) {
    for subset in tree::list_mut(endpoints, "subsets") {
        for port in tree::list_mut(subset, "ports") {
            tree::set_default_text(port, "protocol", "TCP");
        }
        for key in ["addresses", "notReadyAddresses", "ports"] {
            if tree::get(subset, key).is_some_and(|list| list == &json!([])) {
                tree::remove(subset, key);
            }
        }
    }
}

fn slice_defaults(slice: &mut Value) {
    for port in tree::list_mut(slice, "ports") {
        tree::set_default(port, "name", "");
        tree::set_default_text(port, "protocol", "TCP");
    }
    for endpoint in tree::list_mut(slice, "endpoints") {
        tree::child(endpoint, "conditions");
    }
    for key in ["endpoints", "ports"] {
        tree::object(slice).entry(key).or_insert(Value::Null);
    }
}

/// The errors of an address that others must be able to reach: not unspecified, loopback (outside
/// the exemption) or link-local.
pub(crate) fn reachable_ip(ctx: &Ctx, text: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Ok(ip) = text.parse::<IpAddr>() else {
        return Error::invalid(path, text, "must be a valid IP address").into();
    };
    let (link_local, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (
            ip.is_unicast_link_local(),
            ip.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    let mut complain = |detail: String| errors.push(Error::invalid(path, text, detail));
    if ip.is_unspecified() {
        complain(format!("may not be unspecified ({text})"));
    }
    if ctx.is_forbidden_loopback(ip) {
        complain("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    if link_local {
        complain("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if multicast {
        complain(
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        );
    }
    errors
}

fn validate_endpoints(ctx: &Ctx, endpoints: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, subset) in tree::list(endpoints, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(i);
        let (ready, unready) = ("addresses", "notReadyAddresses");
        if tree::list(subset, ready).is_empty() && tree::list(subset, unready).is_empty() {
            errors.push(Error::required(
                &path,
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for key in [ready, unready] {
            for (j, address) in tree::list(subset, key).iter().enumerate() {
                let path = path.child(key).index(j);
                let ip = tree::text(address, "ip");
                let complaints = content::ip_address(ip);
                if complaints.is_empty() {
                    errors.extend(reachable_ip(ctx, ip, &path.child("ip")));
                }
                for message in complaints {
                    errors.push(Error::invalid(&path.child("ip"), ip, message));
                }
                let hostname = tree::text(address, "hostname");
                if !hostname.is_empty() {
                    for message in content::dns1123_label(hostname) {
                        errors.push(Error::invalid(&path.child("hostname"), hostname, message));
                    }
                }
                let node = tree::text(address, "nodeName");
                if !node.is_empty() {
                    for message in content::dns1123_subdomain(node) {
                        errors.push(Error::invalid(&path.child("nodeName"), node, message));
                    }
                }
            }
        }
        let ports = tree::list(subset, "ports");
        for (j, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(j);
            let name = tree::text(port, "name");
            if name.is_empty() {
                if ports.len() > 1 {
                    errors.push(Error::required(&path.child("name"), ""));
                }
            } else {
                for message in content::dns1123_label(name) {
                    errors.push(Error::invalid(&path.child("name"), name, message));
                }
            }
            let number = tree::int(port, "port").unwrap_or(0);
            errors.extend(port_number(number, &path.child("port")));
            errors.extend(one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"]));
        }
    }
    errors
}

fn validate_slice(ctx: &Ctx, slice: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let kind = tree::text(slice, "addressType");
    let kinds = ["FQDN", "IPv4", "IPv6"];
    let at = Path::new("addressType");
    if kind.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !kinds.contains(&kind) {
        errors.push(Error::not_supported(&at, kind, &kinds));
    }
    let endpoints = tree::list(slice, "endpoints");
    if endpoints.len() > 1000 {
        errors.push(Error::too_many(
            &Path::new("endpoints"),
            endpoints.len(),
            1000,
        ));
        return errors;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = Path::new("endpoints").index(i);
        let addresses = tree::words(endpoint, "addresses");
        let at = path.child("addresses");
        if addresses.is_empty() {
            errors.push(Error::required(&at, "must contain at least 1 address"));
        } else if addresses.len() > 100 {
            errors.push(Error::too_many(&at, addresses.len(), 100));
        }
        for (j, address) in addresses.into_iter().enumerate() {
            errors.extend(slice_address(ctx, kind, address, &at.index(j)));
        }
        let hostname = tree::text(endpoint, "hostname");
        if !hostname.is_empty() {
            for message in content::dns1123_label(hostname) {
                errors.push(Error::invalid(&path.child("hostname"), hostname, message));
            }
        }
    }
    let ports = tree::list(slice, "ports");
    if ports.len() > 20_000 {
        errors.push(Error::too_many(&Path::new("ports"), ports.len(), 20_000));
        return errors;
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = Path::new("ports").index(i);
        let name = tree::text(port, "name");
        if !name.is_empty() {
            for message in content::dns1123_label(name) {
                errors.push(Error::invalid(&path.child("name"), name, message));
            }
        }
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        errors.extend(one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"]));
    }
    errors
}

fn slice_address(ctx: &Ctx, kind: &str, address: &str, path: &Path) -> ErrorList {
    let parsed = address.parse::<IpAddr>().ok();
    match kind {
        "IPv4" if !parsed.is_some_and(|ip| ip.is_ipv4()) => {
            let detail = content::ipv4_address(address).join("; ");
            Error::invalid(path, address, detail).into()
        }
        "IPv6" if !parsed.is_some_and(|ip| ip.is_ipv6()) => {
            Error::invalid(path, address, "must be a valid IPv6 address").into()
        }
        "IPv4" | "IPv6" => reachable_ip(ctx, address, path),
        "FQDN" => {
            let mut errors = ErrorList::new();
            for message in content::dns1123_subdomain(address) {
                errors.push(Error::invalid(path, address, message));
            }
            errors
        }
        _ => ErrorList::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_endpoints_need_an_exemption() {
        let mut ctx = Ctx::new(jiff::Timestamp::UNIX_EPOCH);
        ctx.loopback_exempt = vec!["127.97.16.0/20".parse().unwrap()];
        let endpoints =
            |ip| json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 80}]}]});
        let message = |ip| validate_endpoints(&ctx, &endpoints(ip)).message();
        assert_eq!(message("127.97.17.3"), "");
        assert_eq!(message("10.0.0.1"), "");
        assert_eq!(
            message("127.97.33.3"),
            "subsets[0].addresses[0].ip: Invalid value: \"127.97.33.3\": may not be in the loopback \
             range (127.0.0.0/8, ::1/128)"
        );
    }
}
