//! Whose instance goes when room is needed, and which one that is on its way out comes back.

use crate::core::{Core, Instance, Service, State};
use crate::policy::Policy;
use crate::settle::{AT_ANY_PRICE, BOUND_PRICE};
use forerun_types::{Action, InstanceId, Reason, ServiceId, SiteId, StopWhy, Time};

/// A planned start evicts only what is worth less by an eighth: switching has a price too.
const SWITCH_MARGIN: i64 = 8;

impl<P: Policy> Core<P> {
    pub(crate) fn bring_back(&mut self, id: ServiceId, price: i64, actions: &mut Vec<Action>) -> bool {
        let Some(s) = self.get(id) else { return false };
        // One that was evicted is promised to somebody: only who offers more may take it back, or the two would
        // take it from each other for ever while requests are held. A held request of its own always may, unless a
        // class that goes before its own has taken it for one, or for what is guaranteed to it.
        let own = s.spec.sla.priority;
        let free = |i: &Instance| match &i.state {
            State::Draining { reason: Reason::Evicted { for_service, worth_milli_gbs, .. }, .. } => {
                let other = self.priority(*for_service);
                let by_held = *worth_milli_gbs == AT_ANY_PRICE.unsigned_abs();
                match price == AT_ANY_PRICE {
                    true => own >= other || !by_held,
                    false => own >= other && price.max(0).unsigned_abs() > *worth_milli_gbs,
                }
            }
            State::Draining { reason: Reason::Preempted { guaranteed, .. }, .. } => {
                price == AT_ANY_PRICE && !guaranteed
            }
            state => matches!(state, State::Draining { why, .. } if *why != StopWhy::Wedged),
        };
        let mut draining = s.instances.iter().rev().copied();
        let Some(instance) = draining.find(|i| self.is(*i, free)) else { return false };
        self.set_state(instance, State::Ready);
        self.publish(id, actions);
        true
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
        let worth_more = value.saturating_add(margin) >= price;
        let (own, other) = (self.priority(id), self.priority(service));
        // Of what is merely planned and worth anything, the higher priority goes first and then the worth.
        let planned = price < BOUND_PRICE && (1..BOUND_PRICE).contains(&value);
        let reason = match planned && own != other {
            true if own < other => return false,
            true => Reason::Preempted {
                for_service: id,
                guaranteed: false,
                what: format!("its priority {own} goes before {other}"),
            },
            false if worth_more => return false,
            false => {
                let lost = value.clamp(0, 1_000_000_000).unsigned_abs();
                Reason::Evicted {
                    for_service: id,
                    worth_milli_gbs: price.unsigned_abs(),
                    lost_milli_gbs: lost,
                }
            }
        };
        self.rooms.at_mut(site).at_the_margin(value.max(0));
        self.take(victim, service, reason, actions)
    }

    /// Takes an instance from its service, with what its plan wants; false while it has to say first whether it is
    /// busy.
    pub(crate) fn take(
        &mut self,
        victim: InstanceId,
        service: ServiceId,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) -> bool {
        let left = self.count(service).saturating_sub(u32::from(!self.is(victim, Instance::frozen)));
        if !self.end(victim, StopWhy::Evicted, reason.clone(), false, actions) {
            return false; // its answer has this looked at again
        }
        if self.get(service).is_some_and(|s| s.wanted > left) {
            self.want(service, left, reason, actions);
        }
        true
    }

    pub(crate) fn priority(&self, id: ServiceId) -> u8 {
        self.get(id).map_or(0, |s| s.spec.sla.priority)
    }

    /// The idle instance of some services at a site that is worth least, of several a frozen one: value per GB and
    /// hour, the instance, its service. What is worth anything goes in order of priority first, and what bounds keep
    /// comes last.
    ///
    /// What bounds keep is spared, but for what was started when its service was described as larger, or `any`: that
    /// goes for a held request, and its bounds bring it back when they can.
    pub(crate) fn least_valuable(
        &self,
        site: SiteId,
        price: i64,
        of: impl Fn(ServiceId, bool) -> bool,
        any: bool,
    ) -> Option<(i64, InstanceId, ServiceId)> {
        let mut least: Option<(u16, i64, bool, Time, InstanceId, ServiceId)> = None;
        let mut offer = |s: &Service, value: i64, hot: bool, at: Time, instance: InstanceId| {
            let standing = match value {
                ..=0 => 0,
                BOUND_PRICE.. => u16::MAX,
                _ => u16::from(s.spec.sla.priority) + 1,
            };
            let candidate = (standing, value, hot, at, instance, s.spec.id);
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
                offer(s, worth.map_or(i64::MIN, |f| f.density), false, s.appraised, instance);
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
            offer(s, value, true, used, instance);
        }
        least.map(|(_, value, _, _, instance, service)| (value, instance, service))
    }

    /// The least recently used of a service's idle instances, or of those starting beyond the first `claimed`; what runs
    /// in the user's own container goes last.
    pub(crate) fn least_recent(
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
}
