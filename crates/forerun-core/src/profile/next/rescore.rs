//! The second stage: the candidates once more, by a log-linear model over what speaks for each.
//!
//! Its features: the log of the first stage's share; how far above it each expert's count is, and each chain's; whether an item is what
//! followed last; how long ago and how often the user turned to it ("not that again, it was just asked for"); the item
//! itself, and the pair of the last item and this one, hashed. Stepped on the log loss by Adagrad (Duchi, Hazan &
//! Singer, *Adaptive subgradient methods*, JMLR 12, 2011).

use super::evidence::{CANDIDATES, CHAIN_ALL, Evidence, NOBODY, POPULAR, TOTALS, VARIETIES};
use super::fast::{exp_all, ln_all};
use super::history::History;
use super::keys::LOOKED_UP;
use crate::profile::table::spread;
use serde::{Deserialize, Serialize};

const RATE: f32 = 0.06;
/// Sum of squared gradients that every weight begins with: its first steps are no leaps.
const GRADIENT_PRIOR: f32 = 1.0;
/// What a count is measured against, in counts.
const LIFT_PRIOR: f32 = 0.1;
/// Candidates whose chance was off by less teach their own features nothing.
const ERROR_LEAST: f32 = 1e-4;

/// Where the weights of each kind of feature begin.
const REST: usize = 1;
const CHAINS: usize = 16;
const LIFTS: usize = 64;
const LASTS: usize = 256;
const FLAGS: usize = 512;
const HASHED: usize = 4_096;
/// Weights of each hashed kind.
const HASHES: usize = 1 << 14;
const WEIGHTS: usize = HASHED + 3 * HASHES;
/// What is left to all others is taken to be at least this.
const REST_LEAST: f32 = 1e-6;
/// The logit of what cannot be.
const NONE: f32 = -1e9;
const FLAGS_EACH: usize = 8;

const _: () = assert!(REST + super::keys::OWN_ORDERS.len() < CHAINS && CHAINS + 2 * TOTALS <= LIFTS);
const _: () = assert!(LIFTS + 2 * POPULAR <= LASTS && LASTS + 4 * LOOKED_UP <= FLAGS);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Weight {
    value: f32,
    gradients: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rescore {
    weights: Vec<Weight>,
    /// Chances of the candidates, and of all others together.
    #[serde(skip)]
    pub(super) chances: Vec<f32>,
    #[serde(skip)]
    logs: Vec<f32>,
    /// How far each chain is above the first stage: candidates, then all others; nothing if it has no word.
    #[serde(skip)]
    chains: [Vec<f32>; 2],
    /// The weight of each.
    #[serde(skip)]
    chained: [usize; 2],
    #[serde(skip)]
    flags: Vec<[u32; FLAGS_EACH]>,
    #[serde(skip)]
    errors: Vec<f32>,
}

impl Default for Rescore {
    fn default() -> Self {
        let mut weights = vec![Weight { value: 0.0, gradients: GRADIENT_PRIOR }; WEIGHTS];
        weights[0].value = 1.0;
        Self {
            weights,
            chances: Vec::new(),
            logs: Vec::new(),
            chains: Default::default(),
            chained: [CHAINS; 2],
            flags: Vec::new(),
            errors: Vec::new(),
        }
    }
}

impl Weight {
    #[inline]
    fn step(&mut self, gradient: f32) {
        self.gradients += gradient * gradient;
        self.value += RATE * gradient / self.gradients.sqrt();
    }
}

impl Rescore {
    pub(super) fn score(&mut self, e: &mut Evidence, h: &History, shares: &[f32; CANDIDATES], rest: f32) {
        e.lift(shares, LIFT_PRIOR);
        self.flag(e, h);
        self.logs.clear();
        self.logs.extend_from_slice(&shares[..e.candidates.len()]);
        self.logs.push(rest);
        ln_all(&mut self.logs);
        self.chain(e);
        let Self { weights, chances, logs, chains, chained, flags, .. } = self;
        chances.clear();
        for (log, flags) in logs.iter().zip(flags.iter()) {
            let flagged: f32 = flags.iter().map(|f| weights[*f as usize].value).sum();
            chances.push(weights[0].value * log + flagged);
        }
        for w in e.lifting() {
            let weight = weights[lift_of(w.expert, w.total)].value;
            e.entries.lifts(w).for_each(|(slot, lift)| chances[slot] += weight * lift);
            if w.last != NOBODY {
                chances[usize::from(w.last)] += weights[last_of(w.expert, w.streak)].value;
            }
        }
        let rest = weights[0].value * logs[logs.len() - 1] + weights[REST + e.own_depth].value;
        chances.push(rest);
        for (chain, at) in chains.iter().zip(chained) {
            let weight = weights[*at].value;
            chances.iter_mut().zip(chain).for_each(|(z, above)| *z += weight * above);
        }
        if !e.others {
            chances[e.candidates.len()] = NONE;
        }
        let highest = chances.iter().fold(f32::MIN, |m, z| m.max(*z));
        chances.iter_mut().for_each(|z| *z -= highest);
        exp_all(chances);
        let each = 1.0 / chances.iter().sum::<f32>();
        chances.iter_mut().for_each(|z| *z *= each);
    }

    /// How far each chain is above the first stage.
    fn chain(&mut self, e: &Evidence) {
        for (j, chain) in self.chains.iter_mut().enumerate() {
            chain.clear();
            let Some(w) = e.witnesses.iter().rfind(|w| w.expert == CHAIN_ALL + j) else { continue };
            self.chained[j] = CHAINS + TOTALS * j + w.trust / VARIETIES;
            chain.extend(e.entries.of(w).map(|(_, share)| share));
            chain.push((1.0 - chain.iter().sum::<f32>()).max(REST_LEAST));
            ln_all(chain);
            chain.iter_mut().zip(&self.logs).for_each(|(above, log)| *above -= log);
        }
    }

    /// Which weights apply to each candidate.
    fn flag(&mut self, e: &Evidence, h: &History) {
        let depth = e.own_depth.min(3) as u32;
        let last = if !h.is_empty() { u64::from(h.back(0)) } else { u64::MAX };
        self.flags.clear();
        for (item, (first, times)) in e.candidates.iter().zip(e.ages.0) {
            let item = u64::from(*item);
            let near = recency(first);
            let flags = FLAGS as u32;
            self.flags.push([
                flags + near,
                flags + 16 + near * 8 + frequency(times),
                flags + 256 + near * 4 + depth,
                flags + 512 + h.run().min(15) * 4 + near.min(3),
                flags + 1024 + h.seen().min(63) * 4 + near.min(3),
                hashed(0, item * 16 + u64::from(near.min(3))),
                hashed(1, item),
                hashed(2, spread(item) ^ last),
            ]);
        }
    }

    /// Learns what happened: one thing, or several of equal weight.
    pub(super) fn learn(&mut self, e: &Evidence, happened: &[u32]) {
        let Self { weights, chances, logs, chains, chained, flags, errors } = self;
        let others = chances.len() - 1;
        errors.clear();
        errors.extend(chances.iter().map(|p| -p));
        for item in happened {
            errors[e.slot(*item).map_or(others, usize::from)] += 1.0 / happened.len() as f32;
        }
        weights[0].step(errors.iter().zip(logs.iter()).map(|(error, log)| error * log).sum());
        weights[REST + e.own_depth].step(errors[others]);
        for (chain, at) in chains.iter().zip(chained).filter(|(chain, _)| !chain.is_empty()) {
            weights[*at].step(errors.iter().zip(chain).map(|(error, above)| error * above).sum());
        }
        for (error, flags) in errors.iter().zip(flags.iter()) {
            if error.abs() > ERROR_LEAST {
                flags.iter().for_each(|f| weights[*f as usize].step(*error));
            }
        }
        for w in e.lifting() {
            weights[lift_of(w.expert, w.total)]
                .step(e.entries.lifts(w).map(|(slot, lift)| errors[slot] * lift).sum());
            if w.last != NOBODY {
                weights[last_of(w.expert, w.streak)].step(errors[usize::from(w.last)]);
            }
        }
    }
}

/// A context that was seen once is weighed apart.
fn lift_of(expert: usize, total: f32) -> usize {
    LIFTS + 2 * expert + usize::from(total < 2.0)
}

fn last_of(expert: usize, streak: u16) -> usize {
    LASTS + 4 * expert + usize::from(streak.clamp(1, 4) - 1)
}

fn hashed(kind: usize, key: u64) -> u32 {
    (HASHED + kind * HASHES) as u32 + (spread(key) % HASHES as u64) as u32
}

/// Steps since the user turned to an item, by steps of growing width; the last is never.
fn recency(age: u32) -> u32 {
    match age {
        0..=5 => age,
        6..=7 => 6,
        8..=11 => 7,
        12..=19 => 8,
        20..=39 => 9,
        40..=1_000 => 10,
        _ => 11,
    }
}

fn frequency(times: u32) -> u32 {
    match times {
        0..=3 => times,
        4..=6 => 4,
        7..=15 => 5,
        _ => 6,
    }
}
