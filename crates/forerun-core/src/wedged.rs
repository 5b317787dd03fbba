//! Instances that take requests and answer none: replaced once a router has seen enough of it.
//!
//! Only a row of tries without any answer counts, and how long it lasts: an instance that is slow, and answers somebody
//! now and then, never comes that far, nor does one that an answer is coming from. What it is replaced by is the plan's
//! affair: it leaves, as one that died would, with the same pause before the next start where several fail in a row.

use crate::busy::Asked;
use crate::canary::Canary;
use crate::core::{Core, Instance, State};
use crate::policy::Policy;
use forerun_types::{Action, Busy, InstanceId, Reason, RouterId, ServiceId, ServiceSpec, Span, StopWhy};
use serde::{Deserialize, Serialize};

/// One refusal may be a listener that is being opened again, two a request that kills connections.
const TRIES_LEAST: u32 = 3;
/// A configuration that is loaded anew, or a garbage collection, takes less. Where `start_timeout` is longer, that
/// counts: so long its service may need before it answers.
const SILENT_LEAST: Span = Span::from_secs(30);
/// Where clients went away first, nobody knows what would have come: so long a router waits for an answer by default.
const SILENT_LEFT: Span = Span::from_secs(300);

/// What one router has seen of an instance that answers nothing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Silent {
    pub(crate) router: RouterId,
    tries: u32,
    /// Of those, how many clients went away first.
    left: u32,
    lasts: Span,
}

impl Silent {
    pub(crate) fn new(router: RouterId, tries: u32, left: u32, lasts: Span) -> Self {
        Self { router, tries, left, lasts }
    }

    fn suffices(&self, spec: &ServiceSpec) -> bool {
        let least = spec.start_timeout.max(SILENT_LEAST);
        let failed = self.tries.saturating_sub(self.left) >= TRIES_LEAST && self.lasts >= least;
        failed || self.tries >= TRIES_LEAST && self.lasts >= least.max(SILENT_LEFT)
    }

    fn sentence(&self) -> String {
        format!("{} requests in a row got no answer for {}", self.tries, self.lasts)
    }
}

impl Instance {
    /// What it does not answer, in words; of several routers' the longest.
    pub(crate) fn silence(&self) -> Option<String> {
        self.silent.iter().max_by_key(|s| s.lasts).map(Silent::sentence)
    }

    /// Why it counts as wedged. A router that has sent something there, and has not told that it gets no answer, may
    /// be getting one.
    pub(crate) fn wedged(&self, spec: &ServiceSpec) -> Option<String> {
        let silent = |router| self.silent.iter().any(|s| s.router == router);
        let answers = self.in_flight.iter().any(|(router, n)| *n > 0 && !silent(*router));
        let worst = self.silent.iter().filter(|s| s.suffices(spec)).max_by_key(|s| s.lasts);
        worst.filter(|_| self.state == State::Ready && !answers).map(|s| format!("wedged: {}", s.sentence()))
    }

    /// It goes because it is wedged, and has its place of `max` until it is gone: what would be started beside it may
    /// need what it holds.
    pub(crate) fn goes_wedged(&self) -> bool {
        matches!(
            self.state,
            State::Draining { why: StopWhy::Wedged, .. } | State::Stopping { why: StopWhy::Wedged, .. }
        )
    }
}

impl<P: Policy> Core<P> {
    pub(crate) fn silence_told(&mut self, id: InstanceId, told: Silent) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.silent.retain(|s| s.router != told.router);
        if told.tries > 0 && instance.state == State::Ready {
            instance.silent.push(told);
        }
        let service = instance.service;
        self.mark(service);
    }

    /// Lets the first of a service's wedged instances go, one at a time: where all of them answer nothing, what they
    /// need may be at fault, and not they.
    pub(crate) fn replace_wedged(&mut self, id: ServiceId, actions: &mut Vec<Action>) {
        let now = self.now;
        let Some(s) = self.get(id) else { return };
        let spoken_for = self.closing || s.leaving || s.told.down.is_some() || !self.acts(id);
        if spoken_for || now < s.backoff_until || self.is_canary(Canary::KeepsWedged) {
            return;
        }
        if s.instances.iter().any(|i| self.is(*i, Instance::goes_wedged)) {
            return;
        }
        let spec = s.spec.clone();
        let of = |i: &InstanceId| Some((*i, self.instances.get(i)?.wedged(&spec)?));
        let Some((instance, why)) = s.instances.iter().find_map(of) else { return };
        // What answers nothing does not answer over the same door whether it is busy.
        if matches!(spec.busy, Some(Busy::Http { .. }))
            && let Some(instance) = self.instances.get_mut(&instance)
        {
            instance.asked = Asked::clear(now);
        }
        let Some(was) = self.instances.get(&instance).cloned() else { return };
        let lasts = was.silent.iter().map(|s| s.lasts).max().unwrap_or(Span::ZERO);
        if self.end(instance, StopWhy::Wedged, Reason::Failed { why: why.clone() }, false, actions) {
            self.failed_ready(&was, now.minus(lasts), &why);
        }
    }

    /// Whether one more of a service has to wait until a wedged one is gone: for its place, or because that one is the
    /// user's own, which is then started again.
    pub(crate) fn waits_for_wedged(&self, id: ServiceId) -> bool {
        let Some(s) = self.get(id) else { return false };
        let going = || s.instances.iter().filter_map(|i| self.instances.get(i)).filter(|i| i.goes_wedged());
        let places = going().count() as u32;
        let full = self.count(id).saturating_add(places) >= s.bounds.most(self.now, &s.spec);
        places > 0 && (full || going().any(|i| i.own || i.found))
    }
}
