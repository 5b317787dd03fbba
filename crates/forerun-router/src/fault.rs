//! An answer that is Forerun's own: whose fault it was, why, and when to ask again.
//!
//! `forerun-source` and `forerun-reason` of an answer:
//! - `client`: `no-service` (404), `only-if-cached` (504), `bad-request` (400, 405, 501), `client-body` (400), `client-stalled` (408),
//!   `wake-rate` (429, with `retry-after`);
//! - `upstream`: `upstream-connect`, `upstream-closed`, `upstream-protocol` (502), `upstream-connect-timeout`,
//!   `upstream-timeout` (504), `auth-server` (502, 504);
//! - `internal`, each a 503 with `retry-after`: `hold-requests`, `hold-bytes`, `hold-timeout`, `hold-router`,
//!   `hold-made-way`, `unavailable`, `starting`, `shutting-down`.
//!
//! `upstream-connect`, `upstream-connect-timeout` and `upstream-closed` come only once no other instance may or can
//! take the request.
//!
//! In statistics only: `upstream-cut`, an instance's answer that broke off, `client-gone`, `page`, a waiting page
//! instead of an answer, `asleep`, a probe that Forerun answered, and `auth`, who was not let in. What is no HTTP/1 is
//! refused below this, with 400, 414 or 431 and no reason.

use crate::body::ReplyBody;
use crate::page::{Condition, Shown};
use bytes::Bytes;
use forerun_route::{HoldRefusal, Refusal};
use forerun_types::{ServiceSpec, Span, Unavailable};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Client,
    Upstream,
    Internal,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Client => "client",
            Source::Upstream => "upstream",
            Source::Internal => "internal",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) source: Source,
    /// One word for the `forerun-reason` header and for metrics.
    pub(crate) reason: &'static str,
    pub(crate) sentence: String,
    /// What an instance said last, for those who may see it.
    pub(crate) log: Vec<String>,
    pub(crate) retry_after: Option<Span>,
}

/// Whether a reason says that an instance answered nothing.
pub(crate) fn is_silence(reason: &str) -> bool {
    matches!(reason, "upstream-connect" | "upstream-connect-timeout" | "upstream-closed" | "upstream-timeout")
}

const REASON: HeaderName = HeaderName::from_static("forerun-reason");
const SOURCE: HeaderName = HeaderName::from_static("forerun-source");

impl Fault {
    pub(crate) const CLIENT_GONE: &str = "client-gone";
    pub(crate) const UNAVAILABLE: &str = "unavailable";
    pub(crate) const SERVICE_GONE: &str = "no-service";
    /// An instance's answer that is none in HTTP/1.
    pub(crate) const NONSENSE: &str = "upstream-protocol";

    /// Whether the instance or Forerun is at fault.
    pub(crate) fn is_not_the_clients(&self) -> bool {
        self.source != Source::Client && self.reason != Self::CLIENT_GONE
    }

    pub(crate) fn client(status: StatusCode, reason: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            status,
            source: Source::Client,
            reason,
            sentence: sentence.into(),
            log: Vec::new(),
            retry_after: None,
        }
    }

    pub(crate) fn upstream(status: StatusCode, reason: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            status,
            source: Source::Upstream,
            reason,
            sentence: sentence.into(),
            log: Vec::new(),
            retry_after: None,
        }
    }

    fn later(reason: &'static str, sentence: String, retry_after: Span) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let log = Vec::new();
        Self { status, source: Source::Internal, reason, sentence, log, retry_after: Some(retry_after) }
    }

    /// What the queue says to a request that gets no instance.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Gone => Self::service_gone(),
            Refusal::Closing => Self::shutting_down(),
            Refusal::Unavailable { spec, why } => Self::unavailable(&spec, &why),
            Refusal::Hold { spec, limit } => Self::hold(&spec.name, &limit),
        }
    }

    pub(crate) fn hold(service: &str, refusal: &HoldRefusal) -> Self {
        Self::later(refusal.reason(), format!("service {service}: {refusal}"), refusal.retry_after())
    }

    pub(crate) fn unavailable(spec: &ServiceSpec, why: &Unavailable) -> Self {
        let shown = Shown {
            name: spec.name.clone(),
            condition: Condition::Failing(why.clone()),
            usual: spec.start_estimate,
            hide_log: spec.hide_log,
        };
        let first = why.why.lines().next().unwrap_or("no reason is known");
        let sentence = format!("service {} is unavailable: {first}", spec.name);
        Self { log: shown.log(), ..Self::later(Self::UNAVAILABLE, sentence, why.retry_after) }
    }

    /// `wake.per_minute` of one address are used up.
    pub(crate) fn too_many_wakes(service: &str, per_minute: u32, retry_after: Span) -> Self {
        let sentence = format!(
            "service {service} is asleep, and your address has woken it {per_minute} times within a minute, \
             which wake.per_minute allows"
        );
        let fault = Self::client(StatusCode::TOO_MANY_REQUESTS, "wake-rate", sentence);
        Self { retry_after: Some(retry_after), ..fault }
    }

    /// It left the table between the lookup and the lock.
    pub(crate) fn service_gone() -> Self {
        Self::client(StatusCode::NOT_FOUND, Self::SERVICE_GONE, "forerun no longer knows this service")
    }

    pub(crate) fn shutting_down() -> Self {
        Self::later("shutting-down", "forerun is shutting down".to_owned(), Span::from_secs(5))
    }

    /// No table has come yet.
    pub(crate) fn starting() -> Self {
        Self::later("starting", "forerun is starting".to_owned(), Span::from_secs(1))
    }

    /// Nobody will read it.
    pub(crate) fn client_gone() -> Self {
        let sentence = "the client went away while it was held";
        Self::client(StatusCode::REQUEST_TIMEOUT, Self::CLIENT_GONE, sentence)
    }

    pub(crate) fn no_service(host: &str, path: &str) -> Self {
        let sentence = format!("forerun knows no service for {} {}", cut(host), cut(path));
        Self::client(StatusCode::NOT_FOUND, Self::SERVICE_GONE, sentence)
    }

    pub(crate) fn into_response(self, json: bool) -> Response<ReplyBody> {
        self.into_text(json).map(ReplyBody::own)
    }

    /// A line of text, or a JSON object for who asks for JSON.
    pub(crate) fn into_text(self, json: bool) -> Response<Bytes> {
        let (kind, text) = if json {
            let sentence = json_string(&self.sentence);
            let (source, reason) = (self.source.name(), self.reason);
            let log: Vec<String> = self.log.iter().map(|line| json_string(line)).collect();
            let log = if log.is_empty() { String::new() } else { format!(",\"log\":[{}]", log.join(",")) };
            let text =
                format!("{{\"error\":{sentence},\"reason\":\"{reason}\",\"source\":\"{source}\"{log}}}\n");
            ("application/json", text)
        } else {
            let lines = std::iter::once(&self.sentence).chain(&self.log);
            ("text/plain; charset=utf-8", lines.map(|line| format!("{line}\n")).collect())
        };
        let mut response = Response::new(Bytes::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REASON, HeaderValue::from_static(self.reason));
        headers.insert(SOURCE, HeaderValue::from_static(self.source.name()));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.0.div_ceil(1_000_000).max(1)));
        }
        response
    }
}

/// What a client sent, short enough to repeat to it.
fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped() {
        assert_eq!(json_string("a\"b\\c\nd\u{1}é"), "\"a\\\"b\\\\c\\u000ad\\u0001é\"");
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up() {
        for (micros, seconds) in [(0, "1"), (1, "1"), (1_000_000, "1"), (1_000_001, "2"), (30_000_000, "30")]
        {
            let why = Unavailable { why: "it crashed".to_owned(), retry_after: Span(micros) };
            let spec = ServiceSpec::named(forerun_types::ServiceId(1), "shop");
            let response = Fault::unavailable(&spec, &why).into_response(false);
            assert_eq!(response.headers()[RETRY_AFTER], seconds, "{micros}");
        }
    }

    #[test]
    fn long_requests_are_not_repeated_whole() {
        let fault = Fault::no_service("h", &"é".repeat(5_000));
        assert!(fault.sentence.chars().count() < 300);
    }
}
