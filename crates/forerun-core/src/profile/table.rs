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

    /// Bytes that it has elsewhere.
    fn heap_bytes() -> usize {
        0
    }
}

/// Keys and values stand apart, so that a look-up reads one cache line of keys and then the value it wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table<V> {
    /// 0 is a free slot.
    keys: Vec<u64>,
    values: Vec<V>,
    len: usize,
    slots_max: usize,
}

impl<V: Default + Worth> Table<V> {
    /// A table that never takes more than about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let fit = bytes_max / Self::slot_bytes();
        // While it grows, the old half and the new whole stand side by side; leave room for that.
        let slots_max = (((fit * 2 / 3).max(SLOTS_MIN) + 1).next_power_of_two() / 2).max(SLOTS_MIN);
        let (keys, values) = empty(SLOTS_MIN);
        Self { keys, values, len: 0, slots_max }
    }

    fn slot_bytes() -> usize {
        size_of::<u64>() + size_of::<V>() + V::heap_bytes()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it takes, if every value has all that it may have elsewhere.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.len() * Self::slot_bytes()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn window(&self, key: u64) -> std::ops::Range<usize> {
        let home = (spread(key) as usize) & (self.keys.len() - 1) & !(WINDOW - 1);
        home..home + WINDOW
    }

    fn find(&self, key: u64) -> Option<usize> {
        let window = self.window(key);
        let home = window.start;
        self.keys[window].iter().position(|k| *k == key).map(|at| home + at)
    }

    #[must_use]
    pub fn get(&self, key: u64) -> Option<&V> {
        self.find(used(key)).map(|at| &self.values[at])
    }

    /// The value of a key, made anew if it is not there (any more).
    pub fn entry(&mut self, key: u64) -> &mut V {
        let key = used(key);
        if let Some(at) = self.find(key) {
            return &mut self.values[at];
        }
        let at = self.place(key);
        self.keys[at] = key;
        self.values[at] = V::default();
        &mut self.values[at]
    }

    /// A slot for a new key: a free one, one of a larger table, or that of the least worthy neighbour.
    fn place(&mut self, key: u64) -> usize {
        loop {
            let window = self.window(key);
            if let Some(at) = window.clone().find(|at| self.keys[*at] == 0) {
                self.len += 1;
                return at;
            }
            if self.keys.len() >= self.slots_max {
                return window.clone().min_by_key(|at| self.values[*at].worth()).unwrap_or(window.start);
            }
            self.grow();
        }
    }

    pub fn remove(&mut self, key: u64) {
        if let Some(at) = self.find(used(key)) {
            self.free(at);
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        for at in 0..self.keys.len() {
            if self.keys[at] != 0 && !keep(&self.values[at]) {
                self.free(at);
            }
        }
    }

    fn free(&mut self, at: usize) {
        self.keys[at] = 0;
        self.values[at] = V::default();
        self.len -= 1;
    }

    fn grow(&mut self) {
        let (keys, values) = empty(self.keys.len() * 2);
        let old_keys = std::mem::replace(&mut self.keys, keys);
        let old_values = std::mem::replace(&mut self.values, values);
        for (key, value) in old_keys.into_iter().zip(old_values).filter(|(key, _)| *key != 0) {
            // Each window of the old table is split over two of the new one: there is always room.
            if let Some(at) = self.window(key).find(|at| self.keys[*at] == 0) {
                self.keys[at] = key;
                self.values[at] = value;
            }
        }
    }
}

/// 0 marks a free slot; the key 0 shares the slot of 1, one collision in 2^64.
fn used(key: u64) -> u64 {
    key.max(1)
}

fn empty<V: Default>(slots: usize) -> (Vec<u64>, Vec<V>) {
    let mut values = Vec::with_capacity(slots);
    values.resize_with(slots, V::default);
    (vec![0; slots], values)
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
        assert!(table.keys.len() * Table::<Count>::slot_bytes() <= 1 << 16);
    }

    #[test]
    fn it_holds_what_it_is_given_while_there_is_room() {
        let mut table: Table<Count> = Table::new(1 << 24);
        for key in 1..=10_000u64 {
            table.entry(key).0 = key;
        }
        assert_eq!(table.len(), 10_000);
        assert!((1..=10_000u64).all(|k| table.get(k) == Some(&Count(k))));
        table.remove(77);
        assert_eq!((table.get(77), table.len()), (None, 9_999));
        table.retain(|c| c.0 <= 50);
        assert_eq!(table.len(), 50);
    }
}
