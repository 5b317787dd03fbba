//! One service at this router: its queue under a lock, who comes, and what a place means to a task.
//!
//! One lock per service guards route, counters and queue together. So a request is never counted at an instance
//! that the current table lacks, and no waiter is overtaken.

use crate::core::Core;
use crate::fault::Fault;
use crate::identity::Naming;
use crate::page::Condition;
use crate::revival;
use crate::stats::{Outcome, ServiceStats, Tally};
use crate::stay::Paged;
use crate::upstream::Pool;
use crate::waiting::{Granting, Pushed, Waiting};
use crate::wakes::{NOTED_EVERY, Visitor, WakeLog, Wakes};
use forerun_route::{Effects, Granted, Hold, HoldRefusal, Link, Queue, Reply, Seat, Turn, WakeBudget};
use forerun_types::{
    ActionKey, Generation, InstanceId, InstanceLoad, ServiceId, ServiceLoad, ServiceRoute, ServiceSpec, Span,
    Time, UserKey,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

pub(crate) use forerun_route::Asking;

/// What a call to the queue led to.
pub(crate) type Led = Effects<Waiting, Pool>;

impl Link for Pool {
    fn to(address: SocketAddr) -> Self {
        Pool::new(address)
    }

    fn address(&self) -> SocketAddr {
        Pool::address(self)
    }

    fn close(&self) {
        Pool::close(self);
    }
}

/// What is under a service's lock.
pub(crate) struct State {
    pub(crate) queue: Queue<Waiting, Pool>,
    pub(crate) paged: Paged,
    /// The batch knows that gauges have changed.
    listed: bool,
}

pub(crate) struct Service {
    pub(crate) id: ServiceId,
    state: Mutex<State>,
    /// Of a variant it is the parent's: one series for a service, whatever keys come and go.
    tally: Arc<Mutex<Tally>>,
    naming: Mutex<Naming>,
    door: Mutex<Door>,
    /// When a visit was last noted, in microseconds.
    noted_at: AtomicU64,
    /// Told whenever there may be an instance for a stay, or no hope of one.
    pub(crate) news: Notify,
}

/// Who comes, and how often they may wake it.
#[derive(Default)]
struct Door {
    budget: WakeBudget,
    log: WakeLog,
}

/// What became of a request that asked for an instance.
pub(crate) enum Admission {
    Go(Place),
    Held(Ticket),
    Refused(Fault),
}

impl Service {
    /// `elder` is the service that this one is a variant of.
    pub(crate) fn new(core: &Core, id: ServiceId, elder: Option<&Service>) -> Self {
        let queue = Queue::new(core.id, id);
        let state = State { queue, paged: Paged::default(), listed: false };
        Self {
            id,
            state: Mutex::new(state),
            tally: elder.map_or_else(Arc::default, |elder| Arc::clone(&elder.tally)),
            naming: Mutex::default(),
            door: Mutex::default(),
            noted_at: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never taken before the state's lock of another service.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` under the lock, tells the engine in that order what it led to, and afterwards lets the batch know if
    /// a gauge changed, and those whose turn has come.
    pub(crate) fn with<R>(
        self: &Arc<Self>,
        core: &Arc<Core>,
        act: impl FnOnce(&mut State, &mut Led) -> R,
    ) -> R {
        let mut led = Led::default();
        let mut state = self.lock();
        let result = act(&mut state, &mut led);
        led.told.into_iter().for_each(|event| core.up.control(event));
        if led.cold_starts > 0 || led.warm_after_all > 0 || !led.waits.is_empty() {
            let mut tally = self.tally();
            tally.cold_starts += led.cold_starts;
            tally.cold_starts = tally.cold_starts.saturating_sub(led.warm_after_all);
            led.waits.into_iter().for_each(|wait| tally.held_for(wait));
        }
        let news = state.queue.has_changed() && !state.listed;
        state.listed |= news;
        drop(state);
        if news {
            core.batch.changed(Arc::clone(self));
        }
        for Granted { waiter, seat } in led.granted {
            waiter.tell(seat.map(|seat| self.place(core, seat)).map_err(Fault::refused));
        }
        result
    }

    fn place(self: &Arc<Self>, core: &Arc<Core>, seat: Seat<Pool>) -> Place {
        let Seat { instance, link: pool, turn } = seat;
        Place { core: Arc::clone(core), service: Arc::clone(self), instance, pool, turn, over: false }
    }

    pub(crate) fn name_action(&self, template: String) -> (ActionKey, Option<String>) {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner).key(template)
    }

    /// Lets somebody in, and says whether that is a new act, and not the waiting page that is loaded again. What would
    /// wake the service takes one of the wakes of its address.
    pub(crate) fn let_in(
        &self,
        spec: &ServiceSpec,
        who: (UserKey, ActionKey),
        address: IpAddr,
        visitor: impl FnOnce() -> Visitor,
        now: Time,
    ) -> Result<bool, Fault> {
        let (wakes, again) = {
            let mut state = self.lock();
            (state.queue.is_asleep(), state.comes_back(who))
        };
        if !wakes && now.0.saturating_sub(self.noted_at.load(Ordering::Relaxed)) < NOTED_EVERY.0 {
            return Ok(!again);
        }
        if wakes {
            self.take_wake(spec, address, now)?;
        }
        self.note(wakes, visitor(), now);
        Ok(!again)
    }

    fn note(&self, wakes: bool, visitor: Visitor, now: Time) {
        let log = &mut self.door().log;
        if wakes {
            log.woke(visitor)
        } else {
            log.visited(visitor)
        }
        self.noted_at.store(now.0, Ordering::Relaxed);
    }

    /// Lets in who asks for a session, and notes it. `address` is the client's, where the proxy names it.
    ///
    /// # Errors
    /// It has woken this service too often.
    pub(crate) fn let_session_in(
        &self,
        spec: &ServiceSpec,
        address: IpAddr,
        visitor: impl FnOnce() -> Visitor,
        now: Time,
    ) -> Result<(), Fault> {
        let wakes = self.lock().queue.is_asleep();
        if wakes {
            self.take_wake(spec, address, now)?;
        }
        self.note(wakes, visitor(), now);
        Ok(())
    }

    fn take_wake(&self, spec: &ServiceSpec, address: IpAddr, now: Time) -> Result<(), Fault> {
        let per_minute = spec.wake.per_minute;
        let taken = self.door().budget.take(address, per_minute, now);
        taken.map_err(|wait| Fault::too_many_wakes(&spec.name, per_minute, wait))
    }

    /// Where an instance takes requests of everyone.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.lock().queue.open_instance().map(|instance| instance.address)
    }

    /// How long a start usually takes.
    pub(crate) fn usual_start(&self, spec: &ServiceSpec) -> Span {
        let measured = self.lock().queue.route().map_or(Span::ZERO, |route| route.notes.usual_start);
        if measured == Span::ZERO { spec.start_estimate } else { measured }
    }

    pub(crate) fn wakes(&self) -> Wakes {
        self.door().log.read()
    }

    /// How it is doing, as far as a router knows.
    pub(crate) fn condition(&self) -> Condition {
        let state = self.lock();
        let Some(route) = state.queue.route() else { return Condition::Asleep };
        match &route.unavailable {
            _ if !route.instances.is_empty() => Condition::Ready,
            Some(why) => Condition::Failing(why.clone()),
            None if state.queue.waiting() > 0 => {
                Condition::Starting { progress: route.notes.progress.clone() }
            }
            None => Condition::Asleep,
        }
    }

    /// Nothing is served here, and nothing will be soon.
    pub(crate) fn refuses(&self) -> bool {
        let state = self.lock();
        state.queue.route().is_none_or(|route| route.instances.is_empty() && route.unavailable.is_some())
    }

    /// A place for a request that is nobody's, if there is one at once.
    pub(crate) fn pass(self: &Arc<Self>, core: &Arc<Core>, now: Time) -> Result<Option<Place>, Fault> {
        let seat = self.with(core, |state, led| state.queue.pass(now, || core.draw(), led));
        seat.map(|seat| seat.map(|seat| self.place(core, seat))).map_err(Fault::refused)
    }

    /// Finds a place at an instance, or one in the queue.
    pub(crate) fn admit(self: &Arc<Self>, core: &Arc<Core>, asking: Asking, now: Time) -> Admission {
        let mut pushed = Pushed::default();
        let load = (asking.bytes, asking.arrived);
        let admission = self.with(core, |state, led| {
            let hold = |spec: &_, ticket| pushed.hold(core, self, (spec, ticket), load);
            state.queue.admit(asking, now, || core.draw(), hold, led)
        });
        pushed.tell(core, now);
        self.admission(core, admission)
    }

    /// A request comes back that its instance did not take. The instance is left alone from now on, and the request
    /// goes to another or has its old place in line; `fault` is its answer if it may not wait, or no longer.
    pub(crate) fn put_back(
        self: &Arc<Self>,
        core: &Arc<Core>,
        mut place: Place,
        asking: Asking,
        fault: Fault,
        now: Time,
    ) -> Admission {
        // Counted out below, under the same lock.
        place.over = true;
        let (instance, pool) = (place.instance, Arc::clone(&place.pool));
        let seat = Seat { instance, link: Arc::clone(&pool), turn: place.turn };
        let mut pushed = Pushed::default();
        let load = (asking.bytes, asking.arrived);
        let (admission, is_news) = self.with(core, |state, led| {
            let hold = |spec: &_, ticket| pushed.hold(core, self, (spec, ticket), load);
            state.queue.put_back(&seat, asking, now, || core.draw(), hold, led)
        });
        pushed.tell(core, now);
        if is_news {
            tracing::debug!(%instance, address = %pool.address(), "an instance takes no requests");
            let (core, service) = (Arc::downgrade(core), Arc::downgrade(self));
            tokio::spawn(revival::watch(core, service, instance, pool));
        }
        match admission {
            Some(admission) => self.admission(core, admission),
            None => Admission::Refused(fault),
        }
    }

    fn admission(
        self: &Arc<Self>,
        core: &Arc<Core>,
        admission: forerun_route::Admission<Pool, oneshot::Receiver<Granting>>,
    ) -> Admission {
        match admission {
            forerun_route::Admission::Go(seat) => Admission::Go(self.place(core, seat)),
            forerun_route::Admission::Refused(refusal) => Admission::Refused(Fault::refused(refusal)),
            forerun_route::Admission::Held(Hold { spec, ticket, patience, answer: granted, .. }) => {
                let (core, service) = (Arc::clone(core), Arc::clone(self));
                Admission::Held(Ticket { core, service, spec, ticket, patience, granted })
            }
        }
    }

    pub(crate) fn is_shunned(&self, instance: InstanceId, pool: &Arc<Pool>) -> bool {
        self.lock().queue.is_shunned(instance, pool)
    }

    /// An instance that is left alone still takes no connection.
    pub(crate) fn dialled_in_vain(
        self: &Arc<Self>,
        core: &Arc<Core>,
        instance: InstanceId,
        pool: &Arc<Pool>,
        now: Time,
    ) {
        self.with(core, |state, led| state.queue.dialled_in_vain(instance, pool, now, led));
    }

    /// An instance that was left alone accepts connections: it may be picked again.
    pub(crate) fn welcome(
        self: &Arc<Self>,
        core: &Arc<Core>,
        instance: InstanceId,
        pool: &Arc<Pool>,
        now: Time,
    ) {
        self.with(core, |state, led| state.queue.welcome(instance, pool, now, || core.draw(), led));
        self.news.notify_waiters();
    }

    /// Answers everyone who is held that this is the end, and holds nobody from now on.
    pub(crate) fn refuse_all(self: &Arc<Self>, core: &Arc<Core>, now: Time) {
        self.with(core, |state, led| state.queue.close(now, led));
        self.news.notify_waiters();
    }

    /// What the table of `generation` says from now on.
    pub(crate) fn set_route(
        self: &Arc<Self>,
        core: &Arc<Core>,
        route: Option<Arc<ServiceRoute>>,
        generation: Generation,
        now: Time,
    ) {
        self.with(core, |state, led| state.queue.set_route(route, generation, now, || core.draw(), led));
        self.news.notify_waiters();
    }

    /// Neither in the table nor with anything in flight: it may be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().queue.is_over()
    }

    /// A request has left its instance; the first who waits takes its place.
    fn release(
        self: &Arc<Self>,
        core: &Arc<Core>,
        instance: InstanceId,
        (counts, reply): (bool, Reply),
        ended: Option<&Ended>,
        now: Time,
    ) {
        self.with(core, |state, led| {
            match ended {
                Some(ended) if counts => self.tally().ended(ended.outcome, ended.reason, ended.duration),
                Some(_) => self.tally().nobody("probe"),
                None => {}
            }
            state.queue.leave(instance, counts, reply, now, || core.draw(), led);
        });
    }

    /// Forerun has answered a request that is nobody's.
    pub(crate) fn answered_nobody(self: &Arc<Self>, core: &Arc<Core>) {
        self.with(core, |_, _| self.tally().nobody("asleep"));
    }

    /// A request has ended that had no place.
    pub(crate) fn ended(self: &Arc<Self>, core: &Arc<Core>, ended: &Ended) {
        self.with(core, |_, _| self.tally().ended(ended.outcome, ended.reason, ended.duration));
    }

    /// The gauges, which count as told from now on.
    pub(crate) fn tell_loads(&self, services: &mut Vec<ServiceLoad>, instances: &mut Vec<InstanceLoad>) {
        let mut state = self.lock();
        state.listed = false;
        services.push(state.queue.tell(instances));
    }

    /// What [`Self::tell_loads`] gave did not get through. Whether the batch must be told of this service again.
    pub(crate) fn untold(&self, load: &ServiceLoad) -> bool {
        let mut state = self.lock();
        state.queue.untold(load);
        !std::mem::replace(&mut state.listed, true)
    }

    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().queue.links().map(Arc::clone).collect()
    }

    pub(crate) fn stats(&self, name: &str, sla: &str) -> ServiceStats {
        let State { queue, .. } = &*self.lock();
        ServiceStats {
            held: queue.waiting(),
            held_bytes: queue.held_bytes(),
            in_flight: queue.in_use(),
            instances: queue.loads().collect(),
            ..self.tally().stats(self.id, name, sla)
        }
    }
}

/// How a request ended, for the tally.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<&'static str>,
    pub(crate) duration: Span,
}

/// A place at an instance, counted in flight until it is dropped.
pub(crate) struct Place {
    core: Arc<Core>,
    service: Arc<Service>,
    pub(crate) instance: InstanceId,
    pub(crate) pool: Arc<Pool>,
    turn: Turn,
    over: bool,
}

impl Place {
    pub(crate) fn service(&self) -> ServiceId {
        self.service.id
    }

    /// Whether the request had to be held for it.
    pub(crate) fn was_held(&self) -> bool {
        self.turn.held
    }

    /// The instance's answer begins.
    pub(crate) fn answers(&self) {
        self.service.with(&self.core, |state, led| state.queue.answers(self.instance, led));
    }

    pub(crate) fn end(mut self, ended: &Ended, reply: Reply) {
        self.over = true;
        let how = (self.turn.counts, reply);
        self.service.release(&self.core, self.instance, how, Some(ended), self.core.now());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.over {
            let how = (self.turn.counts, Reply::NotAsked);
            self.service.release(&self.core, self.instance, how, None, self.core.now());
        }
    }
}

/// A place in the queue. Dropped before its turn, it is given up at once.
pub(crate) struct Ticket {
    core: Arc<Core>,
    service: Arc<Service>,
    spec: Arc<ServiceSpec>,
    ticket: u64,
    /// What is left of `hold.timeout`.
    patience: Span,
    granted: oneshot::Receiver<Granting>,
}

impl Ticket {
    /// Waits for a place. Safe to cancel.
    pub(crate) async fn wait(&mut self) -> Result<Place, Fault> {
        let timeout = self.spec.hold.timeout;
        match tokio::time::timeout(self.patience.into(), &mut self.granted).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_)) => Err(Fault::shutting_down()),
            // It may have been this one's turn at the last moment.
            Err(_) => self
                .granted
                .try_recv()
                .unwrap_or_else(|_| Err(Fault::hold(&self.spec.name, &HoldRefusal::Timeout { timeout }))),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.core.now();
        drop(self.service.with(&self.core, |state, led| state.queue.give_up(self.ticket, now, led)));
    }
}
