//! The second stage: the candidates once more, by a log-linear model over what speaks for each.
//!
//! Its features: the log of the first stage's share; how far above it each expert's count is, and each chain's; whether
//! an item is what followed last; how long ago and how often the user turned to it ("not that again, it was just asked
//! for"); hashed, the item itself, its pairs with the last one and the one before, all three, and of a user who is
//! known well the item and its pair with the last one as the user's own. Stepped on the log loss by Adagrad (Duchi,
//! Hazan & Singer, *Adaptive subgradient methods*, JMLR 12, 2011).

use super::blend::Shares;
use super::evidence::{CHAIN_ALL, Evidence, NOBODY, POPULAR, TOTALS, VARIETIES};
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
const HASH_BITS: u32 = HASHES.trailing_zeros();
const PAIRS: usize = 5;
/// Users' own weights: each user's in one of these parts, so that they can be dropped.
const OWN: usize = HASHED + PAIRS * HASHES;
const OWN_PARTS: usize = 64;
const OWN_BITS: u32 = 10;
const WEIGHTS: usize = OWN + (OWN_PARTS << OWN_BITS);
/// What is left to all others is taken to be at least this.
const REST_LEAST: f32 = 1e-6;
/// The logit of what cannot be.
const NONE: f32 = -1e9;
/// Of these the last two are the user's own.
const FLAGS_EACH: usize = 12;
const FLAGS_ALL: usize = FLAGS_EACH - 2;

const _: () = assert!(REST + super::keys::OWN_ORDERS.len() < CHAINS && CHAINS + 2 * TOTALS <= LIFTS);
const _: () = assert!(LIFTS + 2 * POPULAR <= LASTS && LASTS + 4 * LOOKED_UP <= FLAGS);

/// Weights, and the sum of squared gradients of each: apart, as only the first are needed to answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Weights {
    values: Vec<f32>,
    gradients: Vec<f32>,
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
    #[serde(skip)]
    flags: Vec<[u32; FLAGS_EACH]>,
    /// How many of each candidate's apply.
    #[serde(skip)]
    flagged: usize,
    #[serde(skip)]
    errors: Vec<f32>,
}

impl Default for Rescore {
    fn default() -> Self {
        let mut weights = Weights { values: vec![0.0; WEIGHTS], gradients: vec![GRADIENT_PRIOR; WEIGHTS] };
        weights.values[0] = 1.0;
        Self {
            weights,
            chances: Vec::new(),
            logs: Vec::new(),
            chains: Default::default(),
            chained: [CHAINS; 2],
            flags: Vec::new(),
            flagged: FLAGS_ALL,
            errors: Vec::new(),
        }
    }
}

impl Weights {
    #[inline]
    fn step(&mut self, at: usize, gradient: f32) {
        let gradients = &mut self.gradients[at];
        *gradients += gradient * gradient;
        self.values[at] += RATE * gradient / gradients.sqrt();
    }
}

impl Rescore {
    /// `first`: what the first stage gives to each candidate and to all others. `owner`: whose own weights apply, if any
    /// one's.
    pub(super) fn score(&mut self, e: &mut Evidence, h: &History, first: (&Shares, f32), owner: u64) {
        let (Shares(shares), rest) = first;
        e.lift(shares, LIFT_PRIOR);
        self.flag(e, h, owner);
        self.logs.clear();
        self.logs.extend_from_slice(&shares[..e.candidates.len()]);
        self.logs.push(rest);
        ln_all(&mut self.logs);
        self.chain(e);
        let Self { weights: Weights { values, .. }, chances, logs, chains, chained, flags, flagged, .. } =
            self;
        chances.clear();
        for (log, flags) in logs.iter().zip(flags.iter()) {
            let flags: f32 = flags[..*flagged].iter().map(|f| values[*f as usize]).sum();
            chances.push(values[0] * log + flags);
        }
        for w in e.lifting() {
            let weight = values[lift_of(w.expert, w.total)];
            e.entries.lifts(w).for_each(|(slot, lift)| chances[slot] += weight * lift);
            if w.last != NOBODY {
                chances[usize::from(w.last)] += values[last_of(w.expert, w.streak)];
            }
        }
        let rest = values[0] * logs[logs.len() - 1] + values[REST + e.own_depth];
        chances.push(rest);
        for (chain, at) in chains.iter().zip(chained) {
            let weight = values[*at];
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
    fn flag(&mut self, e: &Evidence, h: &History, owner: u64) {
        const FROM: u32 = FLAGS as u32;
        let depth = e.own_depth.min(3) as u32;
        let run = FROM + 512 + h.run().min(15) * 4;
        let seen = FROM + 1024 + h.seen().min(63) * 4;
        let step = |i: usize| if i < h.len() { spread(u64::from(h.back(i))) } else { !0 };
        let last = step(0);
        let before = step(1).rotate_left(1);
        let own = spread(owner);
        self.flagged = if owner == 0 { FLAGS_ALL } else { FLAGS_EACH };
        self.flags.clear();
        for (item, (first, times)) in e.candidates.iter().zip(e.ages.0) {
            let item = spread(u64::from(*item)).rotate_left(2);
            let near = recency(first);
            let nearest = near.min(3);
            self.flags.push([
                FROM + near,
                FROM + 16 + near * 8 + frequency(times),
                FROM + 256 + near * 4 + depth,
                run + nearest,
                seen + nearest,
                hashed(0, item ^ u64::from(nearest)),
                hashed(1, item),
                hashed(2, item ^ last),
                hashed(3, item ^ before),
                hashed(4, item ^ last ^ before),
                owned(own, item ^ own),
                owned(own, item ^ last ^ own),
            ]);
        }
    }

    /// Learns what happened: one thing, or several of equal weight.
    pub(super) fn learn(&mut self, e: &Evidence, happened: &[u32]) {
        let Self { weights, chances, logs, chains, chained, flags, flagged, errors } = self;
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
        for (error, flags) in errors.iter().zip(flags.iter()) {
            if error.abs() > ERROR_LEAST {
                flags[..*flagged].iter().for_each(|f| weights.step(*f as usize, *error));
            }
        }
        for w in e.lifting() {
            let off = e.entries.lifts(w).map(|(slot, lift)| errors[slot] * lift).sum();
            weights.step(lift_of(w.expert, w.total), off);
            if w.last != NOBODY {
                weights.step(last_of(w.expert, w.streak), errors[usize::from(w.last)]);
            }
        }
    }

    /// Drops what was learned of a user's own, and of those whose part is the same: it is soon learned anew.
    pub(super) fn forget(&mut self, user: u64) {
        let from = part_of(spread(user));
        self.weights.values[from..][..1 << OWN_BITS].fill(0.0);
        self.weights.gradients[from..][..1 << OWN_BITS].fill(GRADIENT_PRIOR);
    }
}

/// A context that was seen once is weighed apart.
fn lift_of(expert: usize, total: f32) -> usize {
    LIFTS + 2 * expert + usize::from(total < 2.0)
}

fn last_of(expert: usize, streak: u16) -> usize {
    LASTS + 4 * expert + usize::from(streak.clamp(1, 4) - 1)
}

/// Multiplying brings all bits of a key up to the highest.
fn top(key: u64, bits: u32) -> u32 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as u32
}

fn hashed(kind: usize, key: u64) -> u32 {
    (HASHED + kind * HASHES) as u32 + top(key, HASH_BITS)
}

/// `own` is a user's hash.
fn owned(own: u64, key: u64) -> u32 {
    part_of(own) as u32 + top(key, OWN_BITS)
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
        let own = |model: &Predictor| model.rescore.weights.values[from..][..1 << OWN_BITS].to_vec();
        assert!(own(&model).iter().any(|w| *w != 0.0), "a user who is known well has weights");
        model.forget(7);
        assert!(own(&model).iter().all(|w| *w == 0.0));
    }
}
