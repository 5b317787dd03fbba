//! Connections to instances: kept alive, dialled anew at most once for a request.

use crate::body::RequestBody;
use crate::settings::RouterLimits;
use forerun_types::Span;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The idle connections to one instance, the latest last.
pub(crate) struct Pool {
    address: SocketAddr,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<(SendRequest<RequestBody>, Instant)>,
    /// The instance has left the table: nothing is kept any more.
    closed: bool,
}

impl Pool {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        let mut idle = self.lock();
        idle.closed = true;
        let connections = std::mem::take(&mut idle.connections);
        drop(idle);
        drop(connections);
    }

    /// Drops what has been idle for too long.
    pub(crate) fn sweep(&self, idle_timeout: Span) {
        let mut idle = self.lock();
        let fresh = |since: &Instant| since.elapsed() < Duration::from(idle_timeout);
        idle.connections.retain(|(sender, since)| fresh(since) && !sender.is_closed());
    }

    fn take(&self, limits: &RouterLimits) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.lock();
        while let Some((sender, since)) = idle.connections.pop() {
            if since.elapsed() < Duration::from(limits.idle_timeout) && sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    /// Dials; the connection is kept for a request if the instance accepts it.
    pub(crate) async fn accepts(&self, limits: &RouterLimits) -> bool {
        match dial(self.address, limits).await {
            Ok(sender) => {
                self.put(sender, limits.idle_max);
                true
            }
            Err(_) => false,
        }
    }

    fn put(&self, sender: SendRequest<RequestBody>, idle_max: usize) {
        let mut idle = self.lock();
        if !idle.closed && idle.connections.len() < idle_max && sender.is_ready() {
            idle.connections.push((sender, Instant::now()));
        }
    }
}

/// A connection while a request is on it. Dropped instead of given back, it is closed.
pub(crate) struct Lease {
    sender: SendRequest<RequestBody>,
    pool: Arc<Pool>,
    idle_max: usize,
}

impl Lease {
    /// The answer has come whole: another request may have the connection as soon as its own is all sent.
    pub(crate) fn give_back(mut self) {
        /// An instance that answers early and never reads the rest is not worth waiting for.
        const READY_WITHIN: Duration = Duration::from_secs(1);
        if self.sender.is_closed() {
            return;
        }
        if self.sender.is_ready() {
            self.pool.put(self.sender, self.idle_max);
            return;
        }
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(READY_WITHIN, self.sender.ready()).await {
                self.pool.put(self.sender, self.idle_max);
            }
        });
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    Connect(io::Error),
    ConnectTimeout,
    /// The connection ended before the answer's head.
    Closed(hyper::Error),
    ResponseTimeout,
}

impl SendError {
    /// The instance took nothing and answered nothing: another may do better. Nonsense is an answer.
    pub(crate) fn is_no_answer(&self) -> bool {
        match self {
            SendError::Connect(_) | SendError::ConnectTimeout => true,
            SendError::Closed(error) => !error.is_parse(),
            SendError::ResponseTimeout => false,
        }
    }
}

pub(crate) struct Failed {
    pub(crate) error: SendError,
    /// The request, if nothing of it was sent, or if it may as well be sent again.
    pub(crate) request: Option<Request<RequestBody>>,
}

/// Sends a request and waits for the head of its answer.
///
/// It is sent a second time, on a connection of its own, only if nothing of it had left, or if `again` makes it anew,
/// and the first try was on a kept connection, which the instance may have closed at that moment. `again` must give
/// nothing for a request that is not idempotent or has a body.
pub(crate) async fn send(
    pool: &Arc<Pool>,
    limits: &RouterLimits,
    request: Request<RequestBody>,
    again: &impl Fn() -> Option<Request<RequestBody>>,
    bytes: &impl Fn() -> u64,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let request = match pool.take(limits) {
        None => request,
        Some(sender) => match send_on(sender, pool, limits, request, again, bytes).await {
            Err(Failed { error: SendError::Closed(_), request: Some(request) }) => request,
            result => return result,
        },
    };
    let sender = match dial_twice(pool.address, limits).await {
        Ok(sender) => sender,
        Err(error) => return Err(Failed { error, request: Some(request) }),
    };
    send_on(sender, pool, limits, request, again, bytes).await
}

async fn send_on(
    mut sender: SendRequest<RequestBody>,
    pool: &Arc<Pool>,
    limits: &RouterLimits,
    request: Request<RequestBody>,
    again: &impl Fn() -> Option<Request<RequestBody>>,
    bytes: &impl Fn() -> u64,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let sending = sender.try_send_request(request);
    match while_it_moves(limits.response_timeout, sending, bytes).await {
        None => Err(Failed { error: SendError::ResponseTimeout, request: None }),
        Some(Err(mut failed)) => {
            let request = failed.take_message().or_else(again);
            Err(Failed { error: SendError::Closed(failed.into_error()), request })
        }
        Some(Ok(response)) => {
            Ok((response, Lease { sender, pool: Arc::clone(pool), idle_max: limits.idle_max }))
        }
    }
}

/// The result of `work`, or nothing once `patience` has passed in which no byte moved.
async fn while_it_moves<F: Future>(patience: Span, work: F, bytes: impl Fn() -> u64) -> Option<F::Output> {
    let mut work = std::pin::pin!(work);
    if patience == Span::ZERO {
        return Some(work.await);
    }
    let mut seen = bytes();
    loop {
        if let Ok(done) = timeout(patience.into(), &mut work).await {
            return Some(done);
        }
        if seen == bytes() {
            return None;
        }
        seen = bytes();
    }
}

/// A new connection; a refusal or reset is tried once more, for an instance that is just beginning to listen again.
async fn dial_twice(
    address: SocketAddr,
    limits: &RouterLimits,
) -> Result<SendRequest<RequestBody>, SendError> {
    const PAUSE: Duration = Duration::from_millis(10);
    match dial(address, limits).await {
        Err(SendError::Connect(_)) => {
            tokio::time::sleep(PAUSE).await;
            dial(address, limits).await
        }
        result => result,
    }
}

async fn dial(address: SocketAddr, limits: &RouterLimits) -> Result<SendRequest<RequestBody>, SendError> {
    let stream = timeout(limits.connect_timeout.into(), TcpStream::connect(address))
        .await
        .map_err(|_| SendError::ConnectTimeout)?
        .map_err(SendError::Connect)?;
    stream.set_nodelay(true).map_err(SendError::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::Closed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%address, %error, "connection to an instance ended");
        }
    });
    Ok(sender)
}
