//! The plan of one service, carried into orders: one priced decision for pre-warming, keeping, scaling and eviction.
//!
//! The j-th instance beyond the load of now is worth what the policy says; it is wanted while that is positive and
//! there is room, or less valuable idle ones can make room. What the load of now needs comes first, at any price.

use crate::bounds::clock;
use crate::canary::Canary;
use crate::core::{Core, Instance, Service, State};
use crate::hand::WakeBy;
use crate::policy::{Policy, View};
use forerun_types::{Action, InstanceId, Mode, Reason, ServiceId, Span, StopWhy, Time};

/// How soon room is looked for again for held requests.
const SHORT_AGAIN: Span = Span::from_secs(1);
/// A held request takes any room that can be made.
pub(crate) const AT_ANY_PRICE: i64 = i64::MAX;
/// `min` and a person's word take any but that of another `min`.
pub(crate) const BOUND_PRICE: i64 = i64::MAX - 1;

/// What became of a start.
pub(crate) enum Started {
    Yes,
    NoRoom,
    /// Something else has to be there, or gone, first; its change has this service settled again.
    Waits,
}

/// What a service is to be brought to.
struct Goal {
    /// Instances that the load of now needs.
    needed: u32,
    target: u32,
    /// As many of them as may be started now.
    startable: u32,
    /// Instances that are better frozen.
    frozen: u32,
    reason: Reason,
    /// When to look again, whatever the policy says.
    again: Time,
}

impl<P: Policy> Core<P> {
    /// Brings a service to what is wanted now.
    pub(crate) fn settle(&mut self, id: ServiceId, actions: &mut Vec<Action>) {
        self.overdue(id, actions);
        self.let_go(id, actions);
        self.replace_wedged(id, actions);
        let again = self.appraise(id);
        let (now, closing) = (self.now, self.closing);
        let worded = self.has_word(id);
        let Some(mut goal) = self.goal(id) else { return };
        if worded && !self.has_word(id) {
            // What a person's number kept from its keys is theirs again.
            self.mark_relatives(id);
        }
        let most = self.most_beside_relatives(id);
        // What its relatives have is all that it may have: one of them makes way for what is held.
        let held_back =
            (self.count(id)..goal.startable).contains(&most) && self.get(id).is_some_and(|s| s.held() > 0);
        let acts = self.acts(id);
        // Also while its relatives have its places: it is tried again for its dependents, which would pull again.
        self.pulls(id, acts && goal.target > 0);
        (goal.target, goal.startable) = (goal.target.min(most), goal.startable.min(most));
        let mut wanted = goal.target;
        if acts && self.count(id) < goal.startable {
            let (got, waits) = self.start_until(id, &goal, actions);
            if got < goal.startable && !waits {
                wanted = got;
            }
        } else if acts && held_back {
            self.short.remove(&id);
            self.react(id, actions);
        } else {
            self.short.remove(&id);
            // What is only watched is left alone, but for what Forerun itself has to take with it when it goes.
            if (acts || closing || self.get(id).is_some_and(|s| s.leaving)) && !self.goes_last(id) {
                self.trim(id, &goal, actions);
            }
        }
        self.advise(id, wanted, &goal.reason, actions);
        self.want(id, wanted, goal.reason, actions);
        self.refuse_or_accept(id, actions);
        let mut due = again.min(goal.again).min(self.deadline(id));
        if self.short.contains(&id) && self.get(id).is_some_and(|s| s.held() > 0) {
            // Held requests that find no room are not left to chance.
            due = due.min(now + SHORT_AGAIN);
        }
        self.set_due(id, due);
        self.remove_if_left(id, actions);
    }

    fn has_word(&self, id: ServiceId) -> bool {
        self.get(id).is_some_and(|s| s.bounds.order.is_some())
    }

    /// Whether orders may be given for a service.
    pub(crate) fn acts(&self, id: ServiceId) -> bool {
        let acts = |s: &Service| {
            let elder = self.elder(s);
            elder.mode() == Mode::Act && (elder.spec.id == id || elder.told.down.is_none())
        };
        self.get(id).is_some_and(acts) || self.is_canary(Canary::ObserveActs)
    }

    fn goal(&mut self, id: ServiceId) -> Option<Goal> {
        let (now, closing) = (self.now, self.closing);
        let (have, floor) = (self.count(id), self.floor(id));
        let s = self.get_mut(id)?;
        let needed = s.spec.instances_for(s.requests());
        if closing || s.leaving {
            let reason = if closing { Reason::ShutDown } else { why(s, needed, 0, 0, None) };
            return Some(Goal { needed, target: 0, startable: 0, frozen: 0, reason, again: Time::NEVER });
        }
        let planned = s.values.iter().filter(|v| v.is_hot()).count() as u32;
        let mut frozen = s.values.iter().filter(|v| v.is_frozen()).count() as u32;
        let spec = s.spec.clone();
        let (mut target, mut decided, mut again) = s.bounds.apply(now, &spec, needed.saturating_add(planned));
        match s.bounds.word(now) {
            Some(0) => frozen = 0,
            // Exactly so many: what is frozen beside them stays as it is.
            Some(_) => frozen = s.tally.paused,
            None if floor.instances.min(spec.max) > target => {
                (target, decided) = (floor.instances.min(spec.max), floor.why);
                again = again.min(floor.until);
            }
            None => again = again.min(floor.until),
        }
        if !spec.pausable || now < s.no_pause_until {
            frozen = frozen.min(s.tally.paused);
        }
        let mut startable = target;
        if now < s.backoff_until {
            (startable, again) = (0, again.min(s.backoff_until));
        }
        if let Some(down) = &s.told.down {
            (target, startable, frozen) = (target.min(have), 0, s.tally.paused);
            decided = Some(format!("{} at {}", down.why, clock(down.at, s.bounds.offset_seconds)));
        } else if s.told.resting && needed < target {
            (target, startable) = (needed, startable.min(needed));
            decided = Some("it has done what it was started for".to_owned());
        } else if s.unlisted(now) {
            (startable, again) = (startable.min(needed), again.min(s.told.unlisted_until));
        }
        let reason = why(s, needed, planned, target, decided);
        Some(Goal { needed, target, startable, frozen, reason, again })
    }

    /// A request is held: starts what it needs now, and takes nothing away.
    pub(crate) fn react(&mut self, id: ServiceId, actions: &mut Vec<Action>) {
        let (now, closing) = (self.now, self.closing);
        let Some(s) = self.get(id) else { return };
        if closing || s.leaving || !self.acts(id) || now < s.backoff_until || s.told.down.is_some() {
            return;
        }
        let waiting = s.held();
        let (need, most) = (s.spec.instances_for(waiting), s.bounds.most(now, &s.spec));
        let starting = s.tally.starting;
        let have = self.count(id);
        for _ in 0..need.saturating_sub(starting).min(most.saturating_sub(have)) {
            match self.start_one(id, AT_ANY_PRICE, &Reason::Waiting { waiting }, actions) {
                Started::Yes => {}
                Started::Waits => break,
                Started::NoRoom => {
                    self.short.insert(id);
                    break;
                }
            }
        }
    }

    fn appraise(&mut self, id: ServiceId) -> Time {
        let (now, up, dearer_milli) = (self.now, self.up_or_advised(id), self.dearer_milli(id));
        let short = self.short.contains(&id) || self.rooms.at(self.site(id)).shadow_price() > 0;
        let Some(s) = self.services.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return Time::NEVER;
        };
        let view =
            View { up, short, dearer_milli, ..self.demand.view(&s.spec, s.spec.instances_for(s.requests())) };
        s.values.clear();
        s.appraised = now;
        let again = self.policy.appraise(now, &view, &mut s.values);
        // What is better frozen comes after all that is to be hot.
        s.values.sort_by_key(|v| (v.is_frozen(), std::cmp::Reverse(v.density)));
        again
    }

    /// Starts until there are as many as may be, or no room can be made; returns how many there are then, and whether
    /// the next one waits for something else.
    fn start_until(&mut self, id: ServiceId, goal: &Goal, actions: &mut Vec<Action>) -> (u32, bool) {
        let needed = goal.needed;
        let mut have = self.count(id);
        while have < goal.startable {
            let Some(s) = self.get(id) else { break };
            let (price, reason) = if have < needed {
                (AT_ANY_PRICE, Reason::InUse { needed })
            } else if let Some(value) = s.values.get((have - needed) as usize).filter(|v| v.is_hot()) {
                (value.density, value.reason.clone())
            } else {
                (BOUND_PRICE, goal.reason.clone())
            };
            match self.start_one(id, price, &reason, actions) {
                Started::Yes => have += 1,
                Started::NoRoom => {
                    self.short.insert(id);
                    return (have, false);
                }
                Started::Waits => {
                    self.short.remove(&id);
                    return (have, true);
                }
            }
        }
        self.short.remove(&id);
        (have, false)
    }

    /// One more instance: one that is draining comes back, else a new one starts if there is room; if not, room is
    /// asked for, and this returns false.
    pub(crate) fn start_one(
        &mut self,
        id: ServiceId,
        price: i64,
        reason: &Reason,
        actions: &mut Vec<Action>,
    ) -> Started {
        if !self.with_dependencies(id, price, actions) || !self.alone(id, price, actions) {
            return Started::Waits;
        }
        // What `max` leaves to its relatives is not for one that is there already either.
        let free = self.count(id) < self.most_beside_relatives(id);
        if free && (self.bring_back(id, price, actions) || self.resume_one(id, reason, actions)) {
            return Started::Yes;
        }
        if self.claim(id, price, reason, actions) {
            self.pool_needed(id);
            return Started::Yes;
        }
        let site = self.site(id);
        if !self.has_turn(id, site, price) {
            return Started::Waits;
        }
        if !self.relatives_make_way(id, price, actions) {
            return Started::NoRoom;
        }
        if !free && (self.bring_back(id, price, actions) || self.resume_one(id, reason, actions)) {
            return Started::Yes;
        }
        if self.waits_for_wedged(id) {
            return Started::Waits;
        }
        let Some(s) = self.get(id) else { return Started::NoRoom };
        let spec = s.spec.clone();
        let free = self.has_room(id, price);
        let one_more = self.is_canary(Canary::CapacityOffByOne)
            && self.rooms.at(site).after(&[spec.resources], &[]).fits(&spec.resources);
        if !free && !one_more {
            self.make_room(id, price, actions);
            return Started::NoRoom;
        }
        self.last_instance.0 += 1;
        let (instance, now) = (self.last_instance, self.now);
        self.rooms.at_mut(site).reserve(&spec.resources);
        let made = Instance::new(id, now, self.described(), reason.clone(), (site, spec.resources));
        self.instances.insert(instance, made);
        let planned = price < BOUND_PRICE;
        if planned {
            self.planned_start(instance, site);
        }
        if let Some(s) = self.get_mut(id) {
            if planned && s.instances.is_empty() {
                s.note_wake(now, WakeBy::Plan);
            }
            s.instances.push(instance);
            s.told.resting = false;
        }
        self.retally(id);
        let generation = self.order_generation();
        actions.push(Action::Start { instance, generation, service: id, site, spec, reason: reason.clone() });
        // Who waits only for its start to be ordered.
        self.mark_linked(id);
        self.pool_needed(id);
        if self.is_canary(Canary::DoubleStart)
            && let Some(Action::Start { spec, reason, .. }) = actions.last().cloned()
        {
            let generation = self.order_generation();
            actions.push(Action::Start { instance, generation, service: id, site, spec, reason });
        }
        Started::Yes
    }

    /// Stops idle instances until there are as many as wanted, or freezes them; busy ones stay until they are done.
    fn trim(&mut self, id: ServiceId, goal: &Goal, actions: &mut Vec<Action>) {
        let closing = self.closing;
        let mut have = self.count(id);
        self.trim_frozen(id, goal.frozen, &goal.reason, actions);
        while have > goal.target {
            let Some(s) = self.get(id) else { return };
            let ends = closing || s.leaving;
            let claimed = if ends { 0 } else { s.spec.instances_for(s.held()) };
            let mut next = self.least_recent(s, claimed, |_| true).map(|l| l.1);
            if next.is_none() && ends {
                // What is busy drains too: nothing new may come to it.
                next = s.instances.iter().copied().find(|i| self.is(*i, Instance::counts));
            }
            let Some(instance) = next else { return };
            let why = if closing { StopWhy::ShutDown } else { StopWhy::Plan };
            if ends {
                self.drain(instance, why, goal.reason.clone(), false, actions);
            } else {
                let pause = self.freezing(id) < goal.frozen && self.is(instance, |i| i.state == State::Ready);
                self.end(instance, why, goal.reason.clone(), pause, actions);
            }
            have -= 1;
        }
    }

    pub(crate) fn want(&mut self, id: ServiceId, wanted: u32, reason: Reason, actions: &mut Vec<Action>) {
        let site = self.site(id);
        let Some(s) = self.get_mut(id) else { return };
        if s.wanted != wanted {
            s.wanted = wanted;
            actions.push(Action::Want { service: id, site, instances: wanted, reason: reason.clone() });
        }
        s.reason = Some(reason);
    }

    /// Instances that count towards what is wanted: starting or ready.
    pub(crate) fn count(&self, id: ServiceId) -> u32 {
        self.get(id).map_or(0, |s| s.tally.starting + s.tally.ready)
    }

    pub(crate) fn is(&self, instance: InstanceId, test: impl Fn(&Instance) -> bool) -> bool {
        self.instances.get(&instance).is_some_and(test)
    }
}

fn why(s: &Service, needed: u32, planned: u32, target: u32, decided: Option<String>) -> Reason {
    if let Some(what) = decided {
        return Reason::Bound { what };
    }
    if planned == 0 && target > 0 {
        return Reason::InUse { needed };
    }
    // The instance at the margin: the least valuable that is wanted, or the most valuable that is not.
    let marginal = s.values.get((planned.max(1) - 1) as usize);
    marginal.map_or(Reason::InUse { needed }, |v| v.reason.clone())
}
