//! What always holds of what is there already: of what was found, frozen, asked, given to a key, or is a person's.

use crate::backend::outlives;
use crate::checks::Checks;
use crate::ports::Given;
use crate::world::World;
use forerun_core::ServiceStatus;
use forerun_engine::invariants::Seen;
use forerun_types::{DependsUntil, Event, InstanceId, Mode, RouteTable, ServiceId, ServiceSpec, Span, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An answer that it is not busy holds so long.
const CLEAR_FOR: Span = Span::from_secs(3);
/// An answer that comes later is none: five seconds, and a tick.
const ANSWERED_WITHIN: Span = Span::from_millis(5_100);
/// What had left the table for its key before somebody spoke may still become that.
const CLAIMED_FOR: Span = Span::from_millis(1_200);

/// What an instance said when it was asked whether it is busy.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// Since when it was asked without having said that it is not.
    asked: Option<Time>,
    /// When its answer was asked for that is still out.
    out: Option<Time>,
    clear_at: Option<Time>,
}

/// What was told past the plan, and what was ordered of what is there.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    began: Time,
    /// Modes that a person asked for, and since when.
    modes: BTreeMap<ServiceId, (Option<Mode>, Time)>,
    /// Stopped or frozen by hand: since when, and whether that is sure.
    down: BTreeMap<ServiceId, (Time, bool)>,
    said: BTreeMap<InstanceId, Said>,
    /// Out of the table without a word that they are not busy.
    left_unasked: BTreeSet<InstanceId>,
    /// Being frozen, and being thawed.
    pausing: BTreeSet<InstanceId>,
    resuming: BTreeSet<InstanceId>,
    just_paused: Option<InstanceId>,
    /// By handle: whether it is frozen, and whether nobody here ever made it.
    found: BTreeMap<String, (bool, bool)>,
    pub(crate) let_go: BTreeSet<InstanceId>,
    /// A person's.
    theirs: BTreeSet<InstanceId>,
    /// Variants, as the table describes them.
    pub(crate) variants: BTreeMap<ServiceId, Arc<ServiceSpec>>,
}

/// The service that a person means who speaks of one.
pub(crate) fn elder(spec: &ServiceSpec) -> ServiceId {
    spec.variant.as_ref().map_or(spec.id, |variant| variant.of)
}

impl Levels {
    /// A life begins with what is left of what people have said.
    fn begin(&mut self, known: &[ServiceStatus], now: Time) {
        *self = Self { began: now, ..Self::default() };
        for s in known {
            self.modes.insert(s.service, (s.mode_word.map(|word| word.mode), now));
            if let Some(down) = &s.down {
                self.down.insert(s.service, (down.at, true));
            }
        }
    }

    fn gone(&mut self, instance: InstanceId) {
        self.said.remove(&instance);
        self.left_unasked.remove(&instance);
        self.pausing.remove(&instance);
        self.resuming.remove(&instance);
        self.theirs.remove(&instance);
    }

    /// A late answer is none.
    fn answered(&mut self, now: Time, instance: InstanceId, busy: bool) {
        let said = self.said.entry(instance).or_default();
        let Some(asked) = said.out.take().filter(|at| now <= *at + ANSWERED_WITHIN) else { return };
        if busy {
            said.asked.get_or_insert(now);
        } else {
            said.clear_at = Some(now);
            // At the very end of its time it may count, or not.
            said.asked = said.asked.filter(|_| now >= asked + Span::from_secs(5));
        }
    }

    /// On its way to be ready, though it is frozen.
    pub(crate) fn on_its_way(&self, instance: InstanceId) -> bool {
        self.pausing.contains(&instance) || self.resuming.contains(&instance)
    }

    pub(crate) fn mode(&self, spec: &ServiceSpec) -> Mode {
        self.modes.get(&elder(spec)).and_then(|told| told.0).unwrap_or(spec.mode)
    }

    pub(crate) fn is_down(&self, spec: &ServiceSpec) -> bool {
        self.down.contains_key(&elder(spec))
    }
}

impl Checks {
    pub(crate) fn life_begins(&mut self, known: &[ServiceStatus], now: Time) {
        for service in self.levels.modes.keys() {
            self.orders.event(&Event::ModeTold { service: *service, mode: None });
        }
        self.levels.begin(known, now);
        for s in known {
            let mode = s.mode_word.map(|word| word.mode);
            self.orders.event(&Event::ModeTold { service: s.service, mode });
        }
    }

    /// Before the engine handles it.
    pub(crate) fn level_event(&mut self, now: Time, event: &Event) {
        let levels = &mut self.levels;
        levels.just_paused = None;
        match event {
            Event::ModeTold { service, mode } => {
                levels.modes.insert(*service, (*mode, now));
                levels.down.remove(service);
            }
            Event::Override { service, .. } => {
                levels.down.remove(service);
            }
            Event::ServiceGone(service) => {
                levels.down.remove(service);
            }
            Event::Found { handle, was, paused, .. } => {
                levels.found.insert(handle.clone(), (*paused, was.is_none()));
            }
            Event::StoppedByHand { instance, .. } => {
                let seen = self.orders.instances().find(|i| i.instance == *instance);
                if let Some(seen) = seen.filter(|s| !s.stopping) {
                    levels.down.insert(elder(seen.spec), (now, true));
                }
                levels.gone(*instance);
            }
            Event::Paused { instance } => {
                if levels.pausing.remove(instance) {
                    levels.just_paused = Some(*instance);
                } else if let Some(seen) = self.orders.instances().find(|i| i.instance == *instance)
                    && !seen.paused
                {
                    // One that is out of the table may just be given to a key, and then this is no word.
                    levels.down.insert(elder(seen.spec), (now, seen.listed));
                }
            }
            Event::Resumed { instance, .. } => {
                levels.resuming.remove(instance);
                if let Some(seen) = self.orders.instances().find(|i| i.instance == *instance) {
                    levels.down.remove(&elder(seen.spec));
                }
            }
            Event::NotChanged { instance, .. } => {
                levels.pausing.remove(instance);
                levels.resuming.remove(instance);
            }
            Event::BusyAnswer { instance, busy, .. } => levels.answered(now, *instance, *busy),
            Event::Traffic(traffic) => {
                for load in traffic.instances.iter().filter(|load| load.in_flight > 0) {
                    let said = levels.said.entry(load.instance).or_default();
                    (said.asked, said.clear_at) = (said.out.map(|_| now), None);
                }
            }
            Event::StartFailed { instance, .. }
            | Event::Died { instance, .. }
            | Event::Stopped { instance } => levels.gone(*instance),
            _ => {}
        }
    }

    /// The table has changed: what left it was asked before, where it is to be asked.
    pub(crate) fn level_table(&mut self, now: Time, before: &RouteTable, table: &RouteTable, closing: bool) {
        let variants = table.services.iter().filter(|s| s.spec.variant.is_some());
        self.levels.variants = variants.map(|s| (s.spec.id, Arc::clone(&s.spec))).collect();
        let listed = |t: &RouteTable| -> BTreeSet<InstanceId> {
            t.services.iter().flat_map(|s| &s.instances).map(|i| i.instance).collect()
        };
        // What is gone for good takes with it what was said of it.
        for old in before.services.iter().filter(|s| table.service(s.spec.id).is_none()) {
            self.levels.modes.remove(&old.spec.id);
            self.levels.down.remove(&old.spec.id);
        }
        let now_listed = listed(table);
        self.levels.left_unasked.retain(|i| !now_listed.contains(i));
        for instance in listed(before).difference(&now_listed) {
            let Some(seen) = self.orders.instances().find(|i| i.instance == *instance) else { continue };
            let Some(spec) = self.services.get(&elder(seen.spec)).filter(|_| !seen.paused && !closing) else {
                continue;
            };
            let said = self.levels.said.get(instance).copied().unwrap_or_default();
            let clear = said.clear_at.is_some_and(|at| now <= at + CLEAR_FOR);
            let over = said.asked.is_some_and(|at| now >= at + spec.busy_max);
            if spec.busy.is_some() && !clear && !over {
                self.levels.left_unasked.insert(*instance);
            }
        }
    }

    /// What a service depends on and is not there.
    pub(crate) fn unmet(&self, spec: &ServiceSpec) -> Option<String> {
        let is_up = |id: ServiceId, until: DependsUntil| {
            self.orders.instances().any(|i| {
                let starts = i.counts || self.levels.on_its_way(i.instance);
                i.spec.id == id && if until == DependsUntil::Ready { i.ready && i.counts } else { starts }
            })
        };
        let needs = spec.depends_on.iter().filter_map(|need| {
            let id = self.services.values().find(|s| s.name == need.service)?.id;
            (!is_up(id, need.until)).then(|| need.service.clone())
        });
        needs.into_iter().next()
    }

    /// What is wrong with bringing something of a service up, or changing it.
    fn raised(&self, now: Time, spec: &ServiceSpec, grace: Span) -> Option<(&'static str, String)> {
        let levels = &self.levels;
        if levels.down.get(&elder(spec)).is_some_and(|(at, sure)| *sure && now >= *at + grace) {
            return Some((
                "stays-down",
                format!("something of {} comes up, which a person stopped", spec.name),
            ));
        }
        let since = levels.modes.get(&elder(spec)).map_or(Time(0), |told| told.1);
        if levels.mode(spec) != Mode::Act && now >= since + grace {
            return Some(("observed", format!("{} is changed, and is only watched", spec.name)));
        }
        None
    }

    /// Orders of which the engine's own invariants know less. `outside` is what they are about.
    pub(crate) fn level_order(&mut self, now: Time, order: &Given) -> Option<(&'static str, String)> {
        let spec_of = |orders: &forerun_engine::invariants::Invariants, instance: InstanceId| {
            orders.instances().find(|i| i.instance == instance).map(|i| Arc::clone(i.spec))
        };
        match order {
            Given::Start(order) => {
                // What an earlier life knew goes on until all is described anew.
                let unmet = self.unmet(&order.spec).filter(|_| now > self.levels.began);
                let depends = || {
                    let needed = unmet?;
                    Some((
                        "depends",
                        format!("{} is started before {needed}, which it needs", order.spec.name),
                    ))
                };
                self.raised(now, &order.spec, Span::ZERO).or_else(depends)
            }
            Given::Adopt(order, handle) => {
                // What is told again is what it is by now, and not what it was then.
                if self.orders.instances().any(|i| i.instance == order.instance) {
                    self.orders.adopt(now, order);
                    return None;
                }
                self.levels.down.remove(&elder(&order.spec));
                self.orders.adopt(now, order);
                let (paused, theirs) = self.levels.found.get(handle).copied().unwrap_or_default();
                if paused {
                    self.orders.event(&Event::Paused { instance: order.instance });
                }
                if theirs {
                    self.levels.theirs.insert(order.instance);
                }
                None
            }
            Given::Pause(instance, generation) => {
                let spec = spec_of(&self.orders, *instance);
                self.orders.pause(now, *instance, *generation);
                self.levels.pausing.insert(*instance);
                self.busy(*instance).or_else(|| self.raised(now, &*spec?, Span::ZERO))
            }
            Given::Resume(instance, generation) => {
                self.orders.resume(now, *instance, *generation);
                self.levels.resuming.insert(*instance);
                let spec = spec_of(&self.orders, *instance);
                let returns = self.levels.just_paused == Some(*instance);
                if returns { None } else { self.raised(now, &*spec?, Span::ZERO) }
            }
            Given::Specialise(order) => {
                self.orders.specialise(now, order);
                self.levels.left_unasked.remove(&order.instance);
                self.raised(now, &order.spec, CLAIMED_FOR)
            }
            Given::AskBusy(order) => {
                let said = self.levels.said.entry(order.instance).or_default();
                said.out = Some(now);
                said.asked.get_or_insert(now);
                None
            }
            Given::LetGo(instance) => {
                self.orders.let_go(*instance);
                self.levels.gone(*instance);
                self.levels.let_go.insert(*instance);
                None
            }
            Given::Stop(_) | Given::Table(_) | Given::Know(_) => None,
        }
    }

    fn busy(&self, instance: InstanceId) -> Option<(&'static str, String)> {
        let unasked = self.levels.left_unasked.contains(&instance);
        unasked.then(|| ("busy", format!("{instance} goes, and has not said that it is not busy")))
    }

    /// A stop that is ordered for the first time.
    pub(crate) fn level_stop(&self, seen: &Seen<'_>, closing: bool) -> Option<(&'static str, String)> {
        let (instance, name) = (seen.instance, &seen.spec.name);
        let leaves = !self.services.contains_key(&elder(seen.spec));
        if !closing
            && !leaves
            && let Some(busy) = self.busy(instance)
        {
            return Some(busy);
        }
        let theirs = closing || leaves && self.levels.theirs.contains(&instance);
        if theirs && outlives(seen.spec) {
            return Some((
                "theirs",
                format!("{instance} of {name} is stopped, and is to go on without the engine"),
            ));
        }
        let settled = seen.ready && !seen.paused && !self.levels.on_its_way(instance);
        if settled && !closing && !leaves && self.levels.mode(seen.spec) != Mode::Act {
            return Some(("observed", format!("{instance} of {name} is stopped, and is only watched")));
        }
        None
    }
}

impl World {
    /// Orders for what is there already.
    pub(crate) fn check_change(&mut self, now: Time, order: &Given) {
        if let Some((rule, what)) = self.checks.level_order(now, order) {
            self.fail(rule, what);
        }
    }
}
