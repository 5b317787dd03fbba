//! Whatever happens in whatever order: what a person said holds, what is needed is there first, rivals do not meet,
//! everything comes to rest and ends, and the same events give the same actions, also from a snapshot.

#![allow(clippy::unwrap_used)]

use forerun_core::{Core, Forerun, InstanceState, ServiceStatus};
use forerun_types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SERVICES: u32 = 5;
const ROUTERS: u64 = 2;
const STEPS: u32 = 300;
const WORLDS: u64 = 40;
/// Of eight worlds this one has services of three SLA classes, two of them with a guarantee.
const CLASSED: u64 = 7;

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A: a database; B and C need it; D does not run beside C; E is asked whether it is busy, and may be frozen.
fn spec(id: u32, random: &mut Random, classed: bool) -> ServiceSpec {
    let name = |id: u32| format!("s{id}");
    let mode = [Mode::Act, Mode::Act, Mode::Act, Mode::Observe][random.below(4) as usize];
    let needs = |until| vec![Dependency { service: name(0), until }];
    let mut spec = ServiceSpec {
        mode,
        launch: Launch::Container(Container::default()),
        drain_timeout: Span::from_secs(5),
        start_timeout: Span::from_secs(20),
        start_estimate: Span::from_secs(2),
        pausable: random.chance(50),
        keep_at_least: Span::from_secs(random.below(2) * 40),
        min: u32::from(random.chance(20)),
        max: 1 + random.below(3) as u32,
        ..ServiceSpec::named(ServiceId(id), name(id))
    };
    if classed {
        let class = random.below(3) as usize;
        spec.sla = SlaClass {
            name: ["gold", "silver", "bronze"][class].to_owned(),
            priority: [200, 100, 100][class],
            guarantee_milli: [500, 250 * random.below(2) as u32, 0][class],
            ..SlaClass::default()
        };
    }
    match id {
        1 => spec.depends_on = needs(DependsUntil::Ready),
        2 => spec.depends_on = needs(DependsUntil::Started),
        3 => spec.excludes = vec![name(2)],
        4 => (spec.busy, spec.busy_max) = (Some(Busy::Cpu { milli: 1 }), Span::from_secs(100)),
        _ => {}
    }
    spec
}

/// A core, and what its backends and routers owe it.
struct World {
    core: Core<Forerun>,
    random: Random,
    classed: bool,
    now: Time,
    specs: Vec<ServiceSpec>,
    /// Answers that are due, in any order.
    owed: Vec<Event>,
    handles: u64,
    started: BTreeSet<InstanceId>,
    log: Vec<String>,
    draining: BTreeMap<InstanceId, Generation>,
    finished: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let classed = seed % 8 == CLASSED;
        let specs: Vec<ServiceSpec> = (0..SERVICES).map(|id| spec(id, &mut random, classed)).collect();
        let mut world = Self {
            core: Core::new(Forerun::new(1 << 20)),
            random,
            classed,
            now: Time(1_700_000_000_000_000),
            specs,
            owed: Vec::new(),
            handles: 0,
            started: BTreeSet::new(),
            log: Vec::new(),
            draining: BTreeMap::new(),
            finished: false,
        };
        world.live();
        world
    }

    fn live(&mut self) {
        self.owed.clear();
        self.draining.clear();
        let instances_max = 2 + self.random.below(6) as u32;
        let (id, name, capacity) = (SiteId(0), String::new(), Resources::default());
        self.tell(Event::Began);
        self.tell(Event::Site(SiteSpec { id, name, capacity, instances_max }));
        for router in 0..ROUTERS {
            self.tell(Event::RouterJoined(RouterId(router as u32)));
        }
        for spec in self.specs.clone() {
            self.tell(Event::Service(Arc::new(spec)));
        }
    }

    fn status(&self) -> Vec<ServiceStatus> {
        self.core.services().collect()
    }

    fn tell(&mut self, event: Event) {
        let before = self.status();
        let mut actions = Vec::new();
        self.core.step(self.now, &event, &mut actions);
        let after = self.status();
        self.log.push(format!("{} {event:?} -> {actions:?}", self.now.0));
        for action in &actions {
            self.check(action, &before, &after);
        }
        for action in actions {
            self.obey(action);
        }
    }

    fn check(&self, action: &Action, before: &[ServiceStatus], after: &[ServiceStatus]) {
        let fail = |what: &str| -> ! {
            let last = &self.log[self.log.len().saturating_sub(6)..];
            panic!("{what}: {action:?}\n{}", last.join("\n"))
        };
        let (instance, ordered) = match action {
            Action::Start { instance, service, .. } => (*instance, Some(*service)),
            Action::Pause { instance, .. } | Action::Resume { instance, .. } => (*instance, None),
            Action::Stop { instance, why: StopWhy::Plan | StopWhy::Evicted, .. } => (*instance, None),
            _ => return,
        };
        let has = |s: &&ServiceStatus| s.instances.iter().any(|i| i.instance == instance);
        let by_id = |id: ServiceId| after.iter().find(|s| s.service == id);
        let owner = ordered.and_then(by_id).or_else(|| after.iter().chain(before).find(has));
        let Some(s) = owner else { return };
        let was = before.iter().flat_map(|s| &s.instances).find(|i| i.instance == instance);
        // An order that was not answered is given again, whatever was said since.
        if was.is_some_and(|i| i.state == InstanceState::Stopping) {
            return;
        }
        if s.mode != Mode::Act && after.iter().any(|x| has(&x)) {
            fail("an order in a mode that gives none");
        }
        if ordered.is_none() {
            return;
        }
        if s.down.is_some() {
            fail("started although a person stopped it");
        }
        if self.started.contains(&instance) {
            fail("an id twice");
        }
        let up = |id: u32, state: fn(InstanceState) -> bool| {
            after
                .iter()
                .find(|s| s.service.0 == id)
                .is_some_and(|s| s.instances.iter().any(|i| state(i.state)))
        };
        match s.service.0 {
            1 if !up(0, |s| s == InstanceState::Ready) => fail("before what it depends on is ready"),
            2 if !up(0, |s| matches!(s, InstanceState::Ready | InstanceState::Starting)) => {
                fail("before what it depends on is started");
            }
            2 if up(3, |_| true) => fail("beside what excludes it"),
            3 if up(2, |_| true) => fail("beside what it excludes"),
            _ => {}
        }
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Start { instance, .. } => {
                self.started.insert(instance);
                let why = "exited with 1".to_owned();
                let address = ([127, 0, 0, 1], 1_000 + (instance.0 % 50_000) as u16).into();
                let took = Span::from_millis(1 + self.random.below(9_000));
                self.owed.push(match self.random.below(8) {
                    0 => Event::StartFailed { instance, why },
                    1 => return, // its answer is lost
                    _ => Event::Ready { instance, address, took },
                });
            }
            Action::Stop { instance, .. } if self.random.chance(90) => {
                self.owed.push(Event::Stopped { instance });
            }
            Action::Pause { instance, .. } if self.random.chance(90) => {
                self.owed.push(match self.random.chance(80) {
                    true => Event::Paused { instance },
                    false => Event::NotChanged { instance, why: "no freezer".to_owned() },
                });
            }
            Action::Resume { instance, .. } if self.random.chance(90) => {
                self.owed.push(match self.random.chance(80) {
                    true => Event::Resumed { instance, took: Span::from_millis(30) },
                    false => Event::NotChanged { instance, why: "no freezer".to_owned() },
                });
            }
            Action::AskBusy { instance, .. } if self.random.chance(80) => {
                let busy = self.random.chance(40);
                self.owed.push(Event::BusyAnswer { instance, busy, why: "a job".to_owned() });
            }
            Action::Route { generation, .. } => {
                for s in self.status() {
                    for i in s.instances.iter().filter(|i| i.state == InstanceState::Draining) {
                        self.draining.insert(i.instance, generation);
                    }
                }
            }
            Action::Finished => self.finished = true,
            _ => {}
        }
    }

    fn answer(&mut self) {
        if !self.owed.is_empty() {
            let at = self.random.below(self.owed.len() as u64) as usize;
            let event = self.owed.swap_remove(at);
            self.tell(event);
        }
    }

    fn any_instance(&mut self) -> Option<InstanceId> {
        let all: Vec<InstanceId> =
            self.status().iter().flat_map(|s| s.instances.iter().map(|i| i.instance)).collect();
        (!all.is_empty()).then(|| all[self.random.below(all.len() as u64) as usize])
    }

    fn step(&mut self) {
        let service = ServiceId(self.random.below(u64::from(SERVICES)) as u32);
        let router = RouterId(self.random.below(ROUTERS) as u32);
        let some = self.any_instance();
        match self.random.below(24) {
            0..=2 => self.tell(Event::Waiting { router, service, user: UserKey(1), waiting: 1 }),
            3..=6 => self.load(router, service),
            7..=10 => self.answer(),
            11 => self.found(service),
            12 => {
                let instances = [None, Some(0), Some(1), Some(2)][self.random.below(4) as usize];
                let until = self.now + Span::from_secs(self.random.below(300));
                self.tell(Event::Override { service, order: Override { instances, until } });
            }
            13 => {
                let mode = [None, Some(Mode::Act), Some(Mode::Observe)][self.random.below(3) as usize];
                self.tell(Event::ModeTold { service, mode });
            }
            14 => {
                let there = self.random.chance(80);
                self.tell(Event::OwnState { service, there });
            }
            15 => self.ends(some),
            16 => {
                let spec = spec(service.0, &mut self.random, self.classed);
                self.specs[service.0 as usize] = spec.clone();
                self.tell(Event::Service(Arc::new(spec)));
            }
            17 if self.random.chance(10) => self.live(),
            18 | 19 => self.quiesce(router),
            _ => {
                let ahead = [100, 2_000, 15_000, 120_000][self.random.below(4) as usize];
                self.pass(Span::from_millis(ahead));
            }
        }
    }

    fn quiesce(&mut self, router: RouterId) {
        if let Some((instance, generation)) = self.draining.iter().next_back().map(|(i, g)| (*i, *g)) {
            self.tell(Event::Quiesced { router, instance, generation });
        }
        self.draining.retain(|_, _| self.random.chance(90));
    }

    fn load(&mut self, router: RouterId, service: ServiceId) {
        let (in_flight, waiting) = (self.random.below(3) as u32, self.random.below(2) as u32);
        let status = self.status();
        let ready = status[service.0 as usize].instances.iter().filter(|i| i.state == InstanceState::Ready);
        let last_used = self.now;
        let loads: Vec<InstanceLoad> = ready
            .enumerate()
            .map(|(n, i)| InstanceLoad {
                instance: i.instance,
                in_flight: u32::from((n as u32) < in_flight),
                last_used,
            })
            .collect();
        let in_flight = in_flight.min(loads.len() as u32);
        let services = vec![ServiceLoad { service, in_flight, peak: in_flight + waiting, waiting }];
        self.tell(Event::Traffic(Traffic { router, instances: loads, services, ..Traffic::default() }));
    }

    fn found(&mut self, service: ServiceId) {
        self.handles += 1;
        let (handle, paused) = (format!("h{}", self.handles % 20), self.random.chance(20));
        let was = self.random.chance(30).then(|| InstanceId(1 + self.random.below(40)));
        let address = ([127, 0, 0, 1], 60_000).into();
        self.tell(Event::Found { service, handle, was, address, paused });
    }

    fn ends(&mut self, some: Option<InstanceId>) {
        let Some(instance) = some else { return };
        let why = "by chance".to_owned();
        let event = match self.random.below(6) {
            0 => Event::Died { instance, why },
            1 => Event::StoppedByHand { instance, why },
            2 => Event::Completed { instance },
            3 => Event::Paused { instance },
            4 => Event::Resumed { instance, took: Span::from_millis(1) },
            _ => Event::InstanceUsage { instance, memory_bytes: 1 << 20, cpu: Span(self.now.0 % 1_000_000) },
        };
        self.tell(event);
    }

    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        let mut ticks = 0;
        while self.core.next_due() <= until {
            self.now = self.core.next_due().max(self.now);
            self.tell(Event::Tick);
            ticks += 1;
            let last = self.log.last().unwrap();
            assert!(ticks < 2_000, "it does not come to rest: {last}");
        }
        self.now = until;
    }

    /// All that is owed is answered, and then it ends.
    fn end(&mut self) {
        self.tell(Event::ShutDown);
        for _ in 0..200 {
            if self.finished {
                return;
            }
            self.pass(Span::from_secs(20));
            while !self.owed.is_empty() {
                self.answer();
            }
        }
        panic!("it does not end: {:?}", self.core.services().map(|s| s.instances).collect::<Vec<_>>());
    }
}

#[test]
fn whatever_happens_the_rules_hold_and_everything_ends() {
    for seed in 0..WORLDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.end();
    }
}

#[test]
fn the_same_events_give_the_same_actions_also_from_a_snapshot() {
    for seed in 0..WORLDS / 4 {
        let run = |snapshot_at: Option<u32>| {
            let mut world = World::new(seed);
            for step in 0..STEPS {
                if Some(step) == snapshot_at {
                    let bytes = postcard::to_allocvec(&world.core).unwrap();
                    world.core = postcard::from_bytes(&bytes).unwrap();
                }
                world.step();
            }
            world.log
        };
        let whole = run(None);
        let at = (seed * 37 % u64::from(STEPS)) as u32;
        assert!(run(Some(at)) == whole, "seed {seed}, snapshot at {at}");
    }
}
