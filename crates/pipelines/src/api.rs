//! The REST API of Kubeflow Pipelines, v1beta1: paths, bodies and error shapes as its SDKs and its
//! dashboard expect them. Handlers parse and render; what happens is the store's and the runner's.

mod body;
mod experiments;
mod health;
mod logs;
mod pipelines;
mod runs;
mod upload;
mod wire;

use std::fmt;

use axum::Router;
use db::{Db, Migration};
use stdx::{SharedClock, SharedRng};

use crate::runner::Runner;
use crate::{journal, store};

/// Uploads may be this large (32 MiB), plus what multipart adds.
const BODY_LIMIT: usize = (32 << 20) + (64 << 10);

/// The history of the pipelines database.
pub const MIGRATIONS: &[Migration] = &[journal::MIGRATION, store::MIGRATION];

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
}

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
        let routes = Router::new()
            .merge(health::routes())
            .merge(experiments::routes())
            .merge(pipelines::routes())
            .merge(upload::routes())
            .merge(runs::routes())
            .merge(logs::routes())
            .with_state(self)
            .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT));
        let unknown = |request: axum::extract::Request| async move {
            wire::Failure::not_found(format!(
                "{} {} is not part of this API",
                request.method(),
                request.uri().path()
            ))
        };
        let served = routes.clone().nest("/pipeline", routes);
        served
            .route("/apis/{*rest}", axum::routing::any(unknown))
            .route("/pipeline/apis/{*rest}", axum::routing::any(unknown))
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}
