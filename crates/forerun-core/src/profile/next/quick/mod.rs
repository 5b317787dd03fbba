//! A quick predictor of the next item, for where a million events a second are worth more than the last percent: few
//! contexts, eight followers each, no second stage.
//!
//! The user's own last 1, 2, 3 and 5 items, everyone's too, the longest first: each context has a share of what longer
//! ones left, and the rest goes on to shorter ones, at last to what is popular and to all others. How large the share is
//! depends on how much the context has seen and how sure it is, and is learned by how much of what came was owed to it
//! (interpolation by expectation and maximisation: F. Jelinek & R. L. Mercer, *Interpolated estimation of Markov source
//! parameters from sparse data*, 1980; here online). A user's shorter contexts do not count what a longer one knew
//! already (update exclusion: A. Moffat, *Implementing the PPM data compression scheme*, IEEE Trans. Comm. 38, 1990).

mod cell;

use super::fast::sum;
use super::store::join;
use crate::profile::table::{Table, Worth, spread};
use cell::{Cell, FOLLOWERS};

/// Contexts: how many items, and whether they are the user's own; the longest first.
const CONTEXTS: [(usize, bool); 8] =
    [(5, true), (5, false), (3, true), (3, false), (2, true), (2, false), (1, true), (1, false)];
const STEPS: usize = 5;
/// Slots in which a key may stand.
const WINDOW: usize = 2;
/// Buckets of confidence of each context: by counts seen, and whether one follower has nearly all.
const SEEN: usize = 6;
const BUCKETS: usize = SEEN * 3;
/// Moments over which a share averages at most, and its bounds.
const MEMORY: f32 = 100.0;
const SHARES: (f32, f32) = (0.005, 0.995);
/// What any other item is taken to have of what nobody else wants.
const OTHER: f32 = 1e-3;
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
    /// By context and bucket: the share, and moments that it was learned from.
    shares: [[(f32, f32); BUCKETS]; CONTEXTS.len()],
    popular_share: (f32, f32),
    /// By class: by what its chances are multiplied.
    ratio: [f32; CLASSES],
    steps: u64,
    /// Of the last moment: user, keys and buckets of the contexts, and candidates with their chances.
    user: u64,
    keys: [u64; CONTEXTS.len()],
    found: [Option<(usize, usize)>; CONTEXTS.len()],
    items: [u32; CANDIDATES],
    chances: [f32; CANDIDATES],
    /// By class: the candidate that is of it; all others are of the last.
    recent: [Option<usize>; STEPS],
    count: usize,
    rest: f32,
    /// By hash of the item: its number among the candidates.
    place: [u8; 256],
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
            shares: [[(0.5, 1.0); BUCKETS]; CONTEXTS.len()],
            popular_share: (0.5, 1.0),
            ratio: [1.0; CLASSES],
            steps: 0,
            user: 0,
            keys: [0; CONTEXTS.len()],
            found: [None; CONTEXTS.len()],
            items: [0; CANDIDATES],
            chances: [0.0; CANDIDATES],
            recent: [None; STEPS],
            count: 0,
            rest: 1.0,
            place: [u8::MAX; 256],
        }
    }

    /// Asks what a user will turn to next.
    pub fn ask(&mut self, user: u64) {
        self.user = user;
        self.count = 0;
        self.place.fill(u8::MAX);
        let nobody = Recent::default();
        let recent = *self.users.get(user).unwrap_or(&nobody);
        self.keys = keys(user, &recent);
        // All are reached for at once: the memory is slow, and they do not depend on one another.
        let homes = self.keys.map(|key| key as usize & (self.cells.len() - WINDOW));
        let touched = homes.map(|home| [self.cells[home].key, self.cells[home + 1].key]);
        let mut left = 1.0;
        for (k, (home, [first, second])) in homes.into_iter().zip(touched).enumerate() {
            let key = self.keys[k];
            self.found[k] = None;
            if key == 0 || (first != key && second != key) {
                continue;
            }
            let at = home + usize::from(first != key);
            let cell = &self.cells[at];
            let total = cell.total();
            let bucket = bucket(total, cell.counts[0]);
            self.found[k] = Some((at, bucket));
            let share = self.shares[k][bucket].0;
            let each = left * share / total as f32;
            let (items, counts) = (cell.items, cell.counts);
            for (item, count) in items.into_iter().zip(counts).take_while(|(_, c)| *c > 0) {
                self.add(item, each * f32::from(count));
            }
            left *= 1.0 - share;
        }
        let each = left * self.popular_share.0 / self.popular_total();
        for (item, count) in self.popular.into_iter().take_while(|(_, n)| *n > 0) {
            self.add(item, each * count as f32);
        }
        self.correct(&recent, left * (1.0 - self.popular_share.0));
    }

    fn popular_total(&self) -> f32 {
        self.popular.iter().map(|(_, n)| u64::from(*n)).sum::<u64>().max(1) as f32
    }

    /// Sets right how likely what the user has just turned to is, and what not. `rest`: what all others have.
    fn correct(&mut self, recent: &Recent, rest: f32) {
        self.recent = [None; STEPS];
        let mut kept = [0.0; STEPS];
        let held = &recent.items[..STEPS.min(recent.seen as usize)];
        for (class, (item, kept)) in held.iter().zip(&mut kept).enumerate() {
            // An item stands in the class of its latest step.
            if let Some(at) = self.number(*item).filter(|_| !held[..class].contains(item)) {
                (self.recent[class], *kept) = (Some(at), self.chances[at] * self.ratio[class]);
            }
        }
        let chances = &mut self.chances[..self.count];
        chances.iter_mut().for_each(|p| *p *= self.ratio[STEPS]);
        for (at, kept) in self.recent.iter().zip(kept) {
            at.iter().for_each(|at| chances[*at] = kept);
        }
        let all = sum(chances) + rest;
        let scale = if chances.is_empty() { 0.0 } else { 1.0 / all };
        chances.iter_mut().for_each(|p| *p *= scale);
        self.rest = if chances.is_empty() { 1.0 } else { rest * scale };
    }

    /// How much of what came is owed to each context, and how much to shorter ones.
    fn learn_shares(&mut self, item: u32) {
        let count = self.popular.iter().find(|(i, _)| *i == item).map_or(0, |(_, n)| *n);
        let popular = self.popular_share.0 * count as f32 / self.popular_total();
        let mut lower = popular + (1.0 - self.popular_share.0) * OTHER;
        let popular_owed = popular / lower;
        let mut owed = [0.0f32; CONTEXTS.len()];
        for k in (0..CONTEXTS.len()).rev() {
            let Some((at, bucket)) = self.found[k] else { continue };
            let cell = &self.cells[at];
            let share = self.shares[k][bucket].0;
            let own = share * f32::from(cell.held(item)) / cell.total() as f32;
            let both = own + (1.0 - share) * lower;
            owed[k] = own / both;
            lower = both;
        }
        let mut left = 1.0;
        for (k, owed) in owed.into_iter().enumerate() {
            if let Some((_, bucket)) = self.found[k] {
                teach(&mut self.shares[k][bucket], owed, left);
                left *= 1.0 - owed;
            }
        }
        teach(&mut self.popular_share, popular_owed, left);
    }

    /// What was said of each class, and what came.
    fn learn_classes(&mut self, item: u32) {
        let came = self.number(item);
        let mut off = [0.0f32; CLASSES];
        // The last class has what the others have not.
        off[STEPS] = if came.is_some() { self.rest } else { self.rest - 1.0 };
        for (class, at) in self.recent.iter().enumerate() {
            if let Some(at) = at {
                off[class] = if came == Some(*at) { 1.0 } else { 0.0 } - self.chances[*at];
                off[STEPS] -= off[class];
            }
        }
        for (ratio, off) in self.ratio.iter_mut().zip(off) {
            *ratio = (*ratio * (1.0 + CLASS_RATE * off)).clamp(0.01, 100.0);
        }
    }

    /// An item's number among the candidates, if it is one.
    fn number(&self, item: u32) -> Option<usize> {
        let mut at = hash(item);
        loop {
            let held = usize::from(self.place[usize::from(at)]);
            if held >= self.count {
                return None;
            }
            if self.items[held] == item {
                return Some(held);
            }
            at = at.wrapping_add(1);
        }
    }

    /// Adds to an item's chance; where it stands is found by its hash.
    #[inline]
    fn add(&mut self, item: u32, chance: f32) {
        let mut at = hash(item);
        loop {
            let held = usize::from(self.place[usize::from(at)]);
            if held >= self.count {
                self.place[usize::from(at)] = self.count as u8;
                (self.items[self.count], self.chances[self.count]) = (item, chance);
                self.count += 1;
                return;
            }
            if self.items[held] == item {
                self.chances[held] += chance;
                return;
            }
            at = at.wrapping_add(1);
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

    /// The chance of one item, if it is one of those that were thought of.
    #[must_use]
    pub fn chance_of(&self, item: u32) -> Option<f32> {
        self.number(item).map(|at| self.chances[at])
    }

    /// Items that were thought of.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The chance of all others together, seen before or not; with the chances of those that were thought of it is 1.
    #[must_use]
    pub fn rest(&self) -> f32 {
        self.rest
    }

    /// Learns that a user turned to an item; asks first, if something else was asked last.
    pub fn learn(&mut self, user: u64, item: u32) {
        if self.user != user || self.count == 0 {
            self.ask(user);
        }
        self.learn_shares(item);
        self.learn_classes(item);
        let contexts = self.keys.into_iter().zip(self.found).zip(CONTEXTS);
        let mut known = false;
        for ((key, found), (_, own)) in contexts.filter(|((key, _), _)| *key != 0) {
            if own && known {
                continue;
            }
            let at = found.map_or_else(|| self.room(key), |(at, _)| at);
            // Two contexts of a moment may stand in one window: the second may have taken the first's place.
            if self.cells[at].key != key {
                let owner = if own { owner(user) } else { 0 };
                self.cells[at] = Cell { key, owner, ..Cell::default() };
            }
            known |= own && self.cells[at].held(item) > 0;
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
        home + usize::from(a.key != 0 && (b.key == 0 || b.total() < a.total()))
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

    /// Users known now.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
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

/// Moves a share towards what was owed; `left` of the moment came so far.
fn teach((share, n): &mut (f32, f32), owed: f32, left: f32) {
    *n = (*n + left).min(MEMORY);
    *share = (*share + left * (owed - *share) / (*n + 1.0)).clamp(SHARES.0, SHARES.1);
}

/// A user's mark; one in four thousand million shares it, and is forgotten too.
fn owner(user: u64) -> u32 {
    (spread(user) >> 32) as u32 | 1
}

fn hash(item: u32) -> u8 {
    (item.wrapping_mul(0x9e37_79b1) >> 24) as u8
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
mod tests;
