//! Subresources: status and scale of any kind, and the few that are their own business.

mod binding;
mod connect;
mod kubelet;
mod namespace;
pub(crate) mod review;
mod scale;
pub(crate) mod token;

use axum::body::Body;
use http::{Method, Response};

use crate::endpoints::{Call, Place, query, respond, write};
use crate::status::{Result, Status};

/// Answers a request on a subresource.
pub(crate) async fn serve(call: Call, place: Place) -> Result<Response<Body>> {
    let kind = &place.resource.kind;
    let Some(known) = kind.subresource(&place.path.subresource) else {
        return Err(Status::no_such_resource());
    };
    let verb = place.path.verb(&call.parts.method, false);
    let connects = matches!(&*known.name, "exec" | "attach" | "portforward" | "proxy");
    if !connects && !known.verbs.iter().any(|have| have == verb) {
        return Err(Status::method_not_allowed());
    }
    let method = call.parts.method.clone();
    match (
        place.resource.group(),
        place.resource.plural(),
        place.path.subresource.as_str(),
    ) {
        (_, _, "scale") => Box::pin(scale::serve(call, place)).await,
        ("", "pods", "binding") => Box::pin(binding::bind(call, place)).await,
        ("", "pods", "eviction") => Box::pin(binding::evict(call, place)).await,
        ("", "pods", "log") => Box::pin(connect::log(call, place)).await,
        ("", "pods", "exec" | "attach") => Box::pin(connect::exec(call, place)).await,
        ("", "pods", "portforward") => Box::pin(connect::port_forward(call, place)).await,
        ("", "pods" | "services" | "nodes", "proxy") => Box::pin(connect::proxy(call, place)).await,
        ("", "serviceaccounts", "token") => Box::pin(token::serve(call, place)).await,
        ("", "namespaces", "finalize") => Box::pin(namespace::finalize(call, place)).await,
        _ if method == Method::GET => {
            let form = call.form(true)?;
            query::parse_version(call.query.get("resourceVersion").unwrap_or_default())?;
            let object = place
                .resource
                .get(&call.state, &place.namespace, &place.path.name)?;
            respond::object(&call.state, &place.resource, &object, form, &call.query)
        }
        _ if method == Method::PUT => Box::pin(write::update(call, place)).await,
        _ if method == Method::PATCH => Box::pin(write::patch(call, place)).await,
        _ => Err(Status::method_not_allowed()),
    }
}
