//! How a life of the engine begins: with what an earlier one learned, and the world as it is configured now.

use crate::journal::{self, segments};
use forerun_core::{AnyPolicy, Core};
use forerun_types::{Event, ServiceId, ServiceSpec, SiteSpec, Span, Time};
use std::collections::BTreeMap;
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
pub fn first_events(core: &Core<AnyPolicy>, services: &[Arc<ServiceSpec>], site: SiteSpec) -> Vec<Event> {
    // Variants are not configured: they come and go with their parents.
    let configured = core.services().filter(|s| s.variant.is_none());
    let mut known: BTreeMap<String, ServiceId> = configured.map(|s| (s.name, s.service)).collect();
    let mut next = core.next_service().0;
    let mut events = vec![Event::Began, Event::Site(site)];
    let mut described = Vec::new();
    for spec in services {
        let id = known.remove(&spec.name).unwrap_or_else(|| {
            next += 1;
            ServiceId(next - 1)
        });
        described.push(Event::Service(Arc::new(ServiceSpec { id, ..(**spec).clone() })));
    }
    events.extend(known.into_values().map(Event::ServiceGone));
    events.extend(described);
    events
}
