//! Ordered lists over keys that are small numbers: what every policy keeps its entries in.

use super::{Key, NONE};

/// Several doubly linked lists; a key is in one of them or in none. All moves take constant time.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    /// By key: the one that came in after it, the one before it, the list that it is in.
    newer: Vec<Key>,
    older: Vec<Key>,
    list: Vec<u8>,
    heads: Vec<Head>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    newest: Key,
    oldest: Key,
    units: u64,
}

/// The list of keys that are in none.
pub(super) const OUT: u8 = u8::MAX;

impl Lists {
    /// For keys below `keys`.
    pub(super) fn new(lists: usize, keys: usize) -> Self {
        Self {
            newer: vec![NONE; keys],
            older: vec![NONE; keys],
            list: vec![OUT; keys],
            heads: vec![Head { newest: NONE, oldest: NONE, units: 0 }; lists],
        }
    }

    pub(super) fn of(&self, key: Key) -> u8 {
        self.list[key as usize]
    }

    /// What the entries of a list take together.
    pub(super) fn units(&self, list: u8) -> u64 {
        self.heads[list as usize].units
    }

    pub(super) fn oldest(&self, list: u8) -> Option<Key> {
        Some(self.heads[list as usize].oldest).filter(|key| *key != NONE)
    }

    /// Takes a key out of the list that it is in, if it is in one.
    pub(super) fn take(&mut self, key: Key, units: u64) {
        let at = key as usize;
        let list = std::mem::replace(&mut self.list[at], OUT);
        if list == OUT {
            return;
        }
        let (newer, older) = (self.newer[at], self.older[at]);
        let head = &mut self.heads[list as usize];
        head.units -= units;
        match newer {
            NONE => head.newest = older,
            _ => self.older[newer as usize] = older,
        }
        match older {
            NONE => head.oldest = newer,
            _ => self.newer[older as usize] = newer,
        }
    }

    /// Puts a key at the newest end of a list, wherever it was before.
    pub(super) fn put(&mut self, key: Key, units: u64, list: u8) {
        self.take(key, units);
        let at = key as usize;
        let head = &mut self.heads[list as usize];
        head.units += units;
        self.list[at] = list;
        self.newer[at] = NONE;
        self.older[at] = head.newest;
        match head.newest {
            NONE => head.oldest = key,
            newest => self.newer[newest as usize] = key,
        }
        self.heads[list as usize].newest = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lists: &mut Lists, list: u8) -> Vec<Key> {
        let mut out = Vec::new();
        while let Some(key) = lists.oldest(list) {
            lists.take(key, 1);
            out.push(key);
        }
        out
    }

    #[test]
    fn keys_stand_in_the_order_in_which_they_came() {
        let mut lists = Lists::new(2, 6);
        for key in 0..6 {
            lists.put(key, 1, 0);
        }
        lists.put(2, 1, 0);
        lists.put(0, 1, 1);
        lists.take(4, 1);
        lists.take(4, 1);
        assert_eq!((lists.units(0), lists.units(1), lists.of(4), lists.of(0)), (4, 1, OUT, 1));
        assert_eq!(all(&mut lists, 0), [1, 3, 5, 2]);
        assert_eq!(all(&mut lists, 1), [0]);
        assert_eq!((lists.units(0), lists.units(1)), (0, 0));
    }
}
