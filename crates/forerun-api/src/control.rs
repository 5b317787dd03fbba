//! What a person tells a running Forerun: how many instances of a service, and how far to go with it.

use crate::auth::{Caller, Did};
use crate::problem::{no_service, problem};
use crate::server::{Shared, is_seen};
use crate::{ModeWord, Word};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forerun_types::{Mode, Span};
use serde::{Deserialize, Serialize};

/// More instances than any service may have.
const INSTANCES_MAX: u32 = 100_000;
/// A word that is to hold longer has no end.
const FOR_SECONDS_MAX: f64 = 10.0 * 366.0 * 86_400.0;

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
struct Scale {
    instances: u32,
    for_seconds: Option<f64>,
}

/// `POST /v1/services/NAME/VERB`.
pub(crate) async fn order(
    State(shared): State<Shared>,
    Path((service, verb)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    let order = match order_of(&verb, &body) {
        Ok(order) => order,
        Err((status, what)) => return problem(status, &what),
    };
    let hidden = caller.tenant.is_some() && !is_seen(&shared, &caller, &service);
    let mut response = match (!hidden).then(|| shared.source.control(&service, order)) {
        None => no_service(&service),
        Some(Ok(told)) => Json(told).into_response(),
        Some(Err(error @ ControlError::NoService { .. })) => {
            problem(StatusCode::NOT_FOUND, &error.to_string())
        }
        Some(Err(error @ ControlError::NotNow(_))) => problem(StatusCode::CONFLICT, &error.to_string()),
    };
    response.extensions_mut().insert(Did(in_words(&service, order)));
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

fn order_of(verb: &str, body: &[u8]) -> Result<Order, (StatusCode, String)> {
    let order = match verb {
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "act" => Order::Mode(Mode::Act),
        "advise" => Order::Mode(Mode::Advise),
        "observe" => Order::Mode(Mode::Observe),
        "scale" => return scale(body).map_err(|what| (StatusCode::BAD_REQUEST, what)),
        _ => {
            let verb: String = verb.chars().take(40).collect();
            let what = format!(
                "nothing is called {verb} here; there are pause, resume, scale, act, advise and observe"
            );
            return Err((StatusCode::NOT_FOUND, what));
        }
    };
    Ok(order)
}

fn scale(body: &[u8]) -> Result<Order, String> {
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
        for (verb, body, expect) in [
            ("pause", "", Ok(Order::Pause)),
            ("observe", "ignored", Ok(Order::Mode(Mode::Observe))),
            ("advise", "", Ok(Order::Mode(Mode::Advise))),
            ("scale", "{\"instances\":2}", Ok(Order::Scale { instances: 2, hold: None })),
            (
                "scale",
                "{\"instances\":0,\"for_seconds\":1.5}",
                Ok(Order::Scale { instances: 0, hold: Some(Span::from_millis(1_500)) }),
            ),
            ("scale", "", Err("send {\"instances\": 2}")),
            ("scale", "{\"instances\":-1}", Err("send {")),
            ("scale", "{\"instances\":1,\"for\":3}", Err("unknown field")),
            ("scale", "{\"instances\":1,\"for_seconds\":0}", Err("no time from now")),
            ("scale", "{\"instances\":1,\"for_seconds\":1e300}", Err("no time from now")),
            ("scale", "{\"instances\":4000000}", Err("more than any service has")),
            ("start", "", Err("nothing is called start here")),
        ] {
            match (order_of(verb, body.as_bytes()), expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{verb} {body}"),
                (Err((_, what)), Err(part)) => assert!(what.contains(part), "{verb} {body}: {what}"),
                (got, _) => panic!("{verb} {body}: {got:?}"),
            }
        }
    }
}
