//! How questions are read and answers given: refusals are problem documents, and what is polled has an ETag.

use crate::problem::problem;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The one name in a path.
#[derive(Debug)]
pub(crate) struct Segment(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        let refused =
            |_| problem(StatusCode::NOT_FOUND, "this path is no text; names are UTF-8, percent-encoded");
        read.map(|Path(name)| Self(name)).map_err(refused)
    }
}

/// What stands behind `?`.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        let refused = |e: QueryRejection| {
            let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            problem(StatusCode::BAD_REQUEST, &format!("{why}; /openapi.json says what may be asked here"))
        };
        read.map(|Query(params)| Self(params)).map_err(refused)
    }
}

/// A body, up to the server's limit.
#[derive(Debug)]
pub(crate) struct Content(pub(crate) axum::body::Bytes);

impl<S: Send + Sync> FromRequest<S> for Content {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let refused = |e: BytesRejection| {
            problem(e.status(), "this body is too long, or was cut; send a few fields of JSON")
        };
        axum::body::Bytes::from_request(request, state).await.map(Self).map_err(refused)
    }
}

/// JSON with an ETag, or 304 where the caller has the same already.
pub(crate) fn tagged(asked: &HeaderMap, body: &impl Serialize) -> Response {
    let body = match serde_json::to_vec(body) {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "api: an answer cannot be written");
            return problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this answer cannot be written; forerun's log says why",
            );
        }
    };
    let hash: String = Sha256::digest(&body)[..12].iter().map(|b| format!("{b:02x}")).collect();
    let tag = format!("\"{hash}\"");
    let had = asked.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let same = had.is_some_and(|tags| {
        tags.split(',').any(|had| had.trim().trim_start_matches("W/") == tag || had.trim() == "*")
    });
    let mut response = match same {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    // It may be asked again at any time, and is for whoever asked.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("authorization, forerun-token"));
    response
}
