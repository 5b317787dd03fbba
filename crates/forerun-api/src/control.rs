//! What a person tells a running Forerun: how many instances of a service, and how far to go with it.

use crate::answer::{Content, Segment};
use crate::auth::{Caller, Did};
use crate::problem::{no_service, problem};
use crate::server::{Peer, Shared, is_seen};
use crate::{ModeWord, Word};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forerun_types::{Mode, Span};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// More instances than any service may have.
const INSTANCES_MAX: u32 = 100_000;
/// A word that is to hold longer has no end.
const FOR_SECONDS_MAX: f64 = 10.0 * 366.0 * 86_400.0;
/// Of a refusal's body.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// What is told of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Leave it as it is: so many as are up now, without end.
    Pause,
    /// Take back a word on the number of instances, and lift what holds it down by hand.
    Resume,
    /// Exactly so many instances; `None` is without end.
    Scale { instances: u32, hold: Option<Span> },
    /// How far to go, whatever the configuration says.
    Mode(Mode),
}

/// What holds of a service after an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Told {
    pub service: String,
    /// A word on the number of instances; `null` when the plan decides.
    pub word: Option<Word>,
    /// `null` when the configuration decides.
    pub mode_word: Option<ModeWord>,
    /// One sentence for people.
    pub said: String,
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("no service is called `{name}`{hint}")]
    NoService { name: String, hint: String },
    #[error("{0}")]
    NotNow(String),
}

/// The body of `scale`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct Scale {
    /// At most 100,000.
    #[cfg_attr(test, schema(maximum = 100_000))]
    instances: u32,
    /// Until it is taken back where this is left out; at most ten years.
    #[cfg_attr(test, schema(exclusive_minimum = 0.0, maximum = 316_224_000.0))]
    for_seconds: Option<f64>,
}

/// Leaves a service as it is now, until it is resumed.
#[cfg_attr(test, utoipa::path(post, path = "/v1/services/{service}/pause", params(("service" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, body = Told))))]
pub(crate) async fn pause(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
) -> Response {
    told(&shared, &caller, &name, Order::Pause)
}

/// Takes back a person's word on the number of instances, and lifts what holds a service down by hand.
#[cfg_attr(test, utoipa::path(post, path = "/v1/services/{service}/resume", params(("service" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, body = Told))))]
pub(crate) async fn resume(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
) -> Response {
    told(&shared, &caller, &name, Order::Resume)
}

/// Starts and stops a service's instances from now on.
#[cfg_attr(test, utoipa::path(post, path = "/v1/services/{service}/act", params(("service" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, body = Told))))]
pub(crate) async fn act(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
) -> Response {
    told(&shared, &caller, &name, Order::Mode(Mode::Act))
}

/// Says from now on what would be done of a service, and does nothing.
#[cfg_attr(test, utoipa::path(post, path = "/v1/services/{service}/advise", params(("service" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, body = Told))))]
pub(crate) async fn advise(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
) -> Response {
    told(&shared, &caller, &name, Order::Mode(Mode::Advise))
}

/// Only watches a service from now on.
#[cfg_attr(test, utoipa::path(post, path = "/v1/services/{service}/observe", params(("service" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, body = Told))))]
pub(crate) async fn observe(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
) -> Response {
    told(&shared, &caller, &name, Order::Mode(Mode::Observe))
}

/// Holds a service at a number of instances, for a time or until it is resumed.
#[cfg_attr(test, utoipa::path(post, path = "/v1/services/{service}/scale", params(("service" = String, Path, description = "Its name", example = "web")),
    request_body = Scale, responses((status = 200, body = Told))))]
pub(crate) async fn scale(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    Content(body): Content,
) -> Response {
    match scale_of(&body) {
        Ok(order) => told(&shared, &caller, &name, order),
        Err(what) => problem(StatusCode::BAD_REQUEST, &what),
    }
}

/// Wakes a service as a request would, without one: it comes up, and is kept up a little. One that asks who comes (`auth`) is
/// woken by requests alone.
#[cfg_attr(test, utoipa::path(post, path = "/v1/services/{service}/wake", params(("service" = String, Path, description = "Its name", example = "web")),
    responses((status = 200, body = Told), (status = 409, description = "It cannot be woken so"))))]
pub(crate) async fn wake(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Extension(Peer(client)): Extension<Peer>,
    Segment(name): Segment,
) -> Response {
    let mut response = match is_seen(&shared, &caller, &name) {
        true => woken(&shared, client, &name).await,
        false => no_service(&name),
    };
    response.extensions_mut().insert(Did(format!("wake {name}")));
    response
}

/// What wakes a service without a request is the router's.
async fn woken(shared: &Shared, client: IpAddr, name: &str) -> Response {
    let not_here =
        || problem(StatusCode::CONFLICT, "this forerun cannot wake a service so; send it a request");
    let asked = axum::http::Request::get(format!("/api/strategies/poke?names={}", percent(name))).body(());
    let Some(answer) = asked.ok().and_then(|asked| shared.source.beside(asked, client)) else {
        return not_here();
    };
    let answer = answer.await;
    if answer.status().is_success() {
        let said = format!("{name} is woken");
        return Json(Told { service: name.to_owned(), said, ..Told::default() }).into_response();
    }
    let body = axum::body::to_bytes(answer.into_body(), WORDS_BYTES_MAX).await.unwrap_or_default();
    let words = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let detail = words.as_ref().and_then(|words| words.get("detail")?.as_str());
    problem(StatusCode::CONFLICT, detail.unwrap_or("it cannot be woken now; send it a request"))
}

/// A part of a query: whatever a name holds must not become another.
fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn told(shared: &Shared, caller: &Caller, service: &str, order: Order) -> Response {
    let hidden = caller.tenant.is_some() && !is_seen(shared, caller, service);
    let mut response = match (!hidden).then(|| shared.source.control(service, order)) {
        None => no_service(service),
        Some(Ok(told)) => Json(told).into_response(),
        Some(Err(error @ ControlError::NoService { .. })) => {
            problem(StatusCode::NOT_FOUND, &error.to_string())
        }
        Some(Err(error @ ControlError::NotNow(_))) => problem(StatusCode::CONFLICT, &error.to_string()),
    };
    response.extensions_mut().insert(Did(in_words(service, order)));
    response
}

/// For the audit log.
fn in_words(service: &str, order: Order) -> String {
    match order {
        Order::Pause => format!("pause {service}"),
        Order::Resume => format!("resume {service}"),
        Order::Scale { instances, hold: Some(hold) } => format!("scale {service} to {instances} for {hold}"),
        Order::Scale { instances, hold: None } => format!("scale {service} to {instances}"),
        Order::Mode(Mode::Act) => format!("act {service}"),
        Order::Mode(Mode::Advise) => format!("advise {service}"),
        Order::Mode(Mode::Observe) => format!("observe {service}"),
    }
}

fn scale_of(body: &[u8]) -> Result<Order, String> {
    let mend = "send {\"instances\": 2} or {\"instances\": 2, \"for_seconds\": 3600}";
    let scale: Scale = serde_json::from_slice(body).map_err(|e| format!("{e}; {mend}"))?;
    if scale.instances > INSTANCES_MAX {
        return Err(format!("{} instances are more than any service has; {mend}", scale.instances));
    }
    let hold = match scale.for_seconds {
        None => None,
        Some(seconds) if seconds > 0.0 && seconds <= FOR_SECONDS_MAX => Some(Span::from_secs_f64(seconds)),
        Some(seconds) => return Err(format!("for_seconds: {seconds} is no time from now; {mend}")),
    };
    Ok(Order::Scale { instances: scale.instances, hold })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_or_refused_with_the_mend() {
        for (body, expect) in [
            ("{\"instances\":2}", Ok(Order::Scale { instances: 2, hold: None })),
            (
                "{\"instances\":0,\"for_seconds\":1.5}",
                Ok(Order::Scale { instances: 0, hold: Some(Span::from_millis(1_500)) }),
            ),
            ("", Err("send {\"instances\": 2}")),
            ("{\"instances\":-1}", Err("send {")),
            ("{\"instances\":1,\"for\":3}", Err("unknown field")),
            ("{\"instances\":1,\"for_seconds\":0}", Err("no time from now")),
            ("{\"instances\":1,\"for_seconds\":1e300}", Err("no time from now")),
            ("{\"instances\":4000000}", Err("more than any service has")),
        ] {
            match (scale_of(body.as_bytes()), expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{body}"),
                (Err(what), Err(part)) => assert!(what.contains(part), "{body}: {what}"),
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
    }
}
