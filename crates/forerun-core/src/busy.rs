//! Before an idle instance is stopped or frozen, a service that can say so is asked whether it is busy.

use crate::canary::Canary;
use crate::core::{Core, Instance, State};
use crate::policy::Policy;
use forerun_types::{Action, InstanceId, Reason, Span, StopWhy, Time};
use serde::{Deserialize, Serialize};

/// No answer by then is busy.
pub(crate) const ANSWER_WITHIN: Span = Span::from_secs(5);
/// How soon one that is busy is asked again.
const ASK_AGAIN: Span = Span::from_secs(30);
/// How long an answer holds: the stop that asked follows in the same step or the next.
const CLEAR_FOR: Span = Span::from_secs(2);
/// Text of an answer that is kept for people.
const WHY_MAX: usize = 200;

/// What an instance has answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// When it was asked, while its answer is out.
    asked: Option<Time>,
    clear_until: Time,
    /// Not to be asked before.
    again: Time,
    /// Since when it puts a stop off.
    since: Option<Time>,
    why: String,
}

impl Asked {
    /// It is being asked, or has said that it is busy.
    pub(crate) fn puts_off(&self, now: Time) -> bool {
        self.asked.is_some() || (now < self.again && now >= self.clear_until)
    }

    /// When something changes by itself.
    pub(crate) fn deadline(&self, now: Time) -> Time {
        match self.asked {
            Some(asked) => asked + ANSWER_WITHIN,
            None if now < self.again => self.again,
            None => Time::NEVER,
        }
    }

    /// Why a stop is put off, and when it is asked again.
    pub(crate) fn told(&self, now: Time) -> Option<(&str, Time)> {
        (self.since.is_some() && now < self.again).then_some((&self.why, self.again))
    }

    /// What cannot be asked is not busy.
    pub(crate) fn clear(now: Time) -> Self {
        Self { clear_until: now + CLEAR_FOR, ..Self::default() }
    }

    fn put_off(&mut self, now: Time, why: &str) {
        self.asked = None;
        self.since.get_or_insert(now);
        self.again = now + ASK_AGAIN;
        self.why = why.chars().take(WHY_MAX).collect();
    }

    /// It was used: what it said before is past.
    pub(crate) fn used(&mut self) {
        (self.since, self.clear_until, self.again) = (None, Time::default(), Time::default());
    }
}

impl Instance {
    /// Frozen, or on the way there.
    pub(crate) fn frozen(&self) -> bool {
        matches!(self.state, State::Paused | State::Pausing { back: false, .. })
    }
}

impl<P: Policy> Core<P> {
    /// Stops an instance, or freezes it, once it has said that it is not busy; false while that is open.
    pub(crate) fn end(
        &mut self,
        id: InstanceId,
        why: StopWhy,
        reason: Reason,
        pause: bool,
        actions: &mut Vec<Action>,
    ) -> bool {
        // One that is claimed, and not changed yet, is asked as what it is.
        self.give_back(id, actions);
        let ends = self.may_end(id, actions);
        if ends {
            self.drain(id, why, reason, pause, actions);
        }
        ends
    }

    fn may_end(&mut self, id: InstanceId, actions: &mut Vec<Action>) -> bool {
        let now = self.now;
        let Some(instance) = self.instances.get(&id) else { return false };
        let service = instance.service;
        let Some(spec) = self.get(service).map(|s| s.spec.clone()) else { return false };
        // What is not ready yet, or frozen, cannot answer.
        let ignores = self.is_canary(Canary::IgnoresBusy);
        if ignores
            || spec.busy.is_none()
            || instance.state != State::Ready
            || now < instance.asked.clear_until
        {
            return true;
        }
        let over = instance.asked.since.is_some_and(|since| now >= since + spec.busy_max);
        if over || instance.asked.puts_off(now) {
            return over;
        }
        let generation = self.order_generation();
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.asked.asked = Some(now);
        }
        actions.push(Action::AskBusy { instance: id, generation, spec });
        self.retally(service);
        // Also when another service wants its room: the end of its time must be among its own service's dues.
        let due = self.deadline(service).min(self.get(service).map_or(Time::NEVER, |s| s.due));
        self.set_due(service, due);
        false
    }

    pub(crate) fn busy_answer(&mut self, id: InstanceId, busy: bool, why: &str) {
        let now = self.now;
        let Some(instance) = self.instances.get_mut(&id).filter(|i| i.asked.asked.is_some()) else { return };
        let service = instance.service;
        if busy {
            instance.asked.put_off(now, why);
        } else {
            instance.asked.used();
            (instance.asked.asked, instance.asked.clear_until) = (None, now + CLEAR_FOR);
            self.room_changed = true;
        }
        self.retally(service);
        self.mark(service);
    }

    /// Those that have not answered in time are busy.
    pub(crate) fn unanswered(&mut self, id: InstanceId) {
        let now = self.now;
        if let Some(instance) = self.instances.get_mut(&id)
            && instance.asked.asked.is_some_and(|asked| asked + ANSWER_WITHIN <= now)
        {
            instance.asked.put_off(now, "it has not answered whether it is busy");
        }
    }
}
