//! Which orders still mean something: idempotency and generations, alike for every backend.

use crate::OrderError;
use forerun_types::{Generation, InstanceId};
use std::collections::{BTreeMap, HashSet, VecDeque};

/// How many ended instances are remembered, so that an order that comes twice or late changes nothing. An order is
/// repeated within seconds; a machine that ends a hundred instances a second is still covered for ten minutes.
const ENDED_MAX: usize = 65_536;

/// What a start order amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartVerdict {
    Start,
    /// It was given before, or the instance has ended already.
    Nothing,
    /// There are as many instances as the backend may have.
    Full,
    ShuttingDown,
}

/// What a stop order amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopVerdict {
    Stop,
    /// It was given before, or the instance has ended already.
    Nothing,
    /// There never was such an instance.
    Unknown,
}

#[derive(Debug)]
struct Entry {
    generation: Generation,
    stopping: bool,
}

/// All instances from their first order until they are known to be gone, and the latest that ended.
#[derive(Debug)]
pub(crate) struct Ledger {
    live: BTreeMap<InstanceId, Entry>,
    ended: HashSet<InstanceId>,
    /// The ended ones, oldest first.
    ended_order: VecDeque<InstanceId>,
    instances_max: usize,
    shutting_down: bool,
}

impl Ledger {
    pub(crate) fn new(instances_max: usize) -> Self {
        Self {
            live: BTreeMap::new(),
            ended: HashSet::new(),
            ended_order: VecDeque::new(),
            instances_max,
            shutting_down: false,
        }
    }

    pub(crate) fn start(
        &mut self,
        instance: InstanceId,
        generation: Generation,
    ) -> Result<StartVerdict, OrderError> {
        if let Some(entry) = self.live.get_mut(&instance) {
            return obey(instance, entry, generation).map(|()| StartVerdict::Nothing);
        }
        if self.ended.contains(&instance) {
            return Ok(StartVerdict::Nothing);
        }
        if self.shutting_down || self.live.len() >= self.instances_max {
            self.remember(instance);
            return Ok(if self.shutting_down { StartVerdict::ShuttingDown } else { StartVerdict::Full });
        }
        self.live.insert(instance, Entry { generation, stopping: false });
        Ok(StartVerdict::Start)
    }

    pub(crate) fn stop(
        &mut self,
        instance: InstanceId,
        generation: Generation,
    ) -> Result<StopVerdict, OrderError> {
        if let Some(entry) = self.live.get_mut(&instance) {
            obey(instance, entry, generation)?;
            let repeated = std::mem::replace(&mut entry.stopping, true);
            return Ok(if repeated { StopVerdict::Nothing } else { StopVerdict::Stop });
        }
        if self.ended.contains(&instance) {
            return Ok(StopVerdict::Nothing);
        }
        self.remember(instance);
        Ok(StopVerdict::Unknown)
    }

    /// What an order to pause, resume or specialise an instance, or to ask it something, amounts to: whether there is
    /// one to obey, that is not on its way out.
    pub(crate) fn change(
        &mut self,
        instance: InstanceId,
        generation: Generation,
    ) -> Result<bool, OrderError> {
        let Some(entry) = self.live.get_mut(&instance) else { return Ok(false) };
        obey(instance, entry, generation)?;
        Ok(!entry.stopping)
    }

    /// Marks every instance as ordered to stop and returns those that were not yet.
    pub(crate) fn shutdown(&mut self) -> Vec<InstanceId> {
        self.shutting_down = true;
        let fresh = self.live.iter_mut().filter(|(_, entry)| !entry.stopping);
        fresh
            .map(|(instance, entry)| {
                entry.stopping = true;
                *instance
            })
            .collect()
    }

    pub(crate) fn end(&mut self, instance: InstanceId) {
        if self.live.remove(&instance).is_some() {
            self.remember(instance);
        }
    }

    pub(crate) fn running(&self) -> Vec<InstanceId> {
        self.live.keys().copied().collect()
    }

    fn remember(&mut self, instance: InstanceId) {
        if self.ended.insert(instance) {
            self.ended_order.push_back(instance);
        }
        while self.ended_order.len() > ENDED_MAX {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

fn obey(instance: InstanceId, entry: &mut Entry, ordered: Generation) -> Result<(), OrderError> {
    if ordered < entry.generation {
        return Err(OrderError::Stale { instance, ordered, obeyed: entry.generation });
    }
    entry.generation = ordered;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: InstanceId = InstanceId(1);
    const G: fn(u64) -> Generation = Generation;

    #[test]
    fn a_second_order_changes_nothing() {
        let mut ledger = Ledger::new(8);
        assert_eq!(ledger.start(A, G(1)), Ok(StartVerdict::Start));
        assert_eq!(ledger.start(A, G(1)), Ok(StartVerdict::Nothing));
        assert_eq!(ledger.stop(A, G(2)), Ok(StopVerdict::Stop));
        assert_eq!(ledger.stop(A, G(2)), Ok(StopVerdict::Nothing));
        ledger.end(A);
        assert_eq!(ledger.start(A, G(3)), Ok(StartVerdict::Nothing));
        assert_eq!(ledger.stop(A, G(3)), Ok(StopVerdict::Nothing));
        assert!(ledger.running().is_empty());
    }

    #[test]
    fn an_older_generation_is_refused() {
        let mut ledger = Ledger::new(8);
        assert_eq!(ledger.start(A, G(5)), Ok(StartVerdict::Start));
        let stale = Err(OrderError::Stale { instance: A, ordered: G(4), obeyed: G(5) });
        assert_eq!(ledger.stop(A, G(4)), stale);
        assert_eq!(ledger.stop(A, G(5)), Ok(StopVerdict::Stop));
    }

    #[test]
    fn only_what_runs_is_changed() {
        let mut ledger = Ledger::new(8);
        assert_eq!(ledger.change(A, G(1)), Ok(false));
        assert_eq!(ledger.start(A, G(3)), Ok(StartVerdict::Start));
        let stale = Err(OrderError::Stale { instance: A, ordered: G(2), obeyed: G(3) });
        assert_eq!(ledger.change(A, G(2)), stale);
        assert_eq!(ledger.change(A, G(4)), Ok(true));
        assert_eq!(ledger.stop(A, G(3)), Err(OrderError::Stale { instance: A, ordered: G(3), obeyed: G(4) }));
        assert_eq!(ledger.stop(A, G(5)), Ok(StopVerdict::Stop));
        assert_eq!(ledger.change(A, G(6)), Ok(false));
        ledger.end(A);
        assert_eq!(ledger.change(A, G(7)), Ok(false));
    }

    #[test]
    fn a_stop_that_overtakes_its_start_wins() {
        let mut ledger = Ledger::new(8);
        assert_eq!(ledger.stop(A, G(2)), Ok(StopVerdict::Unknown));
        assert_eq!(ledger.stop(A, G(2)), Ok(StopVerdict::Nothing));
        assert_eq!(ledger.start(A, G(1)), Ok(StartVerdict::Nothing));
    }

    #[test]
    fn instances_and_memory_are_bounded() {
        let mut ledger = Ledger::new(1);
        assert_eq!(ledger.start(A, G(1)), Ok(StartVerdict::Start));
        for id in 2..2 + 2 * ENDED_MAX as u64 {
            assert_eq!(ledger.start(InstanceId(id), G(1)), Ok(StartVerdict::Full));
        }
        assert_eq!(ledger.ended.len(), ENDED_MAX);
        assert_eq!(ledger.ended_order.len(), ENDED_MAX);
        assert_eq!(ledger.shutdown(), [A]);
        assert_eq!(ledger.start(InstanceId(1 << 40), G(1)), Ok(StartVerdict::ShuttingDown));
    }
}
