//! `advise`: what Forerun would have done, decided and told as if it were done, while nothing outside changes.
//!
//! For this it keeps the number of instances that would be up had it acted. The plan is asked as if they were there,
//! so that what it says of keeping and letting go follows from what it said of starting. What somebody else starts or
//! stops would have happened all the same. Where there is no room now for an instance more, it is not advised until
//! there is: which of other services' instances would have made way is not told.

use crate::core::Core;
use crate::policy::Policy;
use forerun_types::{Action, Mode, Reason, ServiceId, Time};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Pieces of advice on a service that are remembered for `status`.
const KEPT_MAX: usize = 5;

/// What Forerun would have done with a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    pub at: Time,
    /// Instances that would have been up before, and after.
    pub from: u32,
    pub to: u32,
    pub reason: Reason,
}

/// A service as it would be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Advised {
    /// Instances that would be up; `None` while nothing is advised.
    up: Option<u32>,
    /// Those that were up when that was last looked at.
    seen: u32,
    pub(crate) told: VecDeque<Advice>,
}

impl Advised {
    /// Takes over what others started or stopped since the last look; returns how many would be up.
    fn follow(&mut self, have: u32) -> u32 {
        let up = self.up.unwrap_or(have);
        let up = if have > self.seen { up.max(have) } else { up.saturating_sub(self.seen - have) };
        self.seen = have;
        up
    }

    /// Nothing is advised until there is reason to again.
    pub(crate) fn end(&mut self) {
        (self.up, self.seen) = (None, 0);
    }
}

impl<P: Policy> Core<P> {
    /// Whether what would be done with a service is told, and not done.
    fn advises(&self, id: ServiceId) -> bool {
        let advised = |s: &crate::core::Service| self.elder(s).mode() == Mode::Advise && !s.leaving;
        !self.closing && self.get(id).is_some_and(advised)
    }

    /// Instances that the plan is asked about as if they were there.
    pub(crate) fn up_or_advised(&self, id: ServiceId) -> u32 {
        let up = self.count(id).saturating_add(self.freezing(id));
        match self.get(id).and_then(|s| s.advised.up) {
            Some(advised) if self.advises(id) => up.max(advised),
            _ => up,
        }
    }

    /// Tells what would be done so that as many are up as the plan wants.
    pub(crate) fn advise(&mut self, id: ServiceId, wanted: u32, reason: &Reason, actions: &mut Vec<Action>) {
        let (advises, have, site, now) = (self.advises(id), self.count(id), self.site(id), self.now);
        let Some(s) = self.services.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        if !advises {
            s.advised.end();
            return;
        }
        // It may not be known yet what runs already.
        if s.unlisted(now) {
            return;
        }
        let from = s.advised.follow(have);
        let mut to = wanted.min(from);
        if wanted > from {
            let mut room = self.rooms.at(site).clone();
            (have..from).for_each(|_| room.reserve(&s.spec.resources));
            to = from;
            while to < wanted && room.fits(&s.spec.resources) {
                room.reserve(&s.spec.resources);
                to += 1;
            }
        }
        s.advised.up = Some(to);
        if to == from {
            return;
        }
        if s.advised.told.len() == KEPT_MAX {
            s.advised.told.pop_front();
        }
        s.advised.told.push_back(Advice { at: now, from, to, reason: reason.clone() });
        actions.push(Action::Advise { service: id, site, from, to, reason: reason.clone() });
    }
}
