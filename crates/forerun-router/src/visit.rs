//! One request's account, written when it is dropped: however the request ends, it is counted once.

use crate::body::{Progress, Upload};
use crate::core::Core;
use crate::fault::{self, Fault, Source};
use crate::service::{Ended, Place, Service};
use crate::stats::Outcome;
use forerun_route::Reply;
use forerun_types::{ActionKey, Finished, Span, Time};
use hyper::StatusCode;
use std::sync::Arc;

pub(crate) struct Visit {
    core: Arc<Core>,
    service: Arc<Service>,
    /// `None` is nobody's: nothing is learned from it.
    action: Option<ActionKey>,
    arrived: Time,
    held: Span,
    /// At an instance since then.
    place: Option<(Place, Time)>,
    status: u16,
    /// The instance's answer has begun.
    begun: bool,
    pub(crate) progress: Arc<Progress>,
    outcome: Outcome,
    reason: Option<&'static str>,
}

impl Visit {
    pub(crate) fn new(
        core: Arc<Core>,
        service: Arc<Service>,
        action: Option<ActionKey>,
        arrived: Time,
    ) -> Self {
        Self {
            core,
            service,
            action,
            arrived,
            held: Span::ZERO,
            place: None,
            status: 0,
            begun: false,
            progress: Arc::default(),
            // Dropped before anyone said otherwise: the client went away.
            outcome: Outcome::Gone,
            reason: None,
        }
    }

    /// It is an instance's turn now; the wait, if there was one, is over.
    pub(crate) fn at(&mut self, place: Place) {
        let now = self.core.now();
        if place.was_held() {
            self.held = now.since(self.arrived);
        }
        self.place = Some((place, now));
    }

    /// The instance did not take it: nothing was done there.
    pub(crate) fn back(&mut self) -> Option<Place> {
        self.place.take().map(|(place, _)| place)
    }

    /// Whether it is nobody's.
    pub(crate) fn is_silent(&self) -> bool {
        self.action.is_none()
    }

    pub(crate) fn arrived(&self) -> Time {
        self.arrived
    }

    pub(crate) fn answers(&mut self, status: StatusCode) {
        self.status = status.as_u16();
        self.begins();
    }

    fn begins(&mut self) {
        if let Some((place, _)) = self.place.as_ref().filter(|_| !self.begun) {
            place.answers();
            self.begun = true;
        }
    }

    /// What the instance owes this request, which was there `since`.
    fn reply(&self, since: Time) -> Reply {
        match self.outcome {
            _ if self.begun => Reply::Begun,
            Outcome::Gone if self.progress.is_bodyless() => Reply::Left { since },
            Outcome::Failed if self.reason.is_some_and(fault::is_silence) => Reply::Failed { since },
            _ => Reply::NotAsked,
        }
    }

    pub(crate) fn settle(&mut self, outcome: Outcome, reason: Option<&'static str>) {
        (self.outcome, self.reason) = (outcome, reason);
    }

    /// The waiting page was shown instead of an answer.
    pub(crate) fn answered_by_page(mut self, status: StatusCode) {
        self.status = status.as_u16();
        self.settle(Outcome::Refused, Some("page"));
    }

    /// The instance's answer broke off: by itself, or because the client's body did.
    pub(crate) fn cut_short(&mut self) {
        if self.progress.upload() == Upload::Fine {
            self.status = StatusCode::BAD_GATEWAY.as_u16();
            self.settle(Outcome::Failed, Some("upstream-cut"));
        }
    }

    /// Forerun answers itself, and the visit is over.
    pub(crate) fn refuse(mut self, fault: Fault) -> Fault {
        self.status = fault.status.as_u16();
        let outcome = match fault.source {
            _ if fault.reason == Fault::CLIENT_GONE => Outcome::Gone,
            Source::Internal => Outcome::Refused,
            Source::Client | Source::Upstream => Outcome::Failed,
        };
        self.settle(outcome, Some(fault.reason));
        if fault.reason == Fault::NONSENSE {
            self.begins();
        }
        fault
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = self.core.now();
        let ended = Ended { outcome: self.outcome, reason: self.reason, duration: now.since(self.arrived) };
        let Some((place, since)) = self.place.take() else {
            self.service.ended(&self.core, &ended);
            return;
        };
        let reply = self.reply(since);
        if let Some(action) = self.action {
            self.core.batch.finished(Finished {
                service: place.service(),
                action,
                instance: place.instance,
                duration: now.since(since),
                held: self.held,
                network_bytes: self.progress.bytes(),
                status: if self.outcome == Outcome::Gone { 0 } else { self.status },
            });
        }
        place.end(&ended, reply);
    }
}
