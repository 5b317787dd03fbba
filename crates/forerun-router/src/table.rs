//! The table in use, and how the next one takes its place.

use crate::auth::Guard;
use crate::core::Core;
use crate::identity::{group_key, tenant_key};
use crate::page::Shown;
use crate::service::Service;
use crate::stats::ServiceStats;
use forerun_route::{Classifier, WakeFilter};
use forerun_types::{
    Generation, GroupKey, RouteTable, ServiceId, ServiceRoute, ServiceSpec, TenantKey, Time,
};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// A service in a table, with what stays the same until its description changes.
pub(crate) struct Entry {
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) tenant: TenantKey,
    pub(crate) group: GroupKey,
    pub(crate) service: Arc<Service>,
    /// Who comes in without being anybody.
    pub(crate) wake: WakeFilter,
    /// Who comes in at all.
    pub(crate) guard: Option<Guard>,
}

impl Entry {
    fn new(spec: Arc<ServiceSpec>, service: Arc<Service>) -> Self {
        let tenant = tenant_key(&spec.tenant);
        let group = group_key(spec.group.as_deref());
        let wake = WakeFilter::new(&spec.wake);
        let guard = spec.auth.as_ref().map(Guard::new);
        Self { spec, tenant, group, service, wake, guard }
    }

    pub(crate) fn id(&self) -> ServiceId {
        self.service.id
    }

    /// What those may see who wait for it.
    pub(crate) fn shown(&self) -> Shown {
        Shown {
            name: self.spec.name.clone(),
            condition: self.service.condition(),
            usual: self.service.usual_start(&self.spec),
            hide_log: self.spec.hide_log,
        }
    }

    fn stats(&self) -> ServiceStats {
        self.service.stats(&self.spec.name, &self.spec.sla.name)
    }
}

/// What tables have in common while no description changes: instances that come and go are the services' own.
#[derive(Default)]
struct Catalogue {
    classifier: Classifier,
    /// In order of ids.
    entries: Vec<Arc<Entry>>,
    /// By parent and key.
    variants: BTreeMap<ServiceId, BTreeMap<String, Arc<Entry>>>,
}

impl Catalogue {
    fn place(&self, id: ServiceId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id()).ok()
    }
}

/// A table as requests use it: immutable.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) generation: Generation,
    catalogue: Arc<Catalogue>,
}

impl Snapshot {
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Arc<Entry>> {
        let id = self.catalogue.classifier.classify(host, path)?;
        self.catalogue.place(id).map(|at| Arc::clone(&self.catalogue.entries[at]))
    }

    /// The service of this name; one for a key is its parent's affair.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries().iter().find(|entry| entry.spec.name == name)
    }

    /// The services' names with their routes, for the person at this machine.
    pub(crate) fn names(&self) -> Vec<String> {
        const NAMES_MAX: usize = 20;
        let routed = self.entries().iter().filter(|e| !e.spec.unrouted && e.spec.variant.is_none());
        let mut names: Vec<String> =
            routed.clone().take(NAMES_MAX).map(|entry| route_text(&entry.spec)).collect();
        if let Some(more) = routed.count().checked_sub(NAMES_MAX).filter(|more| *more > 0) {
            names.push(format!("and {more} more"));
        }
        names
    }

    /// A service's variant for a key.
    pub(crate) fn variant(&self, parent: ServiceId, key: &str) -> Option<Arc<Entry>> {
        self.catalogue.variants.get(&parent)?.get(key).map(Arc::clone)
    }

    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        &self.catalogue.entries
    }
}

/// `shop: shop.example, *.shop.example /api`.
fn route_text(spec: &ServiceSpec) -> String {
    let or_any = |list: &[String], any: &str| if list.is_empty() { any.to_owned() } else { list.join(", ") };
    format!("{}: {} {}", spec.name, or_any(&spec.route.hosts, "any host"), or_any(&spec.route.paths, "/"))
}

/// What publishing one table after the other needs to remember.
#[derive(Default)]
pub(crate) struct Publisher {
    /// The last table's, beside the entries made of them.
    routes: Vec<Arc<ServiceRoute>>,
    /// Services that have left the table with requests still in flight. An id can be there more than once: those of
    /// variants are used again, for other keys.
    leaving: Vec<Arc<Entry>>,
}

/// Puts a table in use. One that is older than the last changes nothing.
///
/// Only services whose entry is another `Arc` than before are looked at, and while no description is another, what
/// is made of all of them stays: instances come and go many times a second among thousands of services.
pub(crate) fn publish(core: &Arc<Core>, table: &RouteTable) {
    let mut publisher = core.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    let old = core.table.load_full();
    if table.generation < old.generation {
        tracing::debug!(given = table.generation.0, in_use = old.generation.0, "an older table is ignored");
        return;
    }
    let now = core.now();
    let catalogue = match publisher.changed(table) {
        Some(changed) => {
            for at in changed {
                let route = &table.services[at];
                let service = &old.entries()[at].service;
                service.set_route(core, Some(Arc::clone(route)), table.generation, now);
                publisher.routes[at] = Arc::clone(route);
            }
            Arc::clone(&old.catalogue)
        }
        None => Arc::new(publisher.rebuild(core, &old.catalogue, table, now)),
    };
    publisher.leaving.retain(|entry| !entry.service.is_over());
    let others = !Arc::ptr_eq(&catalogue, &old.catalogue);
    core.table.store(Arc::new(Snapshot { generation: table.generation, catalogue }));
    if others {
        core.published.notify_waiters();
    }
}

impl Publisher {
    /// The places of services that are routed otherwise than before; nothing if services came, went or are described
    /// otherwise.
    fn changed(&self, table: &RouteTable) -> Option<Vec<usize>> {
        if table.services.len() != self.routes.len() {
            return None;
        }
        let pairs = self.routes.iter().zip(&table.services).enumerate();
        let others = pairs.filter(|(_, (old, new))| !Arc::ptr_eq(old, new));
        others.map(|(at, (old, new))| Arc::ptr_eq(&old.spec, &new.spec).then_some(at)).collect()
    }

    fn rebuild(&mut self, core: &Arc<Core>, old: &Catalogue, table: &RouteTable, now: Time) -> Catalogue {
        let mut routes = table.services.clone();
        routes.sort_by_key(|route| route.spec.id);
        routes.dedup_by_key(|route| route.spec.id);
        let mut new = Catalogue { classifier: Classifier::new(table), ..Catalogue::default() };
        for route in &routes {
            // A variant comes after its parent: its id was given later.
            let elder = route.spec.variant.as_ref().and_then(|variant| new.place(variant.of));
            let elder = elder.map(|at| Arc::clone(&new.entries[at]));
            let entry = self.entry(core, old, route, elder.as_deref(), table.generation, now);
            if let Some(variant) = &route.spec.variant {
                new.variants.entry(variant.of).or_default().insert(variant.key.clone(), Arc::clone(&entry));
            }
            new.entries.push(entry);
        }
        let stays = |entry: &Entry| {
            new.place(entry.id()).is_some_and(|at| Arc::ptr_eq(&new.entries[at].service, &entry.service))
        };
        for entry in old.entries.iter().filter(|entry| !stays(entry)) {
            entry.service.set_route(core, None, table.generation, now);
            self.leaving.push(Arc::clone(entry));
        }
        self.routes = routes;
        new
    }

    /// The last entry of a service that has left the table and is not over yet.
    fn back(&mut self, spec: &ServiceSpec) -> Option<Arc<Entry>> {
        let at = self.leaving.iter().rposition(|entry| is_same_service(&entry.spec, spec))?;
        Some(self.leaving.remove(at))
    }

    /// The entry for a route, with the service brought up to date.
    fn entry(
        &mut self,
        core: &Arc<Core>,
        old: &Catalogue,
        route: &Arc<ServiceRoute>,
        elder: Option<&Entry>,
        generation: Generation,
        now: Time,
    ) -> Arc<Entry> {
        let before = old.place(route.spec.id);
        let before = before.filter(|at| is_same_service(&old.entries[*at].spec, &route.spec));
        let is_same = before.is_some_and(|at| Arc::ptr_eq(&self.routes[at], route));
        let before = before.map(|at| Arc::clone(&old.entries[at])).or_else(|| self.back(&route.spec));
        let service = match &before {
            Some(entry) if is_same => return Arc::clone(entry),
            Some(entry) => Arc::clone(&entry.service),
            None => Arc::new(Service::new(core, route.spec.id, elder.map(|entry| &*entry.service))),
        };
        service.set_route(core, Some(Arc::clone(route)), generation, now);
        Arc::new(Entry::new(Arc::clone(&route.spec), service))
    }
}

/// Whether two descriptions are of the same: ids of variants are used again, for other keys.
fn is_same_service(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    a.id == b.id && a.variant == b.variant
}

/// The table as it was published last, for who asks how it is read.
pub(crate) fn published(core: &Core) -> RouteTable {
    let publisher = core.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    RouteTable { generation: core.table.load().generation, services: publisher.routes.clone() }
}

/// Every service with something to tell, in order of ids; what its variants have counts in.
pub(crate) fn stats(core: &Core) -> Vec<ServiceStats> {
    let publisher = core.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    let table = core.table.load();
    let mut stats: BTreeMap<ServiceId, ServiceStats> = BTreeMap::new();
    // Those of parents first: a variant that is left over alone speaks for its service.
    let mut entries: Vec<_> = table.entries().iter().chain(&publisher.leaving).collect();
    entries.sort_by_key(|entry| (entry.spec.variant.is_some(), entry.id()));
    for entry in entries {
        let service = entry.spec.variant.as_ref().map_or(entry.id(), |variant| variant.of);
        let own = entry.stats();
        match stats.get_mut(&service) {
            Some(sum) => sum.add_gauges(own),
            None => {
                let name = own.name.split('@').next().unwrap_or_default().to_owned();
                stats.insert(service, ServiceStats { id: service, name, ..own });
            }
        }
    }
    stats.into_values().collect()
}

/// The services that requests can be at or wait for.
pub(crate) fn services(core: &Core) -> Vec<Arc<Service>> {
    let publisher = core.publisher.lock().unwrap_or_else(PoisonError::into_inner);
    let table = core.table.load();
    let entries = table.entries().iter().chain(&publisher.leaving);
    entries.map(|entry| Arc::clone(&entry.service)).collect()
}
