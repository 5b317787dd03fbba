//! What becomes of services, as it happens: a stream of server-sent events.

use crate::auth::Caller;
use crate::lists::ServiceSummary;
use crate::problem::problem;
use crate::server::Shared;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Clients at a time.
pub(crate) const CLIENTS_MAX: usize = 32;
/// Between two looks at what has changed.
const EVERY: Duration = Duration::from_secs(1);
/// Looks without a change until a word is sent all the same, so that proxies in between keep the connection.
const SILENT_MOST: u32 = 15;

struct Client {
    shared: Shared,
    caller: Caller,
    /// What was sent last of each.
    sent: BTreeMap<String, ServiceSummary>,
    begun: bool,
    _permit: OwnedSemaphorePermit,
}

/// What becomes of services: at first each of them, then those that change, as `event: service` with a summary; and `event: gone`
/// with the name of one that is no longer there. A slow client misses steps in between, and never the last.
#[cfg_attr(test, utoipa::path(get, path = "/v1/events", responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = 503, description = "Too many listen already"),
)))]
pub(crate) async fn events(State(shared): State<Shared>, Extension(caller): Extension<Caller>) -> Response {
    let Ok(permit) = shared.listeners.clone().try_acquire_owned() else {
        let what = format!("{CLIENTS_MAX} listen already; close one, or poll /v1/services with its ETag");
        return problem(StatusCode::SERVICE_UNAVAILABLE, &what);
    };
    let client = Client { shared, caller, sent: BTreeMap::new(), begun: false, _permit: permit };
    let chunks = stream::unfold(client, |mut client| async move {
        let text = client.next().await;
        Some((Ok::<_, Infallible>(text), client))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy in between must pass it on as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Client {
    async fn next(&mut self) -> String {
        for _ in 0..SILENT_MOST {
            if std::mem::replace(&mut self.begun, true) {
                tokio::time::sleep(EVERY).await;
            }
            let changes = self.changes();
            if !changes.is_empty() {
                return changes;
            }
        }
        ": still here\n\n".to_owned()
    }

    fn changes(&mut self) -> String {
        let seen = self.shared.seen(&self.caller);
        let mut text = String::new();
        let mut now = BTreeMap::new();
        for service in &seen.services {
            let summary = ServiceSummary::of(service);
            if self.sent.get(&summary.name) != Some(&summary) {
                let json = serde_json::to_string(&summary).unwrap_or_default();
                text += &format!("event: service\ndata: {json}\n\n");
            }
            now.insert(summary.name.clone(), summary);
        }
        for name in self.sent.keys().filter(|name| !now.contains_key(*name)) {
            let json = serde_json::json!({ "name": name });
            text += &format!("event: gone\ndata: {json}\n\n");
        }
        self.sent = now;
        text
    }
}
