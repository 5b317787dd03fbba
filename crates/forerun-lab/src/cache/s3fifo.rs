//! S3-FIFO: a small queue for what is new, a main queue for what was asked for again, a queue of names of what left the small
//! one. J. Yang et al., "FIFO queues are all you need for cache eviction", SOSP '23, algorithm 1.

use super::lists::{Lists, OUT};
use super::{Keep, Key};
use std::sync::Arc;

const SMALL: u8 = 0;
const MAIN: u8 = 1;
const GHOST: u8 = 2;
/// The paper's: a tenth for the small queue, and counters of two bits.
const SMALL_TENTHS: u64 = 1;
const COUNT_MAX: u8 = 3;

#[derive(Debug)]
pub(super) struct S3Fifo {
    lists: Lists,
    sizes: Arc<[u64]>,
    /// How often each was asked for since it came in, at most three.
    count: Vec<u8>,
    capacity: u64,
    small: u64,
}

impl S3Fifo {
    pub(super) fn new(capacity: u64, sizes: Arc<[u64]>) -> Self {
        let small = (capacity * SMALL_TENTHS / 10).max(1);
        Self { lists: Lists::new(3, sizes.len()), count: vec![0; sizes.len()], sizes, capacity, small }
    }

    fn evict(&mut self) {
        if self.lists.units(SMALL) >= self.small || self.lists.units(MAIN) == 0 {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    /// Goes on until one has left: those that were asked for more than once move to the main queue.
    fn evict_small(&mut self) {
        while let Some(key) = self.lists.oldest(SMALL) {
            let units = self.sizes[key as usize];
            if self.count[key as usize] > 1 {
                self.count[key as usize] = 0;
                self.lists.put(key, units, MAIN);
                continue;
            }
            self.lists.put(key, units, GHOST);
            // As many names as the main queue has entries.
            while self.lists.units(GHOST) > self.capacity - self.small.min(self.capacity) {
                let Some(oldest) = self.lists.oldest(GHOST) else { break };
                self.lists.take(oldest, self.sizes[oldest as usize]);
            }
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.lists.oldest(MAIN) {
            let units = self.sizes[key as usize];
            let count = &mut self.count[key as usize];
            if *count == 0 {
                self.lists.take(key, units);
                return;
            }
            *count -= 1;
            self.lists.put(key, units, MAIN);
        }
    }
}

impl Keep for S3Fifo {
    fn request(&mut self, key: Key) -> bool {
        let units = self.sizes[key as usize];
        if units > self.capacity {
            return false;
        }
        let list = self.lists.of(key);
        if matches!(list, SMALL | MAIN) {
            let count = &mut self.count[key as usize];
            *count = (*count + 1).min(COUNT_MAX);
            return true;
        }
        if list != OUT {
            self.lists.take(key, units);
        }
        while self.lists.units(SMALL) + self.lists.units(MAIN) + units > self.capacity {
            self.evict();
        }
        self.count[key as usize] = 0;
        self.lists.put(key, units, if list == GHOST { MAIN } else { SMALL });
        false
    }
}
