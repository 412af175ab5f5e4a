//! Connections into Pods: logs, exec, attach, port-forward through the node's kubelet, and the
//! HTTP proxies of Pods, Services and nodes.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use kinds::tree;
use serde_json::Value;

use super::kubelet::{Destination, forward};
use crate::admission::{self, Operation};
use crate::endpoints::query::{FieldValidation, WriteOptions};
use crate::endpoints::{Call, Place, respond};
use crate::status::{Cause, Result, Status};

/// What the log endpoint hands on to the kubelet.
const LOG_OPTIONS: [&str; 7] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
];
/// Streams in the client's words and in the kubelet's.
const STREAMS: [(&str, &str); 4] = [
    ("stdin", "input"),
    ("stdout", "output"),
    ("stderr", "error"),
    ("tty", "tty"),
];

pub(super) async fn log(call: Call, place: Place) -> Result<Response<Body>> {
    let name = &place.path.name;
    let pod = place.resource.get(&call.state, &place.namespace, name)?;
    let pod = Arc::clone(pod.value());
    log_options(&call)?;
    let container = container(&pod, name, call.query.get("container"))?;
    let Some(mut destination) = kubelet(&call, &pod)? else {
        // It has not run anywhere, so there is nothing.
        return Ok(respond::raw(
            StatusCode::OK,
            "text/plain",
            Bytes::new(),
            false,
        ));
    };
    let mut query = Vec::new();
    for option in LOG_OPTIONS {
        if let Some(value) = call.query.get(option) {
            query.push((option, value));
        }
    }
    destination.target = target(
        &["containerLogs", &place.namespace, name, &container],
        &query,
    );
    send(call, destination).await
}

fn log_options(call: &Call) -> Result<()> {
    let mut causes = Vec::new();
    for (option, least) in [("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)] {
        if let Some(value) = call.query.int(option)?.filter(|v| *v < least) {
            let message = if least == 0 {
                format!("Invalid value: {value}: must be greater than or equal to 0")
            } else {
                format!("Invalid value: {value}: must be greater than 0")
            };
            causes.push(Cause::new("FieldValueInvalid", option, message));
        }
    }
    if call.query.get("sinceSeconds").is_some() && call.query.get("sinceTime").is_some() {
        causes.push(Cause::new(
            "FieldValueForbidden",
            "",
            "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("", "PodLogOptions", "", &causes))
    }
}

pub(super) async fn exec(call: Call, place: Place) -> Result<Response<Body>> {
    let name = &place.path.name;
    let pod = running(&call, &place).await?;
    let container = container(&pod, name, call.query.get("container"))?;
    let streams: Vec<&str> = STREAMS
        .iter()
        .map(|(name, _)| *name)
        .filter(|s| call.query.flag(s))
        .collect();
    if !streams
        .iter()
        .any(|s| matches!(*s, "stdin" | "stdout" | "stderr"))
    {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(Status::bad_request(message));
    }
    let exec = place.path.subresource == "exec";
    let commands = call.query.all("command");
    if exec && commands.is_empty() {
        return Err(Status::bad_request("you must specify at least 1 command"));
    }
    let mut destination = assigned(&call, &pod, name)?;
    let mut query: Vec<(&str, &str)> = Vec::new();
    for (ours, theirs) in STREAMS {
        if call.query.flag(ours) {
            query.push((theirs, "1"));
        }
    }
    query.extend(commands.iter().map(|command| ("command", *command)));
    destination.target = target(
        &[&place.path.subresource, &place.namespace, name, &container],
        &query,
    );
    send(call, destination).await
}

pub(super) async fn port_forward(call: Call, place: Place) -> Result<Response<Body>> {
    let name = &place.path.name;
    let pod = running(&call, &place).await?;
    let mut destination = assigned(&call, &pod, name)?;
    let ports = call.query.all("ports");
    let query: Vec<(&str, &str)> = ports.iter().map(|port| ("port", *port)).collect();
    destination.target = target(&["portForward", &place.namespace, name], &query);
    send(call, destination).await
}

/// The Pod, once admission has nothing against connecting to it.
async fn running(call: &Call, place: &Place) -> Result<Arc<Value>> {
    let pod = place
        .resource
        .get(&call.state, &place.namespace, &place.path.name)?;
    let pod = Arc::clone(pod.value());
    let options = WriteOptions {
        dry_run: false,
        field_manager: String::new(),
        field_validation: FieldValidation::Ignore,
        force: false,
        apply: false,
    };
    let mut writing = call.writing(&place.resource, place, options);
    let admitted = admission::admit(
        &mut writing,
        Operation::Connect,
        Value::Null,
        Some(Arc::clone(&pod)),
    );
    Box::pin(admitted).await?;
    if matches!(tree::text(&pod, "status.phase"), "Succeeded" | "Failed") {
        return Err(Status::bad_request(format!(
            "cannot exec in or attach to a container in a completed pod; current phase is {}",
            tree::text(&pod, "status.phase")
        )));
    }
    Ok(pod)
}

/// The container that is meant.
fn container(pod: &Value, name: &str, asked: Option<&str>) -> Result<String> {
    let names = |list: &str| -> Vec<String> {
        tree::list(pod, list)
            .iter()
            .map(|c| tree::text(c, "name").to_owned())
            .collect()
    };
    let (main, init) = (names("spec.containers"), names("spec.initContainers"));
    let ephemeral = names("spec.ephemeralContainers");
    if let Some(asked) = asked {
        let known = main
            .iter()
            .chain(&init)
            .chain(&ephemeral)
            .any(|c| c == asked);
        if known {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        )));
    }
    if let ([only], true) = (main.as_slice(), ephemeral.is_empty()) {
        return Ok(only.clone());
    }
    let mut message = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        main.join(" ")
    );
    if !init.is_empty() {
        let _ = write!(
            message,
            " or one of the init containers: [{}]",
            init.join(" ")
        );
    }
    if !ephemeral.is_empty() {
        let _ = write!(
            message,
            " or one of the ephemeral containers: [{}]",
            ephemeral.join(" ")
        );
    }
    Err(Status::bad_request(message))
}

fn assigned(call: &Call, pod: &Value, name: &str) -> Result<Destination> {
    kubelet(call, pod)?
        .ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))
}

/// The kubelet of the Pod's node; `None` if it has no node yet.
fn kubelet(call: &Call, pod: &Value) -> Result<Option<Destination>> {
    let node = tree::text(pod, "spec.nodeName");
    if node.is_empty() {
        return Ok(None);
    }
    node_destination(call, node).map(Some)
}

fn node_destination(call: &Call, name: &str) -> Result<Destination> {
    let node = call
        .state
        .store
        .get_value("", "nodes", "", name)
        .ok_or_else(|| Status::not_found("", "nodes", name))?;
    let address = [
        "InternalIP",
        "Hostname",
        "InternalDNS",
        "ExternalIP",
        "ExternalDNS",
    ]
    .iter()
    .find_map(|kind| {
        tree::list(&node, "status.addresses")
            .iter()
            .find(|a| tree::text(a, "type") == *kind)
    })
    .map(|a| tree::text(a, "address").to_owned())
    .ok_or_else(|| {
        Status::internal(format!(
            "no preferred addresses found; known addresses of node {name}: []"
        ))
    })?;
    let port = tree::int(&node, "status.daemonEndpoints.kubeletEndpoint.Port")
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(10250);
    let tls = call.state.options.kubelet_client.clone();
    Ok(Destination {
        host: address,
        port,
        tls,
        target: String::new(),
    })
}

/// A path of these parts, and a query.
fn target(parts: &[&str], query: &[(&str, &str)]) -> String {
    let mut target: String = parts
        .iter()
        .map(|part| format!("/{}", encode(part)))
        .collect();
    if let Ok(query) = serde_urlencoded::to_string(query)
        && !query.is_empty()
    {
        target.push('?');
        target.push_str(&query);
    }
    target
}

fn encode(part: &str) -> String {
    percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
        .replace("%2E", ".")
        .replace("%5F", "_")
}

async fn send(mut call: Call, destination: Destination) -> Result<Response<Body>> {
    let state = Arc::clone(&call.state);
    let body = call.take_body();
    let request = Request::from_parts(call.parts, body);
    Box::pin(forward(&state, request, destination)).await
}

/// `pods|services|nodes/[scheme:]name[:port]/proxy/path`.
pub(super) async fn proxy(call: Call, place: Place) -> Result<Response<Body>> {
    let (scheme, name, port) = split(&place.path.name)?;
    let path = format!("/{}", place.path.rest);
    let target = match call.parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut destination = match place.resource.plural() {
        "nodes" => node_destination(&call, &name)?,
        "pods" => pod_destination(&call, &place, &name, &port)?,
        _ => service_destination(&call, &place, &name, &port)?,
    };
    if scheme == "https" && destination.tls.is_none() {
        destination
            .tls
            .clone_from(&call.state.options.kubelet_client);
    }
    destination.target = target;
    send(call, destination).await
}

fn split(text: &str) -> Result<(String, String, String)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => {
            return Err(Status::bad_request(format!(
                "invalid proxy target \"{text}\""
            )));
        }
    };
    if !matches!(scheme, "" | "http" | "https") {
        return Err(Status::bad_request(format!(
            "invalid scheme \"{scheme}\": http or https is allowed"
        )));
    }
    Ok((scheme.to_owned(), name.to_owned(), port.to_owned()))
}

fn pod_destination(call: &Call, place: &Place, name: &str, port: &str) -> Result<Destination> {
    let pod = place.resource.get(&call.state, &place.namespace, name)?;
    let pod = pod.value();
    let host = tree::text(pod, "status.podIP").to_owned();
    if host.is_empty() {
        return Err(Status::bad_request(
            "address not allowed: the Pod has no address yet",
        ));
    }
    let named = || {
        tree::list(pod, "spec.containers")
            .iter()
            .flat_map(|c| tree::list(c, "ports"))
            .find(|p| port.is_empty() || tree::text(p, "name") == port)
            .and_then(|p| tree::int(p, "containerPort"))
    };
    let number = port.parse::<i64>().ok().or_else(named);
    let port = number.and_then(|p| u16::try_from(p).ok()).unwrap_or(80);
    Ok(Destination {
        host,
        port,
        tls: None,
        target: String::new(),
    })
}

/// A ready endpoint of the Service.
fn service_destination(call: &Call, place: &Place, name: &str, port: &str) -> Result<Destination> {
    let service = place.resource.get(&call.state, &place.namespace, name)?;
    let ports = tree::list(service.value(), "spec.ports");
    let wanted = ports
        .iter()
        .find(|p| {
            (port.is_empty() && ports.len() == 1)
                || tree::text(p, "name") == port
                || tree::int(p, "port").is_some_and(|n| n.to_string() == port)
        })
        .ok_or_else(|| {
            Status::unavailable(format!(
                "no service port \"{port}\" found for service \"{name}\""
            ))
        })?;
    let port_name = tree::text(wanted, "name");
    let endpoints = call
        .state
        .store
        .get_value("", "endpoints", &place.namespace, name);
    let none = || Status::unavailable(format!("no endpoints available for service \"{name}\""));
    let endpoints = endpoints.ok_or_else(none)?;
    let mut ready = Vec::new();
    for subset in tree::list(&endpoints, "subsets") {
        let number = tree::list(subset, "ports")
            .iter()
            .find(|p| tree::text(p, "name") == port_name)
            .and_then(|p| tree::int(p, "port"))
            .and_then(|p| u16::try_from(p).ok());
        let Some(number) = number else { continue };
        for address in tree::list(subset, "addresses") {
            ready.push((tree::text(address, "ip").to_owned(), number));
        }
    }
    if ready.is_empty() {
        return Err(none());
    }
    let chosen = call.state.rng().below(ready.len() as u64) as usize;
    let (host, port) = ready.swap_remove(chosen);
    Ok(Destination {
        host,
        port,
        tls: None,
        target: String::new(),
    })
}
