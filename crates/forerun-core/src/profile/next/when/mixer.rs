//! What the contexts say at each fork of the tree of bins, mixed in the logistic domain (Mahoney 2005, the mixing of
//! PAQ): "is it in the later half of these bins?" Each context says how far it is from everyone's word, as a difference
//! of logits; three sets of weights add up, by what a context has seen, by fork, and by how long the user is known.

use super::super::fast::{ln, squash};
use super::bins::{BINS, LEVELS};
use super::contexts::CONTEXTS;
use serde::{Deserialize, Serialize};

/// Classes of how often a context was counted: 1, 2 to 3, 4 to 7, ... 256 and more. Class 0 is "never".
const TOTALS: usize = 10;
/// Classes of how many steps a user has made: 1, 2 to 3, ... 128 and more.
const KNOWN: usize = 8;
/// Counts of everyone's word that a context starts from.
const PRIOR: f32 = 2.0;
/// No context is surer than this: odds of 1 to 1999.
const ODDS_MAX: f32 = 1_999.0;
/// Weight of a context at first, for each class of [`TOTALS`].
const FIRST: f32 = 0.015;
/// Steps at which weights learn, at first, and the gaps after which they are small by half the square root of 2: the
/// more was learned, the less a single gap should change. Never less than a twentieth.
const RATE_TOTAL: f32 = 0.02;
const RATE_FORK: f32 = 0.012;
const RATE_KNOWN: f32 = 0.04;
const SLOWER_AFTER: f32 = 1_000.0;
const SLOWEST: f32 = 0.05;
/// How much a large input shortens the step (normalised least mean squares): a context that was sure and wrong would
/// throw all weights over.
const NORMAL: f32 = 0.2;

/// Counts at the nodes of the tree: 1 is the root, `BINS + b` the leaf of bin b, 2n and 2n + 1 are below n.
pub(super) type Nodes = [f32; 2 * BINS];

/// The sums of all nodes of what the leaves hold.
pub(super) fn sum_up(nodes: &mut Nodes) {
    for node in (1..BINS).rev() {
        nodes[node] = nodes[2 * node] + nodes[2 * node + 1];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mixer {
    by_total: Vec<f32>,
    by_fork: Vec<f32>,
    by_known: Vec<f32>,
    /// Of everyone's word, and of nothing, by fork.
    base: Vec<f32>,
    bias: Vec<f32>,
}

/// What one context says at one fork.
#[derive(Clone, Copy, Debug)]
struct Word {
    by_total: usize,
    by_fork: usize,
    by_known: usize,
    input: f32,
}

impl Default for Mixer {
    fn default() -> Self {
        let place = |at: usize| FIRST * (at / LEVELS % TOTALS) as f32;
        Self {
            by_total: (0..CONTEXTS * TOTALS * LEVELS).map(place).collect(),
            by_fork: vec![0.0; CONTEXTS * BINS],
            by_known: vec![0.0; CONTEXTS * KNOWN * LEVELS],
            base: vec![1.0; BINS],
            bias: vec![0.0; BINS],
        }
    }
}

impl Mixer {
    /// The shares of the bins. `known`: steps of the user so far; contexts come with their numbers.
    pub(super) fn shares(&self, all: &Nodes, contexts: &[(usize, Nodes)], known: u32, shares: &mut [f32]) {
        let known = class_of_known(known);
        let mut mass = [0.0f32; 2 * BINS];
        mass[1] = 1.0;
        for node in 1..BINS {
            let start = base_odds(all, node);
            let mut z = self.start(node, start.1);
            for (k, nodes) in contexts {
                if let Some(word) = word(*k, nodes, node, start, known) {
                    z += self.weight(&word) * word.input;
                }
            }
            let later = squash(z);
            mass[2 * node + 1] = mass[node] * later;
            mass[2 * node] = mass[node] * (1.0 - later);
        }
        shares.copy_from_slice(&mass[BINS..]);
    }

    /// Learns which bin it was. `gaps`: how many were learned from before.
    pub(super) fn learn(
        &mut self,
        all: &Nodes,
        contexts: &[(usize, Nodes)],
        known: u32,
        bin: usize,
        gaps: u64,
    ) {
        let known = class_of_known(known);
        let slower = (1.0 / libm::sqrtf(1.0 + gaps as f32 / SLOWER_AFTER)).max(SLOWEST);
        let mut words = Vec::with_capacity(CONTEXTS);
        for level in 0..LEVELS {
            let node = (BINS + bin) >> (LEVELS - level);
            let later = (BINS + bin) >> (LEVELS - level - 1) & 1;
            let start = base_odds(all, node);
            words.clear();
            words.extend(contexts.iter().filter_map(|(k, nodes)| word(*k, nodes, node, start, known)));
            let z =
                words.iter().fold(self.start(node, start.1), |z, word| z + self.weight(word) * word.input);
            let squares: f32 = words.iter().map(|word| word.input * word.input).sum();
            let error = slower * (later as f32 - squash(z)) / (1.0 + NORMAL * squares);
            for word in &words {
                self.by_total[word.by_total] += RATE_TOTAL * error * word.input;
                self.by_fork[word.by_fork] += RATE_FORK * error * word.input;
                self.by_known[word.by_known] += RATE_KNOWN * error * word.input;
            }
            self.base[node] += RATE_FORK * error * start.1;
            self.bias[node] += RATE_FORK * error;
        }
    }

    fn start(&self, node: usize, logit: f32) -> f32 {
        self.base[node] * logit + self.bias[node]
    }

    fn weight(&self, word: &Word) -> f32 {
        self.by_total[word.by_total] + self.by_fork[word.by_fork] + self.by_known[word.by_known]
    }
}

/// Everyone's chance of the later half at a node, and its logit.
fn base_odds(all: &Nodes, node: usize) -> (f32, f32) {
    let (earlier, later) = (all[2 * node], all[2 * node + 1]);
    let chance = ((later + 0.5) / (earlier + later + 1.0)).clamp(1e-4, 1.0 - 1e-4);
    (chance, ln(chance / (1.0 - chance)))
}

/// What a context says at a node, if it was ever counted there.
fn word(k: usize, nodes: &Nodes, node: usize, start: (f32, f32), known: usize) -> Option<Word> {
    let (earlier, later) = (nodes[2 * node], nodes[2 * node + 1]);
    let total = (earlier + later) as u32;
    if total == 0 {
        return None;
    }
    let odds = (later + PRIOR * start.0) / (earlier + PRIOR * (1.0 - start.0));
    let input = ln(odds.clamp(1.0 / ODDS_MAX, ODDS_MAX)) - start.1;
    let level = (usize::BITS - 1 - node.leading_zeros()) as usize;
    let class = ((u32::BITS - total.leading_zeros()) as usize).min(TOTALS - 1);
    Some(Word {
        by_total: (k * TOTALS + class) * LEVELS + level,
        by_fork: node * CONTEXTS + k,
        by_known: (known * LEVELS + level) * CONTEXTS + k,
        input,
    })
}

fn class_of_known(steps: u32) -> usize {
    (31 - steps.max(1).leading_zeros() as usize).min(KNOWN - 1)
}
