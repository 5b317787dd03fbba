//! Answers that are read from the source's status, as far as they are the caller's to see.

use crate::Status;
use crate::auth::{AuditEntry, Caller};
use crate::problem::problem;
use crate::scope;
use crate::server::Shared;
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Of the audit log, in one answer.
const ENTRIES_MAX: usize = 1_000;

/// All that holds now, of every service; large where there are many.
#[cfg_attr(test, utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status))))]
pub(crate) async fn status(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Json<Status> {
    Json(scope::seen(shared.source.status(), &caller))
}

/// The last changes, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Audit {
    pub items: Vec<AuditEntry>,
}

/// The last 1,000 changes, the newest first.
#[cfg_attr(test, utoipa::path(get, path = "/v1/audit", responses((status = 200, body = Audit))))]
pub(crate) async fn audit(State(shared): State<Shared>) -> Response {
    let guard = shared.guard;
    let read = tokio::task::spawn_blocking(move || guard.audit.last(ENTRIES_MAX)).await;
    match read {
        Ok(Ok(items)) => Json(Audit { items }).into_response(),
        Ok(Err(error)) => unreadable(&error.to_string()),
        Err(error) => unreadable(&error.to_string()),
    }
}

fn unreadable(why: &str) -> Response {
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        &format!("the audit log cannot be read: {why}; see the state folder"),
    )
}
