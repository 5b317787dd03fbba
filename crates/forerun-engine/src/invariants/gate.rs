//! The plan checker: each action is read before it is carried out, and refused where it would break a rule.
//!
//! A refused action changes nothing in the world. What the core is to make of it is told to it by an event, as what a
//! backend could not do is ([`Refusal::told`]); so that the journal holds all of it, and replays.

use super::Invariants;
use super::orders::Wrong;
use super::rule::Rule;
use forerun_types::{Action, Event, Generation, InstanceId, ServiceId, ServiceRoute, Span, Time};
use std::sync::Arc;

/// A stop that is in use is refused for a drain's time, and for no less than this.
const STOP_REFUSED_LEAST: Span = Span::from_secs(1);

/// An action that is not carried out.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub rule: Rule,
    /// A sentence: what it would have come to.
    pub what: String,
    /// The label for `forerun_decisions_total{action}`.
    pub action: &'static str,
    pub service: Option<ServiceId>,
    pub instance: Option<InstanceId>,
    /// What the core is to be told; where it is told nothing, it asks again by itself.
    pub told: Option<Event>,
}

impl Refusal {
    fn why(&self) -> String {
        format!("refused by the plan checker: {}", self.what)
    }
}

impl Invariants {
    /// Whether an action may be carried out; the books then hold that it is.
    ///
    /// # Errors
    /// It would break a rule: nothing is to be done, and the books are as they were.
    pub fn admit(&mut self, now: Time, action: &Action) -> Result<(), Box<Refusal>> {
        let wrong = match action {
            Action::Start { instance, generation, spec, .. } => {
                self.start_wrong(*instance, *generation, spec)
            }
            Action::Stop { instance, generation, .. } => self.stop_refused(now, *instance, *generation),
            Action::Pause { instance, generation, .. } => self.pause_wrong(now, *instance, *generation),
            Action::Resume { generation, .. } => self.stale(*generation, "a resume"),
            Action::Specialise { instance, generation, spec, .. } => {
                self.specialise_wrong(*instance, *generation, spec)
            }
            Action::Adopt { .. }
            | Action::AskBusy { .. }
            | Action::LetGo { .. }
            | Action::Want { .. }
            | Action::Advise { .. }
            | Action::Route { .. }
            | Action::Finished => None,
        };
        match wrong {
            Some((rule, what)) => {
                self.broken(now, rule, what.clone());
                // The word that it was not changed takes this back.
                if let Action::Resume { instance, .. } = action
                    && let Some(known) = self.known.get_mut(instance)
                {
                    known.resuming = true;
                }
                Err(Box::new(self.refusal(rule, what, action)))
            }
            None => {
                self.carried_out(now, action);
                Ok(())
            }
        }
    }

    fn carried_out(&mut self, now: Time, action: &Action) {
        match action {
            Action::Start { instance, generation, spec, .. } => self.started(*instance, *generation, spec),
            Action::Stop { instance, generation, .. } => self.stopping(*instance, *generation),
            Action::Pause { instance, generation, .. } => self.paused(*instance, *generation),
            Action::Resume { instance, generation, .. } => self.resumed(*instance, *generation),
            Action::Specialise { instance, generation, spec, .. } => {
                self.specialised(*instance, *generation, spec);
            }
            Action::Adopt { instance, generation, spec, .. } => {
                let (instance, generation, spec) = (*instance, *generation, Arc::clone(spec));
                self.adopt(now, &forerun_backends::StartOrder { instance, generation, spec });
            }
            Action::LetGo { instance, .. } => self.let_go(*instance),
            Action::AskBusy { .. }
            | Action::Want { .. }
            | Action::Advise { .. }
            | Action::Route { .. }
            | Action::Finished => {}
        }
    }

    /// A stop that is asked for again and again is not refused for ever: whoever is still in the way has had the time
    /// of a drain by then, and what cannot be stopped at all would keep its room.
    fn stop_refused(&mut self, now: Time, instance: InstanceId, generation: Generation) -> Wrong {
        let wrong = self.stop_wrong(now, instance, generation)?;
        let known = self.known.get_mut(&instance)?;
        if wrong.0 != Rule::StopInUse {
            return Some(wrong);
        }
        known.stop_from = known.stop_from.min(now + known.spec.drain_timeout.max(STOP_REFUSED_LEAST));
        (now < known.stop_from).then_some(wrong)
    }

    fn refusal(&self, rule: Rule, what: String, action: &Action) -> Refusal {
        let of = |instance: &InstanceId| self.known.get(instance).map(|k| k.spec.id);
        let (name, service, instance) = match action {
            Action::Start { instance, service, .. } => ("refused_start", Some(*service), Some(*instance)),
            Action::Stop { instance, .. } => ("refused_stop", of(instance), Some(*instance)),
            Action::Pause { instance, .. } => ("refused_pause", of(instance), Some(*instance)),
            Action::Resume { instance, .. } => ("refused_resume", of(instance), Some(*instance)),
            Action::Specialise { instance, spec, .. } => {
                ("refused_specialise", Some(spec.id), Some(*instance))
            }
            _ => ("refused", None, None),
        };
        let mut refusal = Refusal { rule, what, action: name, service, instance, told: None };
        let why = refusal.why();
        refusal.told = match action {
            // Of one that is there, the first order holds.
            Action::Start { instance, .. } if !self.known.contains_key(instance) => {
                Some(Event::StartFailed { instance: *instance, why })
            }
            Action::Pause { instance, .. }
            | Action::Resume { instance, .. }
            | Action::Specialise { instance, .. } => Some(Event::NotChanged { instance: *instance, why }),
            _ => None,
        };
        refusal
    }

    /// A service's entry in the table without what it must not say; `None` where all of it may stand.
    pub fn sound(
        &mut self,
        now: Time,
        service: ServiceId,
        route: &ServiceRoute,
    ) -> Option<(ServiceRoute, Rule)> {
        let wrong: Vec<_> = route.instances.iter().filter_map(|e| self.entry_wrong(service, e)).collect();
        let first = wrong.first()?.0;
        for (rule, what) in wrong {
            self.broken(now, rule, what);
        }
        let instances = route.instances.iter().filter(|e| self.entry_wrong(service, e).is_none());
        Some((ServiceRoute { instances: instances.cloned().collect(), ..route.clone() }, first))
    }
}
