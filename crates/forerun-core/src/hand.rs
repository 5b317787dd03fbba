//! What happens past Forerun: instances that were there before it or that a person started, what a person stopped,
//! and what a person says.

use crate::canary::Canary;
use crate::core::{Core, Instance, Service, State};
use crate::policy::Policy;
use forerun_types::{
    Action, InstanceId, Launch, Mode, Override, Reason, ServiceId, ServiceSpec, Span, Time, UserKey,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// A backend that has not listed what it has by then does not keep the plan from starting any longer: its daemon
/// may be away for good, and the start will say so.
const LISTED_WITHIN: Span = Span::from_secs(30);
/// More of the same service may follow something that was found.
const MORE_WITHIN: Span = Span::from_secs(1);
/// Found things of one service that wait for what its start turns out to be.
const LATE_MAX: usize = 8;
/// Text that is kept for people.
const WHY_MAX: usize = 2_000;
/// Wakes of a service that are remembered.
const WAKES_MAX: usize = 5;

/// What is known of a service from past Forerun.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// A person's word on how far to go, and since when.
    pub(crate) mode: Option<(Mode, Time)>,
    pub(crate) down: Option<Down>,
    /// When it last ended as it was meant to.
    pub(crate) completed: Option<Time>,
    /// It has ended as it was meant to, and only a request or a person starts it again.
    pub(crate) resting: bool,
    /// Until then its backend may still tell what it has, and the plan starts nothing.
    pub(crate) unlisted_until: Time,
    /// Found while a start was under way, which may be the same.
    late: Vec<Late>,
    pub(crate) wakes: VecDeque<Wake>,
    /// What a start is at, and when that was last told to routers.
    pub(crate) progress: String,
    pub(crate) progress_told: Time,
}

/// Held down by what a person did past Forerun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Down {
    pub(crate) at: Time,
    pub(crate) why: String,
    /// What it ran in is not there any more.
    pub(crate) gone: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Late {
    handle: String,
    address: SocketAddr,
    paused: bool,
}

/// Who or what brought a service up when nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WakeBy {
    /// A request; [`UserKey::NOBODY`] where nobody is known to be behind it.
    User(UserKey),
    /// Somebody started it past Forerun.
    Operator,
    /// A person's word to Forerun.
    Person,
    /// The plan, ahead of need.
    Plan,
    /// A service that depends on it.
    Dependent(ServiceId),
}

/// One of the last times that a service was brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    pub at: Time,
    pub by: WakeBy,
}

/// Whether a service's instances outlive Forerun and are taken over by its next life.
pub(crate) fn outlives(spec: &ServiceSpec) -> bool {
    matches!(spec.launch, Launch::Container(_) | Launch::Command(_))
}

fn shortened(why: &str) -> String {
    why.chars().take(WHY_MAX).collect()
}

impl Service {
    /// How far Forerun may go: a person's word goes before what was configured.
    pub(crate) fn mode(&self) -> Mode {
        self.told.mode.map_or(self.spec.mode, |told| told.0)
    }

    /// The backend has yet to say what it has of this service.
    pub(crate) fn unlisted(&self, now: Time) -> bool {
        now < self.told.unlisted_until
    }

    /// A new life, or a new service: its backend will tell what it has.
    pub(crate) fn expect_listing(&mut self, now: Time) {
        self.told.late.clear();
        self.told.progress.clear();
        self.told.unlisted_until = if outlives(&self.spec) { now + LISTED_WITHIN } else { Time::default() };
    }

    /// A person has spoken, or started it: what holds it down is over.
    fn raised(&mut self) {
        self.told.down = None;
        self.told.resting = false;
    }

    pub(crate) fn note_wake(&mut self, at: Time, by: WakeBy) {
        if self.told.wakes.len() == WAKES_MAX {
            self.told.wakes.pop_front();
        }
        self.told.wakes.push_back(Wake { at, by });
    }
}

impl<P: Policy> Core<P> {
    /// Something of a service runs that no order of this life made: it becomes an instance.
    pub(crate) fn found(
        &mut self,
        id: ServiceId,
        handle: &str,
        was: Option<InstanceId>,
        address: SocketAddr,
        paused: bool,
        actions: &mut Vec<Action>,
    ) {
        let (now, closing) = (self.now, self.closing);
        let id = self.families.owner(was).unwrap_or(id);
        let Some(s) = self.get_mut(id) else { return };
        if closing || s.leaving {
            return;
        }
        if s.unlisted(now) {
            s.told.unlisted_until = now + MORE_WITHIN;
        }
        let known = s.instances.clone();
        let twice = self.is_canary(Canary::AdoptsTwice);
        if let Some(&instance) = known.iter().find(|i| !twice && self.is(**i, |i| i.handle == handle)) {
            return self.found_again(instance, address, actions);
        }
        // A start may have taken just this, and what is told is older than its end.
        let taken = |i: &Instance| i.handle.is_empty() && i.address == Some(address);
        if !twice && known.iter().any(|i| self.is(*i, taken)) {
            return;
        }
        // The start under way may have taken just this. Its end tells.
        if was.is_none() && known.iter().any(|i| self.is(*i, |i| i.state == State::Starting)) {
            if let Some(s) = self.get_mut(id) {
                s.told.late.retain(|l| l.handle != handle);
                s.told.late.truncate(LATE_MAX - 1);
                s.told.late.push(Late { handle: handle.to_owned(), address, paused });
            }
            return;
        }
        self.adopt(id, handle, was, address, paused, actions);
    }

    fn found_again(&mut self, id: InstanceId, address: SocketAddr, actions: &mut Vec<Action>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let moved = instance.address.replace(address) != Some(address);
        let (service, handle, ready) =
            (instance.service, instance.handle.clone(), instance.state == State::Ready);
        self.order_adoption(id, service, handle, actions);
        if moved && ready {
            self.publish(service, actions);
        }
    }

    fn order_adoption(
        &mut self,
        instance: InstanceId,
        service: ServiceId,
        handle: String,
        actions: &mut Vec<Action>,
    ) {
        let generation = self.order_generation();
        let Some(spec) = self.get(service).map(|s| s.spec.clone()) else { return };
        actions.push(Action::Adopt { instance, generation, service, handle, spec });
    }

    /// An id of an earlier life stays, unless this life has used it: backends take no second order for an instance
    /// that has ended.
    fn adopted_id(&mut self, was: Option<InstanceId>) -> InstanceId {
        let used = |id: InstanceId| {
            (id > self.last_before && id <= self.last_instance) || self.adopted.contains(&id)
        };
        let kept = was.filter(|id| id.0 > 0 && !used(*id));
        let id = kept.unwrap_or(InstanceId(self.last_instance.0 + 1));
        self.last_instance = self.last_instance.max(id);
        self.adopted.insert(id);
        id
    }

    fn adopt(
        &mut self,
        service: ServiceId,
        handle: &str,
        was: Option<InstanceId>,
        address: SocketAddr,
        paused: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(reserved) = self.get(service).map(|s| s.spec.resources) else { return };
        let (now, id) = (self.now, self.adopted_id(was));
        let what = if was.is_some() { "it ran before this life of Forerun" } else { "found running" };
        let reason = Reason::Bound { what: what.to_owned() };
        let site = self.site(service);
        self.rooms.at_mut(site).reserve(&reserved);
        let mut instance = Instance::new(service, now, self.described(), reason, (site, reserved));
        instance.state = if paused { State::Paused } else { State::Ready };
        instance.ready_at = Some(now);
        instance.address = Some(address);
        handle.clone_into(&mut instance.handle);
        instance.found = was.is_none();
        // Before the backend says so: what is too many may go at once.
        instance.own = was.is_none();
        self.instances.insert(id, instance);
        if let Some(s) = self.get_mut(service) {
            s.instances.push(id);
            s.raised();
            s.failures = 0;
            s.backoff_until = Time::default();
        }
        if let Some(elder) = self.elder_mut(service) {
            elder.raised();
        }
        self.retally(service);
        self.order_adoption(id, service, handle.to_owned(), actions);
        if was.is_none() {
            // Who starts something means to use it: the plan takes it as a use that has just ended.
            let up = self.count(service) + u32::from(paused);
            let needed = self.get(service).map_or(0, |s| s.spec.instances_for(s.requests()));
            self.policy.needed(now, service, up.max(needed), needed);
            if let Some(s) = self.get_mut(service) {
                s.note_wake(now, WakeBy::Operator);
            }
        }
        self.publish(service, actions);
        self.mark(service);
    }

    /// A start has ended, at this address if it is ready: what was found meanwhile is that, or something else.
    pub(crate) fn adopt_late(
        &mut self,
        id: ServiceId,
        address: Option<SocketAddr>,
        actions: &mut Vec<Action>,
    ) {
        let Some(s) = self.get_mut(id) else { return };
        if s.told.late.is_empty() {
            return;
        }
        s.told.late.retain(|l| Some(l.address) != address);
        let starting = s.instances.clone().iter().any(|i| self.is(*i, |i| i.state == State::Starting));
        let Some(s) = self.get_mut(id).filter(|_| !starting) else { return };
        for late in std::mem::take(&mut s.told.late) {
            self.found(id, &late.handle, None, late.address, late.paused, actions);
        }
    }

    /// The service that a person means who touches an instance of this one: for a key nobody could ever take it back.
    pub(crate) fn elder_mut(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.get_mut(self.elder_of(id))
    }

    /// A person stopped an instance past Forerun: its service stays down until a person says otherwise.
    pub(crate) fn stopped_by_hand(&mut self, id: InstanceId, why: &str, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(instance) = self.remove(id) else { return };
        // One that was being stopped anyway was only helped along.
        if !self.is_canary(Canary::WakesStopped)
            && !matches!(instance.state, State::Stopping { .. })
            && let Some(s) = self.elder_mut(instance.service)
        {
            s.told.down = Some(Down { at: now, why: shortened(why), gone: false });
            s.failures = 0;
        }
        self.adopt_late(instance.service, None, actions);
        self.publish(instance.service, actions);
    }

    /// An instance ended by itself as it was meant to: that is no failure, and no reason to start another.
    pub(crate) fn completed(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(instance) = self.remove(id) else { return };
        if let Some(s) = self.get_mut(instance.service) {
            s.told.completed = Some(now);
            s.told.resting = true;
            s.failures = 0;
            s.backoff_until = Time::default();
        }
        self.adopt_late(instance.service, None, actions);
        self.publish(instance.service, actions);
    }

    /// The backend has listed: nothing more of the service runs; what it would run in is there, or is not.
    pub(crate) fn own_state(&mut self, id: ServiceId, there: bool, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(s) = self.get_mut(id) else { return };
        s.told.unlisted_until = Time::default();
        match (there, &s.told.down) {
            (true, Some(Down { gone: true, .. })) => s.told.down = None,
            (false, None) => {
                let why = "what it runs in is not there any more".to_owned();
                s.told.down = Some(Down { at: now, why, gone: true });
            }
            _ => {}
        }
        self.refuse_or_accept(id, actions);
        self.mark(id);
    }

    pub(crate) fn override_told(&mut self, id: ServiceId, order: Override) {
        let now = self.now;
        self.with(id, |s| {
            s.raised();
            if s.bounds.order.is_none_or(|old| old.instances != order.instances) {
                s.bounds.since = now;
            }
            s.bounds.order = Some(order);
            if order.instances.is_some_and(|n| n > 0) && s.instances.is_empty() {
                s.note_wake(now, WakeBy::Person);
            }
        });
    }

    pub(crate) fn mode_told(&mut self, id: ServiceId, mode: Option<Mode>, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(s) = self.get_mut(id) else { return };
        s.raised();
        let since = s.told.mode.filter(|old| Some(old.0) == mode).map_or(now, |old| old.1);
        s.told.mode = mode.map(|mode| (mode, since));
        if s.mode() != Mode::Act {
            // A word about a service is one about its keys.
            self.keep_draining(id);
            for variant in self.families.variants(id).collect::<Vec<_>>() {
                self.keep_draining(variant);
                self.publish(variant, actions);
            }
        }
        self.publish(id, actions);
        self.mark(id);
    }

    /// What is only watched from now on is left alone, also what was about to be stopped.
    pub(crate) fn keep_draining(&mut self, id: ServiceId) {
        let Some(s) = self.get(id) else { return };
        for instance in s.instances.clone() {
            if self.is(instance, |i| matches!(i.state, State::Draining { .. })) {
                self.set_state(instance, State::Ready);
            }
        }
    }

    /// What a start is at, for those who wait.
    pub(crate) fn progress(&mut self, instance: InstanceId, what: &str, actions: &mut Vec<Action>) {
        /// Routers are told at most so often.
        const EVERY: Span = Span::from_millis(500);
        let now = self.now;
        let Some(id) = self.instances.get(&instance).map(|i| i.service) else { return };
        let Some(s) = self.get_mut(id) else { return };
        s.told.progress = shortened(what);
        if now.since(s.told.progress_told) >= EVERY {
            s.told.progress_told = now;
            self.publish(id, actions);
        }
    }

    /// Forerun ends, or the service does: what a daemon owns goes on without it. Only what Forerun itself started
    /// for a service that is gone is stopped.
    pub(crate) fn let_go(&mut self, id: ServiceId, actions: &mut Vec<Action>) {
        let (closing, takes) = (self.closing, self.is_canary(Canary::StopsTheirs));
        let ends = |s: &&Service| outlives(&s.spec) && (closing || s.leaving) && !takes;
        let Some(s) = self.get(id).filter(ends) else { return };
        let acts = s.mode() == Mode::Act;
        let before = s.instances.len();
        for instance in s.instances.clone() {
            if closing || !acts || self.is(instance, |i| i.found) {
                self.remove(instance);
                let generation = self.order_generation();
                let reason = Reason::Bound { what: "it runs on without Forerun".to_owned() };
                actions.push(Action::LetGo { instance, generation, reason });
            }
        }
        // One that stays for what its keys still have is in the table until then.
        if !closing && self.get(id).is_some_and(|s| s.instances.len() < before) {
            self.publish(id, actions);
        }
    }
}
