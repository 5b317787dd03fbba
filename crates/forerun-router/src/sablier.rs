//! Sablier's HTTP API, so that its plugins for Traefik, Caddy, nginx and others only change their URL.
//!
//! A session is a stay (see [`crate::stay`]): its duration is how long the services are kept at the least, counted
//! from the last request of it. What Sablier calls an instance is a service here, by its name or that of its own
//! container; a group is the services whose `group` it is, and `default` those that have none. The themes are known
//! by name and look alike.

use crate::core::Core;
use crate::fault::Fault;
use crate::headers;
use crate::page::{self, Condition, Page, Shown};
use crate::query::params;
use crate::table::Entry;
use crate::wakes::Visitor;
use bytes::Bytes;
use forerun_types::{Activity, Launch, ServiceSpec, Span, Time, UserKey};
use hyper::header::{HeaderName, HeaderValue, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

const STATUS: HeaderName = HeaderName::from_static("x-sablier-session-status");

/// Sablier's own defaults.
const SESSION: Span = Span::from_secs(300);
const TIMEOUT: Span = Span::from_secs(60);
const REFRESH: Span = Span::from_secs(5);
const THEMES: [&str; 4] = ["ghost", "hacker-terminal", "matrix", "shuffle"];

/// Services of one session.
const NAMES_MAX: usize = 256;

/// The answer, if the path is one of Sablier's.
pub(crate) async fn answer(
    core: &Arc<Core>,
    client: IpAddr,
    path: &str,
    asked: &Parts,
) -> Option<Response<Bytes>> {
    let answered = match path {
        "/api/strategies/blocking" => blocking(core, client, asked).await,
        "/api/strategies/dynamic" => dynamic(core, client, asked),
        "/api/strategies/poke" => poke(core, client, asked),
        "/api/themes" | "/api/dynamic/themes" => Ok(ok_json(&json!({ "themes": THEMES }))),
        _ => return None,
    };
    Some(answered.unwrap_or_else(|problem| problem.into_response(asked)))
}

/// RFC 7807, with the types and extensions that Sablier documents.
pub(crate) struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    more: Vec<(&'static str, Value)>,
}

impl Problem {
    pub(crate) fn validation(detail: impl Into<String>) -> Self {
        let (status, detail) = (StatusCode::BAD_REQUEST, detail.into());
        Self { status, kind: "validation-error", title: "Validation Failed", detail, more: Vec::new() }
    }

    fn not_found(
        kind: &'static str,
        title: &'static str,
        detail: String,
        more: Vec<(&'static str, Value)>,
    ) -> Self {
        Self { status: StatusCode::NOT_FOUND, kind, title, detail, more }
    }

    pub(crate) fn busy(detail: String) -> Self {
        let (status, title) = (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
        Self { status, kind: "too-many", title, detail, more: Vec::new() }
    }

    fn wake_rate(fault: &Fault) -> Self {
        let (status, title) = (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests");
        let seconds = fault.retry_after.map_or(1, |wait| wait.0.div_ceil(1_000_000).max(1));
        let more = vec![("retryAfter", json!(seconds))];
        Self { status, kind: "wake-rate", title, detail: fault.sentence.clone(), more }
    }

    /// Sablier's API says nothing of who asks.
    fn guarded(name: &str) -> Self {
        let detail =
            format!("service {name} has `auth`, which cannot be asked here; let the proxy ask /v1/wake");
        let (status, title) = (StatusCode::FORBIDDEN, "Forbidden");
        Self { status, kind: "instance-not-managed", title, detail, more: vec![("instance", json!(name))] }
    }

    pub(crate) fn into_response(self, asked: &Parts) -> Response<Bytes> {
        let mut json = json!({
            "type": format!("https://sablierapp.dev/#/errors?id={}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": asked.uri.to_string(),
        });
        for (name, value) in self.more {
            json[name] = value;
        }
        page::own(self.status, "application/problem+json", format!("{json:#}\n"))
    }
}

/// What a session asks for.
struct Session {
    members: Vec<Member>,
    duration: Span,
}

struct Member {
    entry: Arc<Entry>,
    /// It is started with the others, and nobody waits for it.
    optional: bool,
}

/// The parameters of a question, each read once.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(asked: &Parts) -> Self {
        Self(params(asked.uri.query().unwrap_or_default()).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn duration(&self, name: &str, default: Span) -> Result<Span, Problem> {
        match self.text(name) {
            None | Some("") => Ok(default),
            Some(text) => duration(text).ok_or_else(|| {
                Problem::validation(format!("{name}: invalid duration {text:?}; write one as 90s or 5m"))
            }),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("") => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(text) => Err(Problem::validation(format!("{name}: {text:?} is neither true nor false"))),
        }
    }

    fn session(&self, core: &Core) -> Result<Session, Problem> {
        let duration = self.duration("session_duration", SESSION)?;
        let names: Vec<&str> = self
            .0
            .iter()
            .filter(|(n, value)| n == "names" && !value.is_empty())
            .map(|(_, v)| v.as_str())
            .collect();
        let group = self.text("group").filter(|group| !group.is_empty());
        let members = match (&names[..], group) {
            ([], None) => {
                return Err(Problem::validation("'names' or 'group' query parameter must be set"));
            }
            ([_, ..], Some(_)) => {
                let detail = "'names' and 'group' query parameters are both set, only one must be set";
                return Err(Problem::validation(detail));
            }
            ([], Some(group)) => of_group(core, group)?,
            (names, None) if names.len() > NAMES_MAX => {
                return Err(Problem::validation(format!("more than {NAMES_MAX} names")));
            }
            (names, None) => names.iter().map(|name| of_name(core, name)).collect::<Result<_, _>>()?,
        };
        if let Some(guarded) = members.iter().find(|member| member.entry.guard.is_some()) {
            return Err(Problem::guarded(&guarded.entry.spec.name));
        }
        Ok(Session { members, duration })
    }
}

fn container(spec: &ServiceSpec) -> Option<&str> {
    match &spec.launch {
        Launch::Container(container) => container.own.as_deref(),
        _ => None,
    }
}

fn of_name(core: &Core, name: &str) -> Result<Member, Problem> {
    let (name, optional) = name.strip_prefix("optional:").map_or((name, false), |name| (name, true));
    let table = core.table.load();
    let by_container = || table.entries().iter().find(|entry| container(&entry.spec) == Some(name));
    match table.named(name).or_else(by_container) {
        Some(entry) => Ok(Member { entry: Arc::clone(entry), optional }),
        None => Err(Problem::not_found(
            "instance-not-managed",
            "Instance not managed",
            format!(
                "instance {name:?} is not managed by Forerun; add the forerun.enable label to the instance"
            ),
            vec![("instance", json!(name)), ("error", json!(format!("instance {name} is not managed")))],
        )),
    }
}

fn group_of(entry: &Entry) -> &str {
    entry.spec.group.as_deref().unwrap_or("default")
}

fn of_group(core: &Core, group: &str) -> Result<Vec<Member>, Problem> {
    let table = core.table.load();
    let entries = || table.entries().iter().filter(|entry| entry.spec.variant.is_none());
    let members: Vec<Member> = entries()
        .filter(|entry| group_of(entry) == group)
        .map(|entry| Member { entry: Arc::clone(entry), optional: false })
        .collect();
    if !members.is_empty() {
        return Ok(members);
    }
    let mut groups: Vec<&str> = entries().map(|entry| group_of(entry)).collect();
    groups.sort_unstable();
    groups.dedup();
    Err(Problem::not_found(
        "group-not-found",
        "Group not found",
        "The group you requested does not exist. It is possible that the group has not been scanned yet."
            .to_owned(),
        vec![
            ("availableGroups", json!(groups)),
            ("requestGroup", json!(group)),
            ("error", json!(format!("group {group} not found"))),
        ],
    ))
}

impl Session {
    /// Wants all of it from now on, and notes that somebody does.
    ///
    /// # Errors
    /// The client has woken one of them too often; nothing is wanted then.
    fn begin(&self, core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Result<(), Problem> {
        let now = core.now();
        let agent = headers::text(&asked.headers, USER_AGENT);
        let address = headers::client_address(&asked.headers, client, true);
        let visitor = || Visitor::new(now, address, "session".to_owned(), agent, "sablier");
        for Member { entry, .. } in &self.members {
            let let_in = entry.service.let_session_in(&entry.spec, address, visitor, now);
            let_in.map_err(|fault| Problem::wake_rate(&fault))?;
        }
        for Member { entry, .. } in &self.members {
            let template = "session".to_owned();
            let (action, name) = entry.service.name_action(template);
            let activity = Activity {
                at: now,
                tenant: entry.tenant,
                user: UserKey::NOBODY,
                group: entry.group,
                site: core.site,
                service: entry.id(),
                action,
            };
            core.batch.activity(Some(activity), action, name);
        }
        self.want(core, now);
        Ok(())
    }

    fn want(&self, core: &Arc<Core>, now: Time) {
        for Member { entry, .. } in &self.members {
            entry.service.want(core, UserKey::NOBODY, now + self.duration, now);
        }
    }

    fn is_ready(&self) -> bool {
        self.members.iter().all(|m| m.optional || m.entry.service.condition() == Condition::Ready)
    }

    /// Waits until all but the optional ones are ready, and wants all as long as it waits.
    async fn ready(&self, core: &Arc<Core>) {
        // Before a short session is over it is begun anew.
        let renewed = Span((self.duration.0 / 2).clamp(100_000, 5_000_000));
        for Member { entry, .. } in self.members.iter().filter(|member| !member.optional) {
            // What fails is tried again for as long as the session is wanted.
            loop {
                let news = entry.service.news.notified();
                if entry.service.condition() == Condition::Ready {
                    break;
                }
                if tokio::time::timeout(renewed.into(), news).await.is_err() {
                    self.want(core, core.now());
                }
            }
        }
    }

    fn json(&self) -> Value {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by(|a, b| a.entry.spec.name.cmp(&b.entry.spec.name));
        let entries: Vec<Value> = members.into_iter().map(entry_json).collect();
        json!({ "session": { "instances": entries, "status": self.word() } })
    }

    fn word(&self) -> &'static str {
        if self.is_ready() { "ready" } else { "not-ready" }
    }

    fn marked(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        response.headers_mut().insert(STATUS, HeaderValue::from_static(self.word()));
        response
    }
}

/// What Sablier says of an instance.
pub(crate) fn instance_of(entry: &Entry) -> Value {
    instance_json(entry, &entry.shown())
}

fn entry_json(member: &Member) -> Value {
    let shown = member.entry.shown();
    let mut entry = json!({ "instance": instance_json(&member.entry, &shown) });
    if let Condition::Failing(_) = shown.condition {
        entry["error"] = json!(shown.sentence());
    }
    if member.optional {
        entry["optional"] = json!(true);
    }
    entry
}

/// Sablier's word.
pub(crate) fn condition_word(condition: &Condition) -> &'static str {
    match condition {
        Condition::Ready => "ready",
        Condition::Starting { .. } => "starting",
        Condition::Asleep => "stopped",
        Condition::Failing(_) => "error",
    }
}

fn instance_json(entry: &Entry, shown: &Shown) -> Value {
    let spec = &entry.spec;
    let status = condition_word(&shown.condition);
    let current = u32::from(shown.condition == Condition::Ready);
    let mut instance = json!({
        "name": container(spec).unwrap_or(&spec.name),
        "currentReplicas": current,
        "desiredReplicas": 1,
        "status": status,
        "groups": [group_of(entry)],
        "enabled": "true",
    });
    if !matches!(shown.condition, Condition::Ready) {
        instance["message"] = json!(shown.sentence());
    }
    if spec.backend == "docker" {
        instance["provider"] = json!("docker");
    }
    instance
}

fn ok_json(json: &Value) -> Response<Bytes> {
    page::own(StatusCode::OK, "application/json; charset=utf-8", json.to_string())
}

async fn blocking(core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Result<Response<Bytes>, Problem> {
    let query = Query::of(asked);
    let timeout = query.duration("timeout", TIMEOUT)?;
    let session = query.session(core)?;
    session.begin(core, client, asked)?;
    if tokio::time::timeout(timeout.into(), session.ready(core)).await.is_ok() {
        // From when it is there, and not from when it was asked for.
        session.want(core, core.now());
        return Ok(session.marked(ok_json(&session.json())));
    }
    let waited_for = session.members.iter().filter(|member| !member.optional);
    let shown: Vec<Shown> =
        waited_for.map(|m| m.entry.shown()).filter(|s| s.condition != Condition::Ready).collect();
    let reasons: Vec<String> = shown.iter().map(Shown::sentence).collect();
    let instances = session.json()["session"]["instances"].as_array().cloned().unwrap_or_default();
    let details = instances.iter().map(|entry| {
        json!({
            "name": entry["instance"]["name"],
            "status": entry["instance"]["status"],
            "message": entry["instance"]["message"],
            "error": entry["error"],
        })
    });
    Err(Problem {
        status: StatusCode::GATEWAY_TIMEOUT,
        kind: "timeout",
        title: "Gateway Timeout",
        detail: format!("session was not ready after {timeout}: {}", reasons.join("; ")),
        more: vec![("instances", details.collect())],
    })
}

fn dynamic(core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Result<Response<Bytes>, Problem> {
    let query = Query::of(asked);
    let refresh = query.duration("refresh_frequency", REFRESH)?;
    let details = query.flag("show_details", true)?;
    // Its parameter elsewhere, and a mistake there is one here.
    query.duration("timeout", TIMEOUT)?;
    let theme = query.text("theme").filter(|theme| !theme.is_empty()).unwrap_or("ghost");
    if !THEMES.contains(&theme) {
        return Err(Problem::not_found(
            "theme-not-found",
            "Theme not found",
            "The theme you requested does not exist among the default themes and the custom themes (if any)."
                .to_owned(),
            vec![
                ("availableTheme", json!(THEMES)),
                ("requestTheme", json!(theme)),
                ("error", json!(format!("theme {theme} not found"))),
            ],
        ));
    }
    let session = query.session(core)?;
    session.begin(core, client, asked)?;
    let shown: Vec<Shown> = session.members.iter().map(|member| member.entry.shown()).collect();
    let name = query.text("display_name").filter(|name| !name.is_empty());
    let names = || shown.iter().map(|shown| shown.name.as_str()).collect::<Vec<_>>().join(", ");
    let title = format!("Starting {}", name.map_or_else(names, str::to_owned));
    let note = format!("stops after {} without a visit, at the earliest", session.duration);
    let html = Page { title: &title, services: &shown, refresh, poll: None, details, note }.html();
    Ok(session.marked(page::own(StatusCode::OK, "text/html; charset=utf-8", html)))
}

fn poke(core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Result<Response<Bytes>, Problem> {
    let session = Query::of(asked).session(core)?;
    session.begin(core, client, asked)?;
    Ok(session.marked(ok_json(&session.json())))
}

/// A duration as Go writes it: `300ms`, `1.5h`, `2h45m`; nothing for anything else, or for one that is negative.
pub(crate) fn duration(text: &str) -> Option<Span> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-3),
        ("us", 1.0),
        ("µs", 1.0),
        ("μs", 1.0),
        ("ms", 1e3),
        ("s", 1e6),
        ("m", 6e7),
        ("h", 3.6e9),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Span::ZERO);
    }
    let mut micros = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &rest[..unit_end])?;
        micros += number * factor;
        rest = &rest[unit_end..];
    }
    // Go's own end, some 292 years.
    (!text.is_empty() && micros < 9.2e15).then(|| Span(micros.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, micros) in [
            ("5m", Some(300_000_000)),
            ("300ms", Some(300_000)),
            ("1.5h", Some(5_400_000_000)),
            ("2h45m", Some(9_900_000_000)),
            ("1m30s", Some(90_000_000)),
            ("+10s", Some(10_000_000)),
            ("0", Some(0)),
            ("1500us", Some(1_500)),
            ("2µs", Some(2)),
            (".5s", Some(500_000)),
            ("", None),
            ("5", None),
            ("-5m", None),
            ("5 m", None),
            ("m", None),
            ("5d", None),
            ("1h1", None),
            ("1..5s", None),
            ("99999999999999h", None),
        ] {
            assert_eq!(duration(text).map(|span| span.0), micros, "{text}");
        }
    }
}
