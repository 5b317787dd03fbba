//! Orders to backends: what is wrong with one, and what it changes in the books.

use super::Invariants;
use super::books::spoken_of;
use super::rule::Rule;
use forerun_backends::{StartOrder, StopOrder};
use forerun_types::{Generation, InstanceId, Mode, ServiceSpec, Time};
use std::sync::Arc;

/// The rule that an order would break, and how.
pub(super) type Wrong = Option<(Rule, String)>;

impl Invariants {
    fn note_wrong(&mut self, now: Time, wrong: Wrong) {
        if let Some((rule, what)) = wrong {
            self.broken(now, rule, what);
        }
    }

    /// A start was ordered.
    pub fn start(&mut self, now: Time, order: &StartOrder) {
        let wrong = self.start_wrong(order.instance, order.generation, &order.spec);
        self.note_wrong(now, wrong);
        self.started(order.instance, order.generation, &order.spec);
    }

    pub(super) fn start_wrong(
        &self,
        instance: InstanceId,
        generation: Generation,
        spec: &ServiceSpec,
    ) -> Wrong {
        let stale = self.stale(generation, "a start");
        let twice = || {
            let again = self.last_started.is_some_and(|last| instance <= last);
            again.then(|| (Rule::DoubleStart, format!("{instance} of {} is started again", spec.name)))
        };
        let watched = || {
            let mode = self.mode_of(spec);
            let what = || format!("{instance} of {} is started in mode {mode:?}", spec.name);
            (mode != Mode::Act).then(|| (Rule::Observed, what()))
        };
        let site = self.site_of(spec);
        let full = || {
            let over = self.beyond(site, spec, &[0; 5])?;
            Some((Rule::Capacity, format!("with {instance} of {}: {over}", spec.name)))
        };
        let lent = || {
            let over = self.beyond_guarantees(site, spec)?;
            Some((Rule::Guarantee, format!("with {instance} of {}: {over}", spec.name)))
        };
        stale.or_else(twice).or_else(watched).or_else(full).or_else(lent)
    }

    pub(super) fn started(&mut self, instance: InstanceId, generation: Generation, spec: &Arc<ServiceSpec>) {
        self.passed(generation);
        self.last_started = self.last_started.max(Some(instance));
        self.note(instance, spec, false);
    }

    /// What was found counts like what was started, but nobody asked whether there was room.
    pub fn adopt(&mut self, now: Time, order: &StartOrder) {
        let wrong = self.stale(order.generation, "an adoption");
        self.note_wrong(now, wrong);
        self.passed(order.generation);
        // Else it is told again.
        if !self.known.contains_key(&order.instance) {
            self.note(order.instance, &order.spec, true);
        }
    }

    /// What is frozen has to be as quiet as what is stopped.
    pub fn pause(&mut self, now: Time, instance: InstanceId, generation: Generation) {
        let wrong = self.pause_wrong(now, instance, generation);
        self.note_wrong(now, wrong);
        self.paused(instance, generation);
    }

    pub(super) fn pause_wrong(&self, now: Time, instance: InstanceId, generation: Generation) -> Wrong {
        let stale = self.stale(generation, "a pause");
        stale.or_else(|| self.in_use(now, instance, "paused")).or_else(|| self.watched(instance, "paused"))
    }

    pub(super) fn paused(&mut self, instance: InstanceId, generation: Generation) {
        self.passed(generation);
        if let Some(known) = self.known.get_mut(&instance) {
            known.paused = true;
        }
    }

    pub fn resume(&mut self, now: Time, instance: InstanceId, generation: Generation) {
        let wrong = self.stale(generation, "a resume");
        self.note_wrong(now, wrong);
        self.resumed(instance, generation);
    }

    pub(super) fn resumed(&mut self, instance: InstanceId, generation: Generation) {
        self.passed(generation);
        if let Some(known) = self.known.get_mut(&instance) {
            known.resuming = true;
        }
    }

    /// A generic instance is given to a key: it was never used, and no router knows it any more.
    pub fn specialise(&mut self, now: Time, order: &StartOrder) {
        let wrong = self.specialise_wrong(order.instance, order.generation, &order.spec);
        self.note_wrong(now, wrong);
        self.specialised(order.instance, order.generation, &order.spec);
    }

    pub(super) fn specialise_wrong(
        &self,
        instance: InstanceId,
        generation: Generation,
        spec: &ServiceSpec,
    ) -> Wrong {
        if let stale @ Some(_) = self.stale(generation, "a specialisation") {
            return stale;
        }
        let known = self.known.get(&instance)?;
        let quiet = known.left.is_some() && self.routers.iter().all(|r| known.quiesced.contains(r));
        let was = &known.spec;
        let from_pool = was.variant.is_none() && spec.variant.as_ref().is_some_and(|v| v.of == was.id);
        let why = match () {
            () if !from_pool => format!("from {}", was.name),
            () if known.touched => "after it was used".to_owned(),
            () if known.listed || !quiet => "before every router said that it is quiet".to_owned(),
            () if !known.ready || known.stopping => "and is not ready, or ordered to stop".to_owned(),
            () => return None,
        };
        Some((Rule::OneKey, format!("{instance} becomes {}'s {why}", spec.name)))
    }

    pub(super) fn specialised(
        &mut self,
        instance: InstanceId,
        generation: Generation,
        spec: &Arc<ServiceSpec>,
    ) {
        let sound = self.specialise_wrong(instance, generation, spec).is_none();
        self.passed(generation);
        let Some(known) = self.known.get_mut(&instance) else { return };
        (known.ready, known.changing) = (false, true);
        known.spec = Arc::clone(spec);
        if sound {
            known.left = None;
        }
    }

    pub fn stop(&mut self, now: Time, order: &StopOrder) {
        let wrong = self.stop_wrong(now, order.instance, order.generation);
        self.note_wrong(now, wrong);
        self.stopping(order.instance, order.generation);
    }

    pub(super) fn stop_wrong(&self, now: Time, instance: InstanceId, generation: Generation) -> Wrong {
        if let stale @ Some(_) = self.stale(generation, "a stop") {
            return stale;
        }
        // What is frozen was quiet before.
        let known = self.known.get(&instance).filter(|k| !k.stopping && !k.paused)?;
        let spec = &known.spec;
        let ends = self.closing || self.leaving.contains(&spoken_of(spec));
        let watched = || if ends { None } else { self.watched(instance, "stopped") };
        self.in_use(now, instance, "stopped").or_else(watched)
    }

    pub(super) fn stopping(&mut self, instance: InstanceId, generation: Generation) {
        self.passed(generation);
        if let Some(known) = self.known.get_mut(&instance) {
            known.stopping = true;
        }
    }

    /// What is ready and only watched is left as it is.
    fn watched(&self, instance: InstanceId, done: &str) -> Wrong {
        let known = self.known.get(&instance).filter(|k| k.ready && !k.paused && !k.resuming)?;
        let (mode, name) = (self.mode_of(&known.spec), &known.spec.name);
        let what = || format!("{instance} of {name} is {done} in mode {mode:?}");
        (mode != Mode::Act).then(|| (Rule::Observed, what()))
    }

    /// An instance that was in the table is out of it, and quiet or past its drain time.
    fn in_use(&self, now: Time, instance: InstanceId, done: &str) -> Wrong {
        let known = self.known.get(&instance).filter(|k| k.listed || k.left.is_some())?;
        let name = &known.spec.name;
        if known.listed {
            let what = format!("{instance} of {name} is {done} while it is in the table");
            return Some((Rule::StopInUse, what));
        }
        let quiet = self.routers.iter().all(|router| known.quiesced.contains(router));
        let drained = known.left.is_some_and(|(over, _)| now >= over);
        (!quiet && !drained).then(|| {
            let what =
                format!("{instance} of {name} is {done} before every router said that nothing is in flight");
            (Rule::StopInUse, what)
        })
    }

    pub(super) fn stale(&self, generation: Generation, what: &str) -> Wrong {
        (generation <= self.ordered).then(|| {
            let what = format!("{what} of generation {generation} after one of {}", self.ordered);
            (Rule::StaleGeneration, what)
        })
    }

    pub(super) fn passed(&mut self, generation: Generation) {
        self.ordered = self.ordered.max(generation);
    }
}
