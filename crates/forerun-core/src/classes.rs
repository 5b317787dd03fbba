//! SLA classes: what share of a site is a class's own, and what each class holds there.
//!
//! A class's guarantee is a part of each limit that a site has. What a class holds beyond its own share is lent to it.

use crate::core::Core;
use crate::policy::Policy;
use forerun_types::{Resources, ServiceId, ServiceSpec, SiteId, Span};
use std::collections::{BTreeMap, BTreeSet};

/// Thousandths of a core, bytes of memory, bytes a second, bytes of storage, instances.
pub(crate) type Amount = [u64; 5];

/// No limit of that kind.
const NO_LIMIT: u64 = u64::MAX;

pub(crate) fn amount(r: &Resources, instances: u32) -> Amount {
    [r.cpu_milli, r.memory_bytes, r.network_bytes_per_s, r.storage_bytes, u64::from(instances)]
}

pub(crate) fn add(to: &mut Amount, more: &Amount) {
    to.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
}

/// The classes of all services. Where two services describe one class differently, its larger guarantee holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    made: bool,
    list: Vec<Class>,
    /// By the services' ids: which class, and what the service says of it.
    of: Vec<Option<Member>>,
    priorities: BTreeMap<u8, u32>,
    /// Classes that are promised a part.
    guarantees: usize,
}

/// A class by its number, what a service says of it, and the service's priority.
type Member = (usize, (u32, Span), u8);

#[derive(Clone, Debug)]
struct Class {
    name: String,
    /// Guarantee in thousandths and `reclaim_max`, and how many services say so.
    told: BTreeMap<(u32, Span), u32>,
}

impl Class {
    fn guarantee_milli(&self) -> u32 {
        self.told.last_key_value().map_or(0, |(told, _)| told.0)
    }
}

impl Classes {
    /// A service is described, or described anew.
    pub(crate) fn describe(&mut self, spec: &ServiceSpec) {
        let (at, sla) = (spec.id.0 as usize, &spec.sla);
        self.gone(spec.id);
        if self.of.len() <= at {
            self.of.resize(at + 1, None);
        }
        let class = self.list.iter().position(|c| c.name == sla.name).unwrap_or_else(|| {
            self.list.push(Class { name: sla.name.clone(), told: BTreeMap::new() });
            self.list.len() - 1
        });
        let told = (sla.guarantee_milli, sla.reclaim_max);
        *self.list[class].told.entry(told).or_default() += 1;
        *self.priorities.entry(sla.priority).or_default() += 1;
        self.of[at] = Some((class, told, sla.priority));
        self.count();
    }

    pub(crate) fn gone(&mut self, id: ServiceId) {
        let Some((class, told, priority)) = self.of.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        less_one(&mut self.list[class].told, told);
        less_one(&mut self.priorities, priority);
        self.count();
    }

    fn count(&mut self) {
        self.guarantees = self.list.iter().filter(|c| c.guarantee_milli() > 0).count();
    }

    /// Whether any class is promised a part.
    pub(crate) fn guaranteed(&self) -> bool {
        self.guarantees > 0
    }

    /// Whether classes differ in anything that decides who goes first.
    pub(crate) fn differ(&self) -> bool {
        self.guaranteed() || self.priorities.len() > 1
    }

    /// The services of a service's class.
    pub(crate) fn members(&self, id: ServiceId) -> BTreeSet<ServiceId> {
        let class = self.of(id);
        let ids = (0..self.of.len()).map(|id| ServiceId(id as u32));
        ids.filter(|id| self.guaranteed() && self.of(*id) == class).collect()
    }

    /// Whether any service is of the class of that name.
    pub(crate) fn is_used(&self, name: &str) -> bool {
        self.list.iter().any(|class| class.name == name && !class.told.is_empty())
    }

    pub(crate) fn of(&self, id: ServiceId) -> Option<usize> {
        self.of.get(id.0 as usize)?.as_ref().map(|of| of.0)
    }
}

fn less_one<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// What a class's share is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// All that is reserved now.
    Reserved,
    /// The same without what is on its way out.
    ToCome,
}

/// What each class holds at one site.
pub(crate) struct Ledger {
    /// What is a class's own, of each kind.
    own: Vec<Amount>,
    reclaim_max: Vec<Span>,
    names: Vec<String>,
    /// All that is reserved.
    held: Vec<Amount>,
    /// The same without what is on its way out.
    stays: Vec<Amount>,
    limits: Amount,
}

impl Ledger {
    /// Whether one more is within what is its class's own, beside `beside`: going by all that is reserved, or by what
    /// will be left once what is on its way out is gone.
    pub(crate) fn within(&self, class: usize, basis: Basis, beside: &Amount, more: &Amount) -> bool {
        let mut held = match basis {
            Basis::Reserved => self.held[class],
            Basis::ToCome => self.stays[class],
        };
        add(&mut held, beside);
        self.within_of(class, &held, more)
    }

    fn within_of(&self, class: usize, held: &Amount, more: &Amount) -> bool {
        (0..5).all(|kind| held[kind].saturating_add(more[kind]) <= self.own[class][kind])
    }

    /// Whether a class holds more than its own of any of these kinds.
    pub(crate) fn holds_lent(&self, class: usize, kinds: &[bool; 5]) -> bool {
        (0..5).any(|kind| kinds[kind] && self.stays[class][kind] > self.own[class][kind])
    }

    /// The classes whose own share is kept from what cannot be given back in time, and what of it they do not use.
    pub(crate) fn kept_from(&self, class: usize, gives_back: Span) -> Vec<(usize, Amount)> {
        let others =
            (0..self.own.len()).filter(|&other| other != class && gives_back > self.reclaim_max[other]);
        others.map(|other| (other, self.unused(other))).filter(|(_, unused)| *unused != [0; 5]).collect()
    }

    fn unused(&self, class: usize) -> Amount {
        std::array::from_fn(|kind| match self.limits[kind] {
            NO_LIMIT => 0,
            _ => self.own[class][kind].saturating_sub(self.held[class][kind]),
        })
    }

    /// What a class holds of what it is promised, in the kind that it has most of.
    pub(crate) fn holding(&self, class: usize) -> String {
        let limited = (0..5).filter(|&kind| self.limits[kind] != NO_LIMIT);
        let part =
            |of: &Amount, kind: usize| (u128::from(of[kind]) * 1_000).div_ceil(u128::from(self.limits[kind]));
        let most = limited.max_by_key(|&kind| part(&self.held[class], kind)).unwrap_or(0);
        let percent = |milli: u128| format!("{}.{}%", milli / 10, milli % 10);
        format!(
            "class {} holds {} of the site and {} is its own",
            self.names[class],
            percent(part(&self.held[class], most)),
            percent(part(&self.own[class], most))
        )
    }
}

impl<P: Policy> Core<P> {
    /// After a snapshot was read: it does not hold what the descriptions tell.
    pub(crate) fn learn_classes(&mut self) {
        if !self.classes.made {
            self.classes.made = true;
            self.services.iter().flatten().for_each(|s| self.classes.describe(&s.spec));
        }
    }

    /// What each class holds at a site; `None` where no class is promised anything.
    pub(crate) fn ledger(&self, site: SiteId) -> Option<Ledger> {
        if !self.classes.guaranteed() {
            return None;
        }
        let (capacity, instances_max) = self.rooms.at(site).limits();
        let limits = amount(&capacity, instances_max).map(|limit| if limit == 0 { NO_LIMIT } else { limit });
        let classes = &self.classes.list;
        let own = |c: &Class| match c.guarantee_milli() {
            0 => [0; 5],
            milli => limits.map(|limit| match limit {
                NO_LIMIT => NO_LIMIT,
                limit => (u128::from(limit) * u128::from(milli.min(1_000)) / 1_000) as u64,
            }),
        };
        let reclaim_max = |c: &Class| c.told.last_key_value().map_or(Span(u64::MAX), |(told, _)| told.1);
        let mut ledger = Ledger {
            own: classes.iter().map(own).collect(),
            reclaim_max: classes.iter().map(reclaim_max).collect(),
            names: classes.iter().map(|c| c.name.clone()).collect(),
            held: vec![[0; 5]; classes.len()],
            stays: vec![[0; 5]; classes.len()],
            limits,
        };
        for instance in self.instances.values().filter(|i| i.site == site) {
            let Some(class) = self.classes.of(instance.service) else { continue };
            let reserved = amount(&instance.reserved, 1);
            add(&mut ledger.held[class], &reserved);
            if !instance.goes() {
                add(&mut ledger.stays[class], &reserved);
            }
        }
        Some(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::SlaClass;

    fn spec(id: u32, name: &str, guarantee_milli: u32, priority: u8) -> ServiceSpec {
        let sla = SlaClass { name: name.to_owned(), guarantee_milli, priority, ..SlaClass::default() };
        ServiceSpec { sla, ..ServiceSpec::named(ServiceId(id), format!("s{id}")) }
    }

    #[test]
    fn a_class_is_what_its_services_say_and_goes_with_them() {
        let mut classes = Classes::default();
        classes.describe(&spec(0, "gold", 500, 100));
        classes.describe(&spec(3, "gold", 300, 100));
        classes.describe(&spec(1, "bronze", 0, 100));
        assert_eq!((classes.of(ServiceId(0)), classes.of(ServiceId(2))), (classes.of(ServiceId(3)), None));
        assert_eq!(classes.list[0].guarantee_milli(), 500);
        classes.gone(ServiceId(0));
        assert_eq!(classes.list[0].guarantee_milli(), 300);
        classes.describe(&spec(3, "bronze", 0, 100));
        assert!(!classes.differ());
        classes.describe(&spec(1, "bronze", 0, 50));
        assert!(classes.differ() && !classes.guaranteed());
    }
}
