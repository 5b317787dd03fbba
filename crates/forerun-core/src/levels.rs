//! Between hot and cold: instances that are frozen, and thawed when they are needed.

use crate::core::{Core, State};
use crate::hand::Down;
use crate::policy::Policy;
use forerun_types::{Action, InstanceId, Reason, ServiceId, Span, StopWhy};

/// After a pause that was not carried out none is tried for so long.
const NO_PAUSE: Span = Span::from_secs(600);

impl<P: Policy> Core<P> {
    /// Orders a drained instance to be frozen.
    pub(crate) fn order_pause(&mut self, id: InstanceId, reason: Reason, actions: &mut Vec<Action>) {
        let now = self.now;
        let generation = self.order_generation();
        self.set_state(id, State::Pausing { ordered: now, back: false });
        actions.push(Action::Pause { instance: id, generation, reason });
    }

    fn order_resume(&mut self, id: InstanceId, reason: Reason, actions: &mut Vec<Action>) {
        let now = self.now;
        let generation = self.order_generation();
        self.set_state(id, State::Resuming { ordered: now });
        actions.push(Action::Resume { instance: id, generation, reason });
    }

    /// Thaws one of a service's frozen instances, or one that is just being frozen as soon as it is; false when it
    /// has none.
    pub(crate) fn resume_one(&mut self, id: ServiceId, reason: &Reason, actions: &mut Vec<Action>) -> bool {
        let Some(s) = self.get(id) else { return false };
        let newest = || s.instances.iter().rev().copied();
        if let Some(instance) = newest().find(|i| self.is(*i, |i| i.state == State::Paused)) {
            self.order_resume(instance, reason.clone(), actions);
            return true;
        }
        let pausing = |state: &State| match state {
            State::Pausing { ordered, back: false } => Some(*ordered),
            _ => None,
        };
        let going = newest().find_map(|i| Some((i, pausing(&self.instances.get(&i)?.state)?)));
        let Some((instance, ordered)) = going else { return false };
        self.set_state(instance, State::Pausing { ordered, back: true });
        true
    }

    /// Instances of a service that are frozen, or on the way there.
    pub(crate) fn freezing(&self, id: ServiceId) -> u32 {
        let Some(s) = self.get(id) else { return 0 };
        let freezes = |i: &&InstanceId| {
            self.is(**i, |i| i.frozen() || matches!(i.state, State::Draining { pause: true, .. }))
        };
        s.instances.iter().filter(freezes).count() as u32
    }

    /// Stops frozen instances until there are `target`, the oldest first.
    pub(crate) fn trim_frozen(
        &mut self,
        id: ServiceId,
        target: u32,
        reason: &Reason,
        actions: &mut Vec<Action>,
    ) {
        let why = if self.closing { StopWhy::ShutDown } else { StopWhy::Plan };
        let Some(s) = self.get(id).filter(|s| s.tally.paused > target) else { return };
        let mut left = s.tally.paused;
        for instance in s.instances.clone() {
            if left > target && self.is(instance, |i| i.state == State::Paused) {
                left -= 1;
                self.order_stop(instance, why, reason.clone(), actions);
            }
        }
    }

    pub(crate) fn paused(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(instance) = self.instances.get(&id) else { return };
        let (service, state) = (instance.service, instance.state.clone());
        match state {
            State::Pausing { back, .. } => {
                self.set_state(id, State::Paused);
                if back {
                    let reason = Reason::Bound { what: "needed while it was being paused".to_owned() };
                    self.order_resume(id, reason, actions);
                }
                self.room_changed = true;
            }
            // Nobody here ordered it.
            State::Ready | State::Draining { .. } => {
                self.set_state(id, State::Paused);
                if let Some(s) = self.elder_mut(service) {
                    s.told.down = Some(Down { at: now, why: "paused by hand".to_owned(), gone: false });
                }
                self.mark_relatives(service);
                self.publish(service, actions);
            }
            State::Starting
            | State::Paused
            | State::Resuming { .. }
            | State::Stopping { .. }
            | State::Claimed { .. }
            | State::Specialising { .. } => return,
        }
        self.mark(service);
    }

    pub(crate) fn resumed(&mut self, id: InstanceId, took: Span, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let service = instance.service;
        match instance.state {
            State::Resuming { .. } => self.demand.resumed(service, took),
            State::Paused => {
                if let Some(s) = self.elder_mut(service) {
                    s.told.down = None;
                }
                self.mark_relatives(service);
            }
            _ => return,
        }
        if let Some(instance) = self.instances.get_mut(&id) {
            (instance.last_used, instance.ready_at, instance.resumed) = (now, Some(now), true);
        }
        self.set_state(id, State::Ready);
        self.publish(service, actions);
        self.mark(service);
    }

    /// An order was not carried out, and the instance is what it was before.
    pub(crate) fn not_changed(&mut self, id: InstanceId, why: &str, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(instance) = self.instances.get(&id) else { return };
        let (service, instance) = (instance.service, instance.clone());
        match instance.state {
            State::Pausing { .. } => {
                if let Some(s) = self.get_mut(service) {
                    s.no_pause_until = now + NO_PAUSE;
                }
                self.set_state(id, State::Ready);
                self.publish(service, actions);
            }
            // What does not thaw is of no use; another is started instead.
            State::Resuming { .. } => {
                self.failed(&instance, why);
                self.order_stop(id, StopWhy::Plan, Reason::Failed { why: why.to_owned() }, actions);
            }
            State::Specialising { .. } => self.not_specialised(id, why, actions),
            _ => return,
        }
        self.mark(service);
    }
}
