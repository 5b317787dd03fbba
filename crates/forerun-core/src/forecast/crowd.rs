//! How many requests come within one start of the first: what one instance that is missing makes wait.

use forerun_types::{Span, Time};
use serde::{Deserialize, Serialize};

/// Crowds that a service's own are backed by, of one request each.
const PRIOR: f64 = 2.0;
/// Crowds that are remembered, as an exponential mean.
const REMEMBERED: f64 = 32.0;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Crowd {
    first: Time,
    last: Time,
    size: u32,
    /// Whether nothing had come for a start time before the first.
    after_idle: bool,
    crowds: f64,
    sizes: f64,
}

impl Crowd {
    pub fn arrived(&mut self, at: Time, start: Span) {
        let fresh = self.size == 0 || at > self.first + start;
        if fresh {
            if self.size > 0 && self.after_idle {
                let keep = if self.crowds >= REMEMBERED { 1.0 - 1.0 / REMEMBERED } else { 1.0 };
                self.crowds = self.crowds * keep + 1.0;
                self.sizes = self.sizes * keep + f64::from(self.size);
            }
            self.after_idle = self.size == 0 || at > self.last + start;
            (self.first, self.size) = (at, 0);
        }
        self.size = self.size.saturating_add(1);
        self.last = self.last.max(at);
    }

    /// The usual size of a crowd after idle time, at least 1.
    #[must_use]
    pub fn usual(&self) -> f64 {
        (self.sizes + PRIOR) / (self.crowds + PRIOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowds_are_told_from_single_requests() {
        let start = Span::from_secs(10);
        for (offsets, expect) in
            [(vec![0, 1, 2, 3], 4.0), (vec![0], 1.0), (vec![0, 11, 22, 33], 1.0), (vec![0, 5, 12], 2.0)]
        {
            let mut crowd = Crowd::default();
            for round in 0..200 {
                for offset in &offsets {
                    crowd.arrived(Time((round * 100 + offset) * 1_000_000), start);
                }
            }
            assert!((crowd.usual() - expect).abs() < 0.2, "{offsets:?}: {}", crowd.usual());
        }
    }
}
