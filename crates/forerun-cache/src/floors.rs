//! What may still be served and what may still be stored, for all keys in bounded memory.
//!
//! Keys share places by hash, and a place holds the strictest word of all of them. Two keys in one place can cost a miss, never
//! a stale answer.

use crate::Stamp;

#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    /// Entries stamped earlier are not served: they were purged or replaced.
    serve: Stamp,
    /// Entries stamped earlier are not stored: a later one has been, or they were purged meanwhile.
    store: Stamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Floors {
    /// A power of two of them.
    places: Vec<Floor>,
    /// For every key.
    all: Stamp,
}

impl Floors {
    /// 16 bytes for each place.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: vec![Floor::default(); places.clamp(1, 1 << 28).next_power_of_two()], all: Stamp(0) }
    }

    fn at(&self, hash: u64) -> usize {
        // The mask keeps it below the length.
        hash as usize & (self.places.len() - 1)
    }

    pub(crate) fn may_serve(&self, hash: u64, stamp: Stamp) -> bool {
        stamp >= self.places[self.at(hash)].serve.max(self.all)
    }

    pub(crate) fn may_store(&self, hash: u64, stamp: Stamp) -> bool {
        stamp >= self.places[self.at(hash)].store.max(self.all)
    }

    /// What began before `from` is neither served nor stored again.
    pub(crate) fn purge(&mut self, hash: u64, from: Stamp) {
        let at = self.at(hash);
        let floor = &mut self.places[at];
        (floor.serve, floor.store) = (floor.serve.max(from), floor.store.max(from));
    }

    pub(crate) fn purge_all(&mut self, from: Stamp) {
        self.all = self.all.max(from);
    }

    /// An entry has been stored; if it `replaced` one, what was stamped before it is not served again either.
    pub(crate) fn stored(&mut self, hash: u64, stamp: Stamp, replaced: bool) {
        let at = self.at(hash);
        let floor = &mut self.places[at];
        floor.store = floor.store.max(stamp);
        if replaced {
            floor.serve = floor.serve.max(stamp);
        }
    }
}
