//! The live clock: wall time at the start, carried on by the monotonic clock.

use crate::ports::{Clock, Reading};
use forerun_types::Time;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A difference between the two clocks below this is drift, not a jump.
const JUMP_LEAST_US: i64 = 500_000;

#[derive(Clone, Debug)]
pub(super) struct LiveClock {
    began: Time,
    instant: Instant,
    /// Wall less `now`, as last told.
    ahead_us: i64,
    /// The wall clock is compared at most so often; reading it costs.
    compared: Instant,
}

impl LiveClock {
    /// `not_before`: the last instant of an earlier life; `now` starts after it even if the wall clock went back.
    #[must_use]
    pub(super) fn new(not_before: Time) -> Self {
        let wall = wall_us();
        let began = Time(wall.max(not_before.0 + 1));
        let instant = Instant::now();
        Self { began, instant, ahead_us: wall as i64 - began.0 as i64, compared: instant }
    }

    /// The same `now` for readers that are no drivers.
    #[must_use]
    pub(super) fn now(&self) -> Time {
        Time(self.began.0 + self.instant.elapsed().as_micros() as u64)
    }
}

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

impl Clock for LiveClock {
    fn read(&mut self) -> Reading {
        let now = self.now();
        let mut jumped = None;
        if self.compared.elapsed().as_millis() >= 100 {
            self.compared = Instant::now();
            let ahead = wall_us() as i64 - now.0 as i64;
            if (ahead - self.ahead_us).abs() >= JUMP_LEAST_US {
                jumped = Some(ahead - self.ahead_us);
                self.ahead_us = ahead;
            }
        }
        Reading { now, jumped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_never_goes_back_behind_an_earlier_life() {
        let future = Time(wall_us() + 3_600_000_000);
        let mut clock = LiveClock::new(future);
        let first = clock.read().now;
        assert!(first > future);
        assert!(clock.read().now >= first);
    }
}
