//! What autoscalers measure: how many requests a service had at once, on the average of a stretch of time.

use forerun_types::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A number of requests over time, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Changes to come.
    changes: BinaryHeap<Reverse<(Time, i32)>>,
    count: i64,
    at: Time,
}

impl Load {
    /// The number changes at a time that has not been integrated over yet.
    pub(super) fn change(&mut self, at: Time, by: i32) {
        self.changes.push(Reverse((at, by)));
    }

    /// Request-microseconds from where it was last asked to `to`.
    pub(super) fn until(&mut self, to: Time) -> u64 {
        let mut area = 0;
        while let Some(&Reverse((at, by))) = self.changes.peek()
            && at < to
        {
            self.changes.pop();
            area += self.advance(at);
            self.count += i64::from(by);
        }
        area + self.advance(to)
    }

    /// Whether there is anything, now or to come.
    pub(super) fn is_idle(&self) -> bool {
        self.count == 0 && self.changes.is_empty()
    }

    /// Goes on without counting, for one that is idle.
    pub(super) fn skip(&mut self, to: Time) {
        self.at = self.at.max(to);
    }

    fn advance(&mut self, to: Time) -> u64 {
        let span = to.since(self.at).0;
        self.at = self.at.max(to);
        span * self.count.unsigned_abs()
    }
}
