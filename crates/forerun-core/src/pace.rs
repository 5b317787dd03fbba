//! How many planned starts may be under way at a site at once.
//!
//! An engine makes so many instances a second and no more, whoever they are for. Of many foreseen starts that are ordered at
//! once the last take long, and so does every request that comes meanwhile. So a site has a window of planned starts, as a
//! sender in a network has one of packets (TCP Vegas: Brakmo, O'Malley, Peterson, SIGCOMM '94): it doubles until starts take
//! clearly longer than the service's quick ones did, shrinks while they do, and grows by one a window after that. What is held,
//! bound by `min` or told by a person waits for no window.

use crate::core::{Core, Instance, State};
use crate::policy::Policy;
use crate::settle::BOUND_PRICE;
use forerun_types::{InstanceId, ServiceId, SiteId, Span};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

const WINDOW_FIRST: u32 = 8;
const WINDOW_LEAST: u32 = 4;
const WINDOW_MOST: u32 = 1_024;
/// A start is slow when it takes so many times what quick ones do, and so much more.
const SLOW_TIMES: u64 = 2;
const SLOW_BEYOND: Span = Span::from_millis(100);
/// A slow start takes an eighth off the window.
const SHRINK: u32 = 8;
/// Services that get their turn within one step; the next go on at the next change.
const TURNS_MOST: usize = 64;
const ONE: u32 = 1_000;

/// The planned starts of one site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// How many may be under way, in thousandths.
    window_milli: u32,
    /// No start has been slow yet.
    doubles: bool,
    under_way: Vec<InstanceId>,
    /// Whose turn has not come, and what their next instance is worth.
    waiting: BTreeMap<ServiceId, i64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            window_milli: WINDOW_FIRST * ONE,
            doubles: true,
            under_way: Vec::new(),
            waiting: BTreeMap::new(),
        }
    }
}

impl Pace {
    fn free(&self) -> usize {
        ((self.window_milli / ONE) as usize).saturating_sub(self.under_way.len())
    }

    /// Those count that are still starting.
    fn look(&mut self, instances: &BTreeMap<InstanceId, Instance>) {
        self.under_way.retain(|id| instances.get(id).is_some_and(|i| i.state == State::Starting));
    }

    /// A planned start is done.
    fn took(&mut self, slow: bool) {
        let window = self.window_milli;
        let next = match (slow, self.doubles) {
            (true, _) => window - window / SHRINK,
            (false, true) => window + ONE,
            (false, false) => window + ONE * ONE / window,
        };
        self.doubles &= !slow;
        self.window_milli = next.clamp(WINDOW_LEAST * ONE, WINDOW_MOST * ONE);
    }

    /// The service that waits for the most valuable instance.
    fn next(&mut self) -> Option<ServiceId> {
        let next = self.waiting.iter().max_by_key(|(service, price)| (**price, Reverse(**service)));
        let service = *next?.0;
        self.waiting.remove(&service);
        Some(service)
    }
}

impl<P: Policy> Core<P> {
    /// Whether a start at this price may be ordered now; if not, the service waits for its turn.
    pub(crate) fn has_turn(&mut self, service: ServiceId, site: SiteId, price: i64) -> bool {
        if price >= BOUND_PRICE {
            return true;
        }
        let pace = self.paces.entry(site).or_default();
        if pace.free() == 0 {
            pace.look(&self.instances);
        }
        if pace.free() == 0 {
            pace.waiting.insert(service, price);
            return false;
        }
        pace.waiting.remove(&service);
        true
    }

    pub(crate) fn planned_start(&mut self, instance: InstanceId, site: SiteId) {
        self.paces.entry(site).or_default().under_way.push(instance);
    }

    /// An instance is ready, which is not yet counted among its service's starts.
    pub(crate) fn pace_ready(&mut self, id: InstanceId) {
        let Some(Instance { service, site, born, .. }) = self.instances.get(&id) else { return };
        let Some(pace) = self.paces.get_mut(site).filter(|pace| pace.under_way.contains(&id)) else { return };
        let Some(s) = self.services.get(service.0 as usize).and_then(Option::as_ref) else { return };
        let quick = self.demand.quick_start(&s.spec);
        pace.took(self.now.since(*born) > Span(quick.0.saturating_mul(SLOW_TIMES)) + SLOW_BEYOND);
    }

    /// Who waits has a turn where starts have ended.
    pub(crate) fn take_turns(&mut self) {
        let (mut turns, mut later) = (Vec::new(), Vec::new());
        for pace in self.paces.values_mut().filter(|pace| !pace.waiting.is_empty()) {
            pace.look(&self.instances);
            let free = pace.free().min(TURNS_MOST);
            turns.extend(std::iter::from_fn(|| pace.next()).take(free));
            // Who has a turn may want none any more.
            later.extend(pace.waiting.keys().next().copied().filter(|_| free > 0));
        }
        turns.into_iter().for_each(|service| self.mark(service));
        let now = self.now;
        later.into_iter().for_each(|service| self.set_due(service, now));
    }

    /// A new life: nothing is under way, and nobody waits.
    pub(crate) fn pace_began(&mut self) {
        for pace in self.paces.values_mut() {
            pace.under_way.clear();
            pace.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_finds_what_an_engine_makes_at_once() {
        // An engine that makes one in 250 ms, one after the other; alone a start takes as long.
        let (alone, mut pace) = (250, Pace::default());
        let mut most = 0;
        for _ in 0..200 {
            let at_once = u64::from(pace.window_milli / ONE);
            most = most.max(at_once);
            pace.took(alone * at_once > 2 * alone + 100);
        }
        assert!(pace.window_milli / ONE == WINDOW_LEAST && most <= 9, "{pace:?} {most}");
        // One that makes any number at once.
        (0..5_000).for_each(|_| pace.took(false));
        assert!(pace.window_milli / ONE > 90, "{pace:?}");
        let mut free = Pace::default();
        (0..5_000).for_each(|_| free.took(false));
        assert_eq!(free.window_milli, WINDOW_MOST * ONE);
    }

    #[test]
    fn turns_go_by_worth() {
        let mut pace = Pace::default();
        pace.waiting.extend([(ServiceId(1), 5), (ServiceId(2), 9), (ServiceId(3), 9)]);
        let turns: Vec<_> = std::iter::from_fn(|| pace.next()).collect();
        assert_eq!(turns, [ServiceId(2), ServiceId(3), ServiceId(1)]);
    }
}
