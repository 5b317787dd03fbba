//! The route table: what it may say of an instance.

use super::Invariants;
use super::rule::Rule;
use forerun_types::{Access, Generation, InstanceId, InstanceRoute, ServiceId, ServiceRoute, Time, Variant};

impl Invariants {
    /// A service's entry in the table that routers are to use from now on; `None` takes it out.
    pub fn route(
        &mut self,
        now: Time,
        generation: Generation,
        service: ServiceId,
        route: Option<&ServiceRoute>,
    ) {
        if generation < self.table {
            let what = format!("a table of generation {generation} after one of {}", self.table);
            self.broken(now, Rule::StaleGeneration, what);
        }
        self.table = self.table.max(generation);
        let mut listed = Vec::new();
        for entry in route.map_or(&[][..], |r| &r.instances) {
            if let Some((rule, what)) = self.entry_wrong(service, entry) {
                self.broken(now, rule, what);
            }
            if let Some(known) = self.known.get_mut(&entry.instance).filter(|k| k.may_be_listed()) {
                (known.listed, known.left) = (true, None);
                known.quiesced.clear();
            }
            listed.push(entry.instance);
        }
        match route {
            Some(route) => self.describe(service, Some(&route.spec)),
            // It is gone for good, and what a person said of it with it.
            None => {
                self.told.remove(&service);
                self.leaving.remove(&service);
                self.describe(service, None);
            }
        }
        self.leave(now, generation, service, route, listed);
    }

    /// What was in the table before and is not now has left it.
    fn leave(
        &mut self,
        now: Time,
        generation: Generation,
        service: ServiceId,
        route: Option<&ServiceRoute>,
        listed: Vec<InstanceId>,
    ) {
        let drain = route.map(|r| r.spec.drain_timeout).or_else(|| self.services.get(&service).map(|s| s.1));
        for instance in self.listed.insert(service, listed.clone()).unwrap_or_default() {
            if !listed.contains(&instance)
                && let Some(known) = self.known.get_mut(&instance)
            {
                let over = now + drain.unwrap_or(known.spec.drain_timeout);
                (known.listed, known.left) = (false, Some((over, generation)));
            }
        }
    }

    /// What is wrong with what a table says of an instance.
    pub(super) fn entry_wrong(&self, service: ServiceId, entry: &InstanceRoute) -> Option<(Rule, String)> {
        let instance = entry.instance;
        let Some(known) = self.known.get(&instance).filter(|k| k.may_be_listed()) else {
            let what = format!("{instance} is in the table, and is not ready, or ordered to stop");
            return Some((Rule::RoutedToNothing, what));
        };
        let is_own = known.spec.id == service;
        let admits_own = match &known.spec.variant {
            Some(variant) => entry.access == Access::Only(Variant::access_key(&variant.key)),
            None => matches!(entry.access, Access::Any | Access::Unclaimed),
        };
        (!is_own || !admits_own).then(|| {
            let of = &known.spec.name;
            let what = format!("{instance} of {of} is in the table of {service} for {:?}", entry.access);
            (Rule::OneKey, what)
        })
    }
}

impl super::books::Known {
    fn may_be_listed(&self) -> bool {
        self.ready && !self.stopping && !self.paused
    }
}
