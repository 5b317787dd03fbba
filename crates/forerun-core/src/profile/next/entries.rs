//! How often each expert has seen each candidate.

use super::evidence::{CANDIDATES, Witness};
use super::fast::ln;

/// How often each expert has seen each candidate: a column each, so that whole columns are worked on at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    len: usize,
    slots: Vec<u8>,
    counts: Vec<f32>,
    /// What each adds in the second stage.
    lifts: Vec<f32>,
}

impl Entries {
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds those of `count` that are wanted, without a branch for each: which are is as good as drawn.
    #[inline]
    pub(super) fn extend(&mut self, count: usize, one: impl Fn(usize) -> (u8, f32, bool)) {
        let end = self.len + count;
        if self.slots.len() < end {
            self.slots.resize(end, 0);
            self.counts.resize(end, 0.0);
        }
        let (slots, counts) = (&mut self.slots[self.len..end], &mut self.counts[self.len..end]);
        let mut kept = 0;
        for i in 0..count {
            let (slot, n, wanted) = one(i);
            (slots[kept], counts[kept]) = (slot, n);
            kept += usize::from(wanted);
        }
        self.len += kept;
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
            self.lifts
                .extend(self.slots[w.from..w.to].iter().map(|slot| expected * first[at(*slot)] + prior));
        }
        // Apart, so that several are divided at once.
        self.lifts.iter_mut().zip(&self.counts).for_each(|(lift, count)| *lift = ln(1.0 + count / *lift));
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
