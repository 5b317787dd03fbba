//! W-TinyLFU as Caffeine has it: a small window by recency, a main part in two segments whose door compares how often the
//! newcomer and the one that would go were asked for, and a climber that moves room between the two.
//! G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", TOS 13(4), 2017; G. Einziger,
//! O. Eytan, R. Friedman, B. Manes, "Adaptive software cache management", Middleware '18; constants of Caffeine 3
//! (`BoundedLocalCache`, `FrequencySketch`). Its draw against crafted collisions, one in 128, is left out: a replay is a
//! replay.

use super::lists::Lists;
use super::sketch::Sketch;
use super::{Keep, Key};
use std::sync::Arc;

const WINDOW: u8 = 0;
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;

/// Caffeine's: the main part's share at first, the protected part of that, the climber's first step and how it goes on.
const MAIN: f64 = 0.99;
const PROTECTED_OF_MAIN: f64 = 0.80;
const STEP: f64 = 0.0625;
const STEP_DECAY: f64 = 0.98;
const RESTART: f64 = 0.05;

#[derive(Debug)]
pub(super) struct TinyLfu {
    lists: Lists,
    sizes: Arc<[u64]>,
    sketch: Sketch,
    capacity: u64,
    window: u64,
    protected: u64,
    climber: Climber,
}

#[derive(Debug)]
struct Climber {
    sample: u64,
    hits: u64,
    misses: u64,
    before: f64,
    step: f64,
}

impl TinyLfu {
    /// `entries`: about how many fit.
    pub(super) fn new(capacity: u64, entries: u64, sizes: Arc<[u64]>) -> Self {
        let window = capacity - (capacity as f64 * MAIN) as u64;
        let protected = ((capacity - window) as f64 * PROTECTED_OF_MAIN) as u64;
        let climber = Climber {
            sample: 10 * entries.max(1),
            hits: 0,
            misses: 0,
            before: 0.0,
            step: -STEP * capacity as f64,
        };
        Self {
            lists: Lists::new(3, sizes.len()),
            sizes,
            sketch: Sketch::new(entries),
            capacity,
            window,
            protected,
            climber,
        }
    }

    fn demote(&mut self) {
        while self.lists.units(PROTECTED) > self.protected {
            let Some(key) = self.lists.oldest(PROTECTED) else { break };
            self.lists.put(key, self.sizes[key as usize], PROBATION);
        }
    }

    /// What leaves the window asks to be let in.
    fn settle(&mut self) {
        while self.lists.units(WINDOW) > self.window {
            let Some(key) = self.lists.oldest(WINDOW) else { break };
            self.lists.put(key, self.sizes[key as usize], PROBATION);
            self.admit(key);
        }
    }

    fn held(&self) -> u64 {
        self.lists.units(WINDOW) + self.lists.units(PROBATION) + self.lists.units(PROTECTED)
    }

    fn admit(&mut self, candidate: Key) {
        while self.held() > self.capacity {
            let old = self.lists.oldest(PROBATION).filter(|key| *key != candidate);
            let Some(victim) = old.or_else(|| self.lists.oldest(PROTECTED)) else {
                self.lists.take(candidate, self.sizes[candidate as usize]);
                return;
            };
            let goes =
                if self.sketch.count(candidate) > self.sketch.count(victim) { victim } else { candidate };
            self.lists.take(goes, self.sizes[goes as usize]);
            if goes == candidate {
                return;
            }
        }
    }

    /// Once in a sample: on in the same direction while hits grow, back where they fall.
    fn climb(&mut self) {
        let c = &mut self.climber;
        let requests = c.hits + c.misses;
        if requests < c.sample {
            return;
        }
        let rate = c.hits as f64 / requests as f64;
        let change = rate - c.before;
        let amount = if change >= 0.0 { c.step } else { -c.step };
        c.step = if change.abs() >= RESTART {
            STEP * self.capacity as f64 * if amount >= 0.0 { 1.0 } else { -1.0 }
        } else {
            STEP_DECAY * amount
        };
        (c.before, c.hits, c.misses) = (rate, 0, 0);
        let main = self.capacity - self.window;
        if amount >= 0.0 {
            // Only the protected part gives room.
            let quota = (amount as u64).min(self.protected);
            self.window += quota;
            self.protected -= quota;
        } else {
            let quota = ((-amount) as u64).min(self.window.saturating_sub(1));
            self.window -= quota;
            self.protected = (self.protected + quota).min(main + quota);
        }
        self.demote();
        while self.lists.units(WINDOW) > self.window {
            let Some(key) = self.lists.oldest(WINDOW) else { break };
            self.lists.put(key, self.sizes[key as usize], PROBATION);
        }
        // A window that has grown takes back the oldest of probation as Caffeine does.
        while let Some(key) = self.lists.oldest(PROBATION) {
            let units = self.sizes[key as usize];
            if amount < 0.0 || self.lists.units(WINDOW) + units > self.window {
                break;
            }
            self.lists.put(key, units, WINDOW);
        }
    }
}

impl Keep for TinyLfu {
    fn request(&mut self, key: Key) -> bool {
        let units = self.sizes[key as usize];
        if units > self.capacity {
            return false;
        }
        self.sketch.add(key);
        let hit = match self.lists.of(key) {
            WINDOW => {
                self.lists.put(key, units, WINDOW);
                true
            }
            PROBATION | PROTECTED => {
                self.lists.put(key, units, PROTECTED);
                self.demote();
                true
            }
            _ => {
                self.lists.put(key, units, WINDOW);
                self.settle();
                false
            }
        };
        self.climber.hits += u64::from(hit);
        self.climber.misses += u64::from(!hit);
        self.climb();
        hit
    }
}
