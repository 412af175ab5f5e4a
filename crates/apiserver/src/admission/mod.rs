//! Admission: what may change or refuse a write after authorization and before validation.
//!
//! The trait here is for hooks of the embedding program; the built-in plugins are beside it. A hook
//! sees other objects only through [`Reader`], from the cache, so it never waits for the store.

mod builtin;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use crate::auth::UserInfo;
use crate::registry::Writing;
use crate::status::Status;

/// What is being done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object, by update, patch or apply.
    Update,
    /// A removal; the object under admission is the one about to go.
    Delete,
    /// A connection into a Pod or Service: exec, attach, port-forward, proxy.
    Connect,
}

/// One write on its way to the store.
#[derive(Debug)]
pub struct AdmissionRequest {
    /// What is being done.
    pub operation: Operation,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The kind of the object in the request.
    pub kind: String,
    /// The resource's plural name.
    pub resource: String,
    /// The subresource, empty for the object itself.
    pub subresource: String,
    /// The namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// The object's name; empty when the server is to generate it.
    pub name: String,
    /// The object as it would be stored; hooks may change it. `Null` for Delete and Connect.
    pub object: Value,
    /// The stored object, for Update and Delete.
    pub old_object: Option<Arc<Value>>,
    /// Who asks.
    pub user: UserInfo,
    /// True when nothing will be stored.
    pub dry_run: bool,
    /// The other objects of the cluster.
    pub reader: Reader,
}

/// Why a write was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// HTTP status code; 403 for a plain refusal.
    pub code: u16,
    /// The Status reason, e.g. `Forbidden`.
    pub reason: String,
    /// The Status message, sent as it stands.
    pub message: String,
}

impl Denied {
    /// A plain refusal (403 Forbidden) with this message.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self {
            code: 403,
            reason: "Forbidden".to_owned(),
            message: message.into(),
        }
    }
}

/// A hook that may change or refuse writes.
pub trait Admission: Send + Sync + fmt::Debug {
    /// Looks at one write: the answer's strings go to the client as warnings.
    fn admit<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
    ) -> BoxFuture<'a, Result<Vec<String>, Denied>>;
}

/// Reads objects from the server's cache.
#[derive(Clone)]
pub struct Reader {
    pub(crate) store: Arc<crate::storage::Store>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// One object; `namespace` is empty for cluster-scoped ones.
    pub fn get(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        self.store.get_value(group, resource, namespace, name)
    }

    /// All objects of a resource in a namespace, or everywhere when it is empty. A resource that is
    /// not served is an empty list.
    pub fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.store.list_values(group, resource, namespace)
    }
}

/// Runs the built-in plugins and then the hooks; the answer is the object they leave.
pub(crate) async fn admit(
    writing: &mut Writing<'_>,
    operation: Operation,
    object: Value,
    old_object: Option<Arc<Value>>,
) -> Result<Value, Status> {
    let resource = writing.resource;
    let named = |value: &Value| kinds::tree::text(value, "metadata.name").to_owned();
    let name = match (&old_object, &object) {
        (Some(old), Value::Null) => named(old),
        (_, object) => named(object),
    };
    let mut request = AdmissionRequest {
        operation,
        group: resource.group().to_owned(),
        version: resource.kind.version.to_string(),
        kind: resource.kind.kind.to_string(),
        resource: resource.plural().to_owned(),
        subresource: writing.subresource.to_owned(),
        namespace: writing.namespace.to_owned(),
        name,
        object,
        old_object,
        user: writing.user.clone(),
        dry_run: writing.options.dry_run,
        reader: Reader {
            store: Arc::clone(&writing.state.store),
        },
    };
    builtin::admit(writing.state, &mut request).await?;
    for hook in &writing.state.options.admission {
        match hook.admit(&mut request).await {
            Ok(warnings) => writing.warnings.extend(warnings),
            Err(denied) => return Err(refuse(&request, denied)),
        }
    }
    Ok(request.object)
}

fn refuse(request: &AdmissionRequest, denied: Denied) -> Status {
    let code = http::StatusCode::from_u16(denied.code).unwrap_or(http::StatusCode::FORBIDDEN);
    tracing::debug!(
        resource = request.resource,
        namespace = request.namespace,
        name = request.name,
        "admission refused: {}",
        denied.message
    );
    Status::new(code, &denied.reason, denied.message)
}

impl AdmissionRequest {
    /// The name that a refusal speaks of, before a generated one is drawn.
    pub(crate) fn shown_name(&self) -> &str {
        let generated = kinds::tree::text(&self.object, "metadata.generateName");
        match (self.name.as_str(), generated) {
            ("", "") => "Unknown",
            ("", generated) => generated,
            (name, _) => name,
        }
    }

    /// A refusal in upstream's form: `pods "x" is forbidden: …`.
    pub(crate) fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.group, &self.resource, self.shown_name(), why)
    }
}
