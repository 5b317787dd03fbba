//! A generic instance becomes a key's: faster than a start, where its service has a hook for it.
//!
//! Only one that no request was ever sent to may be taken, and that is known of no instance that is in use: so it
//! leaves the route table first, and each router says that it is quiet. Had one sent a request there, it would have
//! said so before ([`forerun_types::Event::Touched`]), and the instance goes back to where it was. From the order on
//! there is no way back: an instance that is not changed after all is stopped.

use crate::canary::Canary;
use crate::core::{Core, Instance, State};
use crate::policy::Policy;
use crate::settle::AT_ANY_PRICE;
use forerun_types::{
    Access, Action, Generation, InstanceId, Reason, RouterId, ServiceId, Span, StopWhy, Time, Variant,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// How long routers may take to say that an instance is quiet that has never been used.
const QUIET_MAX: Span = Span::from_secs(1);
/// The first failed change is tried again at once, since it may be the instance's own; then the pause doubles.
const FAILED_PAUSE: Span = Span::from_secs(10);
const FAILED_DOUBLINGS_MAX: u32 = 6;
/// Needs of the pool that are told apart within one start.
const NEEDS_MAX: usize = 64;

/// How a family's changes have gone, and how much its pool is in demand.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Claims {
    failures: u32,
    again: Time,
    /// When instances were needed for keys, within the last start.
    needs: VecDeque<Time>,
}

impl Claims {
    fn failed(&mut self, now: Time) {
        self.failures = self.failures.saturating_add(1);
        self.again = match self.failures {
            0 | 1 => now,
            n => now + Span(FAILED_PAUSE.0 << (n - 2).min(FAILED_DOUBLINGS_MAX)),
        };
    }
}

impl<P: Policy> Core<P> {
    /// An instance has become ready: if it is generic, a key may have it until it is used.
    pub(crate) fn note_ready(&mut self, id: InstanceId, took: Span) {
        let Some(service) = self.instances.get(&id).map(|i| i.service) else { return };
        let Some(spec) = self.get(service).map(|s| Arc::clone(&s.spec)) else { return };
        match &spec.variant {
            Some(variant) => self.demand.key_started(variant.of, took),
            None if spec.specialise.as_ref().is_some_and(|s| s.hook.is_some()) => {
                self.families.untouched.insert(id);
            }
            None => {}
        }
    }

    /// Who may be sent to an instance that is in its service's table.
    pub(crate) fn access(&self, service: ServiceId, instance: InstanceId) -> Access {
        match self.get(service).and_then(|s| s.spec.variant.as_ref()) {
            Some(variant) => Access::Only(Variant::access_key(&variant.key)),
            None if self.families.untouched.contains(&instance) => Access::Unclaimed,
            None => Access::Any,
        }
    }

    /// A router has sent a first request to an instance: it stays generic.
    pub(crate) fn touched(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        if self.is_canary(Canary::UsedIsGeneric) || !self.families.untouched.remove(&id) {
            return;
        }
        let Some(instance) = self.instances.get(&id) else { return };
        self.demand.chosen(self.families.parent_of(instance.service).unwrap_or(instance.service), false);
        match instance.state {
            State::Claimed { .. } => self.give_back(id, actions),
            State::Ready => {
                self.publish(instance.service, actions);
            }
            _ => {}
        }
    }

    /// Takes a generic instance for a variant, if there is one, that is quicker, and it is worth more there.
    pub(crate) fn claim(
        &mut self,
        id: ServiceId,
        price: i64,
        reason: &Reason,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(parent) = self.families.parent_of(id) else { return false };
        if !self.claim_is_quicker(id, parent) || !self.claim_is_worth(parent, price) {
            return false;
        }
        let Some(s) = self.get(parent) else { return false };
        // What is the user's own is nobody's to change.
        let free = |i: &Instance| i.state == State::Ready && i.requests() == 0 && !i.own;
        let free = |i: &&InstanceId| self.families.untouched.contains(*i) && self.is(**i, free);
        let Some(instance) = s.instances.iter().find(free).copied() else { return false };
        let (now, nobody) = (self.now, self.routers.is_empty());
        // Its state must change before the table is made, and the table's generation is not known until then.
        let claimed =
            |generation| State::Claimed { generation, quiesced: Vec::new(), deadline: now + QUIET_MAX };
        self.set_state(instance, claimed(Generation(u64::MAX)));
        let generation = self.publish(parent, actions);
        self.set_state(instance, claimed(generation));
        if let Some(i) = self.instances.get_mut(&instance) {
            i.reason = reason.clone();
        }
        self.hand_over(instance, id);
        self.mark(parent);
        let due = self.deadline(id).min(self.get(id).map_or(Time::NEVER, |s| s.due));
        self.set_due(id, due);
        if nobody {
            self.order_change(instance, actions);
        }
        true
    }

    /// As far as has been measured; a change that never was is thought to take half a start.
    fn claim_is_quicker(&self, id: ServiceId, parent: ServiceId) -> bool {
        let (Some(s), Some(family)) = (self.get(id), self.families.get(parent)) else { return false };
        let has_hook = s.spec.specialise.as_ref().is_some_and(|s| s.hook.is_some());
        let start = self.demand.start_time(&s.spec);
        let change = self.demand.specialise_time(parent).unwrap_or(Span(start.0 / 2));
        has_hook && self.now >= family.claims.again && change < start
    }

    /// A held request takes what there is. A plan leaves the pool what is worth more there.
    fn claim_is_worth(&self, parent: ServiceId, price: i64) -> bool {
        let Some(s) = self.get(parent) else { return false };
        if price == AT_ANY_PRICE {
            return true;
        }
        let have = self.count(parent);
        let idle = have.saturating_sub(s.spec.instances_for(s.requests()));
        let value = idle.checked_sub(1).and_then(|at| s.values.get(at as usize));
        have > s.bounds.least(self.now, &s.spec) && value.is_none_or(|v| v.density < price)
    }

    /// Puts an instance into another service's books.
    fn hand_over(&mut self, id: InstanceId, to: ServiceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let from = std::mem::replace(&mut instance.service, to);
        if let Some(s) = self.get_mut(from) {
            s.instances.retain(|i| *i != id);
        }
        if let Some(s) = self.get_mut(to) {
            let at = s.instances.partition_point(|i| *i < id);
            s.instances.insert(at, id);
        }
        self.retally(from);
        self.retally(to);
    }

    /// A router has nothing in flight at an instance that is to become a key's.
    pub(crate) fn claim_quiesced(
        &mut self,
        router: RouterId,
        id: InstanceId,
        told: Generation,
        actions: &mut Vec<Action>,
    ) {
        let Some(Instance { state: State::Claimed { generation, quiesced, .. }, .. }) =
            self.instances.get_mut(&id)
        else {
            return;
        };
        if told < *generation || quiesced.contains(&router) {
            return;
        }
        quiesced.push(router);
        let quiesced = quiesced.clone();
        if self.routers.iter().all(|r| quiesced.contains(r)) {
            self.order_change(id, actions);
        }
    }

    fn order_change(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some((service, reason)) = self.instances.get(&id).map(|i| (i.service, i.reason.clone())) else {
            return;
        };
        let Some(spec) = self.get(service).map(|s| Arc::clone(&s.spec)) else { return };
        self.families.untouched.remove(&id);
        self.set_state(id, State::Specialising { ordered: now });
        let generation = self.order_generation();
        actions.push(Action::Specialise { instance: id, generation, spec, reason });
        // Its deadline is another one now.
        self.mark(service);
    }

    /// An instance that is claimed, and not yet ordered to change, stays what it was.
    pub(crate) fn give_back(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        let Some(instance) = self.instances.get(&id) else { return };
        if !matches!(instance.state, State::Claimed { .. }) {
            return;
        }
        let variant = instance.service;
        let Some(parent) = self.families.parent_of(variant) else { return };
        // Why it was taken back is that it may have been used.
        self.families.untouched.remove(&id);
        self.set_state(id, State::Ready);
        self.hand_over(id, parent);
        self.publish(parent, actions);
        self.mark(parent);
        self.mark(variant);
    }

    /// A router is away, and may go on by its last table without telling: what it knew may be used from now on.
    pub(crate) fn touched_unseen(&mut self, actions: &mut Vec<Action>) {
        self.families.untouched.clear();
        let claimed = |i: &Instance| matches!(i.state, State::Claimed { .. });
        let claimed: Vec<InstanceId> =
            self.instances.iter().filter(|(_, i)| claimed(i)).map(|(id, _)| *id).collect();
        claimed.into_iter().for_each(|id| self.give_back(id, actions));
    }

    pub(crate) fn specialised(&mut self, id: InstanceId, took: Span, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if !matches!(instance.state, State::Specialising { .. }) {
            return; // an order to stop it is already on its way
        }
        instance.ready_at = Some(now);
        instance.last_used = now;
        instance.resumed = true;
        let service = instance.service;
        self.set_state(id, State::Ready);
        if let Some(parent) = self.families.parent_of(service) {
            self.demand.specialised(parent, took);
            self.demand.chosen(parent, true);
            if let Some(family) = self.families.get_mut(parent) {
                family.claims.failures = 0;
            }
        }
        if let Some(s) = self.get_mut(service) {
            s.backoff_until = Time::default();
        }
        self.publish(service, actions);
        self.mark(service);
    }

    /// A change was not carried out. How far it went nobody knows: nobody gets the instance.
    pub(crate) fn not_specialised(&mut self, id: InstanceId, why: &str, actions: &mut Vec<Action>) {
        if self.is(id, |i| matches!(i.state, State::Specialising { .. })) {
            self.change_failed(id);
            if self.is_canary(Canary::BackToPool)
                && let Some(parent) = self.instances.get(&id).and_then(|i| self.families.parent_of(i.service))
            {
                self.set_state(id, State::Ready);
                self.hand_over(id, parent);
                self.publish(parent, actions);
                return;
            }
            let reason = Reason::Failed { why: format!("it was not specialised: {why}") };
            self.order_stop(id, StopWhy::Plan, reason, actions);
        }
    }

    /// Counts a change that came to nothing, so that a hook that never works is left alone.
    pub(crate) fn change_failed(&mut self, id: InstanceId) {
        let now = self.now;
        let Some(instance) = self.instances.get(&id) else { return };
        if matches!(instance.state, State::Specialising { .. })
            && let Some(family) =
                self.families.parent_of(instance.service).and_then(|p| self.families.get_mut(p))
        {
            family.claims.failed(now);
        }
    }

    /// A variant needs an instance more, wherever it comes from: that was a need of the pool of generic ones, whose
    /// forecast is to have one there the next time. Needs within one start are needs at once.
    pub(crate) fn pool_needed(&mut self, variant: ServiceId) {
        let now = self.now;
        let Some(parent) = self.families.parent_of(variant) else { return };
        let Some(s) = self.get(parent) else { return };
        if s.spec.specialise.as_ref().is_none_or(|s| s.hook.is_none()) {
            return;
        }
        let needed = s.spec.instances_for(s.requests());
        let start = self.demand.start_time(&s.spec);
        let Some(family) = self.families.get_mut(parent) else { return };
        let needs = &mut family.claims.needs;
        while needs.len() >= NEEDS_MAX || needs.front().is_some_and(|at| *at + start < now) {
            needs.pop_front();
        }
        needs.push_back(now);
        let peak = needed.saturating_add(needs.len() as u32);
        self.policy.needed(now, parent, peak, needed);
        self.mark(parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_fails_is_left_alone_ever_longer() {
        let mut claims = Claims::default();
        let mut now = Time(1);
        for pause in [0, 10, 20, 40, 80, 160, 320, 640, 640] {
            claims.failed(now);
            assert_eq!(claims.again, now + Span::from_secs(pause));
            now = claims.again;
        }
    }
}
