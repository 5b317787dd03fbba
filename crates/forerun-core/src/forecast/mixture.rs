//! The chance that an idle level is needed in a bin, from many contexts.
//!
//! Each context counts how often the level, and how often any level, was needed under it; its chance falls back to
//! everyone's, and that to the hazard of the level's idle age. The logits of all, as differences from the hazard's,
//! are mixed by logistic mixers whose weights are selected by age, by how much is known of the level and by how
//! regular it is, and learn from each outcome (M. Mahoney, TR CS-2005-16; the same author's PAQ8, for mixers selected
//! by several contexts whose answers are averaged).

use super::contexts::{CONTEXTS, Scene};
use super::hazard::{OwnGaps, Pool};
use super::mixer::{CHANCE_MIN, clip, logistic, logit};
use super::past::HALF_LIVES;
use crate::profile::table::{Table, Worth, spread};
use serde::{Deserialize, Serialize};

/// Hazard, its smooth form, users, four rates of the level, a bias, and the contexts.
pub const INPUTS: usize = 5 + HALF_LIVES.len() + CONTEXTS;
/// Inputs of the first stage: the hazard of the exact age, of its octave, of its neighbourhood, a bias.
const BASE: usize = 4;
const BASE_BEGUN: [f64; BASE] = [0.7, 0.15, 0.15, 0.0];
const BASE_RATE: f64 = 0.005;
const BIAS: f64 = 0.3;
const SELECTORS: usize = 3;
/// Weight vectors of one selector.
const SETS: usize = 24;
/// How fast a mixer moves. Small: it serves all services, so it sees much.
const RATE: f64 = 0.003;
/// What the contexts weigh together at first; the hazard weighs one, the users half.
const CONTEXTS_BEGUN: f64 = 0.7;
/// What falls back weighs so much against what was counted: everyone's against the hazard, one's own against everyone's.
const POOL_PRIOR: f64 = 0.3;
const OWN_PRIOR: f64 = 0.6;
/// A context's chance is kept off 0 and 1 by this much.
const CONTEXT_MIN: f64 = 1.0 / 2_000.0;
/// No input moves the mixed logit by more than this, at a weight of one.
const SHIFT_MAX: f64 = 6.0;
/// Counts are halved at these, so that old habits fade.
const OWN_MAX: u16 = 512;
const POOL_MAX: u16 = u16::MAX - 1;

/// How often a context was followed by nothing and by a need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    idle: u16,
    needed: u16,
}

impl Worth for Pair {
    fn worth(&self) -> u64 {
        u64::from(self.idle) + u64::from(self.needed)
    }
}

impl Pair {
    fn count(&mut self, needed: bool, most: u16) {
        let side = if needed { &mut self.needed } else { &mut self.idle };
        *side += 1;
        if *side >= most {
            (self.idle, self.needed) = (self.idle / 2, self.needed / 2);
        }
    }

    /// The chance, with so much of `prior` in it.
    fn chance(self, prior: f64, weight: f64) -> f64 {
        let (idle, needed) = (f64::from(self.idle), f64::from(self.needed));
        (needed + weight * prior) / (idle + needed + weight)
    }
}

/// What was asked under which contexts, until its outcome is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    keys: [u32; CONTEXTS],
    base: [f64; BASE],
    base_set: u16,
    inputs: Vec<f64>,
    /// The mixed logit less the first stage's.
    shift: f64,
    sets: [u8; SELECTORS],
}

impl Question {
    /// By how much the scene moved the logit of the age's own chance.
    #[must_use]
    pub fn shift(&self) -> f64 {
        self.shift
    }
}

/// All counts and weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mixture {
    counts: Table<Pair>,
    weights: Vec<Vec<f64>>,
    /// By grid and octave of age.
    base: Vec<[f64; BASE]>,
}

/// Whose counts are meant: a level's own, or those of all levels on one grid.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    pub level: u64,
    pub pool: u64,
}

fn begun() -> Vec<f64> {
    let mut weights = vec![0.0; INPUTS];
    weights[0] = 1.0;
    weights[3] = 0.5;
    weights[INPUTS - CONTEXTS..].fill(CONTEXTS_BEGUN / CONTEXTS as f64);
    weights
}

impl Mixture {
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { counts: Table::new(bytes_max), weights: vec![begun(); SELECTORS * SETS], base: Vec::new() }
    }

    /// The hazard alone, raised by the users on their way: quick, for ages at which nobody would stop anything.
    #[must_use]
    pub fn quick(bin: usize, own: &OwnGaps, users: f64, pool: &Pool) -> f64 {
        let hazard = clip(own.hazard(bin, pool));
        1.0 - (1.0 - hazard) * (1.0 - users.clamp(0.0, 1.0))
    }

    /// The chance of a need in the scene's bin, and the question to be answered by what happens.
    #[must_use]
    pub fn chance(&self, scene: &Scene<'_>, own: &OwnGaps, pool: &Pool, whose: Whose) -> (f64, Question) {
        let keys = scene.keys();
        let (base, base_set) = self.base_inputs(scene.bin, own, pool, whose);
        let hazard = self.base_chance(&base, base_set);
        let rhythm = logit(hazard);
        let shift = |p: f64| (logit(p) - rhythm).clamp(-SHIFT_MAX, SHIFT_MAX);
        let users = scene.users.clamp(0.0, 1.0);
        let mut inputs = Vec::with_capacity(INPUTS);
        inputs.push(rhythm);
        inputs.push(shift(own.smooth_hazard(scene.bin, pool)));
        inputs.push(shift(own.near_hazard(scene.bin, pool)));
        inputs.push(if users > 0.0 { shift(1.0 - (1.0 - hazard) * (1.0 - users)) } else { 0.0 });
        inputs.push(BIAS);
        let grains = pool.grid.width(scene.bin).0 as f64 / pool.grid.grain().0 as f64;
        for rate in scene.past.rates.a_grain(scene.at, pool.grid.grain()) {
            inputs.push(shift(1.0 - libm::exp(-(rate * grains).max(CHANCE_MIN))));
        }
        for key in keys {
            let own_pair = self.pair(whose.level, key);
            let pooled = self.pair(whose.pool, key).chance(hazard, POOL_PRIOR);
            let p = own_pair.chance(pooled, OWN_PRIOR);
            inputs.push(shift(p.clamp(CONTEXT_MIN, 1.0 - CONTEXT_MIN)));
        }
        let sets = [
            pool.grid.octave(scene.bin).min(SETS - 1) as u8,
            (SETS + scene.past.uses.max(1).ilog2().min(SETS as u32 - 1) as usize) as u8,
            (2 * SETS + usize::from(scene.past.period.tenths.min(10))) as u8,
        ];
        let sum: f64 = sets.iter().map(|set| self.mixed(*set, &inputs)).sum();
        let z = sum / SELECTORS as f64;
        (logistic(z), Question { keys, base, base_set, shift: z - rhythm, inputs, sets })
    }

    fn base_inputs(&self, bin: usize, own: &OwnGaps, pool: &Pool, whose: Whose) -> ([f64; BASE], u16) {
        let exact = logit(own.hazard(bin, pool));
        let from_exact = |p: f64| (logit(p) - exact).clamp(-SHIFT_MAX, SHIFT_MAX);
        let (smooth, near) = (own.smooth_hazard(bin, pool), own.near_hazard(bin, pool));
        let set = pool.grid.octave(bin).min(SETS - 1) + SETS * whose.pool as usize;
        ([exact, from_exact(smooth), from_exact(near), BIAS], set as u16)
    }

    fn base_chance(&self, inputs: &[f64; BASE], set: u16) -> f64 {
        clip(logistic(self.base_weights(set).iter().zip(inputs).map(|(w, x)| w * x).sum::<f64>()))
    }

    /// The chance by the hazards of the age alone, as they have proved right, with its logit moved by `shift`: for bins
    /// further on, of which the scene is not known yet.
    #[must_use]
    pub fn by_age(&self, bin: usize, own: &OwnGaps, pool: &Pool, whose: Whose, shift: f64) -> f64 {
        let (inputs, set) = self.base_inputs(bin, own, pool, whose);
        logistic(logit(self.base_chance(&inputs, set)) + shift)
    }

    fn base_weights(&self, set: u16) -> [f64; BASE] {
        self.base.get(usize::from(set)).copied().unwrap_or(BASE_BEGUN)
    }

    fn pair(&self, whose: u64, key: u32) -> Pair {
        self.counts.get(place(whose, key)).copied().unwrap_or_default()
    }

    fn mixed(&self, set: u8, inputs: &[f64]) -> f64 {
        self.weights[usize::from(set)].iter().zip(inputs).map(|(w, x)| w * x).sum()
    }

    /// Counts an outcome under all contexts, and lets each mixer learn from its own error.
    pub fn learn(&mut self, question: &Question, needed: bool, whose: Whose) {
        let happened = f64::from(u8::from(needed));
        let at = usize::from(question.base_set);
        if self.base.len() <= at {
            self.base.resize(at + 1, BASE_BEGUN);
        }
        let told: f64 = self.base[at].iter().zip(question.base).map(|(w, x)| w * x).sum();
        let step = BASE_RATE * (happened - logistic(told));
        for (w, x) in self.base[at].iter_mut().zip(question.base) {
            *w = (*w + step * x).clamp(-16.0, 16.0);
        }
        for set in question.sets {
            let step = RATE * (happened - logistic(self.mixed(set, &question.inputs)));
            for (w, x) in self.weights[usize::from(set)].iter_mut().zip(&question.inputs) {
                *w = (*w + step * x).clamp(-16.0, 16.0);
            }
        }
        for key in question.keys {
            self.counts.entry(place(whose.pool, key)).count(needed, POOL_MAX);
            self.counts.entry(place(whose.level, key)).count(needed, OWN_MAX);
        }
    }
}

fn place(whose: u64, key: u32) -> u64 {
    spread(whose << 32 | u64::from(key))
}
