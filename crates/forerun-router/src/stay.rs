//! A stay: somebody wants a service to be there until some time, and no request of theirs is open meanwhile.
//!
//! So it is with a browser that looks at the waiting page, with a proxy that asks before it sends a request past this
//! router, and with a session of Sablier's. A service has one stay at most, for all of them, which lasts as long as
//! the longest. While it lasts the service counts as waited for until an instance is ready, and then as in use (the
//! instance is *pinned*), but the stay takes no place at the instance: whoever comes next finds it free. An instance
//! that goes is followed by another. A stay that is not renewed ends by itself.

use crate::core::Core;
use crate::fault::Fault;
use crate::service::Service;
use crate::state::State;
use forerun_types::{ActionKey, Event, Span, Time, UserKey};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// Of those who look at a waiting page, so many are remembered until they come back.
const PAGED_MAX: usize = 64;

/// The longest stay; a longer one can be asked for anew.
const STAY_MAX: Span = Span::from_secs(366 * 86_400);

/// A service's stay, under its lock.
#[derive(Debug, Default)]
pub(crate) struct Stay {
    /// Nobody wants it after that.
    until: Time,
    /// Nothing has been ready since then.
    pub(crate) waits_since: Option<Time>,
    /// A task is there that ends it.
    watched: bool,
    /// Who got a waiting page for what: when they come back they do not do it a second time.
    paged: Vec<(UserKey, ActionKey)>,
}

impl Stay {
    fn is_on(&self, now: Time) -> bool {
        now < self.until
    }
}

impl Service {
    /// Wants the service to be there until then.
    pub(crate) fn want(self: &Arc<Self>, core: &Arc<Core>, user: UserKey, until: Time, now: Time) {
        let watch = self.with(core, |state| {
            if state.closing {
                return false;
            }
            state.stay.until = state.stay.until.max(until.min(now + STAY_MAX));
            self.settle_stay(core, state, user, now);
            !std::mem::replace(&mut state.stay.watched, true)
        });
        if watch {
            tokio::spawn(end_in_time(Arc::downgrade(core), Arc::downgrade(self)));
        }
    }

    /// Where the service is ready for who wants it, or nothing while it is not.
    ///
    /// # Errors
    /// Why it is not and will not be soon.
    #[expect(dead_code, reason = "for who asks before it sends a request past this router")]
    pub(crate) fn stays_at(self: &Arc<Self>, core: &Core, now: Time) -> Result<Option<SocketAddr>, Fault> {
        self.with(core, |state| {
            let Some(route) = state.route.clone() else { return Err(Fault::service_gone()) };
            let address = match state.stay.is_on(now) {
                true => state.pin(now),
                false => state.open_instance().map(|instance| instance.address),
            };
            match (address, &route.unavailable) {
                (Some(address), _) => Ok(Some(address)),
                (None, _) if state.closing => Err(Fault::shutting_down()),
                (None, Some(why)) => Err(Fault::unavailable(&route.spec, why)),
                (None, None) => Ok(None),
            }
        })
    }

    /// Brings a stay in line with what the table says.
    pub(crate) fn settle_stay(&self, core: &Core, state: &mut State, user: UserKey, now: Time) {
        if state.route.is_none() {
            self.end_stay(core, state, now);
            return;
        }
        if !state.stay.is_on(now) {
            return;
        }
        if state.pin(now).is_some() {
            if let Some(since) = state.stay.waits_since.take() {
                state.tally.held_for(now.since(since));
                state.moved();
            }
            return;
        }
        let hopeless = state.route.as_ref().is_some_and(|route| route.unavailable.is_some());
        match (hopeless || state.closing, state.stay.waits_since) {
            (true, Some(_)) => self.stop_waiting(core, state),
            (true, None) | (false, Some(_)) => {}
            (false, None) => {
                // Who is held for it already is the same cold start.
                state.tally.cold_starts += u64::from(state.waiting() == 0);
                state.stay.waits_since = Some(now);
                state.moved();
                let waiting = state.waiting();
                core.up.control(Event::Waiting { router: core.id, service: self.id, user, waiting });
            }
        }
    }

    fn stop_waiting(&self, core: &Core, state: &mut State) {
        if state.stay.waits_since.take().is_some() {
            state.moved();
            let waiting = state.waiting();
            core.up.control(Event::Abandoned { router: core.id, service: self.id, waiting });
        }
    }

    pub(crate) fn end_stay(&self, core: &Core, state: &mut State, now: Time) {
        state.stay.until = Time::default();
        state.stay.paged.clear();
        self.stop_waiting(core, state);
        for (instance, generation) in state.unpin(now) {
            core.up.control(Event::Quiesced { router: core.id, instance, generation });
        }
    }

    /// Remembers who got a waiting page.
    pub(crate) fn paged(&self, user: UserKey, action: ActionKey) {
        let paged = &mut self.lock().stay.paged;
        if !paged.contains(&(user, action)) {
            if paged.len() >= PAGED_MAX {
                paged.remove(0);
            }
            paged.push((user, action));
        }
    }
}

impl State {
    /// Whether a request is only the waiting page loaded again, or the one that the page was shown instead of.
    pub(crate) fn comes_back(&mut self, who: (UserKey, ActionKey)) -> bool {
        let Some(at) = self.stay.paged.iter().position(|paged| *paged == who) else { return false };
        if self.route.as_ref().is_some_and(|route| !route.instances.is_empty()) {
            self.stay.paged.swap_remove(at);
        }
        true
    }
}

/// Ends a service's stay when its time has come; there is one such task for each service that has one.
async fn end_in_time(core: Weak<Core>, service: Weak<Service>) {
    loop {
        let Some(left) = next_look(&core, &service) else { return };
        tokio::time::sleep(left.into()).await;
    }
}

fn next_look(core: &Weak<Core>, service: &Weak<Service>) -> Option<Span> {
    /// No timer runs longer than this, so that a service that has gone is noticed.
    const LOOK_MAX: Span = Span::from_secs(600);
    let (core, service) = (core.upgrade()?, service.upgrade()?);
    let now = core.now();
    service.with(&core, |state| {
        if state.stay.is_on(now) {
            return Some(Span(state.stay.until.since(now).0.clamp(1_000, LOOK_MAX.0)));
        }
        service.end_stay(&core, state, now);
        state.stay.watched = false;
        None
    })
}
