//! The handlers that are the same in both versions: an id in the path, nothing in the body, nothing
//! in the answer.

/// Of runs.
pub(super) mod run {
    use axum::Json;
    use axum::extract::{Path, State};

    use crate::api::v2::messages::Nothing;
    use crate::api::wire::Result;
    use crate::api::{Api, actions};
    use crate::store::runs;

    pub(in crate::api) async fn remove(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        actions::delete(&api, &id).await?;
        Ok(Json(Nothing))
    }

    pub(in crate::api) async fn archive(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        runs::archive(&api.db, &id, true).await?;
        Ok(Json(Nothing))
    }

    pub(in crate::api) async fn unarchive(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        runs::archive(&api.db, &id, false).await?;
        Ok(Json(Nothing))
    }

    pub(in crate::api) async fn terminate(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        actions::terminate(&api, &id).await?;
        Ok(Json(Nothing))
    }

    pub(in crate::api) async fn retry(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        actions::retry(&api, &id).await?;
        Ok(Json(Nothing))
    }
}

/// Of experiments.
pub(super) mod experiment {
    use axum::Json;
    use axum::extract::{Path, State};

    use crate::api::v2::messages::Nothing;
    use crate::api::wire::Result;
    use crate::api::{Api, actions};
    use crate::store::experiments;

    pub(in crate::api) async fn remove(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        actions::delete_experiment(&api, &id).await?;
        Ok(Json(Nothing))
    }

    pub(in crate::api) async fn archive(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        experiments::archive(&api.db, &id, true).await?;
        Ok(Json(Nothing))
    }

    pub(in crate::api) async fn unarchive(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        experiments::archive(&api.db, &id, false).await?;
        Ok(Json(Nothing))
    }
}

/// Of recurring runs, which v1beta1 calls jobs.
pub(super) mod recurring_run {
    use axum::Json;
    use axum::extract::{Path, State};

    use crate::api::v2::messages::Nothing;
    use crate::api::wire::Result;
    use crate::api::{Api, recurring};

    pub(in crate::api) async fn enable(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        recurring::enable(&api, &id, true).await?;
        Ok(Json(Nothing))
    }

    pub(in crate::api) async fn disable(
        State(api): State<Api>,
        Path(id): Path<String>,
    ) -> Result<Json<Nothing>> {
        recurring::enable(&api, &id, false).await?;
        Ok(Json(Nothing))
    }
}
