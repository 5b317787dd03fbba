//! A user's last steps.

use crate::profile::table::spread;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Steps that are remembered.
const STEPS: usize = 48;
/// Bytes that one has on the heap.
pub(super) const BYTES: usize = STEPS * size_of::<u32>();

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Oldest first.
    steps: Vec<u32>,
    first: u32,
    /// All steps so far.
    seen: u32,
    /// How often in a row the last step was made.
    run: u32,
    /// A sum over the distinct steps that are remembered.
    set: u64,
    /// Seconds since 1970 of the last step, if there is a clock.
    pub last_s: Option<i64>,
    /// Seconds between the last two steps, and between those before.
    pub(super) gap_s: Option<i64>,
    pub(super) gap_before_s: Option<i64>,
}

impl History {
    /// Seconds since the last step, if there is a clock and a step; never negative.
    #[must_use]
    pub fn gap_to(&self, at_s: Option<i64>) -> Option<i64> {
        at_s.zip(self.last_s).map(|(at, last)| at.saturating_sub(last).max(0))
    }

    /// Takes in a step. `at_s`: seconds since 1970, if there is a clock.
    pub fn push(&mut self, item: u32, at_s: Option<i64>) {
        if let Some(gap) = self.gap_to(at_s) {
            self.gap_before_s = self.gap_s.replace(gap);
        }
        self.last_s = at_s.or(self.last_s);
        if self.seen == 0 {
            self.first = item;
            self.steps.reserve_exact(STEPS);
        }
        self.run = if self.steps.last() == Some(&item) { self.run.saturating_add(1) } else { 1 };
        if self.steps.len() == STEPS {
            let gone = self.steps.remove(0);
            if !self.steps.contains(&gone) {
                self.set = self.set.wrapping_sub(spread(u64::from(gone)));
            }
        }
        if !self.steps.contains(&item) {
            self.set = self.set.wrapping_add(spread(u64::from(item)));
        }
        self.steps.push(item);
        self.seen = self.seen.saturating_add(1);
    }

    /// One history of two that were kept apart: the later one's steps stand last, and what is told of the last step is
    /// the later one's.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let (older, newer) = if self.order(other).is_le() { (self, other) } else { (other, self) };
        if older.is_empty() {
            return newer.clone();
        }
        let mut merged = newer.clone();
        merged.steps = older.steps.iter().chain(&newer.steps).copied().collect();
        merged.steps.drain(..merged.steps.len().saturating_sub(STEPS));
        merged.first = older.first;
        merged.seen = older.seen.saturating_add(newer.seen);
        let mut distinct = merged.steps.clone();
        distinct.sort_unstable();
        distinct.dedup();
        merged.set = distinct.iter().fold(0, |sum, item| sum.wrapping_add(spread(u64::from(*item))));
        merged
    }

    /// Orders histories by when they end; what is equal in this is alike in all that a merge looks at.
    fn order(&self, other: &Self) -> Ordering {
        let ends = self.last_s.cmp(&other.last_s).then(self.seen.cmp(&other.seen));
        let steps = self.steps.cmp(&other.steps).then(self.first.cmp(&other.first));
        let gaps = self.gap_s.cmp(&other.gap_s).then(self.gap_before_s.cmp(&other.gap_before_s));
        ends.then(steps).then(self.run.cmp(&other.run)).then(gaps)
    }

    /// Steps that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The step `i` before the last.
    pub(super) fn back(&self, i: usize) -> u32 {
        self.steps[self.steps.len() - 1 - i]
    }

    pub(super) fn recent(&self) -> impl Iterator<Item = u32> + '_ {
        self.steps.iter().rev().copied()
    }

    pub(super) fn seen(&self) -> u32 {
        self.seen
    }

    pub(super) fn first(&self) -> u32 {
        self.first
    }

    pub(super) fn run(&self) -> u32 {
        self.run
    }

    pub(super) fn set(&self) -> u64 {
        self.set
    }
}
