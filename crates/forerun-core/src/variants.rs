//! Variants: a service's instances of one key, as a service of their own.
//!
//! A variant is made from its parent when a key is met, so that load, forecast, plan, hold and drain work for each key
//! as for any service. Its instances are started for it, or are generic ones of the parent that were never used and
//! become its own, for good, where that is quicker (see [`crate::claims`]).
//!
//! Bounded by the parent's `keys_max`: of those without instances the least recently used gives way to a new key;
//! where there is none, the key gets no variant and its requests stay with the generic instances. Ids are used again
//! within a family, after a rest in which routers forget what they meant.

use crate::core::{Core, Service};
use crate::policy::Policy;
use forerun_types::{
    Action, InstanceId, KeyFrom, Mode, RouteRule, ServiceId, ServiceSpec, Span, Time, UserFrom, UserKey,
    Variant,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Keys that live at a time if the service does not say.
const KEYS_DEFAULT: usize = 64;
/// Ids that a family may have for each key that may live: those beyond rest, or still have instances.
const IDS_PER_KEY: usize = 4;
/// Longer than a router that is cut off may go on by its last table.
const REST: Span = Span::from_secs(120);
/// Instances of earlier lives whose key is remembered; ids only rise, and the oldest are the least likely to be there.
const OWNERS_MAX: usize = 4_096;
/// Characters of a key that a variant's name shows.
const NAME_MAX: usize = 40;

/// A service that specialises, and its variants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Family {
    live: BTreeMap<String, Live>,
    /// All ids that were ever given to a variant of this service, which is what bounds how fast keys may come and go.
    ids: BTreeSet<ServiceId>,
    /// Those that are free, and from when on.
    resting: VecDeque<(Time, ServiceId)>,
    pub(crate) claims: crate::claims::Claims,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Live {
    id: ServiceId,
    used: Time,
}

/// All families, by their parents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Families {
    by_parent: BTreeMap<ServiceId, Family>,
    /// Of every id in any family.
    parents: BTreeMap<ServiceId, ServiceId>,
    /// Generic instances that no request was ever sent to, and that every router which ever knew them is still there
    /// to say so.
    pub(crate) untouched: BTreeSet<InstanceId>,
    /// Instances of the life before that were a variant's: whatever they are found as, they are no other's.
    owners: BTreeMap<InstanceId, ServiceId>,
}

impl Families {
    /// Whose variant an id is, or was before its rest.
    pub(crate) fn parent_of(&self, service: ServiceId) -> Option<ServiceId> {
        self.parents.get(&service).copied()
    }

    pub(crate) fn get_mut(&mut self, parent: ServiceId) -> Option<&mut Family> {
        self.by_parent.get_mut(&parent)
    }

    pub(crate) fn get(&self, parent: ServiceId) -> Option<&Family> {
        self.by_parent.get(&parent)
    }

    /// The variants of a service, also those that are about to go.
    pub(crate) fn variants(&self, parent: ServiceId) -> impl Iterator<Item = ServiceId> + '_ {
        self.by_parent.get(&parent).into_iter().flat_map(|family| family.ids.iter().copied())
    }

    pub(crate) fn instance_gone(&mut self, id: InstanceId) {
        self.untouched.remove(&id);
        self.owners.remove(&id);
    }

    /// Whose an instance of the life before was, if it was a variant's.
    pub(crate) fn owner(&self, was: Option<InstanceId>) -> Option<ServiceId> {
        self.owners.get(&was?).copied()
    }

    /// A service, its parent, and all the parent's variants.
    fn relatives(&self, service: ServiceId) -> impl Iterator<Item = ServiceId> + '_ {
        let parent = self.parent_of(service).unwrap_or(service);
        std::iter::once(parent).chain(self.variants(parent))
    }
}

impl<P: Policy> Core<P> {
    /// The service that an id stands for to people: a variant's parent, also while the variant's id rests.
    #[must_use]
    pub fn elder_of(&self, id: ServiceId) -> ServiceId {
        self.families.parent_of(id).unwrap_or(id)
    }

    /// A router has met a key: makes its variant, if there may be one more.
    pub(crate) fn key_seen(&mut self, parent: ServiceId, key: &str, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(s) = self.get(parent) else { return };
        let Some(specialise) = s.spec.specialise.as_ref().filter(|_| s.spec.variant.is_none()) else {
            return;
        };
        let listed = specialise.keys.is_empty() || specialise.keys.iter().any(|k| k == key);
        let fits = (1..=Variant::KEY_BYTES_MAX).contains(&key.len()) && !key.contains(char::is_control);
        // What is only watched starts nothing, so nothing could ever serve the variant's requests.
        let acts = s.mode() == Mode::Act && !s.leaving && !self.closing;
        if !listed || !fits || !acts {
            return;
        }
        let spec = Arc::clone(&s.spec);
        let most = keys_max(&spec);
        if let Some(live) = self.families.by_parent.entry(parent).or_default().live.get_mut(key) {
            live.used = now;
            return;
        }
        if !self.has_room_for_key(parent, most) {
            return;
        }
        let next = self.next_service();
        let Some(family) = self.families.by_parent.get_mut(&parent) else { return };
        let Some(id) = family.id(now, next, most) else { return };
        family.live.insert(key.to_owned(), Live { id, used: now });
        family.ids.insert(id);
        self.families.parents.insert(id, parent);
        if let Some(usual) = self.demand.key_start_time(parent) {
            self.demand.started(id, usual);
        }
        self.service(&Arc::new(variant_of(&spec, id, key)), actions);
        if let Some(s) = self.get_mut(id) {
            // No backend has anything of a key that was never met.
            s.told.unlisted_until = Time::default();
        }
    }

    /// The service that a person means who speaks of this one: its parent, for a variant.
    pub(crate) fn elder<'a>(&'a self, s: &'a Service) -> &'a Service {
        s.spec.variant.as_ref().and_then(|variant| self.get(variant.of)).unwrap_or(s)
    }

    /// A new life begins: what the last one knew of whose an instance is, is worth more than what a backend can see.
    pub(crate) fn note_owners(&mut self) {
        let variants = self.instances.iter().filter(|(_, i)| self.families.parent_of(i.service).is_some());
        let variants: Vec<_> = variants.map(|(id, i)| (*id, i.service)).collect();
        let owners = &mut self.families.owners;
        // A life may end before it has found them all.
        owners.extend(variants);
        while owners.len() > OWNERS_MAX {
            owners.pop_first();
        }
    }

    /// Whether one more key may live, after the least recently used one without instances has gone, if one must.
    fn has_room_for_key(&mut self, parent: ServiceId, most: usize) -> bool {
        let Some(family) = self.families.get(parent) else { return false };
        if family.live.len() < most {
            return true;
        }
        let idle = |id: ServiceId| self.get(id).is_none_or(|s| s.instances.is_empty() && s.requests() == 0);
        let oldest = family.live.iter().filter(|(_, live)| idle(live.id)).min_by_key(|(_, live)| live.used);
        let Some((key, id)) = oldest.map(|(key, live)| (key.clone(), live.id)) else { return false };
        self.drop_key(parent, &key, id);
        true
    }

    fn drop_key(&mut self, parent: ServiceId, key: &str, id: ServiceId) {
        if let Some(family) = self.families.get_mut(parent) {
            family.live.remove(key);
        }
        if let Some(s) = self.get_mut(id) {
            s.leaving = true;
        }
        self.mark(id);
    }

    /// A service was described: its variants are described alike, and the keys that it lists get theirs.
    pub(crate) fn parent_described(&mut self, parent: ServiceId, actions: &mut Vec<Action>) {
        let Some(s) = self.get(parent).filter(|s| s.spec.variant.is_none()) else { return };
        let spec = Arc::clone(&s.spec);
        let keys = spec.specialise.as_ref().map(|s| s.keys.clone());
        let live: Vec<(String, ServiceId)> = self.families.get(parent).map_or_else(Vec::new, |family| {
            family.live.iter().map(|(key, live)| (key.clone(), live.id)).collect()
        });
        for (key, id) in live {
            match &keys {
                Some(keys) if keys.is_empty() || keys.contains(&key) => {
                    let new = variant_of(&spec, id, &key);
                    if self.get(id).is_some_and(|s| *s.spec != new) {
                        self.service(&Arc::new(new), actions);
                    }
                }
                _ => self.drop_key(parent, &key, id),
            }
        }
        for key in keys.iter().flatten().take(keys_max(&spec)) {
            self.key_seen(parent, key, actions);
        }
    }

    /// A service goes, and its variants with it.
    pub(crate) fn parent_gone(&mut self, parent: ServiceId) {
        let live: Vec<(String, ServiceId)> = self.families.get(parent).map_or_else(Vec::new, |family| {
            family.live.iter().map(|(key, live)| (key.clone(), live.id)).collect()
        });
        for (key, id) in live {
            self.drop_key(parent, &key, id);
        }
    }

    /// Whether variants of a service are still there: then it stays to take back what they have of its instances.
    pub(crate) fn has_variants(&self, parent: ServiceId) -> bool {
        self.families.variants(parent).any(|id| self.get(id).is_some())
    }

    /// A service is gone for good; a variant's id has its rest, and what was learned of its key is dropped.
    pub(crate) fn service_removed(&mut self, id: ServiceId) {
        let now = self.now;
        if let Some(parent) = self.families.parent_of(id) {
            self.demand.gone(id);
            self.families.owners.retain(|_, owner| *owner != id);
            if let Some(family) = self.families.get_mut(parent) {
                family.resting.push_back((now + REST, id));
            }
            self.mark(parent);
        } else if self.families.by_parent.remove(&id).is_some() {
            self.families.parents.retain(|_, parent| *parent != id);
        }
    }

    /// Variants that stand for a person go when that person is to be forgotten.
    pub(crate) fn forget_keys(&mut self, user: UserKey) {
        let key = format!("{:016x}", user.0);
        let stands = |spec: &ServiceSpec| match spec.specialise.as_ref().map(|s| &s.by) {
            Some(KeyFrom::User) => true,
            Some(KeyFrom::Header(name)) => {
                matches!(&spec.user, UserFrom::Header(user) if user.eq_ignore_ascii_case(name))
            }
            _ => false,
        };
        let theirs: Vec<(ServiceId, ServiceId)> = self
            .families
            .by_parent
            .iter()
            .filter(|(parent, _)| self.get(**parent).is_some_and(|s| stands(&s.spec)))
            .filter_map(|(parent, family)| Some((*parent, family.live.get(&key)?.id)))
            .collect();
        for (parent, id) in theirs {
            self.drop_key(parent, &key, id);
        }
    }

    /// A variant was asked for.
    pub(crate) fn key_used(&mut self, variant: ServiceId) {
        let now = self.now;
        let Some(parent) = self.families.parent_of(variant) else { return };
        let Some(Some(spec)) = self.services.get(variant.0 as usize).map(|s| s.as_ref().map(|s| &s.spec))
        else {
            return;
        };
        let Some(key) = spec.variant.as_ref().map(|v| v.key.as_str()) else { return };
        if let Some(live) = self.families.get_mut(parent).and_then(|f| f.live.get_mut(key)) {
            live.used = now;
        }
    }

    /// Has a service and all its relatives settled at the end of this step.
    pub(crate) fn mark_relatives(&mut self, service: ServiceId) {
        let relatives: Vec<ServiceId> = self.families.relatives(service).collect();
        relatives.into_iter().for_each(|id| self.mark(id));
    }

    pub(crate) fn mark_other_relatives(&mut self, service: ServiceId) {
        let relatives: Vec<ServiceId> =
            self.families.relatives(service).filter(|id| *id != service).collect();
        relatives.into_iter().for_each(|id| self.mark(id));
    }

    /// How many instances a service may have beside those of its relatives: `max`, or a person's word, is a promise
    /// for generic and specialised ones together.
    pub(crate) fn most_beside_relatives(&self, id: ServiceId) -> u32 {
        let parent = self.families.parent_of(id).unwrap_or(id);
        if self.families.get(parent).is_none() {
            return u32::MAX;
        }
        let Some(s) = self.get(parent) else { return 0 };
        let others = self.families.relatives(id).filter(|other| *other != id);
        let others = others.fold(0_u32, |sum, other| sum.saturating_add(self.count(other)));
        s.bounds.most(self.now, &s.spec).saturating_sub(others)
    }

    /// Whether a service may have one more, after its least valuable idle relative has made way, if one must.
    pub(crate) fn relatives_make_way(
        &mut self,
        id: ServiceId,
        price: i64,
        actions: &mut Vec<Action>,
    ) -> bool {
        if self.count(id) < self.most_beside_relatives(id) {
            return true;
        }
        let others: BTreeSet<ServiceId> = self.families.relatives(id).filter(|other| *other != id).collect();
        if !others.is_empty() {
            // Also one that `min` keeps: a request that waits for its key's instance comes before.
            self.evict_one(id, price, |other, _| others.contains(&other), true, actions);
        }
        self.count(id) < self.most_beside_relatives(id)
    }
}

impl Family {
    /// An id for one more variant: one that has rested, or a new one.
    fn id(&mut self, now: Time, next: ServiceId, most: usize) -> Option<ServiceId> {
        if self.resting.front().is_some_and(|(from, _)| *from <= now) {
            return self.resting.pop_front().map(|(_, id)| id);
        }
        (self.ids.len() < most.saturating_mul(IDS_PER_KEY)).then_some(next)
    }
}

fn keys_max(parent: &ServiceSpec) -> usize {
    let most = parent.specialise.as_ref().map_or(0, |s| s.keys_max);
    if most == 0 { KEYS_DEFAULT } else { usize::try_from(most).unwrap_or(usize::MAX) }
}

/// The parent as it is for one key. `min` and the schedules are for the generic instances.
fn variant_of(parent: &ServiceSpec, id: ServiceId, key: &str) -> ServiceSpec {
    ServiceSpec {
        id,
        name: format!("{}@{}", parent.name, printable(key)),
        route: RouteRule::default(),
        unrouted: true,
        min: 0,
        schedules: Vec::new(),
        variant: Some(Variant { of: parent.id, key: key.to_owned() }),
        ..parent.clone()
    }
}

/// A key as a part of a name: whole if it is short and plain, else its beginning and what tells it from others.
fn printable(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if key.len() <= NAME_MAX && key.chars().all(plain) {
        return key.to_owned();
    }
    let start: String = key.chars().take(NAME_MAX / 2).map(|c| if plain(c) { c } else { '_' }).collect();
    format!("{start}~{:016x}", Variant::access_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_and_tell_keys_apart() {
        for (key, name) in [
            ("acme", "shop@acme"),
            ("00000000000000ab", "shop@00000000000000ab"),
            ("a b", "shop@a_b~"),
            ("a_b~", "shop@a_b_~"),
        ] {
            let parent = ServiceSpec::named(ServiceId(0), "shop");
            let got = variant_of(&parent, ServiceId(1), key).name;
            assert!(got.starts_with(name), "{got}");
            assert!(got.len() <= 5 + NAME_MAX && got.is_ascii(), "{got}");
        }
        let long = |end: &str| printable(&("x".repeat(100) + end));
        assert_ne!(long("1"), long("2"));
        assert_ne!(printable("a b"), printable("a/b"));
    }
}
