//! What some kinds need besides their own object before they are stored: addresses for Services,
//! acceptance of CustomResourceDefinitions, and that nobody grants more rights than they have.

use kinds::tree;
use serde_json::Value;

use super::Writing;
use super::service::Reservation;
use crate::auth::rbac::{Attributes, GROUP as RBAC, Rule};
use crate::customresource;
use crate::status::{Result, Status};

/// After preparation, before validation, of a new object. The answer is kept until it is stored.
pub(crate) fn before_create(
    writing: &mut Writing<'_>,
    object: &mut Value,
) -> Result<Option<Reservation>> {
    before(writing, object, None)
}

/// The same for a change of the main resource.
pub(crate) fn before_update(
    writing: &mut Writing<'_>,
    object: &mut Value,
    old: &Value,
) -> Result<Option<Reservation>> {
    before(writing, object, Some(old))
}

fn before(
    writing: &mut Writing<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Option<Reservation>> {
    let resource = writing.resource;
    match (resource.group(), resource.plural()) {
        ("", "services") => {
            let state = writing.state;
            return state.allocator.allocate(writing, object, old).map(Some);
        }
        (customresource::GROUP, customresource::PLURAL) => {
            let causes = customresource::accept(writing.state, object, old);
            if !causes.is_empty() {
                return Err(writing.invalid(tree::text(object, "metadata.name"), &causes));
            }
        }
        (RBAC, "roles" | "clusterroles") => role(writing, object, old)?,
        (RBAC, "rolebindings" | "clusterrolebindings") => binding(writing, object, old)?,
        _ => {}
    }
    Ok(None)
}

fn role(writing: &Writing<'_>, object: &Value, old: Option<&Value>) -> Result<()> {
    if old.is_some_and(|old| tree::same(old, object, "rules")) {
        return Ok(());
    }
    let name = tree::text(object, "metadata.name");
    let resource = writing.resource.plural();
    let wanted = Attributes {
        verb: "escalate",
        group: RBAC,
        resource,
        namespace: writing.namespace,
        name,
        ..Attributes::default()
    };
    if writing.state.authorizer.allows(writing.user, &wanted) {
        return Ok(());
    }
    let rules: Vec<Rule> = tree::list(object, "rules").iter().map(Rule::read).collect();
    match writing
        .state
        .authorizer
        .escalates(writing.user, writing.namespace, &rules)
    {
        Some(why) => Err(Status::forbidden(RBAC, resource, name, &why)),
        None => Ok(()),
    }
}

fn binding(writing: &Writing<'_>, object: &Value, old: Option<&Value>) -> Result<()> {
    if old.is_some_and(|old| {
        tree::same(old, object, "roleRef") && tree::same(old, object, "subjects")
    }) {
        return Ok(());
    }
    let name = tree::text(object, "metadata.name");
    let role_name = tree::text(object, "roleRef.name");
    let roles = match tree::text(object, "roleRef.kind") {
        "Role" => "roles",
        "ClusterRole" => "clusterroles",
        // Validation says what is allowed.
        _ => return Ok(()),
    };
    let wanted = Attributes {
        verb: "bind",
        group: RBAC,
        resource: roles,
        namespace: writing.namespace,
        name: role_name,
        ..Attributes::default()
    };
    let authorizer = &writing.state.authorizer;
    if authorizer.allows(writing.user, &wanted) {
        return Ok(());
    }
    let Some(rules) = authorizer.rules_of_ref(&object["roleRef"], writing.namespace) else {
        return Err(Status::not_found(RBAC, roles, role_name));
    };
    match authorizer.escalates(writing.user, writing.namespace, &rules) {
        Some(why) => Err(Status::forbidden(
            RBAC,
            writing.resource.plural(),
            name,
            &why,
        )),
        None => Ok(()),
    }
}
