//! How often each expert has seen each candidate.

use super::evidence::{CANDIDATES, Witness};
use super::fast::ln_all;

/// How often each expert has seen each candidate: a column each, so that whole columns are worked on at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    slots: Vec<u8>,
    counts: Vec<f32>,
    /// What each adds in the second stage.
    lifts: Vec<f32>,
}

impl Entries {
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.counts.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    #[inline]
    pub(super) fn push(&mut self, slot: usize, count: f32) {
        self.slots.push(slot as u8);
        self.counts.push(count);
    }

    /// Adds those of `count` that are wanted, without a branch for each: which are is as good as drawn.
    #[inline]
    pub(super) fn extend(&mut self, count: usize, one: impl Fn(usize) -> (u8, f32, bool)) {
        let mut len = self.counts.len();
        self.slots.resize(len + count, 0);
        self.counts.resize(len + count, 0.0);
        for i in 0..count {
            let (slot, n, wanted) = one(i);
            (self.slots[len], self.counts[len]) = (slot, n);
            len += usize::from(wanted);
        }
        self.slots.truncate(len);
        self.counts.truncate(len);
    }

    /// Candidates and counts of a witness.
    #[inline]
    pub(super) fn of(&self, w: &Witness) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.slots[w.from..w.to].iter().map(|slot| at(*slot)).zip(self.counts[w.from..w.to].iter().copied())
    }

    /// Candidates and lifts of a witness.
    #[inline]
    pub(super) fn lifts(&self, w: &Witness) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.slots[w.from..w.to].iter().map(|slot| at(*slot)).zip(self.lifts[w.from..w.to].iter().copied())
    }

    /// Sets the lifts of the first witnesses' entries: by how much each count is above what `first` gives the candidate.
    pub(super) fn lift(&mut self, witnesses: &[Witness], first: &[f32; CANDIDATES], prior: f32) {
        self.lifts.clear();
        for w in witnesses {
            let expected = prior * w.total.max(1.0);
            let above = |(slot, count): (&u8, &f32)| 1.0 + count / (expected * first[at(*slot)] + prior);
            let (slots, counts) = (&self.slots[w.from..w.to], &self.counts[w.from..w.to]);
            self.lifts.extend(slots.iter().zip(counts).map(above));
        }
        ln_all(&mut self.lifts);
    }

    #[inline]
    pub(super) fn count(&self, w: &Witness, slot: usize) -> f32 {
        let found = self.slots[w.from..w.to].iter().position(|s| usize::from(*s) == slot);
        found.map_or(0.0, |i| self.counts[w.from + i])
    }
}

/// A candidate's number, visibly below [`CANDIDATES`].
#[inline]
pub(super) fn at(slot: u8) -> usize {
    usize::from(slot) % CANDIDATES
}
