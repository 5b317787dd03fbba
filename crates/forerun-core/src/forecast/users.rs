//! Bottom-up: which known users are about to need a service.

use crate::profile::gaps::GapHistogram;
use forerun_types::{Span, Time, UserKey};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Users whose next step is kept in mind per service; the oldest go first. Beyond so many the service's own load
/// says all that they could.
const EXPECTED_MAX: usize = 32;
/// An expectation lapses once so much of its gap distribution has passed.
const LAPSED: f64 = 0.98;

/// A user whose last step makes this service likely next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Expected {
    pub user: UserKey,
    pub chance: f64,
    /// When the user's last step was.
    pub from: Time,
    /// Whose gap histogram tells when: the service of the last step.
    pub after: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExpectedUsers {
    users: VecDeque<Expected>,
}

impl ExpectedUsers {
    pub fn add(&mut self, expected: Expected) {
        // A user whose profile was dropped for room and who comes back is still one user.
        self.remove(expected.user);
        if self.users.len() == EXPECTED_MAX {
            self.users.pop_front();
        }
        self.users.push_back(expected);
    }

    pub fn remove(&mut self, user: UserKey) {
        if let Some(at) = self.users.iter().position(|e| e.user == user) {
            self.users.remove(at);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// How many of the expected users will come within `within` from now, on average.
    pub fn count(&mut self, now: Time, within: Span, gaps: &[GapHistogram], all: &GapHistogram) -> f64 {
        let mut sum = 0.0;
        self.users.retain(|e| {
            let histogram = gaps.get(e.after as usize).unwrap_or(all);
            let age = now.since(e.from);
            let gone = histogram.cdf(age, all);
            if gone >= LAPSED {
                return false;
            }
            let then = histogram.cdf(age + within, all);
            // Given that the user has not come yet.
            let left = 1.0 - e.chance * gone;
            if left > 0.0 {
                sum += e.chance * (then - gone).max(0.0) / left;
            }
            true
        });
        sum
    }
}

/// The chances that a Poisson variable of this mean is at least 1, 2, 3, ...
pub fn poisson_tails(mean: f64) -> impl Iterator<Item = f64> {
    let mean = mean.max(0.0);
    let mut term = if mean > 0.0 { libm::exp(-mean) } else { 1.0 };
    let mut below = term;
    (1..).map(move |least| {
        let tail = (1.0 - below).clamp(0.0, 1.0);
        term *= mean / f64::from(least);
        below += term;
        tail
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_of_a_poisson() {
        for (mean, least, tail) in
            [(0.0, 1, 0.0), (1.0, 1, 0.632_120_558_8), (2.0, 2, 0.593_994_150_3), (0.5, 3, 0.014_387_677_97)]
        {
            let got = poisson_tails(mean).nth(least - 1).unwrap();
            assert!((got - tail).abs() < 1e-9, "{mean} {least}: {got}");
        }
    }

    #[test]
    fn a_user_is_expected_by_the_usual_gap_and_then_no_more() {
        let mut gaps = GapHistogram::default();
        for _ in 0..100 {
            gaps.add(Span::from_secs(10));
        }
        let all = gaps.clone();
        let mut expected = ExpectedUsers::default();
        expected.add(Expected { user: UserKey(1), chance: 0.8, from: Time(0), after: 0 });
        let gaps = [gaps];
        let early = expected.count(Time(1_000_000), Span::from_secs(1), &gaps, &all);
        let due = expected.count(Time(8_000_000), Span::from_secs(9), &gaps, &all);
        assert!(early < 0.05 && due > 0.6, "{early} {due}");
        expected.count(Time(10_000_000_000), Span::from_secs(1), &gaps, &all);
        assert!(expected.is_empty());
    }
}
