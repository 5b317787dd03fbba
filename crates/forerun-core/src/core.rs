//! The state of the core and its one door.

use crate::advice::Advised;
use crate::bounds::Bounds;
use crate::budgets::{Budgets, as_journaled};
use crate::busy::Asked;
use crate::canary::Canary;
use crate::classes::Classes;
use crate::demand::Demand;
use crate::depends::Links;
use crate::hand::{Told, WakeBy};
use crate::loads::Loads;
use crate::pace::Pace;
use crate::policy::{LevelValue, Policy};
use crate::room::Rooms;
use crate::usage::{Usage, Window};
use crate::variants::Families;
use crate::wedged::Silent;
use forerun_types::{
    Action, Activity, Event, Generation, InstanceId, PeriodLoad, Reason, Resources, RouterId, ServiceId,
    ServiceSpec, SiteId, Span, StopWhy, Time, Traffic, UserKey,
};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;

/// Services that one tick looks at; what is due beyond that is looked at by the next.
const SERVICES_PER_TICK: usize = 256;

/// Entries of dues beyond a few for each service, before they are swept.
const DUE_SPARE: usize = 1_024;
/// 2020-01-01T00:00:00Z, from which the ids of a life are counted: it keeps them short.
const IDS_SINCE: Time = Time(1_577_836_800_000_000);
/// A life's first instance id is beyond one a 16 microseconds since then. Nothing can start instances as fast as that.
const IDS_SHIFT: u32 = 4;
/// Rounds in which services that look at one another come to rest within a step.
const SETTLE_ROUNDS: u32 = 8;
/// How often within a start the users on their way to a service are looked at again.
const LOOKS_PER_START: u64 = 4;

/// What one router last told of a service.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Gauge {
    pub(crate) router: RouterId,
    pub(crate) in_flight: u32,
    pub(crate) waiting: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) gauges: Vec<Gauge>,
    /// All that are not yet known to be gone, oldest first.
    pub(crate) instances: Vec<InstanceId>,
    pub(crate) tally: Tally,
    pub(crate) wanted: u32,
    pub(crate) reason: Option<Reason>,
    /// The last appraisal, the best first.
    pub(crate) values: Vec<LevelValue>,
    pub(crate) bounds: Bounds,
    /// When it must be looked at, and when it will be at the latest: the earliest entry of it in `Core::due`.
    pub(crate) due: Time,
    pub(crate) scheduled: Time,
    pub(crate) appraised: Time,
    pub(crate) failures: u32,
    /// When one was counted last.
    pub(crate) failed_at: Time,
    pub(crate) backoff_until: Time,
    pub(crate) last_failure: String,
    /// Since when requests wait without interruption.
    pub(crate) waiting_since: Option<Time>,
    pub(crate) dirty: bool,
    pub(crate) leaving: bool,
    /// Why the routers have been told to refuse.
    pub(crate) refusing: Option<String>,
    pub(crate) told: Told,
    /// The count of descriptions when what it launches last changed.
    pub(crate) described: u64,
    /// It is wanted, and what it depends on is kept for it.
    pub(crate) pulls: bool,
    /// No pause before that: the last one was not carried out.
    pub(crate) no_pause_until: Time,
    pub(crate) advised: Advised,
}

/// A service's instances in numbers, renewed whenever one of them changes its state.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) starting: u32,
    pub(crate) ready: u32,
    pub(crate) paused: u32,
    /// The earliest deadline of those that change.
    pub(crate) deadline: Time,
}

impl Default for Tally {
    fn default() -> Self {
        Self { starting: 0, ready: 0, paused: 0, deadline: Time::NEVER }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum State {
    Starting,
    Ready,
    /// Out of the route table of this generation; each router must answer that nothing is in flight.
    Draining {
        generation: Generation,
        quiesced: Vec<RouterId>,
        deadline: Time,
        why: StopWhy,
        reason: Reason,
        /// It is to be frozen then, and not stopped.
        pause: bool,
    },
    Pausing {
        ordered: Time,
        /// It is needed after all: to be thawed as soon as it is frozen.
        back: bool,
    },
    /// Frozen: it keeps its memory, and is in no table.
    Paused,
    Resuming {
        ordered: Time,
    },
    Stopping {
        ordered: Time,
        why: StopWhy,
    },
    /// A generic one that is to become its service's: out of the parent's table of this generation.
    Claimed {
        generation: Generation,
        quiesced: Vec<RouterId>,
        deadline: Time,
    },
    /// It is becoming its service's.
    Specialising {
        ordered: Time,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) service: ServiceId,
    pub(crate) state: State,
    pub(crate) born: Time,
    pub(crate) ready_at: Option<Time>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) in_flight: Vec<(RouterId, u32)>,
    pub(crate) last_used: Time,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu: Span,
    pub(crate) usage_at: Time,
    /// What it has served since.
    pub(crate) window: Window,
    pub(crate) reason: Reason,
    pub(crate) reserved: Resources,
    /// Where that is reserved.
    pub(crate) site: SiteId,
    /// The backend's name for what was adopted; empty for what was started.
    pub(crate) handle: String,
    /// Somebody else started it.
    pub(crate) found: bool,
    /// It runs in what is the user's own.
    pub(crate) own: bool,
    /// It was thawed or given to a key, and not started, when it was last made ready.
    pub(crate) resumed: bool,
    pub(crate) asked: Asked,
    /// Routers that get no answer from it.
    pub(crate) silent: Vec<Silent>,
    /// The count of descriptions when it was made.
    pub(crate) described: u64,
}

/// The decision core over one policy. See the crate's page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Core<P> {
    pub(crate) policy: P,
    pub(crate) demand: Demand,
    pub(crate) usage: Usage,
    pub(crate) loads: Loads,
    pub(crate) now: Time,
    pub(crate) services: Vec<Option<Service>>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) rooms: Rooms,
    pub(crate) paces: BTreeMap<SiteId, Pace>,
    /// Follows from the services' descriptions.
    #[serde(skip)]
    pub(crate) classes: Classes,
    pub(crate) budgets: Budgets,
    pub(crate) routers: Vec<RouterId>,
    pub(crate) generation: Generation,
    pub(crate) last_instance: InstanceId,
    /// The last id that an earlier life gave, and those of them that this one has taken over.
    pub(crate) last_before: InstanceId,
    pub(crate) adopted: BTreeSet<InstanceId>,
    /// Counts the changes of what services there are and how they are described.
    described: u64,
    pub(crate) links: Links,
    /// Links of a chain of dependencies that are being started. Only within a step.
    #[serde(skip)]
    pub(crate) depth: u32,
    /// What is to be looked at, and when. A service whose due moved later keeps its early entry: most dues move
    /// later all the time, and one idle look is cheaper than moving an entry at each.
    due: BinaryHeap<Reverse<(Time, ServiceId)>>,
    /// Services that would have more if there were room.
    pub(crate) short: BTreeSet<ServiceId>,
    /// Something was freed, or can be, since the short ones were last looked at.
    pub(crate) room_changed: bool,
    /// Something may be taken by a held request, though no room was freed. Only within a step.
    #[serde(skip)]
    pub(crate) held_again: bool,
    dirty: Vec<ServiceId>,
    pub(crate) closing: bool,
    pub(crate) families: Families,
    finished: bool,
    records_lost: u64,
    #[serde(skip)]
    touched: Vec<ServiceId>,
    #[cfg(feature = "canaries")]
    #[serde(skip)]
    canary: Option<Canary>,
}

impl<P: Policy> Core<P> {
    #[must_use]
    pub fn new(policy: P) -> Self {
        Self {
            policy,
            demand: Demand::default(),
            usage: Usage::default(),
            loads: Loads::default(),
            now: Time::default(),
            services: Vec::new(),
            instances: BTreeMap::new(),
            rooms: Rooms::default(),
            paces: BTreeMap::new(),
            classes: Classes::default(),
            budgets: Budgets::default(),
            routers: Vec::new(),
            generation: Generation(0),
            last_instance: InstanceId(0),
            last_before: InstanceId(0),
            adopted: BTreeSet::new(),
            described: 0,
            links: Links::default(),
            depth: 0,
            due: BinaryHeap::new(),
            short: BTreeSet::new(),
            room_changed: false,
            held_again: false,
            dirty: Vec::new(),
            closing: false,
            families: Families::default(),
            finished: false,
            records_lost: 0,
            touched: Vec::new(),
            #[cfg(feature = "canaries")]
            canary: None,
        }
    }

    /// Switches on a bug that is built in on purpose.
    #[cfg(feature = "canaries")]
    pub fn set_canary(&mut self, canary: Option<Canary>) {
        self.canary = canary;
    }

    #[cfg(feature = "canaries")]
    pub(crate) fn is_canary(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }

    #[cfg(not(feature = "canaries"))]
    pub(crate) fn is_canary(&self, _: Canary) -> bool {
        false
    }

    /// The one door: takes an event at `now` and appends what is to be done about it.
    ///
    /// `now` never goes back; an earlier one counts as the latest seen. Work per step is bounded: an event touches the
    /// services that it names, and a tick at most 256 of those that are due.
    pub fn step(&mut self, now: Time, event: &Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        let now = self.now;
        // Those of an earlier life tell nothing.
        let heard = !self.routers.is_empty() && !matches!(event, Event::Began);
        self.loads.pass(now, heard);
        self.learn_classes();
        match event {
            Event::Began => self.began(actions),
            Event::Site(site) => {
                self.rooms.describe(site);
                self.room_changed = true;
            }
            Event::Service(spec) => {
                self.service(&as_journaled(spec), actions);
                self.parent_described(spec.id, actions);
            }
            Event::ServiceGone(service) => {
                self.service_gone(*service);
                self.parent_gone(*service);
            }
            Event::ZoneOffset { service, seconds } => self.with(*service, |s| s.bounds.zone(*seconds)),
            Event::Override { service, order } => {
                self.override_told(*service, *order);
                self.mark_relatives(*service);
            }
            Event::Tick => self.tick(),
            Event::Traffic(traffic) => self.traffic(traffic),
            Event::Waiting { router, service, waiting, user } => {
                if let Some(s) =
                    self.get_mut(*service).filter(|s| s.tally.starting + s.tally.ready == 0 && s.held() == 0)
                {
                    s.note_wake(now, WakeBy::User(*user));
                }
                self.waiting(*router, *service, *waiting);
                self.key_used(*service);
                self.react(*service, actions);
                return; // the report that follows tells of the load; until then nothing is taken away
            }
            Event::Abandoned { router, service, waiting } => self.waiting(*router, *service, *waiting),
            Event::PeriodLoads { period, loads } => self.period_loads(*period, loads),
            Event::Ready { instance, address, took } => self.ready(*instance, *address, *took, actions),
            Event::StartFailed { instance, why } => self.start_failed(*instance, why, actions),
            Event::Died { instance, why } => self.died(*instance, why, actions),
            Event::Stopped { instance } => self.stopped(*instance, actions),
            Event::InstanceUsage { instance, memory_bytes, cpu } => self.used(*instance, *memory_bytes, *cpu),
            Event::Quiesced { router, instance, generation } => {
                self.quiesced(*router, *instance, *generation, actions);
            }
            Event::RouterJoined(router) => self.router_joined(*router),
            Event::RouterLeft(router) => self.router_left(*router, actions),
            Event::ClockJumped { .. } => {}
            Event::Forget(user) => self.forget(*user),
            Event::ShutDown => self.shut_down(),
            Event::KeySeen { service, key } => self.key_seen(*service, key, actions),
            Event::Touched { instance, .. } => self.touched(*instance, actions),
            Event::Specialised { instance, took } => self.specialised(*instance, *took, actions),
            Event::ExternalPrediction { service, from, step, quantiles_milli } => {
                if self.get(*service).is_some() {
                    self.loads.outside(*service, *from, *step, quantiles_milli);
                }
            }
            event => self.level_or_hand(event, actions),
        }
        // Room that has come goes to those who wait for it before anyone else may take it.
        self.serve_short(actions);
        self.take_turns();
        self.settle_dirty(actions);
        if self.closing && !self.finished && self.instances.is_empty() {
            self.finished = true;
            actions.push(Action::Finished);
        }
    }

    /// Events of what is found, frozen or told past the plan.
    fn level_or_hand(&mut self, event: &Event, actions: &mut Vec<Action>) {
        if let Event::Found { service, .. }
        | Event::ModeTold { service, .. }
        | Event::OwnState { service, .. } = event
        {
            self.mark_relatives(*service);
        }
        match event {
            Event::Found { service, handle, was, address, paused } => {
                self.found(*service, handle, *was, *address, *paused, actions);
            }
            Event::InstanceTraffic { instance, storage_bytes, .. } => self.moved(*instance, *storage_bytes),
            Event::Paused { instance } => self.paused(*instance, actions),
            Event::Resumed { instance, took } => self.resumed(*instance, *took, actions),
            Event::NotChanged { instance, why } => self.not_changed(*instance, why, actions),
            Event::StoppedByHand { instance, why } => self.stopped_by_hand(*instance, why, actions),
            Event::Completed { instance } => self.completed(*instance, actions),
            Event::Progress { instance, what } => self.progress(*instance, what, actions),
            Event::ModeTold { service, mode } => self.mode_told(*service, *mode, actions),
            Event::BusyAnswer { instance, busy, why } => self.busy_answer(*instance, *busy, why),
            Event::OwnState { service, there } => self.own_state(*service, *there, actions),
            Event::IsOwn { instance } => self.is_own(*instance),
            Event::Unanswered { router, instance, tries, left, silent } => {
                self.silence_told(*instance, Silent::new(*router, *tries, *left, *silent));
            }
            Event::ColdStartBudget { class, ppm } => self.budgets.set(class, *ppm),
            _ => {}
        }
    }

    fn forget(&mut self, user: UserKey) {
        self.policy.forget(user);
        self.forget_keys(user);
        for wake in self.services.iter_mut().flatten().flat_map(|s| &mut s.told.wakes) {
            if wake.by == WakeBy::User(user) {
                wake.by = WakeBy::User(UserKey::NOBODY);
            }
        }
    }

    fn is_own(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.own = true;
        }
    }

    fn router_joined(&mut self, router: RouterId) {
        if !self.routers.contains(&router) {
            self.routers.push(router);
        }
    }

    /// When the core wants its next [`Event::Tick`]; [`Time::NEVER`] when nothing changes by waiting.
    #[must_use]
    pub fn next_due(&self) -> Time {
        self.due.peek().map_or(Time::NEVER, |d| d.0.0).min(self.loads.next_due())
    }

    /// From now on the load of every service is followed and forecast step by step, which no decision needs. Before
    /// the first step.
    pub fn forecast_loads(&mut self) {
        self.loads.switch_on();
    }

    #[must_use]
    pub fn policy(&self) -> &P {
        &self.policy
    }

    /// For what a configuration says of the policy, before the first step.
    pub fn policy_mut(&mut self) -> &mut P {
        &mut self.policy
    }

    /// The first service id that has never been given: what was learned of one that is gone must not pass to another.
    #[must_use]
    pub fn next_service(&self) -> ServiceId {
        ServiceId(self.services.len() as u32)
    }

    /// Rises with every change of what services there are and how they are described.
    #[must_use]
    pub fn described(&self) -> u64 {
        self.described
    }

    pub(crate) fn note_described(&mut self) {
        self.described += 1;
    }

    /// All services as they are described now, in order of their ids.
    pub fn specs(&self) -> impl Iterator<Item = &Arc<ServiceSpec>> + '_ {
        self.specs_from(ServiceId(0))
    }

    /// Those from an id on.
    pub fn specs_from(&self, first: ServiceId) -> impl Iterator<Item = &Arc<ServiceSpec>> + '_ {
        self.services.iter().skip(first.0 as usize).flatten().map(|s| &s.spec)
    }

    /// Learning records that routers had to drop so far.
    #[must_use]
    pub fn records_lost(&self) -> u64 {
        self.records_lost
    }

    #[must_use]
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// What activities take.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(crate) fn get(&self, service: ServiceId) -> Option<&Service> {
        self.services.get(service.0 as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, service: ServiceId) -> Option<&mut Service> {
        self.services.get_mut(service.0 as usize)?.as_mut()
    }

    pub(crate) fn with(&mut self, service: ServiceId, change: impl FnOnce(&mut Service)) {
        if let Some(s) = self.get_mut(service) {
            change(s);
            self.mark(service);
        }
    }

    /// Has a service settled at the end of this step.
    pub(crate) fn mark(&mut self, service: ServiceId) {
        if let Some(s) = self.get_mut(service)
            && !s.dirty
        {
            s.dirty = true;
            self.dirty.push(service);
        }
    }

    fn settle_dirty(&mut self, actions: &mut Vec<Action>) {
        for _ in 0..SETTLE_ROUNDS {
            let mut dirty = std::mem::take(&mut self.dirty);
            for service in dirty.drain(..) {
                if let Some(s) = self.get_mut(service) {
                    s.dirty = false;
                    self.settle(service, actions);
                }
            }
            if self.dirty.is_empty() {
                self.dirty = dirty; // keeps the allocation
                return;
            }
        }
        // Chains that are longer than that come to rest over the next ticks.
        let now = self.now;
        for service in self.dirty.clone() {
            self.set_due(service, now);
        }
    }

    fn tick(&mut self) {
        let (services, demand) = (&self.services, &self.demand);
        let described = |id: ServiceId| services.get(id.0 as usize).and_then(Option::as_ref);
        self.loads.tick(self.now, |id| described(id).map_or(Span::ZERO, |s| demand.view(&s.spec, 0).start));
        let mut left = SERVICES_PER_TICK;
        while let Some(&Reverse((at, service))) = self.due.peek()
            && at <= self.now
            && left > 0
        {
            self.due.pop();
            let now = self.now;
            let Some(s) = self.get_mut(service).filter(|s| s.scheduled == at) else { continue };
            s.scheduled = Time::NEVER;
            if s.due <= now {
                s.due = Time::NEVER;
                self.mark(service);
                left -= 1;
            } else {
                self.schedule(service);
            }
        }
    }

    /// Has a service looked at when `at` comes.
    pub(crate) fn set_due(&mut self, service: ServiceId, at: Time) {
        if let Some(s) = self.get_mut(service) {
            s.due = at;
            self.schedule(service);
        }
    }

    fn schedule(&mut self, service: ServiceId) {
        if let Some(s) = self.get_mut(service)
            && s.due < s.scheduled
        {
            s.scheduled = s.due;
            let entry = Reverse((s.due, service));
            self.due.push(entry);
        }
        // Early entries of one service that has moved back and forth pile up; only its scheduled one counts.
        if self.due.len() > 4 * self.services.len() + DUE_SPARE {
            let scheduled = self.services.iter().flatten().filter(|s| s.scheduled != Time::NEVER);
            self.due = scheduled.map(|s| Reverse((s.scheduled, s.spec.id))).collect();
        }
    }

    /// Users are on their way: looks again, but not more often than a start takes anyway.
    fn users_touched(&mut self, service: ServiceId) {
        let now = self.now;
        let Some(s) = self.get(service) else { return };
        let soon = s.appraised + Span(self.demand.start_time(&s.spec).0 / LOOKS_PER_START);
        if soon <= now {
            self.mark(service);
        } else if soon < s.due {
            self.set_due(service, soon);
        }
    }

    fn began(&mut self, actions: &mut Vec<Action>) {
        // A router that outlives the engine obeys no table older than its own, which may be newer than anything that
        // the journal kept. Generations are given far slower than one a microsecond, so that time is ahead of them.
        if !self.is_canary(Canary::GenerationsRepeat) {
            self.generation.0 = self.generation.0.max(self.now.0);
        }
        // Nor may an instance have the id of another that the journal did not keep: a router may still send requests
        // to that one, and a container may still bear its name.
        if !self.is_canary(Canary::IdsRepeat) {
            let beyond = self.now.since(IDS_SINCE).0 >> IDS_SHIFT;
            self.last_instance.0 = self.last_instance.0.max(beyond);
        }
        self.note_owners();
        self.instances.clear();
        self.last_before = self.last_instance;
        self.adopted.clear();
        self.rooms.began();
        self.pace_began();
        self.loads.began();
        self.families.untouched.clear();
        self.routers.clear();
        self.short.clear();
        self.closing = false;
        self.finished = false;
        for at in 0..self.services.len() {
            let service = ServiceId(at as u32);
            let now = self.now;
            let Some(s) = self.get_mut(service) else { continue };
            s.expect_listing(now);
            s.instances.clear();
            s.tally = Tally::default();
            s.gauges.clear();
            s.failures = 0;
            s.backoff_until = Time::default();
            s.waiting_since = None;
            s.wanted = 0;
            s.advised.end();
            s.due = Time::NEVER;
            s.scheduled = Time::NEVER;
            self.policy.needed(now, service, 0, 0);
            // Nothing is decided yet: what is known of the world is an earlier life's, and is described anew.
            self.publish(service, actions);
        }
        self.due.clear();
    }

    pub(crate) fn service(&mut self, spec: &Arc<ServiceSpec>, actions: &mut Vec<Action>) {
        let (id, at) = (spec.id, spec.id.0 as usize);
        if self.services.len() <= at {
            self.services.resize_with(at + 1, || None);
        }
        self.note_described();
        let (now, described) = (self.now, self.described);
        if let Some(old) = &self.services[at] {
            self.links.remove(&old.spec);
        }
        self.links.add(spec);
        self.classes.describe(spec);
        match &mut self.services[at] {
            Some(s) => {
                if s.spec.launch != spec.launch || s.spec.resources != spec.resources {
                    s.described = described;
                }
                s.spec = Arc::clone(spec);
                s.leaving = false;
            }
            slot => {
                let mut s = Service::new(spec);
                s.expect_listing(now);
                *slot = Some(s);
            }
        }
        if !self.acts(id) {
            self.keep_draining(id);
        }
        // Its instances' deadlines follow from its times.
        self.retally(id);
        self.policy.service(&self.demand.view(spec, 0));
        self.publish(id, actions);
        self.mark(id);
    }

    fn service_gone(&mut self, service: ServiceId) {
        self.with(service, |s| s.leaving = true);
    }

    fn shut_down(&mut self) {
        self.closing = true;
        for at in 0..self.services.len() {
            self.mark(ServiceId(at as u32));
        }
    }

    fn traffic(&mut self, traffic: &Traffic) {
        self.records_lost = self.records_lost.saturating_add(traffic.lost);
        let mut touched = std::mem::take(&mut self.touched);
        for activity in &traffic.activities {
            let Some(parent) = self.families.parent_of(activity.service) else {
                self.policy.activity(activity, &mut touched);
                continue;
            };
            // A person's next step is to the service; to which of its variants follows from the person's key there.
            // Variants come and go, and nothing that lasts may name them.
            self.key_used(activity.service);
            self.policy.keyed(activity, parent);
            self.policy.activity(&Activity { service: parent, ..*activity }, &mut touched);
        }
        for service in touched.drain(..) {
            self.users_touched(service);
        }
        self.touched = touched;
        for done in &traffic.finished {
            self.demand.finished(done.service, done.duration);
            // What is served costs the same whoever it is for: a variant's activities are its service's.
            let service = self.families.parent_of(done.service).unwrap_or(done.service);
            let window = self.instances.get_mut(&done.instance).map(|i| &mut i.window);
            self.usage.finished(self.now, service, done, window);
            self.note_spending(done);
        }
        for (action, name) in &traffic.action_names {
            self.usage.named(*action, name);
        }
        for load in &traffic.instances {
            if let Some(instance) = self.instances.get_mut(&load.instance) {
                match instance.in_flight.iter_mut().find(|f| f.0 == traffic.router) {
                    Some(flight) => flight.1 = load.in_flight,
                    None => instance.in_flight.push((traffic.router, load.in_flight)),
                }
                instance.last_used = instance.last_used.max(load.last_used);
                if load.in_flight > 0 {
                    instance.asked.used();
                }
                self.room_changed |= load.in_flight == 0;
                let service = instance.service;
                self.mark(service);
            }
        }
        let forgets = self.is_canary(Canary::LostWaiter);
        for load in &traffic.services {
            let now = self.now;
            let Some(s) = self.get_mut(load.service) else { continue };
            let before = s.requests();
            s.gauge(traffic.router, |g| {
                g.in_flight = load.in_flight;
                g.waiting = if forgets { 0 } else { load.waiting };
            });
            s.note_waiting(now);
            let after = s.requests();
            // Other routers' requests are counted as they were last told.
            let own = load.in_flight.saturating_add(load.waiting).min(after);
            let peak = before.max(after).max((after - own).saturating_add(load.peak));
            let (peak_needed, needed) = (s.spec.instances_for(peak), s.spec.instances_for(after));
            self.loads.seen(load.service, peak, after);
            self.policy.needed(now, load.service, peak_needed, needed);
            self.mark(load.service);
        }
    }

    fn waiting(&mut self, router: RouterId, service: ServiceId, waiting: u32) {
        let now = self.now;
        let Some(s) = self.get_mut(service) else { return };
        let before = s.requests();
        s.gauge(router, |g| g.waiting = waiting);
        s.note_waiting(now);
        let after = s.requests();
        let (peak, needed) = (s.spec.instances_for(before.max(after)), s.spec.instances_for(after));
        self.loads.seen(service, before.max(after), after);
        // The plan and the policy must mean the same need, or what starts for a request that has been given up is
        // stopped instead of being judged by its chances.
        self.policy.needed(now, service, peak, needed);
        self.held_again |= after < before;
        self.mark(service);
    }

    fn period_loads(&mut self, period: Span, loads: &[PeriodLoad]) {
        for load in loads {
            self.policy.period(self.now, load.service, period, load.needed);
            self.mark(load.service);
        }
    }

    pub(crate) fn order_generation(&mut self) -> Generation {
        self.generation.0 += 1;
        self.generation
    }

    /// Where the service's instances are started.
    pub(crate) fn site(&self, service: ServiceId) -> SiteId {
        self.get(service).map_or(SiteId(0), |s| self.rooms.of(&s.spec.launch))
    }
}

impl Service {
    fn new(spec: &Arc<ServiceSpec>) -> Self {
        Self {
            spec: Arc::clone(spec),
            gauges: Vec::new(),
            instances: Vec::new(),
            tally: Tally::default(),
            wanted: 0,
            reason: None,
            values: Vec::new(),
            bounds: Bounds::default(),
            due: Time::NEVER,
            scheduled: Time::NEVER,
            appraised: Time::default(),
            failures: 0,
            failed_at: Time::default(),
            backoff_until: Time::default(),
            last_failure: String::new(),
            waiting_since: None,
            dirty: false,
            leaving: false,
            refusing: None,
            told: Told::default(),
            described: 0,
            pulls: false,
            no_pause_until: Time::default(),
            advised: Advised::default(),
        }
    }

    fn gauge(&mut self, router: RouterId, change: impl FnOnce(&mut Gauge)) {
        let at = self.gauges.iter().position(|g| g.router == router).unwrap_or_else(|| {
            self.gauges.push(Gauge { router, ..Gauge::default() });
            self.gauges.len() - 1
        });
        change(&mut self.gauges[at]);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.gauges.iter().fold(0, |sum, g| sum.saturating_add(g.in_flight))
    }

    pub(crate) fn held(&self) -> u32 {
        self.gauges.iter().fold(0, |sum, g| sum.saturating_add(g.waiting))
    }

    /// Requests at instances or held, now.
    pub(crate) fn requests(&self) -> u32 {
        self.in_flight().saturating_add(self.held())
    }

    pub(crate) fn note_waiting(&mut self, now: Time) {
        self.waiting_since = match (self.held(), self.waiting_since) {
            (0, _) => None,
            (_, None) => Some(now),
            (_, since) => since,
        };
    }
}

impl Instance {
    /// One whose start is ordered at `born`.
    pub(crate) fn new(
        service: ServiceId,
        born: Time,
        described: u64,
        reason: Reason,
        (site, reserved): (SiteId, Resources),
    ) -> Self {
        Self {
            service,
            state: State::Starting,
            born,
            ready_at: None,
            address: None,
            in_flight: Vec::new(),
            last_used: born,
            memory_bytes: 0,
            cpu: Span::ZERO,
            usage_at: born,
            window: Window::default(),
            reason,
            reserved,
            site,
            handle: String::new(),
            found: false,
            own: false,
            resumed: false,
            asked: Asked::default(),
            silent: Vec::new(),
            described,
        }
    }

    pub(crate) fn requests(&self) -> u32 {
        self.in_flight.iter().fold(0, |sum, f| sum.saturating_add(f.1))
    }

    /// Counts towards what the plan wants.
    pub(crate) fn counts(&self) -> bool {
        matches!(
            self.state,
            State::Starting
                | State::Ready
                | State::Resuming { .. }
                | State::Pausing { back: true, .. }
                | State::Claimed { .. }
                | State::Specialising { .. }
        )
    }

    /// Is on its way out: what it has reserved will be free.
    pub(crate) fn goes(&self) -> bool {
        matches!(self.state, State::Draining { pause: false, .. } | State::Stopping { .. })
    }
}
