//! One service at one router: who is at its instances, who waits for them, in what order they go, and what the engine
//! is told of it.
//!
//! Plain data. The live router keeps it under a lock, with a channel as each waiter's payload; the simulation drives
//! the same code with its own.

use crate::hold::{HoldRefusal, admit_hold};
use crate::pick::{LoadView, Pick, pick};
use crate::silence::Reply;
use crate::slots::{Link, Slots};
use forerun_types::{
    Event, Generation, InstanceId, InstanceLoad, RouterId, ServiceId, ServiceLoad, ServiceRoute, ServiceSpec,
    Span, Time, Unavailable, UserKey,
};
use std::collections::VecDeque;
use std::sync::Arc;

mod stay;
use stay::Stay;

/// What is to be known of a request that asks for an instance.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub user: UserKey,
    /// What it takes up while it is held.
    pub bytes: u64,
    /// `hold.timeout` counts from here, however often it is held.
    pub arrived: Time,
    /// It is a waiting page loaded again: no cold start of its own.
    pub again: bool,
    /// Whose instances it may go to, besides those that are anyone's.
    pub key: Option<u64>,
}

/// A request's place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub ticket: u64,
    /// It has been held at some time.
    pub held: bool,
    /// It is somebody's, and use of its instance.
    pub counts: bool,
}

/// A place at an instance, counted in flight until it is given back by [`Queue::leave`] or [`Queue::put_back`].
#[derive(Debug)]
pub struct Seat<L> {
    pub instance: InstanceId,
    pub link: Arc<L>,
    pub turn: Turn,
}

/// A place in the queue.
#[derive(Clone, Debug)]
pub struct Hold<R> {
    pub spec: Arc<ServiceSpec>,
    pub ticket: u64,
    /// What is left of `hold.timeout`.
    pub patience: Span,
    /// Others that are held, and this one.
    pub waiting: u32,
    /// The caller's end of what it is answered through.
    pub answer: R,
}

/// What became of a request that asked for an instance.
#[derive(Debug)]
pub enum Admission<L, R> {
    Go(Seat<L>),
    Held(Hold<R>),
    Refused(Refusal),
}

/// Why a request gets no instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The service has left the table.
    Gone,
    /// The router is at its end.
    Closing,
    Unavailable {
        spec: Arc<ServiceSpec>,
        why: Unavailable,
    },
    Hold {
        spec: Arc<ServiceSpec>,
        limit: HoldRefusal,
    },
}

/// One who waited, and what came of it.
#[derive(Debug)]
pub struct Granted<W, L> {
    pub waiter: W,
    pub seat: Result<Seat<L>, Refusal>,
}

/// What a call led to, beyond its own answer: to be told in this order, and to be handed to those who waited.
#[derive(Debug)]
pub struct Effects<W, L> {
    pub told: Vec<Event>,
    pub granted: Vec<Granted<W, L>>,
    pub cold_starts: u64,
    /// Of the cold starts that were counted, now or before, those that were none in the end: an instance was only
    /// thawed, or given to a key, and the wait for it was within the class's latency target.
    pub warm_after_all: u64,
    /// How long each was held whose hold is over, however it ended.
    pub waits: Vec<Span>,
}

impl<W, L> Default for Effects<W, L> {
    fn default() -> Self {
        Self { told: Vec::new(), granted: Vec::new(), cold_starts: 0, warm_after_all: 0, waits: Vec::new() }
    }
}

#[derive(Clone, Debug)]
struct Waiter<W> {
    ticket: u64,
    bytes: u64,
    key: Option<u64>,
    since: Time,
    /// It counts as a cold start.
    cold: bool,
    payload: W,
}

/// The state of one service at one router. `W` is what a held request is answered through, `L` how an instance is
/// reached.
#[derive(Clone, Debug)]
pub struct Queue<W, L> {
    router: RouterId,
    service: ServiceId,
    /// What the current table says; `None` once it says nothing.
    route: Option<Arc<ServiceRoute>>,
    /// The same without the instances that are left alone.
    choice: Option<Arc<ServiceRoute>>,
    slots: Slots<L>,
    /// In order of tickets: first come, first served. While anyone waits here, no instance is free.
    waiters: VecDeque<Waiter<W>>,
    held_bytes: u64,
    tickets: u64,
    closing: bool,
    /// At all instances; those that are nobody's are left out.
    in_flight: u32,
    peak: u32,
    stay: Stay,
    changed: bool,
}

/// Counters.
impl<W, L> Queue<W, L> {
    #[must_use]
    pub fn new(router: RouterId, service: ServiceId) -> Self {
        Self {
            router,
            service,
            route: None,
            choice: None,
            slots: Slots::default(),
            waiters: VecDeque::new(),
            held_bytes: 0,
            tickets: 0,
            closing: false,
            in_flight: 0,
            peak: 0,
            stay: Stay::default(),
            changed: false,
        }
    }

    #[must_use]
    pub fn route(&self) -> Option<&Arc<ServiceRoute>> {
        self.route.as_ref()
    }

    /// Who waits: a stay needs one instance, which those who are held find too.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        // `hold.requests_max` is a u32.
        self.held().max(u32::from(self.stay.waits_since.is_some()))
    }

    /// Requests that are held.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.waiters.len() as u32
    }

    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Requests at instances, and pinned instances without any; what is nobody's is left out.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_flight + self.slots.pinned_only()
    }

    /// Whether a request would find neither an instance nor anyone who waits for one already.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        let route = self.route.as_ref();
        route.is_some_and(|r| r.instances.is_empty() && r.unavailable.is_none()) && self.waiting() == 0
    }

    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// All requests at an instance, those that are nobody's too.
    #[must_use]
    pub fn in_flight_at(&self, instance: InstanceId) -> u32 {
        self.slots.in_flight(instance)
    }

    pub fn links(&self) -> impl Iterator<Item = &Arc<L>> {
        self.slots.iter().map(|slot| &slot.link)
    }

    pub fn loads(&self) -> impl Iterator<Item = InstanceLoad> {
        self.slots.iter().map(|slot| slot.load())
    }

    /// Neither in the table nor with anything in flight: it may be forgotten.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.route.is_none() && self.slots.is_empty()
    }

    /// Whether gauges have changed since they were told.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// The gauges, which count as told from now on; those of instances that have changed are added to `instances`.
    pub fn tell(&mut self, instances: &mut Vec<InstanceLoad>) -> ServiceLoad {
        self.changed = false;
        let (in_flight, waiting) = (self.in_use(), self.waiting());
        let peak = std::mem::replace(&mut self.peak, in_flight + waiting);
        self.slots.tell(instances);
        ServiceLoad { service: self.service, in_flight, peak, waiting }
    }

    /// What [`Self::tell`] gave did not get through.
    pub fn untold(&mut self, load: &ServiceLoad) {
        self.changed = true;
        self.peak = self.peak.max(load.peak);
        self.slots.untold();
    }

    /// The engine has lost sight of this router: who waits, and all gauges, are told anew.
    pub fn tell_anew(&mut self, told: &mut Vec<Event>) {
        self.changed = true;
        self.slots.untold();
        if self.waiting() > 0 {
            told.push(self.waits(UserKey::NOBODY));
        }
        let silent = self.slots.iter().filter(|slot| slot.silence.is_told());
        let silent: Vec<InstanceId> = silent.map(|slot| slot.instance).collect();
        told.extend(silent.into_iter().filter_map(|instance| self.silence(instance)));
    }

    /// What an instance has not answered.
    fn silence(&mut self, instance: InstanceId) -> Option<Event> {
        let router = self.router;
        let silence = &self.slots.listed(instance)?.silence;
        let (tries, left, silent) = (silence.tries, silence.left, silence.lasts());
        Some(Event::Unanswered { router, instance, tries, left, silent })
    }

    /// A try that began at `since` got no answer.
    fn unanswered(
        &mut self,
        instance: InstanceId,
        since: Time,
        left: bool,
        now: Time,
        told: &mut Vec<Event>,
    ) {
        let Some(slot) = self.slots.listed(instance) else { return };
        if slot.silence.failed(since, left, now) {
            told.extend(self.silence(instance));
        }
    }

    fn waits(&self, user: UserKey) -> Event {
        Event::Waiting { router: self.router, service: self.service, user, waiting: self.waiting() }
    }

    fn abandoned(&self) -> Event {
        Event::Abandoned { router: self.router, service: self.service, waiting: self.waiting() }
    }

    fn moved(&mut self) {
        self.peak = self.peak.max(self.in_use() + self.waiting());
        self.changed = true;
    }

    fn push(&mut self, waiter: Waiter<W>) {
        self.held_bytes += waiter.bytes;
        // At the end, but for a request that was at an instance already and goes back to where it was.
        let at = self.waiters.partition_point(|other| other.ticket < waiter.ticket);
        self.waiters.insert(at, waiter);
        self.moved();
    }

    fn left(&mut self, waiter: Waiter<W>, now: Time, effects: &mut Effects<W, L>) -> W {
        self.held_bytes = self.held_bytes.saturating_sub(waiter.bytes);
        self.moved();
        effects.waits.push(now.since(waiter.since));
        waiter.payload
    }

    fn pop(&mut self, now: Time, effects: &mut Effects<W, L>) -> Option<W> {
        let waiter = self.waiters.pop_front()?;
        Some(self.left(waiter, now, effects))
    }

    /// Before anything else is told of it, the engine hears of the first use of an instance.
    fn touch(&mut self, instance: InstanceId, told: &mut Vec<Event>) {
        if self.slots.is_first(instance) {
            told.push(Event::Touched { router: self.router, instance });
        }
    }

    fn enter(
        &mut self,
        instance: InstanceId,
        turn: Turn,
        now: Time,
        told: &mut Vec<Event>,
    ) -> Option<Seat<L>> {
        self.touch(instance, told);
        let link = self.slots.enter(instance, turn.counts, now)?;
        if turn.counts {
            // How many there are at a time is noted by the caller: one that was held is in line until it is taken out.
            self.in_flight += 1;
            self.changed = true;
        }
        Some(Seat { instance, link, turn })
    }

    /// A request is no longer at its instance.
    fn exit(&mut self, instance: InstanceId, counts: bool, now: Time, told: &mut Vec<Event>) {
        let Some(quiesced) = self.slots.exit(instance, counts, now) else { return };
        if counts {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.moved();
        }
        if let Some(generation) = quiesced {
            told.push(Event::Quiesced { router: self.router, instance, generation });
        }
    }
}

/// Requests.
impl<W, L> Queue<W, L> {
    fn next_turn(&mut self, counts: bool) -> Turn {
        self.tickets += 1;
        Turn { ticket: self.tickets, held: false, counts }
    }

    /// A place for a request that is nobody's, if there is one at once.
    ///
    /// # Errors
    /// Why there is none and will not be soon.
    pub fn pass(
        &mut self,
        now: Time,
        draw: impl FnOnce() -> u64,
        effects: &mut Effects<W, L>,
    ) -> Result<Option<Seat<L>>, Refusal> {
        if !self.waiters.is_empty() {
            return Ok(None);
        }
        let turn = self.next_turn(false);
        self.try_place(turn, None, now, draw, &mut effects.told)
    }

    /// Finds a place at an instance, or one in the queue; `payload` makes both ends of what the request of that ticket
    /// is answered through if it is held, or says why the router has no room for it.
    pub fn admit<R>(
        &mut self,
        asking: Asking,
        now: Time,
        draw: impl FnOnce() -> u64,
        payload: impl FnOnce(&Arc<ServiceSpec>, u64) -> Result<(W, R), HoldRefusal>,
        effects: &mut Effects<W, L>,
    ) -> Admission<L, R> {
        let turn = self.next_turn(true);
        if self.waiters.is_empty() {
            match self.try_place(turn, asking.key, now, draw, &mut effects.told) {
                Ok(Some(seat)) => {
                    self.moved();
                    return Admission::Go(seat);
                }
                Ok(None) => {}
                Err(refusal) => return Admission::Refused(refusal),
            }
        }
        match self.hold(asking, turn, now, payload, effects) {
            Ok(hold) => Admission::Held(hold),
            Err(refusal) => Admission::Refused(refusal),
        }
    }

    /// A request comes back that its instance did not take. The instance is left alone from now on, and the request
    /// goes to another or has its old place in line; `None` if it may not wait, or no longer: what its instance did is
    /// the better answer then. Says too whether the instance was not left alone before.
    pub fn put_back<R>(
        &mut self,
        seat: &Seat<L>,
        asking: Asking,
        now: Time,
        draw: impl FnOnce() -> u64,
        payload: impl FnOnce(&Arc<ServiceSpec>, u64) -> Result<(W, R), HoldRefusal>,
        effects: &mut Effects<W, L>,
    ) -> (Option<Admission<L, R>>, bool) {
        let is_news = self.slots.set_shunned(seat.instance, &seat.link, true);
        if is_news {
            self.choose();
        }
        self.unanswered(seat.instance, now, false, now, &mut effects.told);
        self.exit(seat.instance, seat.turn.counts, now, &mut effects.told);
        let admission = match self.try_place(seat.turn, asking.key, now, draw, &mut effects.told) {
            Ok(Some(seat)) => {
                self.moved();
                Some(Admission::Go(seat))
            }
            Err(refusal) => Some(Admission::Refused(refusal)),
            Ok(None) => self.hold_again(asking, seat.turn, now, payload, effects).map(Admission::Held),
        };
        (admission, is_news)
    }

    /// An answer of an instance begins; the request stays there until it leaves with [`Reply::Begun`].
    pub fn answers(&mut self, instance: InstanceId, effects: &mut Effects<W, L>) {
        let told = self.slots.answers(instance);
        if told {
            effects.told.extend(self.silence(instance));
        }
    }

    /// An instance that is left alone was dialled, and took no connection.
    pub fn dialled_in_vain(
        &mut self,
        instance: InstanceId,
        link: &Arc<L>,
        now: Time,
        effects: &mut Effects<W, L>,
    ) {
        if self.is_shunned(instance, link) {
            self.unanswered(instance, now, false, now, &mut effects.told);
        }
    }

    /// A request has left its instance, whether it counted or not; the first who waits takes its place.
    pub fn leave(
        &mut self,
        instance: InstanceId,
        counts: bool,
        reply: Reply,
        now: Time,
        draw: impl FnMut() -> u64,
        effects: &mut Effects<W, L>,
    ) {
        match reply {
            Reply::Begun => self.slots.answered(instance),
            Reply::Failed { since } => self.unanswered(instance, since, false, now, &mut effects.told),
            Reply::Left { since } => self.unanswered(instance, since, true, now, &mut effects.told),
            Reply::NotAsked => {}
        }
        self.exit(instance, counts, now, &mut effects.told);
        self.dispatch(now, draw, effects);
    }

    /// A held request's client went away, or its time ran out; it is given back. Nothing happens if its turn had come.
    pub fn give_up(&mut self, ticket: u64, now: Time, effects: &mut Effects<W, L>) -> Option<W> {
        let at = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        let waiter = self.waiters.remove(at)?;
        let payload = self.left(waiter, now, effects);
        effects.told.push(self.abandoned());
        Some(payload)
    }

    /// A held request makes way at the router. Nothing happens if its turn had come, or it had given up.
    pub fn push_out(&mut self, ticket: u64, limit: HoldRefusal, now: Time, effects: &mut Effects<W, L>) {
        let Some(waiter) = self.give_up(ticket, now, effects) else { return };
        let seat = match &self.route {
            Some(route) => Err(Refusal::Hold { spec: Arc::clone(&route.spec), limit }),
            None => Err(Refusal::Gone),
        };
        effects.granted.push(Granted { waiter, seat });
    }

    /// Refuses everyone who is held, and holds nobody from now on.
    pub fn close(&mut self, now: Time, effects: &mut Effects<W, L>) {
        self.closing = true;
        self.end_stay(now, effects);
        self.refuse_held(&Refusal::Closing, now, effects);
    }

    /// An instance that was left alone accepts connections: it may be picked again.
    pub fn welcome(
        &mut self,
        instance: InstanceId,
        link: &Arc<L>,
        now: Time,
        draw: impl FnMut() -> u64,
        effects: &mut Effects<W, L>,
    ) {
        if self.slots.set_shunned(instance, link, false) {
            self.choose();
            self.settle_stay(UserKey::NOBODY, now, effects);
            self.dispatch(now, draw, effects);
        }
    }

    /// Whether an instance is left alone, and still reached so.
    #[must_use]
    pub fn is_shunned(&self, instance: InstanceId, link: &Arc<L>) -> bool {
        self.slots.is_shunned(instance, link)
    }

    fn choose(&mut self) {
        self.choice = self.slots.choice(self.route.as_ref());
    }

    /// A place, nothing for now, or nothing for long.
    fn try_place(
        &mut self,
        turn: Turn,
        key: Option<u64>,
        now: Time,
        draw: impl FnOnce() -> u64,
        told: &mut Vec<Event>,
    ) -> Result<Option<Seat<L>>, Refusal> {
        let route = self.choice.clone().ok_or(Refusal::Gone)?;
        match pick(&route, &self.slots, key, draw()) {
            Pick::Use(instance) => Ok(self.enter(instance.instance, turn, now, told)),
            Pick::Hold => Ok(None),
            Pick::Refuse(why) => {
                Err(Refusal::Unavailable { spec: Arc::clone(&route.spec), why: why.clone() })
            }
        }
    }

    fn hold<R>(
        &mut self,
        asking: Asking,
        turn: Turn,
        now: Time,
        payload: impl FnOnce(&Arc<ServiceSpec>, u64) -> Result<(W, R), HoldRefusal>,
        effects: &mut Effects<W, L>,
    ) -> Result<Hold<R>, Refusal> {
        let spec = Arc::clone(&self.route.as_ref().ok_or(Refusal::Gone)?.spec);
        if self.closing {
            return Err(Refusal::Closing);
        }
        let Asking { user, bytes, key, arrived, again } = asking;
        let ticket = turn.ticket;
        let (payload, answer) = admit_hold(&spec.hold, self.waiting(), self.held_bytes, bytes)
            .and_then(|()| payload(&spec, ticket))
            .map_err(|limit| Refusal::Hold { spec: Arc::clone(&spec), limit })?;
        // One that was held before counts as a cold start already.
        let cold = !turn.held && !again;
        self.push(Waiter { ticket, bytes, key, since: now, cold, payload });
        effects.cold_starts += u64::from(cold);
        effects.told.push(self.waits(user));
        let (patience, waiting) = (time_left(&spec, arrived, now), self.waiting());
        Ok(Hold { spec, ticket, patience, waiting, answer })
    }

    /// Nothing if its time is over or there is no room: then what its instance did is the better answer.
    fn hold_again<R>(
        &mut self,
        asking: Asking,
        turn: Turn,
        now: Time,
        payload: impl FnOnce(&Arc<ServiceSpec>, u64) -> Result<(W, R), HoldRefusal>,
        effects: &mut Effects<W, L>,
    ) -> Option<Hold<R>> {
        let spec = &self.route.as_ref()?.spec;
        if time_left(spec, asking.arrived, now) == Span::ZERO {
            return None;
        }
        self.hold(asking, turn, now, payload, effects).ok()
    }

    /// Lets those go for whom there is a place, the first first.
    fn dispatch(&mut self, now: Time, mut draw: impl FnMut() -> u64, effects: &mut Effects<W, L>) {
        while let Some((ticket, key)) = self.waiters.front().map(|waiter| (waiter.ticket, waiter.key)) {
            let turn = Turn { ticket, held: true, counts: true };
            match self.try_place(turn, key, now, &mut draw, &mut effects.told) {
                Ok(Some(seat)) => {
                    effects.warm_after_all += u64::from(self.is_warm_after_all(seat.instance, now));
                    let Some(waiter) = self.pop(now, effects) else { return };
                    effects.granted.push(Granted { waiter, seat: Ok(seat) });
                }
                Ok(None) => return,
                Err(refusal) => return self.refuse_held(&refusal, now, effects),
            }
        }
    }

    /// Whether the next who waits made no cold start, if it goes to this instance.
    fn is_warm_after_all(&self, instance: InstanceId, now: Time) -> bool {
        let (Some(waiter), Some(route)) = (self.waiters.front(), &self.route) else { return false };
        waiter.cold
            && now.since(waiter.since) <= route.spec.sla.latency
            && route.notes.resumed.binary_search(&instance).is_ok()
    }

    fn refuse_held(&mut self, refusal: &Refusal, now: Time, effects: &mut Effects<W, L>) {
        let mut any = false;
        while let Some(waiter) = self.pop(now, effects) {
            any = true;
            effects.granted.push(Granted { waiter, seat: Err(refusal.clone()) });
        }
        if any {
            effects.told.push(self.abandoned());
        }
    }
}

impl<W, L: Link> Queue<W, L> {
    /// What the table of `generation` says from now on.
    pub fn set_route(
        &mut self,
        route: Option<Arc<ServiceRoute>>,
        generation: Generation,
        now: Time,
        draw: impl FnMut() -> u64,
        effects: &mut Effects<W, L>,
    ) {
        let (quiesced, came) = self.slots.settle(route.as_deref(), generation);
        self.changed |= came;
        let router = self.router;
        effects.told.extend(quiesced.into_iter().map(|instance| Event::Quiesced {
            router,
            instance,
            generation,
        }));
        self.route = route;
        self.choose();
        self.settle_stay(UserKey::NOBODY, now, effects);
        self.dispatch(now, draw, effects);
    }
}

fn time_left(spec: &ServiceSpec, arrived: Time, now: Time) -> Span {
    spec.hold.timeout - now.since(arrived)
}
