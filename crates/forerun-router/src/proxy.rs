//! The path of a request that may come in: a place at an instance, and there and back.

use crate::auth::Told;
use crate::body::{Forwarded, Progress, ReplyBody, RequestBody, Upload};
use crate::core::Core;
use crate::fault::Fault;
use crate::headers;
use crate::io::Client;
use crate::page::{self, Condition, Form, STATE_PATH, Shown};
use crate::query;
use crate::server::Phase;
use crate::service::{Admission, Asking, Place};
use crate::table::Entry;
use crate::tunnel;
use crate::upstream::{self, Failed, Lease, SendError};
use crate::visit::Visit;
use forerun_types::{ActionKey, HoldStyle, Span, UserKey, Variant};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, EXPECT, HOST, HeaderValue, SET_COOKIE};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A request whose service is known, and who may come in.
pub(crate) struct Asked {
    pub(crate) core: Arc<Core>,
    pub(crate) entry: Arc<Entry>,
    /// The service that it came to; `entry` may be its variant for the request's key.
    pub(crate) home: Arc<Entry>,
    pub(crate) client: Client,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) user: UserKey,
    pub(crate) action: ActionKey,
    /// It is a waiting page loaded again, or what the page was shown instead of.
    pub(crate) again: bool,
    /// What the guard said of the user.
    pub(crate) told: Told,
}

/// Why a request has no place.
enum Denied {
    Fault(Fault),
    /// It is shown the waiting page instead.
    Page,
}

/// How long a browser is held before it is shown the page: what is there sooner needs none.
pub(crate) const PAGE_AFTER: Duration = Duration::from_millis(500);
/// A page asks again every second, or is loaded again every five: one that has not for so long is closed.
pub(crate) const PAGE_STAY: Span = Span::from_secs(15);

impl Asked {
    /// Gets a place, unless it has one, and forwards. If either fails for good, what the client still sends is read on
    /// for a while.
    pub(crate) async fn route(
        mut self,
        mut request: Request<Incoming>,
        mut visit: Visit,
        place: Option<Place>,
    ) -> Result<Response<ReplyBody>, Fault> {
        let upgrade = headers::wants_websocket(&request).then(|| hyper::upgrade::on(&mut request));
        let awaits_go = request.headers().contains_key(EXPECT);
        let mut asking = self.asking(&request, &visit);
        let place = match place {
            Some(place) => Ok(place),
            None => match self.admit(&request, asking, upgrade.is_some()).await {
                Err(denied) if self.goes_home(&denied) => {
                    (self.entry, asking.key) = (Arc::clone(&self.home), None);
                    self.admit(&request, asking, upgrade.is_some()).await
                }
                admitted => admitted,
            },
        };
        let place = match place {
            Ok(place) => place,
            Err(denied) => return self.deny(denied, request, visit, awaits_go),
        };
        let close_delimited = request.version() == Version::HTTP_10;
        let cookies = std::mem::take(&mut self.told.cookies);
        let (request, again) = self.outgoing(request, &visit, place.pool.address(), upgrade.is_some());
        let answered = match self.send(request, &again, asking, place, &mut visit).await {
            Ok((response, lease)) => {
                visit.answers(response.status());
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    tunnel::open(response, upgrade, visit, self.client, self.phase)
                } else {
                    answer(response, lease, visit, close_delimited.then_some(self.client))
                }
            }
            Err((fault, unsent)) => {
                if let Some(body) = unsent.and_then(|request| request.into_body().into_inner()) {
                    linger(body, awaits_go);
                }
                Err(visit.refuse(fault))
            }
        };
        answered.map(|mut response| {
            for cookie in cookies {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            response
        })
    }

    /// Whether a request goes to the generic instances after all: its key's variant has just gone, or serves nobody.
    fn goes_home(&self, denied: &Denied) -> bool {
        let without = |fault: &Fault| matches!(fault.reason, Fault::SERVICE_GONE | Fault::UNAVAILABLE);
        !Arc::ptr_eq(&self.entry, &self.home) && matches!(denied, Denied::Fault(fault) if without(fault))
    }

    async fn admit(
        &self,
        request: &Request<Incoming>,
        asking: Asking,
        upgrades: bool,
    ) -> Result<Place, Denied> {
        let admission = self.entry.service.admit(&self.core, asking, self.core.now());
        if matches!(admission, Admission::Go(_)) {
            return self.wait(admission, None).await;
        }
        let page_after = (!upgrades).then(|| self.page_after(request)).flatten();
        self.wait(admission, page_after).await
    }

    /// When a request is shown the waiting page, if it ever is.
    fn page_after(&self, request: &Request<Incoming>) -> Option<Duration> {
        let style = self.entry.spec.hold_style;
        if request.method() != Method::GET || style == HoldStyle::Wait {
            return None;
        }
        // Where all instances are only busy one is soon free.
        if self.entry.service.condition() == Condition::Ready {
            return None;
        }
        match style {
            HoldStyle::Page => Some(Duration::ZERO),
            _ => headers::is_navigation(request.headers()).then_some(PAGE_AFTER),
        }
    }

    fn deny(
        &self,
        denied: Denied,
        request: Request<Incoming>,
        visit: Visit,
        awaits_go: bool,
    ) -> Result<Response<ReplyBody>, Fault> {
        let wants_page = self.page_after(&request).is_some();
        let accept = headers::text(request.headers(), &ACCEPT).to_owned();
        let target = request.uri().path().to_owned();
        linger(request.into_body(), awaits_go);
        let shown = Shown { name: self.home.spec.name.clone(), ..self.entry.shown() };
        match denied {
            Denied::Fault(fault) if !(wants_page && fault.reason == Fault::UNAVAILABLE) => {
                let adds = fault.reason == "hold-timeout" && shown.condition.word() == "starting";
                let sentence =
                    if adds { format!("{}; {}", fault.sentence, shown.sentence()) } else { String::new() };
                let fault = if adds { Fault { sentence, ..fault } } else { fault };
                Err(visit.refuse(fault))
            }
            _ => {
                let poll = Some(format!("{STATE_PATH}?path={}", query::encode(&target)));
                let response = page::waiting(&shown, Form::of(&accept), poll);
                visit.answered_by_page(response.status());
                Ok(response.map(ReplyBody::own))
            }
        }
    }

    fn asking(&self, request: &Request<Incoming>, visit: &Visit) -> Asking {
        // While it is held its head is kept, and as much of its body as is read ahead.
        let ahead = self.core.limits.head_bytes_max as u64;
        let body = request.body().size_hint().exact().unwrap_or(ahead).min(ahead);
        Asking {
            user: self.user,
            bytes: headers::head_bytes(request) + body,
            arrived: visit.arrived(),
            again: self.again,
            key: self.entry.spec.variant.as_ref().map(|variant| Variant::access_key(&variant.key)),
        }
    }

    /// The place that was given, or is given in the end to one who is held, unless a page is shown first.
    async fn wait(&self, admission: Admission, page_after: Option<Duration>) -> Result<Place, Denied> {
        let mut ticket = match admission {
            Admission::Go(place) => return Ok(place),
            Admission::Refused(fault) => return Err(Denied::Fault(fault)),
            Admission::Held(ticket) => ticket,
        };
        let patience = async {
            match page_after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            granted = ticket.wait() => granted.map_err(Denied::Fault),
            () = self.client.gone() => Err(Denied::Fault(Fault::client_gone())),
            () = patience => {
                // Before the place in the queue is given up, so that somebody waits all the time.
                let now = self.core.now();
                self.entry.service.want(&self.core, self.user, now + PAGE_STAY, now);
                self.home.service.paged(self.user, self.action);
                Err(Denied::Page)
            }
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
        // Nobody waits for an answer to a probe.
        let returns_max = if visit.is_silent() { 0 } else { RETURNS_MAX };
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
                Some(unsent) if error.is_no_answer() && returns < returns_max => unsent,
                unsent => return Err((fault, unsent)),
            };
            returns += 1;
            let Some(back) = visit.back() else { return Err((fault, Some(request))) };
            let now = self.core.now();
            let admission = self.entry.service.put_back(&self.core, back, asking, fault, now);
            place = match self.wait(admission, None).await {
                Ok(place) => place,
                Err(Denied::Fault(fault)) => return Err((fault, Some(request))),
                Err(Denied::Page) => return Err((Fault::shutting_down(), Some(request))),
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
        if let Some(guard) = &self.entry.guard {
            guard.strip(&mut parts.headers);
            for (name, value) in &self.told.request {
                parts.headers.append(name.clone(), value.clone());
            }
        }
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
        if body.is_end_stream() {
            visit.progress.set_bodyless();
        }
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
                (StatusCode::BAD_GATEWAY, Fault::NONSENSE, format!("did not answer in HTTP/1: {error}"))
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
        return Err(visit.refuse(Fault::upstream(StatusCode::BAD_GATEWAY, Fault::NONSENSE, sentence)));
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
pub(crate) fn linger(body: Incoming, awaits_go: bool) {
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
