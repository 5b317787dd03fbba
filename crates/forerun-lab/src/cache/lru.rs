//! Least recently used.

use super::lists::{Lists, OUT};
use super::{Keep, Key};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Lru {
    lists: Lists,
    sizes: Arc<[u64]>,
    capacity: u64,
}

impl Lru {
    pub(super) fn new(capacity: u64, sizes: Arc<[u64]>) -> Self {
        Self { lists: Lists::new(1, sizes.len()), sizes, capacity }
    }
}

impl Keep for Lru {
    fn request(&mut self, key: Key) -> bool {
        let units = self.sizes[key as usize];
        let hit = self.lists.of(key) != OUT;
        if units > self.capacity {
            return false;
        }
        self.lists.put(key, units, 0);
        while self.lists.units(0) > self.capacity {
            let Some(oldest) = self.lists.oldest(0) else { break };
            self.lists.take(oldest, self.sizes[oldest as usize]);
        }
        hit
    }
}
