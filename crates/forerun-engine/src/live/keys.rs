//! What the outside sees of variants: their parents with everything that is theirs, and the keys beneath.
//!
//! Metrics have one series a service and not one a key: keys come and go without end.

use crate::meter::ServiceTotals;
use forerun_core::ServiceStatus;
use forerun_types::ServiceId;
use std::collections::BTreeMap;

/// Services with what their variants have counted in, in order of their ids; and the variants, by their parents.
pub(super) fn gathered(
    all: impl Iterator<Item = ServiceStatus>,
) -> (Vec<ServiceStatus>, BTreeMap<ServiceId, Vec<ServiceStatus>>) {
    let (mut services, variants): (Vec<_>, Vec<_>) = all.partition(|s| s.variant.is_none());
    let mut keys: BTreeMap<ServiceId, Vec<ServiceStatus>> = BTreeMap::new();
    for status in variants {
        let Some(parent) = status.variant.as_ref().map(|variant| variant.of) else { continue };
        if let Ok(at) = services.binary_search_by_key(&parent, |s| s.service) {
            add(&mut services[at], &status);
        }
        keys.entry(parent).or_default().push(status);
    }
    (services, keys)
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

/// Totals with those of variants counted to their parents.
pub(super) fn totals(
    all: BTreeMap<ServiceId, ServiceTotals>,
    elder: impl Fn(ServiceId) -> ServiceId,
) -> BTreeMap<ServiceId, ServiceTotals> {
    let mut sums: BTreeMap<ServiceId, ServiceTotals> = BTreeMap::new();
    for (service, totals) in all {
        let sum = sums.entry(elder(service)).or_default();
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
    sums
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
        let (services, keys) = gathered(core.services());
        assert_eq!((services.len(), services[0].waiting, services[0].instances.len()), (1, 5, 6));
        let names: Vec<_> = keys[&parent].iter().map(|s| (s.name.as_str(), s.waiting)).collect();
        assert_eq!(names, [("shop@red", 2), ("shop@blue", 3)]);

        let of = |started| ServiceTotals { started, ..ServiceTotals::default() };
        let all = [(ServiceId(0), of(1)), (ServiceId(1), of(2)), (ServiceId(3), of(4))].into();
        let sums = totals(all, |id| core.elder_of(id));
        assert_eq!(sums.iter().map(|(id, t)| (id.0, t.started)).collect::<Vec<_>>(), [(0, 3), (3, 4)]);
    }
}
