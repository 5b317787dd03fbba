//! The second stage: the candidates once more, by a log-linear model over what speaks for each.
//!
//! Its features: the log of the first stage's share; how far above it each expert's count is, and each chain's; whether
//! an item is what followed last; how long ago and how often the user turned to it ("not that again, it was just asked
//! for"); hashed, the item itself, its pairs with the last one and the one before, all three, and of a user who is
//! known well the item and its pair with the last one as the user's own. Stepped on the log loss by Adagrad (Duchi,
//! Hazan & Singer, *Adaptive subgradient methods*, JMLR 12, 2011).

use super::blend::Shares;
use super::evidence::{CANDIDATES, CHAIN_ALL, Evidence, NOBODY, POPULAR, TOTALS, VARIETIES};
use super::fast::{exp_all, highest, ln_all, sum};
use super::history::History;
use super::keys::LOOKED_UP;
use crate::profile::table::spread;
use serde::{Deserialize, Serialize};

const RATE: f32 = 0.06;
/// Sum of squared gradients that every weight begins with: its first steps are no leaps.
const GRADIENT_PRIOR: f32 = 1.0;
/// What a count is measured against, in counts.
const LIFT_PRIOR: f32 = 0.1;
/// Candidates whose chance was off by less teach their hashed weights nothing.
const ERROR_LEAST: f32 = 1e-3;
/// Candidates to which the first stage gives less have no hashed weights: few of them would be touched again.
const HASHED_LEAST: f32 = 1e-3;

/// Where the weights of each kind of feature begin.
const REST: usize = 1;
const CHAINS: usize = 16;
const LIFTS: usize = 64;
const LASTS: usize = 256;
const FLAGS: usize = 512;
const PLAIN: usize = FLAGS + 1024 + 64 * 4;
/// Weights of each hashed kind.
const HASHES: usize = 1 << 14;
const HASH_BITS: u32 = HASHES.trailing_zeros();
const PAIRS: usize = 5;
/// Users' own weights: each user's in one of these parts, so that they can be dropped.
const OWN: usize = PAIRS * HASHES;
const OWN_PARTS: usize = 64;
const OWN_BITS: u32 = 10;
const HASHED_ALL: usize = OWN + (OWN_PARTS << OWN_BITS);
/// What is left to all others is taken to be at least this.
const REST_LEAST: f32 = 1e-6;
/// The logit of what cannot be.
const NONE: f32 = -1e9;
/// Steps of how often, and the class of an item that the user does not remember.
const TIMES: u32 = 8;
const CLASSES: usize = 12 * TIMES as usize;
const NEVER: u8 = 11 * TIMES as u8;
/// Hashed weights of a candidate; of these the last two are the user's own.
const HASHED_EACH: usize = PAIRS + 2;
const HASHED_OWN: usize = PAIRS;

const _: () = assert!(REST + super::keys::OWN_ORDERS.len() < CHAINS && CHAINS + 2 * TOTALS <= LIFTS);
const _: () = assert!(LIFTS + 2 * POPULAR <= LASTS && LASTS + 4 * LOOKED_UP <= FLAGS);

/// Weights, and the sum of squared gradients of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Weights {
    /// Few: the values stand together.
    values: Vec<f32>,
    gradients: Vec<f32>,
    /// The hashed ones: both of one stand together, as the memory that they take is slow.
    hashed: Vec<(f32, f32)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rescore {
    weights: Weights,
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
    /// What weighs on a candidate by how long ago and how often the user turned to it.
    #[serde(skip)]
    classes: Classes,
    /// Candidates whose hashed weights apply, and which those are.
    #[serde(skip)]
    hashed: Vec<(u8, [u32; HASHED_EACH])>,
    /// Whether the user's own are among them.
    #[serde(skip)]
    known: bool,
    #[serde(skip)]
    errors: Vec<f32>,
}

impl Default for Rescore {
    fn default() -> Self {
        let mut values = vec![0.0; PLAIN];
        values[0] = 1.0;
        let gradients = vec![GRADIENT_PRIOR; values.len()];
        Self {
            weights: Weights { values, gradients, hashed: vec![(0.0, GRADIENT_PRIOR); HASHED_ALL] },
            chances: Vec::new(),
            logs: Vec::new(),
            chains: Default::default(),
            chained: [CHAINS; 2],
            classes: Classes::default(),
            hashed: Vec::new(),
            known: false,
            errors: Vec::new(),
        }
    }
}

impl Weights {
    #[inline]
    fn step(&mut self, at: usize, gradient: f32) {
        let sum = &mut self.gradients[at];
        *sum += gradient * gradient;
        self.values[at] += RATE * gradient / sum.sqrt();
    }

    /// Steps the weights of all classes, each by the sum of its candidates' errors.
    fn step_classes(&mut self, classes: &Classes, errors: &[f32; CANDIDATES]) {
        let mut sums = [0.0f32; CLASSES];
        let mut there = [0u8; CANDIDATES];
        let mut count = 0;
        let mut had = [false; CLASSES];
        for (class, error) in classes.of.iter().zip(errors) {
            let at = usize::from(*class) % CLASSES;
            if !had[at] {
                had[at] = true;
                there[count % CANDIDATES] = *class;
                count += 1;
            }
            sums[at] += error;
        }
        let mut by_kind = [0.0f32; 16];
        for class in &there[..count] {
            let error = sums[usize::from(*class) % CLASSES];
            let [_, both, ..] = classes.weights(*class);
            self.step(both, error);
            by_kind[usize::from(*class) / TIMES as usize] += error;
        }
        let mut nearest = [0.0f32; 4];
        for (near, error) in by_kind.into_iter().enumerate().filter(|(_, error)| *error != 0.0) {
            self.step(FLAGS + near, error);
            self.step(classes.depth + near * 4, error);
            nearest[near.min(3)] += error;
        }
        for (near, error) in nearest.into_iter().enumerate() {
            self.step(classes.run + near, error);
            self.step(classes.seen + near, error);
        }
    }

    /// Several that have the same gradient: all roots and quotients at once.
    #[inline]
    fn step_hashed<const N: usize>(&mut self, at: &[u32; N], gradient: f32) {
        let square = gradient * gradient;
        let sums = at.map(|i| self.hashed[i as usize].1 + square);
        let steps = sums.map(|sum| RATE * gradient / sum.sqrt());
        for ((i, sum), step) in at.iter().zip(sums).zip(steps) {
            let weight = &mut self.hashed[*i as usize];
            *weight = (weight.0 + step, sum);
        }
    }
}

/// By how long ago and how often the user turned to a candidate: which class each is of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Classes {
    of: Vec<u8>,
    /// Where the weights of this moment begin, each kind in steps of [`recency`].
    depth: usize,
    run: usize,
    seen: usize,
}

impl Classes {
    fn set(&mut self, e: &Evidence, h: &History) {
        self.depth = FLAGS + 256 + e.own_depth.min(3);
        self.run = FLAGS + 512 + h.run().min(15) as usize * 4;
        self.seen = FLAGS + 1024 + h.seen().min(63) as usize * 4;
        self.of.clear();
        let ages = e.ages.0.iter().take(e.candidates.len());
        self.of.extend(ages.map(|(first, times)| (recency(*first) * TIMES + frequency(*times)) as u8));
    }

    /// The weights of a class.
    fn weights(&self, class: u8) -> [usize; 5] {
        let near = usize::from(class) / TIMES as usize;
        let nearest = near.min(3);
        [
            FLAGS + near,
            FLAGS + 16 + usize::from(class),
            self.depth + near * 4,
            self.run + nearest,
            self.seen + nearest,
        ]
    }
}

impl Rescore {
    /// `first`: what the first stage gives to each candidate and to all others. `owner`: whose own weights apply, if any
    /// one's.
    pub(super) fn score(&mut self, e: &mut Evidence, h: &History, first: (&Shares, f32), owner: u64) {
        let (Shares(shares), rest) = first;
        let count = e.candidates.len();
        e.lift(shares, LIFT_PRIOR);
        self.classes.set(e, h);
        self.hash(e, h, owner, shares);
        self.logs.clear();
        self.logs.extend_from_slice(&shares[..count]);
        self.logs.push(rest);
        ln_all(&mut self.logs);
        self.chain(e);
        let Self { weights: Weights { values, hashed: pairs, .. }, chances, logs, chains, chained, .. } =
            self;
        let mut z = [0.0f32; CANDIDATES];
        for w in e.lifting() {
            let weight = values[lift_of(w.expert, w.total)];
            e.entries.lifts(w).for_each(|(slot, lift)| z[slot] += weight * lift);
            if w.last != NOBODY {
                z[usize::from(w.last) % CANDIDATES] += values[last_of(w.expert, w.streak)];
            }
        }
        let each = if self.known { HASHED_EACH } else { HASHED_OWN };
        for (slot, at) in &self.hashed {
            let sum: f32 = at[..each].iter().map(|i| pairs[*i as usize].0).sum();
            z[usize::from(*slot) % CANDIDATES] += sum;
        }
        let value = |class: u8| self.classes.weights(class).map(|i| values[i]).into_iter().sum::<f32>();
        // Most were never turned to.
        let never = value(NEVER);
        chances.clear();
        for ((z, log), class) in z.iter().zip(logs.iter()).zip(&self.classes.of) {
            let class = if *class == NEVER { never } else { value(*class) };
            chances.push(z + values[0] * log + class);
        }
        chances.push(values[0] * logs[count] + values[REST + e.own_depth]);
        for (chain, at) in chains.iter().zip(chained) {
            let weight = values[*at];
            chances.iter_mut().zip(chain).for_each(|(z, above)| *z += weight * above);
        }
        if !e.others {
            chances[count] = NONE;
        }
        let highest = highest(chances);
        chances.iter_mut().for_each(|z| *z -= highest);
        exp_all(chances);
        let each = 1.0 / sum(chances);
        chances.iter_mut().for_each(|z| *z *= each);
    }

    /// How far each chain is above the first stage.
    fn chain(&mut self, e: &Evidence) {
        for (j, chain) in self.chains.iter_mut().enumerate() {
            chain.clear();
            let Some(w) = e.witnesses.iter().rfind(|w| w.expert == CHAIN_ALL + j) else { continue };
            self.chained[j] = CHAINS + TOTALS * j + w.trust / VARIETIES;
            chain.extend_from_slice(&e.dense[w.expert - POPULAR].0[..e.candidates.len()]);
            chain.push((1.0 - sum(chain)).max(REST_LEAST));
            ln_all(chain);
            chain.iter_mut().zip(&self.logs).for_each(|(above, log)| *above -= log);
        }
    }

    /// Which hashed weights apply to each candidate that is worth it.
    fn hash(&mut self, e: &Evidence, h: &History, owner: u64, shares: &[f32]) {
        let mix = |key: u64| (spread(key) >> 32) as u32;
        let step = |i: usize| if i < h.len() { mix(u64::from(h.back(i))) } else { !0 };
        let (last, before, own) = (step(0), step(1).rotate_left(1), spread(owner));
        let (part, own) = (part_of(own) as u32, (own >> 32) as u32);
        self.known = owner != 0;
        self.hashed.clear();
        let strong = e.candidates.iter().zip(shares).enumerate().filter(|(_, (_, p))| **p >= HASHED_LEAST);
        for (slot, (item, _)) in strong {
            let nearest = u32::from(self.classes.of[slot]) / TIMES;
            let item = mix(u64::from(*item)).rotate_left(2);
            self.hashed.push((
                slot as u8,
                [
                    hashed(0, item ^ nearest.min(3) << 28),
                    hashed(1, item),
                    hashed(2, item ^ last),
                    hashed(3, item ^ before),
                    hashed(4, item ^ last ^ before),
                    part + ((item ^ own) >> (32 - OWN_BITS)),
                    part + ((item ^ last ^ own) >> (32 - OWN_BITS)),
                ],
            ));
        }
    }

    /// Learns what happened: one thing, or several of equal weight.
    pub(super) fn learn(&mut self, e: &Evidence, happened: &[u32]) {
        let Self { weights, chances, logs, chains, chained, classes, hashed, known, errors } = self;
        let others = chances.len() - 1;
        errors.clear();
        errors.extend(chances.iter().map(|p| -p));
        for item in happened {
            errors[e.slot(*item).map_or(others, usize::from)] += 1.0 / happened.len() as f32;
        }
        weights.step(0, errors.iter().zip(logs.iter()).map(|(error, log)| error * log).sum());
        weights.step(REST + e.own_depth, errors[others]);
        for (chain, at) in chains.iter().zip(chained).filter(|(chain, _)| !chain.is_empty()) {
            weights.step(*at, errors.iter().zip(chain).map(|(error, above)| error * above).sum());
        }
        let mut error_of = [0.0f32; CANDIDATES];
        error_of[..others].copy_from_slice(&errors[..others]);
        weights.step_classes(classes, &error_of);
        for (slot, at) in hashed.iter() {
            let error = error_of[usize::from(*slot) % CANDIDATES];
            if error.abs() <= ERROR_LEAST {
                continue;
            }
            if *known {
                weights.step_hashed(at, error);
            } else if let Some((at, _)) = at.split_first_chunk::<HASHED_OWN>() {
                weights.step_hashed(at, error);
            }
        }
        for w in e.lifting() {
            let off = e.entries.lifts(w).map(|(slot, lift)| error_of[slot] * lift).sum();
            weights.step(lift_of(w.expert, w.total), off);
            if w.last != NOBODY {
                weights.step(last_of(w.expert, w.streak), error_of[usize::from(w.last) % CANDIDATES]);
            }
        }
    }

    /// Drops what was learned of a user's own, and of those whose part is the same: it is soon learned anew.
    pub(super) fn forget(&mut self, user: u64) {
        let from = part_of(spread(user));
        self.weights.hashed[from..][..1 << OWN_BITS].fill((0.0, GRADIENT_PRIOR));
    }
}

/// A context that was seen once is weighed apart.
fn lift_of(expert: usize, total: f32) -> usize {
    LIFTS + 2 * expert + usize::from(total < 2.0)
}

fn last_of(expert: usize, streak: u16) -> usize {
    LASTS + 4 * expert + usize::from(streak.clamp(1, 4) - 1)
}

/// The highest bits of a key whose bits are all alike.
fn hashed(kind: usize, key: u32) -> u32 {
    (kind * HASHES) as u32 + (key >> (32 - HASH_BITS))
}

fn part_of(own: u64) -> usize {
    OWN + ((own % OWN_PARTS as u64) << OWN_BITS) as usize
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::next::Predictor;

    #[test]
    fn nothing_of_a_forgotten_users_own_weights_is_left() {
        let mut model = Predictor::new(4 << 20);
        for n in 0..300u64 {
            model.learn(7, 0, None, (spread(n) % 9) as u32);
        }
        let from = part_of(spread(7));
        let own = |model: &Predictor| model.rescore.weights.hashed[from..][..1 << OWN_BITS].to_vec();
        assert!(own(&model).iter().any(|w| w.0 != 0.0), "a user who is known well has weights");
        model.forget(7);
        assert!(own(&model).iter().all(|w| *w == (0.0, GRADIENT_PRIOR)));
    }
}
