//! TokenRequest: tokens for service accounts.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use kinds::tree;
use serde_json::{Value, json};

use crate::auth::token::Claims;
use crate::endpoints::{Call, Place, body, respond};
use crate::server::State;
use crate::status::{Cause, Result, Status};

const GROUP: &str = "authentication.k8s.io";
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

pub(super) async fn serve(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(false)?;
    let bytes = call.bytes().await?;
    let request = body::options(&call.parts.headers, &bytes, "TokenRequest")?;
    let request = Value::Object(request.unwrap_or_default());
    let answer = issue(&call.state, &place.namespace, &place.path.name, request)?;
    Ok(respond::value(StatusCode::CREATED, form, &answer))
}

/// Issues a token: the answer is the TokenRequest with its status.
pub(crate) fn issue(
    state: &Arc<State>,
    namespace: &str,
    account: &str,
    mut request: Value,
) -> Result<Value> {
    let get = |resource: &str, name: &str| state.store.get_value("", resource, namespace, name);
    let found = get("serviceaccounts", account)
        .ok_or_else(|| Status::not_found("", "serviceaccounts", account))?;
    let seconds = tree::int(&request, "spec.expirationSeconds").unwrap_or(3600);
    let wrong = |message: String| {
        let cause = Cause::new("FieldValueInvalid", "spec.expirationSeconds", message);
        Err(Status::invalid(GROUP, "TokenRequest", "", &[cause]))
    };
    if seconds < SHORTEST {
        return wrong(format!(
            "Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        ));
    }
    if seconds > LONGEST {
        return wrong(format!(
            "Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds"
        ));
    }
    let mut audiences: Vec<String> = tree::words(&request, "spec.audiences")
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences.push(state.options.issuer.clone());
    }
    let mut bound = [None, None];
    if let Some(reference) = tree::get(&request, "spec.boundObjectRef") {
        let (kind, name) = (tree::text(reference, "kind"), tree::text(reference, "name"));
        let (slot, resource) = match kind {
            "Pod" => (0, "pods"),
            "Node" => (1, "nodes"),
            "Secret" => {
                return Err(Status::bad_request(
                    "tokens bound to Secrets are not supported: bind to a Pod",
                ));
            }
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {kind}"
                )));
            }
        };
        let namespace = if slot == 0 { namespace } else { "" };
        let object = state
            .store
            .get_value("", resource, namespace, name)
            .ok_or_else(|| Status::not_found("", resource, name))?;
        let uid = tree::text(&object, "metadata.uid");
        let asked = tree::text(reference, "uid");
        if !asked.is_empty() && asked != uid {
            let why = format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            );
            return Err(Status::conflict("", resource, name, &why));
        }
        if slot == 0 {
            let own = tree::text(&object, "spec.serviceAccountName");
            if own != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name"
                )));
            }
            let node = tree::text(&object, "spec.nodeName");
            if !node.is_empty() {
                let uid = state.store.get_value("", "nodes", "", node);
                let uid = uid
                    .map(|n| tree::text(&n, "metadata.uid").to_owned())
                    .unwrap_or_default();
                bound[1] = Some((node.to_owned(), uid));
            }
        }
        bound[slot] = Some((name.to_owned(), uid.to_owned()));
    }
    let now = state.clock().now();
    let [pod, node] = bound;
    let claims = Claims {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        uid: tree::text(&found, "metadata.uid").to_owned(),
        pod,
        node,
        audiences: audiences.clone(),
        issued: now.as_second(),
        expires: now.as_second() + seconds,
        id: state.rng().uuid(),
    };
    let token = state.authenticator.signer.sign(&claims);
    let ends = jiff::Timestamp::from_second(claims.expires).unwrap_or(jiff::Timestamp::MAX);
    let spec = tree::child(&mut request, "spec");
    spec["audiences"] = audiences.into();
    spec["expirationSeconds"] = seconds.into();
    tree::object(spec)
        .entry("boundObjectRef")
        .or_insert(Value::Null);
    Ok(json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": account,
            "namespace": namespace,
            "creationTimestamp": state.ctx().now_text(),
        },
        "spec": request["spec"],
        "status": {
            "token": token,
            "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        },
    }))
}
