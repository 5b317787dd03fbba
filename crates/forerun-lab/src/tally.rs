//! What a world of requests counts while it runs.

use forerun_types::{Span, Time};

/// Raw counts; memory in byte-microseconds, so that no order of adding matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) cold: u64,
    /// Cold ones that joined an instance that was already starting.
    pub(crate) late: u64,
    pub(crate) queued: u64,
    pub(crate) starts: u64,
    /// Instances started with no request waiting, those of them that served one, and those whose first was warm.
    pub(crate) ahead: u64,
    pub(crate) ahead_used: u64,
    pub(crate) ahead_met: u64,
    pub(crate) alloc: u128,
    pub(crate) busy: u128,
    pub(crate) starting: u128,
    /// Waits above zero, in microseconds.
    pub(crate) waits: Vec<u64>,
    pub(crate) services: Vec<Part>,
}

/// What of the counts is one service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) requests: u64,
    pub(crate) cold: u64,
    /// Byte-microseconds of instances that were not busy; below zero while some are.
    pub(crate) waste: i128,
}

/// The window in which costs count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

impl Window {
    /// What of the time between two instants lies inside; zero if they stand the wrong way round.
    pub(crate) fn span(&self, from: Time, to: Time) -> Span {
        self.clip(to).since(self.clip(from))
    }

    fn clip(&self, at: Time) -> Time {
        at.max(self.from).min(self.to)
    }
}
