//! Capacity: what is reserved, and whether there is room for one more.

use crate::classes::{Amount, amount};
use forerun_types::{Launch, Resources, SiteId, SiteSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The rooms of all sites. What is at a site that nobody described counts at the first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rooms {
    first: Room,
    others: BTreeMap<SiteId, Room>,
}

impl Rooms {
    pub(crate) fn describe(&mut self, site: &SiteSpec) {
        match site.id {
            SiteId(0) => self.first.site(site),
            id => self.others.entry(id).or_default().site(site),
        }
    }

    /// Where a service's instances are: its container's engine is named as its site is.
    pub(crate) fn of(&self, launch: &Launch) -> SiteId {
        let Some(name) = launch.site() else { return SiteId(0) };
        self.others.iter().find(|(_, room)| room.name == name).map_or(SiteId(0), |(id, _)| *id)
    }

    pub(crate) fn at(&self, site: SiteId) -> &Room {
        self.others.get(&site).unwrap_or(&self.first)
    }

    pub(crate) fn at_mut(&mut self, site: SiteId) -> &mut Room {
        self.others.get_mut(&site).unwrap_or(&mut self.first)
    }

    /// All sites, the first one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SiteId, &Room)> {
        std::iter::once((SiteId(0), &self.first)).chain(self.others.iter().map(|(id, room)| (*id, room)))
    }

    /// A new life: nothing is reserved yet, and the sites beside the first are described anew.
    pub(crate) fn began(&mut self) {
        self.first.empty();
        self.others.clear();
    }

    /// Where nobody is short any more, room costs nothing.
    pub(crate) fn served_but_at(&mut self, short: &[SiteId]) {
        let others = self.others.iter_mut().map(|(id, room)| (*id, room));
        for (site, room) in std::iter::once((SiteId(0), &mut self.first)).chain(others) {
            if !short.contains(&site) {
                room.all_served();
            }
        }
    }
}

/// A site's limits and reservations. An instance is reserved for from the order to start it until it is known to
/// be gone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Room {
    name: String,
    capacity: Resources,
    instances_max: u32,
    used: Resources,
    instances: u32,
    /// The price of memory at the margin: value per GB and hour, in thousandths of a GB-second, of the best that was
    /// evicted or found no room since there was last room for all.
    shadow_price: i64,
}

impl Room {
    fn site(&mut self, site: &SiteSpec) {
        self.name.clone_from(&site.name);
        self.capacity = site.capacity;
        self.instances_max = site.instances_max;
    }

    fn empty(&mut self) {
        self.used = Resources::default();
        self.instances = 0;
    }

    pub(crate) fn fits(&self, r: &Resources) -> bool {
        self.lacks(r) == [false; 5]
    }

    pub(crate) fn reserve(&mut self, resources: &Resources) {
        self.instances += 1;
        self.used = sum(&self.used, resources, u64::saturating_add);
    }

    /// Gives back what an instance had reserved.
    pub(crate) fn release(&mut self, reserved: &Resources) {
        self.instances = self.instances.saturating_sub(1);
        self.used = sum(&self.used, reserved, u64::saturating_sub);
    }

    /// The room as it will be once these have been given back, and others have taken what they wait for.
    pub(crate) fn after(&self, released: &[Resources], claimed: &[Resources]) -> Self {
        let mut room = self.clone();
        released.iter().for_each(|r| room.release(r));
        claimed.iter().for_each(|r| room.reserve(r));
        room
    }

    /// The room as it is while so much more is kept from who asks.
    pub(crate) fn without(mut self, kept: &Amount) -> Self {
        let [cpu_milli, memory_bytes, network_bytes_per_s, storage_bytes, instances] = *kept;
        let kept = Resources { cpu_milli, memory_bytes, network_bytes_per_s, storage_bytes };
        self.used = sum(&self.used, &kept, u64::saturating_add);
        self.instances = self.instances.saturating_add(u32::try_from(instances).unwrap_or(u32::MAX));
        self
    }

    /// Of which kinds there is not enough.
    pub(crate) fn lacks(&self, r: &Resources) -> [bool; 5] {
        let (used, more) = (amount(&self.used, self.instances), amount(r, 1));
        let limits = amount(&self.capacity, self.instances_max);
        std::array::from_fn(|kind| limits[kind] > 0 && used[kind].saturating_add(more[kind]) > limits[kind])
    }

    pub(crate) fn at_the_margin(&mut self, density: i64) {
        self.shadow_price = self.shadow_price.max(density);
    }

    fn all_served(&mut self) {
        self.shadow_price = 0;
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shadow_price(&self) -> i64 {
        self.shadow_price
    }

    pub(crate) fn used(&self) -> (Resources, u32) {
        (self.used, self.instances)
    }

    pub(crate) fn limits(&self) -> (Resources, u32) {
        (self.capacity, self.instances_max)
    }
}

fn sum(a: &Resources, b: &Resources, f: fn(u64, u64) -> u64) -> Resources {
    Resources {
        cpu_milli: f(a.cpu_milli, b.cpu_milli),
        memory_bytes: f(a.memory_bytes, b.memory_bytes),
        network_bytes_per_s: f(a.network_bytes_per_s, b.network_bytes_per_s),
        storage_bytes: f(a.storage_bytes, b.storage_bytes),
    }
}
