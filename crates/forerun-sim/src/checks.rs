//! What always holds of the world, read from orders, events, counters and instances, and from nothing of the core's.

use crate::classes::{Shares, kept};
use crate::rules::{Levels, elder};
use crate::scenario::Setting;
use crate::wedged::Silences;
use crate::world::World;
use forerun_engine::invariants::{Invariants, Seen};
use forerun_types::{
    Event, InstanceId, Mode, Resources, RouteTable, RouterId, ServiceId, ServiceSpec, SiteSpec, Span, Time,
    UserKey,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A held request that lacks an instance for which there is room gets one ordered within this.
const SHORT_MAX: Span = Span::from_secs(5);
/// One that needs room which idle instances take gets it within this: their drains have begun by then.
const STARVED_MAX: Span = Span::from_secs(15);
/// A drain that is over is followed by a stop within this.
const DRAIN_LATE: Span = Span::from_secs(5);
/// After a failure starts may pause so long: the longest back-off.
const BACKOFF: Span = Span::from_secs(62);
/// Ticks in ten seconds: the shell allows one per 2 ms, and none of these worlds needs a tenth of that.
const PASSES_MAX: u32 = 4_000;

/// What is remembered to see whether it holds.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) orders: Invariants,
    /// In flight and waiting, as the engine was last told.
    told: BTreeMap<(RouterId, ServiceId), (u32, u32)>,
    failed_at: BTreeMap<ServiceId, Time>,
    short_since: BTreeMap<ServiceId, Time>,
    starved_since: BTreeMap<ServiceId, Time>,
    /// Users whose activities the engine was told of in this life, and when.
    pub(crate) users: Vec<(Time, UserKey)>,
    /// Users that are on the disk for sure, and all that there ever were.
    pub(crate) users_kept: BTreeSet<UserKey>,
    pub(crate) users_seen: BTreeSet<UserKey>,
    pub(crate) passes: u32,
    passes_since: Time,
    pub(crate) site: SiteSpec,
    /// Services as they are described now, and until when a person's word stands for them.
    pub(crate) services: BTreeMap<ServiceId, Arc<ServiceSpec>>,
    pub(crate) levels: Levels,
    told_what: BTreeMap<ServiceId, Time>,
    /// The longest that any word so far could stand: a life whose journal lost the last one goes by one before it.
    told_longest: BTreeMap<ServiceId, Time>,
    /// All instances that were ever ordered, and in which life.
    given: BTreeMap<InstanceId, u32>,
    pub(crate) silences: Silences,
    pub(crate) shares: Shares,
    pub(crate) closing: bool,
}

impl Checks {
    pub(crate) fn new(setting: &Setting) -> Self {
        Self {
            orders: Invariants::default(),
            told: BTreeMap::new(),
            failed_at: BTreeMap::new(),
            short_since: BTreeMap::new(),
            starved_since: BTreeMap::new(),
            users: Vec::new(),
            users_kept: BTreeSet::new(),
            users_seen: BTreeSet::new(),
            passes: 0,
            passes_since: Time(0),
            site: setting.site.clone(),
            services: BTreeMap::new(),
            levels: Levels::default(),
            told_what: BTreeMap::new(),
            told_longest: BTreeMap::new(),
            given: BTreeMap::new(),
            silences: Silences::default(),
            shares: Shares::default(),
            closing: false,
        }
    }

    /// Whether a service can always get an instance, whatever the others' `min` takes.
    pub(crate) fn has_room_for(&self, setting: &Setting, spec: &ServiceSpec) -> bool {
        // Each names only earlier ones: from the last on, whoever is up keeps up what it names.
        let mut least: Vec<u32> =
            setting.services.iter().map(|s| if s.mode == Mode::Act { s.min } else { 0 }).collect();
        let at = spec.id.0 as usize;
        let own = least[at];
        least[at] = own.max(1);
        let mut needed = BTreeSet::from([at]);
        for (at, s) in setting.services.iter().enumerate().rev() {
            let is_up = least[at] > 0;
            for need in s.depends_on.iter().filter(|_| is_up) {
                let Some(to) = setting.services.iter().position(|s| s.name == need.service) else { continue };
                least[to] = least[to].max(1);
                if needed.contains(&at) {
                    needed.insert(to);
                }
            }
        }
        let has_room = |spec: &ServiceSpec| {
            let (mut used, mut count) = (Resources::default(), 0);
            for (s, least) in setting.services.iter().zip(&least).filter(|(s, _)| s.id != spec.id) {
                used.memory_bytes += s.resources.memory_bytes * u64::from(*least);
                count += least;
            }
            // What is other classes' own is not for it, whether they use it or not.
            let kept = kept(&self.site, &setting.services, spec, |_| [0, 0]);
            used.memory_bytes += kept[0];
            self.fits(&used, count + kept[1] as u32, spec, 1)
        };
        let needed = || needed.iter().map(|at| &setting.services[*at]);
        needed().all(|s| s.mode == Mode::Act) && needed().all(|s| has_room(s))
    }

    fn fits(&self, used: &Resources, count: u32, spec: &ServiceSpec, more: u32) -> bool {
        let memory = used.memory_bytes + spec.resources.memory_bytes * u64::from(more);
        (self.site.instances_max == 0 || count + more <= self.site.instances_max)
            && (self.site.capacity.memory_bytes == 0 || memory <= self.site.capacity.memory_bytes)
    }

    /// Before the engine handles it; `now` is the engine's, `truth` the world's.
    pub(crate) fn event(&mut self, now: Time, truth: Time, event: &Event) {
        let service_of = |orders: &Invariants, instance: InstanceId| {
            orders.instances().find(|i| i.instance == instance).map(|i| i.spec.id)
        };
        match event {
            Event::Began => {
                self.told.clear();
                self.failed_at.clear();
                self.short_since.clear();
                self.starved_since.clear();
                self.users.clear();
                self.services.clear();
                self.told_what.clone_from(&self.told_longest);
            }
            Event::ShutDown => self.closing = true,
            Event::Service(spec) => {
                let known = self.services.insert(spec.id, Arc::clone(spec)).is_some();
                // One that went with its last instance comes back with nothing: no router tells of it in between.
                if !known && self.orders.instances().all(|i| i.spec.id != spec.id) {
                    self.told.retain(|key, _| key.1 != spec.id);
                }
                self.short_since.remove(&spec.id);
                self.starved_since.remove(&spec.id);
            }
            Event::ServiceGone(service) => {
                self.services.remove(service);
            }
            Event::Override { service, order } => {
                let until = if order.instances.is_some() { order.until } else { now };
                self.told_what.insert(*service, until);
                let longest = self.told_longest.entry(*service).or_insert(until);
                *longest = until.max(*longest);
            }
            Event::RouterLeft(router) => self.told.retain(|key, _| key.0 != *router),
            Event::Waiting { router, service, waiting, .. }
            | Event::Abandoned { router, service, waiting } => {
                self.told.entry((*router, *service)).or_default().1 = *waiting;
            }
            Event::Traffic(traffic) => {
                for load in &traffic.services {
                    self.told.insert((traffic.router, load.service), (load.in_flight, load.waiting));
                }
                for activity in &traffic.activities {
                    self.users.push((truth, activity.user));
                    self.users_seen.insert(activity.user);
                }
            }
            Event::StartFailed { instance, .. }
            | Event::Died { instance, .. }
            | Event::NotChanged { instance, .. }
            | Event::StoppedByHand { instance, .. }
            | Event::Stopped { instance } => {
                if let Some(service) = service_of(&self.orders, *instance) {
                    self.failed_at.insert(service, now);
                }
            }
            _ => {}
        }
        self.level_event(now, event);
        self.silences.event(event);
        self.shares.event(event);
        self.orders.event(event);
    }

    pub(crate) fn table(&mut self, now: Time, before: &RouteTable, table: &RouteTable) {
        for route in &table.services {
            let old = before.service(route.spec.id);
            if old.is_none() && route.spec.variant.is_some() {
                // What a router still told of the variant that had this number before comes late, and is not its.
                self.told.retain(|key, _| key.1 != route.spec.id);
            }
            if old.is_none_or(|old| !Arc::ptr_eq(old, route)) {
                self.orders.route(now, table.generation, route.spec.id, Some(route));
            }
        }
        self.level_table(now, before, table, self.closing);
        for old in before.services.iter().filter(|s| table.service(s.spec.id).is_none()) {
            if old.spec.variant.is_some() {
                self.told.retain(|key, _| key.1 != old.spec.id);
            }
            self.orders.route(now, table.generation, old.spec.id, None);
        }
    }

    /// In flight and waiting of a service, over all routers.
    fn told_of(&self, service: ServiceId) -> (u32, u32) {
        self.told.iter().filter(|t| t.0.1 == service).fold((0, 0), |sum, t| (sum.0 + t.1.0, sum.1 + t.1.1))
    }

    /// Reserved memory and instances now.
    pub(crate) fn reserved(&self) -> (Resources, u32) {
        self.orders.instances().fold((Resources::default(), 0), |(mut used, count), i| {
            used.memory_bytes += i.reserved.memory_bytes;
            (used, count + 1)
        })
    }

    fn counting(&self, service: ServiceId) -> u32 {
        let counts = |i: &Seen<'_>| i.counts || self.levels.on_its_way(i.instance);
        self.orders.instances().filter(|i| i.spec.id == service && counts(i)).count() as u32
    }

    /// Of a service and all its keys.
    fn family(&self, spec: &ServiceSpec) -> u32 {
        let counts = |i: &Seen<'_>| i.counts || self.levels.on_its_way(i.instance);
        let elder_id = elder(spec);
        self.orders.instances().filter(|i| elder(i.spec) == elder_id && counts(i)).count() as u32
    }

    /// Instances that the load that the engine knows of needs beyond those that there are.
    pub(crate) fn missing(&self, spec: &ServiceSpec) -> u32 {
        let (in_flight, waiting) = self.told_of(spec.id);
        let acts = self.levels.mode(spec) == Mode::Act && !self.levels.is_down(spec);
        if waiting == 0 || !acts || self.unmet(spec).is_some() {
            return 0;
        }
        let have = self.counting(spec.id);
        let most = spec.max.saturating_sub(self.family(spec) - have);
        spec.instances_for(in_flight + waiting).min(most).saturating_sub(have)
    }

    pub(crate) fn pauses(&self, now: Time, service: ServiceId) -> bool {
        self.failed_at.get(&service).is_some_and(|at| now < *at + BACKOFF)
    }

    /// A held request for which there is room, or could be, and nothing is on its way.
    fn forgotten(&mut self, now: Time) -> Option<String> {
        if self.closing {
            return None;
        }
        let (used, count) = self.reserved();
        let services = self.described();
        for spec in &services {
            // What other classes may still take of their own is no room.
            let kept = kept(&self.site, &services, spec, |class| self.held_by(class));
            let (used, count) = (beside(used, kept), count + kept[1] as u32);
            let told = self.is_told(now, elder(spec));
            let waits = self.pauses(now, spec.id) || self.waits_for_silent(spec);
            let short = self.missing(spec) > 0 && !waits && !told && !self.goes_after(spec, &services);
            if !short || !self.fits(&used, count, spec, 1) {
                self.short_since.remove(&spec.id);
            } else if now > *self.short_since.entry(spec.id).or_insert(now) + SHORT_MAX {
                let (in_flight, waiting) = self.told_of(spec.id);
                return Some(format!(
                    "{waiting} wait for {}, {in_flight} are served, {} instances are ready or on their way, and \
                     for {SHORT_MAX} there has been room for one more",
                    spec.name,
                    self.counting(spec.id)
                ));
            }
            if !short || self.counting(spec.id) > 0 || !self.could_be_made(now, spec, &services) {
                self.starved_since.remove(&spec.id);
            } else if now > *self.starved_since.entry(spec.id).or_insert(now) + STARVED_MAX {
                return Some(format!(
                    "requests wait for {} and none of its instances is on its way, and for {STARVED_MAX} others \
                     have been idle that take its room",
                    spec.name
                ));
            }
        }
        None
    }

    /// The services as they are described now, and their keys.
    pub(crate) fn described(&self) -> Vec<Arc<ServiceSpec>> {
        let parent_is_there = |s: &&Arc<ServiceSpec>| self.services.contains_key(&elder(s));
        let variants = self.levels.variants.values().filter(parent_is_there);
        self.services.values().chain(variants).cloned().collect()
    }

    /// Whether a person's word stands for a service.
    pub(crate) fn is_told(&self, now: Time, service: ServiceId) -> bool {
        self.told_what.get(&service).is_some_and(|until| now <= *until)
    }

    /// Whether stopping what is idle, and beyond its `min`, would make room; and nobody else waits, and nothing is
    /// on its way out.
    fn could_be_made(&self, now: Time, spec: &ServiceSpec, services: &[Arc<ServiceSpec>]) -> bool {
        let kept = kept(&self.site, services, spec, |class| self.held_by(class));
        let (used, count) = self.reserved();
        let (mut used, mut count) = (beside(used, kept), count + kept[1] as u32);
        let others_wait = services.iter().any(|s| s.id != spec.id && self.missing(s) > 0);
        if others_wait || self.orders.instances().any(|i| !i.counts) || self.fits(&used, count, spec, 1) {
            return false;
        }
        // What a person asked for is not taken.
        // Nor what is busy, is only watched, was stopped by hand, or is needed by others.
        let needed =
            |s: &ServiceSpec| services.iter().any(|d| d.depends_on.iter().any(|n| n.service == s.name));
        let free = |s: &ServiceSpec| {
            let still = s.busy.is_none() && self.levels.mode(s) == Mode::Act && !self.levels.is_down(s);
            still
                && !needed(s)
                && (s.sla.guarantee_milli == 0 || s.sla.name == spec.sla.name)
                && self.told_of(s.id) == (0, 0)
                && !self.is_told(now, elder(s))
        };
        for other in services.iter().filter(|s| s.id != spec.id && free(s)) {
            let ready = self.orders.instances().filter(|i| i.spec.id == other.id && i.ready).count() as u32;
            let spare = ready.min(self.counting(other.id).saturating_sub(other.min));
            count -= spare;
            used.memory_bytes -= other.resources.memory_bytes * u64::from(spare);
        }
        self.fits(&used, count, spec, 1)
    }

    /// Ready instances are in the table or on their way out; those that are gone are not in it.
    fn table_is_true(&self, table: &RouteTable) -> Option<String> {
        for i in self.orders.instances() {
            if i.ready && i.counts && !i.listed {
                return Some(format!("{} of {} is ready and in no table", i.instance, i.spec.name));
            }
        }
        // What goes on without the engine is still reached by its last table.
        let let_go = self.levels.let_go.iter().copied().filter(|_| self.closing);
        let known: BTreeSet<InstanceId> = self.orders.instances().map(|i| i.instance).chain(let_go).collect();
        let listed = table.services.iter().flat_map(|s| &s.instances);
        let ghost = listed.map(|i| i.instance).find(|i| !known.contains(i));
        ghost.map(|i| format!("{i} is in the table and known to be gone"))
    }

    /// Out of the table longer than a drain may last, and not ordered to stop.
    fn endless_drain(&self, now: Time) -> Option<String> {
        let late = |at: Time| now > at + DRAIN_LATE;
        let drains = |i: &Seen<'_>| !i.stopping && !i.paused && i.drained_at.is_some_and(late);
        let i = self.orders.instances().find(drains)?;
        Some(format!("{} of {} drains for {DRAIN_LATE} longer than it may", i.instance, i.spec.name))
    }

    fn busy_loop(&mut self, now: Time) -> Option<String> {
        if now > self.passes_since + Span::from_secs(10) {
            (self.passes, self.passes_since) = (0, now);
        }
        (self.passes > PASSES_MAX).then(|| format!("{} ticks within ten seconds", self.passes))
    }
}

/// What is reserved together with what is kept.
fn beside(used: Resources, kept: [u64; 2]) -> Resources {
    Resources { memory_bytes: used.memory_bytes + kept[0], ..used }
}

impl World {
    /// After every event.
    pub(crate) fn check(&mut self) {
        let now = self.clock.now(self.now);
        let refused = self.engine.as_mut().map(|engine| engine.take_violations()).unwrap_or_default();
        self.refused += refused.len() as u32;
        if let Some(violation) = refused.into_iter().next().filter(|_| !self.scenario.past_refusals) {
            self.fail(violation.rule.label(), violation.what);
        }
        if let Some(violation) = self.checks.orders.take().into_iter().next() {
            self.fail(violation.rule.label(), violation.what);
        }
        if let Some(what) = self.checks.busy_loop(now) {
            self.fail("busy-loop", what);
        }
        if self.engine.is_none() {
            return;
        }
        if let Some(what) = self.checks.forgotten(now) {
            self.fail("forgotten", what);
        }
        self.check_silent(now);
        self.check_shares(now);
        if let Some(what) = self.checks.endless_drain(now) {
            self.fail("drain-ends", what);
        }
        if let Some(what) = self.checks.table_is_true(&self.table) {
            self.fail("table-is-true", what);
        }
    }

    /// What really runs fits the site, whatever the engine believes.
    pub(crate) fn checks_physical_room(&mut self) {
        // What is not adopted is not known of: its room is nobody's fault.
        let processes = self.backend.processes.values().filter(|p| p.instance.is_some());
        let memory: u64 = processes.clone().map(|p| p.memory_bytes).sum();
        let count = processes.count() as u64;
        let site = &self.checks.site;
        let (most, bytes) = (u64::from(site.instances_max), site.capacity.memory_bytes);
        if most > 0 && count > most || bytes > 0 && memory > bytes {
            let what = format!("{count} instances with {memory} bytes run on a site of {most} and {bytes}");
            self.fail("capacity", what);
        }
    }

    /// An id names one instance, in whatever life it was given.
    pub(crate) fn check_id(&mut self, instance: InstanceId) {
        let life = self.life;
        let given = *self.checks.given.entry(instance).or_insert(life);
        if given != life {
            self.fail("ids-repeat", format!("{instance} is started in life {life}, and was in life {given}"));
        }
    }

    /// What is in flight at an instance that is to be stopped, by the routers' own counters.
    pub(crate) fn check_stop(&mut self, now: Time, instance: InstanceId) {
        let seen = self.checks.orders.instances().find(|i| i.instance == instance);
        let Some(seen) = seen.filter(|s| !s.stopping) else { return };
        let wrong = self.checks.level_stop(&seen, self.closing);
        let drained = seen.drained_at.is_some_and(|at| now >= at);
        let joined = self.sites.iter().filter(|s| s.joined && s.connected);
        let in_flight: u32 = joined.map(|s| s.router.in_flight(instance)).sum();
        if in_flight > 0 && !drained && !seen.paused {
            let what = format!("{instance} of {} is stopped with {in_flight} in flight", seen.spec.name);
            self.fail("stop_in_use", what);
        }
        if let Some((rule, what)) = wrong {
            self.fail(rule, what);
        }
    }
}
