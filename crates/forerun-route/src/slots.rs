//! A service's instances at one router, and what is in flight there.

use crate::pick::{LoadView, admits};
use crate::silence::Silence;
use forerun_types::{Access, Generation, InstanceId, InstanceLoad, InstanceRoute, ServiceRoute, Time};
use std::net::SocketAddr;
use std::sync::Arc;

/// How a router reaches an instance at one address: a pool of connections, or a model of one.
pub trait Link {
    fn to(address: SocketAddr) -> Self;
    fn address(&self) -> SocketAddr;
    /// Nothing new goes there: the instance has left the table, or has another address.
    fn close(&self);
}

/// An instance that requests may be at. It stays until it is both absent from the table and empty.
#[derive(Clone, Debug)]
pub(crate) struct Slot<L> {
    pub(crate) instance: InstanceId,
    pub(crate) link: Arc<L>,
    in_flight: u32,
    /// Of those, how many are nobody's: they are let end, and count as no use.
    silent: u32,
    /// Kept in use by a stay, at no place of its own.
    pinned: bool,
    last_used: Time,
    /// The first table that lacked it.
    absent_since: Option<Generation>,
    /// It did not take a request: no other is sent there until it accepts a connection, or has another address.
    shunned: bool,
    /// A key could still claim it, as far as the table says, and nothing was ever sent there.
    untouched: bool,
    pub(crate) silence: Silence,
    changed: bool,
}

impl<L> Slot<L> {
    /// What the engine is told: a pinned instance is in use, and one that only probes are at is not.
    pub(crate) fn load(&self) -> InstanceLoad {
        let used = self.in_flight.saturating_sub(self.silent).max(u32::from(self.pinned));
        InstanceLoad { instance: self.instance, in_flight: used, last_used: self.last_used }
    }

    fn is_empty(&self) -> bool {
        self.in_flight == 0 && !self.pinned
    }

    fn touch(&mut self, now: Time) {
        self.last_used = self.last_used.max(now);
        self.changed = true;
    }

    fn is(&self, link: &Arc<L>) -> bool {
        self.absent_since.is_none() && Arc::ptr_eq(&self.link, link)
    }
}

/// In order of ids.
#[derive(Clone, Debug)]
pub(crate) struct Slots<L>(Vec<Slot<L>>);

impl<L> Default for Slots<L> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<L> LoadView for Slots<L> {
    fn in_flight(&self, instance: InstanceId) -> u32 {
        self.get(instance).map_or(0, |slot| slot.in_flight)
    }

    fn last_used(&self, instance: InstanceId) -> Time {
        self.get(instance).map_or(Time::default(), |slot| slot.last_used)
    }
}

impl<L> Slots<L> {
    fn place(&self, instance: InstanceId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&instance, |slot| slot.instance)
    }

    fn get(&self, instance: InstanceId) -> Option<&Slot<L>> {
        self.place(instance).ok().map(|at| &self.0[at])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<L>> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Pinned instances at which there is nothing else that counts.
    pub(crate) fn pinned_only(&self) -> u32 {
        self.0.iter().filter(|slot| slot.pinned && slot.in_flight == slot.silent).count() as u32
    }

    /// Something is about to be sent to an instance: whether that is the first, to one that a key could still claim.
    pub(crate) fn is_first(&mut self, instance: InstanceId) -> bool {
        let at = self.place(instance);
        at.is_ok_and(|at| std::mem::take(&mut self.0[at].untouched))
    }

    /// An instance in the table, for what it answers.
    pub(crate) fn listed(&mut self, instance: InstanceId) -> Option<&mut Slot<L>> {
        let at = self.place(instance).ok()?;
        Some(&mut self.0[at]).filter(|slot| slot.absent_since.is_none())
    }

    /// An answer begins; says whether the engine was told that none came.
    pub(crate) fn answers(&mut self, instance: InstanceId) -> bool {
        self.place(instance).is_ok_and(|at| self.0[at].silence.answers())
    }

    /// An answer that had begun has ended, also of one that has left the table.
    pub(crate) fn answered(&mut self, instance: InstanceId) {
        if let Ok(at) = self.place(instance) {
            self.0[at].silence.answered();
        }
    }

    /// Counts a request in; one that is nobody's does not `count` as use.
    pub(crate) fn enter(&mut self, instance: InstanceId, counts: bool, now: Time) -> Option<Arc<L>> {
        let at = self.place(instance).ok()?;
        let slot = &mut self.0[at];
        slot.in_flight += 1;
        match counts {
            true => slot.touch(now),
            false => slot.silent += 1,
        }
        Some(Arc::clone(&slot.link))
    }

    /// Counts a request out: `None` if the instance is not known, else the generation to quiesce it with if that was
    /// its last.
    pub(crate) fn exit(
        &mut self,
        instance: InstanceId,
        counts: bool,
        now: Time,
    ) -> Option<Option<Generation>> {
        let at = self.place(instance).ok()?;
        let slot = &mut self.0[at];
        slot.in_flight = slot.in_flight.saturating_sub(1);
        match counts {
            true => slot.touch(now),
            false => slot.silent = slot.silent.saturating_sub(1),
        }
        let quiesced = slot.absent_since.filter(|_| slot.is_empty());
        if quiesced.is_some() {
            self.0.remove(at);
        }
        Some(quiesced)
    }

    /// The instance that a stay is at or would be at: any of these that takes requests of everyone who comes to the
    /// service, which may be one for a `key`. What a key could still claim is spared.
    pub(crate) fn open_instance<'a>(
        &self,
        instances: &'a [InstanceRoute],
        key: Option<u64>,
    ) -> Option<&'a InstanceRoute> {
        let rank = |i: &InstanceRoute| {
            let slot = self.get(i.instance)?;
            let spared = i.access == Access::Unclaimed;
            let rank = (slot.pinned, !spared, slot.last_used, std::cmp::Reverse(i.instance));
            admits(i.access, key).then_some(rank)
        };
        let ranked = instances.iter().filter_map(|i| Some((rank(i)?, i)));
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, instance)| instance)
    }

    /// Keeps an instance in use.
    pub(crate) fn pin(&mut self, instance: InstanceId, now: Time) {
        if let Ok(at) = self.place(instance) {
            self.0[at].pinned = true;
            self.0[at].touch(now);
        }
    }

    /// Lets all pinned instances be; gives those that are gone and empty.
    pub(crate) fn unpin(&mut self, now: Time) -> Vec<(InstanceId, Generation)> {
        let mut quiesced = Vec::new();
        self.0.retain_mut(|slot| {
            if std::mem::take(&mut slot.pinned) {
                slot.touch(now);
            }
            let over = slot.absent_since.filter(|_| slot.is_empty());
            quiesced.extend(over.map(|generation| (slot.instance, generation)));
            over.is_none()
        });
        quiesced
    }

    /// Says whether that is new, and about the instance as it is reached now.
    pub(crate) fn set_shunned(&mut self, instance: InstanceId, link: &Arc<L>, shunned: bool) -> bool {
        let Ok(at) = self.place(instance) else { return false };
        let slot = &mut self.0[at];
        let is_news = slot.is(link) && slot.shunned != shunned;
        if is_news {
            slot.shunned = shunned;
        }
        is_news
    }

    pub(crate) fn is_shunned(&self, instance: InstanceId, link: &Arc<L>) -> bool {
        self.get(instance).is_some_and(|slot| slot.shunned && slot.is(link))
    }

    /// A route without the instances that are left alone: what is picked from.
    pub(crate) fn choice(&self, route: Option<&Arc<ServiceRoute>>) -> Option<Arc<ServiceRoute>> {
        let shunned = |i: &InstanceRoute| self.get(i.instance).is_some_and(|slot| slot.shunned);
        let route = route?;
        if !route.instances.iter().any(shunned) {
            return Some(Arc::clone(route));
        }
        let mut rest = ServiceRoute::clone(route);
        rest.instances.retain(|i| !shunned(i));
        Some(Arc::new(rest))
    }

    /// The loads of instances that have changed since the last call.
    pub(crate) fn tell(&mut self, loads: &mut Vec<InstanceLoad>) {
        for slot in self.0.iter_mut().filter(|slot| slot.changed) {
            slot.changed = false;
            loads.push(slot.load());
        }
    }

    /// All loads have to be told again: more than need be, and right, for gauges may be told twice.
    pub(crate) fn untold(&mut self) {
        for slot in &mut self.0 {
            slot.changed = true;
        }
    }
}

impl<L: Link> Slots<L> {
    /// Brings the slots in line with a route; gives those that are gone and empty already, and whether any came.
    pub(crate) fn settle(
        &mut self,
        route: Option<&ServiceRoute>,
        generation: Generation,
    ) -> (Vec<InstanceId>, bool) {
        let instances = route.map_or(&[][..], |route| &route.instances);
        let mut came = false;
        for instance in instances {
            came |= self.keep(instance);
        }
        let mut present: Vec<_> = instances.iter().map(|i| i.instance).collect();
        present.sort_unstable();
        let mut quiesced = Vec::new();
        self.0.retain_mut(|slot| {
            if present.binary_search(&slot.instance).is_ok() {
                return true;
            }
            slot.absent_since.get_or_insert(generation);
            slot.link.close();
            if slot.is_empty() {
                quiesced.push(slot.instance);
            }
            !slot.is_empty()
        });
        (quiesced, came)
    }

    /// Says whether it is new here.
    fn keep(&mut self, route: &InstanceRoute) -> bool {
        match self.place(route.instance) {
            Ok(at) => {
                let slot = &mut self.0[at];
                if slot.link.address() != route.address || slot.absent_since.is_some() {
                    slot.link.close();
                    slot.link = Arc::new(L::to(route.address));
                    slot.shunned = false;
                    slot.silence.forget();
                }
                slot.absent_since = None;
                slot.untouched &= route.access == Access::Unclaimed;
                false
            }
            Err(at) => {
                let slot = Slot {
                    instance: route.instance,
                    link: Arc::new(L::to(route.address)),
                    in_flight: 0,
                    silent: 0,
                    pinned: false,
                    last_used: Time::default(),
                    absent_since: None,
                    shunned: false,
                    untouched: route.access == Access::Unclaimed,
                    silence: Silence::default(),
                    // Told as empty: a load told before it left the table may reach the engine after the word that
                    // it has quiesced, and would stand for ever once the instance is back.
                    changed: true,
                };
                self.0.insert(at, slot);
                true
            }
        }
    }
}
