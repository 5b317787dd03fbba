//! A router without sockets: its services are the live one's own queues, and this hands on what they tell and whom
//! they send.

use forerun_route::{
    Admission, Asking, Effects, HoldRefusal, Link, Queue, Refusal, Reply, Seat, Spot, Waitlist,
    WaitlistLimits,
};
use forerun_types::{
    Activity, Event, Finished, Generation, InstanceId, Mode, RouteTable, RouterId, ServiceId, Span, Time,
    Traffic, UserKey, Variant,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// How long a request waits for what becomes of its key, and when a key without a variant is told again: as the live
/// router has it.
pub(crate) const KEY_DECIDED_WITHIN: Span = Span::from_millis(250);
const KEY_TOLD_AGAIN: Span = Span::from_secs(60);

/// An address is all that there is of a connection.
#[derive(Debug)]
pub(crate) struct Door(SocketAddr);

impl Link for Door {
    fn to(address: SocketAddr) -> Self {
        Self(address)
    }
    fn address(&self) -> SocketAddr {
        self.0
    }
    fn close(&self) {}
}

/// What a router did.
#[derive(Debug)]
pub(crate) enum Did {
    /// A request was handed to an instance.
    Sent { request: u32, instance: InstanceId, address: SocketAddr },
    /// A request is held, for so long at most.
    Held { request: u32, patience: Span },
    /// A request was answered by the router itself.
    Refused { request: u32, why: &'static str },
    /// Something for the engine.
    Told(Event),
}

/// Where a request is with a router.
#[derive(Debug)]
struct Visit {
    asking: Asking,
    /// Whose queue it is in: its key's, if that has one.
    service: ServiceId,
    /// Its place in line, while it is held.
    ticket: Option<u64>,
    /// And among all who are held.
    spot: Option<Spot>,
    seat: Option<Seat<Door>>,
    /// Since when it has that.
    seated: Time,
}

/// Why a request that was at an instance has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    ClientLeft,
    NoAnswer,
}

/// A router.
#[derive(Debug)]
pub(crate) struct Router {
    pub id: RouterId,
    pub generation: Generation,
    services: BTreeMap<ServiceId, Queue<u32, Door>>,
    variants: BTreeMap<(ServiceId, String), ServiceId>,
    /// When keys without a variant were told.
    keys_told: BTreeMap<(ServiceId, String), Time>,
    visits: BTreeMap<u32, Visit>,
    /// Everyone who is held, whatever for: the request's service and ticket.
    waitlist: Waitlist<(ServiceId, u64)>,
    limits: WaitlistLimits,
    draws: u64,
    activities: Vec<Activity>,
    finished: Vec<Finished>,
    lost: u64,
}

/// The next of a well-mixed sequence (SplitMix64), as the live router draws.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn why(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Gone => "the service is gone",
        Refusal::Closing => "the router is at its end",
        Refusal::Unavailable { .. } => "unavailable",
        Refusal::Hold { limit: HoldRefusal::MadeWay(_), .. } => "made way",
        Refusal::Hold { .. } => "too many are held",
    }
}

impl Router {
    #[must_use]
    pub(crate) fn new(id: RouterId, limits: WaitlistLimits) -> Self {
        Self {
            id,
            generation: Generation(0),
            services: BTreeMap::new(),
            variants: BTreeMap::new(),
            keys_told: BTreeMap::new(),
            visits: BTreeMap::new(),
            waitlist: Waitlist::new(limits),
            limits,
            draws: 0,
            activities: Vec::new(),
            finished: Vec::new(),
            lost: 0,
        }
    }

    /// The bounds on all that it holds.
    #[must_use]
    pub(crate) fn limits(&self) -> WaitlistLimits {
        self.limits
    }

    /// What does not hold of the room for those who are held.
    #[must_use]
    pub(crate) fn miscounts(&self) -> Option<String> {
        let listed = self.waitlist.requests();
        let held: u32 = self.services.values().map(Queue::held).sum();
        let over =
            listed > self.limits.requests_max as usize || self.waitlist.bytes() > self.limits.bytes_max;
        (listed != held as usize || over).then(|| {
            let max = self.limits.requests_max;
            format!("{} holds {held} requests, its waitlist has {listed} and room for {max}", self.id)
        })
    }

    /// Requests at an instance now.
    #[must_use]
    pub(crate) fn in_flight(&self, instance: InstanceId) -> u32 {
        self.services.values().map(|s| s.in_flight_at(instance)).sum()
    }

    /// Puts a table in use; false where it is older than the one in use.
    pub(crate) fn table(&mut self, table: &RouteTable, now: Time, did: &mut Vec<Did>) -> bool {
        if table.generation < self.generation {
            return false;
        }
        self.generation = table.generation;
        let variants = table.services.iter().filter_map(|s| {
            let variant = s.spec.variant.as_ref()?;
            Some(((variant.of, variant.key.clone()), s.spec.id))
        });
        self.variants = variants.collect();
        let ids: Vec<ServiceId> =
            self.services.keys().copied().chain(table.services.iter().map(|s| s.spec.id)).collect();
        for id in ids {
            let route = table.service(id).cloned();
            let queue = self.services.entry(id).or_insert_with(|| Queue::new(self.id, id));
            if let (Some(old), Some(new)) = (queue.route(), &route)
                && Arc::ptr_eq(old, new)
            {
                continue;
            }
            let mut effects = Effects::default();
            queue.set_route(route, table.generation, now, || draw(&mut self.draws), &mut effects);
            if queue.is_over() {
                self.services.remove(&id);
            }
            self.carry_out(effects, now, did);
        }
        true
    }

    /// What a queue led to, in the order of the live router.
    fn carry_out(&mut self, effects: Effects<u32, Door>, now: Time, did: &mut Vec<Did>) {
        did.extend(effects.told.into_iter().map(Did::Told));
        for granted in effects.granted {
            self.seated(granted.waiter, granted.seat, now, did);
        }
    }

    fn seated(&mut self, request: u32, seat: Result<Seat<Door>, Refusal>, now: Time, did: &mut Vec<Did>) {
        match seat {
            Ok(seat) => {
                did.push(Did::Sent { request, instance: seat.instance, address: seat.link.address() });
                if let Some(visit) = self.visits.get_mut(&request) {
                    (visit.seat, visit.seated, visit.ticket) = (Some(seat), now, None);
                    visit.spot.take().iter().for_each(|spot| self.waitlist.leave(spot));
                }
            }
            Err(refusal) => {
                let visit = self.visits.remove(&request);
                visit.and_then(|visit| visit.spot).iter().for_each(|spot| self.waitlist.leave(spot));
                did.push(Did::Refused { request, why: why(&refusal) });
            }
        }
    }

    /// Those who make way for a newcomer are told once it has its place.
    fn push_out(&mut self, pushed: Vec<((ServiceId, u64), HoldRefusal)>, now: Time, did: &mut Vec<Did>) {
        for ((service, ticket), limit) in pushed {
            let Some(queue) = self.services.get_mut(&service) else { continue };
            let mut effects = Effects::default();
            queue.push_out(ticket, limit, now, &mut effects);
            self.carry_out(effects, now, did);
        }
    }

    fn admitted(&mut self, request: u32, admission: Admission<Door, Spot>, now: Time, did: &mut Vec<Did>) {
        match admission {
            Admission::Go(seat) => self.seated(request, Ok(seat), now, did),
            Admission::Refused(refusal) => self.seated(request, Err(refusal), now, did),
            Admission::Held(hold) => {
                if let Some(visit) = self.visits.get_mut(&request) {
                    (visit.ticket, visit.spot) = (Some(hold.ticket), Some(hold.answer));
                }
                did.push(Did::Held { request, patience: hold.patience });
            }
        }
    }

    /// Whether a request with a key waits a moment for what becomes of the key, which is told if it is new.
    pub(crate) fn asks(&mut self, service: ServiceId, key: &str, now: Time, did: &mut Vec<Did>) -> bool {
        let place = (service, key.to_owned());
        let specialises = |queue: &Queue<u32, Door>| {
            queue.route().is_some_and(|r| r.spec.specialise.is_some() && r.spec.mode == Mode::Act)
        };
        if self.variants.contains_key(&place) || !self.services.get(&service).is_some_and(specialises) {
            return false;
        }
        let told = self.keys_told.entry(place).or_insert(Time(0));
        if now >= *told + KEY_TOLD_AGAIN {
            *told = now;
            did.push(Did::Told(Event::KeySeen { service, key: key.to_owned() }));
            return true;
        }
        now < *told + KEY_DECIDED_WITHIN
    }

    /// The queue for a request: its key's, unless it has none or nothing can be served there.
    fn queue_for(&self, service: ServiceId, key: Option<&str>) -> ServiceId {
        let variant = key.and_then(|key| self.variants.get(&(service, key.to_owned())));
        let serves = |id: &&ServiceId| {
            let route = self.services.get(id).and_then(Queue::route);
            route.is_some_and(|r| r.unavailable.is_none() || !r.instances.is_empty())
        };
        variant.filter(serves).copied().unwrap_or(service)
    }

    /// A request comes.
    pub(crate) fn admit(
        &mut self,
        request: u32,
        (service, key): (ServiceId, Option<&str>),
        user: UserKey,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        let service = self.queue_for(service, key);
        let Some(queue) = self.services.get_mut(&service).filter(|queue| queue.route().is_some()) else {
            return did.push(Did::Refused { request, why: "no such service" });
        };
        self.activities.push(Activity {
            at: now,
            tenant: forerun_types::TenantKey(0),
            user,
            group: forerun_types::GroupKey(0),
            site: forerun_types::SiteId(0),
            service,
            action: forerun_types::ActionKey(1),
        });
        let asking = Asking { user, bytes: 1, arrived: now, again: false, key: key.map(Variant::access_key) };
        let (mut effects, mut pushed) = (Effects::default(), Vec::new());
        let waitlist = &mut self.waitlist;
        let hold = |spec: &_, ticket| {
            let joined = waitlist.join(spec, asking.bytes, asking.arrived, (service, ticket))?;
            pushed = joined.pushed;
            Ok((request, joined.spot))
        };
        let admission = queue.admit(asking, now, || draw(&mut self.draws), hold, &mut effects);
        let visit = Visit { asking, service, ticket: None, spot: None, seat: None, seated: now };
        self.visits.insert(request, visit);
        self.carry_out(effects, now, did);
        self.push_out(pushed, now, did);
        self.admitted(request, admission, now, did);
    }

    /// A request comes back that its instance did not take. Gives the door to be
    /// tried from now on, if that is new.
    pub(crate) fn put_back(
        &mut self,
        request: u32,
        now: Time,
        did: &mut Vec<Did>,
    ) -> Option<(ServiceId, Arc<Door>)> {
        let visit = self.visits.get_mut(&request)?;
        let (seat, asking, service) = (visit.seat.take()?, visit.asking, visit.service);
        let queue = self.services.get_mut(&service)?;
        let (mut effects, mut pushed) = (Effects::default(), Vec::new());
        let waitlist = &mut self.waitlist;
        let hold = |spec: &_, ticket| {
            let joined = waitlist.join(spec, asking.bytes, asking.arrived, (service, ticket))?;
            pushed = joined.pushed;
            Ok((request, joined.spot))
        };
        let (admission, is_news) =
            queue.put_back(&seat, asking, now, || draw(&mut self.draws), hold, &mut effects);
        self.carry_out(effects, now, did);
        self.push_out(pushed, now, did);
        match admission {
            Some(admission) => self.admitted(request, admission, now, did),
            None => {
                self.visits.remove(&request);
                did.push(Did::Refused { request, why: "its instance takes no connection" });
            }
        }
        is_news.then_some((service, seat.link))
    }

    /// A request has left its instance: answered after so long, or why it was not.
    pub(crate) fn release(
        &mut self,
        request: u32,
        done: Result<Span, Unserved>,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        let visit = self.visits.remove(&request);
        let Some((service, seat, since)) = visit.and_then(|v| Some((v.service, v.seat?, v.seated))) else {
            return;
        };
        let Some(queue) = self.services.get_mut(&service) else { return };
        let mut effects = Effects::default();
        let reply = match done {
            Ok(_) => {
                queue.answers(seat.instance, &mut effects);
                Reply::Begun
            }
            Err(Unserved::ClientLeft) => Reply::Left { since },
            Err(Unserved::NoAnswer) => Reply::Failed { since },
        };
        if let Ok(duration) = done {
            self.finished.push(Finished {
                service,
                action: forerun_types::ActionKey(1),
                instance: seat.instance,
                duration,
                held: Span::ZERO,
                network_bytes: 100,
                status: 200,
            });
        }
        queue.leave(seat.instance, true, reply, now, || draw(&mut self.draws), &mut effects);
        self.carry_out(effects, now, did);
    }

    /// A held request's client went away, or its time ran out.
    pub(crate) fn abandon(&mut self, request: u32, now: Time, did: &mut Vec<Did>) {
        let Some(visit) = self.visits.remove(&request) else { return };
        visit.spot.iter().for_each(|spot| self.waitlist.leave(spot));
        let (service, Some(ticket)) = (visit.service, visit.ticket) else { return };
        let Some(queue) = self.services.get_mut(&service) else { return };
        let mut effects = Effects::default();
        queue.give_up(ticket, now, &mut effects);
        self.carry_out(effects, now, did);
    }

    /// An instance that is left alone still takes no connection.
    pub(crate) fn dialled_in_vain(
        &mut self,
        service: ServiceId,
        instance: InstanceId,
        door: &Arc<Door>,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        let Some(queue) = self.services.get_mut(&service) else { return };
        let mut effects = Effects::default();
        queue.dialled_in_vain(instance, door, now, &mut effects);
        self.carry_out(effects, now, did);
    }

    /// An instance that was left alone accepts connections.
    pub(crate) fn welcome(
        &mut self,
        service: ServiceId,
        instance: InstanceId,
        door: &Arc<Door>,
        now: Time,
        did: &mut Vec<Did>,
    ) {
        let Some(queue) = self.services.get_mut(&service) else { return };
        let mut effects = Effects::default();
        queue.welcome(instance, door, now, || draw(&mut self.draws), &mut effects);
        self.carry_out(effects, now, did);
    }

    /// Whether an instance is left alone, and still reached so.
    #[must_use]
    pub(crate) fn shuns(&self, service: ServiceId, instance: InstanceId, door: &Arc<Door>) -> bool {
        self.services.get(&service).is_some_and(|queue| queue.is_shunned(instance, door))
    }

    /// Whether there is something for a batch.
    #[must_use]
    pub(crate) fn has_news(&self) -> bool {
        let records = self.activities.len() + self.finished.len();
        records > 0 || self.services.values().any(Queue::has_changed)
    }

    /// A batch, or with no room for it only the count of what is lost.
    pub(crate) fn batch(&mut self, room: bool) -> Option<Traffic> {
        let activities = std::mem::take(&mut self.activities);
        let finished = std::mem::take(&mut self.finished);
        let records = (activities.len() + finished.len()) as u64;
        let mut traffic = Traffic {
            router: self.id,
            activities,
            finished,
            lost: std::mem::take(&mut self.lost),
            ..Traffic::default()
        };
        for queue in self.services.values_mut().filter(|queue| queue.has_changed()) {
            traffic.services.push(queue.tell(&mut traffic.instances));
        }
        if room {
            return Some(traffic);
        }
        self.lost = traffic.lost + records;
        for load in &traffic.services {
            if let Some(queue) = self.services.get_mut(&load.service) {
                queue.untold(load);
            }
        }
        None
    }

    /// After it was cut off: who waits, and all gauges anew.
    pub(crate) fn rejoin(&mut self, did: &mut Vec<Did>) {
        let mut told = vec![Event::RouterJoined(self.id)];
        self.services.values_mut().for_each(|queue| queue.tell_anew(&mut told));
        did.extend(told.into_iter().map(Did::Told));
    }
}
