//! What follows a context, and the mix of several.

use serde::{Deserialize, Serialize};

/// Followers that one context remembers; the rarest is replaced.
const FOLLOWERS: usize = 6;
/// Contexts that one mix can take.
const CONTEXTS: usize = 6;

/// How often each of a few services has followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    total: u16,
    distinct: u8,
    services: [u32; FOLLOWERS],
    counts: [u16; FOLLOWERS],
}

impl Counts {
    pub(super) fn of(steps: &[u32]) -> Self {
        let mut counts = Self::default();
        for &service in steps {
            counts.add(service);
        }
        counts
    }

    pub(super) fn total(&self) -> u16 {
        self.total
    }

    fn known(&self) -> &[u32] {
        &self.services[..usize::from(self.distinct)]
    }

    /// Counts a follower; returns whether it was known.
    pub(super) fn add(&mut self, service: u32) -> bool {
        if self.total == u16::MAX {
            self.counts.iter_mut().for_each(|c| *c = (*c / 2).max(1));
            self.total /= 2;
        }
        self.total += 1;
        if let Some(at) = self.known().iter().position(|s| *s == service) {
            self.counts[at] += 1;
            return true;
        }
        let at = if usize::from(self.distinct) < FOLLOWERS {
            self.distinct += 1;
            usize::from(self.distinct) - 1
        } else {
            (0..FOLLOWERS).min_by_key(|&i| self.counts[i]).unwrap_or(0)
        };
        self.services[at] = service;
        self.counts[at] = 1;
        false
    }
}

/// Contexts blended by escape: each takes its share of what the ones before it left.
#[derive(Debug)]
pub(super) struct Mix {
    services: [u32; FOLLOWERS * CONTEXTS],
    chances: [f64; FOLLOWERS * CONTEXTS],
    len: usize,
    left: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { services: [0; FOLLOWERS * CONTEXTS], chances: [0.0; FOLLOWERS * CONTEXTS], len: 0, left: 1.0 }
    }
}

impl Mix {
    /// What no context has claimed yet.
    pub(super) fn left(&self) -> f64 {
        self.left
    }

    pub(super) fn take(&mut self, context: &Counts) {
        if context.total == 0 {
            return;
        }
        let distinct = f64::from(context.distinct);
        let share = self.left / (f64::from(context.total) + distinct);
        for (&service, &count) in context.known().iter().zip(&context.counts) {
            let chance = share * f64::from(count);
            match self.services[..self.len].iter().position(|s| *s == service) {
                Some(at) => self.chances[at] += chance,
                None if self.len < self.services.len() => {
                    self.services[self.len] = service;
                    self.chances[self.len] = chance;
                    self.len += 1;
                }
                None => {}
            }
        }
        self.left = share * distinct;
    }

    /// Takes out the likeliest that is at least `least` likely; of equals the lowest service.
    pub(super) fn pop_best(&mut self, least: f64) -> Option<(u32, f64)> {
        let mut best: Option<usize> = None;
        for at in 0..self.len {
            let better = best.is_none_or(|b| {
                let (this, that) = (self.chances[at], self.chances[b]);
                this > that || (this == that && self.services[at] < self.services[b])
            });
            if self.chances[at] >= least && better {
                best = Some(at);
            }
        }
        let at = best?;
        Some((self.services[at], std::mem::replace(&mut self.chances[at], 0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chances_and_what_is_left_make_one(contexts in proptest::collection::vec(proptest::collection::vec(0u32..6, 0..40), 0..6)) {
            let mut mix = Mix::default();
            for steps in &contexts {
                mix.take(&Counts::of(steps));
            }
            let sum: f64 = mix.chances[..mix.len].iter().sum();
            prop_assert!((sum + mix.left() - 1.0).abs() < 1e-9, "{sum} + {}", mix.left());
        }
    }

    #[test]
    fn the_rarest_makes_way() {
        let mut counts = Counts::default();
        for service in [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 7] {
            counts.add(service);
        }
        assert!(counts.known().contains(&7) && !counts.known().contains(&6) && counts.known().contains(&1));
    }
}
