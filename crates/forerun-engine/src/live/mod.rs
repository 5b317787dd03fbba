//! The live world: real clock, files, processes and sockets around the shell.
//!
//! One thread drives the shell; everything that happens reaches it through one inbox. The router and the API run on
//! the caller's tokio runtime, backends and the journal's disk on threads of their own.

mod clock;
mod control;
mod describe;
mod disk;
mod hands;
mod keys;
mod publish;
mod source;
mod state;
mod wire;

pub use describe::Describer;
pub use publish::Published;
pub use source::ApiSource;
pub use state::{StateError, StateFolder};

use crate::revive::{first_events, policy_name, restored, sizes};
use crate::shell::{JournalSettings, Ports, Shell};
use clock::LiveClock;
use describe::Problems;
use disk::LiveDisk;
use forerun_api::Metrics;
use forerun_backends::{Backend, SetupError, Sink};
use forerun_core::{AnyPolicy, Core};
use forerun_router::{
    Listen, Router, RouterError, RouterHandle, RouterLimits, RouterSettings, RouterStats, Up, UpReceiver,
};
use forerun_types::{Event, RouterId, ServiceId, ServiceSpec, SiteSpec, Span, Time};
use hands::{LiveBackends, LiveRouters};
use publish::Publisher;
use source::Observer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Learning batches that may wait for the engine: at one per 20 ms and router, 20 s of being behind.
const LEARNING_MAX: usize = 1_024;
/// Events that are handled between two looks at the clock.
const EVENTS_AT_ONCE: usize = 1_024;
/// The longest sleep: time zones and the published view are looked at in between.
const SLEEP_MAX: Span = Span::from_millis(200);
const ZONES_EVERY: Span = Span::from_secs(30);
/// Services whose time zones are looked at between two events.
const ZONES_AT_ONCE: usize = 64;
/// Segments are a sixteenth of the journal's budget, within these.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(64 << 20);
/// How much longer than its services' drain times a shutdown may take.
const SHUTDOWN_SPARE: Duration = Duration::from_secs(5);

/// Seconds by which a service's local time is ahead of UTC.
pub type OffsetSeconds = Arc<dyn Fn(&str, Time) -> i32 + Send + Sync>;

/// Makes the backends, given where outcomes go and a folder for what they must remember.
pub type MakeBackends = Box<dyn FnOnce(Sink, &Path) -> Result<Vec<Arc<dyn Backend>>, SetupError> + Send>;

/// All that an engine is told.
pub struct Settings {
    /// `forerun`, `forerun-no-users`, `none`, or `keep-alive` with its time.
    pub policy: String,
    pub keep: Option<Span>,
    pub learning_bytes_max: u64,
    pub services: Vec<Arc<ServiceSpec>>,
    /// Whether services that an earlier life found by themselves, and that `services` does not have, are kept: nobody
    /// could be asked whether they are still there.
    pub keep_found: bool,
    /// The first one first.
    pub sites: Vec<SiteSpec>,
    /// What a core costs, as thousandths of a GB of memory over the same time; `None` leaves it as it was.
    pub core_milli_gb: Option<u64>,
    pub offset_seconds: OffsetSeconds,
    pub state_folder: PathBuf,
    pub flush_interval: Span,
    pub journal_bytes_max: u64,
    pub listen: Listen,
    pub router_limits: RouterLimits,
    /// A second port of the router, for proxies that ask before they send a request past it.
    pub beside: Option<SocketAddr>,
    pub backends: MakeBackends,
    /// What was learned elsewhere, to begin with instead of nothing.
    pub learned: Option<Core<AnyPolicy>>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("policy", &self.policy)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "no policy is called `{0}`; there are forerun, forerun-no-users, none, and keep-alive with a time"
    )]
    Policy(String),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Backend(#[from] SetupError),
    #[error(transparent)]
    Router(#[from] RouterError),
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// A running engine.
pub struct Engine {
    router: Arc<RouterHandle>,
    metrics: Arc<Metrics>,
    up: Arc<dyn Up>,
    published: Published,
    backends: Vec<Arc<dyn Backend>>,
    thread: JoinHandle<()>,
    /// Microseconds: the longest drain time of any service so far.
    drain_max: Arc<AtomicU64>,
    problems: Problems,
    // Dropped last: nobody else may use the folder while anything still runs.
    state: StateFolder,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("router", &self.router.address()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Restores what was learned, starts backends, router and the loop. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; what had been started by then has ended again.
    pub async fn start(settings: Settings) -> Result<Engine, StartError> {
        let state = StateFolder::open(&settings.state_folder)?;
        let fresh = AnyPolicy::named(&settings.policy, settings.keep, settings.learning_bytes_max)
            .ok_or_else(|| StartError::Policy(settings.policy.clone()))?;
        let name = policy_name(&settings.policy, settings.keep);
        let (mut core, began_after, last_segment) = restored(&state.journal, &name, settings.learned, fresh);
        if let Some(price) = settings.core_milli_gb {
            core.policy_mut().set_core_price(price);
        }
        core.forecast_loads();
        let clock = LiveClock::new(began_after);
        let (up, inbox) = forerun_router::channel(LEARNING_MAX);
        let sink: Sink = {
            let up = Arc::clone(&up);
            Arc::new(move |event| up.control(event))
        };
        let backends = (settings.backends)(Arc::clone(&sink), &state.backends)?;
        let now = {
            let clock = clock.clone();
            Arc::new(move || clock.now())
        };
        let mut router = RouterSettings::new(RouterId(0), settings.listen, state.secret, now);
        router.limits = settings.router_limits;
        router.beside = settings.beside.map(Listen::from);
        let router = Arc::new(Router::start(router, Arc::clone(&up))?);
        let disk = LiveDisk::start(&state.journal).map_err(StartError::Thread)?;
        let by_name: BTreeMap<&'static str, Arc<dyn Backend>> =
            backends.iter().map(|b| (b.name(), Arc::clone(b))).collect();
        let ports = Ports {
            clock,
            disk,
            backends: LiveBackends { by_name, sink, owners: BTreeMap::new() },
            routers: LiveRouters { router: Arc::clone(&router) },
        };
        let segment_bytes_max =
            (settings.journal_bytes_max / 16).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        let journal = JournalSettings {
            policy: name,
            first_segment: last_segment + 1,
            existing: sizes(&state.journal),
            segment_bytes_max,
            bytes_max: settings.journal_bytes_max.max(segment_bytes_max * 2),
            flush_interval: settings.flush_interval,
        };
        let drain_max = settings.services.iter().map(|s| s.drain_timeout).max().unwrap_or_default();
        let mut services = settings.services;
        if settings.keep_found {
            let new = |s: &&Arc<ServiceSpec>| s.found && services.iter().all(|known| known.name != s.name);
            let kept: Vec<Arc<ServiceSpec>> = core.specs().filter(new).map(Arc::clone).collect();
            services.extend(kept);
        }
        let first_site = settings.sites.first().map_or(String::new(), |site| site.name.clone());
        let first = first_events(&core, &services, settings.sites);
        let shell = Shell::new(core, ports, journal);
        let (publisher, published) = publish::channel();
        let metrics = Arc::new(Metrics::new());
        let observer = Observer::new(Arc::clone(&metrics), &first_site);
        let offsets = Offsets {
            offset_seconds: settings.offset_seconds,
            told: BTreeMap::new(),
            next: Time::default(),
            from: None,
        };
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || drive(shell, &inbox, first, publisher, offsets, observer))
            .map_err(StartError::Thread)?;
        // Whoever is told that it runs may ask at once.
        while published.with(|view| view.is_none()) && !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (problems, drain_max) = (Problems::default(), Arc::new(AtomicU64::new(drain_max.0)));
        Ok(Engine { router, metrics, up, published, backends, thread, drain_max, problems, state })
    }

    /// Where the router listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.router.address()
    }

    /// Where the router's port for proxies is, if there is one.
    #[must_use]
    pub fn beside_address(&self) -> Option<SocketAddr> {
        self.router.beside_address()
    }

    #[must_use]
    pub fn router_stats(&self) -> RouterStats {
        self.router.stats()
    }

    /// The core's view, renewed a few times a second.
    #[must_use]
    pub fn published(&self) -> Published {
        self.published.clone()
    }

    /// Tells the core something, as a person or an importer may.
    pub fn tell(&self, event: Event) {
        self.up.control(event);
    }

    /// What services are described through while it runs.
    #[must_use]
    pub fn describer(&self) -> Describer {
        Describer::new(
            Arc::clone(&self.up),
            self.published.clone(),
            self.problems.clone(),
            Arc::clone(&self.drain_max),
        )
    }

    /// What the API serves.
    #[must_use]
    pub fn api_source(&self) -> ApiSource {
        ApiSource::new(
            Arc::clone(&self.router),
            self.published.clone(),
            Arc::clone(&self.metrics),
            Arc::clone(&self.up),
            self.problems.clone(),
            self.backends.iter().map(Arc::downgrade).collect(),
        )
    }

    #[must_use]
    pub fn state_folder(&self) -> &Path {
        &self.state.root
    }

    /// Takes no more requests, lets those in flight finish within their drain times, stops every instance, and
    /// writes the journal out. Returns whether all of that was done in time.
    pub async fn shutdown(self) -> bool {
        let drain_max = Span(self.drain_max.load(Ordering::Relaxed));
        self.router.shutdown(drain_max).await;
        self.up.control(Event::ShutDown);
        let until = Instant::now() + Duration::from(drain_max) + SHUTDOWN_SPARE;
        while !self.thread.is_finished() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let in_time = self.thread.is_finished();
        // What outlives Forerun goes on; the next life takes it over.
        for backend in self.backends.iter().filter(|b| !b.capabilities().adopt) {
            backend.shutdown(Span::ZERO);
        }
        drop(self.backends);
        in_time
    }
}

/// Local times, looked at a few services at a time.
struct Offsets {
    offset_seconds: OffsetSeconds,
    told: BTreeMap<ServiceId, i32>,
    /// When the next round begins.
    next: Time,
    /// Where the round that is under way goes on.
    from: Option<ServiceId>,
}

type LiveShell = Shell<LiveClock, LiveDisk, LiveBackends, LiveRouters>;

impl Offsets {
    /// Tells the core of local times that have changed.
    /// Whether there are more to be looked at now.
    fn tell(&mut self, shell: &mut LiveShell) -> bool {
        let first = match self.from.take() {
            Some(first) => first,
            None if shell.now() < self.next => return false,
            None => {
                self.next = shell.now() + ZONES_EVERY;
                ServiceId(0)
            }
        };
        let some: Vec<Arc<ServiceSpec>> =
            shell.core().specs_from(first).take(ZONES_AT_ONCE).map(Arc::clone).collect();
        self.from = some.last().map(|spec| ServiceId(spec.id.0 + 1));
        for spec in some {
            let (service, seconds) = (spec.id, (self.offset_seconds)(&spec.name, shell.now()));
            if self.told.insert(service, seconds) != Some(seconds) {
                shell.handle(&Event::ZoneOffset { service, seconds });
            }
        }
        self.from.is_some()
    }
}

/// The loop: until everything has stopped.
fn drive(
    mut shell: LiveShell,
    inbox: &UpReceiver,
    first: Vec<Event>,
    mut publisher: Publisher,
    mut offsets: Offsets,
    mut observer: Observer,
) {
    for event in &first {
        if let Event::Service(spec) = event {
            observer.service(spec);
        }
    }
    shell.begin(&first);
    let mut handle = |shell: &mut LiveShell, event: &Event| {
        if let Event::Service(spec) = event {
            observer.service(spec);
        }
        let (meter, core) = (shell.meter(), shell.core());
        observer.event(event, |instance| meter.service_of(instance), |service| core.elder_of(service));
        shell.handle(event);
    };
    while !shell.finished() {
        let more = publisher.noted(|publisher| {
            shell.pass();
            offsets.tell(&mut shell) | publisher.publish(&shell)
        });
        let wake = shell.next_wake().since(shell.now()).0.min(SLEEP_MAX.0);
        let patience = if more { Span::ZERO } else { Span(wake) };
        let Some(mut event) = inbox.recv_timeout(patience.into()) else { continue };
        for _ in 0..EVENTS_AT_ONCE {
            publisher.noted(|_| {
                let event = control::in_its_terms(shell.core(), event);
                handle(&mut shell, &event);
            });
            let Some(next) = inbox.try_recv() else { break };
            event = next;
        }
    }
    shell.flush();
    publisher.publish_now(&shell);
}
