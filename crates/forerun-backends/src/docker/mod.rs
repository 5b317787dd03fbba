//! Instances as containers of a Docker or Podman engine.
//!
//! One thread with a runtime of its own follows the engine and every instance, whatever their number. The engine may
//! be away, or hang: orders wait for it within their own deadlines, and when it is back everything is looked at anew.
//!
//! A service's own container is a person's: it is started, stopped, paused, and never changed or removed. What
//! Forerun makes carries the installation's id; only that is ever removed, and nothing of another installation.
//! Instances outlive Forerun: the next life finds them and they are adopted.

mod address;
mod books;
mod bring;
mod change;
mod clone;
mod discover;
mod end;
mod engine;
mod found;
mod host;
mod image;
mod import;
mod keeper;
mod labelled;
mod life;
mod link;
mod make;
mod owner;
mod ready;
mod stops;
mod usage;
mod watch;

pub use discover::{Discovered, discover};
pub use engine::EngineError;
pub use host::TlsFiles;
pub use import::{import, remove_image, remove_leftovers};
pub use labelled::{ENABLE, Labelled};
pub use watch::LabelSink;

use crate::ledger::{Ledger, StartVerdict, StopVerdict};
use crate::{Backend, Capabilities, OrderError, SetupError, Sink, StartOrder, StopOrder};
use forerun_types::{Event, Generation, InstanceId, ServiceSpec, Span};
use host::Place;
use keeper::{Keeper, Message};
use life::Change;
use owner::Owner;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use watch::Labels;

/// How long dropping a backend waits for what it still has to do.
const CLOSING: Duration = Duration::from_secs(20);
/// Threads for what blocks: hooks and busy probes.
const BLOCKING_MAX: usize = 16;

/// How a [`DockerBackend`] works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSettings {
    /// The name by which services ask for it: `docker`, or a site's.
    pub name: String,
    /// `unix:///path/to/docker.sock` or `tcp://host:port`. Without one, `DOCKER_HOST` says, else the first of Docker's
    /// and Podman's sockets that is there.
    pub host: Option<String>,
    /// For `tcp://`. Without them `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` say.
    pub tls: Option<TlsFiles>,
    /// Where the installation's id is kept. Without one, nobody could know its containers again, and dropping the
    /// backend removes what it made. Several backends of one Forerun share it.
    pub state_folder: Option<PathBuf>,
    /// How many instances may exist at once; a start beyond it fails.
    pub instances_max: usize,
    /// Containers that Forerun makes get their service's `resources` as limits.
    pub limit: bool,
    /// How often memory, CPU and traffic are reported.
    pub usage_every: Span,
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self {
            name: "docker".to_owned(),
            host: None,
            tls: None,
            state_folder: None,
            // An engine's default networks have room for a thousand containers each.
            instances_max: 1_024,
            limit: false,
            usage_every: Span::from_secs(1),
        }
    }
}

/// Runs instances as containers. Dropping it leaves them as they are, for the next life to find.
pub struct DockerBackend {
    name: &'static str,
    ledger: Arc<Mutex<Ledger>>,
    inbox: mpsc::UnboundedSender<Message>,
    keeper: Option<JoinHandle<()>>,
    limit: bool,
    kept: bool,
    pulls: image::Pulls,
}

impl DockerBackend {
    /// Starts the thread. The engine need not be there yet: it is waited for, and orders with it.
    ///
    /// # Errors
    /// If the address is none, the state folder cannot be used or is in use, or the system has no room.
    pub fn start(settings: DockerSettings, sink: Sink) -> Result<Self, SetupError> {
        let place = match Place::find(settings.host.as_deref(), settings.tls.as_ref()) {
            Ok(place) => Some(place),
            Err(EngineError::NoSocket { .. }) => None,
            Err(error) => return Err(SetupError::Engine { why: error.to_string() }),
        };
        let owner = Owner::of(settings.state_folder.as_deref(), &settings.name)?;
        let (name, limit, kept) = (interned(&settings.name), settings.limit, owner.is_kept());
        let ledger = Arc::new(Mutex::new(Ledger::new(settings.instances_max)));
        let (inbox, messages) = mpsc::unbounded_channel();
        let system = |what| move |source| SetupError::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_MAX)
            .thread_name("forerun-docker-hook")
            .build()
            .map_err(system("docker backend's runtime"))?;
        let (books, pulls) = (Arc::clone(&ledger), image::Pulls::default());
        let told = Arc::clone(&pulls);
        let run = move || {
            let tasks = tokio::task::LocalSet::new();
            let keeper = Keeper::new(settings, sink, books, owner, told);
            tasks.block_on(&runtime, keeper.run(place, messages));
            drop(tasks);
            // A hook that hangs must not keep Forerun from ending.
            runtime.shutdown_background();
        };
        let keeper = thread::Builder::new().name("forerun-docker".to_owned()).spawn(run);
        let keeper = keeper.map_err(system("docker backend's thread"))?;
        Ok(Self { name, ledger, inbox, keeper: Some(keeper), limit, kept, pulls })
    }

    /// From now on tells the sink of the labelled containers: at once, and each time that something is new.
    pub fn watch(&self, sink: LabelSink) {
        // Without a thread there is nothing to tell.
        let _ = self.inbox.send(Message::Watch { labels: Labels { sink, told: None } });
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, message: Message) -> Result<(), OrderError> {
        self.inbox.send(message).map_err(|_| OrderError::Ended { backend: self.name })
    }

    fn change(&self, instance: InstanceId, generation: Generation, change: Change) -> Result<(), OrderError> {
        let mut ledger = self.ledger();
        let obeyed = ledger.change(instance, generation)?;
        match obeyed {
            true => self.tell(Message::Change { instance, change }),
            false => self.tell(Message::Refuse { event: change.unmet(instance) }),
        }
    }
}

/// A backend's name lives as long as the process: there are as many as engines in the configuration.
fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(name);
    name
}

impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { pause: true, specialise: true, adopt: true, usage: true, limits: self.limit }
    }

    fn start(&self, order: StartOrder) -> Result<(), OrderError> {
        // Orders enter the queue under the lock, so that a stop cannot overtake its start.
        let mut ledger = self.ledger();
        let instance = order.instance;
        let refuse =
            |why: &str| Message::Refuse { event: Event::StartFailed { instance, why: why.to_owned() } };
        let message = match ledger.start(instance, order.generation)? {
            StartVerdict::Start => Message::Start { instance, spec: order.spec, ordered: Instant::now() },
            StartVerdict::Nothing => return Ok(()),
            StartVerdict::Full => refuse("as many instances exist as the docker backend may have"),
            StartVerdict::ShuttingDown => refuse("the docker backend is shutting down"),
        };
        self.tell(message)
    }

    fn stop(&self, order: StopOrder) -> Result<(), OrderError> {
        let mut ledger = self.ledger();
        let instance = order.instance;
        match ledger.stop(instance, order.generation)? {
            StopVerdict::Stop => self.tell(Message::Stop { instance, grace: order.grace.into() }),
            StopVerdict::Unknown => self.tell(Message::Refuse { event: Event::Stopped { instance } }),
            StopVerdict::Nothing => Ok(()),
        }
    }

    fn pause(&self, instance: InstanceId, generation: Generation) -> Result<(), OrderError> {
        self.change(instance, generation, Change::Pause)
    }

    fn resume(&self, instance: InstanceId, generation: Generation) -> Result<(), OrderError> {
        self.change(instance, generation, Change::Resume)
    }

    fn specialise(&self, order: StartOrder) -> Result<(), OrderError> {
        self.change(order.instance, order.generation, Change::Specialise(order.spec))
    }

    fn adopt(&self, order: StartOrder, handle: &str) -> Result<(), OrderError> {
        let mut ledger = self.ledger();
        let instance = order.instance;
        let refuse = |why: &str| Message::Refuse { event: Event::Died { instance, why: why.to_owned() } };
        let message = match ledger.start(instance, order.generation)? {
            StartVerdict::Start => Message::Adopt { instance, spec: order.spec, handle: handle.to_owned() },
            StartVerdict::Nothing => return Ok(()),
            StartVerdict::Full => refuse("as many instances exist as the docker backend may have"),
            StartVerdict::ShuttingDown => refuse("the docker backend is shutting down"),
        };
        self.tell(message)
    }

    fn ask_busy(&self, order: StartOrder) -> Result<(), OrderError> {
        self.change(order.instance, order.generation, Change::AskBusy(order.spec))
    }

    fn know(&self, services: &[Arc<ServiceSpec>]) {
        // Without a thread there is nothing that could be found.
        let _ = self.inbox.send(Message::Know { services: services.to_vec() });
    }

    fn at_work(&self) -> Vec<String> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn running(&self) -> Vec<InstanceId> {
        self.ledger().running()
    }

    fn shutdown(&self, grace: Span) {
        let mut ledger = self.ledger();
        ledger.shutdown();
        // Where the thread has ended, so has everything that it kept.
        let _ = self.inbox.send(Message::ShutDown { grace: grace.into() });
    }
}

impl Drop for DockerBackend {
    fn drop(&mut self) {
        if !self.kept {
            self.shutdown(Span::ZERO);
        }
        let _ = self.inbox.send(Message::Close { until: Instant::now() + CLOSING });
        if let Some(keeper) = self.keeper.take()
            // The last owner may be the sink, on the keeper's own thread.
            && keeper.thread().id() != thread::current().id()
        {
            let _ = keeper.join();
        }
    }
}

impl fmt::Debug for DockerBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerBackend").field("running", &self.running()).finish_non_exhaustive()
    }
}
