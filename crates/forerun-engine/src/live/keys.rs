//! What the outside sees of variants: their parents with everything that is theirs, and the keys beneath.
//!
//! Metrics have one series a service and not one a key: keys come and go without end.

use crate::meter::ServiceTotals;
use forerun_core::ServiceStatus;
use forerun_types::ServiceId;
use std::collections::BTreeMap;

/// Services as they are looked at, a few at a time.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// With what their variants have counted in, in order of their ids.
    pub(super) services: Vec<ServiceStatus>,
    /// Variants, by their parents.
    pub(super) keys: BTreeMap<ServiceId, Vec<ServiceStatus>>,
}

impl Gathered {
    /// Takes the next in order of ids: a variant comes after its parent, which was there before it.
    pub(super) fn take(&mut self, status: ServiceStatus) {
        let Some(parent) = status.variant.as_ref().map(|variant| variant.of) else {
            self.services.push(status);
            return;
        };
        if let Ok(at) = self.services.binary_search_by_key(&parent, |s| s.service) {
            add(&mut self.services[at], &status);
        }
        self.keys.entry(parent).or_default().push(status);
    }
}

fn add(parent: &mut ServiceStatus, variant: &ServiceStatus) {
    parent.wanted = parent.wanted.saturating_add(variant.wanted);
    parent.in_flight = parent.in_flight.saturating_add(variant.in_flight);
    parent.waiting = parent.waiting.saturating_add(variant.waiting);
    parent.instances.extend(variant.instances.iter().cloned());
    parent.chances_ppm.extend_from_slice(&variant.chances_ppm);
    parent.next_stop = match (parent.next_stop, variant.next_stop) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    if parent.failing.is_none() {
        let key = variant.variant.as_ref().map_or("", |v| v.key.as_str());
        parent.failing = variant.failing.as_ref().map(|why| format!("for key {key}: {why}"));
    }
}

/// Counts what a variant, or a service itself, has come to.
pub(super) fn count(sum: &mut ServiceTotals, totals: ServiceTotals) {
    sum.started += totals.started;
    sum.prewarmed += totals.prewarmed;
    sum.prewarmed_used += totals.prewarmed_used;
    sum.failed += totals.failed;
    sum.starting_byte_seconds += totals.starting_byte_seconds;
    sum.busy_byte_seconds += totals.busy_byte_seconds;
    sum.idle_byte_seconds += totals.idle_byte_seconds;
    sum.start_seconds_sum += totals.start_seconds_sum;
    sum.start_seconds_count += totals.start_seconds_count;
    for (decision, count) in totals.decisions {
        *sum.decisions.entry(decision).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_core::{AnyPolicy, Core};
    use forerun_types::{Event, RouterId, ServiceSpec, Specialise, Time, UserKey};
    use std::sync::Arc;

    #[test]
    fn a_service_counts_what_its_keys_have() {
        let mut core = Core::new(AnyPolicy::named("none", None, 1 << 20).unwrap());
        let parent = ServiceId(0);
        let specialise = Some(Specialise::default());
        let spec = ServiceSpec { specialise, min: 1, ..ServiceSpec::named(parent, "shop") };
        let mut actions = Vec::new();
        let mut tell = |event| core.step(Time(1), &event, &mut actions);
        tell(Event::Service(Arc::new(spec)));
        for (key, waiting) in [("red", 2), ("blue", 3)] {
            tell(Event::KeySeen { service: parent, key: key.to_owned() });
            let service = ServiceId(if key == "red" { 1 } else { 2 });
            tell(Event::Waiting { router: RouterId(0), service, user: UserKey(0), waiting });
        }
        let mut gathered = Gathered::default();
        core.services().for_each(|status| gathered.take(status));
        let Gathered { services, keys } = gathered;
        assert_eq!((services.len(), services[0].waiting, services[0].instances.len()), (1, 5, 6));
        let names: Vec<_> = keys[&parent].iter().map(|s| (s.name.as_str(), s.waiting)).collect();
        assert_eq!(names, [("shop@red", 2), ("shop@blue", 3)]);

        let of = |started| ServiceTotals { started, ..ServiceTotals::default() };
        let mut sum = of(1);
        count(&mut sum, ServiceTotals { decisions: [(("start", "waiting"), 2)].into(), ..of(2) });
        count(&mut sum, ServiceTotals { decisions: [(("start", "waiting"), 3)].into(), ..of(0) });
        assert_eq!((sum.started, sum.decisions[&("start", "waiting")]), (3, 5));
    }
}
