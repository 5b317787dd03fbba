//! One service at this router: who is at its instances, who waits for them, in what order they go.
//!
//! One lock per service guards route, counters and queue together. So a request is never counted at an instance
//! that the current table lacks, and no waiter is overtaken.

use crate::core::Core;
use crate::fault::Fault;
use crate::identity::Naming;
use crate::page::Condition;
use crate::revival;
use crate::state::{State, Waiter};
use crate::stats::{Outcome, ServiceStats};
use crate::upstream::Pool;
use crate::wakes::{NOTED_EVERY, Visitor, WakeLog, Wakes};
use forerun_route::{HoldRefusal, Pick, WakeBudget, admit_hold, pick};
use forerun_types::{
    ActionKey, Event, Generation, InstanceId, InstanceLoad, ServiceId, ServiceLoad, ServiceRoute,
    ServiceSpec, Span, Time, UserKey,
};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

pub(crate) struct Service {
    pub(crate) id: ServiceId,
    state: Mutex<State>,
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

/// What is to be known of a request that asks for an instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) user: UserKey,
    /// What it takes up while it is held.
    pub(crate) bytes: u64,
    pub(crate) arrived: Time,
    /// It is a waiting page loaded again: no cold start of its own.
    pub(crate) again: bool,
}

/// A request's place in line.
#[derive(Clone, Copy, Debug)]
struct Turn {
    ticket: u64,
    /// It has been held at some time.
    held: bool,
    /// It is somebody's, and use of its instance.
    counts: bool,
}

impl Service {
    pub(crate) fn new(id: ServiceId) -> Self {
        Self {
            id,
            state: Mutex::default(),
            naming: Mutex::default(),
            door: Mutex::default(),
            noted_at: AtomicU64::new(0),
            news: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` under the lock, and afterwards lets the batch know if a gauge changed.
    pub(crate) fn with<R>(self: &Arc<Self>, core: &Core, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let news = state.changed && !state.listed;
        state.listed |= news;
        drop(state);
        if news {
            core.batch.changed(Arc::clone(self));
        }
        result
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
            (state.is_asleep(), state.comes_back(who))
        };
        if !wakes && now.0.saturating_sub(self.noted_at.load(Ordering::Relaxed)) < NOTED_EVERY.0 {
            return Ok(!again);
        }
        let mut door = self.door();
        if wakes {
            door.budget
                .take(address, spec.wake.per_minute, now)
                .map_err(|wait| Fault::too_many_wakes(&spec.name, spec.wake.per_minute, wait))?;
            door.log.woke(visitor());
        } else {
            door.log.visited(visitor());
        }
        self.noted_at.store(now.0, Ordering::Relaxed);
        Ok(!again)
    }

    pub(crate) fn wakes(&self) -> Wakes {
        self.door().log.read()
    }

    /// How it is doing, as far as a router knows.
    pub(crate) fn condition(&self) -> Condition {
        let state = self.lock();
        let Some(route) = &state.route else { return Condition::Asleep };
        match &route.unavailable {
            _ if !route.instances.is_empty() => Condition::Ready,
            Some(why) => Condition::Failing(why.clone()),
            None if state.waiting() > 0 => Condition::Starting { progress: String::new() },
            None => Condition::Asleep,
        }
    }

    /// A place for a request that is nobody's, if there is one at once.
    pub(crate) fn pass(self: &Arc<Self>, core: &Arc<Core>, now: Time) -> Result<Option<Place>, Fault> {
        self.with(core, |state| {
            if !state.queue.is_empty() {
                return Ok(None);
            }
            let turn = Turn { ticket: state.next_ticket(), held: false, counts: false };
            self.try_place(core, state, turn, now)
        })
    }

    /// Finds a place at an instance, or one in the queue.
    pub(crate) fn admit(self: &Arc<Self>, core: &Arc<Core>, asking: Asking, now: Time) -> Admission {
        self.with(core, |state| {
            let turn = Turn { ticket: state.next_ticket(), held: false, counts: true };
            if state.queue.is_empty() {
                match self.try_place(core, state, turn, now) {
                    Ok(Some(place)) => return Admission::Go(place),
                    Ok(None) => {}
                    Err(fault) => return Admission::Refused(fault),
                }
            }
            self.hold(core, state, asking, turn, now).unwrap_or_else(Admission::Refused)
        })
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
        let (instance, turn) = (place.instance, place.turn);
        let (admission, is_news) = self.with(core, |state| {
            let is_news = state.shun(instance, &place.pool);
            if let Some(generation) = state.exit(instance, turn.counts, now) {
                core.up.control(Event::Quiesced { router: core.id, instance, generation });
            }
            let admission = match self.try_place(core, state, turn, now) {
                Ok(Some(place)) => Admission::Go(place),
                Ok(None) => {
                    self.hold_again(core, state, asking, turn, now).unwrap_or(Admission::Refused(fault))
                }
                Err(fault) => Admission::Refused(fault),
            };
            (admission, is_news)
        });
        if is_news {
            tracing::debug!(%instance, address = %place.pool.address(), "an instance takes no requests");
            let (core, service) = (Arc::downgrade(core), Arc::downgrade(self));
            tokio::spawn(revival::watch(core, service, instance, Arc::clone(&place.pool)));
        }
        admission
    }

    pub(crate) fn is_shunned(&self, instance: InstanceId, pool: &Arc<Pool>) -> bool {
        self.lock().is_shunned(instance, pool)
    }

    /// An instance that was left alone accepts connections: it may be picked again.
    pub(crate) fn welcome(
        self: &Arc<Self>,
        core: &Arc<Core>,
        instance: InstanceId,
        pool: &Arc<Pool>,
        now: Time,
    ) {
        let mut untaken = Vec::new();
        self.with(core, |state| {
            if state.unshun(instance, pool) {
                self.settle_stay(core, state, UserKey::NOBODY, now);
                self.dispatch(core, state, now, &mut untaken);
            }
        });
        self.news.notify_waiters();
    }

    /// A place, nothing for now, or nothing for long.
    fn try_place(
        self: &Arc<Self>,
        core: &Arc<Core>,
        state: &mut State,
        turn: Turn,
        now: Time,
    ) -> Result<Option<Place>, Fault> {
        let Some(route) = state.choice.clone() else {
            return Err(Fault::service_gone());
        };
        match pick(&route, &state.slots, None, core.draw()) {
            Pick::Use(instance) => Ok(state.enter(instance.instance, turn.counts, now).map(|pool| Place {
                core: Arc::clone(core),
                service: Arc::clone(self),
                instance: instance.instance,
                pool,
                turn,
                over: false,
            })),
            Pick::Hold => Ok(None),
            Pick::Refuse(why) => Err(Fault::unavailable(&route.spec, why)),
        }
    }

    fn hold(
        self: &Arc<Self>,
        core: &Arc<Core>,
        state: &mut State,
        asking: Asking,
        turn: Turn,
        now: Time,
    ) -> Result<Admission, Fault> {
        let Some(spec) = state.route.as_ref().map(|route| Arc::clone(&route.spec)) else {
            return Err(Fault::service_gone());
        };
        if state.closing {
            return Err(Fault::shutting_down());
        }
        let Asking { user, bytes, arrived, again: comes_back } = asking;
        admit_hold(&spec.hold, state.waiting(), state.held_bytes, bytes)
            .map_err(|refusal| Fault::hold(&spec.name, &refusal))?;
        let (grant, granted) = oneshot::channel();
        let Turn { ticket, held: again, .. } = turn;
        state.push(Waiter { ticket, bytes, since: now, again: again || comes_back, grant });
        let waiting = state.waiting();
        core.up.control(Event::Waiting { router: core.id, service: self.id, user, waiting });
        let patience = time_left(&spec, arrived, now);
        let (core, service) = (Arc::clone(core), Arc::clone(self));
        Ok(Admission::Held(Ticket { core, service, spec, ticket, patience, granted }))
    }

    /// Nothing if its time is over or there is no room: then what its instance did is the better answer.
    fn hold_again(
        self: &Arc<Self>,
        core: &Arc<Core>,
        state: &mut State,
        asking: Asking,
        turn: Turn,
        now: Time,
    ) -> Option<Admission> {
        let spec = &state.route.as_ref()?.spec;
        if time_left(spec, asking.arrived, now) == Span::ZERO {
            return None;
        }
        self.hold(core, state, asking, turn, now).ok()
    }

    /// Lets those go for whom there is a place, the first first. Places that nobody took come back in `untaken`, to
    /// be dropped without the lock.
    fn dispatch(
        self: &Arc<Self>,
        core: &Arc<Core>,
        state: &mut State,
        now: Time,
        untaken: &mut Vec<Result<Place, Fault>>,
    ) {
        while let Some(ticket) = state.queue.front().map(|waiter| waiter.ticket) {
            match self.try_place(core, state, Turn { ticket, held: true, counts: true }, now) {
                Ok(Some(place)) => match state.pop(now) {
                    Some(waiter) => untaken.extend(waiter.grant.send(Ok(place)).err()),
                    None => untaken.push(Ok(place)),
                },
                Ok(None) => return,
                Err(fault) => {
                    self.refuse_held(core, state, &fault, now);
                    return;
                }
            }
        }
    }

    fn refuse_held(&self, core: &Core, state: &mut State, fault: &Fault, now: Time) {
        let mut any = false;
        while let Some(waiter) = state.pop(now) {
            any = true;
            // One whose client went away at this moment needs no answer.
            let _ = waiter.grant.send(Err(fault.clone()));
        }
        if any {
            let waiting = state.waiting();
            core.up.control(Event::Abandoned { router: core.id, service: self.id, waiting });
        }
    }

    /// Answers everyone who is held with `fault`, and holds nobody from now on.
    pub(crate) fn refuse_all(self: &Arc<Self>, core: &Core, fault: &Fault, now: Time) {
        self.with(core, |state| {
            state.closing = true;
            self.end_stay(core, state, now);
            self.refuse_held(core, state, fault, now);
        });
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
        let mut untaken = Vec::new();
        self.with(core, |state| {
            for instance in state.settle(route.as_deref(), generation) {
                core.up.control(Event::Quiesced { router: core.id, instance, generation });
            }
            state.set_route(route);
            self.settle_stay(core, state, UserKey::NOBODY, now);
            self.dispatch(core, state, now, &mut untaken);
        });
        self.news.notify_waiters();
    }

    /// Neither in the table nor with anything in flight: it may be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.route.is_none() && state.slots.0.is_empty()
    }

    /// A request has left its instance; the first who waits takes its place.
    fn release(
        self: &Arc<Self>,
        core: &Arc<Core>,
        instance: InstanceId,
        counts: bool,
        ended: Option<&Ended>,
        now: Time,
    ) {
        let mut untaken = Vec::new();
        self.with(core, |state| {
            match ended {
                Some(ended) if counts => state.tally.ended(ended.outcome, ended.reason, ended.duration),
                Some(_) => state.tally.nobody("probe"),
                None => {}
            }
            if let Some(generation) = state.exit(instance, counts, now) {
                core.up.control(Event::Quiesced { router: core.id, instance, generation });
            }
            self.dispatch(core, state, now, &mut untaken);
        });
    }

    /// Forerun has answered a request that is nobody's.
    pub(crate) fn answered_nobody(self: &Arc<Self>, core: &Core) {
        self.with(core, |state| state.tally.nobody("asleep"));
    }

    /// A request has ended that had no place.
    pub(crate) fn ended(self: &Arc<Self>, core: &Core, ended: &Ended) {
        self.with(core, |state| state.tally.ended(ended.outcome, ended.reason, ended.duration));
    }

    /// The gauges, which count as told from now on.
    pub(crate) fn tell_loads(&self, services: &mut Vec<ServiceLoad>, instances: &mut Vec<InstanceLoad>) {
        let mut state = self.lock();
        (state.changed, state.listed) = (false, false);
        let (in_flight, waiting) = (state.in_use(), state.waiting());
        let peak = std::mem::replace(&mut state.peak, in_flight + waiting);
        services.push(ServiceLoad { service: self.id, in_flight, peak, waiting });
        state.tell_instances(instances);
    }

    /// What [`Self::tell_loads`] gave did not get through. Whether the batch must be told of this service again.
    pub(crate) fn untold(&self, load: &ServiceLoad) -> bool {
        let mut state = self.lock();
        state.changed = true;
        state.peak = state.peak.max(load.peak);
        state.untold_instances();
        !std::mem::replace(&mut state.listed, true)
    }

    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().slots.0.iter().map(|slot| Arc::clone(&slot.pool)).collect()
    }

    pub(crate) fn stats(&self, name: &str, sla: &str) -> ServiceStats {
        let state = self.lock();
        ServiceStats {
            held: state.waiting(),
            held_bytes: state.held_bytes,
            in_flight: state.in_use(),
            instances: state.slots.0.iter().map(|slot| slot.load()).collect(),
            ..state.tally.stats(self.id, name, sla)
        }
    }
}

/// `hold.timeout` counts from a request's arrival, however often it is held.
fn time_left(spec: &ServiceSpec, arrived: Time, now: Time) -> Span {
    spec.hold.timeout - now.since(arrived)
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
    /// Whether the request had to be held for it.
    pub(crate) fn was_held(&self) -> bool {
        self.turn.held
    }

    pub(crate) fn end(mut self, ended: &Ended) {
        self.over = true;
        self.service.release(&self.core, self.instance, self.turn.counts, Some(ended), self.core.now());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.over {
            self.service.release(&self.core, self.instance, self.turn.counts, None, self.core.now());
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
    granted: oneshot::Receiver<Result<Place, Fault>>,
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
        let Self { core, service, ticket, .. } = self;
        service.with(core, |state| {
            if state.remove(*ticket, now).is_some() {
                let waiting = state.waiting();
                core.up.control(Event::Abandoned { router: core.id, service: service.id, waiting });
            }
        });
    }
}
