//! Listening, connections, and the end of both.

use crate::batch::Batch;
use crate::beside::{self, Scope};
use crate::body::ReplyBody;
use crate::cached::{self, Purge, PurgeError};
use crate::core::Core;
use crate::door;
use crate::events::{BesideBody, STREAMS_MAX};
use crate::io::{Client, ClientIo};
use crate::keys::Keys;
use crate::settings::{Listen, RouterError, RouterSettings};
use crate::stats::{RouterStats, Totals};
use crate::table::{self, Publisher, Snapshot};
use crate::up::Up;
use crate::waiting::Lobby;
use crate::wakes::Wakes;
use arc_swap::ArcSwap;
use forerun_types::{Event, RouteTable, Span};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

/// How far a router's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// No new connections; each ends with the request that it carries.
    Draining,
    /// Whatever is left ends now.
    Abort,
}

/// Starts routers.
#[derive(Clone, Copy, Debug)]
pub struct Router;

impl Router {
    /// Listens, and tells the engine so. Until the first [`RouterHandle::publish`] every request is answered with
    /// 503. Must be called within a tokio runtime, on which the router then lives.
    ///
    /// # Errors
    /// [`RouterError`]: limits that make no sense, an address that is taken, no runtime.
    pub fn start(settings: RouterSettings, up: Arc<dyn Up>) -> Result<RouterHandle, RouterError> {
        settings.limits.check()?;
        tokio::runtime::Handle::try_current().map_err(|_| RouterError::NoRuntime)?;
        let listener = listen(settings.listen)?;
        let address = listener.local_addr().map_err(RouterError::Socket)?;
        let beside = settings.beside.map(listen).transpose()?;
        let beside_address =
            beside.as_ref().map(TcpListener::local_addr).transpose().map_err(RouterError::Socket)?;
        let connections_max = settings.limits.connections_max;
        let lobby = Lobby::new(settings.limits.waitlist());
        let seed = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| settings.secret[i]));
        let core = Arc::new(Core {
            id: settings.id,
            site: settings.site,
            secret: settings.secret,
            clock: settings.now,
            limits: settings.limits,
            up,
            batch: Batch::default(),
            table: ArcSwap::from_pointee(Snapshot::default()),
            publisher: Mutex::new(Publisher::default()),
            published: Notify::new(),
            keys: Keys::default(),
            lobby,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            totals: Totals::default(),
            draws: AtomicU64::new(seed),
            cache: OnceLock::new(),
        });
        let phase = watch::Sender::new(Phase::Serving);
        let permits = Arc::new(Semaphore::new(connections_max as usize));
        let accept = |listener, front| {
            tokio::spawn(accept(Arc::clone(&core), listener, front, Arc::clone(&permits), phase.subscribe()))
        };
        let mut tasks = vec![accept(listener, Front::Requests)];
        tasks.extend(beside.map(|listener| accept(listener, Front::Beside)));
        tasks.extend([tokio::spawn(Batch::run(Arc::clone(&core))), tokio::spawn(sweep(Arc::clone(&core)))]);
        core.up.control(Event::RouterJoined(core.id));
        Ok(RouterHandle {
            core,
            address,
            beside: beside_address,
            phase,
            permits,
            connections_max,
            tasks,
            left: AtomicBool::new(false),
        })
    }
}

fn listen(listen: Listen) -> Result<TcpListener, RouterError> {
    /// Connections that the kernel accepts ahead; its own maximum cuts it down.
    const BACKLOG: u32 = 4_096;
    match listen {
        Listen::Socket(socket) => {
            socket.set_nonblocking(true).map_err(RouterError::Socket)?;
            TcpListener::from_std(socket).map_err(RouterError::Socket)
        }
        Listen::Address(address) => {
            let bind = || {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                socket.listen(BACKLOG)
            };
            bind().map_err(|source| RouterError::Bind { address, source })
        }
    }
}

/// A running router. Dropped, it ends at once; [`Self::shutdown`] lets requests end first.
pub struct RouterHandle {
    core: Arc<Core>,
    address: SocketAddr,
    beside: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    /// One for each connection.
    permits: Arc<Semaphore>,
    connections_max: u32,
    tasks: Vec<JoinHandle<()>>,
    left: AtomicBool,
}

impl std::fmt::Debug for RouterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterHandle").field("id", &self.core.id).field("address", &self.address).finish()
    }
}

impl RouterHandle {
    /// Where it listens; the port is the real one if port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the port for proxies is, if there is one.
    #[must_use]
    pub fn beside_address(&self) -> Option<SocketAddr> {
        self.beside
    }

    /// Answers what is asked beside the requests themselves: `/v1/wake`, `/v1/page`, `/v1/route`, `/v1/traefik`,
    /// `/v1/caddy`, `/v1/services/NAME/{health,badge.svg,wakes}`, and Sablier's API. `client` is who asks, which must
    /// be this machine or a proxy of one's own. May wait as long as a service's `hold.timeout`; safe to cancel.
    pub fn beside(
        &self,
        asked: Request<()>,
        client: IpAddr,
    ) -> impl Future<Output = Response<BesideBody>> + Send + use<> {
        let (core, asked) = (Arc::clone(&self.core), asked.into_parts().0);
        Box::pin(beside::answer(core, client, asked, Scope::All, self.phase.subscribe()))
    }

    /// Puts a table in use: when this returns, no new request goes to an instance that the table lacks, and held
    /// requests that the table has instances for are on their way. A table older than the last is ignored. May be
    /// called from any thread.
    pub fn publish(&self, table: &RouteTable) {
        table::publish(&self.core, table);
    }

    /// Counters since the start, and gauges of now.
    #[must_use]
    pub fn stats(&self) -> RouterStats {
        let totals = &self.core.totals;
        RouterStats {
            generation: self.core.table.load().generation,
            connections: self.connections_max.saturating_sub(self.permits.available_permits() as u32),
            connections_total: totals.connections.load(Ordering::Relaxed),
            unknown: totals.unknown.load(Ordering::Relaxed),
            malformed: totals.malformed.load(Ordering::Relaxed),
            lost: totals.lost.load(Ordering::Relaxed),
            held: self.core.lobby.by_class(),
            services: table::stats(&self.core),
            cache: self.core.cache.get().map(|cache| cache.stats()),
        }
    }

    /// Who woke a service, and who has been there lately; `None` for a service that the table lacks.
    #[must_use]
    pub fn wakes(&self, service: &str) -> Option<Wakes> {
        self.core.table.load().named(service).map(|entry| entry.service.wakes())
    }

    /// Purges what the cache keeps, of one tenant or of all: it is not served again, and what is being fetched is not
    /// kept.
    ///
    /// # Errors
    /// What is to be purged is no URL or tag, or no service is of that tenant.
    pub fn purge(&self, purge: &Purge, tenant: Option<&str>) -> Result<(), PurgeError> {
        cached::purge(&self.core, purge, tenant)
    }

    /// Takes no new connections, and lets requests, held ones too, end for `drain`; what is left then is answered
    /// with 503 if it is held, and cut off otherwise. Tables may still be published meanwhile. At the end the engine
    /// has been told everything, `RouterLeft` last.
    pub async fn shutdown(&self, drain: Span) {
        /// For the answers to those who were held to the end, and for connections to notice that they are over.
        const LAST_WORDS: Duration = Duration::from_millis(500);
        self.enter(Phase::Draining);
        let all = || self.permits.acquire_many(self.connections_max);
        if tokio::time::timeout(drain.into(), all()).await.is_err() {
            for service in table::services(&self.core) {
                service.refuse_all(&self.core, self.core.now());
            }
            let _ = tokio::time::timeout(LAST_WORDS, all()).await;
            self.enter(Phase::Abort);
            let _ = tokio::time::timeout(LAST_WORDS, all()).await;
        }
        self.leave();
    }

    fn enter(&self, next: Phase) {
        self.phase.send_modify(|phase| *phase = next.max(*phase));
    }

    /// Ends the tasks and says goodbye, once.
    fn leave(&self) {
        if self.left.swap(true, Ordering::Relaxed) {
            return;
        }
        for task in &self.tasks {
            task.abort();
        }
        self.core.batch.flush(&self.core);
        self.core.up.control(Event::RouterLeft(self.core.id));
    }
}

impl Drop for RouterHandle {
    fn drop(&mut self) {
        self.enter(Phase::Abort);
        self.leave();
    }
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Requests,
    Beside,
}

async fn accept(
    core: Arc<Core>,
    listener: TcpListener,
    front: Front,
    permits: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
) {
    /// When the system has no room for another connection, some are about to end.
    const PAUSE: Duration = Duration::from_millis(20);
    let mut over = phase.clone();
    loop {
        let next = async {
            // Only to wait for room: no one else takes permits, but for the end, which wants them all.
            drop(permits.acquire().await);
            listener.accept().await
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = over.wait_for(|phase| *phase > Phase::Serving) => return,
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { return };
        match accepted {
            Ok((stream, peer)) => {
                core.totals.connections.fetch_add(1, Ordering::Relaxed);
                let stream = Arc::new(stream);
                let client = Client { address: peer.ip(), stream, _permit: Arc::new(permit) };
                tokio::spawn(connection(Arc::clone(&core), front, client, phase.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(core: Arc<Core>, front: Front, client: Client, mut phase: watch::Receiver<Phase>) {
    set_options(&client.stream);
    let limits = &core.limits;
    let twice = Arc::new(AtomicU64::new(0));
    let stall = limits.stall_timeout.into();
    let io = TokioIo::new(ClientIo::new(Arc::clone(&client.stream), Arc::clone(&twice), stall));
    let service = {
        let (core, phase) = (Arc::clone(&core), phase.clone());
        let requests = AtomicU64::new(0);
        service_fn(move |request| {
            let (core, client, phase) = (Arc::clone(&core), client.clone(), phase.clone());
            let number = 1 + requests.fetch_add(1, Ordering::Relaxed);
            let is_twice = number == twice.load(Ordering::Relaxed);
            async move {
                Ok::<_, Infallible>(match front {
                    _ if is_twice => door::framed_twice(&core, request),
                    Front::Requests => door::serve(core, client, phase, request).await,
                    Front::Beside => {
                        let asked = request.into_parts().0;
                        beside::serve(core, client, asked, phase).await.map(ReplyBody::Beside)
                    }
                })
            }
        })
    };
    let mut served = Box::pin(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Some(limits.head_timeout.into()))
            .max_buf_size(limits.head_bytes_max)
            .serve_connection(io, service)
            .with_upgrades(),
    );
    let mut draining = false;
    loop {
        let current = *phase.borrow_and_update();
        match current {
            Phase::Serving => {}
            Phase::Draining if draining => {}
            Phase::Draining => {
                draining = true;
                served.as_mut().graceful_shutdown();
            }
            Phase::Abort => return,
        }
        tokio::select! {
            result = served.as_mut() => {
                note(&core, result.err());
                return;
            }
            changed = phase.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn set_options(stream: &TcpStream) {
    /// A client whose machine has gone is noticed after some minutes, also by a tunnel that sends nothing.
    const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    let set =
        stream.set_nodelay(true).and_then(|()| socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set a connection's options");
    }
}

fn note(core: &Core, error: Option<hyper::Error>) {
    let Some(error) = error else { return };
    if error.is_parse() {
        core.totals.malformed.fetch_add(1, Ordering::Relaxed);
    }
    tracing::debug!(%error, "a client's connection ended");
}

/// Closes connections to instances that have been idle for too long.
async fn sweep(core: Arc<Core>) {
    let idle_timeout = core.limits.idle_timeout;
    let every = Duration::from(idle_timeout).clamp(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        tokio::time::sleep(every).await;
        for service in table::services(&core) {
            for pool in service.pools() {
                pool.sweep(idle_timeout);
            }
        }
    }
}
