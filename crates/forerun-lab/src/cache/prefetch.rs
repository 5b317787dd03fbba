//! Prefetch on a trace that tells who asked: after each request what its user is likely to ask for next is fetched ahead.

use super::{Counted, Keep, Key, PROGRESS_REQUESTS};
use crate::cache::CacheScores;
use forerun_core::profile::follows::{Follows, Likely};
use forerun_trace::KeyTrace;
use forerun_types::Time;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};

/// What is asked for within a minute at least every other time is worth fetching: then the wait that is saved weighs as much
/// as the fetch that was in vain.
const CHANCE_LEAST: f64 = 0.5;
/// At most, where much of what was fetched of late was in vain.
const CHANCE_MOST: f64 = 0.9;
/// Parts of the bytes fetched of late that were in vain: from here on the chance must be higher, and here it must be highest.
const WASTE_CALM: f64 = 0.1;
const WASTE_MOST: f64 = 0.2;
/// What each outcome keeps of the record before it, and each request: a bad record is forgotten in some hundred requests, or it
/// would never be mended.
const RECORD_KEPT: f64 = 0.99;
const RECORD_KEPT_ASKED: f64 = 0.995;
/// One part in so many of the cache is for what nobody has asked for yet, so that no prediction costs more than that.
const AHEAD_PART: u64 = 8;
/// What is larger than one part in so many of that is not fetched.
const ENTRY_PART: u64 = 4;
/// Memory for what follows what.
const FOLLOWS_BYTES: usize = 16 << 20;

/// Something that keeps keys, and can be looked into.
pub trait Holds: Keep {
    fn holds(&self, key: Key) -> bool;
}

/// What is left of a cache's room for what was asked for, where some is for what is fetched ahead.
#[must_use]
pub fn room_beside_prefetch(capacity: u64) -> u64 {
    capacity - capacity / AHEAD_PART
}

/// What prefetch fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PrefetchScores {
    pub fetches: u64,
    pub bytes: u64,
    /// Of these bytes, the part that had gone again, or was not asked for by the end.
    pub waste_ratio: f64,
}

/// What was fetched ahead, first in, first out, and what came of it.
#[derive(Debug, Default)]
struct Record {
    /// Bytes of what is there and nobody has asked for yet, and whether they count.
    open: HashMap<Key, (u64, bool)>,
    /// The same, oldest first; what has been asked for since is passed over.
    order: VecDeque<Key>,
    room: u64,
    used: u64,
    recent: f64,
    recent_waste: f64,
    fetches: u64,
    bytes: u64,
    wasted: u64,
}

impl Record {
    fn chance_least(&self) -> f64 {
        let waste = self.recent_waste / self.recent.max(1.0);
        let over = ((waste - WASTE_CALM) / (WASTE_MOST - WASTE_CALM)).clamp(0.0, 1.0);
        CHANCE_LEAST + (CHANCE_MOST - CHANCE_LEAST) * over
    }

    fn fetched(&mut self, key: Key, bytes: u64, counts: bool) {
        self.open.insert(key, (bytes, counts));
        self.order.push_back(key);
        self.used += bytes;
        while self.used > self.room
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended(oldest, true);
        }
        self.fetches += u64::from(counts);
        self.bytes += if counts { bytes } else { 0 };
    }

    /// A key is asked for; whether it is there because it was fetched ahead.
    fn asked(&mut self, key: Key) -> bool {
        self.recent_waste *= RECORD_KEPT_ASKED;
        let there = self.ended(key, false);
        if there {
            self.order.retain(|other| *other != key);
        }
        there
    }

    fn ended(&mut self, key: Key, wasted: bool) -> bool {
        let Some((bytes, counts)) = self.open.remove(&key) else { return false };
        self.used -= bytes;
        let in_vain = if wasted { bytes as f64 } else { 0.0 };
        self.recent = self.recent * RECORD_KEPT + bytes as f64;
        self.recent_waste = self.recent_waste * RECORD_KEPT + in_vain;
        self.wasted += if wasted && counts { bytes } else { 0 };
        true
    }

    fn scores(&self) -> PrefetchScores {
        let left: u64 = self.open.values().filter(|(_, counts)| *counts).map(|(bytes, _)| bytes).sum();
        let waste_ratio = (self.wasted + left) as f64 / self.bytes.max(1) as f64;
        PrefetchScores { fetches: self.fetches, bytes: self.bytes, waste_ratio }
    }
}

/// Runs a trace through something that keeps keys in [`room_beside_prefetch`] of a `capacity`, with prefetch in the rest; scored
/// from the request of number `from` on. `units`: what each key takes. `None` where the trace does not tell who asked.
pub fn replay_prefetch(
    name: &str,
    keep: &mut dyn Holds,
    (trace, from): (&KeyTrace, usize),
    (capacity, units): (u64, &[u64]),
    progress: &mut dyn FnMut(u64),
) -> Option<CacheScores> {
    let visits = trace.visits.as_ref()?;
    let mut counted = Counted::new(trace, from);
    let mut follows = Follows::new(FOLLOWS_BYTES);
    let room = capacity / AHEAD_PART;
    let mut record = Record { room, ..Record::default() };
    let mut likely: Vec<Likely> = Vec::new();
    for (at, (&key, visit)) in trace.requests.iter().zip(visits).enumerate() {
        let ahead = record.asked(key);
        counted.told(at, key, keep.request(key) || ahead);
        let now = Time(u64::try_from(visit.at_us).unwrap_or(0));
        likely.clear();
        let (user, name) = (u64::from(visit.user) + 1, u64::from(key) + 1);
        follows.asked(user, name, now, record.chance_least(), &mut likely);
        for next in likely.iter().map(|likely| (likely.key - 1) as Key) {
            let takes = units[next as usize];
            if takes <= room / ENTRY_PART && !keep.holds(next) && !record.open.contains_key(&next) {
                record.fetched(next, takes, at >= from);
            }
        }
        if at % PROGRESS_REQUESTS == 0 {
            progress(at as u64);
        }
    }
    let prefetch = Some(record.scores());
    Some(CacheScores { prefetch, ..counted.scores(name, false) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_trace::Visit;

    /// Keeps nothing.
    struct Forgets;

    impl Keep for Forgets {
        fn request(&mut self, _: Key) -> bool {
            false
        }
    }

    impl Holds for Forgets {
        fn holds(&self, _: Key) -> bool {
            false
        }
    }

    /// Thirty users ask for a page and, a second later, for its picture.
    fn replayed(capacity: u64, from: usize) -> CacheScores {
        let requests: Vec<Key> = (0..60).map(|n| n % 2).collect();
        let visit = |n: u32| Visit { user: n / 2, at_us: i64::from(n / 2 * 1_000 + n % 2) * 1_000_000 };
        let visits = Some((0..60).map(visit).collect());
        let trace = KeyTrace { requests, keys: 2, bytes: Some(vec![5, 7]), visits, ..KeyTrace::default() };
        replay_prefetch("p", &mut Forgets, (&trace, from), (capacity, &[5, 7]), &mut |_| {}).unwrap()
    }

    #[test]
    fn what_follows_is_there_when_it_is_asked_for() {
        // Of one page nothing is known, and of two too little: the chance is 1 of 2 + 1, then 2 of 3 + 1.
        let scores = replayed(1_000, 0);
        assert_eq!((scores.requests, scores.hits), (60, 28));
        let expect = PrefetchScores { fetches: 28, bytes: 28 * 7, waste_ratio: 0.0 };
        assert_eq!(scores.prefetch, Some(expect));
        let scores = replayed(1_000, 40);
        assert_eq!((scores.requests, scores.hits), (20, 10));
    }

    /// Guarantee: what is larger than its part of the room is not fetched.
    #[test]
    fn what_is_too_large_is_left() {
        let scores = replayed(8 * 4 * 6, 0);
        assert_eq!((scores.hits, scores.prefetch), (0, Some(PrefetchScores::default())));
    }

    /// Guarantee: where what is fetched is gone before it is asked for, it must be the likelier.
    #[test]
    fn what_was_in_vain_raises_the_chance_that_is_asked_for() {
        let mut record = Record { room: 100, ..Record::default() };
        assert_eq!(record.chance_least(), CHANCE_LEAST);
        for key in 0..8 {
            record.fetched(key, 20, true);
        }
        assert!(record.asked(7) && !record.asked(7) && !record.asked(0));
        // One was asked for, three had to go, four are there.
        assert_eq!((record.used, record.open.len(), record.wasted), (80, 4, 60));
        assert!(record.chance_least() > 0.8);
        assert!((record.scores().waste_ratio - 7.0 / 8.0).abs() < 1e-9);
        (0..1_000).for_each(|_| assert!(!record.asked(0)));
        assert!(record.chance_least() < CHANCE_LEAST + 0.01);
    }
}
