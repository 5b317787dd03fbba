//! A request's way through the cache.

use super::exchange::Exchange;
use super::flights::{Join, Leader};
use super::{Answered, HttpCache};
use crate::auth::Told;
use crate::body::ReplyBody;
use crate::core::Core;
use crate::door::{self, Head};
use crate::fault::Fault;
use crate::headers;
use crate::identity::user_key;
use crate::io::Client;
use crate::keys;
use crate::proxy::Asked;
use crate::server::Phase;
use crate::service::Ended;
use crate::stats::Outcome;
use crate::table::Entry;
use crate::visit::Visit;
use forerun_cache::http::{
    Answer, Asks, Bypass, Forward, Found, Origin, PageKey, Serve, Status, Stored, asks_past,
};
use forerun_types::{ActionKey, CacheRules, Time, UserKey};
use hyper::body::{Body, Incoming};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LOCATION, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LOCATION, PRAGMA, RANGE, SET_COOKIE, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Who asks, and for which service.
pub(crate) struct Comer {
    pub(crate) core: Arc<Core>,
    pub(crate) entry: Arc<Entry>,
    pub(crate) client: Client,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) address: IpAddr,
    pub(crate) now: Time,
}

/// What of a request stays known after it was sent on.
pub(super) struct Question {
    pub(super) key: PageKey,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) asks: Asks,
}

/// Why an instance is asked, and with what.
pub(super) struct Fetch {
    pub(super) why: Forward,
    pub(super) stale: Option<Arc<Stored>>,
    pub(super) leader: Option<Leader>,
    pub(super) collapsed: bool,
}

pub(super) type Served = Result<Response<ReplyBody>, Fault>;

/// Answers a request to a service whose answers may be kept.
pub(crate) async fn serve(comer: Comer, mut told: Told, request: Request<Incoming>) -> Served {
    // They are this client's alone, and come after anything that is kept.
    let cookies = std::mem::take(&mut told.cookies);
    let core = Arc::clone(&comer.core);
    let cache = core.cache();
    let served = match bypass(&core, &request) {
        Some(why) => past(cache, comer, told, request, why).await,
        None => through(cache, comer, told, request).await,
    };
    served.map(|mut response| {
        for cookie in cookies {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    })
}

fn bypass(core: &Core, request: &Request<Incoming>) -> Option<Bypass> {
    let headers = request.headers();
    if headers.contains_key(UPGRADE) && headers::wants_websocket(request) {
        return Some(Bypass::Upgrade);
    }
    asks_past(request.method(), headers, !request.body().is_end_stream(), core.limits.trust_forwarded)
}

/// A request that the cache keeps out of; if it may have changed something, what is kept of that is over.
async fn past(
    cache: &Arc<HttpCache>,
    comer: Comer,
    told: Told,
    request: Request<Incoming>,
    why: Bypass,
) -> Served {
    let changes = (!request.method().is_safe()).then(|| {
        let target = target_of(request.uri()).to_owned();
        (comer.entry.tenant, host_of(comer.host.as_ref()).to_owned(), target)
    });
    let served = Box::pin(door::forward(comer, told, request)).await;
    let mut response = served?;
    if let Some((tenant, host, target)) = changes.filter(|_| response.status().as_u16() < 400) {
        let mut pages = cache.pages();
        pages.purge_url(tenant, &host, &target);
        for name in [LOCATION, CONTENT_LOCATION] {
            let named = response.headers().get(name).and_then(|value| value.to_str().ok());
            if let Some(target) = named.and_then(|named| same_host(named, &host, &target)) {
                pages.purge_url(tenant, &host, &target);
            }
        }
    }
    cache.note(Answered::Bypass, 0);
    let forward = if why == Bypass::Method { Forward::Method } else { Forward::Bypass };
    let detail = Some(why.word()).filter(|_| why != Bypass::Method);
    stamp(&mut response, &Status { detail, ..Status::forwarded(forward) });
    Ok(response)
}

/// The path and query of a reference to the same host (RFC 9111, 4.4: no other's).
fn same_host(reference: &str, host: &str, base: &str) -> Option<String> {
    if reference.starts_with('/') && !reference.starts_with("//") {
        return Some(reference.to_owned());
    }
    let uri: Uri = reference.parse().ok()?;
    match uri.authority() {
        Some(authority) if authority.as_str().eq_ignore_ascii_case(host) => Some(target_of(&uri).to_owned()),
        Some(_) => None,
        // Beside the path that was asked for.
        None => {
            let folder = base.split('?').next()?.rsplit_once('/')?.0;
            Some(format!("{folder}/{reference}"))
        }
    }
}

fn target_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

fn host_of(host: Option<&HeaderValue>) -> &str {
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}

pub(super) fn stamp(response: &mut Response<ReplyBody>, status: &Status) {
    response.headers_mut().append(CACHE_STATUS, status.header());
}

async fn through(cache: &Arc<HttpCache>, comer: Comer, told: Told, request: Request<Incoming>) -> Served {
    let rules = comer.entry.spec.cache.clone().unwrap_or_default();
    let headers = request.headers();
    let asks = match headers.contains_key(CACHE_CONTROL) || headers.contains_key(PRAGMA) {
        true => Asks::of(headers),
        false => Asks::default(),
    };
    let key = key_of(&comer, &request);
    let mut waited = false;
    let mut now = comer.now;
    loop {
        let found = cache.pages().find(&key, request.headers());
        let (why, stale) = match found {
            Found::Here(stored) => match stored.may_serve(&asks, now) {
                Serve::Fresh => {
                    let status = Status { collapsed: waited, ..Status::hit(stored.ttl_seconds(now)) };
                    return Ok(hit(cache, &comer, &request, &stored, (&status, Answered::Hit), now));
                }
                Serve::Stale { refresh } => {
                    let status = Status { detail: Some("stale"), ..Status::hit(stored.ttl_seconds(now)) };
                    let answer = hit(cache, &comer, &request, &stored, (&status, Answered::Stale), now);
                    if refresh {
                        let question = Question::of(key, &request, asks);
                        freshen(cache, comer, told, question, request, stored, rules);
                    }
                    return Ok(answer);
                }
                Serve::Revalidate => {
                    let why = if stored.ttl_seconds(now) > 0 { Forward::Request } else { Forward::Stale };
                    (why, Some(stored))
                }
            },
            Found::Others => (Forward::VaryMiss, None),
            Found::Nothing => (Forward::UriMiss, None),
        };
        if asks.only_if_cached {
            return Ok(nothing_cached(cache, why));
        }
        let mut leader = None;
        // Who wants an instance's word, or a part, is not made to wait for another's fetch.
        let own = waited || asks.no_cache || asks.no_store || goes_alone(&request, stale.is_some());
        if !own {
            match cache.flights.join(key.hash(cache.seed), now) {
                Join::Lead(lead) => leader = Some(lead),
                Join::Follow(follower) => {
                    follower.wait(rules.wait).await;
                    (waited, now) = (true, comer.core.now());
                    continue;
                }
                Join::Alone => {}
            }
        }
        let question = Question::of(key, &request, asks);
        let fetch = Fetch { why, stale, leader, collapsed: false };
        return Box::pin(fetched(cache, comer, told, request, question, fetch, rules)).await;
    }
}

/// What it asks for is no whole answer that others could have. `stored`: its own conditions are answered from that.
fn goes_alone(request: &Request<Incoming>, stored: bool) -> bool {
    let headers = request.headers();
    if !stored && (headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE)) {
        return true;
    }
    request.method() == Method::HEAD || headers.contains_key(RANGE) || headers.contains_key(AUTHORIZATION)
}

fn key_of(comer: &Comer, request: &Request<Incoming>) -> PageKey {
    let Comer { core, entry, address, .. } = comer;
    let special = entry.spec.specialise.as_ref().and_then(|_| {
        let user = user_key(&core.secret, &entry.spec, request.headers(), *address);
        keys::key_of(entry, user, request.uri().path(), request.headers())
    });
    let origin = Origin {
        tenant: entry.tenant,
        service: &entry.spec.name,
        special: special.as_deref(),
        host: host_of(comer.host.as_ref()),
        target: target_of(request.uri()),
    };
    PageKey::new(&origin, core.limits.trust_forwarded.then(|| request.headers()))
}

impl Question {
    fn of(key: PageKey, request: &Request<Incoming>, asks: Asks) -> Self {
        let (method, headers) = (request.method().clone(), request.headers().clone());
        Self { key, method, headers, asks }
    }

    pub(super) fn reply(&self, stored: &Stored, status: &Status, now: Time) -> Answer {
        Answer::of(stored, &self.method, &self.headers, status, now)
    }
}

pub(super) fn response_of(answer: Answer) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::own(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// An answer from the store. It counts as the user's act, and as a request that was answered.
fn hit(
    cache: &HttpCache,
    comer: &Comer,
    request: &Request<Incoming>,
    stored: &Stored,
    (status, answered): (&Status, Answered),
    now: Time,
) -> Response<ReplyBody> {
    let Comer { core, entry, address, .. } = comer;
    let head = Head {
        method: request.method(),
        path: request.uri().path(),
        headers: request.headers(),
        address: *address,
    };
    if entry.wake.nobody(&head.caller()).is_none() {
        door::teach(core, entry, &head, comer.now);
    }
    let answer = Answer::of(stored, request.method(), request.headers(), status, now);
    cache.note(answered, answer.body.len());
    let duration = core.now().since(comer.now);
    entry.service.ended(core, &Ended { outcome: Outcome::Answered, reason: None, duration });
    response_of(answer)
}

fn nothing_cached(cache: &HttpCache, why: Forward) -> Response<ReplyBody> {
    cache.note(Answered::Bypass, 0);
    let fault = Fault::client(
        StatusCode::GATEWAY_TIMEOUT,
        "only-if-cached",
        "nothing is cached for this request, and it asks for nothing else",
    );
    let mut response = fault.into_response(false);
    let detail = Some("only-if-cached");
    stamp(&mut response, &Status { detail, ..Status::forwarded(why) });
    response
}

/// Asks an instance, and keeps what it says if that may be.
async fn fetched(
    cache: &Arc<HttpCache>,
    comer: Comer,
    told: Told,
    mut request: Request<Incoming>,
    question: Question,
    fetch: Fetch,
    rules: CacheRules,
) -> Served {
    let (core, guarded) = (Arc::clone(&comer.core), comer.entry.guard.is_some());
    if let Some(stale) = &fetch.stale {
        ask_whether_it_holds(request.headers_mut(), stale);
    }
    let (begun, asked) = (cache.pages().begin(), core.now());
    let served = Box::pin(door::forward(comer, told, request)).await;
    let exchange =
        Exchange { cache, question: &question, guarded, begun, asked, now: core.now(), silent: false };
    exchange.settle(served, fetch, &rules)
}

/// The stored validators take the place of the client's.
fn ask_whether_it_holds(headers: &mut HeaderMap, stale: &Stored) {
    let Some(validators) = stale.validators() else { return };
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE, IF_RANGE] {
        headers.remove(name);
    }
    for (name, value) in validators {
        headers.insert(name, value);
    }
}

/// Asks an instance whether what was just served still holds; if none has a place for that, nothing happens: this wakes no
/// service and keeps no user waiting.
fn freshen(
    cache: &Arc<HttpCache>,
    comer: Comer,
    told: Told,
    question: Question,
    mut request: Request<Incoming>,
    stale: Arc<Stored>,
    rules: CacheRules,
) {
    let Some(turn) = cache.refresh() else { return };
    let Join::Lead(leader) = cache.flights.join(question.key.hash(cache.seed), comer.now) else { return };
    // A variant's instances take no others' requests, and this one is nobody's.
    if comer.entry.spec.specialise.is_some() {
        return;
    }
    let Comer { core, entry, client, phase, host, .. } = comer;
    let Ok(Some(place)) = entry.service.pass(&core, core.now()) else { return };
    ask_whether_it_holds(request.headers_mut(), &stale);
    *request.method_mut() = Method::GET;
    for name in [RANGE, IF_RANGE] {
        request.headers_mut().remove(name);
    }
    let cache = Arc::clone(cache);
    tokio::spawn(async move {
        let now = core.now();
        let guarded = entry.guard.is_some();
        let visit = Visit::new(Arc::clone(&core), Arc::clone(&entry.service), None, now);
        let (user, action, home) = (UserKey::NOBODY, ActionKey::default(), Arc::clone(&entry));
        let begun = cache.pages().begin();
        let asked = Asked {
            core: Arc::clone(&core),
            entry,
            home,
            client,
            phase,
            host,
            user,
            action,
            again: false,
            told,
        };
        let served = Box::pin(asked.route(request, visit, Some(place))).await;
        let question = Question { method: Method::GET, ..question };
        let exchange = Exchange {
            cache: &cache,
            question: &question,
            guarded,
            begun,
            asked: now,
            now: core.now(),
            silent: true,
        };
        let fetch = Fetch { why: Forward::Stale, stale: Some(stale), leader: Some(leader), collapsed: false };
        if let Ok(response) = exchange.settle(served, fetch, &rules) {
            let mut body = response.into_body();
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
        }
        drop(turn);
    });
}
