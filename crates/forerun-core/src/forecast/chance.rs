//! The chance of a need within a time, and where in that time it falls.

use super::parts::{Falls, PARTS, part_at};
use forerun_types::Span;
use serde::{Deserialize, Serialize};

/// The chance that an idle level is needed, and over what time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    pub chance: f64,
    /// The chance is of a need within this time.
    pub within: Span,
    /// Where in that time needs fall.
    pub falls: Falls,
}

/// A stretch of time over which a need comes with a chance, at any moment of it alike.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    pub chance: f64,
    pub within: Span,
}

impl Chance {
    /// Of a need at any moment of this time alike.
    #[must_use]
    pub fn even(chance: f64, within: Span) -> Self {
        Self { chance, within, falls: Falls::EVEN }
    }

    /// The chance of a need between two moments of its time, given none before the first.
    pub(super) fn part(&self, from: Span, to: Span) -> f64 {
        let width = self.within.0.max(1) as f64;
        let [from, to] = [from, to].map(|at| self.falls.at(at.0 as f64 / width));
        let left = 1.0 - self.chance * from;
        // A chance of one has come to pass by the end of its time.
        if left <= 0.0 { 1.0 } else { (self.chance * (to - from).max(0.0) / left).min(1.0) }
    }

    /// What is left of it once `passed` has passed without a need: the chance of each step, given none before it.
    pub(super) fn after(self, passed: Span) -> impl DoubleEndedIterator<Item = Step> {
        let passed = passed.min(self.within);
        let parts = if self.falls.is_even() { 0..1 } else { part_at(passed, self.within)..PARTS };
        parts.map(move |part| {
            let from = self.begins(part).max(passed);
            let to = if self.falls.is_even() { self.within } else { self.begins(part + 1) };
            Step { chance: self.part(from, to), within: to - from }
        })
    }

    /// When a part of it begins.
    fn begins(&self, part: usize) -> Span {
        Span((u128::from(self.within.0) * part as u128).div_ceil(PARTS as u128) as u64)
    }

    /// Of a moment of its time, when the step ends that it lies in.
    pub(super) fn step_ends(&self, passed: Span) -> Span {
        if self.falls.is_even() || passed >= self.within {
            return self.within;
        }
        self.begins(part_at(passed, self.within) + 1)
    }
}
