//! The thread that keeps all containers: takes orders, and holds what the tasks share.

use super::DockerSettings;
use super::books::{Books, Run};
use super::engine::EngineError;
use super::host::Place;
use super::image::{Images, Pulls};
use super::life::{Change, Life};
use super::link::Link;
use super::make::Manner;
use super::owner::Owner;
use super::stops::Stops;
use super::watch::Labels;
use super::{usage, watch};
use crate::Sink;
use crate::ledger::Ledger;
use forerun_types::{Event, InstanceId, Launch, Mode, ServiceSpec};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, mpsc, watch as cell};
use tokio::time::sleep;

/// Pauses, resumes and the like that may wait for one instance.
const CHANGES_MAX: usize = 16;
/// How long a removal of what was made is tried; the next look at the engine tries again.
const REMOVAL: Duration = Duration::from_secs(60);

/// What reaches the thread. Bounded by the ledger: an instance has one start and one stop, and changes that are not
/// taken up are answered.
pub(super) enum Message {
    Start { instance: InstanceId, spec: Arc<ServiceSpec>, ordered: Instant },
    Adopt { instance: InstanceId, spec: Arc<ServiceSpec>, handle: String },
    Refuse { event: Event },
    Stop { instance: InstanceId, grace: Duration },
    Change { instance: InstanceId, change: Change },
    Know { services: Vec<Arc<ServiceSpec>> },
    Watch { labels: Labels },
    ShutDown { grace: Duration },
    Close { until: Instant },
}

pub(super) struct Keeper {
    pub(super) settings: DockerSettings,
    sink: Sink,
    ledger: Arc<Mutex<Ledger>>,
    pub(super) owner: Owner,
    pub(super) link: Link,
    pub(super) books: RefCell<Books>,
    pub(super) images: Rc<Images>,
    pub(super) stops: RefCell<Stops>,
    /// Turns at what makes the engine work hard: more at once only makes each slower.
    pub(super) turns: Arc<Semaphore>,
    pub(super) labels: RefCell<Option<Labels>>,
    /// Everything is to be looked at anew.
    pub(super) look: Notify,
    /// Containers that are being removed: an event and a look may find the same one.
    removals: RefCell<HashSet<String>>,
}

impl Keeper {
    pub(super) fn new(
        settings: DockerSettings,
        sink: Sink,
        ledger: Arc<Mutex<Ledger>>,
        owner: Owner,
        pulls: Pulls,
    ) -> Rc<Self> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let host = settings.host.clone().unwrap_or_default();
        let stops = Stops::of(settings.state_folder.as_deref(), &settings.name);
        let not_yet = EngineError::Unreachable { host, why: "not connected yet".to_owned() };
        Rc::new(Self {
            settings,
            sink,
            ledger,
            owner,
            link: Link::new(not_yet),
            books: RefCell::default(),
            images: Rc::new(Images::new(pulls)),
            stops: RefCell::new(stops),
            turns: Arc::new(Semaphore::new((2 * cores).clamp(4, 16))),
            labels: RefCell::default(),
            look: Notify::new(),
            removals: RefCell::default(),
        })
    }

    /// Runs until it is told to close.
    pub(super) async fn run(
        self: Rc<Self>,
        place: Option<Place>,
        mut inbox: mpsc::UnboundedReceiver<Message>,
    ) {
        tokio::task::spawn_local(watch::follow(Rc::clone(&self), place));
        tokio::task::spawn_local(usage::watch(Rc::clone(&self)));
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Start { instance, spec, ordered } => {
                    self.begin(instance, &spec, |life| life.start(ordered));
                }
                Message::Adopt { instance, spec, handle } => {
                    self.begin(instance, &spec, |life| life.adopt(handle));
                }
                Message::Refuse { event } => self.tell(event),
                Message::Stop { instance, grace } => self.stop(instance, grace),
                Message::Change { instance, change } => self.change(instance, change),
                Message::Know { services } => self.know(services),
                Message::Watch { labels } => {
                    *self.labels.borrow_mut() = Some(labels);
                    self.look.notify_one();
                }
                Message::ShutDown { grace } => {
                    let instances: Vec<_> = self.books.borrow().runs.keys().copied().collect();
                    instances.into_iter().for_each(|instance| self.stop(instance, grace));
                }
                Message::Close { until } => return self.close(until).await,
            }
        }
    }

    fn begin<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        instance: InstanceId,
        spec: &Arc<ServiceSpec>,
        live: impl FnOnce(Life) -> F,
    ) {
        let (stop, stopped) = cell::channel(None);
        let (changes, asked) = mpsc::channel(CHANGES_MAX);
        let look = Rc::new(Notify::new());
        let life = Life {
            keeper: Rc::clone(self),
            instance,
            spec: Arc::clone(spec),
            stop: stopped,
            look: Rc::clone(&look),
            changes: asked,
            seen_over: self.link.number(),
        };
        let run = Run { stop, look, changes, spec: Arc::clone(spec), container: None, counts: false };
        self.books.borrow_mut().runs.insert(instance, run);
        tokio::task::spawn_local(live(life));
    }

    /// A later stop may only hasten.
    fn stop(&self, instance: InstanceId, grace: Duration) {
        let books = self.books.borrow();
        let Some(run) = books.runs.get(&instance) else { return };
        run.stop.send_if_modified(|asked| {
            let sooner = asked.is_none_or(|earlier| grace < earlier);
            if sooner {
                *asked = Some(grace);
            }
            sooner
        });
    }

    fn change(&self, instance: InstanceId, change: Change) {
        let refused = match self.books.borrow().runs.get(&instance) {
            None => Some(change.unmet(instance)),
            Some(run) => {
                let full = run.changes.try_send(change).err();
                full.map(|full| full.into_inner().refused(instance, "too much was asked of it at once"))
            }
        };
        if let Some(event) = refused {
            self.tell(event);
        }
    }

    fn know(&self, services: Vec<Arc<ServiceSpec>>) {
        let mut books = self.books.borrow_mut();
        books.known_since.get_or_insert_with(Instant::now);
        books.services = services.into_iter().map(|spec| (spec.id, spec)).collect();
        let Books { services, own_state, .. } = &mut *books;
        own_state.retain(|service, _| services.contains_key(service));
        drop(books);
        self.look.notify_one();
    }

    /// Images of services that Forerun may start are fetched before anybody waits for them.
    pub(super) fn fetch_images(&self, engine: &super::engine::Engine, present: &HashMap<String, bool>) {
        for (image, there) in present {
            if !there {
                drop(self.images.pull(engine, image));
            }
        }
    }

    /// The images that services are made from, and may be.
    pub(super) fn wanted_images(&self) -> Vec<String> {
        let books = self.books.borrow();
        let images = books.services.values().filter(|spec| spec.mode == Mode::Act).filter_map(|spec| {
            match &spec.launch {
                Launch::Container(container) if container.own.is_none() => Some(container.image.clone()),
                _ => None,
            }
        });
        let mut images: Vec<String> = images.filter(|image| !image.is_empty()).collect();
        images.sort();
        images.dedup();
        images
    }

    pub(super) fn manner(&self, engine: &super::engine::Engine) -> Manner {
        Manner { limit: self.settings.limit, publish: engine.place.machine().is_some() }
    }

    pub(super) fn tell(&self, event: Event) {
        (self.sink)(event);
    }

    /// Tells how an instance ended. From here on there is none.
    pub(super) fn finish(&self, instance: InstanceId, event: Event) {
        self.books.borrow_mut().end(instance);
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).end(instance);
        self.tell(event);
    }

    /// Removes a container that Forerun made, without anybody waiting for it.
    pub(super) fn remove(self: &Rc<Self>, id: String) {
        if !self.removals.borrow_mut().insert(id.clone()) {
            return;
        }
        let keeper = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let until = Instant::now() + REMOVAL;
            let removed = keeper.link.insist(until, async |engine| engine.remove(&id).await).await;
            match removed {
                Ok(()) => {}
                // Somebody else was faster, or is at it.
                Err(error) if error.is_absent() || error.is_conflict() => {}
                Err(error) => tracing::warn!(container = id, %error, "cannot remove a container yet"),
            }
            keeper.removals.borrow_mut().remove(&id);
        });
    }

    async fn close(&self, until: Instant) {
        // Where somebody can know them again, containers stay as they are.
        let busy = || {
            !self.removals.borrow().is_empty()
                || (!self.owner.is_kept() && !self.books.borrow().runs.is_empty())
        };
        while busy() && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }
}
