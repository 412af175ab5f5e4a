//! `/apis/v1beta1`.

mod experiments;
mod jobs;
pub(super) mod messages;
pub(super) mod pipelines;
mod runs;

use super::route::Route;

pub(super) fn routes() -> Vec<Route> {
    let mut routes = experiments::routes();
    routes.extend(pipelines::routes());
    routes.extend(runs::routes());
    routes.extend(jobs::routes());
    routes
}

/// The query parameters of a list whose scope is a reference.
const SCOPED: &[&str] = &["resource_reference_key.type", "resource_reference_key.id"];

/// Whose resources are listed.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Owner {
    #[serde(
        rename = "resource_reference_key.type",
        alias = "resourceReferenceKey.type"
    )]
    kind: String,
    #[serde(
        rename = "resource_reference_key.id",
        alias = "resourceReferenceKey.id"
    )]
    id: String,
}

impl Owner {
    /// The type by name or number.
    fn kind(&self) -> super::wire::Result<messages::ResourceType> {
        use super::message::Wire as _;
        let value = match self.kind.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) if self.kind.is_empty() => 0.into(),
            Err(_) => self.kind.clone().into(),
        };
        messages::ResourceType::read(value, "resource_reference_key.type")
    }

    /// Puts a namespace that is the scope into the list's request.
    fn namespace(
        &self,
        request: &mut crate::store::page::Request,
    ) -> super::wire::Result<messages::ResourceType> {
        let kind = self.kind()?;
        if kind == messages::ResourceType::Namespace {
            request.namespace.clone_from(&self.id);
        }
        Ok(kind)
    }
}
