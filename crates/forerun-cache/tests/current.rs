//! What was purged or replaced is never served, whatever the tier does.

use forerun_cache::{Cache, Kept, Key, Limits, Memory, Put, Stamp, Store};
use forerun_types::TenantKey;
use std::collections::BTreeMap;

fn key(name: &[u8]) -> Key<'_> {
    Key { tenant: TenantKey(0), name }
}

fn cache() -> Cache<Memory<&'static str>> {
    Cache::new(Memory::new(Limits::of(1 << 20), 1), 1 << 10, 2)
}

#[test]
fn a_purge_reaches_what_is_stored_and_what_is_being_fetched() {
    let mut cache = cache();
    let before = cache.begin();
    assert_eq!(cache.put(key(b"/a"), before, "old", 3), Put::Kept);
    let during = cache.begin();
    assert!(cache.purge(key(b"/a")));
    assert_eq!(cache.get(key(b"/a")), None);
    // The fetch that was under way brings what may be as old as what was purged.
    assert_eq!(cache.put(key(b"/a"), during, "old", 3), Put::Outdated);
    assert_eq!(cache.get(key(b"/a")), None);
    let after = cache.begin();
    assert_eq!(cache.put(key(b"/a"), after, "new", 3), Put::Kept);
    assert_eq!(cache.get(key(b"/a")), Some(&"new"));
    assert!(!cache.purge(key(b"/b")));
}

#[test]
fn an_earlier_fetch_that_ends_later_replaces_nothing() {
    let mut cache = cache();
    let (first, second) = (cache.begin(), cache.begin());
    assert_eq!(cache.put(key(b"/a"), second, "new", 3), Put::Kept);
    assert_eq!(cache.put(key(b"/a"), first, "old", 3), Put::Outdated);
    assert_eq!(cache.get(key(b"/a")), Some(&"new"));
}

#[test]
fn a_purge_of_everything_leaves_nothing() {
    let mut cache = cache();
    let begun = cache.begin();
    cache.put(key(b"/a"), begun, "a", 1);
    cache.put(key(b"/b"), begun, "b", 1);
    let during = cache.begin();
    cache.purge_all();
    assert_eq!(cache.get(key(b"/a")), None);
    assert_eq!(cache.get(key(b"/b")), None);
    assert_eq!(cache.put(key(b"/c"), during, "c", 1), Put::Outdated);
    let after = cache.begin();
    assert_eq!(cache.put(key(b"/a"), after, "a", 1), Put::Kept);
    assert_eq!(cache.get(key(b"/a")), Some(&"a"));
    assert_eq!(cache.store().len(), 1);
}

/// Keeps the first entry of a key for ever, drops nothing, and says that all is well.
#[derive(Default)]
struct Liar(BTreeMap<Vec<u8>, (Stamp, u32)>);

impl Store for Liar {
    type Value = u32;

    fn get(&mut self, key: Key<'_>) -> Option<(Stamp, &u32)> {
        self.0.get(key.name).map(|(stamp, value)| (*stamp, value))
    }

    fn peek(&self, key: Key<'_>) -> Option<Stamp> {
        self.0.get(key.name).map(|entry| entry.0)
    }

    fn put(&mut self, key: Key<'_>, stamp: Stamp, value: u32, _: u64) -> Kept {
        self.0.entry(key.name.to_vec()).or_insert((stamp, value));
        Kept::Yes
    }

    fn remove(&mut self, _: Key<'_>) -> bool {
        true
    }
}

#[test]
fn a_tier_that_drops_nothing_serves_nothing_stale() {
    let mut cache = Cache::new(Liar::default(), 1 << 10, 2);
    let begun = cache.begin();
    cache.put(key(b"/purged"), begun, 1, 1);
    cache.put(key(b"/replaced"), begun, 1, 1);
    cache.put(key(b"/kept"), begun, 1, 1);
    cache.purge(key(b"/purged"));
    let begun = cache.begin();
    assert_eq!(cache.put(key(b"/replaced"), begun, 2, 1), Put::Kept);
    assert_eq!(cache.get(key(b"/purged")), None);
    assert_eq!(cache.get(key(b"/replaced")), None);
    assert_eq!(cache.get(key(b"/kept")), Some(&1));
}

#[test]
fn keys_that_share_a_place_lose_a_hit_and_nothing_else() {
    // One place for all keys: a purge of one is a purge of all that was stored before.
    let mut cache = Cache::new(Memory::new(Limits::of(1 << 20), 1), 1, 2);
    let begun = cache.begin();
    cache.put(key(b"/a"), begun, 1, 1);
    cache.purge(key(b"/b"));
    assert_eq!(cache.get(key(b"/a")), None);
    let begun = cache.begin();
    assert_eq!(cache.put(key(b"/a"), begun, 2, 1), Put::Kept);
    assert_eq!(cache.get(key(b"/a")), Some(&2));
}
