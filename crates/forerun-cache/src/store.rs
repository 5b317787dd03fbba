//! A tier, as the cache sees it.

use crate::Key;

/// When an entry's fetch began, counted over the life of a cache; larger is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// Whether a tier took an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Yes,
    /// Others are asked for more often.
    No,
    /// It is larger than the whole tier.
    TooLarge,
}

/// Keeps entries, and may lose any of them at any time. What it hands out is checked by its stamp, so a tier that hands out what
/// it should have dropped costs a miss and no more.
pub trait Store {
    type Value;

    /// Asks for an entry; its age and use may decide what stays.
    fn get(&mut self, key: Key<'_>) -> Option<(Stamp, &Self::Value)>;

    /// The stamp of an entry, without asking for it.
    fn peek(&self, key: Key<'_>) -> Option<Stamp>;

    /// Keeps an entry of `bytes` in place of what it has under that key.
    fn put(&mut self, key: Key<'_>, stamp: Stamp, value: Self::Value, bytes: u64) -> Kept;

    /// Drops an entry; whether it had one.
    fn remove(&mut self, key: Key<'_>) -> bool;
}
