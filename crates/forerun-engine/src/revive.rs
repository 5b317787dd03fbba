//! How a life of the engine begins: with what an earlier one learned, and the world as it is configured now.

use crate::journal::{self, segments};
use forerun_core::{AnyPolicy, Core};
use forerun_types::{Event, Mode, ServiceId, ServiceSpec, SiteSpec, Span, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The name by which a journal knows a policy.
#[must_use]
pub fn policy_name(policy: &str, keep: Option<Span>) -> String {
    keep.map_or_else(|| policy.to_owned(), |keep| format!("{policy}={keep}"))
}

/// The core to begin with: from the journal if it fits the policy, else from elsewhere, else new; with it the last
/// instant that the journal knows, and the number of its newest segment.
#[must_use]
pub fn restored(
    journal: &Path,
    policy: &str,
    learned: Option<Core<AnyPolicy>>,
    fresh: AnyPolicy,
) -> (Core<AnyPolicy>, Time, u64) {
    let restored =
        journal::restore(journal, |error| tracing::warn!(%error, "a journal segment was not used"));
    // Snapshots of another version of the core are of no use; what happened still is.
    let restored = restored.or_else(|| {
        let learned = journal::relearn(journal, Core::new(fresh.clone()))?;
        tracing::warn!(steps = learned.steps, "no snapshot fits; learned anew from what happened");
        Some(learned)
    });
    let newest = segments(journal).ok().and_then(|s| s.last().map(|s| s.0)).unwrap_or(0);
    match restored {
        Some(r) if r.policy == policy => {
            if r.torn_bytes > 0 {
                tracing::warn!(bytes = r.torn_bytes, "the journal's end was torn; what was whole is used");
            }
            tracing::info!(steps = r.steps, "restored what was learned");
            (r.core, r.now, newest)
        }
        other => {
            let now = other.map_or(Time::default(), |r| r.now);
            (learned.unwrap_or_else(|| Core::new(fresh)), now, newest)
        }
    }
}

/// The segments of a folder, oldest first, with their bytes.
#[must_use]
pub fn sizes(journal: &Path) -> Vec<(u64, u64)> {
    let files = segments(journal).unwrap_or_default();
    files.into_iter().map(|(n, path)| (n, std::fs::metadata(path).map_or(0, |m| m.len()))).collect()
}

/// The events by which a life begins: the world as configured. A service that the core knows by name keeps its id, and with it what was learned.
#[must_use]
pub fn first_events(
    core: &Core<AnyPolicy>,
    services: &[Arc<ServiceSpec>],
    sites: Vec<SiteSpec>,
) -> Vec<Event> {
    // Variants are not configured: they come and go with their parents.
    let configured = core.services().filter(|s| s.variant.is_none());
    let mut known: BTreeMap<String, ServiceId> = configured.map(|s| (s.name, s.service)).collect();
    let mut next = core.next_service().0;
    let mut events = vec![Event::Began];
    events.extend(sites.into_iter().map(Event::Site));
    let mut described = Vec::new();
    for spec in services {
        let id = known.remove(&spec.name).unwrap_or_else(|| {
            next += 1;
            ServiceId(next - 1)
        });
        described.push(Arc::new(ServiceSpec { id, ..(**spec).clone() }));
    }
    events.extend(known.into_values().map(Event::ServiceGone));
    // A service that lists its keys has variants from its description on, whose ids must be beyond all of these.
    if let Some(highest) = described.iter().max_by_key(|spec| spec.id).filter(|s| s.id >= core.next_service())
    {
        let (specialise, mode, schedules) = (None, Mode::Observe, Vec::new());
        let spec = ServiceSpec {
            specialise,
            mode,
            schedules,
            min: 0,
            depends_on: Vec::new(),
            ..(**highest).clone()
        };
        events.push(Event::Service(Arc::new(spec)));
    }
    events.extend(needs_first(&described).into_iter().map(Event::Service));
    events
}

/// What others depend on goes before them: what is not known yet would count as being there.
fn needs_first(services: &[Arc<ServiceSpec>]) -> Vec<Arc<ServiceSpec>> {
    let by_name: BTreeMap<&str, usize> =
        services.iter().enumerate().map(|(at, s)| (s.name.as_str(), at)).collect();
    let (mut seen, mut ordered) = (BTreeSet::new(), Vec::new());
    let mut open: Vec<(usize, bool)> = (0..services.len()).rev().map(|at| (at, false)).collect();
    while let Some((at, needs_done)) = open.pop() {
        if needs_done {
            ordered.push(Arc::clone(&services[at]));
        } else if seen.insert(at) {
            open.push((at, true));
            let needs =
                services[at].depends_on.iter().rev().filter_map(|need| by_name.get(need.service.as_str()));
            open.extend(needs.map(|need| (*need, false)));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{Dependency, DependsUntil, Resources, SiteId, Specialise};

    #[test]
    fn what_others_depend_on_is_described_before_them() {
        let needs = |name: &str, needs: &[&str]| {
            let depends_on = needs
                .iter()
                .map(|need| Dependency { service: (*need).to_owned(), until: DependsUntil::Ready });
            Arc::new(ServiceSpec {
                depends_on: depends_on.collect(),
                ..ServiceSpec::named(ServiceId(0), name)
            })
        };
        let services = [
            needs("app", &["db", "cache"]),
            needs("cache", &["db"]),
            needs("db", &[]),
            needs("wiki", &["gone"]),
        ];
        let names: Vec<_> = needs_first(&services).iter().map(|s| s.name.clone()).collect();
        assert_eq!(names, ["db", "cache", "app", "wiki"]);
        // A circle is refused elsewhere; here it has an end.
        assert_eq!(needs_first(&[needs("a", &["b"]), needs("b", &["a"])]).len(), 2);
    }

    #[test]
    fn variants_of_listed_keys_take_no_id_of_another_service() {
        let specialise =
            Specialise { keys: vec!["red".to_owned(), "blue".to_owned()], ..Specialise::default() };
        let named = |name: &str| ServiceSpec::named(ServiceId(0), name);
        let shop = ServiceSpec { specialise: Some(specialise), ..named("shop") };
        let services: Vec<_> = [shop, named("mail"), named("wiki")].into_iter().map(Arc::new).collect();
        let capacity = Resources::default();
        let site = SiteSpec { id: SiteId(0), name: "here".to_owned(), capacity, instances_max: 0 };
        let policy = AnyPolicy::named("forerun", None, 1 << 20).expect("a policy");
        let mut core = Core::new(policy);
        let mut actions = Vec::new();
        for event in first_events(&core.clone(), &services, vec![site]) {
            core.step(Time(1), &event, &mut actions);
        }
        let names: Vec<String> = core.services().map(|s| s.name).collect();
        assert_eq!(names, ["shop", "mail", "wiki", "shop@red", "shop@blue"]);
    }
}
