//! Errors as RFC 9457 problem documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An answer that is no success: `application/problem+json` with the status, its name and a sentence that mends it.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let body = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}

/// To a caller for whom a service is not there, whether or not another tenant has it.
pub(crate) fn no_service(name: &str) -> Response {
    let name: String = name.chars().take(100).collect();
    problem(
        StatusCode::NOT_FOUND,
        &format!("no service is called `{name}`; /v1/status has those that there are"),
    )
}
