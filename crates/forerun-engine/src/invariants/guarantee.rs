//! What SLA classes are guaranteed, from the descriptions in the route table and the books alone.

use super::Invariants;
use super::books::{amount, limits};
use forerun_types::{ServiceId, ServiceSpec, SiteId, Span};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A class's guarantee in thousandths and its `reclaim_max`. Where services say differently, the larger holds.
type Promise = (u32, Span);

/// What services say of their classes, by name, and how many say so.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    told: BTreeMap<String, BTreeMap<Promise, u32>>,
    /// Services that say that something is guaranteed: without any, nothing needs to be counted.
    guaranteed: u32,
}

impl Classes {
    pub(super) fn describe(&mut self, spec: &ServiceSpec) {
        let sla = &spec.sla;
        let told = self.told.entry(sla.name.clone()).or_default();
        *told.entry((sla.guarantee_milli, sla.reclaim_max)).or_default() += 1;
        self.guaranteed += u32::from(sla.guarantee_milli > 0);
    }

    pub(super) fn forget(&mut self, spec: &ServiceSpec) {
        let (sla, promise) = (&spec.sla, (spec.sla.guarantee_milli, spec.sla.reclaim_max));
        self.guaranteed -= u32::from(sla.guarantee_milli > 0);
        let Some(told) = self.told.get_mut(&sla.name) else { return };
        if let Some(count) = told.get_mut(&promise).filter(|count| **count > 1) {
            *count -= 1;
        } else {
            told.remove(&promise);
        }
        if told.is_empty() {
            self.told.remove(&sla.name);
        }
    }

    fn promises(&self) -> impl Iterator<Item = (&str, Promise)> {
        let largest = |told: &BTreeMap<Promise, u32>| told.last_key_value().map(|(promise, _)| *promise);
        self.told.iter().filter_map(move |(name, told)| Some((name.as_str(), largest(told)?)))
    }
}

impl Invariants {
    /// How a service is described from now on; `None` when it is gone for good.
    pub(super) fn describe(&mut self, service: ServiceId, spec: Option<&Arc<ServiceSpec>>) {
        let before = match spec {
            Some(spec) => {
                if self.described.get(&service).is_some_and(|old| Arc::ptr_eq(old, spec)) {
                    return;
                }
                self.classes.describe(spec);
                self.described.insert(service, Arc::clone(spec))
            }
            None => self.described.remove(&service),
        };
        if let Some(before) = before {
            self.classes.forget(&before);
        }
    }

    /// All that a class's instances at a site have reserved; an instance is of the class that its service has now.
    fn held(&self, site: SiteId, class: &str) -> [u64; 5] {
        let of = |spec: &ServiceSpec| -> bool {
            self.described.get(&spec.id).map_or(&spec.sla.name, |now| &now.sla.name) == class
        };
        let all = self.known.values().filter(|k| k.site == site && of(&k.spec));
        all.fold([0; 5], |sum, k| {
            let one = amount(1, &k.reserved);
            std::array::from_fn(|kind| sum[kind].saturating_add(one[kind]))
        })
    }

    /// Why one more of a service may not be started at a site for the sake of other classes' own: it is beyond what
    /// its class has for itself, and would take what it could not give back in their time.
    pub(super) fn beyond_guarantees(&self, site: SiteId, spec: &ServiceSpec) -> Option<String> {
        if self.classes.guaranteed == 0 {
            return None;
        }
        let limits = limits(self.sites.get(&site)?);
        let own = |milli: u32, kind: usize| {
            let milli = u128::from(milli.min(1_000));
            u64::try_from(u128::from(limits[kind]) * milli / 1_000).unwrap_or(u64::MAX)
        };
        let class = &spec.sla.name;
        let (held, one) = (self.held(site, class), amount(1, &spec.resources));
        let told = self.classes.promises().find(|(name, _)| name == class);
        let milli = told.map_or(spec.sla.guarantee_milli, |(_, promise)| promise.0);
        let fits = |kind: usize| match limits[kind] {
            0 => true,
            _ => held[kind].saturating_add(one[kind]) <= own(milli, kind),
        };
        if milli > 0 && (0..5).all(fits) {
            return None;
        }
        let busy = if spec.busy.is_some() { spec.busy_max } else { Span::ZERO };
        let gives_back = spec.drain_timeout + spec.drain_timeout + busy;
        let mut kept = [0u64; 5];
        let others = self.classes.promises().filter(|(name, p)| name != class && p.0 > 0 && gives_back > p.1);
        for (name, promise) in others {
            let theirs = self.held(site, name);
            for kind in (0..5).filter(|&kind| limits[kind] > 0) {
                kept[kind] += own(promise.0, kind).saturating_sub(theirs[kind]);
            }
        }
        let over = self.beyond(site, spec, &kept)?;
        Some(format!("{over}, what is other classes' own counted with it"))
    }
}
