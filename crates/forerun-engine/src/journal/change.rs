//! What became of a service's instances, in words that need neither the core nor the policy that decided.

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
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Starting,
    Ready,
    Draining,
    Stopping,
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
                    },
                    since: i.since,
                    reason: i.reason,
                })
                .collect(),
        });
        Self { at, services: services.collect() }
    }
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

    /// The changes of one step, in the order in which they came about.
    pub fn of(&mut self, event: &Event, actions: &[Action]) -> Vec<Change> {
        let mut changes: Vec<Change> = self.of_event(event).into_iter().collect();
        changes.extend(actions.iter().filter_map(|action| self.of_action(action)));
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
            _ => return None,
        };
        let service = *self.owners.get(instance)?;
        if !matches!(what, What::Ready(_)) {
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
            _ => return None,
        };
        Some(Change { service, what, reason: reason.sentence() })
    }
}
