//! What is asked beside the requests themselves: by a proxy that sends requests past this router and asks first
//! (`/v1/wake`, and Sablier's API), by a monitor, and by a person who wants to know what goes where.
//!
//! A proxy's question stands for the request that it asks about. That request itself is not seen, so its service
//! counts as in use for a while after each: `keep`, or ten seconds.

use crate::auth::{Knock, Told};
use crate::core::Core;
use crate::door::{Head, Someone, asleep, knock_at, welcome};
use crate::events::{self, BesideBody};
use crate::fault::Fault;
use crate::headers;
use crate::io::Client;
use crate::keys;
use crate::page::{self, Condition, Form, STATE};
use crate::proxy::{PAGE_AFTER, PAGE_STAY};
use crate::query::{param, params};
use crate::server::Phase;
use crate::table::{self, Entry};
use crate::wakes::Visitor;
use crate::{sablier, snippets};
use bytes::Bytes;
use forerun_route::explain;
use forerun_types::{Generation, HoldStyle, Span};
use hyper::header::{ACCEPT, ALLOW, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, Uri};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use tokio::sync::watch;

/// How long a request that is not seen is taken to last. Most end within a second; a page's own follow-ups ask anew.
const KEEP: Span = Span::from_secs(10);
/// Where a ready instance listens, for a proxy that can be told.
const ADDRESS: HeaderName = HeaderName::from_static("forerun-address");

/// Sablier's stream, the one answer that does not end by itself.
const EVENTS: &str = "/api/events";

/// Whether a path is one of those that are answered here.
#[must_use]
pub fn is_beside(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let of_service = |rest: &str| {
        let what = rest.rsplit_once('/').map(|(_, what)| what);
        matches!(what, Some("health" | "badge.svg" | "wakes"))
    };
    matches!(path, "/v1/wake" | "/v1/page" | "/v1/traefik" | "/v1/caddy" | "/v1/route" | "/health")
        || matches!(path, "/api/themes" | "/api/dynamic/themes" | EVENTS)
        || path.starts_with("/api/strategies/")
        || path.strip_prefix("/v1/services/").is_some_and(of_service)
}

/// Which of the paths are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that name nobody: for other machines and containers.
    Proxies,
    /// All: for this machine.
    All,
}

/// One question. Its body is not read.
pub(crate) async fn answer(
    core: Arc<Core>,
    client: IpAddr,
    asked: Parts,
    scope: Scope,
    phase: watch::Receiver<Phase>,
) -> Response<BesideBody> {
    if let Some(refused) = refusal(&asked) {
        return refused.map(BesideBody::from);
    }
    let path = asked.uri.path().trim_end_matches('/').to_owned();
    if path == EVENTS {
        return match events::begin(&core, &asked, phase) {
            Ok(body) => streamed(body),
            Err(problem) => problem.into_response(&asked).map(BesideBody::from),
        };
    }
    at_path(&core, client, &path, &asked, scope).await.map(BesideBody::from)
}

/// A proxy in between must pass it on as it comes.
fn streamed(body: BesideBody) -> Response<BesideBody> {
    let mut response = page::own(StatusCode::OK, "text/event-stream", Bytes::new()).map(|_| body);
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Why a question is not answered, if it is not.
fn refusal(asked: &Parts) -> Option<Response<Bytes>> {
    if asked.method != Method::GET && asked.method != Method::HEAD {
        let sentence = format!("{} is not for this path; use GET", asked.method);
        let fault = Fault::client(StatusCode::METHOD_NOT_ALLOWED, "bad-request", sentence);
        let mut response = fault.into_text(wants_json(&asked.headers));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    is_of_a_page(&asked.headers).then(|| {
        let fault = Fault::client(StatusCode::FORBIDDEN, "bad-request", "this is not for other sites' pages");
        fault.into_text(wants_json(&asked.headers))
    })
}

async fn at_path(
    core: &Arc<Core>,
    client: IpAddr,
    path: &str,
    asked: &Parts,
    scope: Scope,
) -> Response<Bytes> {
    match path {
        "/v1/wake" => wake(core, client, asked).await,
        "/v1/page" => waiting_page(core, client, asked).await,
        "/v1/traefik" => snippets::traefik(&table::published(core), asked),
        "/v1/caddy" => snippets::caddy(&table::published(core), asked),
        "/v1/route" if scope == Scope::All => route(core, asked),
        "/health" => page::own(StatusCode::OK, "text/plain; charset=utf-8", "OK"),
        _ => match sablier::answer(core, client, path, asked).await {
            Some(response) => response,
            None => of_service(core, path, asked, scope),
        },
    }
}

/// Whether a page of another site makes a browser ask, to wake what it likes. What a proxy asks carries the headers of
/// somebody's request, and its own, which no such page can set.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let of_a_proxy =
        ["x-forwarded-host", "x-forwarded-uri", "x-original-uri", "x-original-url", "x-original-host"];
    matches!(headers::text(headers, "sec-fetch-site"), "cross-site" | "same-site")
        && !of_a_proxy.iter().any(|name| headers.contains_key(*name))
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers::text(headers, &ACCEPT).contains("application/json")
}

/// The request that a proxy asks about, as Traefik, Caddy and nginx tell of it.
struct Original {
    method: Method,
    host: Option<HeaderValue>,
    uri: Uri,
}

impl Original {
    /// # Errors
    /// A method, host or target that makes no sense.
    fn of(asked: &Parts) -> Result<Self, Fault> {
        let bad = |what: &str| {
            let sentence = format!("the {what} of the request that the proxy asks about is malformed");
            Fault::client(StatusCode::BAD_REQUEST, "bad-request", sentence)
        };
        let first = |names: &[&str]| {
            let found = names.iter().map(|name| headers::text(&asked.headers, *name));
            found.map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
        };
        let url = first(&["x-original-url"]).and_then(|url| url.parse::<Uri>().ok());
        let of_url = url.as_ref().and_then(|url| Some((url.host()?, url.path_and_query()?.as_str())));
        let host = first(&["x-forwarded-host", "x-original-host"])
            .map(|hosts| hosts.rsplit(',').next().unwrap_or_default().trim().to_owned())
            .or_else(|| of_url.map(|(host, _)| host.to_owned()))
            .unwrap_or_else(|| headers::text(&asked.headers, &HOST).to_owned());
        let target = first(&["x-forwarded-uri", "x-original-uri"])
            .or_else(|| of_url.map(|(_, target)| target.to_owned()))
            .unwrap_or_else(|| "/".to_owned());
        let method = first(&["x-forwarded-method", "x-original-method"]).unwrap_or_else(|| "GET".to_owned());
        Ok(Self {
            method: Method::from_str(&method).map_err(|_| bad("method"))?,
            host: Some(HeaderValue::from_str(&host).map_err(|_| bad("host"))?),
            uri: target.parse().map_err(|_| bad("target"))?,
        })
    }

    fn entry(&self, core: &Core, query: Option<&str>) -> Result<Arc<Entry>, Fault> {
        let table = core.table.load();
        let host = self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (found, what) = match param(query, "service") {
            Some(name) => (table.named(&name).cloned(), name),
            None => (table.find(host, self.uri.path()), host.to_owned()),
        };
        found.ok_or_else(|| match table.generation {
            Generation(0) => Fault::starting(),
            _ => Fault::no_service(&what, self.uri.path()),
        })
    }
}

impl Original {
    /// Asks the service's guard.
    async fn knock(
        &self,
        core: &Arc<Core>,
        entry: &Arc<Entry>,
        asked: &Parts,
        address: IpAddr,
    ) -> Result<Told, Result<Response<Bytes>, Fault>> {
        let knock = Knock {
            method: &self.method,
            uri: &self.uri,
            headers: &asked.headers,
            host: self.host.as_ref(),
            client: address,
            trust_forwarded: true,
        };
        knock_at(core, entry, &knock, core.now()).await
    }
}

/// The `keep` of a question: seconds, or a number with `ms`, `s`, `m` or `h`.
fn keep(query: Option<&str>) -> Result<Span, Fault> {
    let Some(text) = param(query, "keep") else { return Ok(KEEP) };
    let seconds = text.parse().ok().map(Span::from_secs);
    seconds.or_else(|| sablier::duration(&text)).ok_or_else(|| {
        let sentence = format!("keep = `{text}` is no time; write one as 30s or 5m");
        Fault::client(StatusCode::BAD_REQUEST, "bad-request", sentence)
    })
}

async fn wake(core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Response<Bytes> {
    match try_wake(core, client, asked).await {
        Ok(response) => response,
        Err(fault) => fault.into_text(wants_json(&asked.headers)),
    }
}

async fn try_wake(core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Result<Response<Bytes>, Fault> {
    let now = core.now();
    let query = asked.uri.query();
    let (original, keep) = (Original::of(asked)?, keep(query)?);
    let entry = original.entry(core, query)?;
    // Only a proxy of one's own asks here.
    let address = headers::client_address(&asked.headers, client, true);
    let told = match original.knock(core, &entry, asked, address).await {
        Ok(told) => told,
        Err(answer) => return answer,
    };
    let head = Head { method: &original.method, path: original.uri.path(), headers: &asked.headers, address };
    if entry.wake.nobody(&head.caller()).is_some() {
        entry.service.answered_nobody(core);
        return nobody(&entry);
    }
    let someone = welcome(core, &entry, &head, "wake", now)?;
    let variant = match (&someone.variant, &someone.key) {
        (None, Some(key)) => keys::ask(core, &entry, key).await,
        (variant, _) => variant.clone(),
    };
    let entry = variant.unwrap_or(entry);
    let address = match ready(core, &entry, &original.method, &someone, &asked.headers).await {
        Some(ready) => ready?,
        None => return Ok(held_by_page(core, &entry, &someone, &asked.headers)),
    };
    let now = core.now();
    entry.service.want(core, someone.user, now + keep.max(entry.spec.keep_at_least), now);
    let mut response = page::own(StatusCode::OK, "text/plain; charset=utf-8", "ready\n");
    let headers = response.headers_mut();
    headers.insert(STATE, HeaderValue::from_static("ready"));
    if let Ok(address) = HeaderValue::from_str(&address.to_string()) {
        headers.insert(ADDRESS, address);
    }
    headers.extend(told.request);
    told.cookies.into_iter().for_each(|cookie| {
        headers.append(SET_COOKIE, cookie);
    });
    Ok(response)
}

/// Waits for an instance; nothing if a page is to be shown instead.
async fn ready(
    core: &Arc<Core>,
    entry: &Arc<Entry>,
    method: &Method,
    someone: &Someone,
    headers: &HeaderMap,
) -> Option<Result<std::net::SocketAddr, Fault>> {
    let spec = &entry.spec;
    let page = *method == Method::GET
        && match spec.hold_style {
            HoldStyle::Wait => false,
            HoldStyle::Page => true,
            HoldStyle::Auto => headers::is_navigation(headers),
        };
    let patience = match page {
        true => Span(PAGE_AFTER.as_micros() as u64).min(spec.hold.timeout),
        false => spec.hold.timeout,
    };
    let waited = entry.service.ready(core, spec, someone.user, patience).await;
    match waited {
        Err(_) if page => None,
        waited => Some(waited),
    }
}

fn held_by_page(
    core: &Arc<Core>,
    entry: &Arc<Entry>,
    someone: &Someone,
    headers: &HeaderMap,
) -> Response<Bytes> {
    let now = core.now();
    entry.service.want(core, someone.user, now + PAGE_STAY, now);
    entry.service.paged(someone.user, someone.action);
    let form = Form::of(headers::text(headers, &ACCEPT));
    page::waiting(&entry.shown(), form, None)
}

/// The proxy may let a probe through to an awake service; what it says of a sleeping one is its own affair, unless
/// the service has a status for that.
fn nobody(entry: &Entry) -> Result<Response<Bytes>, Fault> {
    let condition = entry.service.condition();
    if let Condition::Failing(why) = &condition {
        return Err(Fault::unavailable(&entry.spec, why));
    }
    if condition != Condition::Ready && entry.spec.wake.asleep_status >= 300 {
        return Ok(asleep(entry));
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let address = entry.service.address().and_then(|a| HeaderValue::from_str(&a.to_string()).ok());
    // Whoever is told `ready` is told where, too.
    let word = match condition {
        Condition::Ready if address.is_none() => "busy",
        condition => condition.word(),
    };
    response.headers_mut().insert(STATE, HeaderValue::from_static(word));
    if let Some(address) = address {
        response.headers_mut().insert(ADDRESS, address);
    }
    Ok(response)
}

/// How a service is doing, in the form that the client reads best: for a proxy that cannot pass on what `/v1/wake`
/// answered.
async fn waiting_page(core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Response<Bytes> {
    match try_page(core, client, asked).await {
        Ok(response) => response,
        Err(fault) => fault.into_text(wants_json(&asked.headers)),
    }
}

async fn try_page(core: &Arc<Core>, client: IpAddr, asked: &Parts) -> Result<Response<Bytes>, Fault> {
    let original = Original::of(asked)?;
    let entry = original.entry(core, asked.uri.query())?;
    let address = headers::client_address(&asked.headers, client, true);
    // A proxy that knows only yes and no comes here with the guard's answer too, as a way to a login.
    if let Err(answer) = original.knock(core, &entry, asked, address).await {
        return answer;
    }
    let (method, path) = (&original.method, original.uri.path());
    let head = Head { method, path, headers: &asked.headers, address };
    let condition = entry.service.condition();
    if !matches!(condition, Condition::Failing(_)) && entry.wake.nobody(&head.caller()).is_some() {
        return Ok(asleep(&entry));
    }
    let form = Form::of(headers::text(&asked.headers, &ACCEPT));
    Ok(page::waiting(&entry.shown(), form, None))
}

/// `/v1/services/NAME/...`.
fn of_service(core: &Core, path: &str, asked: &Parts, scope: Scope) -> Response<Bytes> {
    let nothing = || {
        let sentence = format!("nothing at {}", path.chars().take(100).collect::<String>());
        Fault::client(StatusCode::NOT_FOUND, "no-path", sentence).into_text(wants_json(&asked.headers))
    };
    let Some((name, what)) = path.strip_prefix("/v1/services/").and_then(|rest| rest.rsplit_once('/')) else {
        return nothing();
    };
    let name = params(name).next().map_or_else(String::new, |(name, _)| name);
    let table = core.table.load();
    let Some(entry) = table.named(&name) else {
        let sentence = format!("there is no service {name}");
        let fault = Fault::client(StatusCode::NOT_FOUND, "no-service", sentence);
        return fault.into_text(wants_json(&asked.headers));
    };
    match what {
        "health" => health(entry, scope),
        "badge.svg" => snippets::badge(&name, entry.service.condition().word()),
        "wakes" if scope == Scope::All => wakes(entry),
        _ => nothing(),
    }
}

/// A service that sleeps is well.
fn health(entry: &Entry, scope: Scope) -> Response<Bytes> {
    let mut shown = entry.shown();
    // What it said last is for those who may come in.
    shown.hide_log |= scope == Scope::Proxies && entry.guard.is_some();
    let status = match shown.condition {
        Condition::Failing(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let mut response = page::own(status, "application/json", format!("{}\n", shown.json()));
    response.headers_mut().insert(STATE, HeaderValue::from_static(shown.condition.word()));
    response
}

fn wakes(entry: &Entry) -> Response<Bytes> {
    let visitor = |visitor: &Visitor| {
        serde_json::json!({
            "at": visitor.at.as_secs_f64(),
            "address": visitor.address.to_string(),
            "action": visitor.action,
            "agent": visitor.agent,
            "by": visitor.by,
        })
    };
    let wakes = entry.service.wakes();
    let list = |visitors: &[Visitor]| visitors.iter().rev().map(visitor).collect::<Vec<_>>();
    let json = serde_json::json!({
        "service": entry.spec.name,
        "woken_by": list(&wakes.woken_by),
        "kept_up_by": list(&wakes.kept_up_by),
    });
    page::own(StatusCode::OK, "application/json", format!("{json}\n"))
}

/// What would become of a request for `url`, with `header=Name: value` as often as need be and `method`.
fn route(core: &Core, asked: &Parts) -> Response<Bytes> {
    match try_route(core, asked.uri.query()) {
        Ok(json) => page::own(StatusCode::OK, "application/json", format!("{json}\n")),
        Err(fault) => fault.into_text(true),
    }
}

fn try_route(core: &Core, query: Option<&str>) -> Result<serde_json::Value, Fault> {
    let bad = |sentence: &str| Fault::client(StatusCode::BAD_REQUEST, "bad-request", sentence.to_owned());
    let url = param(query, "url").filter(|url| !url.is_empty()).ok_or_else(|| bad("url is missing"))?;
    let url = if url.contains("://") { url } else { format!("http://{url}") };
    let url: Uri = url.parse().map_err(|_| bad("url is no URL; write one as http://shop.example/orders"))?;
    let mut headers = HeaderMap::new();
    for (_, header) in params(query.unwrap_or_default()).filter(|(name, _)| name == "header") {
        let parsed = header.split_once(':').and_then(|(name, value)| {
            Some((HeaderName::from_str(name.trim()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = parsed.ok_or_else(|| bad("a header is no header; write one as Name: value"))?;
        headers.append(name, value);
    }
    let method = param(query, "method").unwrap_or_else(|| "GET".to_owned());
    let method = Method::from_str(&method).map_err(|_| bad("method is no method"))?;
    let host = match headers::text(&headers, &HOST) {
        "" => url.authority().map_or("", |authority| authority.as_str()),
        host => host,
    };
    let address =
        headers::client_address(&headers, IpAddr::from([127, 0, 0, 1]), core.limits.trust_forwarded);
    let found = explain(&table::published(core), host, url.path());
    let table = core.table.load();
    let entry = found.service.and_then(|id| table.entries().iter().find(|entry| entry.id() == id));
    let head = Head { method: &method, path: url.path(), headers: &headers, address };
    let nobody = entry.and_then(|entry| entry.wake.nobody(&head.caller()));
    let tried = found.tried.iter().map(|rule| {
        serde_json::json!({
            "service": rule.name, "host": rule.host, "path": rule.path,
            "matches": rule.matches, "chosen": rule.chosen, "why": rule.why,
        })
    });
    Ok(serde_json::json!({
        "host": found.host,
        "path": found.path,
        "method": method.as_str(),
        "service": entry.map(|entry| &entry.spec.name),
        "state": entry.map(|entry| entry.service.condition().word()),
        // Why it would neither wake the service nor count, if so.
        "nobody": nobody.map(|why| why.to_string()),
        "asks_first": entry.is_some_and(|entry| entry.guard.is_some()),
        "tried": tried.collect::<Vec<_>>(),
        "untold": found.untold,
    }))
}

/// Answers a connection of the port that is for proxies.
pub(crate) async fn serve(
    core: Arc<Core>,
    client: Client,
    asked: Parts,
    phase: watch::Receiver<Phase>,
) -> Response<BesideBody> {
    let answer = Box::pin(answer(core, client.address, asked, Scope::Proxies, phase));
    tokio::select! {
        biased;
        response = answer => response,
        // Nobody reads it.
        () = client.gone() => Fault::client_gone().into_text(false).map(BesideBody::from),
    }
}
