//! The thread that keeps the books: which instances there are, what is found running, and when to ask.

use super::book::{Book, Known};
use super::leash::Leash;
use super::line::{self, State, Subject, lines};
use super::run::{self, Up};
use super::{ASK_WITHIN, CommandSettings};
use crate::Sink;
use crate::errands::Errands;
use crate::hooks::{self, BusyFound};
use crate::ledger::Ledger;
use crate::process::ports::{Fixed, Ports};
use forerun_types::{Busy, Event, InstanceId, ServiceId, ServiceSpec};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Instances that are brought up or down at a time; more wait their turn.
const LIVES_MAX: usize = 64;
/// Questions at a time: few, so that a hundred machines are not asked in one moment.
const ASKS_MAX: usize = 8;
/// A `no` is asked again so soon before it is believed.
const CONFIRM: Duration = Duration::from_millis(500);
/// Handles that are followed of one service.
const STRAYS_MAX: usize = 1_024;

/// What reaches the thread.
#[derive(Debug)]
pub(super) enum Message {
    Start { instance: InstanceId, spec: Arc<ServiceSpec>, ordered: Instant },
    Adopt { instance: InstanceId, spec: Arc<ServiceSpec>, handle: String },
    Refuse { instance: InstanceId, why: String },
    Stop { instance: InstanceId, grace: Duration },
    NeverWas { instance: InstanceId },
    AskBusy { instance: InstanceId, spec: Arc<ServiceSpec> },
    Know { services: Vec<Arc<ServiceSpec>> },
    ShutDown { grace: Duration },
    Close,
    CameUp { instance: InstanceId, up: Up },
    WentDown { instance: InstanceId, gone: bool },
    Asked { handle: String, state: Option<State>, address: Option<SocketAddr> },
    AskedBusy { instance: InstanceId, found: BusyFound },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting { ordered: Instant },
    Ready,
    Stopping,
}

#[derive(Debug)]
struct Life {
    subject: Subject,
    phase: Phase,
    leash: Arc<Leash>,
}

/// What is asked for its state now and then: an instance, or something of a known service that may run.
#[derive(Clone, Copy, Debug)]
struct Watch {
    next: Instant,
    /// A question is on its way.
    asking: bool,
    /// What it said last: `None` if it has never been heard.
    runs: Option<bool>,
    /// Said no once, and is asked again before that is believed.
    doubted: bool,
}

impl Watch {
    fn new(next: Instant) -> Self {
        Self { next, asking: false, runs: None, doubted: false }
    }
}

pub(super) struct Keeper {
    sink: Sink,
    ledger: Arc<Mutex<Ledger>>,
    sender: Sender<Message>,
    poll_every: Duration,
    book: Book,
    ports: Ports,
    services: BTreeMap<ServiceId, Arc<ServiceSpec>>,
    lives: BTreeMap<InstanceId, Life>,
    watches: BTreeMap<String, Watch>,
    bringing: Errands,
    asking: Errands,
}

impl Keeper {
    pub(super) fn new(
        settings: &CommandSettings,
        sink: Sink,
        ledger: Arc<Mutex<Ledger>>,
        sender: Sender<Message>,
        book: Book,
        ports: (u16, u16),
    ) -> Self {
        // A line is a process: a machine that does nothing but ask has nothing left.
        let poll_every = Duration::from(settings.poll_every).max(Duration::from_millis(50));
        Self {
            sink,
            ledger,
            sender,
            poll_every,
            book,
            ports: Ports::new(ports, crate::process::draw()),
            services: BTreeMap::new(),
            lives: BTreeMap::new(),
            watches: BTreeMap::new(),
            bringing: Errands::new("forerun-lines", LIVES_MAX),
            asking: Errands::new("forerun-asks", ASKS_MAX),
        }
    }

    pub(super) fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            let now = Instant::now();
            let next = self.watches.values().filter(|watch| !watch.asking).map(|watch| watch.next).min();
            // An hour, where nothing is due: the wait wants a number.
            let wait = next.map_or(Duration::from_secs(3600), |next| next.saturating_duration_since(now));
            match receiver.recv_timeout(wait) {
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.on_message(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.ask_all(Instant::now());
        }
        // What runs goes on, and lines that run do too: their work is not ours to cut in two.
        self.lives.values().for_each(|life| life.leash.let_be());
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Start { instance, spec, ordered } => self.start(instance, spec, ordered),
            Message::Adopt { instance, spec, handle } => self.adopt(instance, spec, &handle),
            Message::Refuse { instance, why } => (self.sink)(Event::StartFailed { instance, why }),
            Message::Stop { instance, grace } => self.stop(instance, grace),
            Message::NeverWas { instance } => (self.sink)(Event::Stopped { instance }),
            Message::AskBusy { instance, spec } => self.ask_busy(instance, spec),
            Message::Know { services } => self.know(services),
            Message::ShutDown { grace } => {
                let instances: Vec<InstanceId> = self.lives.keys().copied().collect();
                instances.into_iter().for_each(|instance| self.stop(instance, grace));
            }
            Message::CameUp { instance, up } => self.came_up(instance, up),
            Message::WentDown { instance, gone: true } => self.end(instance, Event::Stopped { instance }),
            Message::Asked { handle, state, address } => self.asked(&handle, state, address),
            Message::AskedBusy { instance, found } => {
                (self.sink)(Event::BusyAnswer { instance, busy: found.busy, why: found.why });
            }
            Message::WentDown { .. } | Message::Close => {}
        }
    }

    fn start(&mut self, instance: InstanceId, spec: Arc<ServiceSpec>, ordered: Instant) {
        let known = match self.known_for(instance, &spec) {
            Ok(known) => known,
            Err(why) => return self.end(instance, Event::StartFailed { instance, why }),
        };
        self.book.add(&known);
        let subject = Subject { spec, known };
        let leash = Arc::new(Leash::default());
        self.watches.remove(&subject.known.handle());
        let life =
            Life { subject: subject.clone(), phase: Phase::Starting { ordered }, leash: Arc::clone(&leash) };
        self.lives.insert(instance, life);
        let sender = self.sender.clone();
        let begun = self.bringing.run(move || {
            let up = run::up(&subject, ordered, &leash);
            // Whoever closed does not want to know.
            let _ = sender.send(Message::CameUp { instance, up });
        });
        if !begun {
            self.came_up(instance, Up::Failed(NO_ROOM.to_owned()));
        }
    }

    /// What an instance is started as.
    fn known_for(&mut self, instance: InstanceId, spec: &ServiceSpec) -> Result<Known, String> {
        let lines = lines(spec)?;
        let several = line::has_several(lines);
        if !several && self.lives.values().any(|life| life.subject.spec.id == spec.id) {
            return Err(
                "there is one already, and the service's lines name no {instance}: set `max = 1`, or use \
                        {instance} in them"
                    .to_owned(),
            );
        }
        let port = match (spec.port, line::wants_port(lines)) {
            (Some(port), true) => match self.ports.take_fixed(port) {
                Fixed::Taken => port,
                Fixed::Ours => return Err(format!("another instance has its port {port}")),
                Fixed::Foreign => return Err(format!("its port {port} is taken by another program")),
            },
            (None, true) => self.ports.take().ok_or("no free port was found for it")?,
            (Some(port), false) => port,
            (None, false) => line::port_of(&lines.address).unwrap_or(0),
        };
        let label = if several { instance.to_string() } else { String::new() };
        Ok(Known { service: spec.name.clone(), label, port })
    }

    /// What was told as found is this instance from now on.
    fn adopt(&mut self, instance: InstanceId, spec: Arc<ServiceSpec>, handle: &str) {
        let known = self.known(&spec).into_iter().find(|known| known.handle() == handle);
        let taken = self.lives.values().any(|life| life.subject.known.handle() == handle);
        let Some(known) = known.filter(|_| !taken) else {
            let why = "what was to be taken over is not there any more".to_owned();
            return self.end(instance, Event::Died { instance, why });
        };
        if line::wants_port_of(&spec) {
            // It is taken by what is taken over.
            self.ports.hold(known.port);
        }
        self.book.add(&known);
        self.watches.insert(handle.to_owned(), Watch { runs: Some(true), ..Watch::new(self.later()) });
        let subject = Subject { spec, known };
        self.lives.insert(instance, Life { subject, phase: Phase::Ready, leash: Arc::default() });
    }

    fn came_up(&mut self, instance: InstanceId, up: Up) {
        let later = self.later();
        let Some(life) = self.lives.get_mut(&instance) else { return };
        let Phase::Starting { ordered } = life.phase else { return };
        match up {
            Up::Ready(address) if life.leash.told().stop.is_none() => {
                life.phase = Phase::Ready;
                self.watches
                    .insert(life.subject.known.handle(), Watch { runs: Some(true), ..Watch::new(later) });
                (self.sink)(Event::Ready { instance, address, took: ordered.elapsed().into() });
            }
            // It was told to stop: what is there of it has to go.
            Up::Ready(_) | Up::Cut => self.bring_down(instance),
            Up::Failed(_) if life.leash.told().stop.is_some() => {
                self.end(instance, Event::Stopped { instance })
            }
            Up::Failed(why) => self.end(instance, Event::StartFailed { instance, why }),
        }
    }

    fn stop(&mut self, instance: InstanceId, grace: Duration) {
        let Some(life) = self.lives.get(&instance) else { return };
        life.leash.stop(Instant::now() + grace.min(Duration::from_secs(365 * 86_400)));
        if life.phase == Phase::Ready {
            self.bring_down(instance);
        }
    }

    fn bring_down(&mut self, instance: InstanceId) {
        let Some(life) = self.lives.get_mut(&instance) else { return };
        life.phase = Phase::Stopping;
        self.watches.remove(&life.subject.known.handle());
        let (subject, leash, sender) = (life.subject.clone(), Arc::clone(&life.leash), self.sender.clone());
        let begun = self.bringing.run(move || {
            let gone = run::down(&subject, &leash);
            let _ = sender.send(Message::WentDown { instance, gone });
        });
        if !begun {
            tracing::error!(%instance, "{NO_ROOM}: it is not stopped");
        }
    }

    /// An instance is no more: forgets it, then tells.
    fn end(&mut self, instance: InstanceId, event: Event) {
        if let Some(life) = self.lives.remove(&instance) {
            let known = &life.subject.known;
            self.watches.remove(&known.handle());
            if line::wants_port_of(&life.subject.spec) {
                self.ports.give_back(known.port);
            }
            self.book.remove(known);
            let follows = known.label.is_empty() && life.subject.says_state();
            if follows && self.services.contains_key(&life.subject.spec.id) {
                // It is down now: that it runs again would be somebody else's doing.
                let watch = Watch { runs: Some(false), ..Watch::new(self.later()) };
                self.watches.insert(known.handle(), watch);
            }
        }
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).end(instance);
        (self.sink)(event);
    }

    fn know(&mut self, services: Vec<Arc<ServiceSpec>>) {
        self.services = services.into_iter().map(|spec| (spec.id, spec)).collect();
        let now = Instant::now();
        let owned: Vec<String> = self.lives.values().map(|life| life.subject.known.handle()).collect();
        let mut wanted: Vec<String> = owned;
        for spec in self.services.values().cloned().collect::<Vec<_>>() {
            wanted.extend(self.known(&spec).iter().map(Known::handle));
        }
        self.watches.retain(|handle, _| wanted.contains(handle));
        for (id, spec) in self.services.clone() {
            let strays: Vec<Known> =
                self.known(&spec).into_iter().filter(|known| !self.is_owned(known)).collect();
            if strays.is_empty() && lines(&spec).is_ok() {
                // There is nothing that could run already.
                (self.sink)(Event::OwnState { service: id, there: true });
            }
            for known in strays {
                self.watches.entry(known.handle()).or_insert_with(|| Watch::new(now));
            }
        }
    }

    /// What there may be of a service: its one instance, or those that are in the book.
    fn known(&self, spec: &ServiceSpec) -> Vec<Known> {
        let Ok(lines) = lines(spec) else { return Vec::new() };
        if lines.state.trim().is_empty() {
            return Vec::new();
        }
        if line::has_several(lines) {
            let mut known = self.book.of_service(&spec.name);
            known.retain(|known| !known.label.is_empty());
            known.truncate(STRAYS_MAX);
            return known;
        }
        let port = spec.port.or_else(|| line::port_of(&lines.address));
        let booked = self.book.of_service(&spec.name).into_iter().find(|known| known.label.is_empty());
        let fresh = || Known { service: spec.name.clone(), label: String::new(), port: port.unwrap_or(0) };
        vec![booked.unwrap_or_else(fresh)]
    }

    fn is_owned(&self, known: &Known) -> bool {
        self.lives.values().any(|life| life.subject.known == *known)
    }

    fn later(&self) -> Instant {
        Instant::now() + self.poll_every
    }

    /// Whose this handle is.
    fn subject_of(&self, handle: &str) -> Option<Subject> {
        if let Some(life) = self.lives.values().find(|life| life.subject.known.handle() == handle) {
            return Some(life.subject.clone());
        }
        self.services.values().find_map(|spec| {
            let known = self.known(spec).into_iter().find(|known| known.handle() == handle)?;
            Some(Subject { spec: Arc::clone(spec), known })
        })
    }

    /// Asks all that are due, each once at a time.
    fn ask_all(&mut self, now: Instant) {
        let due: Vec<String> = self
            .watches
            .iter()
            .filter(|(_, watch)| !watch.asking && watch.next <= now)
            .map(|(handle, _)| handle.clone())
            .collect();
        for handle in due {
            let subject = self.subject_of(&handle);
            let later = self.later();
            let Some(watch) = self.watches.get_mut(&handle) else { continue };
            watch.next = later;
            let Some(subject) = subject else { continue };
            watch.asking = true;
            let sender = self.sender.clone();
            let to = handle.clone();
            let begun = self.asking.run(move || {
                let state = subject.state(ASK_WITHIN);
                let address = subject.address().ok();
                let _ = sender.send(Message::Asked { handle: to, state, address });
            });
            if !begun && let Some(watch) = self.watches.get_mut(&handle) {
                watch.asking = false;
            }
        }
    }

    fn asked(&mut self, handle: &str, state: Option<State>, address: Option<SocketAddr>) {
        let (later, soon) = (self.later(), Instant::now() + CONFIRM.min(self.poll_every));
        let Some(watch) = self.watches.get_mut(handle) else { return };
        watch.asking = false;
        watch.next = later;
        match state {
            Some(State::Runs(_)) => {
                watch.doubted = false;
                if watch.runs.replace(true) != Some(true) {
                    self.found(handle, address);
                }
            }
            None => {}
            Some(State::Unknown(why)) => tracing::debug!(handle, why, "a state line gave no answer"),
            Some(_) if watch.runs == Some(true) && !watch.doubted => {
                watch.doubted = true;
                watch.next = soon;
            }
            Some(state) => {
                let was = watch.runs.replace(false);
                watch.doubted = false;
                self.does_not_run(handle, state, was);
            }
        }
    }

    /// Something runs that no order of this life made.
    fn found(&mut self, handle: &str, address: Option<SocketAddr>) {
        let Some(subject) = self.subject_of(handle) else { return };
        if self.lives.values().any(|life| life.subject.known.handle() == handle) {
            return;
        }
        match address {
            Some(address) => (self.sink)(Event::Found {
                service: subject.spec.id,
                handle: handle.to_owned(),
                was: subject.known.was(),
                address,
                paused: false,
            }),
            // Looked up again with the next question.
            None => drop(self.watches.entry(handle.to_owned()).and_modify(|watch| watch.runs = None)),
        }
    }

    fn does_not_run(&mut self, handle: &str, state: State, was: Option<bool>) {
        let owner = self.lives.iter().find(|(_, life)| life.subject.known.handle() == handle);
        if let Some((instance, Life { phase: Phase::Ready, .. })) = owner {
            let instance = *instance;
            return self.end(
                instance,
                match state {
                    State::ByHand(why) => Event::StoppedByHand { instance, why },
                    State::Not(why) | State::Failed(why) | State::Unknown(why) | State::Runs(why) => {
                        Event::Died { instance, why }
                    }
                },
            );
        }
        let Some(subject) = self.subject_of(handle).filter(|_| owner.is_none()) else { return };
        if !subject.known.label.is_empty() {
            // One of several, of an earlier life: it is no more.
            self.book.remove(&subject.known);
            self.watches.remove(handle);
        }
        if was.is_none() {
            (self.sink)(Event::OwnState { service: subject.spec.id, there: true });
        }
    }

    fn ask_busy(&mut self, instance: InstanceId, spec: Arc<ServiceSpec>) {
        let told = |found: BusyFound| Event::BusyAnswer { instance, busy: found.busy, why: found.why };
        let Some(life) = self.lives.get(&instance).filter(|life| life.phase == Phase::Ready) else {
            return (self.sink)(told(BusyFound::free("it does not run")));
        };
        let Some(busy) = spec.busy.clone() else {
            return (self.sink)(told(BusyFound::free("the service has no `busy`")));
        };
        let (subject, sender) = (life.subject.clone(), self.sender.clone());
        let begun = self.asking.run(move || {
            let found = ask(&subject, &busy);
            let _ = sender.send(Message::AskedBusy { instance, found });
        });
        if !begun {
            (self.sink)(told(BusyFound::busy(NO_ROOM)));
        }
    }
}

const NO_ROOM: &str = "the system has no room for another thread";

fn ask(subject: &Subject, busy: &Busy) -> BusyFound {
    match busy {
        Busy::Http { path, pointer } => match subject.address() {
            Ok(address) => hooks::busy_http(address, path, pointer.as_deref(), hooks::BUSY_WITHIN),
            Err(why) => BusyFound::busy(why),
        },
        Busy::Command(command) => {
            let until = Instant::now() + hooks::BUSY_WITHIN;
            match subject.run_words(command, || until) {
                Ok(waited) => hooks::busy_by_exit(waited.status.map(|status| status.code())),
                Err(why) => BusyFound::busy(why),
            }
        }
        Busy::Cpu { .. } | Busy::Network { .. } => BusyFound::busy("what it uses cannot be measured"),
    }
}
