//! The path of one request.

use crate::body::{Forwarded, Progress, ReplyBody, RequestBody, Upload};
use crate::core::Core;
use crate::fault::Fault;
use crate::headers;
use crate::identity::user_key;
use crate::io::Client;
use crate::server::Phase;
use crate::service::{Admission, Asking, Place};
use crate::table::Entry;
use crate::tunnel;
use crate::upstream::{self, Failed, Lease, SendError};
use crate::visit::Visit;
use forerun_route::action_template;
use forerun_types::{Activity, Generation, UserKey};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, EXPECT, HOST, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Answers a request, whatever comes.
pub(crate) async fn serve(
    core: Arc<Core>,
    client: Client,
    phase: watch::Receiver<Phase>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let json = accept.is_some_and(|accept| accept.contains("application/json"));
    let found = target(&request).and_then(|host| find(&core, &request, host));
    let result = match found {
        Ok((entry, host)) => {
            let (visit, user) = begin(&core, &entry, &client, &request);
            Asked { core, entry, client, phase, host, user }.route(request, visit).await
        }
        Err(fault) => {
            let awaits_go = request.headers().contains_key(EXPECT);
            linger(request.into_body(), awaits_go);
            Err(fault)
        }
    };
    result.unwrap_or_else(|fault| fault.into_response(json))
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

fn find(
    core: &Core,
    request: &Request<Incoming>,
    host: Option<HeaderValue>,
) -> Result<(Arc<Entry>, Option<HeaderValue>), Fault> {
    let name = host.as_ref().map_or(Ok(""), HeaderValue::to_str);
    let name = name.map_err(|_| {
        Fault::client(StatusCode::BAD_REQUEST, "bad-request", "the host header is not plain ASCII")
    })?;
    let path = request.uri().path();
    let table = core.table.load();
    match table.find(name, path) {
        Some(entry) => Ok((entry, host)),
        // Nobody may conclude from this that there is no such service.
        None if table.generation == Generation(0) => Err(Fault::starting()),
        None => {
            core.totals.unknown.fetch_add(1, Ordering::Relaxed);
            Err(Fault::no_service(name, path))
        }
    }
}

/// Notes who asks for what.
fn begin(
    core: &Arc<Core>,
    entry: &Arc<Entry>,
    client: &Client,
    request: &Request<Incoming>,
) -> (Visit, UserKey) {
    let now = core.now();
    let address = headers::client_address(request.headers(), client.address, core.limits.trust_forwarded);
    let user = user_key(&core.secret, &entry.spec, request.headers(), address);
    let template = action_template(request.method().as_str(), request.uri().path());
    let (action, name) = entry.service.name_action(template);
    let activity = Activity {
        at: now,
        tenant: entry.tenant,
        user,
        group: entry.group,
        site: core.site,
        service: entry.service.id,
        action,
    };
    core.batch.activity(activity, name);
    (Visit::new(Arc::clone(core), Arc::clone(&entry.service), action, now), user)
}

/// One request whose service is known.
struct Asked {
    core: Arc<Core>,
    entry: Arc<Entry>,
    client: Client,
    phase: watch::Receiver<Phase>,
    host: Option<HeaderValue>,
    user: UserKey,
}

impl Asked {
    /// Gets a place and forwards. If either fails for good, what the client still sends is read on for a while.
    async fn route(
        self,
        mut request: Request<Incoming>,
        mut visit: Visit,
    ) -> Result<Response<ReplyBody>, Fault> {
        let core = &self.core;
        let upgrade = headers::wants_websocket(&request).then(|| hyper::upgrade::on(&mut request));
        let awaits_go = request.headers().contains_key(EXPECT);
        let asking = self.asking(&request, &visit);
        let admission = self.entry.service.admit(core, asking, core.now());
        let place = match self.wait(admission).await {
            Ok(place) => place,
            Err(fault) => {
                linger(request.into_body(), awaits_go);
                return Err(visit.refuse(fault));
            }
        };
        let close_delimited = request.version() == Version::HTTP_10;
        let (request, again) = self.outgoing(request, &visit, place.pool.address(), upgrade.is_some());
        match self.send(request, &again, asking, place, &mut visit).await {
            Ok((response, lease)) => {
                visit.answers(response.status());
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return tunnel::open(response, upgrade, visit, self.client, self.phase);
                }
                answer(response, lease, visit, close_delimited.then_some(self.client))
            }
            Err((fault, unsent)) => {
                if let Some(body) = unsent.and_then(|request| request.into_body().into_inner()) {
                    linger(body, awaits_go);
                }
                Err(visit.refuse(fault))
            }
        }
    }

    fn asking(&self, request: &Request<Incoming>, visit: &Visit) -> Asking {
        // While it is held its head is kept, and as much of its body as is read ahead.
        let ahead = self.core.limits.head_bytes_max as u64;
        let body = request.body().size_hint().exact().unwrap_or(ahead).min(ahead);
        Asking { user: self.user, bytes: headers::head_bytes(request) + body, arrived: visit.arrived() }
    }

    /// The place that was given, or is given in the end to one who is held.
    async fn wait(&self, admission: Admission) -> Result<Place, Fault> {
        let mut ticket = match admission {
            Admission::Go(place) => return Ok(place),
            Admission::Refused(fault) => return Err(fault),
            Admission::Held(ticket) => ticket,
        };
        tokio::select! {
            biased;
            granted = ticket.wait() => granted,
            () = self.client.gone() => Err(Fault::client_gone()),
        }
    }

    /// Sends the request to the instance of its place, and to another, at once or when there is one, if that one does
    /// not take it. With the fault comes the request if its body is still unread.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
        again: &impl Fn() -> Option<Request<RequestBody>>,
        asking: Asking,
        mut place: Place,
        visit: &mut Visit,
    ) -> Result<(Response<Incoming>, Lease), (Fault, Option<Request<RequestBody>>)> {
        /// What three instances in a row do not take is more likely at fault than they are.
        const RETURNS_MAX: u32 = 2;
        let progress = Arc::clone(&visit.progress);
        let mut returns = 0;
        loop {
            let pool = Arc::clone(&place.pool);
            visit.at(place);
            let sent = upstream::send(&pool, &self.core.limits, request, again, &|| progress.bytes()).await;
            let Failed { error, request: unsent } = match sent {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            let fault = self.fault_of(&error, &progress);
            request = match unsent {
                Some(unsent) if error.is_no_answer() && returns < RETURNS_MAX => unsent,
                unsent => return Err((fault, unsent)),
            };
            returns += 1;
            let Some(back) = visit.back() else { return Err((fault, Some(request))) };
            let now = self.core.now();
            let admission = self.entry.service.put_back(&self.core, back, asking, fault, now);
            place = match self.wait(admission).await {
                Ok(place) => place,
                Err(fault) => return Err((fault, Some(request))),
            };
        }
    }

    /// The request as an instance gets it, and the same once more if sending it twice is harmless and possible.
    fn outgoing(
        &self,
        request: Request<Incoming>,
        visit: &Visit,
        address: SocketAddr,
        websocket: bool,
    ) -> (Request<RequestBody>, impl Fn() -> Option<Request<RequestBody>> + use<>) {
        let limits = &self.core.limits;
        let (mut parts, body) = request.into_parts();
        headers::for_instance(
            &mut parts.headers,
            self.client.address,
            self.host.as_ref(),
            limits.trust_forwarded,
        );
        if websocket {
            headers::mark_websocket(&mut parts.headers);
        }
        // HTTP/1.1 demands one; a client of HTTP/1.0 may have sent none. Another instance may see the first's.
        let host = self.host.clone().or_else(|| HeaderValue::from_str(&address.to_string()).ok());
        if let Some(host) = host {
            parts.headers.insert(HOST, host);
        }
        let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(target);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();

        let stall = limits.stall_timeout;
        let harmless = parts.method.is_idempotent() && body.is_end_stream();
        let copy = harmless.then(|| (parts.clone(), Arc::clone(&visit.progress)));
        let again = move || {
            let (parts, progress) = copy.as_ref()?;
            Some(Request::from_parts(parts.clone(), RequestBody::new(None, Arc::clone(progress), stall)))
        };
        let body = RequestBody::new(Some(body), Arc::clone(&visit.progress), stall);
        (Request::from_parts(parts, body), again)
    }

    fn fault_of(&self, error: &SendError, progress: &Progress) -> Fault {
        let limits = &self.core.limits;
        match progress.upload() {
            Upload::Fine => {}
            Upload::Cut => {
                let sentence = "the request's body was cut short or malformed";
                return Fault::client(StatusCode::BAD_REQUEST, "client-body", sentence);
            }
            Upload::Stalled => {
                let sentence = format!("nothing of the request's body came for {}", limits.stall_timeout);
                return Fault::client(StatusCode::REQUEST_TIMEOUT, "client-stalled", sentence);
            }
        }
        let (status, reason, what) = match error {
            SendError::Connect(error) => {
                (StatusCode::BAD_GATEWAY, "upstream-connect", format!("cannot be reached: {error}"))
            }
            SendError::ConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream-connect-timeout",
                format!("did not accept a connection within {}", limits.connect_timeout),
            ),
            SendError::Closed(error) if error.is_parse() => {
                (StatusCode::BAD_GATEWAY, "upstream-protocol", format!("did not answer in HTTP/1: {error}"))
            }
            SendError::Closed(error) => (
                StatusCode::BAD_GATEWAY,
                "upstream-closed",
                format!("closed the connection before it answered: {error}"),
            ),
            SendError::ResponseTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream-timeout",
                format!("did not answer within {}", limits.response_timeout),
            ),
        };
        let service = &self.entry.spec.name;
        Fault::upstream(status, reason, format!("the instance of service {service} {what}"))
    }
}

/// Makes an instance's answer the client's. `http_10` is the client if it may know the end of a body only by the end
/// of the connection.
fn answer(
    response: Response<Incoming>,
    lease: Lease,
    visit: Visit,
    http_10: Option<Client>,
) -> Result<Response<ReplyBody>, Fault> {
    let (mut parts, inner) = response.into_parts();
    if headers::has_strange_coding(&parts.headers) {
        let sentence = "the instance answered in a transfer-encoding other than chunked";
        return Err(visit.refuse(Fault::upstream(StatusCode::BAD_GATEWAY, "upstream-protocol", sentence)));
    }
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let reset = http_10.filter(|_| inner.size_hint().exact().is_none());
    let body = ReplyBody::Forwarded(Box::new(Forwarded::new(inner, visit, lease, reset)));
    Ok(Response::from_parts(parts, body))
}

/// Reads on for a while what a client still sends after its request was refused. Closing the connection at once
/// would reset it, and the client might never see the answer.
fn linger(body: Incoming, awaits_go: bool) {
    const BYTES_MAX: usize = 1 << 20;
    const LINGER_MAX: Duration = Duration::from_secs(5);
    // A client that waits for a go-ahead sends nothing, and asking for its body would give the go-ahead.
    if awaits_go || body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(LINGER_MAX, async move {
        let mut body = body;
        let mut read = 0;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            read += frame.data_ref().map_or(0, |data| data.len());
            if read > BYTES_MAX {
                break;
            }
        }
    }));
}
