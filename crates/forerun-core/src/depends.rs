//! Services that need one another, or cannot run beside each other.
//!
//! What a service depends on is started first and goes last. Cycles are refused by the configuration; here they are
//! only kept from going round for ever.

use crate::canary::Canary;
use crate::core::{Core, Service};
use crate::hand::WakeBy;
use crate::policy::Policy;
use crate::settle::{AT_ANY_PRICE, BOUND_PRICE, Started};
use forerun_types::{
    Action, Dependency, DependsUntil, InstanceId, Reason, ServiceId, ServiceSpec, Span, StopWhy, Time,
    Unavailable,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Services in a chain of dependencies that are followed.
const DEPTH_MAX: u32 = 16;

/// Who names whom.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Links {
    names: BTreeMap<String, ServiceId>,
    groups: BTreeMap<String, BTreeSet<ServiceId>>,
    /// By the name of what they depend on.
    dependents: BTreeMap<String, BTreeSet<ServiceId>>,
    /// By the name or group that they exclude.
    excluders: BTreeMap<String, BTreeSet<ServiceId>>,
}

fn take_out(from: &mut BTreeMap<String, BTreeSet<ServiceId>>, name: &str, id: ServiceId) {
    if let Some(ids) = from.get_mut(name) {
        ids.remove(&id);
        if ids.is_empty() {
            from.remove(name);
        }
    }
}

impl Links {
    pub(crate) fn add(&mut self, spec: &ServiceSpec) {
        self.names.insert(spec.name.clone(), spec.id);
        if let Some(group) = &spec.group {
            self.groups.entry(group.clone()).or_default().insert(spec.id);
        }
        for dependency in &spec.depends_on {
            self.dependents.entry(dependency.service.clone()).or_default().insert(spec.id);
        }
        for excluded in &spec.excludes {
            self.excluders.entry(excluded.clone()).or_default().insert(spec.id);
        }
    }

    pub(crate) fn remove(&mut self, spec: &ServiceSpec) {
        if self.names.get(&spec.name) == Some(&spec.id) {
            self.names.remove(&spec.name);
        }
        if let Some(group) = &spec.group {
            take_out(&mut self.groups, group, spec.id);
        }
        for dependency in &spec.depends_on {
            take_out(&mut self.dependents, &dependency.service, spec.id);
        }
        for excluded in &spec.excludes {
            take_out(&mut self.excluders, excluded, spec.id);
        }
    }

    /// Nobody names anybody: almost always.
    fn is_empty(&self) -> bool {
        self.dependents.is_empty() && self.excluders.is_empty()
    }

    /// What a service depends on, as far as it is known.
    fn needs<'a>(&'a self, spec: &'a ServiceSpec) -> impl Iterator<Item = (ServiceId, &'a Dependency)> + 'a {
        let known = |d: &'a Dependency| Some((*self.names.get(&d.service)?, d));
        spec.depends_on.iter().filter_map(known).filter(|(id, _)| *id != spec.id)
    }

    fn dependents(&self, spec: &ServiceSpec) -> impl Iterator<Item = ServiceId> + '_ {
        let id = spec.id;
        self.dependents.get(&spec.name).into_iter().flatten().copied().filter(move |d| *d != id)
    }

    /// Those that do not run while this one does.
    fn excluded(&self, spec: &ServiceSpec) -> BTreeSet<ServiceId> {
        let named = |name: &String| {
            let of_group = self.groups.get(name).into_iter().flatten();
            self.names.get(name).into_iter().chain(of_group).copied().collect::<Vec<_>>()
        };
        spec.excludes.iter().flat_map(named).filter(|id| *id != spec.id).collect()
    }

    /// Those that this one does not run beside.
    fn excluders(&self, spec: &ServiceSpec) -> BTreeSet<ServiceId> {
        let by_name = self.excluders.get(&spec.name).into_iter().flatten();
        let by_group = spec.group.as_ref().and_then(|group| self.excluders.get(group));
        by_name.chain(by_group.into_iter().flatten()).copied().filter(|id| *id != spec.id).collect()
    }
}

impl<P: Policy> Core<P> {
    /// What those that depend on a service, or do not run beside it, have to look at again.
    pub(crate) fn mark_linked(&mut self, id: ServiceId) {
        if self.links.is_empty() {
            return;
        }
        let Some(s) = self.get(id) else { return };
        let mut linked: Vec<ServiceId> = self.links.dependents(&s.spec).collect();
        linked.extend(self.links.needs(&s.spec).map(|(id, _)| id));
        linked.extend(self.links.excluders(&s.spec));
        linked.extend(self.links.excluded(&s.spec));
        linked.into_iter().for_each(|id| self.mark(id));
    }

    /// A service is wanted from now on, or no more: what it depends on is kept as long.
    pub(crate) fn pulls(&mut self, id: ServiceId, pulls: bool) {
        let Some(s) = self.get_mut(id) else { return };
        if std::mem::replace(&mut s.pulls, pulls) != pulls {
            self.mark_linked(id);
        }
    }

    fn met(&self, id: ServiceId, until: DependsUntil) -> bool {
        self.get(id).is_none_or(|s| match until {
            DependsUntil::Started => self.count(id) > 0,
            DependsUntil::Ready => s.tally.ready > 0,
            DependsUntil::Completed => s.told.completed.is_some(),
        })
    }

    fn unmet(&self, spec: &ServiceSpec) -> Vec<ServiceId> {
        let unmet = self.links.needs(spec).filter(|(id, d)| !self.met(*id, d.until));
        unmet.map(|(id, _)| id).collect()
    }

    /// Whether all that a service depends on is there; what is not is started.
    pub(crate) fn with_dependencies(&mut self, id: ServiceId, price: i64, actions: &mut Vec<Action>) -> bool {
        let early = self.is_canary(Canary::StartsEarly);
        let Some(s) = self.get(id).filter(|s| !early && !s.spec.depends_on.is_empty()) else { return true };
        let spec = s.spec.clone();
        let unmet = self.unmet(&spec);
        if unmet.is_empty() {
            return true;
        }
        self.pulls(id, true);
        for needed in unmet {
            self.start_for(needed, &spec, price, actions);
        }
        self.unmet(&spec).is_empty()
    }

    fn start_for(&mut self, id: ServiceId, dependent: &ServiceSpec, price: i64, actions: &mut Vec<Action>) {
        let (now, depth) = (self.now, self.depth);
        self.mark(id);
        let Some(s) = self.get(id) else { return };
        let held_back = s.leaving || now < s.backoff_until || s.told.down.is_some() || s.told.resting;
        let unlisted = price < AT_ANY_PRICE && s.unlisted(now);
        let most = s.bounds.most(now, &s.spec);
        if self.closing || held_back || unlisted || !self.acts(id) || self.count(id) > 0 || most == 0 {
            return;
        }
        if depth >= DEPTH_MAX {
            return;
        }
        let fresh = s.instances.is_empty();
        self.depth = depth + 1;
        let reason = Reason::Bound { what: format!("{} depends on it", dependent.name) };
        let started = self.start_one(id, price.max(BOUND_PRICE), &reason, actions);
        self.depth = depth;
        match started {
            Started::NoRoom => {
                self.short.insert(id);
            }
            Started::Yes if fresh => {
                if let Some(s) = self.get_mut(id) {
                    s.note_wake(now, WakeBy::Dependent(dependent.id));
                }
            }
            Started::Yes | Started::Waits => {}
        }
    }

    /// Who keeps a service up: the name of one that depends on it, and is wanted or up.
    pub(crate) fn kept_for(&self, id: ServiceId) -> Option<&str> {
        if self.links.is_empty() {
            return None;
        }
        let s = self.get(id)?;
        let keeps = |d: &ServiceId| {
            let Some(dependent) = self.get(*d).filter(|d| d.pulls || !d.instances.is_empty()) else {
                return false;
            };
            // What has only to have ended once is not kept after that.
            let until = self.links.needs(&dependent.spec).find(|n| n.0 == id).map(|n| n.1.until);
            until != Some(DependsUntil::Completed) || s.told.completed.is_none()
        };
        let dependent = self.links.dependents(&s.spec).find(keeps)?;
        self.get(dependent).map(|d| d.spec.name.as_str())
    }

    /// Whether what keeps a service above its own bounds is only that one which depends on it is wanted: neither is
    /// that one up, nor is a request held for it.
    pub(crate) fn kept_for_planned(&self, s: &Service) -> bool {
        let in_use = |d: ServiceId| self.get(d).is_some_and(|d| !d.instances.is_empty() || d.requests() > 0);
        let own = s.bounds.least(self.now, &s.spec);
        let kept = s.spec.keep_at_least > Span::ZERO;
        !kept && self.count(s.spec.id) > own && !self.links.dependents(&s.spec).any(in_use)
    }

    /// What a service depends on, however far, that has only one instance up, or none: evicted for the service, that one
    /// would be brought back for it at once, for ever. With how many are up.
    pub(crate) fn barely_met(&self, id: ServiceId) -> BTreeMap<ServiceId, u32> {
        let mut met = BTreeSet::new();
        let mut open = vec![id];
        while let Some(s) = open.pop().and_then(|id| self.get(id)) {
            let needs = self.links.needs(&s.spec).map(|(need, _)| need);
            open.extend(needs.filter(|need| *need != id && met.insert(*need)));
        }
        met.into_iter().map(|need| (need, self.count(need))).filter(|(_, up)| *up <= 1).collect()
    }

    /// When everything ends, what others depend on goes after them.
    pub(crate) fn goes_last(&self, id: ServiceId) -> bool {
        let Some(s) = self.get(id).filter(|_| self.closing && !self.links.is_empty()) else { return false };
        let mut dependents = self.links.dependents(&s.spec);
        dependents.any(|d| {
            self.get(d).is_some_and(|d| !d.instances.is_empty()) && !self.depends_on(id, d, DEPTH_MAX)
        })
    }

    /// Whether one depends on the other, however far.
    fn depends_on(&self, id: ServiceId, on: ServiceId, depth: u32) -> bool {
        let Some(s) = self.get(id).filter(|_| depth > 0) else { return false };
        self.links.needs(&s.spec).any(|(need, _)| need == on || self.depends_on(need, on, depth - 1))
    }

    /// What a service waits for: why something that it depends on, or does not run beside, keeps it from starting.
    pub(crate) fn held_up(&self, id: ServiceId) -> Option<String> {
        if self.links.is_empty() {
            return None;
        }
        let s = self.get(id)?;
        let need = self.unmet(&s.spec).into_iter().find_map(|need| self.get(need));
        if let Some(need) = need {
            let why = self.refusal(need.spec.id).map_or_else(String::new, |r| format!(": {}", r.why));
            return Some(format!("waits for {}, which it depends on{why}", need.spec.name));
        }
        let other = self.rivals(s).into_iter().find_map(|other| self.get(other))?;
        Some(format!("waits until {} is gone, which does not run beside it", other.spec.name))
    }

    /// The same as a refusal, where what is in the way says itself that it will not be there soon.
    pub(crate) fn refused_by_need(&self, s: &Service, depth: u32) -> Option<Unavailable> {
        if depth == 0 || s.spec.depends_on.is_empty() {
            return None;
        }
        self.unmet(&s.spec).into_iter().find_map(|need| {
            let refusal = self.refusal_at(need, depth - 1)?;
            let name = &self.get(need)?.spec.name;
            let why = format!("{name}, which it depends on, is unavailable: {}", refusal.why);
            Some(Unavailable { why, retry_after: refusal.retry_after })
        })
    }

    /// Services with instances that a service may not start beside.
    fn rivals(&self, s: &Service) -> BTreeSet<ServiceId> {
        let mut excluded = self.links.excluded(&s.spec);
        // A service and its variants are one to others, and none to each other.
        let family = |id: ServiceId| self.families.parent_of(id).unwrap_or(id);
        let own = family(s.spec.id);
        excluded.retain(|other| family(*other) != own);
        let waits = |s: &Service| s.waiting_since.unwrap_or(Time::NEVER);
        let mut rivals: BTreeSet<ServiceId> = self.links.excluders(&s.spec);
        rivals.retain(|other| {
            if family(*other) == own {
                return false;
            }
            let Some(other) = self.get(*other) else { return false };
            // Of two that exclude each other, the one whose requests have waited longer goes first.
            let mutual = excluded.contains(&other.spec.id);
            let first = other.held() > 0 && (!mutual || waits(other) < waits(s));
            first || !other.instances.is_empty()
        });
        let up = |id: &ServiceId| self.get(*id).is_some_and(|other| !other.instances.is_empty());
        rivals.extend(excluded.into_iter().filter(up));
        rivals
    }

    /// Whether nothing runs that must not run beside a service. What it excludes is told to go: at once for held
    /// requests, while idle for what a bound demands, and not at all for a plan.
    pub(crate) fn alone(&mut self, id: ServiceId, price: i64, actions: &mut Vec<Action>) -> bool {
        if self.links.is_empty() {
            return true;
        }
        let Some(s) = self.get(id) else { return false };
        let rivals = self.rivals(s);
        if rivals.is_empty() {
            return true;
        }
        let excluded = self.links.excluded(&s.spec);
        let waiting_since = s.waiting_since.unwrap_or(Time::NEVER);
        let reason = Reason::Bound { what: format!("gives way to {}", s.spec.name) };
        for rival in rivals.into_iter().filter(|r| excluded.contains(r)) {
            let Some(other) = self.get(rival).filter(|_| self.acts(rival)) else { continue };
            if price < BOUND_PRICE || other.waiting_since.unwrap_or(Time::NEVER) < waiting_since {
                continue;
            }
            let going: Vec<InstanceId> = other.instances.clone();
            for instance in going {
                let idle = self.is(instance, |i| i.requests() == 0);
                let there = self.is(instance, |i| i.counts() || i.frozen());
                if there && (idle || price == AT_ANY_PRICE) {
                    self.end(instance, StopWhy::Evicted, reason.clone(), false, actions);
                }
            }
        }
        false
    }

    /// How many instances a service is not to fall below, whatever they are worth, why, and until when at least:
    /// those used lately, and one while something depends on it.
    pub(crate) fn floor(&self, id: ServiceId) -> Floor {
        let now = self.now;
        let mut floor = Floor { instances: 0, why: None, until: Time::NEVER };
        let Some(s) = self.get(id) else { return floor };
        if s.spec.keep_at_least > Span::ZERO {
            for i in s.instances.iter().filter_map(|i| self.instances.get(i)).filter(|i| i.counts()) {
                let until = i.last_used + s.spec.keep_at_least;
                if until > now {
                    floor.instances += 1;
                    floor.until = floor.until.min(until);
                }
            }
            if floor.instances > 0 {
                floor.why = Some(format!("kept at least {} after its last use", s.spec.keep_at_least));
            }
        }
        if floor.instances == 0
            && let Some(name) = self.kept_for(id)
        {
            floor.instances = 1;
            floor.why = Some(format!("{name} depends on it"));
        }
        floor
    }

    /// The least that no other service's plan may take from it.
    pub(crate) fn least(&self, s: &Service) -> u32 {
        let most = s.bounds.most(self.now, &s.spec);
        s.bounds.least(self.now, &s.spec).max(self.floor(s.spec.id).instances.min(most))
    }
}

/// See [`Core::floor`].
pub(crate) struct Floor {
    pub(crate) instances: u32,
    pub(crate) why: Option<String>,
    pub(crate) until: Time,
}
