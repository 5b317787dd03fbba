//! Instances that run what their service was before it was described anew: replaced while nobody uses them.
//!
//! One that the load and the bounds can do without is drained, and what is wanted is started as it is now. One that
//! they cannot do without gets its successor first, where `max` and the room allow two; where they do not, it goes
//! first, and requests of the meantime are held. What somebody else started is left alone, and so is everything while
//! new starts fail.

use crate::core::{Core, Instance, State};
use crate::policy::Policy;
use crate::settle::Started;
use forerun_types::{Action, InstanceId, Reason, ServiceId, StopWhy};

impl<P: Policy> Core<P> {
    /// Whether an instance may take part in the plan only until it is idle.
    pub(crate) fn is_outdated(&self, i: &Instance) -> bool {
        let older = self.get(i.service).is_some_and(|s| i.described < s.described);
        older && !i.own && !i.found
    }

    /// The next of a service's instances that is to be replaced, of those that nobody uses; a frozen one first.
    fn next_outdated(&self, id: ServiceId) -> Option<InstanceId> {
        let s = self.get(id).filter(|s| !s.leaving && s.told.down.is_none())?;
        if self.closing || !self.acts(id) || self.now < s.backoff_until {
            return None;
        }
        let idle = |i: &Instance| match i.state {
            State::Ready => i.requests() == 0 && !i.asked.puts_off(self.now),
            _ => i.state == State::Paused,
        };
        let goes = |i: &Instance| self.is_outdated(i) && idle(i);
        let going = s.instances.iter().copied().filter(|i| self.is(*i, goes));
        going.min_by_key(|i| (!self.is(*i, Instance::frozen), *i))
    }

    /// Ends one idle instance of an earlier description, or starts the successor of one that must not be missed first.
    /// True while that one starts: the plan has one more then than it wants.
    pub(crate) fn replace_outdated(&mut self, id: ServiceId, actions: &mut Vec<Action>) -> bool {
        let Some(instance) = self.next_outdated(id) else { return false };
        let Some(s) = self.get(id) else { return false };
        let reason = Reason::Bound { what: "its service has been described anew".to_owned() };
        let needed = s.spec.instances_for(s.requests()).max(self.least(s));
        if !self.is(instance, Instance::frozen) && s.tally.ready <= needed {
            let most = s.bounds.most(self.now, &s.spec).min(self.most_beside_relatives(id));
            let one_more = self.count(id) < most && self.room.fits(&s.spec.resources);
            // For nothing in return: a successor is not worth more than what another service would lose by it.
            if s.tally.starting > 0
                || one_more && matches!(self.start_one(id, 0, &reason, actions), Started::Yes)
            {
                return true;
            }
            let Some(s) = self.get(id) else { return false };
            // What waits now would bring it back in this very step, over and over.
            if s.tally.ready <= s.spec.instances_for(s.requests()) {
                return false;
            }
        }
        self.end(instance, StopWhy::Plan, reason, false, actions);
        false
    }
}
