//! The server: binds to its address if that is fit for it, serves until it is stopped.

use crate::answer::Segment;
use crate::auth::{Caller, Guard, TokenError, admit};
use crate::cache::{PurgeOrder, Purged};
use crate::control::{ControlError, Order, Told};
use crate::past::{self, Past};
use crate::problem::{no_service, problem};
use crate::routes::ROUTES;
use crate::{Status, events, scope};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// A person, a scraper and a dashboard need a handful; a proxy that asks before each request needs one for each that
/// is held. More wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a connection may be silent between requests or inside a request's head: longer than the usual pause
/// between two scrapes is not needed, since a new connection is cheap.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a stop waits for answers that are under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an order's body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A pause after a failed accept (out of file descriptors, usually), so that it is not retried in a hot loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A status for lists is made anew after so long: the engine renews what it is made from as often.
const STATUS_AGE_MAX: Duration = Duration::from_millis(200);

/// Whether something is as it should be, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// One sentence, lower case.
    Bad(String),
}

/// Where the figures come from. Each method must return at once: it is called on the thread that serves.
pub trait Source: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// OpenMetrics text, as [`crate::Metrics::render`] gives it.
    fn metrics(&self) -> String;
    /// Whose a service is; `None` where no service has that name.
    fn tenant_of(&self, service: &str) -> Option<String> {
        self.status().services.into_iter().find(|s| s.name == service).map(|s| s.tenant)
    }
    /// Whether the process does its work; a `Bad` one should be restarted.
    fn healthy(&self) -> Health;
    /// Whether requests can be sent to it now.
    fn ready(&self) -> Health;
    /// Takes a person's word on a service.
    ///
    /// # Errors
    /// No service has that name, or it cannot be told now.
    fn control(&self, service: &str, order: Order) -> Result<Told, ControlError>;
    /// Purges what the router's cache keeps.
    ///
    /// # Errors
    /// What is to be purged is no URL, tag or tenant, in one sentence.
    fn purge(&self, order: &PurgeOrder) -> Result<Purged, String> {
        let _ = order;
        Err("there is no cache here".to_owned())
    }
    /// The answer to what the router itself answers (`/v1/wake` and the like), which may take as long as a held
    /// request; `None` where there is no such path.
    fn beside(&self, asked: axum::http::Request<()>, client: IpAddr) -> Option<Answer> {
        let _ = (asked, client);
        None
    }
}

/// An answer that may take a while. Dropped when its client goes away.
pub type Answer = Pin<Box<dyn Future<Output = axum::http::Response<Body>> + Send>>;

/// Why the API could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(
        "api.listen: {0} needs a token, and there is none; make one first: forerun token create admin --role admin"
    )]
    NoToken(SocketAddr),
    #[error("api: {0}")]
    Tokens(#[from] TokenError),
    #[error("api: cannot listen on {address}: {source}; is another forerun running, or change api.listen")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// A running API. Dropping it ends it at once; [`Api::stop`] lets answers under way finish.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    memory: JoinHandle<()>,
}

impl Api {
    /// Binds and serves in the background. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// An address that needs a token where there is none, or that cannot be bound.
    pub async fn start(listen: SocketAddr, source: Arc<dyn Source>, guard: Guard) -> Result<Api, ApiError> {
        guard.fit_for(listen)?;
        let bind = |error| ApiError::Bind { address: listen, source: error };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, stopped) = watch::channel(false);
        let shared = Shared::new(source, guard.at(listen));
        let memory = tokio::spawn(shared.clone().remember());
        let task = tokio::spawn(serve(listener, router(shared), stopped));
        Ok(Api { address, stop, task, memory })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and gives answers under way two seconds to finish.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // `serve` ends by itself within its own time; a panic in it has been reported by its hook.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
        self.memory.abort();
    }
}

async fn serve(listener: TcpListener, routes: Router, mut stopped: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            _ = told(&mut stopped) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = told(&mut stopped) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (routes, stopped) = (routes.clone(), stopped.clone());
                connections.spawn(async move {
                    connection(stream, peer.ip(), routes, stopped).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "api: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // Whoever is not done by then is cut off as the set is dropped.
    let _ = tokio::time::timeout(STOP_TIMEOUT, all).await;
}

/// Comes back when the stop is asked for, or its sender is gone.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// A status, and when it was made.
struct Latest {
    at: Instant,
    status: Arc<Status>,
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) past: Arc<Past>,
    /// Those who may still begin to listen to events.
    pub(crate) listeners: Arc<Semaphore>,
    latest: Arc<Mutex<Option<Latest>>>,
}

impl Shared {
    fn new(source: Arc<dyn Source>, guard: Guard) -> Self {
        Self {
            source,
            guard: Arc::new(guard),
            past: Arc::default(),
            listeners: Arc::new(Semaphore::new(events::CLIENTS_MAX)),
            latest: Arc::default(),
        }
    }

    /// What holds now, or did a moment ago: many pollers cost little more than one.
    fn latest(&self) -> Arc<Status> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(made) if made.at.elapsed() < STATUS_AGE_MAX => Arc::clone(&made.status),
            _ => {
                let status = Arc::new(self.source.status());
                *latest = Some(Latest { at: Instant::now(), status: Arc::clone(&status) });
                status
            }
        }
    }

    /// The same, as far as it is a caller's to see.
    pub(crate) fn seen(&self, caller: &Caller) -> Arc<Status> {
        let latest = self.latest();
        match caller.tenant {
            None => latest,
            Some(_) => Arc::new(scope::seen(Status::clone(&latest), caller)),
        }
    }

    /// Looks at the loads about once a second, for ever.
    async fn remember(self) {
        loop {
            let began = Instant::now();
            self.past.look(&self.latest());
            // Of many services it takes a small part of the time, and looks less often.
            tokio::time::sleep(past::EVERY.max(began.elapsed() * 50)).await;
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, routes: Router, mut stopped: watch::Receiver<bool>) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: axum::http::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        routes.call(request)
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = told(&mut stopped) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "api: a connection ended early");
    }
}

fn router(shared: Shared) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        if let Some(handler) = route.handler {
            router = router.route(route.path, handler());
        }
    }
    router
        .fallback(beside)
        .method_not_allowed_fallback(async |method: Method| other_method(&method))
        .layer(from_fn_with_state(Arc::clone(&shared.guard), admit))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

pub(crate) async fn health(State(shared): State<Shared>) -> Response {
    answer(shared.source.healthy())
}

pub(crate) async fn ready(State(shared): State<Shared>) -> Response {
    answer(shared.source.ready())
}

fn answer(health: Health) -> Response {
    match health {
        Health::Good => "ok\n".into_response(),
        Health::Bad(why) => problem(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

pub(crate) async fn metrics(State(shared): State<Shared>) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], shared.source.metrics()).into_response()
}

/// What the router answers itself of one service, in its own words.
pub(crate) async fn beside_service(
    State(shared): State<Shared>,
    Segment(service): Segment,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    match caller.tenant.is_none() || is_seen(&shared, &caller, &service) {
        true => beside(State(shared), request).await,
        false => no_service(&service),
    }
}

/// Whether a service is there for a caller.
pub(crate) fn is_seen(shared: &Shared, caller: &Caller, service: &str) -> bool {
    shared.source.tenant_of(service).is_some_and(|tenant| caller.sees(&tenant))
}

/// What the router answers itself, in its own words.
async fn beside(State(shared): State<Shared>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (parts, _) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let asked = axum::http::Request::from_parts(parts, ());
    match peer.and_then(|peer| shared.source.beside(asked, peer)) {
        Some(answer) => answer.await,
        None => nothing_at(&path),
    }
}

pub(crate) fn nothing_at(path: &str) -> Response {
    let path: String = path.chars().take(100).collect();
    problem(StatusCode::NOT_FOUND, &format!("nothing at {path}; /docs and /openapi.json say what there is"))
}

pub(crate) fn other_method(method: &Method) -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("{method} is not for this path; use GET, or POST for orders"),
    )
}

pub(crate) fn is_own(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_hosts_are_served() {
        for (host, own) in [
            ("127.0.0.1:7070", true),
            ("127.1.2.3", true),
            ("localhost:7070", true),
            ("LOCALHOST", true),
            ("[::1]:7070", true),
            ("evil.example:7070", false),
            ("10.0.0.1:7070", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_own(host), own, "{host}");
        }
    }
}
