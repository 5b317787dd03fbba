//! From a request to somebody who may come in: its service is found, its guard asked, and people told from probes.

use crate::auth::{Knock, Told, Verdict};
use crate::body::ReplyBody;
use crate::cached::{self, Comer};
use crate::core::Core;
use crate::fault::Fault;
use crate::headers;
use crate::identity::user_key;
use crate::io::Client;
use crate::keys;
use crate::page::{self, Condition, STATE, STATE_PATH};
use crate::proxy::{Asked, PAGE_STAY, linger};
use crate::query;
use crate::server::Phase;
use crate::service::Ended;
use crate::stats::Outcome;
use crate::table::Entry;
use crate::visit::Visit;
use crate::wakes::Visitor;
use bytes::Bytes;
use forerun_route::{Caller, action_template};
use forerun_types::{ActionKey, Activity, Generation, Time, UserKey};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, EXPECT, HOST, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// Answers a request, whatever comes.
pub(crate) async fn serve(
    core: Arc<Core>,
    client: Client,
    phase: watch::Receiver<Phase>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let json = headers::text(request.headers(), ACCEPT).contains("application/json");
    let found = target(&request).and_then(|host| find(&core, &client, &request, host));
    let result = match found {
        Ok((entry, host)) => enter(core, entry, client, phase, host, request).await,
        Err(fault) => {
            send_off(request);
            Err(fault)
        }
    };
    result.unwrap_or_else(|fault| fault.into_response(json))
}

/// Refuses a request with `Content-Length` and `Transfer-Encoding`; hyper ends its connection.
pub(crate) fn framed_twice(core: &Core, request: Request<Incoming>) -> Response<ReplyBody> {
    core.totals.malformed.fetch_add(1, Ordering::Relaxed);
    let json = headers::text(request.headers(), ACCEPT).contains("application/json");
    let sentence = "content-length and transfer-encoding must not come together";
    send_off(request);
    Fault::client(StatusCode::BAD_REQUEST, "bad-request", sentence).into_response(json)
}

fn send_off(request: Request<Incoming>) {
    let awaits_go = request.headers().contains_key(EXPECT);
    linger(request.into_body(), awaits_go);
}

/// The host that a request is for: of its target, or of its one `Host`.
fn target(request: &Request<Incoming>) -> Result<Option<HeaderValue>, Fault> {
    if request.method() == Method::CONNECT {
        let sentence = "forerun is no forward proxy: CONNECT is not allowed";
        return Err(Fault::client(StatusCode::METHOD_NOT_ALLOWED, "bad-request", sentence));
    }
    if headers::has_strange_coding(request.headers()) {
        let sentence = "the only transfer-encoding allowed is chunked";
        return Err(Fault::client(StatusCode::NOT_IMPLEMENTED, "bad-request", sentence));
    }
    let bad = |sentence: &str| Fault::client(StatusCode::BAD_REQUEST, "bad-request", sentence);
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(bad("more than one host header"));
    }
    if let Some(authority) = request.uri().authority() {
        // Without the name and password that may stand in front.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        return HeaderValue::from_str(host)
            .map(Some)
            .map_err(|_| bad("the host in the request line is malformed"));
    }
    match host {
        None if request.version() == Version::HTTP_11 => Err(bad("no host header")),
        host => Ok(host.cloned()),
    }
}

/// The path that decides: of a waiting page's question it is the page's.
fn path_of(uri: &Uri) -> Cow<'_, str> {
    match uri.path() {
        STATE_PATH => {
            let page = query::param(uri.query(), "path").unwrap_or_default();
            Cow::Owned(page.split('?').next().unwrap_or_default().to_owned())
        }
        path => Cow::Borrowed(path),
    }
}

fn find(
    core: &Core,
    client: &Client,
    request: &Request<Incoming>,
    host: Option<HeaderValue>,
) -> Result<(Arc<Entry>, Option<HeaderValue>), Fault> {
    let name = host.as_ref().map_or(Ok(""), HeaderValue::to_str);
    let name = name.map_err(|_| {
        Fault::client(StatusCode::BAD_REQUEST, "bad-request", "the host header is not plain ASCII")
    })?;
    let path = path_of(request.uri());
    let table = core.table.load();
    match table.find(name, &path) {
        Some(entry) => Ok((entry, host)),
        // Nobody may conclude from this that there is no such service.
        None if table.generation == Generation(0) => Err(Fault::starting()),
        None => {
            core.totals.unknown.fetch_add(1, Ordering::Relaxed);
            let fault = Fault::no_service(name, &path);
            let log = if is_at_home(client, request) { table.names() } else { Vec::new() };
            Err(Fault { log, ..fault })
        }
    }
}

/// Whether a request comes from this machine itself, and not through a proxy on it: one that says nothing of whom it
/// speaks for speaks HTTP/1.0.
fn is_at_home(client: &Client, request: &Request<Incoming>) -> bool {
    client.address.to_canonical().is_loopback()
        && request.version() == Version::HTTP_11
        && !headers::was_forwarded(request.headers())
}

async fn enter(
    core: Arc<Core>,
    entry: Arc<Entry>,
    client: Client,
    phase: watch::Receiver<Phase>,
    host: Option<HeaderValue>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Fault> {
    let now = core.now();
    let trust = core.limits.trust_forwarded;
    let address = headers::client_address(request.headers(), client.address, trust);
    let told = {
        let knock = Knock {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            host: host.as_ref(),
            client: client.address,
            trust_forwarded: trust,
        };
        knock_at(&core, &entry, &knock, now).await
    };
    let told = match told {
        Ok(told) => told,
        Err(answer) => {
            send_off(request);
            return answer.map(|response| response.map(ReplyBody::own));
        }
    };
    if request.uri().path() == STATE_PATH {
        let user = user_key(&core.secret, &entry.spec, request.headers(), address);
        let key = keys::key_of(&entry, user, &path_of(request.uri()), request.headers());
        let variant = key.and_then(|key| keys::variant(&core, &entry, &key));
        return Ok(state(&core, variant.as_ref().unwrap_or(&entry), now).map(ReplyBody::own));
    }
    let visitor = Comer { core, entry, client, phase, host, address, now };
    if visitor.entry.spec.cache.is_some() {
        return Box::pin(cached::serve(visitor, told, request)).await;
    }
    forward(visitor, told, request).await
}

/// Lets a request in, and sends it to an instance.
pub(crate) async fn forward(
    visitor: Comer,
    told: Told,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Fault> {
    let Comer { core, entry, client, phase, host, address, now } = visitor;
    let head =
        Head { method: request.method(), path: request.uri().path(), headers: request.headers(), address };
    if entry.wake.nobody(&head.caller()).is_some() {
        let (user, action, again) = (UserKey::NOBODY, ActionKey::default(), false);
        let home = Arc::clone(&entry);
        let asked = Asked { core, entry, home, client, phase, host, user, action, again, told };
        return pass(asked, request, now).await;
    }
    let someone = match welcome(&core, &entry, &head, "router", now) {
        Ok(someone) => someone,
        Err(fault) => {
            entry.service.ended(&core, &refusal("wake-rate", &core, now));
            send_off(request);
            return Err(fault);
        }
    };
    let Someone { user, action, again, key, variant } = someone;
    let variant = match (variant, &key) {
        (None, Some(key)) => keys::ask(&core, &entry, key).await,
        (variant, _) => variant,
    };
    let home = entry;
    let entry = variant.unwrap_or_else(|| Arc::clone(&home));
    let visit = Visit::new(Arc::clone(&core), Arc::clone(&entry.service), Some(action), now);
    let asked = Asked { core, entry, home, client, phase, host, user, action, again, told };
    asked.route(request, visit, None).await
}

fn refusal(reason: &'static str, core: &Core, since: Time) -> Ended {
    Ended { outcome: Outcome::Refused, reason: Some(reason), duration: core.now().since(since) }
}

/// Asks the guard, if there is one; whom it does not let in is told so.
pub(crate) async fn knock_at(
    core: &Arc<Core>,
    entry: &Arc<Entry>,
    knock: &Knock<'_>,
    now: Time,
) -> Result<Told, Result<Response<Bytes>, Fault>> {
    let Some(guard) = &entry.guard else { return Ok(Told::default()) };
    let answer = match guard.check(&core.limits, knock).await {
        Verdict::Pass(told) => return Ok(told),
        Verdict::Answer(response) => Ok(*response),
        Verdict::Refused(fault) => Err(fault),
    };
    entry.service.ended(core, &refusal("auth", core, now));
    Err(answer)
}

/// What of a request tells who makes it.
pub(crate) struct Head<'r> {
    pub(crate) method: &'r Method,
    pub(crate) path: &'r str,
    pub(crate) headers: &'r HeaderMap,
    /// The client's.
    pub(crate) address: IpAddr,
}

impl Head<'_> {
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller {
            method: self.method.as_str(),
            path: self.path,
            agent: headers::text(self.headers, USER_AGENT),
            purpose: headers::purpose(self.headers),
            preflight: self.headers.contains_key("access-control-request-method"),
            address: self.address,
        }
    }
}

/// Who came in, and for what.
pub(crate) struct Someone {
    pub(crate) user: UserKey,
    pub(crate) action: ActionKey,
    /// It has been noted before, when the waiting page was shown instead.
    pub(crate) again: bool,
    /// The key that the request brings, if the service specialises, and its variant if there is one.
    pub(crate) key: Option<String>,
    pub(crate) variant: Option<Arc<Entry>>,
}

/// Lets somebody in, and notes who asks for what; `by` is the door.
pub(crate) fn welcome(
    core: &Arc<Core>,
    entry: &Arc<Entry>,
    head: &Head<'_>,
    by: &'static str,
    now: Time,
) -> Result<Someone, Fault> {
    let user = user_key(&core.secret, &entry.spec, head.headers, head.address);
    let template = action_template(head.method.as_str(), head.path);
    let agent = headers::text(head.headers, USER_AGENT);
    let (action, name) = entry.service.name_action(template);
    // Made anew for the few that are noted.
    let shown = || action_template(head.method.as_str(), head.path);
    let visitor = || Visitor::new(now, head.address, shown(), agent, by);
    let key = keys::key_of(entry, user, head.path, head.headers);
    let variant = key.as_deref().and_then(|key| keys::variant(core, entry, key));
    let is_new = entry.service.let_in(&entry.spec, (user, action), head.address, visitor, now);
    if is_new.as_ref().is_ok_and(|is_new| *is_new) || name.is_some() {
        let activity = Activity {
            at: now,
            tenant: entry.tenant,
            user,
            group: entry.group,
            site: core.site,
            service: variant.as_ref().unwrap_or(entry).id(),
            action,
        };
        core.batch.activity(is_new.is_ok().then_some(activity), action, name);
    }
    is_new.map(|is_new| Someone { user, action, again: !is_new, key, variant })
}

/// Notes who did what, where no instance is needed for it: that wakes nothing.
pub(crate) fn teach(core: &Arc<Core>, entry: &Arc<Entry>, head: &Head<'_>, now: Time) {
    let user = user_key(&core.secret, &entry.spec, head.headers, head.address);
    let (action, name) = entry.service.name_action(action_template(head.method.as_str(), head.path));
    let key = keys::key_of(entry, user, head.path, head.headers);
    let variant = key.as_deref().and_then(|key| keys::variant(core, entry, key));
    let activity = Activity {
        at: now,
        tenant: entry.tenant,
        user,
        group: entry.group,
        site: core.site,
        service: variant.as_ref().unwrap_or(entry).id(),
        action,
    };
    core.batch.activity(Some(activity), action, name);
}

/// A request that is nobody's: to an instance that has a place for it, or answered here.
async fn pass(asked: Asked, request: Request<Incoming>, now: Time) -> Result<Response<ReplyBody>, Fault> {
    match asked.entry.service.pass(&asked.core, now) {
        Ok(Some(place)) => {
            let visit = Visit::new(Arc::clone(&asked.core), Arc::clone(&asked.entry.service), None, now);
            asked.route(request, visit, Some(place)).await
        }
        Ok(None) => {
            send_off(request);
            asked.entry.service.answered_nobody(&asked.core);
            Ok(asleep(&asked.entry).map(ReplyBody::own))
        }
        Err(fault) => {
            send_off(request);
            Err(fault)
        }
    }
}

/// What a probe is told in place of a service that sleeps, starts, or has no place for it.
pub(crate) fn asleep(entry: &Entry) -> Response<Bytes> {
    let status = match entry.spec.wake.asleep_status {
        0 => StatusCode::OK,
        status => StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
    };
    let word = match entry.service.condition() {
        Condition::Ready => "busy",
        condition => condition.word(),
    };
    let mut response = page::own(status, "text/plain; charset=utf-8", format!("{word}\n"));
    response.headers_mut().insert(STATE, HeaderValue::from_static(word));
    response
}

/// The answer to a waiting page's question, which is a sign that somebody still looks at it.
fn state(core: &Arc<Core>, entry: &Arc<Entry>, now: Time) -> Response<Bytes> {
    let shown = entry.shown();
    if shown.condition != Condition::Asleep {
        entry.service.want(core, UserKey::NOBODY, now + PAGE_STAY, now);
    }
    let mut response = page::own(StatusCode::OK, "application/json", format!("{}\n", shown.json()));
    response.headers_mut().insert(STATE, HeaderValue::from_static(shown.condition.word()));
    response
}
