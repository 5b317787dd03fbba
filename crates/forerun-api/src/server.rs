//! The server: binds to a loopback address, serves until it is stopped.

use crate::Status;
use crate::control::{self, ControlError, Order, Told};
use crate::problem::problem;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
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
    /// Whether the process does its work; a `Bad` one should be restarted.
    fn healthy(&self) -> Health;
    /// Whether requests can be sent to it now.
    fn ready(&self) -> Health;
    /// Takes a person's word on a service.
    ///
    /// # Errors
    /// No service has that name, or it cannot be told now.
    fn control(&self, service: &str, order: Order) -> Result<Told, ControlError>;
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
    #[error("api: {0} is not a loopback address, and the api has no authentication yet; listen on 127.0.0.1")]
    NotLoopback(SocketAddr),
    #[error("api: cannot listen on {address}: {source}; is another forerun running, or change api.listen")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// A running API. Dropping it ends it at once; [`Api::stop`] lets answers under way finish.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Api {
    /// Binds and serves in the background. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// An address that is not loopback, or that cannot be bound.
    pub async fn start(listen: SocketAddr, source: Arc<dyn Source>) -> Result<Api, ApiError> {
        if !listen.ip().is_loopback() {
            return Err(ApiError::NotLoopback(listen));
        }
        let bind = |error| ApiError::Bind { address: listen, source: error };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, routes(source), stopped));
        Ok(Api { address, stop, task })
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
struct Peer(IpAddr);

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

fn routes(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/services/{service}/{verb}", post(control::order).get(beside))
        .fallback(beside)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(control::own_pages_only))
        .layer(from_fn(own_host_only))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(source)
}

async fn health(State(source): State<Arc<dyn Source>>) -> Response {
    answer(source.healthy())
}

async fn ready(State(source): State<Arc<dyn Source>>) -> Response {
    answer(source.ready())
}

fn answer(health: Health) -> Response {
    match health {
        Health::Good => "ok\n".into_response(),
        Health::Bad(why) => problem(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], source.metrics()).into_response()
}

async fn status(State(source): State<Arc<dyn Source>>) -> Json<Status> {
    Json(source.status())
}

/// What the router answers itself, in its own words.
async fn beside(State(source): State<Arc<dyn Source>>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let (parts, _) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let asked = axum::http::Request::from_parts(parts, ());
    match peer.and_then(|peer| source.beside(asked, peer)) {
        Some(answer) => answer.await,
        // Orders are there, and are sent.
        None if path.starts_with("/v1/services/") => not_allowed(Method::GET).await,
        None => not_found(&path),
    }
}

fn not_found(path: &str) -> Response {
    let path: String = path.chars().take(100).collect();
    problem(
        StatusCode::NOT_FOUND,
        &format!("nothing at {path}; there are /healthz, /readyz, /metrics and /v1/status"),
    )
}

async fn not_allowed(method: Method) -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("{method} is not for this path; use GET, or POST for orders"),
    )
}

/// A page on the web can make a browser ask a loopback address under a name of its own (DNS rebinding); such a
/// request names that host, and is refused.
async fn own_host_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    // A proxy may ask with the host of the request that it asks about; what it gets tells no page more than that
    // request would.
    let of_a_proxy = request.uri().path() == "/v1/wake" || request.uri().path() == "/v1/page";
    match host {
        _ if of_a_proxy => next.run(request).await,
        Some(host) if !is_own(host) => problem(
            StatusCode::FORBIDDEN,
            "this host name is not the api's; ask localhost or a loopback address",
        ),
        _ => next.run(request).await,
    }
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
