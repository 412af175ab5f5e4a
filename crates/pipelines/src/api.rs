//! The REST API of Kubeflow Pipelines, v1beta1 and v2beta1: paths, bodies and error shapes as its
//! SDKs and its dashboard expect them. Handlers parse and render; what happens is the store's and
//! the runner's.
//!
//! What is served is one table ([`route`]), made of the tables of `v1`, `v2` and the modules that
//! serve both. Messages are declared in `v1::messages` and `v2::messages` by the rules of
//! [`message`]; failures become bodies in [`wire`]; lists are `store::page`.

mod actions;
mod artifacts;
mod both;
mod check;
mod frontend;
mod health;
mod launch;
mod logs;
mod message;
mod openapi;
mod package;
mod recurring;
mod retention;
mod route;
mod upload;
mod v1;
mod v2;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use db::{Db, Migration};
use futures::future::BoxFuture;
use stdx::{SharedClock, SharedRng, Supervisor};

use crate::recurring::Recurring;
use crate::runner::{Runner, cache};
pub use crate::store::page::Counts;
use crate::{journal, store};

/// Uploads may be this large (32 MiB), plus what multipart adds.
const BODY_LIMIT: usize = (32 << 20) + (64 << 10);

/// The history of the pipelines database.
pub const MIGRATIONS: &[Migration] = &[
    journal::MIGRATION,
    store::MIGRATION,
    store::MIGRATION_LISTS,
    cache::MIGRATION,
    store::recurring::MIGRATION,
    store::retention::MIGRATION,
];

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    /// The pipelines database, opened with [`MIGRATIONS`].
    pub db: Db,
    /// Executes runs.
    pub runner: Runner,
    /// The cluster, for step logs.
    pub client: kube::Client,
    /// Time.
    pub clock: SharedClock,
    /// Ids.
    pub rng: SharedRng,
    /// Where runs execute.
    pub namespace: String,
    /// Fetches packages from the web; without it they have to be uploaded.
    pub fetch: Option<Fetch>,
    /// Counts of lists that were made.
    pub counts: Counts,
    /// What fires recurring runs, see [`Api::start_recurring_runs`].
    pub recurring: Recurring,
}

/// Fetches what is at an address, up to so many bytes, or says why it could not.
pub type Fetch =
    Arc<dyn Fn(http::Uri, usize) -> BoxFuture<'static, Result<bytes::Bytes, String>> + Send + Sync>;

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// All paths, also under the `/pipeline` prefix that Kubeflow's own dashboard puts before them.
    pub fn router(self) -> Router {
        let mut routes = health::routes();
        routes.extend(v2::routes());
        routes.extend(v1::routes());
        routes.extend(upload::routes());
        routes.extend(logs::routes());
        routes.extend(frontend::routes());
        routes.extend(artifacts::routes());
        let routes = openapi::with_documents(routes);
        let served = route::served(routes, self, Router::new());
        let folders = ["apis", "artifacts", "k8s", "system", "visualizations"];
        folders.iter().fold(Router::new(), |router, folder| {
            router
                .route(&format!("/{folder}/{{*rest}}"), served.clone())
                .route(&format!("/pipeline/{folder}/{{*rest}}"), served.clone())
        })
    }

    /// Starts to fire recurring runs.
    pub fn start_recurring_runs(&self, supervisor: &Supervisor) {
        recurring::start(self.clone(), supervisor);
    }

    /// Starts to delete runs whose time to live is over: `server` is how long any run is kept
    /// at most, besides what its package says.
    pub fn start_retention(&self, server: Option<Duration>, supervisor: &Supervisor) {
        retention::start(self.clone(), server, supervisor);
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}
