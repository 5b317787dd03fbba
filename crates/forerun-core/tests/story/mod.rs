//! A core driven by hand, for tests that tell stories.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part of it

use forerun_core::{Core, InstanceState, KeepAlive, Policy, ServiceStatus};
use forerun_types::*;
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) const ROUTER: RouterId = RouterId(0);
pub(crate) const A: ServiceId = ServiceId(0);
pub(crate) const B: ServiceId = ServiceId(1);
pub(crate) const C: ServiceId = ServiceId(2);

/// A core with one router that is always quiet, and backends that do only what a test says.
pub(crate) struct Story<P> {
    pub(crate) core: Core<P>,
    pub(crate) seconds: u64,
    pub(crate) actions: Vec<Action>,
}

impl Story<KeepAlive> {
    /// Services that were listed, with nothing running.
    pub(crate) fn begin(specs: &[ServiceSpec]) -> Self {
        let mut story = Self::unlisted(specs);
        for spec in specs {
            story.tell(Event::OwnState { service: spec.id, there: true });
        }
        story.actions.retain(|a| matches!(a, Action::Route { .. }));
        story
    }

    pub(crate) fn unlisted(specs: &[ServiceSpec]) -> Self {
        Self::with(KeepAlive::new(Span::from_secs(60)), specs)
    }
}

impl<P: Policy> Story<P> {
    pub(crate) fn with(policy: P, specs: &[ServiceSpec]) -> Self {
        let mut story = Self { core: Core::new(policy), seconds: 1_000, actions: Vec::new() };
        story.live(specs);
        story
    }

    /// A new life.
    pub(crate) fn live(&mut self, specs: &[ServiceSpec]) {
        self.tell(Event::Began);
        self.tell(Event::RouterJoined(ROUTER));
        for spec in specs {
            self.tell(Event::Service(Arc::new(spec.clone())));
        }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let now = Time(self.seconds * 1_000_000);
        let from = self.actions.len();
        self.core.step(now, &event, &mut self.actions);
        let listed = |a: &Action| match a {
            Action::Route { generation, route: Some(_), .. } => Some(*generation),
            _ => None,
        };
        // The router is quiet, whatever leaves the table.
        let newest = self.actions[from..].iter().filter_map(listed).max();
        for instance in self.ids(InstanceState::Draining) {
            if let Some(generation) = newest {
                self.tell(Event::Quiesced { router: ROUTER, instance, generation });
            }
        }
    }

    /// Seconds pass, with the ticks that are asked for.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.seconds += 1;
            if self.core.next_due() <= Time(self.seconds * 1_000_000) {
                self.tell(Event::Tick);
            }
        }
    }

    pub(crate) fn found(&mut self, service: ServiceId, handle: &str, port: u16) {
        self.found_was(service, handle, port, None, false);
    }

    pub(crate) fn found_was(
        &mut self,
        service: ServiceId,
        handle: &str,
        port: u16,
        was: Option<u64>,
        paused: bool,
    ) {
        let (was, handle) = (was.map(InstanceId), handle.to_owned());
        self.tell(Event::Found { service, handle, was, address: at(port), paused });
    }

    pub(crate) fn hold(&mut self, service: ServiceId, waiting: u32) {
        self.tell(Event::Waiting { router: ROUTER, service, user: UserKey(7), waiting });
    }

    pub(crate) fn gauge(&mut self, service: ServiceId, in_flight: u32, waiting: u32) {
        let load = ServiceLoad { service, in_flight, peak: in_flight + waiting, waiting };
        self.tell(Event::Traffic(Traffic { router: ROUTER, services: vec![load], ..Traffic::default() }));
    }

    pub(crate) fn ready(&mut self, id: InstanceId, port: u16) {
        self.tell(Event::Ready { instance: id, address: at(port), took: Span::from_secs(1) });
    }

    pub(crate) fn say(&mut self, service: ServiceId, instances: Option<u32>) {
        self.tell(Event::Override { service, order: Override { instances, until: Time::NEVER } });
    }

    pub(crate) fn status(&self, service: ServiceId) -> ServiceStatus {
        self.core.services().find(|s| s.service == service).unwrap()
    }

    pub(crate) fn ids(&self, state: InstanceState) -> Vec<InstanceId> {
        let all = self.core.services().flat_map(|s| s.instances);
        all.filter(|i| i.state == state).map(|i| i.instance).collect()
    }

    /// What a service's last route says: ready instances, and why it refuses.
    pub(crate) fn route(&self, service: ServiceId) -> (Vec<InstanceId>, Option<String>) {
        let of = |a: &Action| match a {
            Action::Route { service: s, route: Some(route), .. } if *s == service => Some(Arc::clone(route)),
            _ => None,
        };
        let route = self.actions.iter().rev().find_map(of).unwrap();
        let listed = route.instances.iter().map(|i| i.instance).collect();
        (listed, route.unavailable.as_ref().map(|u| u.why.clone()))
    }

    pub(crate) fn count(&self, is: impl Fn(&Action) -> bool) -> usize {
        self.actions.iter().filter(|a| is(a)).count()
    }

    pub(crate) fn starts(&self) -> usize {
        self.count(|a| matches!(a, Action::Start { .. }))
    }

    pub(crate) fn stops(&self) -> usize {
        self.stopped().len()
    }

    /// Those that were ordered to stop, each once: an order that is not answered is given again.
    pub(crate) fn stopped(&self) -> Vec<InstanceId> {
        let mut stopped = Vec::new();
        for action in &self.actions {
            if let Action::Stop { instance, .. } = action
                && !stopped.contains(instance)
            {
                stopped.push(*instance);
            }
        }
        stopped
    }

    pub(crate) fn adopted(&self) -> Vec<(InstanceId, String)> {
        let of = |a: &Action| match a {
            Action::Adopt { instance, handle, .. } => Some((*instance, handle.clone())),
            _ => None,
        };
        self.actions.iter().filter_map(of).collect()
    }

    pub(crate) fn last_start(&self) -> InstanceId {
        let of = |a: &Action| if let Action::Start { instance, .. } = a { Some(*instance) } else { None };
        self.actions.iter().rev().find_map(of).unwrap()
    }
}

pub(crate) fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A request of [`A`] was answered that had been held for so long.
pub(crate) fn finished(instance: InstanceId, held: Span) -> Event {
    let done = Finished {
        service: A,
        action: ActionKey(1),
        instance,
        duration: Span::from_millis(50),
        held,
        network_bytes: 0,
        status: 200,
    };
    Event::Traffic(Traffic { router: ROUTER, finished: vec![done], ..Traffic::default() })
}

pub(crate) fn container(id: ServiceId) -> ServiceSpec {
    let own = Container { own: Some(format!("c{}", id.0)), ..Container::default() };
    ServiceSpec {
        launch: Launch::Container(own),
        backend: "docker".to_owned(),
        drain_timeout: Span::from_secs(5),
        ..ServiceSpec::named(id, format!("s{}", id.0))
    }
}
