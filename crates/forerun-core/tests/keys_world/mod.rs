//! A small obedient world for services that specialise: it answers the core's orders, and checks on the way that no
//! instance ever serves two keys.

#![allow(clippy::unwrap_used, dead_code)]

use forerun_core::{Core, KeepAlive, Policy};
use forerun_types::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(crate) const ROUTER: RouterId = RouterId(0);
pub(crate) const SHOP: ServiceId = ServiceId(0);
pub(crate) const START: Span = Span::from_secs(4);
pub(crate) const CHANGE: Span = Span::from_secs(1);

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) service: ServiceId,
    pub(crate) key: Option<String>,
    pub(crate) touched: bool,
    /// Not in any table since this generation.
    pub(crate) listed: bool,
}

pub(crate) struct World<P> {
    pub(crate) core: Core<P>,
    pub(crate) now: Time,
    pub(crate) coming: BTreeMap<(Time, InstanceId), Event>,
    pub(crate) processes: BTreeMap<InstanceId, Process>,
    pub(crate) table: BTreeMap<ServiceId, Arc<ServiceRoute>>,
    /// Routers answer that instances are quiet.
    pub(crate) quiesce: bool,
    pub(crate) hook_fails: bool,
    /// What a start, one for a key and a change of a generic one take.
    pub(crate) start: Span,
    pub(crate) key_start: Span,
    pub(crate) change: Span,
    pub(crate) told: VecDeque<Event>,
    pub(crate) log: Vec<String>,
}

impl<P: Policy> World<P> {
    pub(crate) fn new(policy: P, specs: &[ServiceSpec]) -> Self {
        let mut world = Self {
            core: Core::new(policy),
            now: Time(1_000_000_000),
            coming: BTreeMap::new(),
            processes: BTreeMap::new(),
            table: BTreeMap::new(),
            quiesce: true,
            hook_fails: false,
            start: START,
            key_start: START,
            change: CHANGE,
            told: VecDeque::new(),
            log: Vec::new(),
        };
        world.tell(Event::Began);
        world.tell(Event::RouterJoined(ROUTER));
        for spec in specs {
            world.tell(Event::Service(Arc::new(spec.clone())));
        }
        world
    }

    /// An event, and then what answers to what it led to.
    pub(crate) fn tell(&mut self, event: Event) {
        self.told.push_back(event);
        while let Some(event) = self.told.pop_front() {
            self.step(&event);
        }
    }

    pub(crate) fn step(&mut self, event: &Event) {
        match event {
            Event::Stopped { instance } | Event::Died { instance, .. } => {
                self.processes.remove(instance);
                self.coming.retain(|(_, i), _| i != instance);
            }
            Event::Touched { instance, .. } => {
                self.processes.get_mut(instance).unwrap().touched = true;
            }
            _ => {}
        }
        let mut actions = Vec::new();
        self.core.step(self.now, event, &mut actions);
        for action in actions {
            self.obey(action);
        }
    }

    pub(crate) fn obey(&mut self, action: Action) {
        match action {
            Action::Start { instance, service, spec, .. } => {
                self.log.push(format!("start {}", spec.name));
                let key = spec.variant.as_ref().map(|v| v.key.clone());
                let process = Process { service, key, touched: false, listed: false };
                assert!(self.processes.insert(instance, process).is_none());
                let address = ([127, 0, 0, 1], 1).into();
                let took = if spec.variant.is_some() { self.key_start } else { self.start };
                self.coming.insert((self.now + took, instance), Event::Ready { instance, address, took });
            }
            Action::Specialise { instance, spec, .. } => {
                self.log.push(format!("specialise {}", spec.name));
                let process = self.processes.get_mut(&instance).unwrap();
                assert!(process.key.is_none(), "{process:?} was {:?}'s", process.key);
                assert!(!process.touched && !process.listed, "{process:?}");
                process.key = Some(spec.variant.as_ref().unwrap().key.clone());
                process.service = spec.id;
                let event = match self.hook_fails {
                    true => Event::NotChanged { instance, why: "exit code 1".to_owned() },
                    false => Event::Specialised { instance, took: self.change },
                };
                self.coming.insert((self.now + self.change, instance), event);
            }
            Action::Stop { instance, .. } => {
                self.log.push(format!("stop {instance}"));
                self.told.push_back(Event::Stopped { instance });
            }
            Action::Route { generation, service, route } => self.route(generation, service, route),
            _ => {}
        }
    }

    pub(crate) fn route(
        &mut self,
        generation: Generation,
        service: ServiceId,
        route: Option<Arc<ServiceRoute>>,
    ) {
        let listed = |r: Option<&Arc<ServiceRoute>>| -> BTreeSet<InstanceId> {
            r.into_iter().flat_map(|r| &r.instances).map(|i| i.instance).collect()
        };
        for entry in route.iter().flat_map(|r| &r.instances) {
            let process = self.processes.get_mut(&entry.instance).unwrap();
            assert_eq!(process.service, service, "{entry:?}");
            let expect = match (&process.key, entry.access) {
                (Some(key), _) => Access::Only(Variant::access_key(key)),
                (None, Access::Unclaimed) if !process.touched => Access::Unclaimed,
                (None, _) => Access::Any,
            };
            assert_eq!(entry.access, expect);
            process.listed = true;
        }
        let (before, after) = (listed(self.table.get(&service)), listed(route.as_ref()));
        match route {
            Some(route) => self.table.insert(service, route),
            None => self.table.remove(&service),
        };
        for gone in before.difference(&after) {
            if let Some(process) = self.processes.get_mut(gone) {
                process.listed = false;
            }
            if self.quiesce {
                self.told.push_back(Event::Quiesced { router: ROUTER, instance: *gone, generation });
            }
        }
    }

    pub(crate) fn pass(&mut self, span: Span) {
        let until = self.now + span;
        loop {
            let due = self.core.next_due().max(self.now + Span(1));
            let next = self.coming.first_key_value().map(|(at, _)| *at).filter(|(at, _)| *at <= due);
            let at = next.map_or(due, |(at, _)| at);
            if at > until {
                self.now = until;
                return;
            }
            self.now = at.max(self.now);
            let event = next.and_then(|key| self.coming.remove(&key)).unwrap_or(Event::Tick);
            self.tell(event);
        }
    }

    pub(crate) fn see(&mut self, key: &str) -> Option<ServiceId> {
        self.tell(Event::KeySeen { service: SHOP, key: key.to_owned() });
        self.variant(key)
    }

    pub(crate) fn variant(&self, key: &str) -> Option<ServiceId> {
        let found = self.table.values().find(|r| r.spec.variant.as_ref().is_some_and(|v| v.key == key));
        found.map(|r| r.spec.id)
    }

    pub(crate) fn hold(&mut self, service: ServiceId, waiting: u32) {
        self.tell(Event::Waiting { router: ROUTER, service, user: UserKey(0), waiting });
    }

    /// What one router tells of a service.
    pub(crate) fn load(
        &mut self,
        service: ServiceId,
        in_flight: u32,
        waiting: u32,
        activities: Vec<Activity>,
    ) {
        let peak = in_flight + waiting;
        let last_used = self.now;
        let instances = self.table.get(&service).map_or_else(Vec::new, |r| {
            let load = |i: &InstanceRoute| InstanceLoad { instance: i.instance, in_flight: 0, last_used };
            r.instances.iter().map(load).collect()
        });
        self.tell(Event::Traffic(Traffic {
            router: ROUTER,
            services: vec![ServiceLoad { service, in_flight, peak, waiting }],
            instances,
            activities,
            ..Traffic::default()
        }));
    }

    /// A request of a variant from its arrival to its end.
    pub(crate) fn request(&mut self, service: ServiceId) {
        if self.up(service) == 0 {
            self.hold(service, 1);
            self.pass(START);
        }
        assert!(self.up(service) > 0);
        self.load(service, 1, 0, Vec::new());
        self.pass(Span::from_millis(10));
        self.load(service, 0, 0, Vec::new());
    }

    pub(crate) fn up(&self, service: ServiceId) -> usize {
        self.table.get(&service).map_or(0, |r| r.instances.len())
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|l| l.starts_with(what)).count()
    }

    pub(crate) fn accesses(&self, service: ServiceId) -> Vec<Access> {
        self.table.get(&service).map_or_else(Vec::new, |r| r.instances.iter().map(|i| i.access).collect())
    }
}

pub(crate) fn shop(hook: bool) -> ServiceSpec {
    let hook = hook.then(|| Hook::Http { path: "/become".to_owned() });
    ServiceSpec {
        start_estimate: START,
        specialise: Some(Specialise { by: KeyFrom::Tenant, hook, keys_max: 3, ..Specialise::default() }),
        ..ServiceSpec::named(SHOP, "shop")
    }
}

pub(crate) fn kept(specs: &[ServiceSpec]) -> World<KeepAlive> {
    World::new(KeepAlive::new(Span::from_secs(60)), specs)
}

/// A world with one generic instance that is ready.
pub(crate) fn with_a_pool() -> World<KeepAlive> {
    let mut world = kept(&[ServiceSpec { min: 1, ..shop(true) }]);
    world.pass(START);
    assert_eq!(world.accesses(SHOP), [Access::Unclaimed]);
    world
}
