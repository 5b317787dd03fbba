//! Who says in the world of requests what is wanted: a list of decisions made before, or a policy that looks at the
//! world while it runs.

use crate::Decision;
use crate::instances::{Instances, Key};
use forerun_types::Time;

/// A request that has just been given to an instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) service: u32,
    pub(crate) instance: Key,
    /// From when to when the instance is busy with it.
    pub(crate) begin: Time,
    pub(crate) end: Time,
}

/// Decisions and evictions; the world's rules are the same for all.
pub(crate) trait Steer {
    /// Nothing is stopped but to make room, and what exists is what was wanted.
    const KEEPS: bool = false;
    /// What is wanted is to be written down.
    const RECORDS: bool = true;

    /// When it decides next; never before what it was last told.
    fn next(&self) -> Time;

    /// Appends what is wanted from `at` on.
    fn decide(&mut self, at: Time, instances: &Instances, wants: &mut Vec<Decision>);

    fn arrived(&mut self, _at: Time, _service: u32) {}

    fn placed(&mut self, _placed: &Placed) {}

    /// Of the idle instances the one to stop for room: the least recently used, unless a policy knows better.
    fn victim(&mut self, _at: Time, instances: &Instances) -> Option<Key> {
        instances.idle().next()
    }
}

/// Decisions in order of time.
pub(crate) struct Listed<'a>(pub(crate) &'a [Decision]);

impl Steer for Listed<'_> {
    const RECORDS: bool = false;

    fn next(&self) -> Time {
        self.0.first().map_or(Time::NEVER, |d| d.at)
    }

    fn decide(&mut self, _at: Time, _instances: &Instances, wants: &mut Vec<Decision>) {
        if let Some((first, rest)) = self.0.split_first() {
            wants.push(*first);
            self.0 = rest;
        }
    }
}
