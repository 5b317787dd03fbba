//! The plan of one service, carried into orders: one priced decision for pre-warming, keeping, scaling and eviction.
//!
//! The j-th instance beyond the load of now is worth what the policy says; it is wanted while that is positive and
//! there is room, or less valuable idle ones can make room. What the load of now needs comes first, at any price.

use crate::bounds::clock;
use crate::canary::Canary;
use crate::core::{Core, Instance, Service, State};
use crate::hand::WakeBy;
use crate::policy::{Policy, View};
use forerun_types::{Action, InstanceId, Mode, Reason, Resources, ServiceId, SiteId, Span, StopWhy, Time};

/// Idle instances that one request for room may evict.
const EVICTIONS_MAX: usize = 16;
/// Services short of room that one step serves.
const SHORT_PER_STEP: usize = 64;
/// Held requests of one service that room is kept free for at a time.
const CLAIMS_MAX: u32 = 64;
/// How soon room is looked for again for held requests.
const SHORT_AGAIN: Span = Span::from_secs(1);
/// A held request takes any room that can be made.
pub(crate) const AT_ANY_PRICE: i64 = i64::MAX;
/// `min` and a person's word take any but that of another `min`.
pub(crate) const BOUND_PRICE: i64 = i64::MAX - 1;
/// A planned start evicts only what is worth less by an eighth: switching has a price too.
const SWITCH_MARGIN: i64 = 8;

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

    /// Gives room that has come to those who wait for it: held requests first, the longest held first.
    pub(crate) fn serve_short(&mut self, actions: &mut Vec<Action>) {
        let freed = std::mem::take(&mut self.room_changed);
        let held_again = std::mem::take(&mut self.held_again);
        if !freed && !held_again {
            return;
        }
        let mut order: Vec<(Time, i64, ServiceId)> = self
            .short
            .iter()
            .filter_map(|&id| {
                let s = self.get(id).filter(|s| freed || s.waiting_since.is_some())?;
                let next = self.count(id).saturating_sub(s.spec.instances_for(s.requests()));
                let worth = match self.count(id) < self.least(s) {
                    true => BOUND_PRICE,
                    false => s.values.get(next as usize).map_or(i64::MIN, |v| v.density),
                };
                Some((s.waiting_since.unwrap_or(Time::NEVER), -worth.max(-i64::MAX), id))
            })
            .collect();
        order.sort_unstable();
        order.truncate(SHORT_PER_STEP);
        for &(waiting_since, _, id) in &order {
            if waiting_since != Time::NEVER {
                self.short.remove(&id);
                self.react(id, actions);
            }
        }
        // What is merely planned comes after all that is held, in order of what the next one is worth.
        order.sort_unstable_by_key(|&(_, worth, id)| (worth, id));
        for (_, _, id) in order {
            self.short.remove(&id);
            self.settle(id, actions);
        }
        let short: Vec<SiteId> = self.short.iter().map(|id| self.site(*id)).collect();
        self.rooms.served_but_at(&short);
    }

    fn appraise(&mut self, id: ServiceId) -> Time {
        let (now, up) = (self.now, self.count(id).saturating_add(self.freezing(id)));
        let Some(s) = self.services.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return Time::NEVER;
        };
        let view = View { up, ..self.demand.view(&s.spec, s.spec.instances_for(s.requests())) };
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
        let site = self.site(id);
        let room = self.rooms.at(site);
        // What is merely planned leaves the room that held requests of others wait for.
        let free = match price {
            AT_ANY_PRICE => room.fits(&spec.resources),
            _ => room.after(&[], &self.claims(id, price)).fits(&spec.resources),
        };
        let one_more = self.is_canary(Canary::CapacityOffByOne)
            && room.after(&[spec.resources], &[]).fits(&spec.resources);
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

    fn bring_back(&mut self, id: ServiceId, price: i64, actions: &mut Vec<Action>) -> bool {
        let Some(s) = self.get(id) else { return false };
        // One that was evicted is promised to somebody: only who offers more may take it back, or the two would
        // take it from each other for ever while requests are held. A held request of its own always may.
        let free = |i: &Instance| match &i.state {
            State::Draining { reason: Reason::Evicted { worth_milli_gbs, .. }, .. } => {
                price == AT_ANY_PRICE || price.max(0).unsigned_abs() > *worth_milli_gbs
            }
            state => matches!(state, State::Draining { why, .. } if *why != StopWhy::Wedged),
        };
        let mut draining = s.instances.iter().rev().copied();
        let Some(instance) = draining.find(|i| self.is(*i, free)) else { return false };
        self.set_state(instance, State::Ready);
        self.publish(id, actions);
        true
    }

    /// Evicts idle instances that are worth less than `price`, until what is on its way out suffices.
    fn make_room(&mut self, id: ServiceId, price: i64, actions: &mut Vec<Action>) {
        let Some(wanted) = self.get(id).map(|s| s.spec.resources) else { return };
        for _ in 0..EVICTIONS_MAX {
            if self.room_to_come(id, price).fits(&wanted) {
                return;
            }
            let needs = self.barely_met(id);
            // What of a need is frozen beside the one that is up may go.
            let spared = |other, hot| needs.get(&other).is_some_and(|up| hot || *up == 0);
            let of = |other, hot| other != id && !spared(other, hot);
            if !self.evict_one(id, price, of, false, actions) {
                break;
            }
        }
        if price < BOUND_PRICE {
            let site = self.site(id);
            self.rooms.at_mut(site).at_the_margin(price);
        }
    }

    /// Evicts the idle instance that is worth least at the service's site, if that is less than `price`: one `of` some
    /// services, where the flag tells hot ones from frozen. With `any`, what bounds keep goes too for a held request.
    pub(crate) fn evict_one(
        &mut self,
        id: ServiceId,
        price: i64,
        of: impl Fn(ServiceId, bool) -> bool,
        any: bool,
        actions: &mut Vec<Action>,
    ) -> bool {
        let site = self.site(id);
        let Some((value, victim, service)) = self.least_valuable(site, price, of, any) else { return false };
        let margin = if price >= BOUND_PRICE { 0 } else { (value.saturating_abs() / SWITCH_MARGIN).max(1) };
        if value.saturating_add(margin) >= price {
            return false;
        }
        self.rooms.at_mut(site).at_the_margin(value.max(0));
        let lost = value.clamp(0, 1_000_000_000).unsigned_abs();
        let reason =
            Reason::Evicted { for_service: id, worth_milli_gbs: price.unsigned_abs(), lost_milli_gbs: lost };
        let left = self.count(service).saturating_sub(u32::from(!self.is(victim, Instance::frozen)));
        if !self.end(victim, StopWhy::Evicted, reason.clone(), false, actions) {
            return false; // its answer has this looked at again
        }
        if self.get(service).is_some_and(|s| s.wanted > left) {
            self.want(service, left, reason, actions);
        }
        true
    }

    /// The room that there will be when all that is going is gone, and the held requests of others are served.
    fn room_to_come(&self, id: ServiceId, price: i64) -> crate::room::Room {
        let site = self.site(id);
        let going: Vec<Resources> =
            self.instances.values().filter(|i| i.goes() && i.site == site).map(|i| i.reserved).collect();
        self.rooms.at(site).after(&going, &self.claims(id, price))
    }

    /// What other services of its site that are short of room are waiting for and what goes before this price: held
    /// requests, and before a plan also what bounds demand.
    fn claims(&self, id: ServiceId, price: i64) -> Vec<Resources> {
        let (mut claims, site) = (Vec::new(), self.site(id));
        for &other in self.short.iter().filter(|&&o| o != id && self.site(o) == site) {
            let Some(s) = self.get(other) else { continue };
            let held = s.spec.instances_for(s.held()).saturating_sub(s.tally.starting);
            let bound = match price < BOUND_PRICE {
                true => self.least(s).saturating_sub(self.count(other)),
                false => 0,
            };
            let missing = held.max(bound).min(CLAIMS_MAX);
            claims.extend((0..missing).map(|_| s.spec.resources));
        }
        claims
    }

    /// The idle instance of some services at a site that is worth least, of several a frozen one: value per GB and
    /// hour, the instance, its service.
    ///
    /// What bounds keep is spared, but for what was started when its service was described as larger, or `any`: that
    /// goes for a held request, and its bounds bring it back when they can.
    fn least_valuable(
        &self,
        site: SiteId,
        price: i64,
        of: impl Fn(ServiceId, bool) -> bool,
        any: bool,
    ) -> Option<(i64, InstanceId, ServiceId)> {
        let mut least: Option<(i64, bool, Time, InstanceId, ServiceId)> = None;
        let mut offer = |value: i64, hot: bool, at: Time, instance: InstanceId, service: ServiceId| {
            let candidate = (value, hot, at, instance, service);
            if least.is_none_or(|l| candidate < l) {
                least = Some(candidate);
            }
        };
        for s in self.services.iter().flatten().filter(|s| !s.instances.is_empty()) {
            if !self.acts(s.spec.id) {
                continue;
            }
            let have = self.count(s.spec.id);
            let idle = have.saturating_sub(s.spec.instances_for(s.requests()));
            let frozen =
                s.instances.iter().find(|i| self.is(**i, |i| i.state == State::Paused && i.site == site));
            if let Some(&instance) = frozen.filter(|_| s.told.down.is_none() && of(s.spec.id, false)) {
                let last = (idle + s.tally.paused).saturating_sub(1) as usize;
                let worth = s.values.get(last).and_then(|v| v.frozen);
                offer(worth.map_or(i64::MIN, |f| f.density), false, s.appraised, instance, s.spec.id);
            }
            let bound = have <= self.least(s);
            if !of(s.spec.id, true) || (bound && price < AT_ANY_PRICE) {
                continue;
            }
            let Some(at) = idle.checked_sub(1) else { continue };
            let value = match bound {
                true => BOUND_PRICE,
                false => s.values.get(at as usize).map_or(i64::MIN, |v| v.density),
            };
            let claimed = s.spec.instances_for(s.held());
            // What is kept only for a dependent that is planned and not up gives way to a request that is held now.
            let planned = bound && self.kept_for_planned(s);
            let may_go = |i: &Instance| {
                i.site == site && (!bound || any || planned || i.reserved.exceeds(&s.spec.resources))
            };
            let Some((used, instance)) = self.least_recent(s, claimed, may_go) else { continue };
            offer(value, true, used, instance, s.spec.id);
        }
        least.map(|(value, _, _, instance, service)| (value, instance, service))
    }

    /// The least recently used of a service's idle instances, or of those starting beyond the first `claimed`; what runs
    /// in the user's own container goes last.
    fn least_recent(
        &self,
        s: &Service,
        claimed: u32,
        may_go: impl Fn(&Instance) -> bool,
    ) -> Option<(Time, InstanceId)> {
        let mut starting = 0;
        let mut least: Option<(bool, Time, InstanceId)> = None;
        for &id in &s.instances {
            let Some(i) = self.instances.get(&id) else { continue };
            let free = match i.state {
                State::Ready => i.requests() == 0 && !i.asked.puts_off(self.now),
                State::Starting | State::Claimed { .. } | State::Specialising { .. } => {
                    starting += 1;
                    starting > claimed
                }
                _ => false,
            };
            if free && may_go(i) && least.is_none_or(|l| (i.own, i.last_used, id) < l) {
                least = Some((i.own, i.last_used, id));
            }
        }
        least.map(|(_, used, id)| (used, id))
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

    fn want(&mut self, id: ServiceId, wanted: u32, reason: Reason, actions: &mut Vec<Action>) {
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
