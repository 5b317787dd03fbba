//! Two ways to decide what stays, over the same lists, so that one can take over from the other at any moment.
//!
//! [`Rule::Frequency`] is W-TinyLFU with a window of a fixed part: what leaves the window stays only if it was asked for more
//! often than what would have to go (Einziger, Friedman, Manes, TOS 13(4), 2017); where sizes differ, than all that would have
//! to go together (Einziger, Eytan, Friedman, Manes, "Lightweight robust size aware cache management", TOS 18(3), 2022).
//! [`Rule::Balance`] is ARC: a target between recency and frequency that moves by which kind of what has gone is asked for
//! again (Megiddo, Modha, FAST '03). ARC's T1 is `Recent`; its T2 is `Protected` before `Probation`, which together are one list
//! by recency, whichever rule orders them.

use super::lists::{List, Lists, Slot};
use super::sketch::Sketch;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Frequency { window_percent: u64 },
    Balance,
}

/// Of what is not in the window, the part that is protected (Caffeine's).
const PROTECTED_PERCENT: u64 = 80;
/// Entries that a request may move out of a window that is larger than its rule wants: enough that a change of rule is done
/// within a pass over the cache, and few enough that no request pays for it.
const MOVES_MAX: usize = 4;

/// Exact, and without overflow.
fn percent(of: u64, percent: u64) -> u64 {
    of / 100 * percent + of % 100 * percent / 100
}

const HELD: [List; 4] = [List::Recent, List::Aside, List::Probation, List::Protected];

/// The hashes of keys are even already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        // The map tells entries apart by the first bits first, and in a sample these are all zero.
        self.0.rotate_left(32)
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A map by hash; nothing may depend on its order.
pub(crate) type ByHash<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

/// The hashes of those that a put drove out.
pub(crate) type Gone = Vec<u64>;

#[derive(Clone, Debug)]
pub(crate) struct Rules {
    lists: Lists,
    known: ByHash<Slot>,
    sketch: Sketch,
    capacity: u64,
    rule: Rule,
    /// What `Recent` should take under [`Rule::Balance`].
    target: u64,
}

impl Rules {
    pub(crate) fn new(capacity: u64, rule: Rule) -> Self {
        Self {
            lists: Lists::default(),
            known: ByHash::default(),
            sketch: Sketch::default(),
            capacity,
            rule,
            target: 0,
        }
    }

    pub(crate) fn target(&self) -> u64 {
        self.target
    }

    pub(crate) fn follow(&mut self, rule: Rule, target: u64) {
        self.rule = rule;
        self.target = target.min(self.capacity);
    }

    pub(crate) fn held_units(&self) -> u64 {
        HELD.into_iter().map(|list| self.lists.units(list)).sum()
    }

    pub(crate) fn held(&self) -> usize {
        HELD.into_iter().map(|list| self.lists.entries(list)).sum()
    }

    /// What a held entry takes.
    pub(crate) fn units_of(&self, hash: u64) -> Option<u64> {
        self.peek(hash).map(|slot| self.lists.size(slot))
    }

    fn slot(&self, hash: u64) -> Option<Slot> {
        self.known.get(&hash).copied()
    }

    /// Where a held entry is, without asking for it.
    pub(crate) fn peek(&self, hash: u64) -> Option<Slot> {
        self.slot(hash).filter(|slot| self.lists.list(*slot).is_some_and(List::is_held))
    }

    /// It is asked for.
    pub(crate) fn get(&mut self, hash: u64) -> Option<Slot> {
        self.sketch.add(hash, self.held());
        let slot = self.peek(hash)?;
        self.lists.set_again(slot);
        match (self.lists.list(slot), self.rule) {
            (Some(List::Recent), Rule::Frequency { .. }) => self.lists.put(slot, List::Recent),
            _ => {
                self.lists.put(slot, List::Protected);
                self.demote();
            }
        }
        Some(slot)
    }

    /// It goes, and leaves no trace.
    pub(crate) fn remove(&mut self, hash: u64) -> bool {
        let Some(slot) = self.known.remove(&hash) else { return false };
        let held = self.lists.list(slot).is_some_and(List::is_held);
        self.lists.remove(slot);
        held
    }

    /// The hashes of all that is held, in no order that means anything.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        HELD.into_iter().flat_map(|list| {
            std::iter::successors(self.lists.oldest(list), |slot| self.lists.newer(*slot))
                .map(|slot| self.lists.hash(slot))
        })
    }

    /// It comes in, if the rule lets it. `gone` is told of all that leave, itself included.
    pub(crate) fn put(&mut self, hash: u64, units: u64, gone: &mut Gone) {
        if self.remove_held(hash) {
            gone.push(hash);
        }
        if units > self.capacity {
            gone.push(hash);
            return;
        }
        let was = self.slot(hash).and_then(|slot| self.lists.list(slot));
        if let Some(slot) = self.known.remove(&hash) {
            self.lists.remove(slot);
        }
        match self.rule {
            Rule::Frequency { window_percent } => self.put_by_frequency(hash, units, window_percent, gone),
            Rule::Balance => self.put_by_balance(hash, units, was, gone),
        }
        self.trim();
    }

    /// An entry that is replaced by one of another size is as if it had never been.
    fn remove_held(&mut self, hash: u64) -> bool {
        self.peek(hash).is_some() && self.remove(hash)
    }

    fn put_by_frequency(&mut self, hash: u64, units: u64, window_percent: u64, gone: &mut Gone) {
        self.insert(hash, units, List::Recent);
        let window = percent(self.capacity, window_percent).max(1);
        for _ in 0..MOVES_MAX {
            if self.lists.units(List::Recent) <= window {
                break;
            }
            let Some(oldest) = self.lists.oldest(List::Recent) else { break };
            let to = if self.lists.again(oldest) { List::Probation } else { List::Aside };
            self.lists.put(oldest, to);
            self.admit(oldest, gone);
        }
        // A window that is still too large keeps what it has; others make room.
        while self.held_units() > self.capacity && self.leave_oldest(gone) {}
    }

    fn leave_oldest(&mut self, gone: &mut Gone) -> bool {
        let oldest = [List::Aside, List::Probation, List::Protected, List::Recent];
        let Some(slot) = oldest.into_iter().find_map(|list| self.lists.oldest(list)) else { return false };
        self.leave(slot, gone);
        true
    }

    /// Lets an entry out of the window stay if it is asked for more often than all that would have to go for it.
    fn admit(&mut self, candidate: Slot, gone: &mut Gone) {
        let over = self.held_units().saturating_sub(self.capacity);
        if over == 0 {
            return;
        }
        let worth = self.sketch.count(self.lists.hash(candidate));
        let (mut units, mut count) = (0, 0);
        let mut victims: Vec<Slot> = Vec::new();
        let mut heads = [List::Aside, List::Probation, List::Protected].map(|list| self.lists.oldest(list));
        while units < over && count < worth {
            let victim = self.next_victim(&mut heads, candidate);
            let Some(victim) = victim else { break };
            units += self.lists.size(victim);
            count += self.sketch.count(self.lists.hash(victim));
            victims.push(victim);
        }
        if units >= over && worth > count {
            victims.into_iter().for_each(|victim| self.leave(victim, gone));
        } else {
            self.leave_to(candidate, List::GoneRecent, gone);
        }
    }

    /// The one of the two lists' oldest that has stood there for longer; what is protected only when both are empty.
    fn next_victim(&self, heads: &mut [Option<Slot>; 3], candidate: Slot) -> Option<Slot> {
        for head in heads.iter_mut() {
            if *head == Some(candidate) {
                *head = self.lists.newer(candidate);
            }
        }
        let from = match *heads {
            [Some(aside), Some(probation), _] => {
                usize::from(self.lists.moved(probation) < self.lists.moved(aside))
            }
            [Some(_), None, _] => 0,
            [None, Some(_), _] => 1,
            [None, None, _] => 2,
        };
        let victim = heads[from]?;
        heads[from] = self.lists.newer(victim);
        Some(victim)
    }

    fn put_by_balance(&mut self, hash: u64, units: u64, was: Option<List>, gone: &mut Gone) {
        let from_frequent = was == Some(List::GoneFrequent);
        if let Some(was) = was {
            // The entry itself counts among those that have gone.
            let own = (self.lists.units(was) + units).max(1);
            let other = match was {
                List::GoneFrequent => self.lists.units(List::GoneRecent),
                _ => self.lists.units(List::GoneFrequent),
            };
            let step = u128::from(units) * u128::from(other.max(own)) / u128::from(own);
            let step = u64::try_from(step).unwrap_or(u64::MAX);
            self.target = match was {
                List::GoneFrequent => self.target.saturating_sub(step),
                _ => self.target.saturating_add(step).min(self.capacity),
            };
        }
        while self.held_units() + units > self.capacity {
            let recent = self.lists.units(List::Recent) + self.lists.units(List::Aside);
            let over = recent > self.target || from_frequent && recent >= self.target;
            let frequent = self.lists.oldest(List::Probation).or(self.lists.oldest(List::Protected));
            let victim = match (self.lists.oldest(List::Aside).or(self.lists.oldest(List::Recent)), frequent)
            {
                (Some(recent), _) if over => recent,
                (_, Some(frequent)) => frequent,
                (Some(recent), None) => recent,
                (None, None) => break,
            };
            self.leave(victim, gone);
        }
        self.insert(hash, units, if was.is_some() { List::Protected } else { List::Recent });
        self.demote();
    }

    fn insert(&mut self, hash: u64, units: u64, list: List) {
        let slot = self.lists.insert(hash, units, list);
        self.known.insert(hash, slot);
    }

    fn demote(&mut self) {
        let others = self.capacity.saturating_sub(self.lists.units(List::Recent));
        let protected = percent(others, PROTECTED_PERCENT);
        while self.lists.units(List::Protected) > protected {
            let Some(oldest) = self.lists.oldest(List::Protected) else { break };
            self.lists.put(oldest, List::Probation);
        }
    }

    /// It goes, and its name is remembered.
    fn leave(&mut self, slot: Slot, gone: &mut Gone) {
        let to = match self.lists.list(slot) {
            Some(List::Recent | List::Aside) => List::GoneRecent,
            _ => List::GoneFrequent,
        };
        self.leave_to(slot, to, gone);
    }

    fn leave_to(&mut self, slot: Slot, to: List, gone: &mut Gone) {
        gone.push(self.lists.hash(slot));
        self.lists.put(slot, to);
    }

    /// Becomes a smaller cache of those that are still `sampled`.
    pub(crate) fn thin(&mut self, capacity: u64, sampled: impl Fn(u64) -> bool) {
        let mut others: Vec<u64> = self.known.keys().copied().filter(|hash| !sampled(*hash)).collect();
        // A map's order must not become the order of free places.
        others.sort_unstable();
        others.into_iter().for_each(|hash| {
            self.remove(hash);
        });
        self.target =
            u64::try_from(u128::from(self.target) * u128::from(capacity) / u128::from(self.capacity.max(1)))
                .unwrap_or(capacity);
        self.capacity = capacity.max(1);
        let mut gone = Gone::new();
        while self.held_units() > self.capacity && self.leave_oldest(&mut gone) {}
        self.demote();
        self.trim();
    }

    /// No more names than ARC keeps: of the recent kind as much as fits beside the recent ones, of both as much as the cache holds.
    fn trim(&mut self) {
        let gone = |lists: &Lists| lists.units(List::GoneRecent) + lists.units(List::GoneFrequent);
        let recent = self.lists.units(List::Recent) + self.lists.units(List::Aside);
        while recent + self.lists.units(List::GoneRecent) > self.capacity && self.forget(List::GoneRecent) {}
        while self.held_units() + gone(&self.lists) > self.capacity.saturating_mul(2)
            && (self.forget(List::GoneFrequent) || self.forget(List::GoneRecent))
        {}
    }

    fn forget(&mut self, list: List) -> bool {
        let Some(oldest) = self.lists.oldest(list) else { return false };
        self.known.remove(&self.lists.hash(oldest));
        self.lists.remove(oldest);
        true
    }
}
