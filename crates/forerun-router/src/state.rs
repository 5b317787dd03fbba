//! A service's instances and its queue: the plain data under the service's lock.

use crate::fault::Fault;
use crate::service::Place;
use crate::stats::Tally;
use crate::stay::Stay;
use crate::upstream::Pool;
use forerun_route::LoadView;
use forerun_types::{Access, Generation, InstanceId, InstanceLoad, InstanceRoute, ServiceRoute, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// An instance that requests may be at. It stays until it is both absent from the table and empty.
pub(crate) struct Slot {
    pub(crate) instance: InstanceId,
    pub(crate) pool: Arc<Pool>,
    pub(crate) in_flight: u32,
    /// Of those, how many are nobody's: they are let end, and count as no use.
    silent: u32,
    /// Kept in use by a [`crate::stay`], at no place of its own.
    pinned: bool,
    pub(crate) last_used: Time,
    /// The first table that lacked it.
    pub(crate) absent_since: Option<Generation>,
    /// It did not take a request: no other is sent there until it accepts a connection, or has another address.
    shunned: bool,
    changed: bool,
}

impl Slot {
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
}

/// In order of ids.
#[derive(Default)]
pub(crate) struct Slots(pub(crate) Vec<Slot>);

impl Slots {
    fn place(&self, instance: InstanceId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&instance, |slot| slot.instance)
    }

    fn get(&self, instance: InstanceId) -> Option<&Slot> {
        self.place(instance).ok().map(|at| &self.0[at])
    }
}

impl LoadView for Slots {
    fn in_flight(&self, instance: InstanceId) -> u32 {
        self.get(instance).map_or(0, |slot| slot.in_flight)
    }

    fn last_used(&self, instance: InstanceId) -> Time {
        self.get(instance).map_or(Time::default(), |slot| slot.last_used)
    }
}

/// A held request.
pub(crate) struct Waiter {
    pub(crate) ticket: u64,
    pub(crate) bytes: u64,
    pub(crate) since: Time,
    /// It has been held before, and counts as a cold start already.
    pub(crate) again: bool,
    pub(crate) grant: oneshot::Sender<Result<Place, Fault>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// What the current table says; `None` once it says nothing.
    pub(crate) route: Option<Arc<ServiceRoute>>,
    /// The same without the instances that are shunned: what is picked from.
    pub(crate) choice: Option<Arc<ServiceRoute>>,
    pub(crate) slots: Slots,
    /// In order of tickets: first come, first served. While anyone waits here, no instance is free.
    pub(crate) queue: VecDeque<Waiter>,
    pub(crate) held_bytes: u64,
    tickets: u64,
    /// The router is at its end: nobody is held any more.
    pub(crate) closing: bool,
    /// At all instances; those that are nobody's are left out.
    pub(crate) in_flight: u32,
    pub(crate) peak: u32,
    pub(crate) tally: Tally,
    pub(crate) stay: Stay,
    /// Gauges have changed since they were told.
    pub(crate) changed: bool,
    /// The batch knows that they have.
    pub(crate) listed: bool,
}

impl State {
    /// Who waits: a stay needs one instance, which those who are held find too.
    pub(crate) fn waiting(&self) -> u32 {
        // `hold.requests_max` is a u32.
        (self.queue.len() as u32).max(u32::from(self.stay.waits_since.is_some()))
    }

    /// Requests at instances, and pinned instances without any.
    pub(crate) fn in_use(&self) -> u32 {
        let pinned = self.slots.0.iter().filter(|slot| slot.pinned && slot.in_flight == slot.silent).count();
        self.in_flight + pinned as u32
    }

    /// A request's place in the order of arrivals.
    pub(crate) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(crate) fn moved(&mut self) {
        self.peak = self.peak.max(self.in_use() + self.waiting());
        self.changed = true;
    }

    /// Counts a request at an instance that has just been picked; one that is nobody's does not `count` as use.
    pub(crate) fn enter(&mut self, instance: InstanceId, counts: bool, now: Time) -> Option<Arc<Pool>> {
        let at = self.slots.place(instance).ok()?;
        let slot = &mut self.slots.0[at];
        slot.in_flight += 1;
        let pool = Arc::clone(&slot.pool);
        if counts {
            slot.touch(now);
            self.in_flight += 1;
            self.moved();
        } else {
            slot.silent += 1;
        }
        Some(pool)
    }

    /// A request is no longer at its instance; gives the generation to quiesce it with if that was the last.
    pub(crate) fn exit(&mut self, instance: InstanceId, counts: bool, now: Time) -> Option<Generation> {
        let at = self.slots.place(instance).ok()?;
        let slot = &mut self.slots.0[at];
        slot.in_flight = slot.in_flight.saturating_sub(1);
        if counts {
            slot.touch(now);
            self.in_flight = self.in_flight.saturating_sub(1);
        } else {
            slot.silent = slot.silent.saturating_sub(1);
        }
        let quiesced = slot.absent_since.filter(|_| slot.is_empty());
        if quiesced.is_some() {
            self.slots.0.remove(at);
        }
        if counts {
            self.moved();
        }
        quiesced
    }

    /// The instance that a stay is at or would be at: any that takes requests of everyone.
    pub(crate) fn open_instance(&self) -> Option<InstanceRoute> {
        let rank = |i: &InstanceRoute| {
            let slot = self.slots.get(i.instance)?;
            let open = matches!(i.access, Access::Any | Access::Unclaimed);
            open.then_some((slot.pinned, slot.last_used, std::cmp::Reverse(i.instance)))
        };
        let instances = self.choice.iter().flat_map(|route| &route.instances);
        let ranked = instances.filter_map(|i| Some((rank(i)?, i)));
        ranked.max_by_key(|(rank, _)| *rank).map(|(_, instance)| instance.clone())
    }

    /// Keeps a ready instance in use, the one that is already if it can; gives its address.
    pub(crate) fn pin(&mut self, now: Time) -> Option<SocketAddr> {
        let best = self.open_instance()?;
        let at = self.slots.place(best.instance).ok()?;
        self.slots.0[at].pinned = true;
        self.slots.0[at].touch(now);
        self.moved();
        Some(best.address)
    }

    /// Lets all pinned instances be; gives those that are gone and empty.
    pub(crate) fn unpin(&mut self, now: Time) -> Vec<(InstanceId, Generation)> {
        let mut quiesced = Vec::new();
        self.slots.0.retain_mut(|slot| {
            if std::mem::take(&mut slot.pinned) {
                slot.touch(now);
            }
            let over = slot.absent_since.filter(|_| slot.is_empty());
            quiesced.extend(over.map(|generation| (slot.instance, generation)));
            over.is_none()
        });
        self.moved();
        quiesced
    }

    /// Whether a request would find neither an instance nor anyone who waits for one already.
    pub(crate) fn is_asleep(&self) -> bool {
        let route = self.route.as_ref();
        route.is_some_and(|r| r.instances.is_empty() && r.unavailable.is_none()) && self.waiting() == 0
    }

    /// At the end, but for a request that was at an instance already and goes back to where it was.
    pub(crate) fn push(&mut self, waiter: Waiter) {
        self.held_bytes += waiter.bytes;
        self.tally.cold_starts += u64::from(!waiter.again);
        let at = self.queue.partition_point(|other| other.ticket < waiter.ticket);
        self.queue.insert(at, waiter);
        self.moved();
    }

    pub(crate) fn pop(&mut self, now: Time) -> Option<Waiter> {
        let waiter = self.queue.pop_front()?;
        self.left_queue(&waiter, now);
        Some(waiter)
    }

    /// Takes a waiter out of turn.
    pub(crate) fn remove(&mut self, ticket: u64, now: Time) -> Option<Waiter> {
        let at = self.queue.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        let waiter = self.queue.remove(at)?;
        self.left_queue(&waiter, now);
        Some(waiter)
    }

    fn left_queue(&mut self, waiter: &Waiter, now: Time) {
        self.held_bytes = self.held_bytes.saturating_sub(waiter.bytes);
        self.tally.held_for(now.since(waiter.since));
        self.moved();
    }

    /// Leaves an instance alone as long as it is found at this pool; says whether that is new.
    pub(crate) fn shun(&mut self, instance: InstanceId, pool: &Arc<Pool>) -> bool {
        self.set_shunned(instance, pool, true)
    }

    /// The instance may be picked again; says whether that is new.
    pub(crate) fn unshun(&mut self, instance: InstanceId, pool: &Arc<Pool>) -> bool {
        self.set_shunned(instance, pool, false)
    }

    fn set_shunned(&mut self, instance: InstanceId, pool: &Arc<Pool>, shunned: bool) -> bool {
        let Ok(at) = self.slots.place(instance) else { return false };
        let slot = &mut self.slots.0[at];
        let is_it = slot.absent_since.is_none() && Arc::ptr_eq(&slot.pool, pool);
        if !is_it || slot.shunned == shunned {
            return false;
        }
        slot.shunned = shunned;
        self.choose();
        true
    }

    pub(crate) fn is_shunned(&self, instance: InstanceId, pool: &Arc<Pool>) -> bool {
        let slot = self.slots.get(instance);
        slot.is_some_and(|slot| slot.shunned && slot.absent_since.is_none() && Arc::ptr_eq(&slot.pool, pool))
    }

    pub(crate) fn set_route(&mut self, route: Option<Arc<ServiceRoute>>) {
        self.route = route;
        self.choose();
    }

    fn choose(&mut self) {
        let shunned = |i: &InstanceRoute| self.slots.get(i.instance).is_some_and(|slot| slot.shunned);
        self.choice = match &self.route {
            Some(route) if route.instances.iter().any(shunned) => {
                let mut rest = ServiceRoute::clone(route);
                rest.instances.retain(|i| !shunned(i));
                Some(Arc::new(rest))
            }
            route => route.clone(),
        };
    }

    /// Brings the slots in line with a route; gives those that are gone and empty already.
    pub(crate) fn settle(&mut self, route: Option<&ServiceRoute>, generation: Generation) -> Vec<InstanceId> {
        let instances = route.map_or(&[][..], |route| &route.instances);
        for instance in instances {
            self.keep(instance);
        }
        let mut present: Vec<_> = instances.iter().map(|i| i.instance).collect();
        present.sort_unstable();
        let mut quiesced = Vec::new();
        self.slots.0.retain_mut(|slot| {
            if present.binary_search(&slot.instance).is_ok() {
                return true;
            }
            slot.absent_since.get_or_insert(generation);
            slot.pool.close();
            if slot.is_empty() {
                quiesced.push(slot.instance);
            }
            !slot.is_empty()
        });
        quiesced
    }

    fn keep(&mut self, route: &InstanceRoute) {
        match self.slots.place(route.instance) {
            Ok(at) => {
                let slot = &mut self.slots.0[at];
                if slot.pool.address() != route.address || slot.absent_since.is_some() {
                    slot.pool.close();
                    slot.pool = Arc::new(Pool::new(route.address));
                    slot.shunned = false;
                }
                slot.absent_since = None;
            }
            Err(at) => self.slots.0.insert(
                at,
                Slot {
                    instance: route.instance,
                    pool: Arc::new(Pool::new(route.address)),
                    in_flight: 0,
                    silent: 0,
                    pinned: false,
                    last_used: Time::default(),
                    absent_since: None,
                    shunned: false,
                    changed: false,
                },
            ),
        }
    }

    /// The loads of instances that have changed since the last call.
    pub(crate) fn tell_instances(&mut self, loads: &mut Vec<InstanceLoad>) {
        for slot in self.slots.0.iter_mut().filter(|slot| slot.changed) {
            slot.changed = false;
            loads.push(slot.load());
        }
    }

    pub(crate) fn untold_instances(&mut self) {
        // More than need be, and right: gauges may be told twice.
        for slot in &mut self.slots.0 {
            slot.changed = true;
        }
    }
}
