//! Capacity: what is reserved, and whether there is room for one more.

use forerun_types::{Resources, SiteSpec};
use serde::{Deserialize, Serialize};

/// The site's limits and reservations. An instance is reserved for from the order to start it until it is known to
/// be gone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Room {
    capacity: Resources,
    instances_max: u32,
    used: Resources,
    instances: u32,
    /// The price of memory at the margin: value per GB and hour, in thousandths of a GB-second, of the best that was
    /// evicted or found no room since there was last room for all.
    shadow_price: i64,
}

impl Room {
    pub(crate) fn site(&mut self, site: &SiteSpec) {
        self.capacity = site.capacity;
        self.instances_max = site.instances_max;
    }

    pub(crate) fn empty(&mut self) {
        self.used = Resources::default();
        self.instances = 0;
    }

    pub(crate) fn fits(&self, r: &Resources) -> bool {
        let within =
            |used: u64, more: u64, capacity: u64| capacity == 0 || used.saturating_add(more) <= capacity;
        let (u, c) = (&self.used, &self.capacity);
        (self.instances_max == 0 || self.instances < self.instances_max)
            && within(u.cpu_milli, r.cpu_milli, c.cpu_milli)
            && within(u.memory_bytes, r.memory_bytes, c.memory_bytes)
            && within(u.network_bytes_per_s, r.network_bytes_per_s, c.network_bytes_per_s)
            && within(u.storage_bytes, r.storage_bytes, c.storage_bytes)
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

    pub(crate) fn at_the_margin(&mut self, density: i64) {
        self.shadow_price = self.shadow_price.max(density);
    }

    pub(crate) fn all_served(&mut self) {
        self.shadow_price = 0;
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
