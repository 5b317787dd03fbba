//! The backend alone, without Forerun around it: orders go in by hand, and every event is kept.

use crate::engine::{Engine, FIXTURE};
use forerun_backends::{Backend, DockerBackend, DockerSettings, StartOrder, StopOrder};
use forerun_types::{Container, Event, Generation, InstanceId, Launch, ServiceId, ServiceSpec, Span};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const G: Generation = Generation(1);

pub(crate) struct Direct {
    backend: DockerBackend,
    events: Receiver<Event>,
    seen: RefCell<Vec<Event>>,
}

impl Direct {
    /// A life over a state folder; the one before must have been dropped.
    pub(crate) fn over(engine: &Engine, state: &Path) -> Self {
        Self::at(&format!("unix://{}", engine.socket.display()), state)
    }

    pub(crate) fn at(host: &str, state: &Path) -> Self {
        let settings = DockerSettings {
            host: Some(host.to_owned()),
            state_folder: Some(state.to_owned()),
            ..DockerSettings::default()
        };
        let (sender, events) = channel();
        let sink = Arc::new(move |event| drop(sender.send(event)));
        let backend = DockerBackend::start(settings, sink).unwrap();
        Self { backend, events, seen: RefCell::default() }
    }

    pub(crate) fn know(&self, spec: &ServiceSpec) {
        self.backend.know(&[Arc::new(spec.clone())]);
    }

    pub(crate) fn start(&self, id: u64, spec: &ServiceSpec) {
        self.backend.start(order(id, spec)).unwrap();
    }

    pub(crate) fn adopt(&self, id: u64, spec: &ServiceSpec, handle: &str) {
        self.backend.adopt(order(id, spec), handle).unwrap();
    }

    pub(crate) fn specialise(&self, id: u64, spec: &ServiceSpec) {
        self.backend.specialise(order(id, spec)).unwrap();
    }

    pub(crate) fn ask_busy(&self, id: u64, spec: &ServiceSpec) {
        self.backend.ask_busy(order(id, spec)).unwrap();
    }

    pub(crate) fn pause(&self, id: u64) {
        self.backend.pause(InstanceId(id), G).unwrap();
    }

    pub(crate) fn stop(&self, id: u64, grace: Span) {
        self.backend.stop(StopOrder { instance: InstanceId(id), generation: G, grace }).unwrap();
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        self.backend.running().into_iter().map(|instance| instance.0).collect()
    }

    /// All that was told so far but usage, traffic and progress.
    pub(crate) fn told(&self) -> Vec<Event> {
        let remark = |event: &Event| {
            matches!(
                event,
                Event::InstanceUsage { .. } | Event::InstanceTraffic { .. } | Event::Progress { .. }
            )
        };
        self.seen.borrow_mut().extend(self.events.try_iter().filter(|event| !remark(event)));
        self.seen.borrow().clone()
    }

    /// What was told of one instance.
    pub(crate) fn of(&self, id: u64) -> Vec<Event> {
        self.told().into_iter().filter(|event| instance_of(event) == Some(id)).collect()
    }

    /// Waits until what was told of an instance fits.
    pub(crate) fn until(
        &self,
        id: u64,
        what: &str,
        within: Duration,
        fits: impl Fn(&[Event]) -> bool,
    ) -> Vec<Event> {
        let start = Instant::now();
        loop {
            let events = self.of(id);
            if fits(&events) {
                return events;
            }
            assert!(start.elapsed() < within, "not within {within:?}, {what}: {:?}", self.told());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn ready(&self, id: u64) -> std::net::SocketAddr {
        let events = self.until(id, "ready or not", Duration::from_secs(40), |events| !events.is_empty());
        events
            .iter()
            .find_map(|event| match event {
                Event::Ready { address, .. } => Some(*address),
                _ => None,
            })
            .unwrap_or_else(|| panic!("not ready: {events:?}"))
    }

    /// An instance's events are those that a backend may tell, in their order: at most one begins it, and at most one
    /// ends it.
    pub(crate) fn is_lawful(&self, id: u64) {
        let events = self.of(id);
        let ends = |event: &Event| {
            matches!(
                event,
                Event::StartFailed { .. }
                    | Event::Died { .. }
                    | Event::Stopped { .. }
                    | Event::StoppedByHand { .. }
                    | Event::Completed { .. }
            )
        };
        let begun = events.iter().filter(|event| matches!(event, Event::Ready { .. })).count();
        let ended = events.iter().filter(|event| ends(event)).count();
        assert!(begun <= 1 && ended <= 1, "instance {id}: {events:?}");
        assert!(ended == 0 || events.last().is_some_and(ends), "something after its end, {id}: {events:?}");
        assert_eq!(ended == 0, self.running().contains(&id), "instance {id}: {events:?}");
    }

    /// Every instance is over, and the engine has nothing of them.
    pub(crate) fn ends_clean(self, engine: &Engine) {
        for id in self.running() {
            self.stop(id, Span::from_secs(2));
        }
        crate::engine::eventually("all have ended", Duration::from_secs(60), || self.running().is_empty());
        crate::engine::eventually("nothing is left in the engine", Duration::from_secs(45), || {
            engine.containers().is_empty()
        });
    }
}

fn order(id: u64, spec: &ServiceSpec) -> StartOrder {
    StartOrder { instance: InstanceId(id), generation: G, spec: Arc::new(spec.clone()) }
}

fn instance_of(event: &Event) -> Option<u64> {
    match event {
        Event::Ready { instance, .. }
        | Event::StartFailed { instance, .. }
        | Event::Died { instance, .. }
        | Event::Stopped { instance }
        | Event::Paused { instance }
        | Event::Resumed { instance, .. }
        | Event::NotChanged { instance, .. }
        | Event::Specialised { instance, .. }
        | Event::StoppedByHand { instance, .. }
        | Event::Completed { instance }
        | Event::BusyAnswer { instance, .. } => Some(instance.0),
        _ => None,
    }
}

/// A service of the fixture's image with these flags.
pub(crate) fn fixture_service(flags: &[&str]) -> ServiceSpec {
    let command = [&["forerun-fixture", "--listen", "0.0.0.0"], flags].concat();
    service(FIXTURE, &command)
}

/// A service of an image with this command.
pub(crate) fn service(image: &str, command: &[&str]) -> ServiceSpec {
    let container = Container {
        image: image.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..Container::default()
    };
    ServiceSpec {
        backend: "docker".to_owned(),
        launch: Launch::Container(container),
        start_timeout: Span::from_secs(25),
        ..ServiceSpec::named(ServiceId(1), "fixture")
    }
}

/// A service whose first instance is this container, which a person made.
pub(crate) fn own_service(name: &str) -> ServiceSpec {
    let container = Container { own: Some(name.to_owned()), ..Container::default() };
    ServiceSpec { launch: Launch::Container(container), ..fixture_service(&[]) }
}
