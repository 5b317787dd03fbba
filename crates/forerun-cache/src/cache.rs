//! A tier with what is current held against it.

use crate::floors::Floors;
use crate::{Kept, Key, Stamp, Store};

/// What became of an entry that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Kept,
    /// The tier had no room for it; what it had under that key is gone.
    NotKept(Kept),
    /// Its fetch began before a purge, or before that of an entry which has been stored since. Nothing has changed.
    Outdated,
}

/// Serves from a store what is current, and nothing else, whatever the store hands out.
///
/// Ask for a stamp with [`Cache::begin`] *before* a fetch begins, and store its result under that: a purge in between then
/// reaches it too.
#[derive(Clone, Debug)]
pub struct Cache<S> {
    store: S,
    floors: Floors,
    last: u64,
    seed: u64,
}

impl<S: Store> Cache<S> {
    /// `places`: how many keys' purges and replacements are told apart, 16 bytes each, rounded up to a power of two; four for each
    /// entry that fits is plenty. `seed`: of the hash that spreads them.
    pub fn new(store: S, places: usize, seed: u64) -> Self {
        Self { store, floors: Floors::new(places), last: 0, seed }
    }

    pub fn store(&self) -> &S {
        &self.store
    }

    /// A stamp for a fetch that is about to begin.
    #[must_use]
    pub fn begin(&mut self) -> Stamp {
        self.last += 1;
        Stamp(self.last)
    }

    /// The current entry of a key. One that is not current is dropped.
    pub fn get(&mut self, key: Key<'_>) -> Option<&S::Value> {
        let hash = key.hash(self.seed);
        // Looked at first: what is handed out borrows the store, and a stale one must go.
        if self.store.peek(key).is_some_and(|stamp| !self.floors.may_serve(hash, stamp)) {
            self.store.remove(key);
        }
        let (stamp, value) = self.store.get(key)?;
        self.floors.may_serve(hash, stamp).then_some(value)
    }

    /// Stores what a fetch brought that began at `begun`.
    pub fn put(&mut self, key: Key<'_>, begun: Stamp, value: S::Value, bytes: u64) -> Put {
        let hash = key.hash(self.seed);
        if !self.floors.may_store(hash, begun) {
            return Put::Outdated;
        }
        let replaced = self.store.peek(key).is_some();
        // Before the store takes it: should the store keep the old one after all, it is not served.
        self.floors.stored(hash, begun, replaced);
        match self.store.put(key, begun, value, bytes) {
            Kept::Yes => Put::Kept,
            kept => {
                self.store.remove(key);
                Put::NotKept(kept)
            }
        }
    }

    /// Nothing that is stored or being fetched under this key is served again; whether there was something stored.
    pub fn purge(&mut self, key: Key<'_>) -> bool {
        let from = self.begin();
        self.floors.purge(key.hash(self.seed), from);
        self.store.remove(key)
    }

    /// Nothing that is stored or being fetched is served again. The store drops it as it is asked for or needs room.
    pub fn purge_all(&mut self) {
        let from = self.begin();
        self.floors.purge_all(from);
    }
}
