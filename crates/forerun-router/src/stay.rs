//! A stay: somebody wants a service to be there until some time, and no request of theirs is open meanwhile.
//!
//! So it is with a browser that looks at the waiting page, with a proxy that asks before it sends a request past this
//! router, and with a session of Sablier's. A service has one stay at most, for all of them, which lasts as long as
//! the longest. While it lasts the service counts as waited for until an instance is ready, and then as in use (the
//! instance is *pinned*), but the stay takes no place at the instance: whoever comes next finds it free. An instance
//! that goes is followed by another. A stay that is not renewed ends by itself.

use crate::core::Core;
use crate::fault::Fault;
use crate::service::{Service, State};
use forerun_route::HoldRefusal;
use forerun_types::{ActionKey, ServiceSpec, Span, Time, UserKey};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// Of those who look at a waiting page, so many are remembered until they come back.
const PAGED_MAX: usize = 64;

/// The longest stay; a longer one can be asked for anew.
const STAY_MAX: Span = Span::from_secs(366 * 86_400);

/// How long a service is wanted for the sake of one who waits for an answer, and how often that is said again.
const WAIT_STAY: Span = Span::from_secs(3);
const WAIT_RENEWED: Span = Span::from_secs(1);

/// Who got a waiting page for what: when they come back they do not do it a second time.
#[derive(Debug, Default)]
pub(crate) struct Paged {
    who: Vec<(UserKey, ActionKey)>,
    /// A task is there that ends the stay.
    watched: bool,
}

impl Service {
    /// Wants the service to be there until then.
    pub(crate) fn want(self: &Arc<Self>, core: &Arc<Core>, user: UserKey, until: Time, now: Time) {
        let watch = self.with(core, |state, led| {
            if state.queue.is_closing() {
                return false;
            }
            state.queue.stay(user, until.min(now + STAY_MAX), now, led);
            !std::mem::replace(&mut state.paged.watched, true)
        });
        if watch {
            tokio::spawn(end_in_time(Arc::downgrade(core), Arc::downgrade(self)));
        }
    }

    /// Where the service is ready for who wants it, or nothing while it is not.
    ///
    /// # Errors
    /// Why it is not and will not be soon.
    pub(crate) fn stays_at(
        self: &Arc<Self>,
        core: &Arc<Core>,
        now: Time,
    ) -> Result<Option<SocketAddr>, Fault> {
        self.with(core, |state, led| state.queue.stays_at(now, led)).map_err(Fault::refused)
    }

    /// Wants the service, and waits until it is ready, for at most `patience`. Safe to cancel: it is no longer wanted
    /// soon after that.
    ///
    /// # Errors
    /// It is not ready by then, or will not be soon.
    pub(crate) async fn ready(
        self: &Arc<Self>,
        core: &Arc<Core>,
        spec: &ServiceSpec,
        user: UserKey,
        patience: Span,
    ) -> Result<SocketAddr, Fault> {
        let look = async {
            loop {
                let news = self.news.notified();
                let now = core.now();
                if let Some(address) = self.stays_at(core, now)? {
                    return Ok(address);
                }
                self.want(core, user, now + WAIT_STAY, now);
                // News, or it is time to say again that somebody waits.
                let _ = tokio::time::timeout(WAIT_RENEWED.into(), news).await;
            }
        };
        match tokio::time::timeout(patience.into(), look).await {
            Ok(looked) => looked,
            Err(_) => Err(Fault::hold(&spec.name, &HoldRefusal::Timeout { timeout: patience })),
        }
    }

    /// Remembers who got a waiting page.
    pub(crate) fn paged(&self, user: UserKey, action: ActionKey) {
        let paged = &mut self.lock().paged.who;
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
        let Some(at) = self.paged.who.iter().position(|paged| *paged == who) else { return false };
        if self.queue.route().is_some_and(|route| !route.instances.is_empty()) {
            self.paged.who.swap_remove(at);
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
    service.with(&core, |state, led| {
        if let Some(until) = state.queue.stays_until(now) {
            return Some(Span(until.since(now).0.clamp(1_000, LOOK_MAX.0)));
        }
        state.queue.end_stay(now, led);
        state.paged.who.clear();
        state.paged.watched = false;
        None
    })
}
