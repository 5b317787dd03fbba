//! What became of a service's instances, in words that need neither the core nor the policy that decided.

use crate::invariants::Refusal;
use forerun_core::{AnyPolicy, Core, InstanceState};
use forerun_types::{Action, Event, InstanceId, ServiceId, StopWhy, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One change, kept with the step that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub service: ServiceId,
    pub what: What,
    /// A sentence; empty where nothing need be said.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// So many are wanted from now on, busy ones included.
    Wanted(u32),
    Started(InstanceId),
    Ready(InstanceId),
    StartFailed(InstanceId),
    Died(InstanceId),
    StopOrdered(InstanceId, StopWhy),
    Stopped(InstanceId),
    /// Found running, and taken over.
    Adopted(InstanceId),
    PauseOrdered(InstanceId),
    Paused(InstanceId),
    ResumeOrdered(InstanceId),
    Resumed(InstanceId),
    NotChanged(InstanceId),
    SpecialiseOrdered(InstanceId),
    Specialised(InstanceId),
    StoppedByHand(InstanceId),
    Completed(InstanceId),
    /// No longer Forerun's, and left as it is.
    LetGo(InstanceId),
    /// So many would have been started, in mode `advise`.
    WouldStart(u32),
    WouldStop(u32),
    /// The plan checker has refused an order for it.
    Refused(InstanceId),
}

impl What {
    /// The instance is there no more.
    fn ends(self) -> bool {
        matches!(
            self,
            What::StartFailed(_)
                | What::Died(_)
                | What::Stopped(_)
                | What::StoppedByHand(_)
                | What::Completed(_)
                | What::LetGo(_)
        )
    }
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Starting,
    Ready,
    Draining,
    Stopping,
    /// Frozen, or on the way there.
    Paused,
}

/// An instance that is not known to be gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub instance: InstanceId,
    pub stage: Stage,
    pub since: Time,
    /// Why it was started.
    pub reason: String,
}

/// A service when a segment began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStanding {
    pub service: ServiceId,
    pub name: String,
    pub wanted: u32,
    pub reason: String,
    pub instances: Vec<Standing>,
}

/// What stood when a segment began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    pub at: Time,
    pub services: Vec<ServiceStanding>,
}

impl Scene {
    #[must_use]
    pub fn of(core: &Core<AnyPolicy>, at: Time) -> Self {
        let services = core.services().map(|s| ServiceStanding {
            service: s.service,
            name: s.name,
            wanted: s.wanted,
            reason: s.reason,
            instances: s
                .instances
                .into_iter()
                .map(|i| Standing {
                    instance: i.instance,
                    stage: match i.state {
                        InstanceState::Starting => Stage::Starting,
                        InstanceState::Ready => Stage::Ready,
                        InstanceState::Draining => Stage::Draining,
                        InstanceState::Stopping => Stage::Stopping,
                        InstanceState::Paused => Stage::Paused,
                    },
                    since: i.since,
                    reason: i.reason,
                })
                .collect(),
        });
        Self { at, services: services.collect() }
    }
}

fn refused_change(refusal: &Refusal) -> Option<Change> {
    let what = What::Refused(refusal.instance?);
    Some(Change { service: refusal.service?, what, reason: refusal.what.clone() })
}

/// Tells the changes of each step, and knows for this whose each instance is.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    owners: BTreeMap<InstanceId, ServiceId>,
}

impl Changes {
    /// Goes on from a scene.
    #[must_use]
    pub fn from(scene: &Scene) -> Self {
        let owned = |s: &ServiceStanding| {
            let service = s.service;
            s.instances.iter().map(move |i| (i.instance, service)).collect::<Vec<_>>()
        };
        Self { owners: scene.services.iter().flat_map(owned).collect() }
    }

    /// The changes of one step, in the order in which they came about; some of the actions, by their places, were
    /// refused.
    pub fn of(
        &mut self,
        event: &Event,
        actions: &[Action],
        refused: &[(usize, Box<Refusal>)],
    ) -> Vec<Change> {
        let mut changes: Vec<Change> = self.of_event(event).into_iter().collect();
        for (at, action) in actions.iter().enumerate() {
            changes.extend(match refused.iter().find(|(place, _)| *place == at) {
                Some((_, refusal)) => refused_change(refusal),
                None => self.of_action(action),
            });
        }
        changes
    }

    fn of_event(&mut self, event: &Event) -> Option<Change> {
        let (instance, what, reason) = match event {
            Event::Began => {
                self.owners.clear();
                return None;
            }
            Event::Ready { instance, took, .. } => (instance, What::Ready(*instance), format!("took {took}")),
            Event::StartFailed { instance, why } => (instance, What::StartFailed(*instance), why.clone()),
            Event::Died { instance, why } => (instance, What::Died(*instance), why.clone()),
            Event::Stopped { instance } => (instance, What::Stopped(*instance), String::new()),
            Event::Paused { instance } => (instance, What::Paused(*instance), String::new()),
            Event::Resumed { instance, took } => (instance, What::Resumed(*instance), format!("took {took}")),
            Event::NotChanged { instance, why } => (instance, What::NotChanged(*instance), why.clone()),
            Event::Specialised { instance, took } => {
                (instance, What::Specialised(*instance), format!("took {took}"))
            }
            Event::StoppedByHand { instance, why } => (instance, What::StoppedByHand(*instance), why.clone()),
            Event::Completed { instance } => (instance, What::Completed(*instance), String::new()),
            _ => return None,
        };
        let service = *self.owners.get(instance)?;
        if what.ends() {
            self.owners.remove(instance);
        }
        Some(Change { service, what, reason })
    }

    fn of_action(&mut self, action: &Action) -> Option<Change> {
        let (service, what, reason) = match action {
            Action::Want { service, instances, reason, .. } => (*service, What::Wanted(*instances), reason),
            Action::Start { instance, service, reason, .. } => {
                self.owners.insert(*instance, *service);
                (*service, What::Started(*instance), reason)
            }
            Action::Stop { instance, why, reason, .. } => {
                (*self.owners.get(instance)?, What::StopOrdered(*instance, *why), reason)
            }
            Action::Adopt { instance, service, .. } => {
                let known = self.owners.insert(*instance, *service) == Some(*service);
                let (service, what) = (*service, What::Adopted(*instance));
                return (!known).then(|| Change { service, what, reason: "found running".to_owned() });
            }
            Action::Pause { instance, reason, .. } => {
                (*self.owners.get(instance)?, What::PauseOrdered(*instance), reason)
            }
            Action::Resume { instance, reason, .. } => {
                (*self.owners.get(instance)?, What::ResumeOrdered(*instance), reason)
            }
            Action::Specialise { instance, spec, reason, .. } => {
                self.owners.insert(*instance, spec.id);
                (spec.id, What::SpecialiseOrdered(*instance), reason)
            }
            Action::Advise { service, from, to, reason, .. } => {
                let what = if to > from { What::WouldStart(to - from) } else { What::WouldStop(from - to) };
                (*service, what, reason)
            }
            Action::LetGo { instance, reason, .. } => {
                (self.owners.remove(instance)?, What::LetGo(*instance), reason)
            }
            Action::Route { .. } | Action::Finished | Action::AskBusy { .. } => return None,
        };
        Some(Change { service, what, reason: reason.sentence() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::Rule;
    use forerun_types::{Generation, Reason, ServiceSpec, SiteId};
    use std::sync::Arc;

    #[test]
    fn what_was_refused_did_not_happen_and_is_told_with_its_reason() {
        let service = ServiceId(0);
        let start = |instance| Action::Start {
            instance: InstanceId(instance),
            generation: Generation(instance),
            service,
            site: SiteId(0),
            spec: Arc::new(ServiceSpec::named(service, "s")),
            reason: Reason::Waiting { waiting: 1 },
        };
        let refusal = Refusal {
            rule: Rule::Capacity,
            what: "with i2 of s: 2 instances reserved on a site of 1".to_owned(),
            action: "refused_start",
            service: Some(service),
            instance: Some(InstanceId(2)),
            told: None,
        };
        let mut changes = Changes::default();
        let refused = [(1, Box::new(refusal))];
        let told = changes.of(&Event::Tick, &[start(1), start(2)], &refused);
        let whats: Vec<What> = told.iter().map(|c| c.what).collect();
        assert_eq!(whats, [What::Started(InstanceId(1)), What::Refused(InstanceId(2))]);
        assert_eq!(told[1].reason, "with i2 of s: 2 instances reserved on a site of 1");
        // It never was: the word of its end is nobody's.
        let failed = Event::StartFailed { instance: InstanceId(2), why: String::new() };
        assert_eq!(changes.of(&failed, &[], &[]), []);
    }
}
