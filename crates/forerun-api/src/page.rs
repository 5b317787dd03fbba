//! The description of the API, and a small page that shows it.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Written from the code by a test, which also fails where the two differ: the build needs nothing for it.
const OPENAPI: &str = include_str!("../openapi.json");
const PAGE: &str = include_str!("../docs/page.html");
const SCRIPT: &str = include_str!("../docs/page.js");
/// Nothing from elsewhere, and no code but ours.
const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

pub(crate) async fn openapi() -> Response {
    file("application/json", OPENAPI)
}

pub(crate) async fn docs() -> Response {
    file("text/html; charset=utf-8", PAGE)
}

pub(crate) async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}
