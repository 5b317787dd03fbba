//! The chance that what comes next is something that nobody has ever turned to.
//!
//! Three counts of how often that was so, by what is known after the last item, by the user's own share of firsts and
//! by how much has been seen at all; their logits are mixed by weights that step on the error (M. Mahoney, *Adaptive
//! weighing of context models for lossless data compression*, Florida Tech CS-2005-16).

use super::evidence::{Evidence, TOTALS, VARIETIES};
use super::fast::{ln, squash};
use super::history::History;
use super::items::Items;
use super::keys::ALL_ORDERS;
use serde::{Deserialize, Serialize};

const CONTEXTS: usize = 3;
const RATE: f32 = 0.02;
/// Moments over which an estimate averages, at most: firsts grow rarer.
const MEMORY: f32 = 400.0;
const BEGINS_WITH: f32 = 0.05;
const BOUNDS: (f32, f32) = (1e-6, 0.999);

/// Cells of each context.
const CELLS: [usize; CONTEXTS] = [TOTALS * VARIETIES + 1, 16 * 16, 32 * (ALL_ORDERS.len() + 1)];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Novelty {
    /// Chance and moments counted, per cell of each context.
    cells: [Vec<(f32, f32)>; CONTEXTS],
    weights: [f32; CONTEXTS],
    #[serde(skip)]
    at: [usize; CONTEXTS],
    #[serde(skip)]
    logits: [f32; CONTEXTS],
    #[serde(skip)]
    pub(super) chance: f32,
}

impl Default for Novelty {
    fn default() -> Self {
        Self {
            cells: CELLS.map(|n| vec![(BEGINS_WITH, 1.0); n]),
            weights: [0.4; CONTEXTS],
            at: [0; CONTEXTS],
            logits: [0.0; CONTEXTS],
            chance: 1.0,
        }
    }
}

impl Novelty {
    /// `firsts`: how often the user turned to something that nobody had turned to.
    pub(super) fn estimate(&mut self, e: &Evidence, items: &Items, h: &History, firsts: u32) {
        if items.total == 0 {
            self.chance = 1.0;
            return;
        }
        let rate = (u64::from(firsts) * 16 / u64::from(h.seen().max(1))).min(15) as usize;
        self.at = [
            e.after_last,
            octave(h.seen()).min(15) * 16 + rate,
            octave(items.total).min(31) * (ALL_ORDERS.len() + 1) + e.all_depth,
        ];
        let mut z = 0.0;
        for (i, at) in self.at.into_iter().enumerate() {
            let p = self.cells[i][at].0;
            self.logits[i] = ln(p / (1.0 - p));
            z += self.weights[i] * self.logits[i];
        }
        self.chance = squash(z).clamp(BOUNDS.0, BOUNDS.1);
    }

    pub(super) fn learn(&mut self, first: bool) {
        if self.chance >= 1.0 {
            return; // nothing had been seen: there was nothing to learn
        }
        let truth = if first { 1.0 } else { 0.0 };
        let error = truth - self.chance;
        for (i, at) in self.at.into_iter().enumerate() {
            self.weights[i] += RATE * error * self.logits[i];
            let (p, n) = &mut self.cells[i][at];
            *n += 1.0;
            *p = (*p + (truth - *p) / (*n + 0.5).min(MEMORY)).clamp(BOUNDS.0, BOUNDS.1);
        }
    }
}

fn octave(n: u32) -> usize {
    32 - n.leading_zeros() as usize
}
