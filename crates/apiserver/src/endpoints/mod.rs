//! The way of a request: who asks, may they, what do they ask for, and the answer.

pub(crate) mod body;
mod list;
pub(crate) mod negotiate;
mod path;
pub(crate) mod query;
pub(crate) mod request_info;
pub(crate) mod respond;
mod table;
mod watch;
pub(crate) mod write;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use futures::FutureExt as _;
use http::request::Parts;
use http::{Method, Request, Response};

use crate::auth::UserInfo;
use crate::auth::authenticate::impersonate;
use crate::auth::rbac::Attributes;
use crate::registry::Resource;
use crate::server::State;
use crate::status::{Result, Status};
use crate::subresource;
use negotiate::Form;
use query::Query;
use request_info::{ResourcePath, Target};

/// A request whose sender is known and allowed.
pub(crate) struct Call {
    pub(crate) state: Arc<State>,
    pub(crate) parts: Parts,
    /// Behind a lock only so that a call can be shared between tasks.
    pub(crate) body: Mutex<Body>,
    pub(crate) query: Query,
    pub(crate) user: UserInfo,
}

/// What a resource request is about.
pub(crate) struct Place {
    pub(crate) resource: Arc<Resource>,
    pub(crate) path: ResourcePath,
    /// Empty for cluster-scoped resources, and for lists across namespaces.
    pub(crate) namespace: String,
}

/// Answers a request. A panic becomes a 500 and is logged.
pub(crate) async fn handle(state: Arc<State>, request: Request<Body>) -> Response<Body> {
    let begun = state.clock().monotonic();
    let (verb, resource) = labels(&state, &request);
    let head = request.method() == Method::HEAD;
    let headers = request.headers().clone();
    let query = Query::parse(request.uri().query());
    let answer = AssertUnwindSafe(Box::pin(route(Arc::clone(&state), request)))
        .catch_unwind()
        .await;
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => respond::failure(&status, &headers, &query),
        Err(panic) => {
            let text = stdx::supervisor::panic_message(panic.as_ref());
            tracing::error!(verb, resource, "request panicked: {text}");
            let status = Status::internal("the server failed on this request; its log says why");
            respond::failure(&status, &headers, &query)
        }
    };
    if head {
        *response.body_mut() = Body::empty();
    }
    let seconds = (state.clock().monotonic().saturating_sub(begun)).as_secs_f64();
    state
        .metrics
        .request(verb, &resource, response.status().as_u16(), seconds);
    response
}

/// What the request counts as in the metrics; resources that are not served count together.
fn labels(state: &State, request: &Request<Body>) -> (&'static str, String) {
    match request_info::parse(request.uri().path()) {
        Target::Path => ("", String::new()),
        Target::Resource(path) => {
            let watch = Query::parse(request.uri().query()).flag("watch");
            let verb = path.verb(request.method(), watch);
            let table = state.resources.current();
            let known = table
                .find(&path.group, &path.version, &path.resource)
                .is_some();
            (verb, if known { path.resource } else { String::new() })
        }
    }
}

async fn route(state: Arc<State>, request: Request<Body>) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let user = state
        .authenticator
        .authenticate(&parts.headers, &parts.extensions)?;
    let user = impersonate(user, &parts.headers, &state.authorizer)?;
    let target = request_info::parse(parts.uri.path());
    authorize(&state, &parts, &query, &user, &target)?;
    let call = Call {
        state,
        parts,
        body: Mutex::new(body),
        query,
        user,
    };
    match target {
        Target::Path => Box::pin(path::serve(call)).await,
        Target::Resource(path) => Box::pin(serve_resource(call, path)).await,
    }
}

fn authorize(
    state: &State,
    parts: &Parts,
    query: &Query,
    user: &UserInfo,
    target: &Target,
) -> Result<()> {
    match target {
        Target::Path => {
            let verb = parts.method.as_str().to_ascii_lowercase();
            let wanted = Attributes {
                verb: &verb,
                path: Some(parts.uri.path()),
                ..Attributes::default()
            };
            if state.authorizer.allows(user, &wanted) {
                return Ok(());
            }
            Err(Status::forbidden_path(format!(
                "forbidden: {}",
                wanted.refusal(user)
            )))
        }
        Target::Resource(path) => {
            let named = selected_name(path, query);
            let name = if path.name.is_empty() {
                named.as_str()
            } else {
                path.name.as_str()
            };
            let wanted = Attributes {
                verb: path.verb(&parts.method, query.flag("watch")),
                group: &path.group,
                resource: &path.resource,
                subresource: &path.subresource,
                namespace: &path.namespace,
                name,
                path: None,
            };
            if state.authorizer.allows(user, &wanted) {
                return Ok(());
            }
            Err(Status::forbidden(
                &path.group,
                &path.resource,
                name,
                &wanted.refusal(user),
            ))
        }
    }
}

/// A list of one name counts as asking for that name.
fn selected_name(path: &ResourcePath, query: &Query) -> String {
    if !path.name.is_empty() {
        return String::new();
    }
    let selector = query.get("fieldSelector").unwrap_or_default();
    kinds::selector::FieldSelector::parse(selector, &kinds::selector::METADATA_FIELDS)
        .ok()
        .and_then(|selector| selector.exact_name().map(ToOwned::to_owned))
        .unwrap_or_default()
}

async fn serve_resource(call: Call, path: ResourcePath) -> Result<Response<Body>> {
    let resources = call.state.resources.current();
    let Some(resource) = resources.find(&path.group, &path.version, &path.resource) else {
        return if resources.has_version(&path.group, &path.version) {
            Err(Status::no_such_resource())
        } else {
            Ok(respond::page_not_found())
        };
    };
    let inside_namespace = !path.namespace.is_empty() && path.resource != "namespaces";
    if inside_namespace != resource.kind.namespaced
        && (inside_namespace || !path.name.is_empty() || call.parts.method == Method::POST)
        && !resource.is_review()
    {
        // `/api/v1/namespaces/x/nodes`, or a namespaced object without its namespace.
        if resource.kind.namespaced && path.name.is_empty() {
            return Err(Status::method_not_allowed());
        }
        return Err(Status::no_such_resource());
    }
    let namespace = if resource.kind.namespaced || inside_namespace {
        path.namespace.clone()
    } else {
        String::new()
    };
    let place = Place {
        resource,
        path,
        namespace,
    };
    if !place.path.subresource.is_empty() {
        return Box::pin(subresource::serve(call, place)).await;
    }
    if place.resource.is_review() {
        return Box::pin(subresource::review::serve(call, place)).await;
    }
    let named = !place.path.name.is_empty();
    let verb = place
        .path
        .verb(&call.parts.method, call.query.flag("watch"));
    if verb.is_empty() || !place.resource.kind.has_verb(verb) {
        return Err(Status::method_not_allowed());
    }
    match verb {
        "get" => get(&call, &place),
        "list" => list::serve(&call, &place),
        "watch" => watch::serve(&call, &place),
        "create" if !named => Box::pin(write::create(call, place)).await,
        "update" if named => Box::pin(write::update(call, place)).await,
        "patch" if named => Box::pin(write::patch(call, place)).await,
        "delete" => Box::pin(write::delete(call, place)).await,
        "deletecollection" => Box::pin(write::delete_collection(call, place)).await,
        _ => Err(Status::method_not_allowed()),
    }
}

fn get(call: &Call, place: &Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let rv = query::parse_version(call.query.get("resourceVersion").unwrap_or_default())?;
    let current = call.state.store.rv();
    if let Some(rv) = rv.filter(|&rv| rv > current) {
        return Err(Status::too_large_resource_version(rv, current));
    }
    let object = place
        .resource
        .get(&call.state, &place.namespace, &place.path.name)?;
    let mut response = respond::object(&call.state, &place.resource, &object, form, &call.query)?;
    respond::warn(&mut response, &place.resource.read_warnings());
    Ok(response)
}

impl Call {
    /// The body, once.
    pub(crate) fn take_body(&mut self) -> Body {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(body, Body::empty())
    }

    /// What the client accepts; `transform` says whether tables exist here.
    pub(crate) fn form(&self, transform: bool) -> Result<Form> {
        negotiate::negotiate(&self.parts.headers, &self.query, transform)
    }

    /// The User-Agent up to its first slash: the field manager of those who name none.
    pub(crate) fn manager(&self, field_manager: &str) -> String {
        if !field_manager.is_empty() {
            return field_manager.to_owned();
        }
        let agent = self.parts.headers.get(http::header::USER_AGENT);
        let agent = agent.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name: String = agent
            .split('/')
            .next()
            .unwrap_or_default()
            .chars()
            .take(128)
            .collect();
        if name.is_empty() {
            "unknown".to_owned()
        } else {
            name
        }
    }
}
