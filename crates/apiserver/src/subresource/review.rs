//! Reviews: questions about identity and rights, answered and not stored.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Response, StatusCode};
use kinds::tree;
use serde_json::{Map, Value, json};

use crate::auth::UserInfo;
use crate::auth::rbac::Attributes;
use crate::endpoints::query::{FieldValidation, WriteOptions};
use crate::endpoints::{Call, Place, respond};
use crate::fieldmanager;
use crate::server::State;
use crate::status::{Cause, Result, Status};

pub(crate) async fn serve(mut call: Call, place: Place) -> Result<Response<Body>> {
    if call.parts.method != Method::POST {
        return if place.resource.plural() == "componentstatuses" {
            component_statuses(&call, &place)
        } else {
            Err(Status::method_not_allowed())
        };
    }
    let form = call.form(false)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = call.bytes().await?;
    let mut warnings = Vec::new();
    let mut review = fieldmanager::decode(
        &call.state,
        &place.resource,
        &call.parts.headers,
        &bytes,
        match options.field_validation {
            FieldValidation::Strict => FieldValidation::Strict,
            _ => FieldValidation::Ignore,
        },
        &mut warnings,
    )?;
    tree::child(&mut review, "metadata");
    let state = &call.state;
    match place.resource.plural() {
        "selfsubjectreviews" => {
            review["status"] = json!({"userInfo": user_info(&call.user)});
        }
        "tokenreviews" => token_review(state, &mut review)?,
        "selfsubjectaccessreviews" => {
            access_review(state, &call.user, &mut review, &place)?;
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let user = subject(&review, &place)?;
            access_review(state, &user, &mut review, &place)?;
        }
        "selfsubjectrulesreviews" => rules_review(state, &call.user, &mut review)?,
        _ => return Err(Status::method_not_allowed()),
    }
    Ok(respond::value(StatusCode::CREATED, form, &review))
}

fn component_statuses(call: &Call, place: &Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    if !place.path.name.is_empty() {
        return Err(Status::not_found("", "componentstatuses", &place.path.name));
    }
    let list = json!({
        "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": [],
    });
    Ok(respond::value(StatusCode::OK, form, &list))
}

/// A user as reviews show one.
pub(crate) fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

fn token_review(state: &Arc<State>, review: &mut Value) -> Result<()> {
    let token = tree::text(review, "spec.token").to_owned();
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let mut audiences: Vec<String> = tree::words(review, "spec.audiences")
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences = state.authenticator.own_audience();
    }
    review["status"] = match state.authenticator.token_user(&token, &audiences) {
        Ok((user, audiences)) => json!({
            "authenticated": true, "user": user_info(&user), "audiences": audiences,
        }),
        Err(problem) if problem == "not a token of this server" => json!({"user": {}}),
        Err(problem) => json!({"user": {}, "error": problem}),
    };
    Ok(())
}

fn subject(review: &Value, place: &Place) -> Result<UserInfo> {
    let words = |path| {
        tree::words(review, path)
            .into_iter()
            .map(ToOwned::to_owned)
            .collect()
    };
    let user = UserInfo {
        name: tree::text(review, "spec.user").to_owned(),
        uid: tree::text(review, "spec.uid").to_owned(),
        groups: words("spec.groups"),
        ..UserInfo::default()
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let cause = Cause::new(
            "FieldValueInvalid",
            "spec.user",
            "Invalid value: \"\": at least one of user or group must be specified",
        );
        let (group, kind) = (place.resource.group(), &place.resource.kind.kind);
        return Err(Status::invalid(group, kind, "", &[cause]));
    }
    Ok(user)
}

fn access_review(
    state: &Arc<State>,
    user: &UserInfo,
    review: &mut Value,
    place: &Place,
) -> Result<()> {
    let resource = tree::get(review, "spec.resourceAttributes");
    let path = tree::get(review, "spec.nonResourceAttributes");
    let invalid = |field: &str, message: &str| {
        let cause = Cause::new("FieldValueInvalid", field, message);
        let (group, kind) = (place.resource.group(), &place.resource.kind.kind);
        Err(Status::invalid(group, kind, "", &[cause]))
    };
    let allowed = match (resource, path) {
        (Some(_), Some(_)) => {
            return invalid(
                "spec.nonResourceAttributes",
                "Invalid value: cannot be specified in combination with resourceAttributes",
            );
        }
        (None, None) => {
            return invalid(
                "spec.resourceAttributes",
                "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            );
        }
        (Some(r), None) => {
            let text = |key| tree::text(r, key);
            let wanted = Attributes {
                verb: text("verb"),
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                path: None,
            };
            if place.resource.kind.namespaced && wanted.namespace != place.namespace {
                return invalid(
                    "spec.resourceAttributes.namespace",
                    "Invalid value: must match metadata.namespace",
                );
            }
            state.authorizer.allows(user, &wanted)
        }
        (None, Some(p)) => {
            let wanted = Attributes {
                verb: tree::text(p, "verb"),
                path: Some(tree::text(p, "path")),
                ..Attributes::default()
            };
            state.authorizer.allows(user, &wanted)
        }
    };
    review["status"] = json!({"allowed": allowed});
    Ok(())
}

fn rules_review(state: &Arc<State>, user: &UserInfo, review: &mut Value) -> Result<()> {
    let namespace = tree::text(review, "spec.namespace").to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in state.authorizer.rules(user, &namespace) {
        if rule.urls.is_empty() {
            let mut entry = json!({
                "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources,
            });
            if !rule.resource_names.is_empty() {
                entry["resourceNames"] = rule.resource_names.into();
            }
            resources.push(entry);
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.urls}));
        }
    }
    review["status"] =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    Ok(())
}
