//! The table in use, and how the next one takes its place.

use crate::core::Core;
use crate::identity::{group_key, tenant_key};
use crate::service::Service;
use crate::stats::ServiceStats;
use forerun_route::Classifier;
use forerun_types::{Generation, GroupKey, RouteTable, ServiceId, ServiceRoute, TenantKey};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// A service in a table, with what stays the same until its description changes.
pub(crate) struct Entry {
    pub(crate) route: Arc<ServiceRoute>,
    pub(crate) tenant: TenantKey,
    pub(crate) group: GroupKey,
    pub(crate) service: Arc<Service>,
}

impl Entry {
    fn new(route: Arc<ServiceRoute>, service: Arc<Service>) -> Self {
        let tenant = tenant_key(&route.spec.tenant);
        let group = group_key(route.spec.group.as_deref());
        Self { route, tenant, group, service }
    }

    fn id(&self) -> ServiceId {
        self.service.id
    }

    fn stats(&self) -> ServiceStats {
        self.service.stats(&self.route.spec.name, &self.route.spec.sla.name)
    }
}

/// A table as requests use it: immutable.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) generation: Generation,
    classifier: Arc<Classifier>,
    /// In order of ids.
    pub(crate) entries: Vec<Arc<Entry>>,
}

impl Snapshot {
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Arc<Entry>> {
        let id = self.classifier.classify(host, path)?;
        self.get(id).map(Arc::clone)
    }

    fn get(&self, id: ServiceId) -> Option<&Arc<Entry>> {
        self.entries.binary_search_by_key(&id, |entry| entry.id()).ok().map(|at| &self.entries[at])
    }

    /// The index of the rules, made anew only when a description has changed.
    fn classifier_for(&self, table: &RouteTable) -> Arc<Classifier> {
        let same = table.services.len() == self.entries.len()
            && table
                .services
                .iter()
                .zip(&self.entries)
                .all(|(new, old)| Arc::ptr_eq(&new.spec, &old.route.spec));
        if same { Arc::clone(&self.classifier) } else { Arc::new(Classifier::new(table)) }
    }
}

/// What publishing one table after the other needs to remember.
#[derive(Default)]
pub(crate) struct Publisher {
    /// Services that have left the table with requests still in flight.
    leaving: BTreeMap<ServiceId, Arc<Entry>>,
}

/// Puts a table in use. One that is older than the last changes nothing.
///
/// Only services whose entry is another `Arc` than before are looked at.
pub(crate) fn publish(core: &Arc<Core>, table: &RouteTable) {
    let mut publisher = core.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    let old = core.table.load_full();
    if table.generation < old.generation {
        tracing::debug!(given = table.generation.0, in_use = old.generation.0, "an older table is ignored");
        return;
    }
    let now = core.now();
    let mut entries = Vec::with_capacity(table.services.len());
    for route in &table.services {
        let before = old.get(route.spec.id);
        if let Some(entry) = before.filter(|entry| Arc::ptr_eq(&entry.route, route)) {
            entries.push(Arc::clone(entry));
            continue;
        }
        let returning = publisher.leaving.remove(&route.spec.id);
        let service = before
            .or(returning.as_ref())
            .map_or_else(|| Arc::new(Service::new(route.spec.id)), |entry| Arc::clone(&entry.service));
        service.set_route(core, Some(Arc::clone(route)), table.generation, now);
        entries.push(Arc::new(Entry::new(Arc::clone(route), service)));
    }
    entries.sort_by_key(|entry| entry.id());
    entries.dedup_by_key(|entry| entry.id());
    let classifier = old.classifier_for(table);
    let new = Snapshot { generation: table.generation, classifier, entries };
    for entry in old.entries.iter().filter(|entry| new.get(entry.id()).is_none()) {
        entry.service.set_route(core, None, table.generation, now);
        publisher.leaving.insert(entry.id(), Arc::clone(entry));
    }
    publisher.leaving.retain(|_, entry| !entry.service.is_over());
    core.table.store(Arc::new(new));
}

/// Every service with something to tell, in order of ids.
pub(crate) fn stats(core: &Core) -> Vec<ServiceStats> {
    let publisher = core.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    let table = core.table.load();
    let mut stats: Vec<_> =
        table.entries.iter().chain(publisher.leaving.values()).map(|entry| entry.stats()).collect();
    stats.sort_by_key(|service| service.id);
    stats
}

/// The services that requests can be at or wait for.
pub(crate) fn services(core: &Core) -> Vec<Arc<Service>> {
    let publisher = core.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    let table = core.table.load();
    let entries = table.entries.iter().chain(publisher.leaving.values());
    entries.map(|entry| Arc::clone(&entry.service)).collect()
}
