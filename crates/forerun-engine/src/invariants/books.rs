//! The books: which instances there are by the orders and events alone, and what they have reserved.

use super::Invariants;
use forerun_types::{
    Generation, InstanceId, Mode, Resources, RouterId, ServiceId, ServiceSpec, SiteId, Time,
};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) spec: Arc<ServiceSpec>,
    /// As it was when it was made: what becomes a key's keeps its room.
    pub(super) reserved: Resources,
    pub(super) site: SiteId,
    pub(super) ready: bool,
    pub(super) stopping: bool,
    pub(super) listed: bool,
    /// It is frozen, or ordered to be.
    pub(super) paused: bool,
    /// It is ordered to be thawed.
    pub(super) resuming: bool,
    /// It is becoming a key's.
    pub(super) changing: bool,
    /// A request was sent there.
    pub(super) touched: bool,
    /// When its drain is over, with the first generation of the table that lacked it.
    pub(super) left: Option<(Time, Generation)>,
    pub(super) quiesced: Vec<RouterId>,
    /// From then on a stop of it is refused no more.
    pub(super) stop_from: Time,
}

impl Known {
    fn new(spec: &Arc<ServiceSpec>, site: SiteId, ready: bool) -> Self {
        Self {
            spec: Arc::clone(spec),
            reserved: spec.resources,
            site,
            ready,
            stopping: false,
            listed: false,
            paused: false,
            resuming: false,
            changing: false,
            touched: false,
            left: None,
            quiesced: Vec::new(),
            stop_from: Time::NEVER,
        }
    }
}

/// An instance as orders and events show it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub instance: InstanceId,
    pub spec: &'a Arc<ServiceSpec>,
    pub reserved: Resources,
    pub ready: bool,
    pub counts: bool,
    pub listed: bool,
    /// It is frozen, or ordered to be.
    pub paused: bool,
    pub stopping: bool,
    /// When its drain is over, once it has left the table.
    pub drained_at: Option<Time>,
}

impl Invariants {
    /// Instances that were ordered and are not known to be gone, with their services and whether they are ready and
    /// whether they count towards what is wanted: neither out of the table after having been in it, nor stopping.
    pub fn instances(&self) -> impl Iterator<Item = Seen<'_>> {
        self.known.iter().map(|(instance, known)| Seen {
            instance: *instance,
            spec: &known.spec,
            reserved: known.reserved,
            ready: known.ready,
            counts: !known.stopping && !known.paused && known.left.is_none(),
            listed: known.listed,
            paused: known.paused,
            stopping: known.stopping,
            drained_at: known.left.map(|l| l.0),
        })
    }

    pub(super) fn note(&mut self, instance: InstanceId, spec: &Arc<ServiceSpec>, ready: bool) {
        let site = self.site_of(spec);
        let (count, used) = self.reserved.entry(site).or_default();
        *count += 1;
        add(used, &spec.resources, u64::saturating_add);
        self.known.insert(instance, Known::new(spec, site, ready));
    }

    /// An instance is known to be gone, or is Forerun's no more.
    pub fn let_go(&mut self, instance: InstanceId) {
        if let Some(known) = self.known.remove(&instance) {
            let (count, used) = self.reserved.entry(known.site).or_default();
            *count = count.saturating_sub(1);
            add(used, &known.reserved, u64::saturating_sub);
        }
    }

    /// How far Forerun may go with a service; a person speaks of a variant by its parent.
    pub(super) fn mode_of(&self, spec: &ServiceSpec) -> Mode {
        let spoken_of = spoken_of(spec);
        let described = self.services.get(&spoken_of).map_or(spec.mode, |s| s.0);
        self.told.get(&spoken_of).copied().unwrap_or(described)
    }

    /// Where a service's instances have to be; the first site when nobody described another.
    pub(super) fn site_of(&self, spec: &ServiceSpec) -> SiteId {
        let named = |name| self.sites.values().find(|site| site.name == name).map(|site| site.id);
        spec.launch.site().and_then(named).unwrap_or(SiteId(0))
    }

    /// What a site's limits would be exceeded by with one more instance, and with `beside` kept free.
    pub(super) fn beyond(&self, site: SiteId, more: &ServiceSpec, beside: &[u64; 5]) -> Option<String> {
        const KINDS: [&str; 5] =
            ["instances", "cpu_milli", "memory_bytes", "network_bytes_per_s", "storage_bytes"];
        let (count, used) = self.reserved.get(&site).copied().unwrap_or_default();
        let limits = limits(self.sites.get(&site)?);
        let (used, more) = (amount(count, &used), amount(1, &more.resources));
        let would = |kind: usize| used[kind].saturating_add(more[kind]).saturating_add(beside[kind]);
        let over = (0..5).find(|&kind| limits[kind] > 0 && would(kind) > limits[kind])?;
        Some(format!("{} {} reserved on a site of {}", would(over), KINDS[over], limits[over]))
    }
}

/// The service that a person means who speaks of one.
pub(super) fn spoken_of(spec: &ServiceSpec) -> ServiceId {
    spec.variant.as_ref().map_or(spec.id, |variant| variant.of)
}

/// Instances, thousandths of a core, bytes of memory, bytes a second, bytes of storage.
pub(super) fn amount(instances: u64, r: &Resources) -> [u64; 5] {
    [instances, r.cpu_milli, r.memory_bytes, r.network_bytes_per_s, r.storage_bytes]
}

/// A site's limits of each kind; 0 is none.
pub(super) fn limits(site: &forerun_types::SiteSpec) -> [u64; 5] {
    amount(u64::from(site.instances_max), &site.capacity)
}

fn add(used: &mut Resources, r: &Resources, f: fn(u64, u64) -> u64) {
    used.cpu_milli = f(used.cpu_milli, r.cpu_milli);
    used.memory_bytes = f(used.memory_bytes, r.memory_bytes);
    used.network_bytes_per_s = f(used.network_bytes_per_s, r.network_bytes_per_s);
    used.storage_bytes = f(used.storage_bytes, r.storage_bytes);
}
