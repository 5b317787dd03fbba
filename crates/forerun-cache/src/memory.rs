//! The tier in this process's memory.

use crate::policy::{ByHash, Gone, Policy};
use crate::{Kept, Key, Stamp, Store};
use forerun_types::TenantKey;

/// What a [`Memory`] may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All entries together, with what each takes beside its value.
    pub bytes: u64,
    /// What an entry takes beside its value and its name: it bounds how many there can be. [`Limits::of`] knows the true one.
    pub entry_bytes: u64,
}

/// What is larger than one part in so many of a cache pushes out more than it is worth, however rarely it is asked for.
pub const LARGEST_PART: u64 = 8;

impl Limits {
    /// So many bytes, counted as they are: an entry's names in the lists, those of entries that have gone, its counters, its
    /// places in the maps and its part of the trials come to about 400 bytes.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self { bytes, entry_bytes: 400 }
    }

    /// The largest entry that is taken; any that fits, where entries are counted without what they take beside their values.
    #[must_use]
    pub fn largest(&self) -> u64 {
        if self.entry_bytes == 0 { self.bytes } else { self.bytes / LARGEST_PART }
    }

    /// So many entries, if each is put as one byte.
    #[must_use]
    pub fn entries(entries: u64) -> Self {
        Self { bytes: entries, entry_bytes: 0 }
    }
}

#[derive(Clone, Debug)]
struct Entry<V> {
    tenant: TenantKey,
    name: Box<[u8]>,
    stamp: Stamp,
    /// What it counts for.
    units: u64,
    value: V,
}

impl<V> Entry<V> {
    fn is(&self, key: Key<'_>) -> bool {
        self.tenant == key.tenant && *self.name == *key.name
    }
}

/// Entries in memory, within [`Limits`], chosen by what of late would have had most hits. Deterministic: the same calls with the
/// same seed keep the same entries.
#[derive(Clone, Debug)]
pub struct Memory<V> {
    entries: ByHash<Entry<V>>,
    policy: Policy,
    limits: Limits,
    held: u64,
    seed: u64,
    gone: Gone,
}

impl<V> Memory<V> {
    /// `seed`: of the hash of keys; one that nobody outside knows keeps crafted names from crowding each other out.
    #[must_use]
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            entries: ByHash::default(),
            policy: Policy::new(limits.bytes),
            limits,
            held: 0,
            seed,
            gone: Gone::new(),
        }
    }

    /// Entries that are there.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that they count for; never more than the limit.
    pub fn bytes(&self) -> u64 {
        self.held
    }

    fn drop_entry(&mut self, hash: u64) {
        if let Some(entry) = self.entries.remove(&hash) {
            self.held -= entry.units;
        }
    }

    fn drop_gone(&mut self) {
        let mut gone = std::mem::take(&mut self.gone);
        for hash in gone.drain(..) {
            // One that went and came back within the same call is there.
            if !self.policy.names(hash) {
                self.drop_entry(hash);
            }
        }
        self.gone = gone;
    }
}

impl<V> Store for Memory<V> {
    type Value = V;

    fn get(&mut self, key: Key<'_>) -> Option<(Stamp, &V)> {
        let hash = key.hash(self.seed);
        let there = self.entries.get(&hash).filter(|entry| entry.is(key)).map(|entry| entry.units);
        self.policy.get(hash, there, &mut self.gone);
        // Handed out even if it has just gone: it is current, and its memory is given back at the next call.
        if there.is_none() {
            self.drop_gone();
        }
        let entry = self.entries.get(&hash).filter(|_| there.is_some())?;
        Some((entry.stamp, &entry.value))
    }

    fn peek(&self, key: Key<'_>) -> Option<Stamp> {
        self.entries.get(&key.hash(self.seed)).filter(|entry| entry.is(key)).map(|entry| entry.stamp)
    }

    fn put(&mut self, key: Key<'_>, stamp: Stamp, value: V, bytes: u64) -> Kept {
        let hash = key.hash(self.seed);
        let extra =
            if self.limits.entry_bytes == 0 { 0 } else { self.limits.entry_bytes + key.name.len() as u64 };
        let units = bytes.saturating_add(extra).max(1);
        self.drop_gone();
        // What was there is replaced, or it is another key's of the same hash: both go.
        self.drop_entry(hash);
        if units > self.limits.largest() {
            self.policy.remove(hash);
            return Kept::TooLarge;
        }
        self.policy.put(hash, units, &mut self.gone);
        self.drop_gone();
        if !self.policy.names(hash) {
            return Kept::No;
        }
        while self.held + units > self.limits.bytes {
            // What is named fits, so that there are extras as long as this does not.
            let Some(extra) = self.policy.pop_extra() else { break };
            self.drop_entry(extra);
        }
        let entry = Entry { tenant: key.tenant, name: key.name.into(), stamp, units, value };
        self.held += units;
        self.entries.insert(hash, entry);
        Kept::Yes
    }

    fn remove(&mut self, key: Key<'_>) -> bool {
        let hash = key.hash(self.seed);
        if !self.entries.get(&hash).is_some_and(|entry| entry.is(key)) {
            return false;
        }
        self.policy.remove(hash);
        self.drop_entry(hash);
        true
    }
}
