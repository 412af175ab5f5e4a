//! `/apis/v2beta1`.

mod experiments;
pub(super) mod messages;
pub(super) mod pipelines;
mod recurring_runs;
mod runs;
mod tasks;

use super::route::Route;

pub(super) fn routes() -> Vec<Route> {
    let mut routes = experiments::routes();
    routes.extend(pipelines::routes());
    routes.extend(runs::routes());
    routes.extend(recurring_runs::routes());
    routes
}
