//! A router's counters and queue, by the rules of the live one: its services' state is the same plain data without
//! sockets, and what it picks and admits is decided by the same functions of `forerun-route`.

use forerun_route::{LoadView, Pick, admit_hold, pick};
use forerun_types::{
    Activity, Event, Finished, Generation, InstanceId, InstanceLoad, RouteTable, RouterId, ServiceId,
    ServiceLoad, ServiceRoute, Span, Time, Traffic, UserKey,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// An instance that requests may be at: until it is both absent from the table and empty.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    in_flight: u32,
    last_used: Time,
    absent_since: Option<Generation>,
    shunned: bool,
    changed: bool,
}

#[derive(Clone, Debug, Default)]
struct Slots(BTreeMap<InstanceId, Slot>);

impl LoadView for Slots {
    fn in_flight(&self, instance: InstanceId) -> u32 {
        self.0.get(&instance).map_or(0, |slot| slot.in_flight)
    }
    fn last_used(&self, instance: InstanceId) -> Time {
        self.0.get(&instance).map_or(Time::default(), |slot| slot.last_used)
    }
}

/// A request that is held.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    ticket: u64,
    request: u32,
}

#[derive(Clone, Debug, Default)]
struct Service {
    route: Option<Arc<ServiceRoute>>,
    choice: Option<Arc<ServiceRoute>>,
    slots: Slots,
    queue: VecDeque<Waiter>,
    in_flight: u32,
    peak: u32,
    changed: bool,
}

/// What a router did.
#[derive(Clone, Debug)]
pub(crate) enum Did {
    /// A request was handed to an instance.
    Sent { request: u32, instance: InstanceId },
    /// A request is held.
    Held { request: u32 },
    /// A request was answered by the router itself.
    Refused { request: u32, why: &'static str },
    /// Something for the engine.
    Told(Event),
}

/// A router.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    pub id: RouterId,
    pub generation: Generation,
    services: BTreeMap<ServiceId, Service>,
    tickets: BTreeMap<u32, u64>,
    next_ticket: u64,
    activities: Vec<Activity>,
    finished: Vec<Finished>,
    lost: u64,
}

impl Service {
    fn waiting(&self) -> u32 {
        self.queue.len() as u32
    }

    fn moved(&mut self) {
        self.peak = self.peak.max(self.in_flight + self.waiting());
        self.changed = true;
    }

    fn enter(&mut self, instance: InstanceId, now: Time) {
        if let Some(slot) = self.slots.0.get_mut(&instance) {
            slot.in_flight += 1;
            slot.last_used = slot.last_used.max(now);
            slot.changed = true;
        }
        self.in_flight += 1;
        self.moved();
    }

    fn exit(&mut self, instance: InstanceId, now: Time) -> Option<Generation> {
        let slot = self.slots.0.get_mut(&instance)?;
        slot.in_flight = slot.in_flight.saturating_sub(1);
        slot.last_used = slot.last_used.max(now);
        slot.changed = true;
        let quiesced = slot.absent_since.filter(|_| slot.in_flight == 0);
        if quiesced.is_some() {
            self.slots.0.remove(&instance);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.moved();
        quiesced
    }

    fn choose(&mut self) {
        let shunned = |i: InstanceId| self.slots.0.get(&i).is_some_and(|slot| slot.shunned);
        self.choice = self.route.as_ref().map(|route| {
            let mut rest = ServiceRoute::clone(route);
            rest.instances.retain(|i| !shunned(i.instance));
            Arc::new(rest)
        });
    }

    /// Brings the slots in line with a route; gives those that are gone and empty already.
    fn settle(&mut self, route: Option<&ServiceRoute>, generation: Generation) -> Vec<InstanceId> {
        let listed: Vec<InstanceId> =
            route.map_or(&[][..], |r| &r.instances).iter().map(|i| i.instance).collect();
        for instance in &listed {
            let slot = self.slots.0.entry(*instance).or_default();
            if slot.absent_since.take().is_some() {
                slot.shunned = false;
            }
        }
        let mut quiesced = Vec::new();
        self.slots.0.retain(|instance, slot| {
            if listed.contains(instance) {
                return true;
            }
            slot.absent_since.get_or_insert(generation);
            if slot.in_flight == 0 {
                quiesced.push(*instance);
            }
            slot.in_flight > 0
        });
        quiesced
    }
}

impl Router {
    #[must_use]
    pub(crate) fn new(id: RouterId) -> Self {
        Self {
            id,
            generation: Generation(0),
            services: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            activities: Vec::new(),
            finished: Vec::new(),
            lost: 0,
        }
    }

    /// Requests at an instance now.
    #[must_use]
    pub(crate) fn in_flight(&self, instance: InstanceId) -> u32 {
        self.services.values().map(|s| s.slots.in_flight(instance)).sum()
    }

    /// Puts a table in use; false where it is older than the one in use.
    pub(crate) fn table(&mut self, table: &RouteTable, now: Time, did: &mut Vec<Did>) -> bool {
        if table.generation < self.generation {
            return false;
        }
        self.generation = table.generation;
        let ids: Vec<ServiceId> =
            self.services.keys().copied().chain(table.services.iter().map(|s| s.spec.id)).collect();
        for id in ids {
            let route = table.service(id).cloned();
            let service = self.services.entry(id).or_default();
            if service.route.is_some() == route.is_some()
                && let (Some(old), Some(new)) = (&service.route, &route)
                && Arc::ptr_eq(old, new)
            {
                continue;
            }
            for instance in service.settle(route.as_deref(), table.generation) {
                did.push(Did::Told(Event::Quiesced {
                    router: self.id,
                    instance,
                    generation: table.generation,
                }));
            }
            service.route = route;
            service.choose();
            self.dispatch(id, now, did);
        }
        true
    }

    /// A request comes.
    pub(crate) fn admit(
        &mut self,
        request: u32,
        service: ServiceId,
        user: UserKey,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        self.next_ticket += 1;
        self.tickets.insert(request, self.next_ticket);
        self.activities.push(Activity {
            at: now,
            tenant: forerun_types::TenantKey(0),
            user,
            group: forerun_types::GroupKey(0),
            site: forerun_types::SiteId(0),
            service,
            action: forerun_types::ActionKey(1),
        });
        let is_first = self.services.get(&service).is_none_or(|s| s.queue.is_empty());
        self.place(request, service, user, now, is_first, did);
    }

    /// A request comes back that its instance did not take: the instance is left alone from now on.
    pub(crate) fn put_back(
        &mut self,
        request: u32,
        service: ServiceId,
        instance: InstanceId,
        user: UserKey,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        if let Some(s) = self.services.get_mut(&service) {
            if let Some(slot) = s.slots.0.get_mut(&instance).filter(|slot| slot.absent_since.is_none()) {
                slot.shunned = true;
            }
            if let Some(generation) = s.exit(instance, now) {
                did.push(Did::Told(Event::Quiesced { router: self.id, instance, generation }));
            }
            s.choose();
        }
        self.place(request, service, user, now, true, did);
    }

    fn place(
        &mut self,
        request: u32,
        service: ServiceId,
        user: UserKey,
        now: Time,
        may_go: bool,
        did: &mut Vec<Did>,
    ) {
        let (router, ticket) = (self.id, self.tickets.get(&request).copied().unwrap_or(0));
        let Some(s) = self.services.get_mut(&service) else {
            return did.push(Did::Refused { request, why: "no such service" });
        };
        let Some(choice) = s.choice.clone() else {
            return did.push(Did::Refused { request, why: "the service is gone" });
        };
        if may_go {
            match pick(&choice, &s.slots, None, ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                Pick::Use(instance) => {
                    s.enter(instance.instance, now);
                    return did.push(Did::Sent { request, instance: instance.instance });
                }
                Pick::Hold => {}
                Pick::Refuse(_) => return did.push(Did::Refused { request, why: "unavailable" }),
            }
        }
        if admit_hold(&choice.spec.hold, s.waiting(), 0, 1).is_err() {
            return did.push(Did::Refused { request, why: "too many are held" });
        }
        let at = s.queue.partition_point(|other| other.ticket < ticket);
        s.queue.insert(at, Waiter { ticket, request });
        s.moved();
        did.push(Did::Held { request });
        did.push(Did::Told(Event::Waiting { router, service, user, waiting: s.waiting() }));
    }

    fn dispatch(&mut self, service: ServiceId, now: Time, did: &mut Vec<Did>) {
        let router = self.id;
        let Some(s) = self.services.get_mut(&service) else { return };
        while let Some(first) = s.queue.front().copied() {
            let Some(choice) = s.choice.clone() else { break };
            match pick(&choice, &s.slots, None, first.ticket) {
                Pick::Use(instance) => {
                    s.queue.pop_front();
                    s.enter(instance.instance, now);
                    did.push(Did::Sent { request: first.request, instance: instance.instance });
                }
                Pick::Hold => return,
                Pick::Refuse(_) => break,
            }
        }
        if !s.queue.is_empty() {
            for waiter in s.queue.drain(..) {
                did.push(Did::Refused { request: waiter.request, why: "unavailable" });
            }
            s.moved();
            did.push(Did::Told(Event::Abandoned { router, service, waiting: 0 }));
        }
    }

    /// A request has left its instance, answered or not.
    pub(crate) fn release(
        &mut self,
        service: ServiceId,
        instance: InstanceId,
        done: Option<Span>,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        let router = self.id;
        if let Some(duration) = done {
            self.finished.push(Finished {
                service,
                action: forerun_types::ActionKey(1),
                instance,
                duration,
                held: Span::ZERO,
                network_bytes: 100,
                status: 200,
            });
        }
        let Some(s) = self.services.get_mut(&service) else { return };
        if let Some(generation) = s.exit(instance, now) {
            did.push(Did::Told(Event::Quiesced { router, instance, generation }));
        }
        self.dispatch(service, now, did);
    }

    /// A held request's client went away, or its time ran out.
    pub(crate) fn abandon(&mut self, request: u32, service: ServiceId, did: &mut Vec<Did>) {
        let router = self.id;
        let Some(s) = self.services.get_mut(&service) else { return };
        let before = s.queue.len();
        s.queue.retain(|w| w.request != request);
        if s.queue.len() != before {
            s.moved();
            did.push(Did::Told(Event::Abandoned { router, service, waiting: s.waiting() }));
        }
    }

    /// An instance that was left alone accepts connections.
    pub(crate) fn welcome(
        &mut self,
        service: ServiceId,
        instance: InstanceId,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        let Some(s) = self.services.get_mut(&service) else { return };
        if let Some(slot) = s.slots.0.get_mut(&instance) {
            slot.shunned = false;
            s.choose();
            self.dispatch(service, now, did);
        }
    }

    /// Whether an instance is left alone, and still in the table.
    #[must_use]
    pub(crate) fn shuns(&self, service: ServiceId, instance: InstanceId) -> bool {
        let slot = self.services.get(&service).and_then(|s| s.slots.0.get(&instance));
        slot.is_some_and(|slot| slot.shunned && slot.absent_since.is_none())
    }

    /// Whether there is something for a batch.
    #[must_use]
    pub(crate) fn has_news(&self) -> bool {
        !self.activities.is_empty() || !self.finished.is_empty() || self.services.values().any(|s| s.changed)
    }

    /// A batch, or with no room for it only the count of what is lost.
    pub(crate) fn batch(&mut self, room: bool) -> Option<Traffic> {
        let activities = std::mem::take(&mut self.activities);
        let finished = std::mem::take(&mut self.finished);
        if !room {
            self.lost += (activities.len() + finished.len()) as u64;
            return None;
        }
        let mut traffic = Traffic {
            router: self.id,
            activities,
            finished,
            lost: std::mem::take(&mut self.lost),
            ..Traffic::default()
        };
        for (id, s) in self.services.iter_mut().filter(|(_, s)| s.changed) {
            s.changed = false;
            let (in_flight, waiting) = (s.in_flight, s.queue.len() as u32);
            let peak = std::mem::replace(&mut s.peak, in_flight + waiting);
            traffic.services.push(ServiceLoad { service: *id, in_flight, peak, waiting });
            for (instance, slot) in s.slots.0.iter_mut().filter(|(_, slot)| slot.changed) {
                slot.changed = false;
                traffic.instances.push(InstanceLoad {
                    instance: *instance,
                    in_flight: slot.in_flight,
                    last_used: slot.last_used,
                });
            }
        }
        Some(traffic)
    }

    /// After it was cut off: who waits, and all gauges anew.
    pub(crate) fn rejoin(&mut self, did: &mut Vec<Did>) {
        let router = self.id;
        did.push(Did::Told(Event::RouterJoined(router)));
        for (&service, s) in &mut self.services {
            s.changed = true;
            s.slots.0.values_mut().for_each(|slot| slot.changed = true);
            if !s.queue.is_empty() {
                let user = UserKey::NOBODY;
                did.push(Did::Told(Event::Waiting { router, service, user, waiting: s.waiting() }));
            }
        }
    }
}
