//! A table of slots that doubles in place: parts are added and none is ever moved, so that memory is touched once only.

use serde::{Deserialize, Serialize};
use std::ops::{Index, IndexMut};

/// Slots of a part.
const PART: usize = 1 << 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Slots<T>(Vec<Vec<T>>);

impl<T: Copy> Slots<T> {
    /// The least that a table holds.
    pub(super) const MIN: usize = PART;

    pub(super) fn new(empty: T) -> Self {
        Self(vec![vec![empty; PART]])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len() * PART
    }

    /// Adds as many as there are.
    pub(super) fn double(&mut self, empty: T) {
        (0..self.0.len()).for_each(|_| self.0.push(vec![empty; PART]));
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.0.get(at / PART).map(|part| &part[at % PART])
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.0[at / PART][at % PART]
    }
}

impl<T> IndexMut<usize> for Slots<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.0[at / PART][at % PART]
    }
}
