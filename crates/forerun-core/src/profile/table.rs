//! A hash table with a ceiling: when it is full, the least worthy of a few neighbours makes way.
//!
//! Keys are already hashes. No iteration order is ever observable but that of the slots themselves, which depends on
//! nothing but the sequence of insertions: the table is deterministic.

use serde::{Deserialize, Serialize};

/// Neighbouring slots that a key may stand in.
const WINDOW: usize = 8;
const SLOTS_MIN: usize = 1 << 10;

/// What a slot holds must say how much it would be missed.
pub trait Worth {
    fn worth(&self) -> u64;
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Slot<V> {
    key: u64,
    value: V,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table<V> {
    slots: Vec<Option<Slot<V>>>,
    len: usize,
    slots_max: usize,
}

impl<V: Default + Worth> Table<V> {
    /// A table that never takes more than about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let fit = bytes_max / size_of::<Option<Slot<V>>>().max(1);
        // While it grows, the old half and the new whole stand side by side; leave room for that.
        let slots_max = ((fit * 2 / 3).max(SLOTS_MIN) + 1).next_power_of_two() / 2;
        Self { slots: empty(SLOTS_MIN.min(slots_max)), len: 0, slots_max: slots_max.max(SLOTS_MIN) }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn window(&self, key: u64) -> std::ops::Range<usize> {
        let home = (spread(key) as usize) & (self.slots.len() - 1) & !(WINDOW - 1);
        home..home + WINDOW
    }

    #[must_use]
    pub fn get(&self, key: u64) -> Option<&V> {
        self.slots[self.window(key)].iter().flatten().find(|s| s.key == key).map(|s| &s.value)
    }

    /// The value of a key, made anew if it is not there (any more).
    pub fn entry(&mut self, key: u64) -> &mut V {
        let window = self.window(key);
        let mut free = None;
        let mut least = (u64::MAX, window.start);
        let mut found = None;
        for at in window {
            match &self.slots[at] {
                Some(slot) if slot.key == key => {
                    found = Some(at);
                    break;
                }
                Some(slot) => least = least.min((slot.value.worth(), at)),
                None if free.is_none() => free = Some(at),
                None => {}
            }
        }
        let at = match (found, free) {
            (Some(at), _) => at,
            (None, Some(at)) => {
                self.len += 1;
                self.slots[at] = Some(Slot { key, value: V::default() });
                at
            }
            (None, None) if self.slots.len() < self.slots_max => {
                self.grow();
                return self.entry(key);
            }
            (None, None) => {
                self.slots[least.1] = Some(Slot { key, value: V::default() });
                least.1
            }
        };
        &mut self.slots[at].get_or_insert_with(|| Slot { key, value: V::default() }).value
    }

    pub fn remove(&mut self, key: u64) {
        for at in self.window(key) {
            if self.slots[at].as_ref().is_some_and(|s| s.key == key) {
                self.slots[at] = None;
                self.len -= 1;
            }
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|s| !keep(&s.value)) {
                *slot = None;
                self.len -= 1;
            }
        }
    }

    fn grow(&mut self) {
        let larger = empty(self.slots.len() * 2);
        let old = std::mem::replace(&mut self.slots, larger);
        self.len = 0;
        for slot in old.into_iter().flatten() {
            // Each window of the old table is split over two of the new one: there is always room.
            let window = self.window(slot.key);
            if let Some(at) = window.into_iter().find(|at| self.slots[*at].is_none()) {
                self.slots[at] = Some(slot);
                self.len += 1;
            }
        }
    }
}

fn empty<V>(slots: usize) -> Vec<Option<Slot<V>>> {
    let mut all = Vec::with_capacity(slots);
    all.resize_with(slots, || None);
    all
}

/// Mixes the bits of a key (the finaliser of SplitMix64, Steele et al., OOPSLA '14).
#[must_use]
pub fn spread(key: u64) -> u64 {
    let mut x = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Clone, Debug, PartialEq)]
    struct Count(u64);
    impl Worth for Count {
        fn worth(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn what_is_worth_most_survives_a_flood() {
        let mut table: Table<Count> = Table::new(1 << 16);
        for key in 0..100 {
            table.entry(key).0 = 1_000;
        }
        for key in 1_000..200_000 {
            table.entry(key).0 = 1;
        }
        let kept = (0..100).filter(|k| table.get(*k).is_some_and(|c| c.0 == 1_000)).count();
        assert!(kept >= 98, "{kept}");
        assert!(table.slots.len() * size_of::<Option<Slot<Count>>>() <= 1 << 16);
    }

    #[test]
    fn it_holds_what_it_is_given_while_there_is_room() {
        let mut table: Table<Count> = Table::new(1 << 24);
        for key in 0..10_000u64 {
            table.entry(key).0 = key;
        }
        assert_eq!(table.len(), 10_000);
        assert!((0..10_000u64).all(|k| table.get(k) == Some(&Count(k))));
        table.remove(77);
        assert_eq!((table.get(77), table.len()), (None, 9_999));
        table.retain(|c| c.0 < 50);
        assert_eq!(table.len(), 50);
    }
}
