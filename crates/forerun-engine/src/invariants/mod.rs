//! What always holds of the orders, whoever gave them: read from orders, events and tables alone, and from nothing
//! of the core's. The same code checks the running engine, its tests and the simulation.
//!
//! In the engine it stands before the world: an action that would break a rule is refused ([`Invariants::admit`]),
//! counted and told, and is not carried out.

mod books;
mod gate;
mod guarantee;
mod orders;
mod rule;
mod table;

pub use books::Seen;
pub use gate::Refusal;
pub use rule::{Rule, Violation};

use books::Known;
use forerun_types::{
    Event, Generation, InstanceId, Mode, Resources, RouterId, ServiceId, ServiceSpec, SiteId, SiteSpec, Span,
    Time,
};
use guarantee::Classes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Violations that are kept in words; all are counted.
const KEPT_MAX: usize = 16;

/// Fed with everything that passes between the shell and the world.
#[derive(Clone, Debug, Default)]
pub struct Invariants {
    sites: BTreeMap<SiteId, SiteSpec>,
    /// As they are described now.
    services: BTreeMap<ServiceId, (Mode, Span)>,
    /// Those that were taken out of the configuration and still have instances.
    leaving: BTreeSet<ServiceId>,
    closing: bool,
    /// A person's word goes before the description.
    told: BTreeMap<ServiceId, Mode>,
    known: BTreeMap<InstanceId, Known>,
    /// By site: instances, and what they have reserved together.
    reserved: BTreeMap<SiteId, (u64, Resources)>,
    /// By service, what the table has, and how it describes the service: keys' too.
    listed: BTreeMap<ServiceId, Vec<InstanceId>>,
    described: BTreeMap<ServiceId, Arc<ServiceSpec>>,
    classes: Classes,
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
                self.described.clear();
                self.classes = Classes::default();
                self.reserved.clear();
                self.sites.clear();
                self.routers.clear();
                self.leaving.clear();
                self.closing = false;
            }
            Event::ShutDown => self.closing = true,
            Event::Site(site) => {
                self.sites.insert(site.id, site.clone());
            }
            Event::Service(spec) => {
                self.services.insert(spec.id, (spec.mode, spec.drain_timeout));
                self.leaving.remove(&spec.id);
            }
            Event::ServiceGone(service) => {
                self.leaving.insert(*service);
            }
            Event::RouterJoined(router) => {
                self.routers.insert(*router);
            }
            Event::RouterLeft(router) => {
                self.routers.remove(router);
            }
            Event::ModeTold { service, mode } => {
                match mode {
                    Some(mode) => self.told.insert(*service, *mode),
                    None => self.told.remove(service),
                };
            }
            event => self.instance_event(event),
        }
    }

    fn instance_event(&mut self, event: &Event) {
        let (Event::Touched { instance, .. }
        | Event::Ready { instance, .. }
        | Event::Specialised { instance, .. }
        | Event::StartFailed { instance, .. }
        | Event::Died { instance, .. }
        | Event::Stopped { instance }
        | Event::StoppedByHand { instance, .. }
        | Event::Completed { instance }
        | Event::Paused { instance }
        | Event::Resumed { instance, .. }
        | Event::NotChanged { instance, .. }
        | Event::Quiesced { instance, .. }) = event
        else {
            return;
        };
        let Some(known) = self.known.get_mut(instance) else { return };
        match event {
            Event::Touched { .. } => known.touched = true,
            // A late word of its start says nothing of its change.
            Event::Ready { .. } => known.ready |= !known.changing,
            Event::Specialised { .. } => (known.ready, known.changing) = (true, false),
            Event::Paused { .. } => known.paused = true,
            Event::Resumed { .. } => (known.paused, known.resuming, known.ready) = (false, false, true),
            // A pause that was not carried out leaves a running instance, a resume a frozen one, which is stopped.
            Event::NotChanged { .. } => {
                if !std::mem::take(&mut known.resuming) {
                    known.paused = false;
                }
            }
            Event::Quiesced { router, generation, .. } => {
                if known.left.is_some_and(|(_, left)| *generation >= left) {
                    known.quiesced.push(*router);
                }
            }
            _ => self.let_go(*instance),
        }
    }
}

#[cfg(test)]
mod tests;
