//! ARC: two lists of what is there, two of what was, and a target between recency and frequency that moves by which of
//! the latter is asked for again. N. Megiddo, D. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST '03,
//! figure 4. Where entries differ in size all lengths are sums of sizes; with sizes of one it is the paper's.

use super::lists::{Lists, OUT};
use super::{Keep, Key};
use std::sync::Arc;

/// Seen once lately, seen more often, and what fell out of either.
const T1: u8 = 0;
const T2: u8 = 1;
const B1: u8 = 2;
const B2: u8 = 3;

#[derive(Debug)]
pub(super) struct ArcCache {
    lists: Lists,
    sizes: Arc<[u64]>,
    capacity: u64,
    /// What T1 should take: the paper's p, a real number there.
    target: f64,
}

impl ArcCache {
    pub(super) fn new(capacity: u64, sizes: Arc<[u64]>) -> Self {
        Self { lists: Lists::new(4, sizes.len()), sizes, capacity, target: 0.0 }
    }

    fn held(&self) -> u64 {
        self.lists.units(T1) + self.lists.units(T2)
    }

    /// Moves the oldest of a list to another, or out.
    fn drop_oldest(&mut self, from: u8, to: u8) {
        if let Some(key) = self.lists.oldest(from) {
            let units = self.sizes[key as usize];
            match to {
                OUT => self.lists.take(key, units),
                to => self.lists.put(key, units, to),
            }
        }
    }

    /// The paper's REPLACE, until `units` fit. `from_b2`: the key asked for was in B2.
    fn replace(&mut self, units: u64, from_b2: bool) {
        while self.held() + units > self.capacity {
            let t1 = self.lists.units(T1);
            let over = t1 as f64 > self.target || from_b2 && t1 as f64 >= self.target;
            if t1 > 0 && over || self.lists.units(T2) == 0 {
                self.drop_oldest(T1, B1);
            } else {
                self.drop_oldest(T2, B2);
            }
        }
    }

    /// Moves the target by as much as the other ghost list is longer, at least by one.
    fn adapt(&mut self, units: u64, from_b2: bool) {
        let (b1, b2) = (self.lists.units(B1) as f64, self.lists.units(B2) as f64);
        let (own, other) = if from_b2 { (b2, b1) } else { (b1, b2) };
        let step = (other / own).max(1.0) * units as f64;
        let signed = if from_b2 { -step } else { step };
        self.target = (self.target + signed).clamp(0.0, self.capacity as f64);
    }

    /// The paper's case IV: the key is known nowhere.
    fn make_room(&mut self, units: u64) {
        while self.lists.units(T1) + self.lists.units(B1) + units > self.capacity {
            if self.lists.oldest(B1).is_some() {
                self.drop_oldest(B1, OUT);
            } else {
                self.drop_oldest(T1, OUT);
            }
        }
        while self.held() + self.lists.units(B1) + self.lists.units(B2) + units > 2 * self.capacity
            && self.lists.oldest(B2).is_some()
        {
            self.drop_oldest(B2, OUT);
        }
    }
}

impl Keep for ArcCache {
    fn request(&mut self, key: Key) -> bool {
        let units = self.sizes[key as usize];
        if units > self.capacity {
            return false;
        }
        match self.lists.of(key) {
            T1 | T2 => {
                self.lists.put(key, units, T2);
                return true;
            }
            ghost @ (B1 | B2) => {
                self.adapt(units, ghost == B2);
                self.replace(units, ghost == B2);
                self.lists.put(key, units, T2);
            }
            _ => {
                self.make_room(units);
                self.replace(units, false);
                self.lists.put(key, units, T1);
            }
        }
        false
    }
}
