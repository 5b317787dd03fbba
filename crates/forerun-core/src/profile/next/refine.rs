//! The third stage: how often the first two ranks were right in the like of this moment.
//!
//! The chance of the first rank, and of the second if it is not the first, each go through four tables: by the longest
//! orders known, by the item, by the user, and by how long ago the user turned to the item and how often in a row the
//! last one. A table's row holds how often what was said to be so likely came, between steps of the logit; the logits
//! are averaged with what was said. All others keep their proportions. At last the user's last item and the likeliest other
//! divide anew what they have together ([`super::pair`]). After the adaptive probability maps of PAQ
//! (M. Mahoney, *Adaptive weighing of context models for lossless data compression*, Florida Tech CS-2005-16).

use super::evidence::Evidence;
use super::fast::{highest, ln, squash, sum};
use super::history::History;
use super::keys::ALL_ORDERS;
use super::pair::Pair;
use crate::profile::table::spread;
use serde::{Deserialize, Serialize};

/// Ranks that are refined; four gain no more than two.
const RANKS: usize = 2;
const TABLES: usize = 4;
const ROWS: usize = 256;
/// The table whose rows are users'; the first row is everyone's who has none.
const USERS: usize = 2;
/// Steps of the logit, and how wide each is.
pub(super) const STEPS: usize = 24;
const STEP: f32 = 0.8;
/// What each table weighs; what was said weighs the rest.
const WEIGHT: f32 = 0.2;
/// Moments that a cell begins with, and over which it averages at most.
const PRIOR: f32 = 6.0;
const MEMORY: f32 = 255.0;
const BOUNDS: (f32, f32) = (1e-4, 1.0 - 1e-4);
/// What is left after earlier ranks must be this much to be worth dividing.
const LEFT_LEAST: f32 = 1e-3;

/// A chance, and moments counted.
pub(super) type Cell = (f32, f32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Refine {
    /// Chance and moments counted: by rank, table, row and step.
    cells: Vec<Cell>,
    pair: Pair,
    /// Chances of the candidates, and of all others together.
    #[serde(skip)]
    pub(super) chances: Vec<f32>,
    #[serde(skip)]
    asked: [Option<Asked>; RANKS],
}

/// A rank that was refined.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Asked {
    slot: usize,
    /// By table.
    places: [Place; TABLES],
}

/// Where a logit falls in a row: the lower cell, and how far it is to the upper one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    lower: usize,
    towards: f32,
}

impl Place {
    /// `row`: where the row begins.
    pub(super) fn new(row: usize, z: f32) -> Self {
        let place = (z / STEP + 0.5 * STEPS as f32).clamp(0.0, STEPS as f32 - 0.001);
        Self { lower: row + place as usize, towards: place - place as usize as f32 }
    }

    pub(super) fn chance(&self, cells: &[Cell]) -> f32 {
        cells[self.lower].0 * (1.0 - self.towards) + cells[self.lower + 1].0 * self.towards
    }

    /// `prior`: moments that a cell begins with.
    pub(super) fn teach(&self, cells: &mut [Cell], right: bool, prior: f32) {
        let truth = if right { 1.0 } else { 0.0 };
        for (at, part) in [(self.lower, 1.0 - self.towards), (self.lower + 1, self.towards)] {
            let (p, n) = &mut cells[at];
            *n += part;
            *p += part * (truth - *p) / (*n + prior).min(MEMORY);
        }
    }
}

impl Default for Refine {
    fn default() -> Self {
        let cells = row_untaught().repeat(RANKS * TABLES * ROWS);
        Self { cells, pair: Pair::default(), chances: Vec::new(), asked: [None; RANKS] }
    }
}

/// A row that nothing was learned in: it says what was said.
pub(super) fn row_untaught() -> Vec<Cell> {
    (0..=STEPS).map(|step| (squash((step as f32 - 0.5 * STEPS as f32) * STEP), 0.0)).collect()
}

pub(super) fn logit(p: f32) -> f32 {
    let p = p.clamp(BOUNDS.0, BOUNDS.1);
    ln(p / (1.0 - p))
}

fn start(rank: usize, table: usize, row: usize) -> usize {
    ((rank * TABLES + table) * ROWS + row % ROWS) * (STEPS + 1)
}

fn row_of(owner: u64) -> usize {
    if owner == 0 { 0 } else { 1 + (spread(owner) % (ROWS as u64 - 1)) as usize }
}

impl Refine {
    /// Takes the second stage's chances as they are.
    pub(super) fn pass(&mut self, chances: &[f32]) {
        self.chances.clear();
        self.chances.extend_from_slice(chances);
        self.asked = [None; RANKS];
        self.pair.pass();
    }

    /// `owner`: the user, if rows of users apply to that one.
    pub(super) fn refine(&mut self, e: &Evidence, h: &History, chances: &[f32], owner: u64) {
        self.pass(chances);
        let count = e.candidates.len();
        let ranks = best_two(&chances[..count]);
        let (mut said_left, mut left) = (1.0, 1.0);
        for (rank, slot) in ranks.into_iter().enumerate() {
            // Of what is left, something must be left after this rank.
            if rank + usize::from(!e.others) >= count || said_left < LEFT_LEAST {
                break;
            }
            let Some(slot) = slot else { break };
            let z = logit(chances[slot] / said_left);
            let rows = rows(e, h, slot, owner);
            let places = std::array::from_fn(|table| Place::new(start(rank, table, rows[table]), z));
            let told: f32 = places.iter().map(|place: &Place| logit(place.chance(&self.cells))).sum();
            let mixed = (1.0 - WEIGHT * TABLES as f32) * z + WEIGHT * told;
            let refined = squash(mixed).clamp(BOUNDS.0, BOUNDS.1);
            self.asked[rank] = Some(Asked { slot, places });
            said_left -= chances[slot];
            self.chances[slot] = left * refined;
            left *= 1.0 - refined;
        }
        self.spread_rest(left);
        self.pair.divide(e, h, &mut self.chances);
    }

    /// What is left goes to those that were not refined, in proportion.
    fn spread_rest(&mut self, left: f32) {
        let Self { chances, asked, .. } = self;
        let refined = asked.map(|asked| asked.map(|a| (a.slot, std::mem::take(&mut chances[a.slot]))));
        let scale = left / sum(chances).max(f32::MIN_POSITIVE);
        chances.iter_mut().for_each(|p| *p *= scale);
        for (slot, p) in refined.into_iter().flatten() {
            chances[slot] = p;
        }
    }

    /// Learns which candidate it was, if it was any.
    pub(super) fn learn(&mut self, happened: Option<u16>) {
        let happened = happened.map(usize::from);
        for Asked { slot, places } in self.asked.into_iter().flatten() {
            let right = happened == Some(slot);
            places.iter().for_each(|place| place.teach(&mut self.cells, right, PRIOR));
            if right {
                break;
            }
        }
        self.pair.learn(happened);
    }

    /// Drops what was learned of a user's own.
    pub(super) fn forget(&mut self, user: u64) {
        for rank in 0..RANKS {
            let from = start(rank, USERS, row_of(user));
            self.cells[from..=from + STEPS].copy_from_slice(&row_untaught());
        }
    }
}

/// Which row of each table applies.
fn rows(e: &Evidence, h: &History, slot: usize, owner: u64) -> [usize; TABLES] {
    let item = e.candidates[slot];
    let age = e.ages.0[slot].0.min(15) as usize;
    [
        e.own_depth * (ALL_ORDERS.len() + 1) + e.all_depth,
        spread(u64::from(item)) as usize % ROWS,
        row_of(owner),
        h.run().min(15) as usize * 16 + age,
    ]
}

/// The likeliest and the second likeliest; of equals the first.
fn best_two(chances: &[f32]) -> [Option<usize>; RANKS] {
    let best = best_but(chances, usize::MAX);
    [best, best.and_then(|best| best_but(chances, best))]
}

/// The likeliest but one, the first of equals. First how likely, then which: looked for so, several are looked at at once.
pub(super) fn best_but(chances: &[f32], but: usize) -> Option<usize> {
    let (before, after) = chances.split_at(but.min(chances.len()));
    let after = after.get(1..).unwrap_or_default();
    let best = highest(before).max(highest(after));
    let first = |part: &[f32]| part.iter().position(|p| *p == best);
    first(before).or_else(|| first(after).map(|at| before.len() + 1 + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_stands_until_something_was_learned() {
        let (e, h) = moment();
        let mut refine = Refine::default();
        refine.refine(&e, &h, &[0.5, 0.3, 0.15, 0.05], 0);
        for (said, refined) in [0.5, 0.3, 0.15, 0.05].into_iter().zip(&refine.chances) {
            assert!((said - refined).abs() < 0.02, "{:?}", refine.chances);
        }
    }

    #[test]
    fn what_is_always_said_too_low_rises_and_the_sum_stays_one() {
        let (e, h) = moment();
        let mut refine = Refine::default();
        for _ in 0..200 {
            refine.refine(&e, &h, &[0.5, 0.3, 0.15, 0.05], 7);
            refine.learn(Some(0));
        }
        refine.refine(&e, &h, &[0.5, 0.3, 0.15, 0.05], 7);
        assert!(refine.chances[0] > 0.8, "{:?}", refine.chances);
        assert!((refine.chances.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!((refine.chances[2] / refine.chances[3] - 3.0).abs() < 1e-3, "others keep their proportions");
        refine.forget(7);
        let row = start(0, USERS, row_of(7));
        assert_eq!(refine.cells[row..=row + STEPS], row_untaught());
    }

    /// Three candidates and others.
    fn moment() -> (Evidence, History) {
        let mut history = History::default();
        history.push(1, None);
        let mut evidence = Evidence::default();
        (evidence.candidates, evidence.others) = (vec![1, 2, 3], true);
        (evidence, history)
    }
}
