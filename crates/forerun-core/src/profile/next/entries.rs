//! How often each expert has seen each candidate.

use super::evidence::{CANDIDATES, NO_SLOT, Witness};
use super::fast::ln_roughly;

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

    /// Adds those that are candidates, without a branch for each: which are is as good as drawn.
    #[inline]
    pub(super) fn extend<N: Copy + Into<f32>>(&mut self, each: impl ExactSizeIterator<Item = (u8, N)>) {
        let end = self.len + each.len();
        if self.slots.len() < end {
            self.slots.resize(end, 0);
            self.counts.resize(end, 0.0);
        }
        let (slots, counts) = (&mut self.slots[self.len..end], &mut self.counts[self.len..end]);
        let mut kept = 0;
        for (slot, n) in each {
            (slots[kept], counts[kept]) = (slot, n.into());
            kept += usize::from(slot != NO_SLOT);
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
        let end = witnesses.last().map_or(0, |w| w.to);
        self.lifts.resize(end.max(self.lifts.len()), 0.0);
        for w in witnesses {
            let expected = prior * w.total.max(1.0);
            let slots = self.slots[w.from..w.to].iter();
            let lifts = self.lifts[w.from..w.to].iter_mut();
            lifts.zip(slots).for_each(|(lift, slot)| *lift = expected * first[at(*slot)] + prior);
        }
        // Apart, so that several are divided at once.
        let (lifts, counts) = (&mut self.lifts[..end], &self.counts[..end]);
        lifts.iter_mut().zip(counts).for_each(|(lift, count)| *lift = ln_roughly(1.0 + count / *lift));
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
