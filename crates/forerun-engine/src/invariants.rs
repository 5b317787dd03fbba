//! What always holds of the orders, whoever gave them: read from orders, events and tables alone, and from nothing
//! of the core's. The same code checks the running engine, its tests and the simulation.

use forerun_backends::{StartOrder, StopOrder};
use forerun_types::{
    Access, Event, Generation, InstanceId, Mode, Resources, RouterId, ServiceId, ServiceRoute, ServiceSpec,
    SiteId, SiteSpec, Span, Time, Variant,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Violations that are kept in words; all are counted.
const KEPT_MAX: usize = 16;

/// Which of the rules was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Reservations, starting and draining included, stay within the site's capacity.
    Capacity,
    /// No instance is stopped while a router has not said that it is quiet, until its drain time is over.
    StopInUse,
    /// An instance is started once.
    DoubleStart,
    /// Generations of orders and of tables never go back.
    StaleGeneration,
    /// What is only observed is not started.
    Observed,
    /// A router is sent only to instances that are ready and not ordered to stop.
    RoutedToNothing,
    /// An instance has one key for good, from the pool only if it was never used, and takes no other's requests.
    OneKey,
}

impl Rule {
    pub const ALL: [Rule; 7] = [
        Rule::Capacity,
        Rule::StopInUse,
        Rule::DoubleStart,
        Rule::StaleGeneration,
        Rule::Observed,
        Rule::RoutedToNothing,
        Rule::OneKey,
    ];

    /// The label for `forerun_invariant_violations_total{rule}`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Rule::Capacity => "capacity",
            Rule::StopInUse => "stop_in_use",
            Rule::DoubleStart => "double_start",
            Rule::StaleGeneration => "stale_generation",
            Rule::Observed => "observed",
            Rule::RoutedToNothing => "routed_to_nothing",
            Rule::OneKey => "one_key",
        }
    }
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Time,
    pub rule: Rule,
    pub what: String,
}

#[derive(Clone, Debug)]
struct Known {
    spec: Arc<ServiceSpec>,
    /// As it was when it was made: what becomes a key's keeps its room.
    reserved: Resources,
    site: SiteId,
    ready: bool,
    stopping: bool,
    listed: bool,
    /// It is frozen, or ordered to be.
    paused: bool,
    /// It is ordered to be thawed.
    resuming: bool,
    /// It is becoming a key's.
    changing: bool,
    /// A request was sent there.
    touched: bool,
    /// When its drain is over, with the first generation of the table that lacked it.
    left: Option<(Time, Generation)>,
    quiesced: Vec<RouterId>,
}

/// Fed with everything that passes between the shell and the world.
#[derive(Clone, Debug, Default)]
pub struct Invariants {
    sites: BTreeMap<SiteId, SiteSpec>,
    /// As they are described now.
    services: BTreeMap<ServiceId, (Mode, Span)>,
    /// A person's word goes before the description.
    told: BTreeMap<ServiceId, Mode>,
    known: BTreeMap<InstanceId, Known>,
    /// By site: instances, and what they have reserved together.
    reserved: BTreeMap<SiteId, (u64, Resources)>,
    /// By service, what the table has.
    listed: BTreeMap<ServiceId, Vec<InstanceId>>,
    /// Ids only rise: the largest says of every id whether it was used.
    last_started: Option<InstanceId>,
    routers: BTreeSet<RouterId>,
    ordered: Generation,
    table: Generation,
    counts: BTreeMap<Rule, u64>,
    kept: Vec<Violation>,
}

impl Invariants {
    /// How often each rule was broken.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Rule, u64> {
        &self.counts
    }

    /// The violations since the last call, the first sixteen of them.
    pub fn take(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.kept)
    }

    fn broken(&mut self, at: Time, rule: Rule, what: String) {
        *self.counts.entry(rule).or_default() += 1;
        if self.kept.len() < KEPT_MAX {
            tracing::error!(rule = rule.label(), %what, "an invariant does not hold");
            self.kept.push(Violation { at, rule, what });
        }
    }

    /// Before an event is decided upon.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Began => {
                self.known.clear();
                // What ran before is gone, and its ids with it.
                self.last_started = None;
                self.listed.clear();
                self.reserved.clear();
                self.sites.clear();
                self.routers.clear();
            }
            Event::Site(site) => {
                self.sites.insert(site.id, site.clone());
            }
            Event::Service(spec) => {
                self.services.insert(spec.id, (spec.mode, spec.drain_timeout));
            }
            Event::RouterJoined(router) => {
                self.routers.insert(*router);
            }
            Event::RouterLeft(router) => {
                self.routers.remove(router);
            }
            Event::Touched { instance, .. } => {
                if let Some(known) = self.known.get_mut(instance) {
                    known.touched = true;
                }
            }
            // A late word of its start says nothing of its change.
            Event::Ready { instance, .. } => {
                if let Some(known) = self.known.get_mut(instance)
                    && !known.changing
                {
                    known.ready = true;
                }
            }
            Event::Specialised { instance, .. } => {
                if let Some(known) = self.known.get_mut(instance) {
                    (known.ready, known.changing) = (true, false);
                }
            }
            Event::StartFailed { instance, .. }
            | Event::Died { instance, .. }
            | Event::Stopped { instance }
            | Event::StoppedByHand { instance, .. }
            | Event::Completed { instance } => self.let_go(*instance),
            Event::Paused { instance } => {
                if let Some(known) = self.known.get_mut(instance) {
                    known.paused = true;
                }
            }
            Event::Resumed { instance, .. } => {
                if let Some(known) = self.known.get_mut(instance) {
                    (known.paused, known.resuming, known.ready) = (false, false, true);
                }
            }
            // A pause that was not carried out leaves a running instance, a resume a frozen one, which is stopped.
            Event::NotChanged { instance, .. } => {
                if let Some(known) = self.known.get_mut(instance)
                    && !std::mem::take(&mut known.resuming)
                {
                    known.paused = false;
                }
            }
            Event::ModeTold { service, mode } => {
                match mode {
                    Some(mode) => self.told.insert(*service, *mode),
                    None => self.told.remove(service),
                };
            }
            Event::Quiesced { router, instance, generation } => {
                if let Some(known) = self.known.get_mut(instance)
                    && known.left.is_some_and(|(_, left)| *generation >= left)
                {
                    known.quiesced.push(*router);
                }
            }
            _ => {}
        }
    }

    pub fn start(&mut self, now: Time, order: &StartOrder) {
        let (instance, spec) = (order.instance, &order.spec);
        self.generation(now, order.generation, "a start");
        if self.last_started.is_some_and(|last| instance <= last) {
            self.broken(now, Rule::DoubleStart, format!("{instance} of {} is started again", spec.name));
        }
        self.last_started = self.last_started.max(Some(instance));
        let described = self.services.get(&spec.id).map_or(spec.mode, |s| s.0);
        // A person speaks of a variant by its parent.
        let spoken_of = spec.variant.as_ref().map_or(spec.id, |variant| variant.of);
        let mode = self.told.get(&spoken_of).copied().unwrap_or(described);
        if mode != Mode::Act {
            self.broken(
                now,
                Rule::Observed,
                format!("{instance} of {} is started in mode {mode:?}", spec.name),
            );
        }
        let site = self.site_of(spec);
        self.reserve(site, &spec.resources);
        self.known.insert(
            instance,
            Known {
                spec: Arc::clone(spec),
                reserved: spec.resources,
                site,
                ready: false,
                stopping: false,
                listed: false,
                paused: false,
                resuming: false,
                changing: false,
                touched: false,
                left: None,
                quiesced: Vec::new(),
            },
        );
        if let Some(over) = self.over_capacity(site) {
            self.broken(now, Rule::Capacity, format!("with {instance} of {}: {over}", spec.name));
        }
    }

    /// What was found counts like what was started, but nobody asked whether there was room.
    pub fn adopt(&mut self, now: Time, order: &StartOrder) {
        self.generation(now, order.generation, "an adoption");
        if self.known.contains_key(&order.instance) {
            return; // told again
        }
        let site = self.site_of(&order.spec);
        self.reserve(site, &order.spec.resources);
        let known = Known {
            spec: Arc::clone(&order.spec),
            reserved: order.spec.resources,
            site,
            ready: true,
            stopping: false,
            listed: false,
            paused: false,
            resuming: false,
            changing: false,
            touched: false,
            left: None,
            quiesced: Vec::new(),
        };
        self.known.insert(order.instance, known);
    }

    /// What is frozen has to be as quiet as what is stopped.
    pub fn pause(&mut self, now: Time, instance: InstanceId, generation: Generation) {
        self.generation(now, generation, "a pause");
        self.quiet(now, instance, "paused");
        if let Some(known) = self.known.get_mut(&instance) {
            known.paused = true;
        }
    }

    /// A generic instance is given to a key: it was never used, and no router knows it any more.
    pub fn specialise(&mut self, now: Time, order: &StartOrder) {
        self.generation(now, order.generation, "a specialisation");
        let (instance, spec) = (order.instance, &order.spec);
        let Some(known) = self.known.get_mut(&instance) else { return };
        let quiet = known.left.is_some() && self.routers.iter().all(|r| known.quiesced.contains(r));
        let known_ready = std::mem::replace(&mut known.ready, false);
        known.changing = true;
        let was = std::mem::replace(&mut known.spec, Arc::clone(spec));
        let from_pool = was.variant.is_none() && spec.variant.as_ref().is_some_and(|v| v.of == was.id);
        let why = match () {
            () if !from_pool => format!("from {}", was.name),
            () if known.touched => "after it was used".to_owned(),
            () if known.listed || !quiet => "before every router said that it is quiet".to_owned(),
            () if !known_ready || known.stopping => "and is not ready, or ordered to stop".to_owned(),
            () => {
                known.left = None;
                return;
            }
        };
        self.broken(now, Rule::OneKey, format!("{instance} becomes {}'s {why}", spec.name));
    }

    /// Whether what a table says of an instance is what it is.
    fn keys_match(&mut self, now: Time, service: ServiceId, route: &ServiceRoute) {
        for entry in &route.instances {
            let Some(known) = self.known.get(&entry.instance) else { continue };
            let is_own = known.spec.id == service;
            let admits_own = match &known.spec.variant {
                Some(variant) => entry.access == Access::Only(Variant::access_key(&variant.key)),
                None => matches!(entry.access, Access::Any | Access::Unclaimed),
            };
            if !is_own || !admits_own {
                let of = &known.spec.name;
                let what =
                    format!("{} of {of} is in the table of {service} for {:?}", entry.instance, entry.access);
                self.broken(now, Rule::OneKey, what);
            }
        }
    }

    pub fn resume(&mut self, now: Time, instance: InstanceId, generation: Generation) {
        self.generation(now, generation, "a resume");
        if let Some(known) = self.known.get_mut(&instance) {
            known.resuming = true;
        }
    }

    /// An instance is known to be gone, or is Forerun's no more.
    pub fn let_go(&mut self, instance: InstanceId) {
        if let Some(known) = self.known.remove(&instance) {
            let (count, used) = self.reserved.entry(known.site).or_default();
            *count = count.saturating_sub(1);
            add(used, &known.reserved, u64::saturating_sub);
        }
    }

    /// Where a service's instances have to be; the first site when nobody described another.
    fn site_of(&self, spec: &ServiceSpec) -> SiteId {
        let named = |name| self.sites.values().find(|site| site.name == name).map(|site| site.id);
        spec.launch.site().and_then(named).unwrap_or(SiteId(0))
    }

    fn reserve(&mut self, site: SiteId, more: &Resources) {
        let (count, used) = self.reserved.entry(site).or_default();
        *count += 1;
        add(used, more, u64::saturating_add);
    }

    fn over_capacity(&self, site: SiteId) -> Option<String> {
        let (count, used) = self.reserved.get(&site)?;
        let site = self.sites.get(&site)?;
        let (count, c) = (*count, &site.capacity);
        let limits: [(&str, u64, u64); 5] = [
            ("instances", count, u64::from(site.instances_max)),
            ("cpu_milli", used.cpu_milli, c.cpu_milli),
            ("memory_bytes", used.memory_bytes, c.memory_bytes),
            ("network_bytes_per_s", used.network_bytes_per_s, c.network_bytes_per_s),
            ("storage_bytes", used.storage_bytes, c.storage_bytes),
        ];
        let over = limits.into_iter().find(|(_, used, limit)| *limit > 0 && used > limit);
        over.map(|(what, used, limit)| format!("{used} {what} reserved on a site of {limit}"))
    }

    pub fn stop(&mut self, now: Time, order: &StopOrder) {
        let instance = order.instance;
        self.generation(now, order.generation, "a stop");
        let Some(known) = self.known.get_mut(&instance) else { return };
        // What is frozen was quiet before.
        if !std::mem::replace(&mut known.stopping, true) && !known.paused {
            self.quiet(now, instance, "stopped");
        }
    }

    /// An instance that was in the table is out of it, and quiet or past its drain time.
    fn quiet(&mut self, now: Time, instance: InstanceId, done: &str) {
        let Some(known) = self.known.get(&instance) else { return };
        if !(known.listed || known.left.is_some()) {
            return;
        }
        let quiet = self.routers.iter().all(|router| known.quiesced.contains(router));
        let drained = known.left.is_some_and(|(over, _)| now >= over);
        if known.listed {
            let what = format!("{instance} of {} is {done} while it is in the table", known.spec.name);
            self.broken(now, Rule::StopInUse, what);
        } else if !quiet && !drained {
            let what = format!(
                "{instance} of {} is {done} before every router said that nothing is in flight",
                known.spec.name
            );
            self.broken(now, Rule::StopInUse, what);
        }
    }

    fn generation(&mut self, now: Time, generation: Generation, what: &str) {
        if generation <= self.ordered {
            let what = format!("{what} of generation {generation} after one of {}", self.ordered);
            self.broken(now, Rule::StaleGeneration, what);
        }
        self.ordered = self.ordered.max(generation);
    }

    /// A service's entry in the table that routers are to use from now on; `None` takes it out.
    pub fn route(
        &mut self,
        now: Time,
        generation: Generation,
        service: ServiceId,
        route: Option<&ServiceRoute>,
    ) {
        if generation < self.table {
            let what = format!("a table of generation {generation} after one of {}", self.table);
            self.broken(now, Rule::StaleGeneration, what);
        }
        self.table = self.table.max(generation);
        let listed: Vec<InstanceId> =
            route.map_or(&[][..], |r| &r.instances).iter().map(|i| i.instance).collect();
        for instance in &listed {
            match self.known.get_mut(instance) {
                Some(known) if known.ready && !known.stopping && !known.paused => {
                    (known.listed, known.left) = (true, None);
                    known.quiesced.clear();
                }
                _ => {
                    let what = format!("{instance} is in the table, and is not ready, or ordered to stop");
                    self.broken(now, Rule::RoutedToNothing, what);
                }
            }
        }
        match route {
            Some(route) => self.keys_match(now, service, route),
            // It is gone for good, and what a person said of it with it.
            None => {
                self.told.remove(&service);
            }
        }
        let drain = route.map(|r| r.spec.drain_timeout).or_else(|| self.services.get(&service).map(|s| s.1));
        for instance in self.listed.insert(service, listed.clone()).unwrap_or_default() {
            if !listed.contains(&instance)
                && let Some(known) = self.known.get_mut(&instance)
            {
                let over = now + drain.unwrap_or(known.spec.drain_timeout);
                (known.listed, known.left) = (false, Some((over, generation)));
            }
        }
    }

    /// Instances that were ordered and are not known to be gone, with their services and whether they are ready and
    /// whether they count towards what is wanted: neither out of the table after having been in it, nor stopping.
    pub fn instances(&self) -> impl Iterator<Item = Seen<'_>> {
        self.known.iter().map(|(instance, known)| Seen {
            instance: *instance,
            spec: &known.spec,
            reserved: known.reserved,
            ready: known.ready,
            counts: !known.stopping && !known.paused && known.left.is_none(),
            listed: known.listed,
            paused: known.paused,
            stopping: known.stopping,
            drained_at: known.left.map(|l| l.0),
        })
    }
}

/// An instance as orders and events show it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub instance: InstanceId,
    pub spec: &'a Arc<ServiceSpec>,
    pub reserved: Resources,
    pub ready: bool,
    pub counts: bool,
    pub listed: bool,
    /// It is frozen, or ordered to be.
    pub paused: bool,
    pub stopping: bool,
    /// When its drain is over, once it has left the table.
    pub drained_at: Option<Time>,
}

fn add(used: &mut Resources, r: &Resources, f: fn(u64, u64) -> u64) {
    used.cpu_milli = f(used.cpu_milli, r.cpu_milli);
    used.memory_bytes = f(used.memory_bytes, r.memory_bytes);
    used.network_bytes_per_s = f(used.network_bytes_per_s, r.network_bytes_per_s);
    used.storage_bytes = f(used.storage_bytes, r.storage_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{InstanceRoute, Span};

    const SERVICE: ServiceId = ServiceId(0);

    /// A site for one instance, one router, and one instance that is ready.
    fn up() -> Invariants {
        let mut invariants = Invariants::default();
        let spec = Arc::new(ServiceSpec::named(SERVICE, "s"));
        let site =
            SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 1 };
        for event in [Event::Began, Event::Site(site), Event::Service(spec), Event::RouterJoined(RouterId(0))]
        {
            invariants.event(&event);
        }
        start(&mut invariants, 1, 1);
        let address = ([127, 0, 0, 1], 1).into();
        invariants.event(&Event::Ready { instance: InstanceId(1), address, took: Span::ZERO });
        route(&mut invariants, 2, &[1]);
        invariants
    }

    fn start(invariants: &mut Invariants, instance: u64, generation: u64) {
        let spec = Arc::new(ServiceSpec::named(SERVICE, "s"));
        let (instance, generation) = (InstanceId(instance), Generation(generation));
        invariants.start(Time(1), &StartOrder { instance, generation, spec });
    }

    #[test]
    fn each_site_has_its_own_room() {
        let mut invariants = up();
        let site = |id, name: &str| SiteSpec {
            id: SiteId(id),
            name: name.to_owned(),
            capacity: Resources::default(),
            instances_max: 1,
        };
        invariants.event(&Event::Site(site(1, "b")));
        let mut spec = ServiceSpec::named(ServiceId(1), "t");
        spec.launch = forerun_types::Launch::Container(forerun_types::Container {
            engine: "b".to_owned(),
            ..Default::default()
        });
        let spec = Arc::new(spec);
        let order = |id| StartOrder {
            instance: InstanceId(id),
            generation: Generation(id + 10),
            spec: Arc::clone(&spec),
        };
        invariants.start(Time(2), &order(2));
        assert_eq!(invariants.take(), []);
        invariants.let_go(InstanceId(2));
        invariants.start(Time(3), &order(3));
        assert_eq!(invariants.take(), []);
        invariants.start(Time(4), &order(4));
        assert_eq!(invariants.take().len(), 1, "b is full");
    }

    fn stop(invariants: &mut Invariants, at: Time, generation: u64) {
        let (instance, generation) = (InstanceId(1), Generation(generation));
        invariants.stop(at, &StopOrder { instance, generation, grace: Span::ZERO });
    }

    fn route(invariants: &mut Invariants, generation: u64, instances: &[u64]) {
        let entry = |&instance: &u64| InstanceRoute {
            instance: InstanceId(instance),
            address: ([127, 0, 0, 1], 1).into(),
            access: forerun_types::Access::Any,
        };
        let spec = Arc::new(ServiceSpec::named(SERVICE, "s"));
        let route = ServiceRoute::new(spec, instances.iter().map(entry).collect(), None);
        invariants.route(Time(1), Generation(generation), SERVICE, Some(&route));
    }

    fn quiesced(invariants: &mut Invariants, generation: u64) {
        let (router, instance) = (RouterId(0), InstanceId(1));
        invariants.event(&Event::Quiesced { router, instance, generation: Generation(generation) });
    }

    fn check(story: impl FnOnce(&mut Invariants), expect: &[Rule]) {
        let mut invariants = up();
        story(&mut invariants);
        let broken: Vec<Rule> = invariants.take().into_iter().map(|v| v.rule).collect();
        assert_eq!(broken, expect);
        assert_eq!(invariants.counts().values().sum::<u64>(), expect.len() as u64);
    }

    /// Gives the one instance to a key of its service, after it has left the table.
    fn becomes(key: &str, generation: u64) -> StartOrder {
        let variant = Some(Variant { of: SERVICE, key: key.to_owned() });
        let id = ServiceId(key.len() as u32);
        let spec = Arc::new(ServiceSpec { variant, ..ServiceSpec::named(id, format!("s@{key}")) });
        StartOrder { instance: InstanceId(1), generation: Generation(generation), spec }
    }

    fn keys_are_kept_apart() {
        let given = |quiet: bool| {
            move |i: &mut Invariants| {
                route(i, 3, &[]);
                if quiet {
                    quiesced(i, 3);
                }
                i.specialise(Time(2), &becomes("red", 4));
            }
        };
        let touched = Event::Touched { router: RouterId(0), instance: InstanceId(1) };
        check(given(true), &[]);
        check(given(false), &[Rule::OneKey]);
        check(|i| i.specialise(Time(2), &becomes("red", 4)), &[Rule::OneKey]);
        check(
            |i| {
                i.event(&touched);
                given(true)(i);
            },
            &[Rule::OneKey],
        );
        let done = Event::Specialised { instance: InstanceId(1), took: Span::ZERO };
        let given_and_done = |i: &mut Invariants| {
            given(true)(i);
            i.event(&done);
        };
        // Back in the pool, for another key, or for everybody.
        check(
            |i| {
                given_and_done(i);
                route(i, 5, &[1]);
            },
            &[Rule::OneKey],
        );
        check(
            |i| {
                given_and_done(i);
                i.specialise(Time(3), &becomes("blue", 5));
            },
            &[Rule::OneKey],
        );
    }

    #[test]
    fn each_rule_is_broken_by_what_breaks_it_and_by_nothing_else() {
        let drained = Time(1) + Span::from_secs(30);
        check(|_| {}, &[]);
        check(|i| start(i, 2, 3), &[Rule::Capacity]);
        check(
            |i| {
                i.event(&Event::Died { instance: InstanceId(1), why: String::new() });
                start(i, 2, 3);
            },
            &[],
        );
        check(|i| stop(i, Time(2), 3), &[Rule::StopInUse]);
        let leaves = |quiet: Option<u64>, at: Time| {
            move |i: &mut Invariants| {
                route(i, 3, &[]);
                quiet.into_iter().for_each(|generation| quiesced(i, generation));
                stop(i, at, 4);
            }
        };
        check(leaves(None, Time(2)), &[Rule::StopInUse]);
        check(leaves(Some(2), Time(2)), &[Rule::StopInUse]);
        check(leaves(Some(3), Time(2)), &[]);
        check(leaves(None, drained), &[]);
        check(|i| route(i, 1, &[1]), &[Rule::StaleGeneration]);
        check(|i| route(i, 3, &[1, 7]), &[Rule::RoutedToNothing]);
        keys_are_kept_apart();
        check(
            |i| {
                i.event(&Event::Died { instance: InstanceId(1), why: String::new() });
                start(i, 1, 3);
            },
            &[Rule::DoubleStart],
        );
        check(
            |i| {
                i.event(&Event::Died { instance: InstanceId(1), why: String::new() });
                let spec = ServiceSpec { mode: Mode::Observe, ..ServiceSpec::named(SERVICE, "s") };
                i.event(&Event::Service(Arc::new(spec)));
                start(i, 2, 3);
            },
            &[Rule::Observed],
        );
    }
}
