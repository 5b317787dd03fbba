//! A quick predictor of the next item, for where a million events a second are worth more than the last percent: few
//! contexts, eight followers each, no second stage.
//!
//! The user's own last 1, 2, 3 and 5 items, everyone's last 1, 2 and 3, the longest first: each context has a word in
//! what longer ones left, by how often one of its followers came when none of a longer one's did (prediction by partial
//! matching with learned escapes: C. Bloom, *Solving the problems of context modeling*, 1998). What is left at last goes
//! to what is popular.

use super::store::join;
use crate::profile::table::{Table, Worth, spread};

/// Followers of a context.
const FOLLOWERS: usize = 8;
/// Contexts: how many items, and whether they are the user's own; the longest first.
const CONTEXTS: [(usize, bool); 7] =
    [(5, true), (3, true), (3, false), (2, true), (2, false), (1, true), (1, false)];
const STEPS: usize = 5;
/// Slots in which a key may stand.
const WINDOW: usize = 2;
/// A count that reaches this halves its context's counts.
const COUNT_MAX: u8 = 250;
/// Buckets of confidence of each context: by counts seen, and whether one follower has nearly all.
const SEEN: usize = 6;
const BUCKETS: usize = SEEN * 3;
/// Moments over which a confidence averages at most.
const MEMORY: f32 = 250.0;
/// Classes of candidates: which of the user's last items it is, or none of them. How much more or less often than said
/// each class comes is learned, in steps of its logarithm ("not that again, it was just asked for").
const CLASSES: usize = STEPS + 1;
const CLASS_RATE: f32 = 0.02;
/// Of the memory: what users get; contexts get the rest.
const USERS_SHARE: f64 = 0.25;
/// Items that are held as popular.
const POPULAR: usize = 8;
const CANDIDATES: usize = CONTEXTS.len() * FOLLOWERS + POPULAR;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cell {
    /// 0 is free.
    key: u64,
    /// The most frequent first.
    items: [u32; FOLLOWERS],
    /// 0: no follower.
    counts: [u8; FOLLOWERS],
    /// Whose own context it is ([`owner`]); 0 is everyone's.
    owner: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Recent {
    /// The last first.
    items: [u32; STEPS],
    seen: u64,
    used: u64,
}

impl Worth for Recent {
    fn worth(&self) -> u64 {
        self.used
    }
}

/// Who does what next, in a microsecond.
#[derive(Clone, Debug)]
pub struct Quick {
    cells: Vec<Cell>,
    users: Table<Recent>,
    popular: [(u32, u32); POPULAR],
    confidence: [[(f32, f32); BUCKETS]; CONTEXTS.len()],
    /// By class: by what its chances are multiplied.
    ratio: [f32; CLASSES],
    steps: u64,
    /// Of the last moment: user, keys and buckets of the contexts, and candidates with their chances.
    user: u64,
    keys: [u64; CONTEXTS.len()],
    found: [Option<(usize, usize)>; CONTEXTS.len()],
    items: [u32; CANDIDATES],
    chances: [f32; CANDIDATES],
    class_of: [u8; CANDIDATES],
    count: usize,
}

impl Quick {
    /// A model that never takes more than about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let users = (bytes_max as f64 * USERS_SHARE) as usize;
        let fit = (bytes_max - users) / size_of::<Cell>();
        let cells = (fit.max(2 * WINDOW) + 1).next_power_of_two() / 2;
        Self {
            cells: vec![Cell::default(); cells],
            users: Table::new(users),
            popular: [(0, 0); POPULAR],
            confidence: [[(0.5, 1.0); BUCKETS]; CONTEXTS.len()],
            ratio: [1.0; CLASSES],
            steps: 0,
            user: 0,
            keys: [0; CONTEXTS.len()],
            found: [None; CONTEXTS.len()],
            items: [0; CANDIDATES],
            chances: [0.0; CANDIDATES],
            class_of: [0; CANDIDATES],
            count: 0,
        }
    }

    /// Asks what a user will turn to next.
    pub fn ask(&mut self, user: u64) {
        self.user = user;
        self.count = 0;
        let nobody = Recent::default();
        let recent = *self.users.get(user).unwrap_or(&nobody);
        self.keys = keys(user, &recent);
        // All are reached for at once: the memory is slow, and they do not depend on one another.
        let homes = self.keys.map(|key| key as usize & (self.cells.len() - WINDOW));
        let touched = homes.map(|home| self.cells[home].key);
        let mut left = 1.0;
        for (k, (home, first)) in homes.into_iter().zip(touched).enumerate() {
            let key = self.keys[k];
            self.found[k] = None;
            let at = if first == key { home } else { home + 1 };
            if key == 0 || self.cells[at].key != key {
                continue;
            }
            let cell = self.cells[at];
            let total: u32 = cell.counts.iter().map(|c| u32::from(*c)).sum();
            let bucket = bucket(total, cell.counts[0]);
            self.found[k] = Some((at, bucket));
            let sure = self.confidence[k][bucket].0;
            let each = left * sure / total as f32;
            for (item, count) in cell.items.into_iter().zip(cell.counts).take_while(|(_, c)| *c > 0) {
                self.add(item, each * f32::from(count));
            }
            left *= 1.0 - sure;
        }
        let total: u64 = self.popular.iter().map(|(_, n)| u64::from(*n)).sum();
        let each = left / total.max(1) as f32;
        for (item, count) in self.popular.into_iter().take_while(|(_, n)| *n > 0) {
            self.add(item, each * count as f32);
        }
        self.correct(&recent);
    }

    /// Sets right how likely what the user has just turned to is, and what not.
    fn correct(&mut self, recent: &Recent) {
        let held = &recent.items[..STEPS.min(recent.seen as usize)];
        let mut sum = 0.0;
        for i in 0..self.count {
            let class = held.iter().position(|item| *item == self.items[i]).unwrap_or(STEPS);
            self.class_of[i] = class as u8;
            self.chances[i] *= self.ratio[class];
            sum += self.chances[i];
        }
        let scale = 1.0 / sum.max(1.0);
        self.chances[..self.count].iter_mut().for_each(|p| *p *= scale);
    }

    /// What was said of each class, and what came.
    fn learn_classes(&mut self, item: u32) {
        for i in 0..self.count {
            let came = if self.items[i] == item { 1.0 } else { 0.0 };
            let ratio = &mut self.ratio[usize::from(self.class_of[i])];
            *ratio = (*ratio * (1.0 + CLASS_RATE * (came - self.chances[i]))).clamp(0.01, 100.0);
        }
    }

    #[inline]
    fn add(&mut self, item: u32, chance: f32) {
        match self.items[..self.count].iter().position(|i| *i == item) {
            Some(at) => self.chances[at] += chance,
            None => {
                (self.items[self.count], self.chances[self.count]) = (item, chance);
                self.count += 1;
            }
        }
    }

    /// The `k` likeliest items of what was asked last, the likeliest first; of equals the lowest number.
    pub fn top(&self, k: usize, out: &mut Vec<(u32, f32)>) {
        out.clear();
        for (item, p) in self.items[..self.count].iter().zip(&self.chances) {
            let behind = |(i, q): &(u32, f32)| q.total_cmp(p).then(item.cmp(i)).is_lt();
            if out.len() < k || out.last().is_some_and(behind) {
                let at = out.iter().position(behind).unwrap_or(out.len());
                out.insert(at, (*item, *p));
                out.truncate(k);
            }
        }
    }

    /// Learns that a user turned to an item; asks first, if something else was asked last.
    pub fn learn(&mut self, user: u64, item: u32) {
        if self.user != user || self.count == 0 {
            self.ask(user);
        }
        for (k, found) in self.found.into_iter().enumerate() {
            let Some((at, bucket)) = found else { continue };
            let cell = &self.cells[at];
            let right = (0..FOLLOWERS).any(|i| cell.counts[i] > 0 && cell.items[i] == item);
            let (p, n) = &mut self.confidence[k][bucket];
            *n = (*n + 1.0).min(MEMORY);
            *p += (if right { 1.0 } else { 0.0 } - *p) / (*n + 1.0);
            if right {
                break;
            }
        }
        self.learn_classes(item);
        let contexts = self.keys.into_iter().zip(self.found).zip(CONTEXTS);
        for ((key, found), (_, own)) in contexts.filter(|((key, _), _)| *key != 0) {
            let at = found.map_or_else(|| self.room(key), |(at, _)| at);
            // Two contexts of a moment may stand in one window: the second may have taken the first's place.
            if self.cells[at].key != key {
                let owner = if own { owner(user) } else { 0 };
                self.cells[at] = Cell { key, owner, ..Cell::default() };
            }
            self.cells[at].count(item);
        }
        self.steps += 1;
        self.note_popular(item);
        let known = self.users.entry(user);
        known.items.copy_within(..STEPS - 1, 1);
        known.items[0] = item;
        known.seen += 1;
        known.used = self.steps;
        self.count = 0;
    }

    /// A place for a key: a free one, or that of the neighbour that was counted least.
    fn room(&self, key: u64) -> usize {
        let home = key as usize & (self.cells.len() - WINDOW);
        let (a, b) = (&self.cells[home], &self.cells[home + 1]);
        let worth = |c: &Cell| c.counts.iter().map(|n| u32::from(*n)).sum::<u32>();
        home + usize::from(a.key != 0 && (b.key == 0 || worth(b) < worth(a)))
    }

    /// The most popular items (space saving: Metwally, Agrawal & El Abbadi 2005).
    fn note_popular(&mut self, item: u32) {
        let at = self.popular.iter().position(|(i, n)| *i == item && *n > 0).unwrap_or(POPULAR - 1);
        let (held, n) = &mut self.popular[at];
        (*held, *n) = (item, n.saturating_add(1));
        if at > 0 && self.popular[at - 1].1 < self.popular[at].1 {
            self.popular.swap(at - 1, at);
        }
    }

    /// Bytes of memory that contexts and users take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<Cell>() + self.users.bytes()
    }

    /// Drops all that is a user's own.
    pub fn forget(&mut self, user: u64) {
        self.users.remove(user);
        let owner = owner(user);
        self.cells.iter_mut().filter(|c| c.owner == owner).for_each(|c| *c = Cell::default());
        self.count = 0;
    }
}

impl Cell {
    fn count(&mut self, item: u32) {
        let at = (0..FOLLOWERS).find(|i| self.counts[*i] == 0 || self.items[*i] == item);
        let mut at = at.unwrap_or_else(|| {
            // The rarest makes way once its count is used up.
            self.counts[FOLLOWERS - 1] /= 2;
            FOLLOWERS - 1
        });
        if self.counts[at] > 0 && self.items[at] != item {
            return;
        }
        self.items[at] = item;
        self.counts[at] += 1;
        if self.counts[at] >= COUNT_MAX {
            self.counts.iter_mut().for_each(|n| *n /= 2);
        }
        while at > 0 && self.counts[at - 1] < self.counts[at] {
            self.counts.swap(at - 1, at);
            self.items.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// A user's mark; one in four thousand million shares it, and is forgotten too.
fn owner(user: u64) -> u32 {
    (spread(user) >> 32) as u32 | 1
}

fn keys(user: u64, recent: &Recent) -> [u64; CONTEXTS.len()] {
    let mut chain = [0x51ed; STEPS + 1];
    for i in 0..STEPS {
        chain[i + 1] = join(chain[i], u64::from(recent.items[i]) + 1);
    }
    CONTEXTS.map(
        |(order, own)| {
            if recent.seen < order as u64 { 0 } else { join(chain[order], if own { user } else { 0 }) }
        },
    )
}

fn bucket(total: u32, most: u8) -> usize {
    let seen = match total {
        0..=1 => 0,
        2 => 1,
        3..=4 => 2,
        5..=12 => 3,
        13..=60 => 4,
        _ => 5,
    };
    let most = u32::from(most);
    let sure = if most == total { 2 } else { usize::from(most * 5 >= total * 4) };
    seen * 3 + sure
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn top(model: &mut Quick, user: u64) -> Vec<(u32, f32)> {
        let mut out = Vec::new();
        model.ask(user);
        model.top(5, &mut out);
        out
    }

    #[test]
    fn a_habit_is_learned_in_a_few_rounds() {
        let mut model = Quick::new(1 << 20);
        for item in [3, 1, 2].repeat(12) {
            model.learn(7, item);
        }
        let said = top(&mut model, 7);
        assert!(said[0].0 == 3 && said[0].1 > 0.7, "{said:?}");
    }

    #[test]
    fn not_that_again_is_learned() {
        let mut model = Quick::new(1 << 20);
        // Everyone takes each of three items once, in an order of their own.
        for user in 1..400u64 {
            let draw = spread(user);
            let first = draw % 3;
            let second = (first + 1 + (draw >> 8) % 2) % 3;
            [first, second, 3 - first - second].into_iter().for_each(|item| model.learn(user, item as u32));
        }
        [0, 1].into_iter().for_each(|item| model.learn(1_000, item));
        let said = top(&mut model, 1_000);
        assert!(said[0].0 == 2 && said[0].1 > 0.9, "{said:?}");
        let ratio = model.ratio;
        assert!(ratio[0] < 1.0 && ratio[1] < 1.0 && ratio[STEPS] > 1.0, "{ratio:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn chances_are_chances_within_memory_and_a_user_is_forgotten(
            steps in proptest::collection::vec((1u64..6, 0u32..2_000), 1..600),
        ) {
            const BYTES: usize = 1 << 18;
            let mut model = Quick::new(BYTES);
            for (user, item) in &steps {
                let said = top(&mut model, *user);
                prop_assert!(said.iter().all(|(_, p)| (0.0..=1.0).contains(p)), "{said:?}");
                prop_assert!(said.iter().map(|(_, p)| p).sum::<f32>() <= 1.0 + 1e-4, "{said:?}");
                prop_assert!(said.windows(2).all(|w| w[0].1 >= w[1].1), "{said:?}");
                model.learn(*user, *item);
            }
            prop_assert!(model.bytes() <= BYTES, "{}", model.bytes());
            model.forget(1);
            prop_assert_eq!(top(&mut model, 1), top(&mut model, 77));
            prop_assert!(model.cells.iter().all(|c| c.owner != owner(1)));
        }
    }
}
