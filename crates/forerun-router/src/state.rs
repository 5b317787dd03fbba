//! A service's instances and its queue: the plain data under the service's lock.

use crate::fault::Fault;
use crate::service::Place;
use crate::stats::Tally;
use crate::upstream::Pool;
use forerun_route::LoadView;
use forerun_types::{Generation, InstanceId, InstanceLoad, InstanceRoute, ServiceRoute, Time};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// An instance that requests may be at. It stays until it is both absent from the table and empty.
pub(crate) struct Slot {
    pub(crate) instance: InstanceId,
    pub(crate) pool: Arc<Pool>,
    pub(crate) in_flight: u32,
    pub(crate) last_used: Time,
    /// The first table that lacked it.
    pub(crate) absent_since: Option<Generation>,
    changed: bool,
}

impl Slot {
    pub(crate) fn load(&self) -> InstanceLoad {
        InstanceLoad { instance: self.instance, in_flight: self.in_flight, last_used: self.last_used }
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
    pub(crate) grant: oneshot::Sender<Result<Place, Fault>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// What the current table says; `None` once it says nothing.
    pub(crate) route: Option<Arc<ServiceRoute>>,
    pub(crate) slots: Slots,
    /// First come, first served. While anyone waits here, no instance is free.
    pub(crate) queue: VecDeque<Waiter>,
    pub(crate) held_bytes: u64,
    pub(crate) tickets: u64,
    pub(crate) in_flight: u32,
    pub(crate) peak: u32,
    pub(crate) tally: Tally,
    /// Gauges have changed since they were told.
    pub(crate) changed: bool,
    /// The batch knows that they have.
    pub(crate) listed: bool,
}

impl State {
    pub(crate) fn waiting(&self) -> u32 {
        // `hold.requests_max` is a u32.
        self.queue.len() as u32
    }

    fn moved(&mut self) {
        self.peak = self.peak.max(self.in_flight + self.waiting());
        self.changed = true;
    }

    /// Counts a request at an instance that has just been picked.
    pub(crate) fn enter(&mut self, instance: InstanceId, now: Time) -> Option<Arc<Pool>> {
        let at = self.slots.place(instance).ok()?;
        let slot = &mut self.slots.0[at];
        slot.in_flight += 1;
        slot.touch(now);
        let pool = Arc::clone(&slot.pool);
        self.in_flight += 1;
        self.moved();
        Some(pool)
    }

    /// A request is no longer at its instance; gives the generation to quiesce it with if that was the last.
    pub(crate) fn exit(&mut self, instance: InstanceId, now: Time) -> Option<Generation> {
        let at = self.slots.place(instance).ok()?;
        let slot = &mut self.slots.0[at];
        slot.in_flight = slot.in_flight.saturating_sub(1);
        slot.touch(now);
        let quiesced = slot.absent_since.filter(|_| slot.in_flight == 0);
        if quiesced.is_some() {
            self.slots.0.remove(at);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.moved();
        quiesced
    }

    pub(crate) fn push(&mut self, waiter: Waiter) {
        self.held_bytes += waiter.bytes;
        self.queue.push_back(waiter);
        self.tally.cold_starts += 1;
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
            if slot.in_flight == 0 {
                quiesced.push(slot.instance);
            }
            slot.in_flight > 0
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
                }
                slot.absent_since = None;
            }
            Err(at) => self.slots.0.insert(
                at,
                Slot {
                    instance: route.instance,
                    pool: Arc::new(Pool::new(route.address)),
                    in_flight: 0,
                    last_used: Time::default(),
                    absent_since: None,
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
