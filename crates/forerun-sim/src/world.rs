//! The world: time, and everything that happens in it, in order.

use crate::backend::{Backend, Due, Follows, Phase, Pid, Step, outlives};
use crate::checks::Checks;
use crate::daemon::USAGE_EVERY;
use crate::faults::{Fault, Faults};
use crate::ports::{Given, Orders, SimBackends, SimClock, SimDisk, SimRouters};
use crate::random::Random;
use crate::router::{Door, Router, Unserved};
use crate::scenario::{Request, Scenario, Setting};
use crate::{lives, story::Story};
use forerun_core::Canary;
use forerun_engine::shell::Shell;
use forerun_types::{Event, InstanceId, RouteTable, RouterId, ServiceId, Span, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) type SimShell = Shell<SimClock, SimDisk, SimBackends, SimRouters>;

/// Something that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub at: Time,
    pub rule: &'static str,
    pub what: String,
}

/// What is to happen.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Arrive(u32),
    GiveUp(u32),
    HoldTimeout(u32),
    Finish(u32, Pid),
    NoAnswer(u32, Pid),
    Decide(u32),
    Probe(usize, ServiceId, InstanceId, Arc<Door>),
    Up(usize, u32, Event),
    Batch(usize),
    Table(usize, u32, Arc<RouteTable>),
    Process(Pid, Step),
    List(u32, ServiceId),
    LeftOver(u32),
    Usage,
    Hand,
    Answer(u32, Event),
    Chance,
    Change,
    Back(usize),
    CutOff(usize),
    LeaseOver(usize, u32),
    Connect(usize, u32),
    DiskHeals,
    Restart,
    Heal,
    ShutDown,
    End,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Coming,
    Held,
    /// Its key has just been told, and it waits for what becomes of that.
    Asking,
    At(Pid),
    Done(&'static str),
}

/// A router's process, and its connection to the engine.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) router: Router,
    pub(crate) up: bool,
    /// Counts connections; what an earlier one carried is dropped.
    pub(crate) epoch: u32,
    pub(crate) connected: bool,
    /// The engine counts it among its routers.
    pub(crate) joined: bool,
    pub(crate) control_clear: Time,
    pub(crate) traffic_clear: Time,
    pub(crate) tables_clear: Time,
    pub(crate) batch_due: bool,
}

pub(crate) const BEGAN: Time = Time(1_700_000_000_000_000);
const LEASE: Span = Span::from_secs(5);
/// After the faults end, so long is given to come to rest: the longest request, back-off and late answer, together.
const REST: Span = Span::from_secs(420);
const PROBES_APART: Span = Span::from_secs(60);
/// Shutting down: the longest drain twice, and a backend that is asked again.
const SHUTDOWN: Span = Span::from_secs(150);
pub(crate) const CHANCES: u64 = 8;

/// A world while it runs.
pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) scenario: Scenario,
    pub(crate) faults: Faults,
    pub(crate) now: Time,
    pub(crate) queue: BTreeMap<(Time, u64), What>,
    pub(crate) serial: u64,
    pub(crate) engine: Option<SimShell>,
    pub(crate) orders: Orders,
    pub(crate) life: u32,
    pub(crate) disk: Option<SimDisk>,
    pub(crate) clock: SimClock,
    pub(crate) wall_ahead_us: i64,
    /// How people change what is configured.
    pub(crate) changes: Random,
    /// What people do past the engine.
    pub(crate) hands: Random,
    pub(crate) backend: Backend,
    pub(crate) sites: Vec<Site>,
    pub(crate) requests: Vec<(Request, Place)>,
    /// Requests after the faults that must be served.
    pub(crate) probes: BTreeSet<u32>,
    pub(crate) table: Arc<RouteTable>,
    pub(crate) checks: Checks,
    pub(crate) delays: Random,
    pub(crate) story: Story,
    pub(crate) failure: Option<Failure>,
    pub steps: u64,
    pub(crate) refused: u32,
    pub(crate) closing: bool,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).field("life", &self.life).finish_non_exhaustive()
    }
}

/// What a world came to.
#[derive(Debug)]
pub struct Ended {
    pub failure: Option<Failure>,
    pub story: Vec<String>,
    pub steps: u64,
    pub struck: Vec<(Fault, u32)>,
    pub requests: u32,
    pub served: u32,
    /// Orders that the engine's plan checker has refused.
    pub refused: u32,
    /// What the disk has of the journal at the end: segments by their numbers.
    pub journal: BTreeMap<u64, Vec<u8>>,
}

/// Runs a scenario to its end, or to the first thing that does not hold.
#[must_use]
pub fn run(scenario: &Scenario) -> Ended {
    forerun_engine::journal::ANY_CHECKSUM.set(scenario.canary == Some(Canary::TornRecordWhole));
    let mut world = World::new(scenario);
    world.run();
    forerun_engine::journal::ANY_CHECKSUM.set(false);
    let mut journal = BTreeMap::new();
    world.with_disk(|disk| journal.clone_from(&disk.segments));
    let served = world.requests.iter().filter(|r| r.1 == Place::Done("served")).count() as u32;
    Ended {
        failure: world.failure.take(),
        story: world.story.take(),
        steps: world.steps,
        struck: world.faults.struck().collect(),
        requests: world.requests.len() as u32,
        served,
        refused: world.refused,
        journal,
    }
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let setting = Setting::of(scenario);
        let seed = scenario.seed;
        let faults = Faults::new(seed, &scenario.off, &scenario.skipped_faults);
        let mut world = Self {
            faults,
            now: BEGAN,
            queue: BTreeMap::new(),
            serial: 0,
            engine: None,
            orders: Orders::default(),
            life: 0,
            disk: Some(SimDisk::default()),
            clock: SimClock::new(BEGAN, 0, Time(0)),
            wall_ahead_us: 0,
            changes: Random::of(seed, "changes"),
            hands: Random::of(seed, "hands"),
            backend: Backend::new(seed),
            sites: Vec::new(),
            requests: setting.requests.iter().map(|r| (*r, Place::Coming)).collect(),
            probes: BTreeSet::new(),
            table: Arc::default(),
            checks: Checks::new(&setting),
            delays: Random::of(seed, "delays"),
            story: Story::new(scenario.tell),
            failure: None,
            steps: 0,
            refused: 0,
            closing: false,
            scenario: scenario.clone(),
            setting,
        };
        for id in 0..world.setting.separate_routers.max(1) {
            world.sites.push(Site {
                router: Router::new(RouterId(id as u32), world.setting.waitlist),
                up: world.setting.separate_routers > 0,
                epoch: 0,
                connected: false,
                joined: false,
                control_clear: Time(0),
                traffic_clear: Time(0),
                tables_clear: Time(0),
                batch_due: false,
            });
        }
        for at in 0..world.requests.len() as u32 {
            if !scenario.skipped_requests.contains(&at) {
                world.after(world.requests[at as usize].0.at, What::Arrive(at));
            }
        }
        world.after(Span::ZERO, What::Restart);
        for n in 0..CHANCES {
            world.after(Span(world.setting.lasts.0 / CHANCES * n + 1_000_000), What::Chance);
        }
        let changes = world.changes.below(2) * world.changes.below(12);
        for _ in 0..changes {
            let at = world.changes.below(world.setting.lasts.0);
            world.after(Span(at), What::Change);
        }
        for _ in 0..world.setting.hands {
            let at = world.hands.below(world.setting.lasts.0);
            world.after(Span(at), What::Hand);
        }
        if world.setting.services.iter().any(|s| s.pausable) {
            world.after(USAGE_EVERY, What::Usage);
        }
        world.after(world.setting.lasts, What::Heal);
        world.plan_probes();
        world
    }

    /// After the faults each service that has room must serve again.
    pub(crate) fn plan_probes(&mut self) {
        let from = self.setting.lasts + REST;
        let mut at = from;
        for spec in self.setting.services.clone() {
            if !self.checks.has_room_for(&self.setting, &spec) {
                continue;
            }
            let request = Request {
                at,
                service: spec.id,
                user: 1,
                key: None,
                router: 0,
                takes: Span::from_millis(10),
                patience: Span::from_secs(600),
            };
            let id = self.requests.len() as u32;
            self.requests.push((request, Place::Coming));
            self.probes.insert(id);
            self.after(at, What::Arrive(id));
            at = at + PROBES_APART;
        }
        self.after(at + PROBES_APART, What::ShutDown);
        self.after(at + PROBES_APART + SHUTDOWN, What::End);
    }

    pub(crate) fn after(&mut self, span: Span, what: What) {
        self.serial += 1;
        self.queue.insert((self.now + span, self.serial), what);
    }

    pub(crate) fn at(&mut self, time: Time, what: What) {
        self.serial += 1;
        self.queue.insert((time.max(self.now), self.serial), what);
    }

    pub(crate) fn fail(&mut self, rule: &'static str, what: String) {
        self.story.line(self.now, || format!("DOES NOT HOLD {rule}: {what}"));
        self.failure.get_or_insert(Failure { at: self.now, rule, what });
    }

    pub(crate) fn run(&mut self) {
        while self.failure.is_none() {
            self.steps += 1;
            let next = self.queue.first_key_value().map(|(key, _)| key.0);
            let wake = self.engine.as_ref().map(|e| self.clock.truth_of(e.next_wake()).max(self.now));
            match (next, wake) {
                (None, _) => return,
                (Some(next), Some(wake)) if wake < next => {
                    self.now = wake;
                    self.pass();
                }
                _ => {
                    let Some(((time, _), what)) = self.queue.pop_first() else { return };
                    self.now = time;
                    if matches!(what, What::End) {
                        self.end();
                        return;
                    }
                    self.happen(what);
                }
            }
        }
    }

    pub(crate) fn happen(&mut self, what: What) {
        match what {
            What::Arrive(request) => self.arrive(request),
            What::GiveUp(request) => self.give_up(request),
            What::HoldTimeout(request) => self.hold_timeout(request),
            What::Finish(request, pid) => self.finish(request, pid),
            What::NoAnswer(request, pid) => self.no_answer(request, pid),
            What::Decide(request) => self.decide(request),
            What::Probe(site, service, instance, door) => self.probe(site, service, instance, door),
            What::Up(site, epoch, event) => self.up(site, epoch, event),
            What::Batch(site) => self.batch(site),
            What::Table(site, epoch, table) => self.table_arrives(site, epoch, &table),
            What::Process(pid, step) => self.process(pid, step),
            What::Answer(life, event) if life == self.life => self.tell(&event),
            What::Answer(..) => {}
            What::List(life, service) => self.list(life, service),
            What::LeftOver(life) => self.left_over(life),
            What::Usage => self.tell_usage(),
            What::Hand => self.hand(),
            What::Chance => self.chance(),
            What::Change => self.change(),
            What::Back(at) => self.back(at),
            What::CutOff(site) => self.cut_off(site),
            What::LeaseOver(site, epoch) => self.lease_over(site, epoch),
            What::Connect(site, epoch) => self.connect(site, epoch),
            What::DiskHeals => self.with_disk(|disk| (disk.full, disk.latency_us) = (false, 0)),
            What::Restart => lives::begin(self),
            What::Heal => self.heal(),
            What::ShutDown => self.shut_down(),
            What::End => {}
        }
    }

    pub(crate) fn with_disk(&mut self, change: impl FnOnce(&mut SimDisk)) {
        match (&mut self.engine, &mut self.disk) {
            (Some(engine), _) => change(&mut engine.ports_mut().disk),
            (None, Some(disk)) => change(disk),
            (None, None) => {}
        }
    }

    /// The engine hears of something.
    pub(crate) fn tell(&mut self, event: &Event) {
        let (truth, wall) = (self.now, self.wall_ahead_us);
        let Some(engine) = &mut self.engine else { return };
        let ports = engine.ports_mut();
        (ports.clock.truth, ports.clock.wall_ahead_us) = (truth, wall);
        ports.disk.advance(truth);
        self.story.event(truth, event);
        let now = self.clock.now(truth);
        self.checks.event(now, truth, event);
        engine.handle(event);
        match event {
            Event::RouterJoined(router) => {
                let site = router.0 as usize;
                self.sites[site].joined = true;
                self.carry_out();
                self.send_table(site, Arc::clone(&self.table));
            }
            Event::RouterLeft(router) => {
                self.sites[router.0 as usize].joined = false;
                self.carry_out();
            }
            _ => self.carry_out(),
        }
    }

    pub(crate) fn pass(&mut self) {
        let (truth, wall) = (self.now, self.wall_ahead_us);
        let Some(engine) = &mut self.engine else { return };
        let ports = engine.ports_mut();
        (ports.clock.truth, ports.clock.wall_ahead_us) = (truth, wall);
        ports.disk.advance(truth);
        engine.pass();
        self.checks.passes += 1;
        self.carry_out();
    }

    /// What the shell has ordered, in its order; then what always holds.
    pub(crate) fn carry_out(&mut self) {
        let given = std::mem::take(&mut *self.orders.borrow_mut());
        let mut follows = Follows::default();
        let now = self.clock.now(self.now);
        for order in given {
            match order {
                Given::Start(order) => {
                    self.story.line(self.now, || {
                        format!(
                            "ORDER start {} of {} ({})",
                            order.instance, order.spec.name, order.generation
                        )
                    });
                    self.check_id(order.instance);
                    self.check_change(now, &Given::Start(order.clone()));
                    self.checks.orders.start(now, &order);
                    self.backend.start(&order, &mut self.faults, &mut follows);
                    self.checks_physical_room();
                }
                Given::Stop(order) => {
                    self.story.line(self.now, || {
                        format!("ORDER stop {} within {} ({})", order.instance, order.grace, order.generation)
                    });
                    self.check_stop(now, order.instance);
                    self.checks.orders.stop(now, &order);
                    self.backend.stop(&order, &mut self.faults, &mut follows);
                }
                Given::Table(table) => self.published(now, table, &mut follows.due),
                order => self.change_ordered(now, order, &mut follows),
            }
        }
        self.schedule(follows);
        self.check();
    }

    pub(crate) fn published(&mut self, now: Time, table: Arc<RouteTable>, due: &mut Vec<Due>) {
        let before = std::mem::replace(&mut self.table, Arc::clone(&table));
        self.checks.table(now, &before, &table);
        self.story.table(self.now, &before, &table);
        let listed = |t: &RouteTable| -> BTreeSet<InstanceId> {
            t.services.iter().flat_map(|s| &s.instances).map(|i| i.instance).collect()
        };
        for gone in listed(&before).difference(&listed(&table)) {
            if self.faults.strikes(Fault::DiesDraining) {
                let later = self.faults.how(Fault::DiesDraining).below(5_000_000);
                if let Some(pid) = self.backend.by_instance.get(gone) {
                    due.push((Span(later), *pid, Step::Die));
                }
            }
        }
        for site in 0..self.sites.len() {
            self.send_table(site, Arc::clone(&table));
        }
    }

    pub(crate) fn schedule(&mut self, follows: Follows) {
        let life = self.life;
        for (after, pid, step) in follows.due {
            self.after(after, What::Process(pid, step));
        }
        for (after, event) in follows.answers {
            self.after(after, What::Answer(life, event));
        }
        for (rule, what) in follows.wrong {
            self.fail(rule, what);
        }
    }

    /// Orders for what is there already.
    fn change_ordered(&mut self, now: Time, order: Given, follows: &mut Follows) {
        self.story.order(self.now, &order);
        self.check_change(now, &order);
        let faults = &mut self.faults;
        match order {
            Given::Adopt(order, handle) => self.backend.adopt(&order, &handle, faults, follows),
            Given::Pause(instance, generation) => self.backend.pause(instance, generation, faults, follows),
            Given::Resume(instance, generation) => self.backend.resume(instance, generation, faults, follows),
            Given::Specialise(order) => self.backend.specialise(&order, faults, follows),
            Given::AskBusy(order) => self.backend.ask_busy(&order, faults, &mut follows.answers),
            Given::LetGo(instance) => self.backend.let_go(instance),
            Given::Know(services) => self.knows(&services),
            Given::Start(_) | Given::Stop(_) | Given::Table(_) => {}
        }
    }

    pub(crate) fn process(&mut self, pid: Pid, step: Step) {
        let Some(instance) = self.backend.processes.get(&pid).map(|p| p.instance) else { return };
        if matches!(step, Step::Hang | Step::Shut) && self.faults.healed() {
            return;
        }
        let mut follows = Follows::default();
        let gone = self.backend.step(self.now.0, pid, step, &mut self.faults, &mut follows);
        if !self.backend.processes.contains_key(&pid) {
            let name = instance.map_or_else(String::new, |i| format!(", instance {i}"));
            self.story.line(self.now, || format!("c{pid}{name}: {step:?}"));
        }
        for request in gone {
            self.reset(request, pid);
        }
        self.schedule(follows);
    }

    /// An instance has gone with a request at it.
    pub(crate) fn reset(&mut self, request: u32, pid: Pid) {
        let (what, place) = self.requests[request as usize];
        if place == Place::At(pid) {
            self.answer(request, "reset");
            let mut did = Vec::new();
            let now = self.clock.now(self.now);
            self.sites[what.router].router.release(request, Err(Unserved::NoAnswer), now, &mut did);
            self.apply(what.router, did);
        }
    }

    pub(crate) fn cut_off(&mut self, site: usize) {
        let s = &mut self.sites[site];
        if !s.connected {
            return;
        }
        s.connected = false;
        s.epoch += 1;
        let epoch = s.epoch;
        self.story.line(self.now, || format!("router r{site} is cut off"));
        self.after(LEASE, What::LeaseOver(site, epoch));
        let later = self.faults.how(Fault::LeaseEnds).between(LEASE.0 + 10_000, 120_000_000);
        self.after(Span(later), What::Connect(site, epoch));
    }

    pub(crate) fn lease_over(&mut self, site: usize, epoch: u32) {
        let s = &self.sites[site];
        if s.epoch == epoch && s.joined {
            let id = s.router.id;
            self.tell(&Event::RouterLeft(id));
        }
    }

    pub(crate) fn connect(&mut self, site: usize, epoch: u32) {
        if self.engine.is_none() || self.sites[site].epoch != epoch {
            return;
        }
        let s = &mut self.sites[site];
        s.epoch += 1;
        s.connected = true;
        self.story.line(self.now, || format!("router r{site} joins"));
        let mut did = Vec::new();
        s.router.rejoin(&mut did);
        self.apply(site, did);
    }

    pub(crate) fn shut_down(&mut self) {
        self.closing = true;
        self.tell(&Event::ShutDown);
    }

    pub(crate) fn end(&mut self) {
        let alive: Vec<String> = self
            .backend
            .processes
            .iter()
            .filter(|(_, p)| !outlives(&p.spec) || p.instance.is_some())
            .map(|(i, p)| {
                format!(
                    "c{i} of {} ({})",
                    p.spec.name,
                    if p.phase == Phase::Ending { "ending" } else { "up" }
                )
            })
            .collect();
        if !alive.is_empty() {
            self.fail("left-behind", format!("after the shutdown there still are {}", alive.join(", ")));
        }
        if self.engine.as_ref().is_none_or(|e| !e.finished()) {
            self.fail("left-behind", "the shutdown does not come to its end".to_owned());
        }
        let open =
            self.requests.iter().position(|r| matches!(r.1, Place::Held | Place::Asking | Place::At(_)));
        if let Some(open) = open {
            self.fail("one-answer", format!("request {open} never got an answer"));
        }
        lives::check_journal(self);
    }
}
